//! `[charging.rf]` as it is written, its defaults, and its way into [`Rf`].

use std::collections::BTreeMap;

use charging::config::ChargingClass;
use serde::Deserialize;

use super::file::{Wrong, socket, wrong};
use super::{Resolve, Rf, triggers};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RfFile {
    enabled: bool,
    origin_realm: String,
    destination_realm: Option<String>,
    cdf: Vec<String>,
    bundled_interim_interval_s: u32,
    retry_interval_ms: u64,
    retries_max: u32,
    watchdog_s: u64,
    backlog_bytes_max: u64,
    realtime: String,
    propose_interim_interval_s: u32,
    omit_avps: Vec<String>,
    triggers: BTreeMap<String, bool>,
}

impl Default for RfFile {
    fn default() -> Self {
        Self {
            enabled: true,
            origin_realm: "ringtoll.invalid".to_owned(),
            destination_realm: None,
            cdf: Vec::new(),
            bundled_interim_interval_s: 300,
            retry_interval_ms: 4_000,
            retries_max: 3,
            watchdog_s: 30,
            backlog_bytes_max: 1 << 30,
            realtime: "grant-and-store".to_owned(),
            propose_interim_interval_s: 0,
            omit_avps: Vec::new(),
            triggers: BTreeMap::new(),
        }
    }
}

pub(super) fn rf(file: RfFile, resolve: Resolve) -> Result<Rf, Wrong> {
    let realm = |key: &str, text: &str| {
        let fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if text.is_empty() || text.len() > 255 || !text.chars().all(fit) {
            return Err(wrong(
                key,
                format!("`{text}` is not a realm"),
                "write a domain name like \"ims.mnc001.mcc001.3gppnetwork.org\"",
            ));
        }
        Ok(text.to_owned())
    };
    let origin_realm = realm("charging.rf.origin_realm", &file.origin_realm)?;
    let destination_realm = match &file.destination_realm {
        Some(text) => realm("charging.rf.destination_realm", text)?,
        None => origin_realm.clone(),
    };
    let cdf = file
        .cdf
        .iter()
        .enumerate()
        .map(|(place, text)| socket(resolve, &format!("charging.rf.cdf[{place}]"), text))
        .collect::<Result<_, _>>()?;
    if file.watchdog_s < 6 {
        return Err(wrong(
            "charging.rf.watchdog_s",
            "RFC 3539 3.4.1 allows no less than 6 s",
            "write 6 or more",
        ));
    }
    let class = ChargingClass {
        offline: file.enabled,
        realtime: triggers::realtime(&file.realtime)?,
        rows: triggers::rows(&file.triggers)?,
        proposed_interim_interval_s: file.propose_interim_interval_s,
        omitted: triggers::omitted(&file.omit_avps)?,
        ..ChargingClass::default()
    };
    Ok(Rf {
        enabled: file.enabled,
        origin_realm,
        destination_realm,
        cdf,
        bundled_interim_interval_s: file.bundled_interim_interval_s,
        retry_interval_ms: file.retry_interval_ms.max(100),
        retries_max: file.retries_max,
        watchdog_ms: file.watchdog_s * 1_000,
        backlog_bytes_max: file.backlog_bytes_max,
        class,
    })
}
