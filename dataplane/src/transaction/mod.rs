//! SIP transactions (RFC 3261 section 17 with the corrections of RFC 6026).
//!
//! Four state machines, each a pure `step(state, event) -> Step` in a file of its own, and the
//! [`Layer`] that runs them: it matches messages to transactions, keeps the bytes that may have
//! to be sent again, and arms the standard's timers.
//!
//! ```text
//!   datagram ─▶ Layer::match_request / match_response ─▶ step ─▶ [Act] ─▶ resend · arm · tell the user
//!   timer    ─▶ Layer::on_timer ───────────────────────▶ step ─┘
//! ```

pub mod client;
pub mod client_invite;
mod head;
pub mod key;
pub mod server;
pub mod server_invite;
mod table;

pub use head::{BranchIds, WrittenHead, write_head};
pub use key::{ServerKey, key_of_cancelled, key_of_request, merge_key};
pub use table::{Expired, Layer, MatchedRequest, Owned, RequestHead, Timers, TxnId, TxnLimits};

/// The timers of RFC 3261 17, RFC 6026 and the user agent's retransmission of a 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// INVITE request retransmission (17.1.1.2): T1, doubling without bound.
    A,
    /// INVITE client time-out (17.1.1.2): 64*T1.
    B,
    /// Wait for retransmitted final responses to INVITE (17.1.1.2): 32 s over UDP.
    D,
    /// Non-INVITE request retransmission (17.1.2.2): T1, doubling up to T2.
    E,
    /// Non-INVITE client time-out (17.1.2.2): 64*T1.
    F,
    /// INVITE response retransmission (17.2.1): T1, doubling up to T2.
    G,
    /// Wait for the ACK of a failure response (17.2.1): 64*T1.
    H,
    /// Absorb retransmitted ACKs (17.2.1): T4 over UDP.
    I,
    /// Absorb retransmitted non-INVITE requests (17.2.2): 64*T1 over UDP.
    J,
    /// Absorb retransmitted responses (17.1.2.2): T4 over UDP.
    K,
    /// Accepted state of an INVITE server transaction (RFC 6026 7.1): 64*T1.
    L,
    /// Accepted state of an INVITE client transaction (RFC 6026 7.2): 64*T1.
    M,
    /// Retransmission of a 2xx to INVITE by the user agent (13.3.1.4): T1, doubling up to T2.
    X,
}

impl Timer {
    /// Retransmission timers use slot 0 of a transaction, its lifetime slot 1.
    const fn slot(self) -> usize {
        match self {
            Self::A | Self::E | Self::G | Self::X => 0,
            _ => 1,
        }
    }
}

/// What a transaction is asked to react to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A provisional response (1xx) was received or is sent by the user.
    Provisional,
    /// A 2xx response was received or is sent by the user.
    Success,
    /// A 3xx-6xx response was received or is sent by the user.
    Failure,
    /// The request was received again.
    Request,
    /// An ACK was received (INVITE server transactions).
    Ack,
    /// A timer expired.
    Fired(Timer),
}

/// One thing the layer does for a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Send the kept message (again).
    Send,
    /// Send the ACK of a failure response (again).
    Ack,
    /// Hand the message to the transaction user.
    ToUser,
    /// Start a timer at its first interval.
    Arm(Timer),
    /// Start a retransmission timer at its next interval.
    Rearm(Timer),
    /// Stop the retransmission timer.
    StopResend,
    /// Stop both timers.
    StopAll,
    /// Tell the user that no answer came.
    TimedOut,
    /// Forget the transaction.
    End,
}

/// The outcome of one step: the next state and what to do, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<S> {
    /// State after the step.
    pub next: S,
    /// Acts in order.
    pub acts: &'static [Act],
}

/// Shorthand used by the transition tables.
const fn to<S: Copy>(next: S, acts: &'static [Act]) -> Step<S> {
    Step { next, acts }
}
