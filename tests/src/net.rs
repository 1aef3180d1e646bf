//! The network between the node and the phones: it loses, repeats, delays and reorders.

use dataplane::env::SplitMix64;

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// Datagrams lost, of a thousand.
    pub loss: u64,
    /// Datagrams that arrive twice, of a thousand.
    pub duplicates: u64,
    /// Datagrams that take up to `LATE_MS` longer, of a thousand.
    pub late: u64,
    /// Least delay, milliseconds.
    pub delay_min: u64,
    /// Delay above that, drawn for each datagram: more than the gap between two reorders them.
    pub jitter: u64,
}

impl Net {
    /// Nothing is lost and everything takes the same time.
    pub const PERFECT: Self = Self {
        loss: 0,
        duplicates: 0,
        late: 0,
        delay_min: 5,
        jitter: 0,
    };

    /// A network drawn from `rng`.
    pub fn draw(rng: &mut SplitMix64) -> Self {
        let bad = rng.below(3);
        Self {
            loss: [0, 30, 200][bad as usize],
            duplicates: rng.below(3) * 60,
            late: rng.below(3) * 40,
            delay_min: 1 + rng.below(30),
            jitter: rng.below(60),
        }
    }

    /// The delay of each copy of a datagram that arrives, milliseconds.
    pub fn copies(&self, rng: &mut SplitMix64) -> impl Iterator<Item = u64> {
        let count = match rng.below(1_000) {
            drawn if drawn < self.loss => 0,
            drawn if drawn < self.loss + self.duplicates => 2,
            _ => 1,
        };
        let mut delays = [0; 2];
        for delay in &mut delays[..count] {
            let late = if rng.below(1_000) < self.late {
                rng.below(LATE_MS)
            } else {
                0
            };
            *delay = self.delay_min + rng.below(self.jitter + 1) + late;
        }
        delays.into_iter().take(count)
    }
}

/// Longest extra delay: below T4, the time after which the standard expects no old message.
const LATE_MS: u64 = 1_500;
