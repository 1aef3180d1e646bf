//! The calls of a shard as JSON, one object a line.

use serde::Serialize;

use crate::b2bua::{B2bua, CallState, Phase};

#[derive(Serialize)]
struct CallLine<'a> {
    id: String,
    phase: &'static str,
    call_ids: [String; 2],
    from: String,
    to: String,
    icid: String,
    begun_ms: u64,
    answered_ms: Option<u64>,
    peers: [String; 2],
    charging: Option<ChargingLine<'a>>,
}

#[derive(Serialize)]
struct ChargingLine<'a> {
    session_id: std::borrow::Cow<'a, str>,
    state: String,
    interim_interval_s: u32,
    next_deadline_ms: Option<u64>,
    pending: Option<PendingLine>,
}

#[derive(Serialize)]
struct PendingLine {
    record_type: String,
    record_number: u32,
}

/// All calls of a shard.
pub(super) fn lines(b2bua: &B2bua) -> String {
    let mut out = String::new();
    for call in b2bua.calls() {
        line(&mut out, &call.state);
    }
    out
}

/// One call.
pub(super) fn line(out: &mut String, state: &CallState) {
    let text = |text| String::from_utf8_lossy(state.texts.get(text)).into_owned();
    let charging = state
        .charging
        .accounting
        .as_ref()
        .map(|session| ChargingLine {
            session_id: String::from_utf8_lossy(session.session_id()),
            state: format!("{:?}", session.state()),
            interim_interval_s: session.interim_interval_s(),
            next_deadline_ms: session.next_deadline().map(|due| due.0),
            pending: session.pending_key().map(|record| PendingLine {
                record_type: format!("{:?}", record.record_type),
                record_number: record.number,
            }),
        });
    let line = CallLine {
        id: format!("{:032x}", state.id),
        phase: match state.phase {
            Phase::SettingUp => "setting-up",
            Phase::Answered => "answered",
            Phase::Confirmed => "confirmed",
            Phase::Ended => "ended",
            Phase::Event => "event",
        },
        call_ids: [text(state.legs[0].call_id), text(state.legs[1].call_id)],
        from: text(state.legs[0].remote),
        to: text(state.legs[0].local),
        icid: text(state.icid),
        begun_ms: state.begun.0,
        answered_ms: state.answered.map(|answered| answered.0),
        peers: [
            state.legs[0].peer.to_string(),
            state.legs[1].peer.to_string(),
        ],
        charging,
    };
    if let Ok(json) = serde_json::to_string(&line) {
        out.push_str(&json);
        out.push('\n');
    }
}
