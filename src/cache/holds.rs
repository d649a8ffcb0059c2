//! Objects that may not be stored for a while: a write to them was begun, its end was not seen, and the origin may yet do it.
//!
//! Called by `shard` (the owner of the heads) when a write ends in doubt, and before each publication. Bounded: when it is full, nothing is
//! stored until the last hold is over. Pure: the time is an argument.

use hashbrown::HashMap;

/// Objects held one by one.
pub const HOLDS_MAX: usize = 16 * 1024;

/// The holds of one shard.
#[derive(Debug, Default)]
pub struct Holds {
    /// By what digests of an object and of its versions have in common.
    objects: HashMap<u64, u64>,
    everything_until_ms: u64,
}

/// An object and all its versions.
fn group_of(object: u128) -> u64 {
    (object >> 64) as u64
}

impl Holds {
    /// Holds an object until `until_ms`.
    pub fn add(&mut self, object: u128, until_ms: u64) {
        let group = group_of(object);
        if self.objects.len() >= HOLDS_MAX && !self.objects.contains_key(&group) {
            return self.add_everything(until_ms);
        }
        let until = self.objects.entry(group).or_default();
        *until = until_ms.max(*until);
    }

    /// Holds every object until `until_ms`.
    pub fn add_everything(&mut self, until_ms: u64) {
        self.everything_until_ms = self.everything_until_ms.max(until_ms);
    }

    /// Whether an object is held at `now_ms`.
    pub fn covers(&mut self, object: u128, now_ms: u64) -> bool {
        if now_ms < self.everything_until_ms {
            return true;
        }
        let Some(&until_ms) = self.objects.get(&group_of(object)) else {
            return false;
        };
        if now_ms >= until_ms {
            self.objects.retain(|_, until_ms| now_ms < *until_ms);
        }
        now_ms < until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_held_until_its_time_and_no_longer() {
        let mut holds = Holds::default();
        let (one, version, other) = (1 << 64, 1 << 64 | 5, 2 << 64);
        holds.add(one, 1000);
        holds.add(one, 500);
        assert!(holds.covers(one, 999) && holds.covers(version, 999));
        assert!(!holds.covers(other, 999) && !holds.covers(one, 1000));
        assert!(holds.objects.is_empty());
    }

    #[test]
    fn more_objects_than_can_be_held_hold_everything() {
        let mut holds = Holds::default();
        for object in 0..=HOLDS_MAX as u128 {
            holds.add(object << 64, 10);
        }
        assert!(holds.covers(u128::MAX, 9) && !holds.covers(u128::MAX, 10));
        assert_eq!(holds.objects.len(), HOLDS_MAX);
    }
}
