//! A chunked response body: bytes of the coding in, data into the caller's slice.
//!
//! Called by `response` only. The codec (`http::ChunkedDecoder`) says what bytes are; this file keeps those that are not
//! decoded yet and decides where the next ones are received: large chunks straight into the caller's slice, everything
//! else into a buffer of its own.

use crate::http::{ChunkError, ChunkStep, ChunkedDecoder};

use super::conn::{Conn, Piece};
use super::error::UpstreamError;

/// Received at once while framing has to be read. More than the longest line or trailer section the codec waits for.
const WIRE_BYTES: usize = 64 * 1024;

/// From this much data left in a chunk it is received in its place, without a copy.
const DIRECT_BYTES_MIN: u64 = 16 * 1024;

/// What decoding came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// So many bytes of data, at least one.
    Data(usize),
    /// The end of the body.
    End,
    /// Nothing without more bytes.
    NeedMore,
}

/// What a receive brought.
pub(super) enum Received {
    /// Data, in its place.
    Data(usize),
    /// Bytes to decode.
    Wire,
    WouldBlock,
    /// The connection ended.
    Ended,
}

pub(super) struct ChunkedBody {
    decoder: ChunkedDecoder,
    /// Bytes of the coding: `at..end` are not decoded.
    wire: Vec<u8>,
    at: usize,
    end: usize,
    trailers: Vec<u8>,
}

impl ChunkedBody {
    /// `wire` is what came along with the head.
    pub fn new(wire: Vec<u8>) -> Self {
        let end = wire.len();
        Self {
            decoder: ChunkedDecoder::new(),
            wire,
            at: 0,
            end,
            trailers: Vec::new(),
        }
    }

    /// Whether the end of the body has been decoded.
    pub fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Whether bytes are left that belong to no body.
    pub fn has_unread(&self) -> bool {
        self.at < self.end
    }

    pub fn into_trailers(self) -> Vec<u8> {
        self.trailers
    }

    /// Decodes what is here until `out` is full, and on through framing, so that the end is seen with the last data.
    pub fn decode(&mut self, out: &mut [u8]) -> Result<Decoded, ChunkError> {
        let mut written = 0;
        loop {
            let mut input = &self.wire[self.at..self.end];
            if self.decoder.data_left() > 0 {
                input = &input[..input.len().min(out.len() - written)];
            }
            match self.decoder.step(input)? {
                ChunkStep::NeedMore if written == 0 => return Ok(Decoded::NeedMore),
                ChunkStep::NeedMore => return Ok(Decoded::Data(written)),
                ChunkStep::Skip(bytes) => self.at += bytes,
                ChunkStep::Data { bytes } => {
                    out[written..written + bytes].copy_from_slice(&input[..bytes]);
                    written += bytes;
                    self.at += bytes;
                }
                ChunkStep::Trailer { bytes } => {
                    self.trailers.extend_from_slice(&input[..bytes]);
                    self.at += bytes;
                }
                ChunkStep::End { bytes } => {
                    self.at += bytes;
                    return Ok(if written == 0 {
                        Decoded::End
                    } else {
                        Decoded::Data(written)
                    });
                }
            }
        }
    }

    /// Receives more, after [`Decoded::NeedMore`].
    pub fn receive(&mut self, conn: &mut Conn, out: &mut [u8]) -> Result<Received, UpstreamError> {
        let left = self.decoder.data_left();
        if left >= DIRECT_BYTES_MIN && self.at == self.end {
            let room = usize::try_from(left).map_or(out.len(), |left| left.min(out.len()));
            return self.receive_direct(conn, &mut out[..room]);
        }
        self.wire.copy_within(self.at..self.end, 0);
        self.end -= self.at;
        self.at = 0;
        if self.wire.len() < self.end + WIRE_BYTES {
            self.wire.resize(self.end + WIRE_BYTES, 0);
        }
        Ok(match conn.try_receive(&mut self.wire[self.end..])? {
            None => Received::WouldBlock,
            Some(Piece::Bytes(bytes)) => {
                self.end += bytes;
                Received::Wire
            }
            Some(Piece::End | Piece::Cut) => Received::Ended,
        })
    }

    fn receive_direct(
        &mut self,
        conn: &mut Conn,
        out: &mut [u8],
    ) -> Result<Received, UpstreamError> {
        Ok(match conn.try_receive(out)? {
            None => Received::WouldBlock,
            Some(Piece::Bytes(bytes)) => {
                let step = self.decoder.step(&out[..bytes]);
                assert_eq!(
                    step,
                    Ok(ChunkStep::Data { bytes }),
                    "no more than the chunk's data was asked for"
                );
                Received::Data(bytes)
            }
            Some(Piece::End | Piece::Cut) => Received::Ended,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODED: &[u8] = b"5\r\nhello\r\n1;x=y\r\n,\r\n6\r\n world\r\n0\r\nA: 1\r\nB: 2\r\n\r\n";

    #[test]
    fn a_body_is_decoded_whatever_the_room() {
        for room in 1..20 {
            let mut body = ChunkedBody::new(CODED.to_vec());
            let mut data = Vec::new();
            loop {
                let mut out = vec![0; room];
                match body.decode(&mut out).expect("valid") {
                    Decoded::Data(bytes) => data.extend_from_slice(&out[..bytes]),
                    Decoded::End => break,
                    Decoded::NeedMore => panic!("all is there"),
                }
            }
            assert_eq!(data, b"hello, world");
            assert!(body.is_done() && !body.has_unread());
            assert_eq!(body.into_trailers(), b"A: 1\r\nB: 2\r\n");
        }
    }

    #[test]
    fn the_end_is_seen_with_the_last_data_and_what_follows_is_not_touched() {
        let mut coded = CODED.to_vec();
        coded.extend_from_slice(b"HTTP/1.1");
        let mut body = ChunkedBody::new(coded);
        assert_eq!(body.decode(&mut [0; 12]), Ok(Decoded::Data(12)));
        assert!(body.is_done() && body.has_unread());
        assert_eq!(body.decode(&mut [0; 12]), Ok(Decoded::End));
    }

    #[test]
    fn an_incomplete_body_needs_more() {
        let mut body = ChunkedBody::new(CODED[..7].to_vec());
        assert_eq!(body.decode(&mut [0; 9]), Ok(Decoded::Data(4)));
        assert_eq!(body.decode(&mut [0; 9]), Ok(Decoded::NeedMore));
        assert!(!body.is_done());
        assert!(ChunkedBody::new(b"x".to_vec()).decode(&mut [0; 9]).is_err());
    }
}
