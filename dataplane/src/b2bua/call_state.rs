//! The archived form of a call: everything whoever holds it needs to go on with the call and
//! its bill. It is committed as one blob per transition, before any output of it leaves.
//!
//! A blob is written in one of two layouts, the present and the former one, and whoever reads it
//! is told which. So nodes of two versions can share calls while a cluster is upgraded: all write
//! the layout that all read. When the layout changes again, `former` becomes what is here now.

mod former;

use std::net::SocketAddr;

use charging::state::ChargingState;
use charging::time::UnixMillis;
use rkyv::rancor;
use rkyv::util::AlignedVec;

use super::call::Side;
use crate::config::Config;
use crate::dialog::{Dialog, Text, Texts};

/// Version of the blob's layout.
pub const SCHEMA: u16 = 3;
/// The version before, which is read as well, and written while a node has not got beyond it.
pub const SCHEMA_FORMER: u16 = SCHEMA - 1;

/// The number that no entry of the route table has.
pub const NO_ROUTE: u16 = u16::MAX;

/// One call. The order of the fields is that of the archive, chosen so that little of it is
/// padding: `bench::state` holds it to a length.
#[derive(Clone, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct CallState {
    /// Unique by construction: node, shard, incarnation, counter.
    pub id: u128,
    /// When the request that opened the call arrived, by the wall clock.
    pub begun: UnixMillis,
    /// When it was answered, by the wall clock.
    pub answered: Option<UnixMillis>,
    /// The same in steady time, 1970 before the answer: its age ends the call.
    pub up_since: UnixMillis,
    /// Strings of the call.
    pub texts: Texts,
    /// Charging sessions of the call.
    pub charging: ChargingState,
    /// Originating and terminating leg.
    pub legs: [Dialog; 2],
    /// IMS Charging Identifier of the call, received or minted (TS 32.260 5.1.2).
    pub icid: Text,
    /// P-Access-Network-Info of the caller, to notice a change.
    pub access_network: Text,
    /// Identity that the callee's side asserted last, to notice a change.
    pub called_identity: Text,
    /// Last SDP sent on each leg, kept only for a peer that must be refreshed by re-INVITE.
    pub sdp: [Text; 2],
    /// INVITEs of either leg that are not acknowledged yet, one at most of each.
    pub open: Vec<OpenInvite>,
    /// Number of the route that the call took, [`NO_ROUTE`] if none: whose credentials count.
    pub route: u16,
    /// Charging class of the call as it was when the state was stored first.
    pub class: Option<u16>,
    /// How far the call has come.
    pub phase: Phase,
}

/// An INVITE whose ACK has not come. Whoever takes the call up goes on with it: a re-INVITE that
/// nobody answered is asked again, for its sender got a 100 and waits for ever (RFC 3261
/// 17.1.1.2); a 2xx is sent until its ACK comes (13.3.1.4), for without it the callee would talk
/// to nobody and be billed.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct OpenInvite {
    /// Index of the leg that it came from.
    pub side: u8,
    /// The re-INVITE as it came; as soon as it is answered, the 2xx as it is sent. A first INVITE
    /// is not kept before its answer.
    pub message: Vec<u8>,
    /// Where the one came from and the other goes.
    pub peer: SocketAddr,
    /// Its CSeq number.
    pub cseq: u32,
    /// Its CSeq number on the other leg.
    pub client_cseq: u32,
    /// It has no SDP, so the 2xx brings the offer and the ACK the answer.
    pub late_offer: bool,
    /// When the message came or was sent first, steady time.
    pub since: UnixMillis,
}

impl OpenInvite {
    /// Whether the message is the 2xx.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.message.starts_with(b"SIP/")
    }
}

impl CallState {
    /// The INVITE from leg `side` that is not acknowledged.
    #[must_use]
    pub fn open_invite(&self, side: Side) -> Option<&OpenInvite> {
        self.open
            .iter()
            .find(|invite| usize::from(invite.side) == side.index())
    }

    /// Takes that INVITE out.
    pub fn take_open_invite(&mut self, side: Side) -> Option<OpenInvite> {
        let of_side = |invite: &OpenInvite| usize::from(invite.side) == side.index();
        let place = self.open.iter().position(of_side)?;
        Some(self.open.swap_remove(place))
    }

    /// Number of the call's charging class: the one that its bill was opened with, or that it was
    /// stored with; else what route and source say.
    #[must_use]
    pub fn class(&self, config: &Config) -> u16 {
        let opened = self.charging.class().or(self.class);
        opened.unwrap_or_else(|| config.class_of(self.route, self.legs[0].peer))
    }

    /// Writes a P-Charging-Vector (RFC 7315 5.6) of our own, with the call's ICID alone.
    pub fn write_charging_vector(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"P-Charging-Vector: icid-value=\"");
        out.extend_from_slice(self.texts.get(self.icid));
        out.extend_from_slice(b"\"\r\n");
    }
}

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum Phase {
    /// The INVITE is not answered.
    SettingUp,
    /// A 2xx went to the caller, whose ACK has not come.
    Answered,
    /// The ACK came.
    Confirmed,
    /// Both legs are being or were ended; the call stays until its records are safe.
    Ended,
    /// Not an INVITE: one request relayed as a transaction pair.
    Event,
}

/// Reads a state archived under `schema`, checking every byte: it may be another process' work,
/// or another node's.
#[must_use]
pub fn read_state(schema: u16, blob: &[u8]) -> Option<CallState> {
    let mut aligned = AlignedVec::<16>::new();
    aligned.extend_from_slice(blob);
    let read = match schema {
        SCHEMA => rkyv::from_bytes::<CallState, rancor::Error>(&aligned),
        SCHEMA_FORMER => {
            rkyv::from_bytes::<former::CallState, rancor::Error>(&aligned).map(CallState::from)
        }
        _ => {
            tracing::warn!(schema, "a call state has an unknown schema");
            return None;
        }
    };
    match read {
        Ok(state) => Some(state),
        Err(error) => {
            tracing::warn!(%error, "a call state cannot be read");
            None
        }
    }
}

/// Archives a state into `blob`, in the former layout if `schema` says so. False, with nothing
/// written, if that cannot be done.
pub fn write_state(state: &CallState, schema: u16, blob: &mut AlignedVec) -> bool {
    blob.clear();
    let buffer = std::mem::take(blob);
    let written = if schema == SCHEMA_FORMER {
        let state = former::CallState::from(state);
        rkyv::api::high::to_bytes_in::<_, rancor::Error>(&state, buffer)
    } else {
        rkyv::api::high::to_bytes_in::<_, rancor::Error>(state, buffer)
    };
    written.map(|written| *blob = written).is_ok()
}
