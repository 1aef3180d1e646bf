//! What each SIP occurrence does, what happens when records cannot be delivered, and what a peer is
//! to a bill: the parts of the configuration that decide about records.

use std::collections::BTreeMap;

use charging::config::{Omitted, RealtimePolicy, TriggerRows};
use charging::trigger::NniType;

use super::file::{Wrong, wrong};

/// Reads `realtime`.
pub(super) fn realtime(key: &str, name: &str) -> Result<RealtimePolicy, Wrong> {
    match name {
        "deliver-and-grant" => Ok(RealtimePolicy::DeliverAndGrant),
        "grant-and-store" => Ok(RealtimePolicy::GrantAndStore),
        "grant-and-lose" => Ok(RealtimePolicy::GrantAndLose),
        other => Err(wrong(
            key,
            format!("`{other}` is no policy"),
            "write \"deliver-and-grant\", \"grant-and-store\" or \"grant-and-lose\"",
        )),
    }
}

/// Reads `omit_avps`.
pub(super) fn omitted(key: &str, names: &[String]) -> Result<Omitted, Wrong> {
    let mut omitted = Omitted::default();
    for (place, name) in names.iter().enumerate() {
        if !omitted.insert(name) {
            let known: Vec<_> = Omitted::names().collect();
            return Err(wrong(
                format!("{key}[{place}]"),
                format!("`{name}` is no AVP that may be left out"),
                format!("use some of: {}", known.join(", ")),
            ));
        }
    }
    Ok(omitted)
}

/// Reads `nni` of a peer.
pub(super) fn nni(place: usize, name: Option<&str>) -> Result<Option<NniType>, Wrong> {
    Ok(match name {
        None => None,
        Some("non-roaming") => Some(NniType::NonRoaming),
        Some("roaming") => Some(NniType::Roaming),
        Some("loopback") => Some(NniType::Loopback),
        Some(other) => {
            return Err(wrong(
                format!("sip.peer[{place}].nni"),
                format!("`{other}` is no kind of border"),
                "write \"non-roaming\", \"roaming\" or \"loopback\"",
            ));
        }
    })
}

/// Reads `triggers`, over what holds without.
pub(super) fn rows(
    key: &str,
    mut rows: TriggerRows,
    switches: &BTreeMap<String, bool>,
) -> Result<TriggerRows, Wrong> {
    for (name, on) in switches {
        let Some((_, row)) = ROWS.iter().find(|(known, _)| known == name) else {
            let names: Vec<_> = ROWS.iter().map(|(known, _)| *known).collect();
            return Err(wrong(
                format!("{key}.{name}"),
                "there is no such occurrence",
                format!("use one of: {}", names.join(", ")),
            ));
        };
        *row(&mut rows) = *on;
    }
    Ok(rows)
}

type Row = (&'static str, fn(&mut TriggerRows) -> &mut bool);

/// The switches of `triggers`, named as the rows of the trigger table.
const ROWS: [Row; 15] = [
    ("session", |rows| &mut rows.session),
    ("interim_on_ack_answer", |rows| {
        &mut rows.interim_on_ack_answer
    }),
    ("interim_on_media_change", |rows| {
        &mut rows.interim_on_media_change
    }),
    ("interim_on_media_change_failure", |rows| {
        &mut rows.interim_on_media_change_failure
    }),
    ("interim_on_interval", |rows| &mut rows.interim_on_interval),
    ("interim_on_access_network_change", |rows| {
        &mut rows.interim_on_access_network_change
    }),
    ("interim_on_tariff", |rows| &mut rows.interim_on_tariff),
    ("stop_at_bye_answer", |rows| &mut rows.stop_at_bye_answer),
    ("event_on_redirect", |rows| &mut rows.event_on_redirect),
    ("event_on_failure", |rows| &mut rows.event_on_failure),
    ("event_on_challenge", |rows| &mut rows.event_on_challenge),
    ("event_on_cancel", |rows| &mut rows.event_on_cancel),
    ("event_on_internal_failure", |rows| {
        &mut rows.event_on_internal_failure
    }),
    ("event_on_one_shot", |rows| &mut rows.event_on_one_shot),
    ("event_on_one_shot_failure", |rows| {
        &mut rows.event_on_one_shot_failure
    }),
];
