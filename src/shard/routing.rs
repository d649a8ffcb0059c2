//! Which shard owns what. Pure.
//!
//! Called by everybody who looks up or sends. A head lives with its object's first stripe, so that an object of one stripe is whole on one
//! shard.

use crate::base::prng::mix64;

/// The owner of stripe `index` of an object among `shards` shards.
#[must_use]
pub fn owner_of(object: u128, index: u32, shards: usize) -> usize {
    if shards == 1 {
        return 0;
    }
    let hash = mix64((object >> 64) as u64 ^ mix64(u64::from(index)));
    ((u128::from(hash) * shards as u128) >> 64) as usize
}

/// The owner of an object's head.
#[must_use]
pub fn head_owner(object: u128, shards: usize) -> usize {
    owner_of(object, 0, shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_of_one_object_spread_over_all_shards() {
        let mut counts = [0; 8];
        for index in 0..8000 {
            counts[owner_of(12345 << 64, index, 8)] += 1;
        }
        assert!(
            counts.iter().all(|&count| (800..1200).contains(&count)),
            "{counts:?}"
        );
    }

    #[test]
    fn objects_spread_over_all_shards() {
        let mut counts = [0; 8];
        for n in 0..8000u64 {
            counts[head_owner(u128::from(mix64(n)) << 64, 8)] += 1;
        }
        assert!(
            counts.iter().all(|&count| (800..1200).contains(&count)),
            "{counts:?}"
        );
    }
}
