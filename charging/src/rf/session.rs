//! The accounting client of RFC 6733 s8.2, as a table and as the session that obeys it.
//!
//! ```text
//!            send START            answer, or stored          interval: send INTERIM
//!   Idle ──────────────▶ PendingS ──────────────────▶ Open ◀────────────────▶ PendingI
//!    │  send EVENT          │ disconnect                │ service ends           │
//!    ├─────────▶ PendingE   ▼                           ▼ send STOP              │
//!    ◀──────────────┘     Idle ◀──────────────────── PendingL ◀── STOP waited ───┘
//! ```
//!
//! One record of a session is on the wire at a time; the next waits behind it. Two things go
//! beyond the RFC's table. Where it says "disconnect user", the call ends and the session is
//! closed by a STOP with Cause-Code 3, so that no call leaves the CDF without its end; the row's
//! next state, Idle, is where that STOP leads. And a STOP that waits is sent after START or
//! INTERIM however these ended.

use crate::config::RealtimePolicy;
use crate::state::{AccountingSession, AccountingState, Record, RecordType};
use crate::time::UnixMillis;

/// Events of the client machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// Client or device requests access: the service starts.
    ServiceStarts,
    /// Client or device requests a one-time service.
    OneTimeService,
    /// Interim interval elapses, or SIP causes an INTERIM.
    IntervalElapses,
    /// User service terminated.
    ServiceEnds,
    /// Successful accounting answer.
    Success,
    /// Failure to send; `space`: the record can be stored (or overwrite an older interim).
    SendFailure {
        /// Buffer space is left.
        space: bool,
    },
    /// Failed accounting answer.
    FailedAnswer,
}

/// Actions of the client machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAction {
    /// Send the record that the event stands for.
    Send,
    /// Let the record wait behind the pending one.
    Queue,
    /// The pending record is done.
    Nothing,
    /// Store the pending record for later.
    Store,
    /// The pending record is lost, the service goes on (or has ended).
    Lose,
    /// The pending record is lost and the user is disconnected.
    Disconnect,
}

/// The rows of RFC 6733 s8.2 (accounting client), with the gaps closed: DELIVER_AND_GRANT never
/// stores, and an INTERIM while a record is pending waits. `None`: no row, an error of the caller.
#[must_use]
pub const fn transition(
    state: AccountingState,
    event: ClientEvent,
    realtime: RealtimePolicy,
) -> Option<(ClientAction, AccountingState)> {
    use AccountingState as S;
    use ClientAction as A;
    use ClientEvent as E;
    use RealtimePolicy as P;
    Some(match (state, event) {
        (S::Idle, E::ServiceStarts) => (A::Send, S::PendingS),
        (S::Idle, E::OneTimeService) => (A::Send, S::PendingE),

        (S::PendingS | S::PendingI, E::Success) => (A::Nothing, S::Open),
        (S::PendingS | S::PendingI, E::SendFailure { space }) => match (realtime, space) {
            (P::DeliverAndGrant, _) | (P::GrantAndStore, false) => (A::Disconnect, S::Idle),
            (P::GrantAndStore | P::GrantAndLose, true) => (A::Store, S::Open),
            (P::GrantAndLose, false) => (A::Lose, S::Open),
        },
        (S::PendingS | S::PendingI, E::FailedAnswer) => match realtime {
            P::GrantAndLose => (A::Lose, S::Open),
            P::DeliverAndGrant | P::GrantAndStore => (A::Disconnect, S::Idle),
        },
        (S::PendingS | S::PendingI, E::ServiceEnds | E::IntervalElapses) => (A::Queue, state),

        (S::Open, E::IntervalElapses) => (A::Send, S::PendingI),
        (S::Open, E::ServiceEnds) => (A::Send, S::PendingL),

        (S::PendingE | S::PendingL, E::Success) => (A::Nothing, S::Idle),
        (S::PendingE | S::PendingL, E::SendFailure { space: true }) => (A::Store, S::Idle),
        (S::PendingE | S::PendingL, E::SendFailure { space: false } | E::FailedAnswer) => {
            (A::Lose, S::Idle)
        }
        _ => return None,
    })
}

/// Records that may wait behind the pending one: an INTERIM and the STOP.
pub const WAITING_MAX: usize = 2;

impl AccountingSession {
    /// The event that a record of that type stands for.
    const fn event_of(record_type: RecordType) -> ClientEvent {
        match record_type {
            RecordType::Start => ClientEvent::ServiceStarts,
            RecordType::Event => ClientEvent::OneTimeService,
            RecordType::Interim => ClientEvent::IntervalElapses,
            RecordType::Stop => ClientEvent::ServiceEnds,
        }
    }

    /// The number the next record of that type gets. An INTERIM that overwrites a waiting one,
    /// which was never sent, takes over its number: numbers stay free of gaps.
    pub(crate) fn number_for(&mut self, record_type: RecordType) -> (u32, Option<Record>) {
        if record_type == RecordType::Interim {
            let old = self
                .waiting
                .iter()
                .position(|waiting| waiting.record_type == record_type);
            if let Some(index) = old {
                let record = self.waiting.remove(index);
                return (record.number, Some(record));
            }
        }
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        (number, None)
    }

    /// A new record: it becomes the pending one or waits.
    ///
    /// # Panics
    /// If the machine has no row for it: callers look at `started` and `ended` first.
    pub(crate) fn add(&mut self, record: Record, realtime: RealtimePolicy) {
        match record.record_type {
            RecordType::Start => self.started = true,
            RecordType::Stop | RecordType::Event => {
                self.ended = true;
                self.interim_due = None;
            }
            RecordType::Interim => {}
        }
        let event = Self::event_of(record.record_type);
        let (action, next) =
            transition(self.state, event, realtime).expect("records are made in order");
        if action == ClientAction::Queue {
            assert!(
                self.waiting.len() < WAITING_MAX,
                "an INTERIM is overwritten, a STOP is last"
            );
            self.waiting.push(record);
        } else {
            self.state = next;
            self.pending = Some(record);
        }
    }

    /// The pending record is done with: the machine moves and the next record follows. Returns
    /// the record and what the table says about it.
    pub(crate) fn resolve(
        &mut self,
        event: ClientEvent,
        realtime: RealtimePolicy,
    ) -> Option<(Record, ClientAction)> {
        let record = self.pending.take()?;
        let Some((action, next)) = transition(self.state, event, realtime) else {
            self.pending = Some(record);
            return None;
        };
        // Idle after "disconnect" comes once the STOP that follows is done.
        self.state = if action == ClientAction::Disconnect {
            AccountingState::Open
        } else {
            next
        };
        self.promote();
        Some((record, action))
    }

    fn promote(&mut self) {
        if self.pending.is_some() || self.waiting.is_empty() {
            return;
        }
        let record = self.waiting.remove(0);
        self.state = match record.record_type {
            RecordType::Stop => AccountingState::PendingL,
            _ => AccountingState::PendingI,
        };
        self.pending = Some(record);
    }

    /// Takes the instruction of an answer: the latest value counts (RFC 6733 s9.1), none in the
    /// answer to START means no INTERIMs (s9.8.2), none in a later answer changes nothing.
    pub(crate) fn instruct(&mut self, answered: RecordType, interval_s: Option<u32>) -> bool {
        let instructed = match (answered, interval_s) {
            (_, Some(seconds)) => seconds,
            (RecordType::Start, None) => 0,
            (_, None) => return false,
        };
        let changed = self.interim_interval_s != instructed;
        self.interim_interval_s = instructed;
        changed || (instructed != 0 && self.interim_due.is_none())
    }

    /// Plans the next periodic INTERIM `wait_ms` after the start of its period.
    pub(crate) fn plan_interim(&mut self, now: UnixMillis, wait_ms: Option<u64>) {
        self.interim_due = match wait_ms {
            Some(wait_ms) if !self.ended && self.held_stop.is_none() => {
                Some(self.interim_base.plus_ms(wait_ms).max(now))
            }
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AccountingState as S;
    use ClientAction as A;
    use ClientEvent as E;
    use RealtimePolicy::{DeliverAndGrant as DG, GrantAndLose as GL, GrantAndStore as GS};

    const SPACE: E = E::SendFailure { space: true };
    const FULL: E = E::SendFailure { space: false };

    /// Asserts one row for each of the given policies.
    fn row(state: S, event: E, policies: &[RealtimePolicy], action: A, next: S) {
        for &policy in policies {
            assert_eq!(
                transition(state, event, policy),
                Some((action, next)),
                "{state:?} {event:?} {policy:?}"
            );
        }
    }

    const ALL: [RealtimePolicy; 3] = [DG, GS, GL];

    #[test]
    fn idle_sends_start_or_event() {
        row(S::Idle, E::ServiceStarts, &ALL, A::Send, S::PendingS);
        row(S::Idle, E::OneTimeService, &ALL, A::Send, S::PendingE);
    }

    #[test]
    fn pending_s_success_opens() {
        row(S::PendingS, E::Success, &ALL, A::Nothing, S::Open);
    }

    #[test]
    fn pending_s_send_failure_with_space_stores_unless_delivery_is_demanded() {
        row(S::PendingS, SPACE, &[GS, GL], A::Store, S::Open);
        row(S::PendingS, SPACE, &[DG], A::Disconnect, S::Idle);
    }

    #[test]
    fn pending_s_send_failure_without_space_disconnects_unless_loss_is_granted() {
        row(S::PendingS, FULL, &[GL], A::Lose, S::Open);
        row(S::PendingS, FULL, &[DG, GS], A::Disconnect, S::Idle);
    }

    #[test]
    fn pending_s_failed_answer_disconnects_unless_loss_is_granted() {
        row(S::PendingS, E::FailedAnswer, &[GL], A::Lose, S::Open);
        row(
            S::PendingS,
            E::FailedAnswer,
            &[DG, GS],
            A::Disconnect,
            S::Idle,
        );
    }

    #[test]
    fn pending_s_keeps_the_stop_for_later() {
        row(S::PendingS, E::ServiceEnds, &ALL, A::Queue, S::PendingS);
    }

    #[test]
    fn open_sends_interim_and_stop() {
        row(S::Open, E::IntervalElapses, &ALL, A::Send, S::PendingI);
        row(S::Open, E::ServiceEnds, &ALL, A::Send, S::PendingL);
    }

    #[test]
    fn pending_i_behaves_as_pending_s() {
        row(S::PendingI, E::Success, &ALL, A::Nothing, S::Open);
        row(S::PendingI, SPACE, &[GS, GL], A::Store, S::Open);
        row(S::PendingI, SPACE, &[DG], A::Disconnect, S::Idle);
        row(S::PendingI, FULL, &[GL], A::Lose, S::Open);
        row(S::PendingI, FULL, &[DG, GS], A::Disconnect, S::Idle);
        row(S::PendingI, E::FailedAnswer, &[GL], A::Lose, S::Open);
        row(
            S::PendingI,
            E::FailedAnswer,
            &[DG, GS],
            A::Disconnect,
            S::Idle,
        );
        row(S::PendingI, E::ServiceEnds, &ALL, A::Queue, S::PendingI);
        row(S::PendingI, E::IntervalElapses, &ALL, A::Queue, S::PendingI);
    }

    #[test]
    fn pending_e_and_pending_l_end_in_idle_whatever_happens() {
        for state in [S::PendingE, S::PendingL] {
            row(state, E::Success, &ALL, A::Nothing, S::Idle);
            row(state, SPACE, &ALL, A::Store, S::Idle);
            row(state, FULL, &ALL, A::Lose, S::Idle);
            row(state, E::FailedAnswer, &ALL, A::Lose, S::Idle);
        }
    }

    #[test]
    fn there_are_no_other_rows() {
        for event in [E::Success, SPACE, FULL, E::FailedAnswer] {
            assert_eq!(transition(S::Idle, event, GS), None);
            assert_eq!(transition(S::Open, event, GS), None);
        }
        for state in [S::PendingS, S::Open, S::PendingI, S::PendingL, S::PendingE] {
            assert_eq!(transition(state, E::ServiceStarts, GS), None);
            assert_eq!(transition(state, E::OneTimeService, GS), None);
        }
        for state in [S::PendingL, S::PendingE] {
            assert_eq!(transition(state, E::ServiceEnds, GS), None);
            assert_eq!(transition(state, E::IntervalElapses, GS), None);
        }
    }
}
