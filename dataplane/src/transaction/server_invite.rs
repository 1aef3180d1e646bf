//! INVITE server transaction (RFC 3261 17.2.1, RFC 6026 8.5), with the user agent's duty to
//! repeat a 2xx until its ACK (13.3.1.4) kept beside it.
//!
//! ```text
//!   INVITE         2xx: send, X, L         ┌──────────┐ INVITE: nothing   L: end
//!  ┌────────────┐─────────────────────────▶│ Accepted │ X: send (until the ACK)
//!  │ Proceeding │                          └──────────┘
//!  └────────────┘ 3xx-6xx: send, G, H  ┌───────────┐ ACK  ┌───────────┐
//!   INVITE: send  ────────────────────▶│ Completed │─────▶│ Confirmed │ I: end
//!   1xx: send                          └───────────┘      └───────────┘
//!                                       INVITE, G: send   H: end
//! ```

use super::{
    Act::{self, Arm, End, Rearm, Send, StopAll, StopResend, TimedOut},
    Event, Step, Timer, to,
};

/// States of RFC 3261 figure 7 with RFC 6026.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No final response yet.
    Proceeding,
    /// A 2xx was sent and not acknowledged.
    Accepted,
    /// A 2xx was sent and acknowledged.
    Acknowledged,
    /// A failure was sent.
    Completed,
    /// The failure's ACK came.
    Confirmed,
}

/// What to do when the transaction starts.
pub const START: &[Act] = &[];

/// One step of the machine.
#[must_use]
pub const fn step(state: State, event: Event) -> Step<State> {
    use State::{Accepted, Acknowledged, Completed, Confirmed, Proceeding};
    match (state, event) {
        (Proceeding, Event::Request | Event::Provisional) => to(Proceeding, &[Send]),
        (Proceeding, Event::Success) => to(Accepted, &[Send, Arm(Timer::X), Arm(Timer::L)]),
        (Proceeding, Event::Failure) => to(Completed, &[Send, Arm(Timer::G), Arm(Timer::H)]),
        (Accepted, Event::Fired(Timer::X)) => to(Accepted, &[Send, Rearm(Timer::X)]),
        (Accepted, Event::Ack) => to(Acknowledged, &[StopResend]),
        (Accepted, Event::Fired(Timer::L)) => to(Acknowledged, &[StopAll, TimedOut, End]),
        (Acknowledged, Event::Fired(Timer::L)) => to(Acknowledged, &[End]),
        (Completed, Event::Request) => to(Completed, &[Send]),
        (Completed, Event::Fired(Timer::G)) => to(Completed, &[Send, Rearm(Timer::G)]),
        (Completed, Event::Ack) => to(Confirmed, &[StopAll, Arm(Timer::I)]),
        (Completed, Event::Fired(Timer::H)) => to(Completed, &[StopAll, End]),
        (Confirmed, Event::Fired(Timer::I)) => to(Confirmed, &[End]),
        (other, _) => to(other, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_2xx_is_repeated_until_its_ack_and_its_lack_is_told() {
        let sent = step(State::Proceeding, Event::Success);
        assert_eq!(
            step(sent.next, Event::Fired(Timer::X)).acts,
            &[Send, Rearm(Timer::X)]
        );
        assert_eq!(
            step(sent.next, Event::Fired(Timer::L)).acts,
            &[StopAll, TimedOut, End]
        );
        let acked = step(sent.next, Event::Ack);
        assert_eq!(acked.acts, &[StopResend]);
        assert_eq!(step(acked.next, Event::Fired(Timer::X)).acts, &[]);
        assert_eq!(step(acked.next, Event::Fired(Timer::L)).acts, &[End]);
    }

    #[test]
    fn after_a_final_response_no_other_is_sent() {
        for state in [
            State::Accepted,
            State::Acknowledged,
            State::Completed,
            State::Confirmed,
        ] {
            for event in [Event::Provisional, Event::Success, Event::Failure] {
                assert_eq!(step(state, event).acts, &[]);
            }
        }
    }

    #[test]
    fn a_failure_is_repeated_until_its_ack() {
        let sent = step(State::Proceeding, Event::Failure);
        assert_eq!(step(sent.next, Event::Request).acts, &[Send]);
        assert_eq!(step(sent.next, Event::Ack).acts, &[StopAll, Arm(Timer::I)]);
    }
}
