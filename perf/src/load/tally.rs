//! What a worker counts and what a run adds up: requests, bytes, errors, histograms, its own CPU.
//!
//! Written by one worker each, merged at the end. Invariants: latencies are whole microseconds, at least 1, up to an
//! hour, to three digits; of the failures only the first few keep their words, all are counted.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

use crate::results::Quantiles;

const LONGEST_US: u64 = 3_600_000_000;
const MESSAGES_MAX: usize = 5;

/// A latency histogram in microseconds.
#[derive(Clone)]
pub struct Latencies(Histogram<u64>);

impl std::fmt::Debug for Latencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} latencies, {:?}", self.count(), self.quantiles())
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Latencies(Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are in order"))
    }
}

impl Latencies {
    /// Adds one.
    pub fn record_ns(&mut self, ns: u64) {
        self.0.saturating_record(((ns + 500) / 1000).max(1));
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The quantiles; all 0 where there is nothing.
    pub fn quantiles(&self) -> Quantiles {
        let at = |quantile: f64| self.0.value_at_quantile(quantile);
        Quantiles {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max(),
            mean_us: self.0.mean(),
        }
    }

    /// HDR V2, deflated, in base64.
    pub fn encoded(&self) -> String {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.0, &mut bytes)
            .expect("memory takes it");
        base64_simd::STANDARD.encode_to_string(bytes)
    }

    fn merge(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("the same bounds");
    }
}

/// What was seen while measured.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Right answers that ended.
    pub requests: u64,
    /// Body bytes moved, of unfinished answers too.
    pub bytes: u64,
    /// Requests without a right answer: wrong status or length, cut, never answered.
    pub errors: u64,
    /// Bytes that were wrong or missing.
    pub wrong_bytes: u64,
    /// Bodies that were compared, whole or by windows.
    pub verified_bodies: u64,
    /// From the request (when it was due) to its last byte.
    pub latency: Latencies,
    /// From the request (when it was due) to its first byte.
    pub first_byte: Latencies,
    /// When the last answer ended, nanoseconds since the start of the run.
    pub last_ns: u64,
    /// CPU of the worker.
    pub cpu_ns: u64,
    /// The first few failures in words.
    pub messages: Vec<String>,
    /// Digests of whole bodies by key, where they were asked for.
    pub digests: Vec<(u32, String)>,
    /// Lengths of whole bodies by key, with the digests.
    pub lengths: Vec<(u32, u64)>,
}

impl Tally {
    /// Counts a failure.
    pub(super) fn fail(&mut self, message: impl FnOnce() -> String) {
        self.errors += 1;
        if self.messages.len() < MESSAGES_MAX {
            self.messages.push(message());
        }
    }

    /// Adds another worker's.
    pub(super) fn merge(&mut self, other: Tally) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.wrong_bytes += other.wrong_bytes;
        self.verified_bodies += other.verified_bodies;
        self.latency.merge(&other.latency);
        self.first_byte.merge(&other.first_byte);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.cpu_ns += other.cpu_ns;
        self.messages.extend(other.messages);
        self.messages.truncate(MESSAGES_MAX);
        self.digests.extend(other.digests);
        self.lengths.extend(other.lengths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;

    #[test]
    fn histograms_survive_their_encoding() {
        let mut latencies = Latencies::default();
        for us in 1..=1000_u64 {
            latencies.record_ns(us * 1000);
        }
        let quantiles = latencies.quantiles();
        assert_eq!(
            (quantiles.p50_us, quantiles.p99_us, quantiles.max_us),
            (500, 990, 1000)
        );
        let bytes = base64_simd::STANDARD
            .decode_to_vec(latencies.encoded())
            .expect("base64");
        let back: Histogram<u64> = Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .expect("an HDR histogram");
        assert_eq!((back.len(), back.value_at_quantile(0.5)), (1000, 500));
    }
}
