//! Choices that can be made again: the seed is printed, and `TIDEGATE_E2E_SEED` sets it.

use std::{
    env,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// SplitMix64.
pub struct Random(u64);

impl Random {
    /// Seeded from the environment, else from the clock; says which on stderr.
    pub fn for_scenario(name: &str) -> Random {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        Self::from_seed(name, clock)
    }

    /// The same with a seed of its own if the environment names none.
    pub fn from_seed(name: &str, seed: u64) -> Random {
        let seed = env::var("TIDEGATE_E2E_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(seed);
        eprintln!("e2e: {name}: TIDEGATE_E2E_SEED={seed}");
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    pub fn up_to(&mut self, limit: Duration) -> Duration {
        Duration::from_millis(self.below(limit.as_millis() as usize) as u64)
    }
}
