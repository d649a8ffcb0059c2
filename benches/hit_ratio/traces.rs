//! Synthetic requests: which object is read, in order, and how large each object is.

use millrace::base::prng::{Prng, mix64};

/// Requests, and the sizes of what they name.
pub struct Trace {
    pub name: &'static str,
    pub requests: Vec<u32>,
    pub bytes: Vec<u64>,
}

/// How objects' sizes are spread.
#[derive(Clone, Copy)]
pub enum Sizes {
    /// All of 256 KiB.
    Equal,
    /// Three fifths of 1 to 64 KiB, three tenths up to 1 MiB, a tenth up to 8 MiB, evenly in powers of two within each.
    Mixed,
}

impl Sizes {
    fn of(self, object: u32) -> u64 {
        let random = mix64(u64::from(object) ^ 0xA5A5);
        let (low, high) = match (self, random % 10) {
            (Self::Equal, _) => return 256 << 10,
            (Self::Mixed, 0..6) => (10, 16),
            (Self::Mixed, 6..9) => (16, 20),
            (Self::Mixed, _) => (20, 23),
        };
        let part = (random >> 32) as f64 / f64::from(u32::MAX);
        let power = f64::from(low) + f64::from(high - low) * part;
        power.exp2() as u64
    }
}

/// Popularity by rank to the power of -`exponent`.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(objects: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=objects).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self(sums.collect())
    }

    fn draw(&self, prng: &Prng) -> usize {
        let total = self.0.last().copied().unwrap_or(1.0);
        let point = prng.next_u64() as f64 / u64::MAX as f64 * total;
        self.0
            .partition_point(|&sum| sum < point)
            .min(self.0.len() - 1)
    }
}

/// Requests after which the most popular object is another one.
const DRIFT: usize = 30;

/// One kind of load.
#[derive(Clone, Copy)]
pub enum Load {
    /// Independent draws.
    Zipf(f64),
    /// The same, and a fifth of all requests belongs to runs of objects that are read once.
    Scans(f64),
    /// The same, and which objects are popular changes a little all the time.
    Drift(f64),
    /// All objects in turn, again and again.
    Loop,
    /// A request of three repeats one of the last few, as many as a 200th of all objects; the others are a loop over all.
    Recent,
}

impl Load {
    /// `count` requests for `objects` objects.
    pub fn trace(
        self,
        name: &'static str,
        (objects, count): (usize, usize),
        sizes: Sizes,
    ) -> Trace {
        let prng = Prng::new(42);
        let zipf = match self {
            Self::Zipf(exponent) | Self::Scans(exponent) | Self::Drift(exponent) => {
                Zipf::new(objects, exponent)
            }
            Self::Loop | Self::Recent => Zipf::new(1, 1.0),
        };
        let mut next_new = objects;
        let mut left_of_scan = 0;
        let mut requests: Vec<u32> = Vec::with_capacity(count);
        for at in 0..count {
            let drawn = match self {
                Self::Zipf(_) => zipf.draw(&prng),
                Self::Drift(_) => (zipf.draw(&prng) + at / DRIFT) % objects,
                Self::Loop => at % objects,
                Self::Recent if at > 0 && prng.below(3) == 0 => {
                    requests[at - 1 - prng.below(at.min(objects / 200))] as usize
                }
                Self::Recent => at % objects,
                Self::Scans(_) => {
                    if left_of_scan == 0 && prng.below(8000) < 2 {
                        left_of_scan = 1000;
                    }
                    if left_of_scan > 0 {
                        left_of_scan -= 1;
                        next_new += 1;
                        next_new - 1
                    } else {
                        zipf.draw(&prng)
                    }
                }
            };
            requests.push(drawn as u32);
        }
        let bytes = (0..next_new as u32)
            .map(|object| sizes.of(object))
            .collect();
        Trace {
            name,
            requests,
            bytes,
        }
    }
}
