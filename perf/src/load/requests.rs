//! The requests of a run, built before it: one piece of bytes per key, and what a right answer to it is.
//!
//! Built by the bench and by `perf compare`, read by every worker. Invariants: during a run nothing is formatted but a
//! range; signatures (SigV4, payload by its digest, `Range` unsigned) are made once per key and hold for 15 minutes. Left
//! to others: sending, and which key is next.

use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::keys::Random;
use crate::origin::generate::Content;
use crate::sign::{self, Payload, Signer, hex};

/// What is done to the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Whole objects, or windows of them.
    Get,
    /// Heads only.
    Head,
    /// Whole uploads.
    Put,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Put => "PUT",
        }
    }
}

/// Of the objects that the bench generates.
pub const SEED: u64 = 1;

/// What the bodies of the keys are: generated ones, whose bytes are known, or ones of known sizes only.
#[derive(Debug, Clone)]
pub enum Bodies {
    /// Object `i` is the window of `size` bytes at `i × size` of one endless content, so that no two are alike.
    Generated {
        /// The size of each.
        size: u64,
        /// The endless content.
        content: Content,
    },
    /// Objects of these sizes, their bytes unknown.
    Sized(Vec<u64>),
}

impl Bodies {
    /// Generated bodies.
    pub fn generated(size: u64, seed: u64) -> Bodies {
        let content = Content::new(u64::MAX, seed);
        Bodies::Generated { size, content }
    }

    /// Bytes of this key's object.
    pub fn size(&self, key: u32) -> u64 {
        match self {
            Bodies::Generated { size, .. } => *size,
            Bodies::Sized(sizes) => sizes[key as usize],
        }
    }

    /// Up to `bytes_max` bytes of the object at `offset`; empty at its end, and where the bytes are unknown.
    pub fn slice(&self, key: u32, offset: u64, bytes_max: usize) -> &[u8] {
        match self {
            Bodies::Generated { size, content } => {
                let left = size.saturating_sub(offset).min(bytes_max as u64) as usize;
                content.slice(u64::from(key) * size + offset, left)
            }
            Bodies::Sized(_) => &[],
        }
    }

    /// The hex digest of the object; that of nothing where the bytes are unknown.
    fn sha256(&self, key: u32) -> String {
        let mut digest = Sha256::new();
        let mut at = 0;
        loop {
            let piece = self.slice(key, at, 1 << 20);
            if piece.is_empty() {
                return hex(&digest.finalize());
            }
            digest.update(piece);
            at += piece.len() as u64;
        }
    }

    /// How many of `bytes`, read at `offset` of the object, are wrong. None where the bytes are unknown.
    pub fn wrong(&self, key: u32, offset: u64, bytes: &[u8]) -> u64 {
        let Bodies::Generated { size, content } = self else {
            return 0;
        };
        let start = u64::from(key) * size + offset;
        let Some(first) = content.mismatch(start, bytes) else {
            return 0;
        };
        let rest = &bytes[(first - start) as usize..];
        let want = content.bytes(first, first + rest.len() as u64);
        want.iter()
            .zip(rest)
            .filter(|(want, have)| want != have)
            .count() as u64
    }
}

/// What to build requests from.
#[derive(Debug, Clone, Copy)]
pub struct Recipe<'a> {
    /// What is done.
    pub method: Method,
    /// The value of `Host`.
    pub host: &'a str,
    /// The path of each key, percent-encoded.
    pub paths: &'a [String],
    /// Ask for random windows of so many bytes, aligned to their size, instead of whole objects.
    pub range_bytes: Option<u64>,
    /// Sign with these credentials.
    pub signer: Option<&'a Signer>,
}

/// One request on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub key: u32,
    /// First byte of the window within the object.
    pub start: u64,
    /// Bytes of the window.
    pub bytes: u64,
}

/// Prebuilt requests.
#[derive(Debug)]
pub struct Requests {
    /// What is done.
    pub method: Method,
    /// The bodies.
    pub bodies: Arc<Bodies>,
    range_bytes: Option<u64>,
    heads: Vec<u8>,
    /// Where each key's head ends in `heads`.
    ends: Vec<u32>,
}

impl Requests {
    /// Builds, and signs as of now.
    pub fn build(recipe: Recipe<'_>, bodies: Arc<Bodies>) -> Requests {
        let now = OffsetDateTime::now_utc();
        let mut requests = Requests {
            method: recipe.method,
            bodies,
            range_bytes: recipe.range_bytes,
            heads: Vec::new(),
            ends: Vec::with_capacity(recipe.paths.len()),
        };
        for (key, path) in recipe.paths.iter().enumerate() {
            let head = requests.head_of(&recipe, key as u32, path, now);
            requests.heads.extend_from_slice(head.as_bytes());
            let end = u32::try_from(requests.heads.len()).expect("heads of less than 4 GiB");
            requests.ends.push(end);
        }
        requests
    }

    fn head_of(&self, recipe: &Recipe<'_>, key: u32, path: &str, now: OffsetDateTime) -> String {
        let method = recipe.method.name();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", recipe.host);
        let mut line = |name: &str, value: &str| {
            write!(head, "{name}: {value}\r\n").expect("a String takes everything");
        };
        let payload = match recipe.method {
            Method::Put if recipe.signer.is_some() => Payload::Sha256(self.bodies.sha256(key)),
            Method::Put | Method::Get | Method::Head => Payload::Empty,
        };
        if let Some(signer) = recipe.signer {
            let target = sign::Target {
                method,
                host: recipe.host,
                path,
                query: "",
            };
            for (name, value) in signer.sign(target, &[], &payload, now) {
                line(&name, &value);
            }
        }
        if recipe.method == Method::Put {
            line("Content-Length", &self.bodies.size(key).to_string());
        }
        if recipe.range_bytes.is_none() {
            head.push_str("\r\n");
        }
        head
    }

    /// How many keys there are.
    pub fn count(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Writes the head of a request for `key` into `out` and says what was asked.
    pub(super) fn write(&self, key: u32, random: &mut Random, out: &mut Vec<u8>) -> Asked {
        let at = key as usize;
        let start = if at == 0 {
            0
        } else {
            self.ends[at - 1] as usize
        };
        out.clear();
        out.extend_from_slice(&self.heads[start..self.ends[at] as usize]);
        let size = self.bodies.size(key);
        let Some(window) = self.range_bytes else {
            return Asked {
                key,
                start: 0,
                bytes: size,
            };
        };
        let start = random.below(size.div_ceil(window)) * window;
        let bytes = window.min(size - start);
        use std::io::Write as _;
        write!(out, "Range: bytes={start}-{}\r\n\r\n", start + bytes - 1).expect("memory takes it");
        Asked { key, start, bytes }
    }

    /// Whether this status is the right one.
    pub(super) fn accepts(&self, status: u16) -> bool {
        match self.method {
            Method::Put => (200..300).contains(&status),
            Method::Get | Method::Head => {
                status == if self.range_bytes.is_some() { 206 } else { 200 }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(recipe: Recipe<'_>) -> Requests {
        Requests::build(recipe, Arc::new(Bodies::generated(1000, 1)))
    }

    #[test]
    fn heads_are_those_of_their_keys_and_ranges_are_aligned() {
        let paths = ["/b/one".to_string(), "/b/two".to_string()];
        let recipe = Recipe {
            method: Method::Get,
            host: "h:1",
            paths: &paths,
            range_bytes: None,
            signer: None,
        };
        let (mut out, mut random) = (Vec::new(), Random::new(1));
        let asked = requests(recipe).write(1, &mut random, &mut out);
        assert_eq!(out, b"GET /b/two HTTP/1.1\r\nHost: h:1\r\n\r\n");
        assert_eq!((asked.start, asked.bytes), (0, 1000));
        let windows = requests(Recipe {
            range_bytes: Some(300),
            ..recipe
        });
        for _ in 0..50 {
            let asked = windows.write(0, &mut random, &mut out);
            assert_eq!(asked.start % 300, 0);
            assert_eq!(asked.bytes, if asked.start == 900 { 100 } else { 300 });
            let line = format!(
                "\r\nRange: bytes={}-{}\r\n\r\n",
                asked.start,
                asked.start + asked.bytes - 1
            );
            assert!(out.ends_with(line.as_bytes()));
        }
        assert!(windows.accepts(206) && !windows.accepts(200));
    }

    #[test]
    fn bodies_differ_from_key_to_key_and_wrong_bytes_are_counted() {
        let bodies = Bodies::generated(4096, 7);
        assert_ne!(bodies.slice(0, 0, 64), bodies.slice(1, 0, 64));
        assert!(bodies.slice(0, 4096, 1).is_empty());
        let mut bytes = bodies.slice(3, 100, 1000).to_vec();
        assert_eq!(bodies.wrong(3, 100, &bytes), 0);
        bytes[5] ^= 1;
        bytes[900] ^= 1;
        assert_eq!(bodies.wrong(3, 100, &bytes), 2);
    }
}
