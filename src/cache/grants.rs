//! Which requests the origin has accepted, for `access = "exact"`: a keyed digest of each, and until when its signature is valid.
//!
//! Called by `request` on every shard. Nothing of a request is kept but the digest, whose key is made at start and never leaves the process;
//! nothing is written to disk. A table of fixed size that all shards share without a lock: what one shard has learned the others know. What does
//! not fit, or is lost, is asked for again.
//!
//! Invariant: [`Grants::remembers`] is true only of a digest that was given to [`Grants::remember`] with that end. A place is three words that
//! are written one by one; the second is bound to the third, so that a digest is never read with the end of another one.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::prng::mix64;

/// Grants that are remembered at most: 1.5 MiB, taken when the first one comes.
const PLACES: usize = 1 << 16;
/// Places where one digest may be.
const WAYS: usize = 8;

/// The key of all digests of a process.
pub type Secret = [u8; 32];

/// A request, as far as it says who asks for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    first: u64,
    second: u64,
}

#[derive(Default)]
struct Place {
    /// 0: free.
    first: AtomicU64,
    /// The digest's second half, bound to `until`.
    bound: AtomicU64,
    /// Seconds since 1970.
    until: AtomicU64,
}

impl Place {
    fn until(&self, token: Token) -> Option<u64> {
        let first = self.first.load(Ordering::Acquire);
        let until = self.until.load(Ordering::Acquire);
        let bound = self.bound.load(Ordering::Acquire);
        (first == token.first && bound == token.second ^ mix64(until)).then_some(until)
    }

    fn set(&self, token: Token, until: u64) {
        self.until.store(until, Ordering::Release);
        self.bound
            .store(token.second ^ mix64(until), Ordering::Release);
        self.first.store(token.first, Ordering::Release);
    }

    fn clear(&self) {
        self.first.store(0, Ordering::Release);
        self.until.store(0, Ordering::Release);
    }
}

/// All grants of a process.
pub struct Grants {
    key: Secret,
    places: OnceLock<Box<[Place]>>,
}

/// What became of a grant that was to be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// It has a place.
    Placed,
    /// It has the place of another one that was still valid.
    InPlaceOfAnother,
}

impl Grants {
    /// An empty table. `key` is secret and random: who does not know it cannot make digests that meet.
    #[must_use]
    pub fn new(key: Secret) -> Self {
        Self {
            key,
            places: OnceLock::new(),
        }
    }

    /// The token of a request that `parts` say, one after the other, in only one way.
    #[must_use]
    pub fn token<'p>(&self, parts: impl Iterator<Item = &'p [u8]>) -> Token {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in parts {
            hasher.update(part);
        }
        let digest = hasher.finalize();
        let (words, _) = digest.as_bytes().as_chunks::<8>();
        Token {
            first: u64::from_le_bytes(words[0]).max(1),
            second: u64::from_le_bytes(words[1]),
        }
    }

    fn ways(places: &[Place], token: Token) -> &[Place] {
        let at = token.second as usize % (PLACES / WAYS) * WAYS;
        &places[at..at + WAYS]
    }

    /// Whether the origin has accepted this request, and its signature is valid at `now_unix`.
    #[must_use]
    pub fn remembers(&self, token: Token, now_unix: i64) -> bool {
        let Some(places) = self.places.get() else {
            return false;
        };
        let ways = Self::ways(places, token).iter();
        let until = ways.filter_map(|place| place.until(token)).max();
        until.is_some_and(|until| !is_over(until, now_unix))
    }

    /// The origin has accepted this request; its signature is valid until `until_unix`, that second included.
    pub fn remember(&self, token: Token, until_unix: i64, now_unix: i64) -> Option<Remembered> {
        let until = u64::try_from(until_unix).ok()?;
        if is_over(until, now_unix) {
            return None;
        }
        let places = self
            .places
            .get_or_init(|| (0..PLACES).map(|_| Place::default()).collect());
        let ways = Self::ways(places, token);
        if ways.iter().any(|place| place.until(token) == Some(until)) {
            return Some(Remembered::Placed);
        }
        // A free one, or else the one that is over first.
        let ends = |place: &&Place| match place.first.load(Ordering::Relaxed) {
            0 => 0,
            _ => place.until.load(Ordering::Relaxed),
        };
        let place = ways.iter().min_by_key(ends)?;
        let taken = place.first.load(Ordering::Relaxed) != 0
            && !is_over(place.until.load(Ordering::Relaxed), now_unix);
        place.set(token, until);
        Some(match taken {
            true => Remembered::InPlaceOfAnother,
            false => Remembered::Placed,
        })
    }

    /// The origin does not accept this request any more. Says whether it was remembered.
    pub fn forget(&self, token: Token) -> bool {
        let Some(places) = self.places.get() else {
            return false;
        };
        let mut found = false;
        for place in Self::ways(places, token) {
            if place.until(token).is_some() {
                place.clear();
                found = true;
            }
        }
        found
    }
}

fn is_over(until: u64, now_unix: i64) -> bool {
    u64::try_from(now_unix).is_ok_and(|now| now > until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(grants: &Grants, text: &str) -> Token {
        grants.token(std::iter::once(text.as_bytes()))
    }

    #[test]
    fn what_was_accepted_is_remembered_until_its_end_and_no_other() {
        let grants = Grants::new([7; 32]);
        let (a, b) = (token(&grants, "a"), token(&grants, "b"));
        assert!(!grants.remembers(a, 0));
        assert_eq!(grants.remember(a, 100, 100), Some(Remembered::Placed));
        assert!(grants.remembers(a, 100) && !grants.remembers(a, 101));
        assert!(!grants.remembers(b, 50));
        assert_eq!(grants.remember(b, 99, 100), None);
        assert_eq!(grants.remember(b, -1, -2), None);
        assert!(grants.forget(a) && !grants.forget(a) && !grants.forget(b));
        assert!(!grants.remembers(a, 50));
    }

    #[test]
    fn a_token_is_of_its_key() {
        let (one, other) = (Grants::new([7; 32]), Grants::new([8; 32]));
        assert_ne!(token(&one, "a"), token(&other, "a"));
        let parts = [&b"a"[..], b"b"];
        assert_eq!(one.token(parts.into_iter()), token(&one, "ab"));
    }

    #[test]
    fn the_one_that_is_over_first_makes_room() {
        let grants = Grants::new([7; 32]);
        let of_one_place = (0..u64::MAX)
            .map(|number| token(&grants, &number.to_string()))
            .filter(|token| token.second as usize % (PLACES / WAYS) == 5);
        let tokens: Vec<Token> = of_one_place.take(WAYS + 1).collect();
        for (number, token) in tokens[..WAYS].iter().enumerate() {
            let until = 1000 + (number as i64 * 5) % 8;
            assert_eq!(grants.remember(*token, until, 10), Some(Remembered::Placed));
        }
        let last = tokens[WAYS];
        assert_eq!(
            grants.remember(last, 2000, 10),
            Some(Remembered::InPlaceOfAnother)
        );
        assert!(grants.remembers(last, 10) && !grants.remembers(tokens[0], 10));
        assert!(tokens[1..].iter().all(|token| grants.remembers(*token, 10)));
        // Those that are over are nobody's loss.
        assert_eq!(
            grants.remember(tokens[0], 5000, 1500),
            Some(Remembered::Placed)
        );
    }

    #[test]
    fn an_end_is_never_read_with_the_digest_of_another() {
        let grants = Grants::new([7; 32]);
        let (a, b) = (token(&grants, "a"), token(&grants, "b"));
        let place = Place::default();
        place.set(a, 100);
        // What a reader may see while `b` is being written.
        place.until.store(9000, Ordering::Relaxed);
        assert_eq!(place.until(a), None);
        place.bound.store(b.second ^ mix64(9000), Ordering::Relaxed);
        assert_eq!((place.until(a), place.until(b)), (None, None));
        place.first.store(b.first, Ordering::Relaxed);
        assert_eq!((place.until(a), place.until(b)), (None, Some(9000)));
    }
}
