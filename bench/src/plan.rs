//! What each call of a run is meant to do, drawn from a seed.
//!
//! A plan depends on the seed and the call's number alone, so both phones know it without
//! talking to each other.

use std::fmt;
use std::time::Duration;

use dataplane::env::SplitMix64;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scenario {
    /// Answered, held, ended.
    Plain,
    /// Refused with 486.
    Busy,
    /// Given up by the caller while it rings.
    Cancel,
    /// Answered; one side changes the media in the middle.
    Reinvite,
    /// A MESSAGE instead of a call.
    Message,
    /// Rings until the callee's side gives up with 480.
    NoAnswer,
}

impl Scenario {
    /// All, in the order of [`Mix`].
    pub const ALL: [Self; 6] = [
        Self::Plain,
        Self::Busy,
        Self::Cancel,
        Self::Reinvite,
        Self::Message,
        Self::NoAnswer,
    ];

    /// Its name on the command line and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Busy => "busy",
            Self::Cancel => "cancel",
            Self::Reinvite => "reinvite",
            Self::Message => "message",
            Self::NoAnswer => "noanswer",
        }
    }

    /// The final status the caller is to see.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Plain | Self::Reinvite | Self::Message => 200,
            Self::Busy => 486,
            Self::Cancel => 487,
            Self::NoAnswer => 480,
        }
    }
}

/// How often each scenario is drawn, in relation to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix([u32; Scenario::ALL.len()]);

impl Mix {
    /// The mix of the demonstration: most calls succeed, every kind of record occurs.
    pub const DEMO: Self = Self([60, 8, 6, 16, 6, 4]);

    /// Reads `plain=80,busy=20`; what is not named does not occur.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut weights = [0; Scenario::ALL.len()];
        for part in text.split(',') {
            let (name, weight) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not SCENARIO=WEIGHT"))?;
            let place = Scenario::ALL
                .iter()
                .position(|scenario| scenario.name() == name.trim())
                .ok_or_else(|| format!("there is no scenario `{name}`"))?;
            weights[place] = weight
                .trim()
                .parse()
                .map_err(|_| format!("`{weight}` is not a weight"))?;
        }
        if weights.iter().all(|weight| *weight == 0) {
            return Err("all weights are 0".to_owned());
        }
        Ok(Self(weights))
    }

    fn draw(&self, random: &mut SplitMix64) -> Scenario {
        let sum = self.0.iter().map(|weight| u64::from(*weight)).sum();
        let mut left = random.below(sum);
        for (scenario, weight) in Scenario::ALL.into_iter().zip(self.0) {
            if left < u64::from(weight) {
                return scenario;
            }
            left -= u64::from(weight);
        }
        unreachable!("a number below the sum of all weights falls into one of them")
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (scenario, weight) in Scenario::ALL.into_iter().zip(self.0) {
            if weight > 0 {
                write!(f, "{comma}{}={weight}", scenario.name())?;
                comma = ",";
            }
        }
        Ok(())
    }
}

/// One of the two phones of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one that calls.
    Caller,
    /// The one that is called.
    Callee,
}

/// What all calls of a run have in common.
#[derive(Clone, Debug)]
pub struct Run {
    /// Everything random comes from here.
    pub seed: u64,
    /// Which scenarios occur.
    pub mix: Mix,
    /// How long an answered call lasts.
    pub hold: Duration,
    /// How long it rings before it is answered.
    pub ring: Duration,
    /// How long a message goes out again and again that nobody answers.
    pub patience: Duration,
}

/// 64*T1, the patience of RFC 3261.
pub const PATIENCE: Duration = Duration::from_secs(32);

/// What one call is meant to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The scenario.
    pub scenario: Scenario,
    /// Who hangs up.
    pub hangs_up: Side,
    /// Who sends the re-INVITE, if there is one.
    pub reinvites: Side,
}

impl Run {
    /// The plan of a call.
    #[must_use]
    pub fn plan(&self, number: u32) -> Plan {
        let mut random = SplitMix64::new(self.seed ^ u64::from(number).rotate_left(32));
        let scenario = self.mix.draw(&mut random);
        let one_in = |bound, random: &mut SplitMix64| random.below(bound) == 0;
        let side = |callee| if callee { Side::Callee } else { Side::Caller };
        Plan {
            scenario,
            hangs_up: side(one_in(4, &mut random)),
            reinvites: side(one_in(2, &mut random)),
        }
    }

    /// A short word of this run's: calls of two runs never share a Call-ID.
    #[must_use]
    pub fn word(&self) -> String {
        format!("{:08x}", self.seed as u32 ^ (self.seed >> 32) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_reads_back_as_it_prints() {
        for text in ["plain=1", "plain=60,busy=8,cancel=6,noanswer=4"] {
            assert_eq!(Mix::parse(text).expect("a mix").to_string(), text);
        }
        for wrong in ["", "plain", "plain=x", "loud=1", "plain=0"] {
            assert!(Mix::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_draws_follow_the_weights() {
        let run = Run {
            seed: 7,
            mix: Mix::DEMO,
            hold: Duration::ZERO,
            ring: Duration::ZERO,
            patience: PATIENCE,
        };
        let busy = (0..10_000)
            .filter(|number| run.plan(*number).scenario == Scenario::Busy)
            .count();
        assert!((700..900).contains(&busy), "{busy}");
    }
}
