//! What the phones saw: the truth that the charging records are held against.

use std::net::SocketAddr;
use std::time::Instant;

use crate::plan::{Plan, Side};

/// What one phone saw of one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// When its INVITE or MESSAGE left or came.
    pub begun: Option<Instant>,
    /// Where the INVITE or MESSAGE went first.
    pub through: Option<SocketAddr>,
    /// When the first final answer to it came, or was given up.
    pub settled: Option<Instant>,
    /// When the first 2xx to the INVITE left or came.
    pub answered: Option<Instant>,
    /// When the BYE left or came, and who sent it.
    pub ended: Option<(Instant, Side)>,
    /// The final status of the INVITE or MESSAGE; 0 while there is none.
    pub status: u16,
    /// re-INVITEs of its own that got a 2xx.
    pub reinvites_accepted: u32,
    /// re-INVITEs of its own that got another final answer.
    pub reinvites_refused: u32,
    /// BYEs of its own that got another final answer than a 2xx.
    pub byes_refused: u32,
    /// Messages sent again.
    pub resent: u32,
    /// A request got no final answer, or a 2xx no ACK.
    pub timed_out: bool,
}

/// One call with both views of it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The caller's Call-ID.
    pub call_id: String,
    /// What it was meant to do.
    pub plan: Plan,
    /// What the caller saw.
    pub caller: Seen,
    /// What the callee saw; nothing if the call never reached it.
    pub callee: Seen,
}

impl Call {
    /// Both phones saw it answered.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.caller.answered.is_some() && self.callee.answered.is_some()
    }

    /// re-INVITEs that got a final answer, whichever side sent them.
    #[must_use]
    pub fn reinvites(&self) -> u32 {
        [self.caller, self.callee]
            .iter()
            .map(|seen| seen.reinvites_accepted + seen.reinvites_refused)
            .sum()
    }

    /// The shortest and the longest time, in milliseconds, that somebody between the phones can
    /// have seen the call last: the 2xx passed there between leaving the callee and reaching the
    /// caller, the BYE between leaving one phone and reaching the other.
    #[must_use]
    pub fn duration_ms(&self) -> Option<(u64, u64)> {
        let (early, late) = (self.callee.answered?, self.caller.answered?);
        let (one, _) = self.caller.ended?;
        let (other, _) = self.callee.ended?;
        let ms = |from: Instant, to: Instant| to.saturating_duration_since(from).as_millis() as u64;
        Some((ms(late, one.min(other)), ms(early, one.max(other))))
    }

    /// It went as its plan says, as far as the caller can tell.
    #[must_use]
    pub fn went_as_planned(&self) -> bool {
        self.caller.status == self.plan.scenario.status()
            && !self.caller.timed_out
            && !self.callee.timed_out
            && self.refused() == 0
    }

    /// Requests inside the dialog that were answered, but not with a 2xx.
    #[must_use]
    pub fn refused(&self) -> u32 {
        [self.caller, self.callee]
            .iter()
            .map(|seen| seen.reinvites_refused + seen.byes_refused)
            .sum()
    }
}

/// What one phone saw of all calls, by number.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    seen: Vec<Seen>,
}

impl Ledger {
    /// The line of a call, empty if it is new.
    pub fn at(&mut self, number: u32) -> &mut Seen {
        let place = number as usize;
        if place >= self.seen.len() {
            self.seen.resize(place + 1, Seen::default());
        }
        &mut self.seen[place]
    }

    /// The line of a call.
    #[must_use]
    pub fn of(&self, number: u32) -> Seen {
        self.seen.get(number as usize).copied().unwrap_or_default()
    }
}
