//! The layout of a call's state before the present one: without the class of a call, without
//! the INVITEs that are not acknowledged, and with one clock for all that it keeps.

use charging::state::ChargingState;
use charging::time::UnixMillis;

use super::Phase;
use crate::dialog::{Dialog, Text, Texts};

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct CallState {
    id: u128,
    phase: Phase,
    texts: Texts,
    legs: [Dialog; 2],
    charging: ChargingState,
    icid: Text,
    access_network: Text,
    called_identity: Text,
    sdp: [Text; 2],
    route: u16,
    begun: UnixMillis,
    answered: Option<UnixMillis>,
}

impl From<&super::CallState> for CallState {
    fn from(state: &super::CallState) -> Self {
        Self {
            id: state.id,
            phase: state.phase,
            texts: state.texts.clone(),
            legs: state.legs.clone(),
            charging: state.charging.clone(),
            icid: state.icid,
            access_network: state.access_network,
            called_identity: state.called_identity,
            sdp: state.sdp,
            route: state.route,
            begun: state.begun,
            answered: state.answered,
        }
    }
}

impl From<CallState> for super::CallState {
    fn from(state: CallState) -> Self {
        Self {
            // A bill knows its class; what has none asks the configuration.
            class: None,
            open: Vec::new(),
            // The two clocks differ by what the wall clock was stepped since the process began.
            up_since: state.answered.unwrap_or_default(),
            id: state.id,
            phase: state.phase,
            texts: state.texts,
            legs: state.legs,
            charging: state.charging,
            icid: state.icid,
            access_network: state.access_network,
            called_identity: state.called_identity,
            sdp: state.sdp,
            route: state.route,
            begun: state.begun,
            answered: state.answered,
        }
    }
}
