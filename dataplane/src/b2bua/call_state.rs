//! The archived form of a call: everything whoever holds it needs to go on with the call and
//! its bill. It is committed as one blob per transition, before any output of it leaves.

use charging::state::ChargingState;
use charging::time::UnixMillis;

use crate::config::Config;
use crate::dialog::{Dialog, Text, Texts};

/// Version of the blob's layout; a reader accepts this one and the one before.
pub const SCHEMA: u16 = 2;

/// No entry of the route table.
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
    /// Index of the route that the call took, [`NO_ROUTE`] if none: whose credentials count.
    pub route: u16,
    /// When the request that opened the call arrived.
    pub begun: UnixMillis,
    /// When it was answered.
    pub answered: Option<UnixMillis>,
}

impl CallState {
    /// Number of the call's charging class: the one that its bill was opened with; without a bill
    /// what route and source say.
    #[must_use]
    pub fn class(&self, config: &Config) -> u16 {
        let opened = self.charging.class();
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

/// Reads an archived state, checking every byte: it may be another process' work, or another
/// node's.
#[must_use]
pub fn read_state(blob: &[u8]) -> Option<CallState> {
    let mut aligned = rkyv::util::AlignedVec::<16>::new();
    aligned.extend_from_slice(blob);
    match rkyv::from_bytes::<CallState, rkyv::rancor::Error>(&aligned) {
        Ok(state) => Some(state),
        Err(error) => {
            tracing::warn!(%error, "a call state cannot be read");
            None
        }
    }
}
