//! One tunnel as one line of JSON, beside the lines of requests.
//!
//! Called by [`super::ShardLog::record_tunnel`] when a tunnel has ended, or was refused. The invariants are those of [`super::Record`].

use std::io::Write;
use std::net::SocketAddr;

use super::record::{NAME_BYTES_MAX, begin, end, number, text};

/// What is logged of one tunnel.
#[derive(Debug, Clone, Copy)]
pub struct TunnelRecord<'a> {
    /// When the client's connection, or its `CONNECT`, came: milliseconds since 1970.
    pub time_unix_ms: u64,
    /// The client's end of the connection.
    pub client: SocketAddr,
    /// How it asked: `sni` or `connect`.
    pub door: &'static str,
    /// Where it leads, `host:port`; empty if it was refused before that was known.
    pub destination: &'a [u8],
    /// The address that was dialled.
    pub address: Option<SocketAddr>,
    /// Bytes given to the client.
    pub bytes_sent: u64,
    /// Bytes given to the destination.
    pub bytes_received: u64,
    /// How it ended, or `refused`.
    pub end: &'static str,
    /// How long it lasted, microseconds.
    pub duration_us: u64,
    /// Why it was refused, in our own words.
    pub error: Option<&'static str>,
}

impl TunnelRecord<'_> {
    /// Appends the line, its end included, to `out`.
    pub fn write(&self, shard: usize, out: &mut Vec<u8>) {
        let before = out.len();
        begin(out, self.time_unix_ms, shard, self.client);
        out.extend_from_slice(b",\"tunnel\":");
        text(out, self.door.as_bytes(), NAME_BYTES_MAX);
        out.extend_from_slice(b",\"destination\":");
        text(out, self.destination, NAME_BYTES_MAX);
        out.extend_from_slice(b",\"address\":");
        match self.address {
            Some(address) => write!(out, "\"{address}\"").expect("a Vec takes every byte"),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"bytes_sent\":");
        number(out, self.bytes_sent);
        out.extend_from_slice(b",\"bytes_received\":");
        number(out, self.bytes_received);
        out.extend_from_slice(b",\"end\":");
        text(out, self.end.as_bytes(), NAME_BYTES_MAX);
        out.extend_from_slice(b",\"duration_us\":");
        number(out, self.duration_us);
        out.extend_from_slice(b",\"error\":");
        let error = self.error.unwrap_or_default();
        text(out, error.as_bytes(), NAME_BYTES_MAX);
        end(out, before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(record: &TunnelRecord<'_>) -> serde_json::Value {
        let mut out = Vec::new();
        record.write(3, &mut out);
        assert_eq!(out.pop(), Some(b'\n'));
        serde_json::from_slice(&out).expect("JSON")
    }

    #[test]
    fn a_line_is_json_whatever_a_client_named() {
        let hostile = [&b"a\"\\\n\xff"[..], &[0; 300]].concat();
        let mut record = TunnelRecord {
            time_unix_ms: 1_700_000_000_000,
            client: "127.0.0.1:1".parse().expect("an address"),
            door: "sni",
            destination: &hostile,
            address: "[::1]:443".parse().ok(),
            bytes_sent: u64::MAX,
            bytes_received: 7,
            end: "closed",
            duration_us: 5,
            error: None,
        };
        let full = line(&record);
        assert_eq!(full["address"], "[::1]:443");
        assert_eq!(full["bytes_sent"], u64::MAX);
        assert_eq!(full["shard"], 3);
        assert!(full["error"].is_null());
        record.destination = b"";
        record.address = None;
        record.error = Some("no name");
        let refused = line(&record);
        assert!(refused["destination"].is_null() && refused["address"].is_null());
        assert_eq!(refused["error"], "no name");
    }
}
