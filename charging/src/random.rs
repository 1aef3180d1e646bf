//! A small seeded generator: jitter, first identifiers. Nothing here is a secret.

/// SplitMix64 (Steele, Lea and Flood, 2014): one addition and three mixes per number.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// A generator that gives the same numbers for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next 32 bits.
    pub const fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// Uniform in `low..=high`; `low` if the range is empty.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        if high <= low {
            return low;
        }
        let span = high - low;
        if span == u64::MAX {
            return self.next_u64();
        }
        // The multiply-shift of Lemire: its bias is below span / 2^64.
        low + ((self.next_u64() as u128 * (span as u128 + 1)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let mut generator = SplitMix64::new(1_234_567);
        // First outputs of the reference implementation for this seed.
        assert_eq!(generator.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(generator.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_range_is_kept_at_both_ends() {
        let mut generator = SplitMix64::new(7);
        let mut seen = [false; 3];
        for _ in 0..200 {
            seen[(generator.between(5, 7) - 5) as usize] = true;
        }
        assert_eq!(seen, [true; 3]);
        assert_eq!(generator.between(9, 3), 9);
    }
}
