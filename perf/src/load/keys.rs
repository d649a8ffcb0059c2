//! Which key is asked for next: each once in order, uniform, or Zipf; and the random numbers behind it.
//!
//! Called once per request by a worker. Pure and seeded. Invariant: one draw costs two random numbers and one table
//! line at most (Walker's alias method), whatever the number of keys.

use std::sync::Arc;

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `[0, 1)`.
    fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How keys are drawn.
#[derive(Debug, Clone)]
pub enum Picks {
    /// Key `n` for request `n`, from 0, around the end.
    InOrder {
        /// How many keys there are.
        count: u32,
    },
    /// Any key, all alike.
    Uniform {
        /// How many keys there are.
        count: u32,
    },
    /// Key of rank `r` (from 1) with weight `1 / r^theta`.
    Zipf(Arc<Alias>),
}

impl Picks {
    /// Zipf over `count` keys.
    pub fn zipf(count: u32, theta: f64) -> Picks {
        let weights: Vec<f64> = (1..=count)
            .map(|rank| f64::from(rank).powf(-theta))
            .collect();
        Picks::Zipf(Arc::new(Alias::new(&weights)))
    }

    /// The key of request number `ticket`.
    pub fn draw(&self, ticket: u64, random: &mut Random) -> u32 {
        match self {
            Picks::InOrder { count } => (ticket % u64::from(*count)) as u32,
            Picks::Uniform { count } => random.below(u64::from(*count)) as u32,
            Picks::Zipf(alias) => alias.draw(random),
        }
    }
}

/// Walker's alias table of a discrete distribution.
#[derive(Debug)]
pub struct Alias {
    /// For each column: the probability to keep it, and what it is otherwise.
    columns: Vec<(f64, u32)>,
}

impl Alias {
    fn new(weights: &[f64]) -> Alias {
        let total: f64 = weights.iter().sum();
        let count = weights.len() as f64;
        let mut scaled: Vec<f64> = weights
            .iter()
            .map(|weight| weight * count / total)
            .collect();
        let mut columns: Vec<(f64, u32)> = (0..weights.len()).map(|at| (1.0, at as u32)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|at| scaled[*at] < 1.0);
        while let (Some(low), Some(high)) = (small.pop(), large.last().copied()) {
            columns[low] = (scaled[low], high as u32);
            scaled[high] -= 1.0 - scaled[low];
            if scaled[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Alias { columns }
    }

    fn draw(&self, random: &mut Random) -> u32 {
        let column = random.below(self.columns.len() as u64) as usize;
        let (keep, other) = self.columns[column];
        if random.unit() < keep {
            column as u32
        } else {
            other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: u32 = 400_000;

    fn counts(picks: &Picks, keys: usize) -> Vec<u32> {
        let mut random = Random::new(1);
        let mut counts = vec![0; keys];
        for ticket in 0..u64::from(DRAWS) {
            counts[picks.draw(ticket, &mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn zipf_gives_each_rank_its_weight() {
        let counts = counts(&Picks::zipf(1000, 0.99), 1000);
        let sum: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-0.99)).sum();
        for rank in [1_u32, 2, 3, 10, 50] {
            let want = f64::from(DRAWS) * f64::from(rank).powf(-0.99) / sum;
            let have = f64::from(counts[rank as usize - 1]);
            assert!(
                (have / want - 1.0).abs() < 0.08,
                "rank {rank}: {have}, not {want}"
            );
        }
        assert!(counts.iter().all(|count| *count > 0));
    }

    #[test]
    fn uniform_keys_are_alike_and_ordered_ones_in_order() {
        for count in counts(&Picks::Uniform { count: 100 }, 100) {
            assert!((3_700..4_300).contains(&count), "{count}");
        }
        let picks = Picks::InOrder { count: 3 };
        let drawn: Vec<u32> = (0..5)
            .map(|at| picks.draw(at, &mut Random::new(0)))
            .collect();
        assert_eq!(drawn, [0, 1, 2, 0, 1]);
    }
}
