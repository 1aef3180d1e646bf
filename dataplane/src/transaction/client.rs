//! Non-INVITE client transaction (RFC 3261 17.1.2).
//!
//! ```text
//!   request sent, E, F
//!   ┌────────┐ 1xx  ┌────────────┐ final: to user  ┌───────────┐
//!   │ Trying │─────▶│ Proceeding │────────────────▶│ Completed │ K: end
//!   └────────┘      └────────────┘                 └───────────┘
//!    E: send         E: send (every T2)   F in Trying, Proceeding: timed out
//! ```

use super::{
    Act::{self, Arm, End, Rearm, Send, StopAll, TimedOut, ToUser},
    Event, Step, Timer, to,
};

/// States of RFC 3261 figure 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Request sent, nothing heard.
    Trying,
    /// A provisional response was heard.
    Proceeding,
    /// The final response was heard.
    Completed,
}

/// What to do when the transaction starts.
pub const START: &[Act] = &[Send, Arm(Timer::E), Arm(Timer::F)];

/// One step of the machine.
#[must_use]
pub const fn step(state: State, event: Event) -> Step<State> {
    use State::{Completed, Proceeding, Trying};
    match (state, event) {
        (Trying | Proceeding, Event::Fired(Timer::E)) => to(state, &[Send, Rearm(Timer::E)]),
        (Trying | Proceeding, Event::Fired(Timer::F)) => to(Completed, &[StopAll, TimedOut, End]),
        (Trying | Proceeding, Event::Provisional) => to(Proceeding, &[ToUser]),
        (Trying | Proceeding, Event::Success | Event::Failure) => {
            to(Completed, &[StopAll, ToUser, Arm(Timer::K)])
        }
        (Completed, Event::Fired(Timer::K)) => to(Completed, &[End]),
        (other, _) => to(other, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_response_is_told_once() {
        let first = step(State::Trying, Event::Success);
        assert_eq!(first.acts, &[StopAll, ToUser, Arm(Timer::K)]);
        assert_eq!(step(first.next, Event::Success).acts, &[]);
    }

    #[test]
    fn no_answer_ends_it_in_trying_and_in_proceeding() {
        for state in [State::Trying, State::Proceeding] {
            assert_eq!(
                step(state, Event::Fired(Timer::F)).acts,
                &[StopAll, TimedOut, End]
            );
        }
    }
}
