//! INVITE client transaction (RFC 3261 17.1.1, RFC 6026 8.4).
//!
//! ```text
//!            INVITE sent, A, B
//!   A: send ┌─────────┐ 1xx      ┌────────────┐
//!    ┌─────▶│ Calling │─────────▶│ Proceeding │──┐ 1xx: to user
//!    └──────└─────────┘          └────────────┘◀─┘
//!     B: timed out │ 2xx, 3xx-6xx      │ 2xx: to user       3xx-6xx: ACK, to user
//!                  ▼                   ▼                        ▼
//!               (as Proceeding)   ┌──────────┐            ┌───────────┐ 3xx-6xx: ACK
//!                                 │ Accepted │ 2xx: user  │ Completed │ D: end
//!                                 └──────────┘ M: end     └───────────┘
//! ```

use super::{
    Act::{self, Ack, Arm, End, Rearm, Send, StopAll, TimedOut, ToUser},
    Event, Step, Timer, to,
};

/// States of RFC 3261 figure 5 with RFC 6026.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// INVITE sent, nothing heard.
    Calling,
    /// A provisional response was heard.
    Proceeding,
    /// A 2xx was heard; more of them may come from other forks.
    Accepted,
    /// A failure response was heard and acknowledged.
    Completed,
}

/// What to do when the transaction starts.
pub const START: &[Act] = &[Send, Arm(Timer::A), Arm(Timer::B)];

/// One step of the machine.
#[must_use]
pub const fn step(state: State, event: Event) -> Step<State> {
    use State::{Accepted, Calling, Completed, Proceeding};
    match (state, event) {
        (Calling, Event::Fired(Timer::A)) => to(Calling, &[Send, Rearm(Timer::A)]),
        (Calling, Event::Fired(Timer::B)) => to(Completed, &[StopAll, TimedOut, End]),
        // Armed in Proceeding only for an INVITE that was given up (`Layer::abandon`).
        (Proceeding, Event::Fired(Timer::B)) => to(Completed, &[StopAll, TimedOut, End]),
        (Calling, Event::Provisional) => to(Proceeding, &[StopAll, ToUser]),
        (Proceeding, Event::Provisional) => to(Proceeding, &[ToUser]),
        (Calling | Proceeding, Event::Success) => to(Accepted, &[StopAll, ToUser, Arm(Timer::M)]),
        (Calling | Proceeding, Event::Failure) => {
            to(Completed, &[StopAll, Ack, ToUser, Arm(Timer::D)])
        }
        (Accepted, Event::Success) => to(Accepted, &[ToUser]),
        (Accepted, Event::Fired(Timer::M)) => to(Accepted, &[End]),
        (Completed, Event::Failure) => to(Completed, &[Ack]),
        (Completed, Event::Fired(Timer::D)) => to(Completed, &[End]),
        (other, _) => to(other, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_repeated_until_something_is_heard_then_never_again() {
        assert_eq!(
            step(State::Calling, Event::Fired(Timer::A)).acts,
            &[Send, Rearm(Timer::A)]
        );
        let ringing = step(State::Calling, Event::Provisional);
        assert_eq!(ringing.acts, &[StopAll, ToUser]);
        assert_eq!(step(ringing.next, Event::Fired(Timer::A)).acts, &[]);
    }

    #[test]
    fn the_wait_for_the_end_of_a_given_up_invite_is_bounded() {
        let ringing = step(State::Calling, Event::Provisional).next;
        assert_eq!(
            step(ringing, Event::Fired(Timer::B)).acts,
            &[StopAll, TimedOut, End]
        );
    }

    #[test]
    fn a_failure_is_acknowledged_every_time_and_told_once() {
        let first = step(State::Proceeding, Event::Failure);
        assert_eq!(first.acts, &[StopAll, Ack, ToUser, Arm(Timer::D)]);
        assert_eq!(step(first.next, Event::Failure).acts, &[Ack]);
        assert_eq!(step(first.next, Event::Success).acts, &[]);
    }

    #[test]
    fn every_2xx_reaches_the_user_and_a_late_1xx_does_not() {
        let first = step(State::Calling, Event::Success);
        assert_eq!(first.next, State::Accepted);
        assert_eq!(step(first.next, Event::Success).acts, &[ToUser]);
        assert_eq!(step(first.next, Event::Provisional).acts, &[]);
        assert_eq!(step(first.next, Event::Fired(Timer::M)).acts, &[End]);
    }
}
