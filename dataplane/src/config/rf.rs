//! `[charging.rf]` as it is written, its defaults, and its way into [`Rf`].

use std::collections::BTreeMap;

use charging::config::ChargingClass;
use serde::Deserialize;

use super::class::{ClassFile, Keys};
use super::file::{Wrong, socket, wrong};
use super::{Resolve, Rf, class};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RfFile {
    origin_realm: String,
    cdf: Vec<String>,
    bundled_interim_interval_s: u32,
    retry_interval_ms: u64,
    retries_max: u32,
    watchdog_s: u64,
    backlog_bytes_max: u64,
    enabled: Option<bool>,
    realtime: Option<String>,
    propose_interim_interval_s: Option<u32>,
    interim_reset_on_sip: Option<bool>,
    late_offer: Option<String>,
    record_sdp: Option<bool>,
    strip_plus: Option<bool>,
    stop_hold_ms: Option<u64>,
    service_context_id: Option<String>,
    destination_realm: Option<String>,
    destination_host: Option<String>,
    omit_avps: Option<Vec<String>>,
    triggers: BTreeMap<String, bool>,
}

// What a class is by default stands in `charging::config`.
impl Default for RfFile {
    fn default() -> Self {
        Self {
            origin_realm: "ringtoll.invalid".to_owned(),
            cdf: Vec::new(),
            bundled_interim_interval_s: 300,
            retry_interval_ms: 4_000,
            retries_max: 3,
            watchdog_s: 30,
            backlog_bytes_max: 1 << 30,
            enabled: None,
            realtime: None,
            propose_interim_interval_s: None,
            interim_reset_on_sip: None,
            late_offer: None,
            record_sdp: None,
            strip_plus: None,
            stop_hold_ms: None,
            service_context_id: None,
            destination_realm: None,
            destination_host: None,
            omit_avps: None,
            triggers: BTreeMap::new(),
        }
    }
}

/// A DiameterIdentity: the `kind` of one is told if it is none.
pub(super) fn identity(key: &str, kind: &str, text: &str) -> Result<String, Wrong> {
    let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if text.is_empty() || text.len() > 255 || !text.chars().all(fit) {
        return Err(wrong(
            key,
            format!("`{text}` is not a {kind}"),
            "write a domain name like \"ims.mnc001.mcc001.3gppnetwork.org\"",
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn rf(file: RfFile, class_files: Vec<ClassFile>, resolve: Resolve) -> Result<Rf, Wrong> {
    let origin_realm = identity("charging.rf.origin_realm", "realm", &file.origin_realm)?;
    let cdf = file
        .cdf
        .iter()
        .enumerate()
        .map(|(place, text)| socket(resolve, &format!("charging.rf.cdf[{place}]"), text))
        .collect::<Result<Vec<_>, _>>()?;
    super::file::once("charging.rf.cdf", &cdf)?;
    if file.watchdog_s < 6 {
        return Err(wrong(
            "charging.rf.watchdog_s",
            "RFC 3539 3.4.1 allows no less than 6 s",
            "write 6 or more",
        ));
    }
    let keys = Keys {
        enabled: file.enabled,
        realtime: file.realtime,
        propose_interim_interval_s: file.propose_interim_interval_s,
        interim_reset_on_sip: file.interim_reset_on_sip,
        late_offer: file.late_offer,
        record_sdp: file.record_sdp,
        strip_plus: file.strip_plus,
        stop_hold_ms: file.stop_hold_ms,
        service_context_id: file.service_context_id,
        destination_realm: file.destination_realm,
        destination_host: file.destination_host,
        omit_avps: file.omit_avps,
        triggers: file.triggers,
    };
    let base = ChargingClass {
        destination_realm: origin_realm.clone(),
        ..ChargingClass::default()
    };
    let classes = class::classes(keys.over("charging.rf", &base)?, class_files)?;
    let enabled = classes.iter().any(|class| class.rules.offline);
    Ok(Rf {
        enabled,
        origin_realm,
        cdf,
        bundled_interim_interval_s: file.bundled_interim_interval_s,
        retry_interval_ms: file.retry_interval_ms.max(100),
        retries_max: file.retries_max,
        watchdog_ms: file.watchdog_s * 1_000,
        backlog_bytes_max: file.backlog_bytes_max,
        classes,
    })
}
