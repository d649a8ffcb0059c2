//! Buffers that uploads receive into, lent for one step each: what waits for its client has none, and what waits for its origin has one only
//! for what the origin has not taken.
//!
//! Called by `request`. A few uploads of a shard at a time take long strides; what their origins do not take at once stays where it is. All
//! others take short ones. So a thousand stalled uploads cost a thousand short strides at most, and a fast one moves much in each call.

use std::cell::RefCell;
use std::rc::Rc;

use crate::base::places::{Place, Places};

/// Bytes of a short stride.
pub const SHORT_BYTES: usize = 16 * 1024;
/// Bytes of a long one.
const LONG_BYTES: usize = 256 * 1024;
/// Long strides whose bytes their origins have not taken yet.
const LONG_MAX: usize = 8;
/// Buffers of each length that are kept for the next one.
const IDLE_MAX: usize = 4;

/// The buffers of one shard.
pub struct Strides {
    places: Rc<Places>,
    long: RefCell<Vec<Vec<u8>>>,
    short: RefCell<Vec<Vec<u8>>>,
}

impl Default for Strides {
    fn default() -> Self {
        Self {
            places: Places::new(LONG_MAX),
            long: RefCell::default(),
            short: RefCell::default(),
        }
    }
}

impl Strides {
    /// A buffer of a body of which `left` bytes are to come, and the place that a long one takes for as long as it is held.
    #[must_use]
    pub fn lend(&self, left: u64) -> (Vec<u8>, Option<Place>) {
        let long = left > SHORT_BYTES as u64;
        let place = long.then(|| self.places.take()).flatten();
        let (idle, bytes) = match place {
            Some(_) => (&self.long, LONG_BYTES),
            None => (&self.short, SHORT_BYTES),
        };
        let buffer = idle.borrow_mut().pop();
        (buffer.unwrap_or_else(|| vec![0; bytes]), place)
    }

    /// Takes one back.
    pub fn give_back(&self, buffer: Vec<u8>) {
        let idle = match buffer.len() {
            LONG_BYTES => &self.long,
            SHORT_BYTES => &self.short,
            _ => return,
        };
        let mut idle = idle.borrow_mut();
        if idle.len() < IDLE_MAX {
            idle.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_strides_are_long_at_a_time() {
        let strides = Strides::default();
        let mut held: Vec<_> = (0..LONG_MAX).map(|_| strides.lend(u64::MAX)).collect();
        assert!(held.iter().all(|(buffer, _)| buffer.len() == LONG_BYTES));
        assert_eq!(strides.lend(u64::MAX).0.len(), SHORT_BYTES);
        let (buffer, place) = held.pop().expect("it is held");
        let at = buffer.as_ptr();
        strides.give_back(buffer);
        drop(place);
        assert_eq!(strides.lend(u64::MAX).0.as_ptr(), at, "the same one again");
        assert_eq!(
            strides.lend(1).0.len(),
            SHORT_BYTES,
            "there is little to come"
        );
    }
}
