//! What the comparison promises, by simulation with fixed seeds and by properties. `--nocapture` prints the tables.

mod details;
mod means;
mod promises;
mod properties;
mod quantiles;

use super::Counts;

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// How many of `n` independent requests fail: by the gaps between failures, which is exact.
    fn failures(&mut self, n: u64, rate: f64) -> Counts {
        if rate > 0.5 {
            let kept = self.failures(n, 1.0 - rate);
            return Counts::new(n - kept.failures, n);
        }
        let (mut failures, mut at) = (0, 0.0);
        if rate <= 0.0 {
            return Counts::new(0, n);
        }
        loop {
            at += ((1.0 - self.unit()).ln() / (1.0 - rate).ln()).floor() + 1.0;
            if at > n as f64 {
                break;
            }
            failures += 1;
        }
        Counts::new(failures, n)
    }
}
