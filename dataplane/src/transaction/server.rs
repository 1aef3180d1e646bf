//! Non-INVITE server transaction (RFC 3261 17.2.2).
//!
//! ```text
//!   ┌────────┐ 1xx: send ┌────────────┐ final: send, J ┌───────────┐
//!   │ Trying │──────────▶│ Proceeding │───────────────▶│ Completed │ request: send   J: end
//!   └────────┘           └────────────┘                └───────────┘
//!                         request: send
//! ```

use super::{
    Act::{self, Arm, End, Send},
    Event, Step, Timer, to,
};

/// States of RFC 3261 figure 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was answered yet.
    Trying,
    /// A provisional response was sent.
    Proceeding,
    /// The final response was sent.
    Completed,
}

/// What to do when the transaction starts.
pub const START: &[Act] = &[];

/// One step of the machine.
#[must_use]
pub const fn step(state: State, event: Event) -> Step<State> {
    use State::{Completed, Proceeding, Trying};
    match (state, event) {
        (Trying | Proceeding, Event::Provisional) => to(Proceeding, &[Send]),
        (Trying | Proceeding, Event::Success | Event::Failure) => {
            to(Completed, &[Send, Arm(Timer::J)])
        }
        (Proceeding | Completed, Event::Request) => to(state, &[Send]),
        (Completed, Event::Fired(Timer::J)) => to(Completed, &[End]),
        (other, _) => to(other, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_request_gets_the_same_answer_and_never_a_second_one() {
        assert_eq!(step(State::Trying, Event::Request).acts, &[]);
        let done = step(State::Trying, Event::Success);
        assert_eq!(step(done.next, Event::Request).acts, &[Send]);
        assert_eq!(step(done.next, Event::Failure).acts, &[]);
    }
}
