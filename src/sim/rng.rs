//! A small generator of repeatable random numbers (SplitMix64).

use std::ops::RangeInclusive;
use std::time::Duration;

/// Same seed, same numbers, on every machine.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }

    /// True with the given probability (0 to 1).
    pub fn chance(&mut self, probability: f64) -> bool {
        ((self.next_u64() >> 11) as f64) / ((1u64 << 53) as f64) < probability
    }

    /// A duration within the range, in steps of a microsecond.
    pub fn duration(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let low = range.start().as_micros() as u64;
        let high = (range.end().as_micros() as u64).max(low);
        Duration::from_micros(low + self.below(high - low + 1))
    }

    /// A random (version 4) UUID.
    pub fn uuid(&mut self) -> String {
        let (a, b) = (self.next_u64(), self.next_u64());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:x}{:03x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            8 + (b >> 62),
            (b >> 48) & 0xfff,
            b & 0xffff_ffff_ffff
        )
    }

    /// A name suffix as the API server makes for `generateName`: without vowels and look-alikes.
    pub fn suffix(&mut self, length: usize) -> String {
        encode(self.next_u64(), length)
    }
}

/// Scrambles a number; equal numbers stay equal.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a, scrambled: a hash that never changes between builds.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)))
}

/// Writes a number with the alphabet of generated names.
pub(crate) fn encode(mut number: u64, length: usize) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..length)
        .map(|_| {
            let at = (number % 27) as usize;
            number /= 27;
            ALPHABET.get(at).copied().map_or('x', char::from)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_numbers() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        assert_eq!((a.uuid(), a.suffix(5), a.next_u64()), (b.uuid(), b.suffix(5), b.next_u64()));
        assert_ne!(Rng::new(7).next_u64(), Rng::new(8).next_u64());
    }

    #[test]
    fn uuids_have_their_shape() {
        let id = Rng::new(1).uuid();
        assert_eq!(id.len(), 36);
        assert_eq!(id.as_bytes()[14], b'4');
        assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
    }

    #[test]
    fn durations_stay_in_range() {
        let range = Duration::from_millis(3)..=Duration::from_millis(5);
        let mut rng = Rng::new(3);
        assert!((0..1000).all(|_| range.contains(&rng.duration(&range))));
    }
}
