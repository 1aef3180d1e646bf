//! A call in memory: its archived state, and what only matters while transactions run.

use std::net::SocketAddr;

use charging::time::UnixMillis;
use replication::Version;

use super::call_state::{CallState, Phase};
use super::offers::PassedUpdate;
use crate::dialog::{Dialog, Text};
use crate::env::ListenerId;
use crate::timer::TimerHandle;
use crate::transaction::TxnId;

/// One side of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// The leg of the caller.
    Originating = 0,
    /// The leg of the callee.
    Terminating = 1,
}

impl Side {
    /// The other leg.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Originating => Self::Terminating,
            Self::Terminating => Self::Originating,
        }
    }

    /// Index into `legs`.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The leg with this index, anything but 0 being the terminating one.
    #[must_use]
    pub const fn from_index(index: u8) -> Self {
        if index == 0 {
            Self::Originating
        } else {
            Self::Terminating
        }
    }
}

/// What a transaction is for: kept with it by the transaction layer.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// The call.
    pub call: crate::env::CallKey,
    /// The leg the transaction runs on.
    pub side: Side,
    /// Its purpose.
    pub role: Role,
    /// The transaction on the other leg it is bridged with.
    pub link: Option<TxnId>,
    /// The early dialog it runs in (initial INVITE not answered yet).
    pub fork: u8,
    /// When the request came, for Time-Stamps.
    pub at: UnixMillis,
}

impl crate::transaction::Owned for User {
    fn call(&self) -> crate::env::CallKey {
        self.call
    }
}

/// Purpose of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Server: the INVITE that opened the call.
    InviteServer,
    /// Client: that INVITE on its way to the callee.
    InviteClient,
    /// Server or client: a request inside the dialog, relayed to the other leg.
    Relay,
    /// Server: answered by ourselves.
    Local,
    /// Client: BYE, whose answer changes nothing.
    Bye,
    /// Client: CANCEL, whose answer changes nothing.
    Cancel,
    /// Client: our own session refresh (RFC 4028).
    Refresh,
    /// Client: our own OPTIONS inside the dialog of a leg without session timer.
    Probe,
    /// Server or client: a request outside dialogs, relayed as a pair.
    Event,
    /// Client: our own OPTIONS to a next hop, of no call.
    Ping,
}

/// A call in a shard's table.
pub struct Call {
    /// What survives.
    pub state: CallState,
    /// Set-up of the call: emptied when it is answered or has failed.
    pub set_up: SetUp,
    /// Our BYE on each leg until it is answered: whoever takes the call over sends it again.
    pub closing: [Option<TxnId>; 2],
    /// CSeq number of each peer's last request when the call was taken up. It may come once more:
    /// who got it first could not answer it.
    pub unanswered: [Option<u32>; 2],
    /// The INVITE being bridged from each leg, until its ACK is through.
    pub invites: [Option<BridgedInvite>; 2],
    /// The last UPDATE that was passed on from each leg.
    pub updates: [Option<PassedUpdate>; 2],
    /// Our last re-INVITE towards each leg that refreshes its session.
    pub refreshing: [Option<TxnId>; 2],
    /// Wheel entries: charging deadline, session timer or probe of both legs, duration, ringing,
    /// hop.
    pub timers: [Option<TimerHandle>; TIMERS],
    /// Deadline behind `timers[CHARGING]`.
    pub charging_due: Option<UnixMillis>,
    /// The state changed since the last commit.
    pub dirty: bool,
    /// The call waits in the list of those to settle at the end of the turn.
    pub listed: bool,
    /// Records of the call wait in the backlog: later ones go behind them.
    pub has_stored_records: bool,
    /// The call was committed to the ring at least once.
    pub stored: bool,
    /// Its next commit makes this node its owner anew.
    pub takes_over: bool,
    /// Outputs of the call wait until this version has its copies.
    pub waits_for: Option<Version>,
    /// The outputs that wait.
    pub held: Vec<Held>,
    /// A record of the call waits until this node may act.
    pub parked: bool,
}

/// A datagram that waits for the copies of the state behind it.
pub struct Held {
    /// Destination.
    pub to: SocketAddr,
    /// Listener whose socket sends it.
    pub listener: ListenerId,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// Index of the charging deadline in [`Call::timers`].
pub(super) const CHARGING: usize = 0;
/// Index of leg 0's session timer, or of its probe if it has none; leg 1's follows.
pub(super) const SESSION: usize = 1;
/// Index of the longest duration.
pub(super) const DURATION: usize = 3;
/// Index of the ringing time-out.
pub(super) const RINGING: usize = 4;
/// Index of the wait for a hop.
pub(super) const HOP: usize = 5;
/// Number of wheel entries.
pub(super) const TIMERS: usize = 6;

/// What is only known while the call is being set up.
#[derive(Default)]
pub struct SetUp {
    /// The caller's INVITE transaction.
    pub server: Option<TxnId>,
    /// The INVITE transaction towards the callee.
    pub client: Option<TxnId>,
    /// The INVITE as it came.
    pub invite: Vec<u8>,
    /// Listener it came through.
    pub listener: ListenerId,
    /// Next hops still to try, last first.
    pub hops: Vec<(SocketAddr, ListenerId)>,
    /// Early dialogs of the callee's side, by fork number.
    pub forks: Vec<Dialog>,
    /// Our tag towards the caller in each of them.
    pub fork_tags: Vec<Text>,
    /// A CANCEL is to be sent as soon as the callee's side answers provisionally.
    pub cancel_pending: bool,
    /// The caller got its final answer; what the callee's side still says is only cleaned up.
    pub over: bool,
    /// The hop that has the INVITE sent something.
    pub heard: bool,
    /// A provisional response other than 100 went to the caller.
    pub rang: bool,
    /// Min-SE that a 422 asked for.
    pub min_se_s: u32,
    /// How often a 422 or a challenge was answered with a new INVITE.
    pub retries: u8,
    /// When the last offer and answer in early media passed.
    pub offered: Option<UnixMillis>,
}

/// An INVITE bridged from one leg to the other.
#[derive(Default)]
pub struct BridgedInvite {
    /// Transaction on the leg it came from.
    pub server: Option<TxnId>,
    /// Transaction on the leg it went to.
    pub client: Option<TxnId>,
    /// CSeq number on the leg it came from.
    pub cseq: u32,
    /// CSeq number on the leg it went to.
    pub client_cseq: u32,
    /// The ACK sent to the other leg, sent again for each repeated 2xx.
    pub ack: Vec<u8>,
    /// The 2xx carried an offer, so the ACK brings the answer.
    pub late_offer: bool,
    /// A 2xx was relayed.
    pub answered: bool,
    /// A reliable provisional response brought the answer to its offer.
    pub answered_early: bool,
}

impl Call {
    /// Whether the INVITE was answered and the call not ended.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state.phase, Phase::Answered | Phase::Confirmed)
    }

    /// Whether the call is up, its state is stored, and nothing of it is on its way.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.state.phase == Phase::Confirmed
            && self.stored
            && !self.dirty
            && self.waits_for.is_none()
            && self.closing == [None; 2]
            && self.set_up.client.is_none()
            && self
                .invites
                .iter()
                .flatten()
                .all(|invite| !invite.ack.is_empty())
    }

    /// Whether every record of the call so far is at a CDF.
    #[must_use]
    pub fn is_charged_so_far(&self) -> bool {
        let accounting = self.state.charging.accounting.as_ref();
        !self.has_stored_records && accounting.is_none_or(|session| session.pending_key().is_none())
    }

    /// Forgets the INVITE from leg `side` that is not acknowledged: its ACK came, or it failed.
    /// False if there was none.
    pub fn close_invite(&mut self, side: Side, pool: &mut crate::env::BufPool) -> bool {
        let closed = self.state.take_open_invite(side);
        closed.map(|invite| pool.give(invite.message)).is_some()
    }

    /// Forgets those of both legs.
    pub fn close_invites(&mut self, pool: &mut crate::env::BufPool) {
        for invite in self.state.open.drain(..) {
            pool.give(invite.message);
        }
    }

    /// Whether nothing more can happen: SIP is over and every record is safe.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state.phase == Phase::Ended
            && self.set_up.client.is_none()
            && self.waits_for.is_none()
            && self.closing == [None; 2]
            && self.state.charging.is_finished()
    }
}

impl SetUp {
    /// Forgets everything but the memory of its buffers.
    pub fn reset(&mut self) -> Vec<u8> {
        let invite = std::mem::take(&mut self.invite);
        self.hops.clear();
        self.forks.clear();
        self.fork_tags.clear();
        let fork_tags = std::mem::take(&mut self.fork_tags);
        let hops = std::mem::take(&mut self.hops);
        let forks = std::mem::take(&mut self.forks);
        *self = Self {
            hops,
            forks,
            fork_tags,
            ..Self::default()
        };
        invite
    }
}

/// Most early dialogs of one INVITE; further forks are not shown to the caller.
pub(super) const FORKS_MAX: usize = 8;
