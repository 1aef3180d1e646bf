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

use crate::config::Config;
use crate::dialog::{Dialog, Text, Texts};

/// Version of the blob's layout.
pub const SCHEMA: u16 = 3;
/// The version before, which is read as well, and written while a node has not got beyond it.
pub const SCHEMA_FORMER: u16 = SCHEMA - 1;

/// The number that no entry of the route table has.
pub const NO_ROUTE: u16 = u16::MAX;

/// One call.
#[derive(Clone, Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct CallState {
    /// Unique by construction: node, shard, incarnation, counter.
    pub id: u128,
    /// How far the call has come.
    pub phase: Phase,
    /// Strings of the call.
    pub texts: Texts,
    /// Originating and terminating leg.
    pub legs: [Dialog; 2],
    /// Charging sessions of the call.
    pub charging: ChargingState,
    /// IMS Charging Identifier of the call, received or minted (TS 32.260 5.1.2).
    pub icid: Text,
    /// P-Access-Network-Info of the caller, to notice a change.
    pub access_network: Text,
    /// Identity that the callee's side asserted last, to notice a change.
    pub called_identity: Text,
    /// Last SDP sent on each leg, kept only for a peer that must be refreshed by re-INVITE.
    pub sdp: [Text; 2],
    /// Number of the route that the call took, [`NO_ROUTE`] if none: whose credentials count.
    pub route: u16,
    /// Charging class of the call as it was when the state was stored first.
    pub class: Option<u16>,
    /// When the request that opened the call arrived.
    pub begun: UnixMillis,
    /// When it was answered.
    pub answered: Option<UnixMillis>,
    /// What answered it, while the caller's ACK has not come.
    pub answer: Option<Answer>,
}

/// The 2xx that went to the caller. Whoever takes the call up before its ACK came goes on sending
/// it (RFC 3261 13.3.1.4): without it, the callee would talk to nobody and be billed.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Answer {
    /// As it is sent.
    pub message: Vec<u8>,
    /// Where it is sent.
    pub to: SocketAddr,
    /// CSeq number of the INVITE that it answers.
    pub cseq: u32,
    /// That of the INVITE which the callee answered.
    pub client_cseq: u32,
    /// It carries an offer, so its ACK brings the answer.
    pub late_offer: bool,
}

impl CallState {
    /// Number of the call's charging class: the one that its bill was opened with, or that it was
    /// stored with; else what route and source say.
    #[must_use]
    pub fn class(&self, config: &Config) -> u16 {
        let opened = self.charging.class().or(self.class);
        opened.unwrap_or_else(|| config.class_of(self.route, self.legs[0].peer))
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
