//! What an operator decides about charging. Parsed elsewhere; here are the types and defaults.

pub use crate::omit::Omitted;

/// Service-Context-Id of IMS charging, Release 17 (TS 32.260; form in TS 32.299 s7.1.12).
pub const SERVICE_CONTEXT_IMS: &str = "17.32260@3gpp.org";

/// Who this CTF is, for every record it mints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtfConfig {
    /// Origin-Host of the records and first part of their Session-Id. A successor of a call
    /// keeps the minting node's.
    pub origin_host: String,
    /// Origin-Realm of the records.
    pub origin_realm: String,
    /// Origin-State-Id of the records; grows only when sessions were lost.
    pub origin_state_id: Option<u32>,
    /// Seconds since 1970 at boot: the high half of Session-Ids. Must grow with every restart
    /// that does not know the sequence it had reached.
    pub boot_epoch_s: u32,
    /// Unique among all CTFs that share `origin_host` and may boot in the same second.
    pub shard: u32,
    /// Seed for jitter and identifiers.
    pub seed: u64,
    /// Charging classes; calls name theirs by number.
    pub classes: ChargingClasses,
}

/// The charging classes, each under a number that stays the same from one configuration to the
/// next: a call keeps it in its state, over restarts and on other nodes. Number 0 is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargingClasses {
    default: ChargingClass,
    /// In the order of their numbers.
    named: Vec<(u16, ChargingClass)>,
}

impl ChargingClasses {
    /// The default class, number 0, alone.
    #[must_use]
    pub const fn new(default: ChargingClass) -> Self {
        let named = Vec::new();
        Self { default, named }
    }

    /// Adds a class, or replaces the one of that number.
    pub fn insert(&mut self, number: u16, class: ChargingClass) {
        match self.place(number) {
            _ if number == 0 => self.default = class,
            Ok(place) => self.named[place].1 = class,
            Err(place) => self.named.insert(place, (number, class)),
        }
    }

    /// The class of that number; the default one in place of a class that is not there any more.
    #[must_use]
    pub fn find(&self, number: u16) -> &ChargingClass {
        match self.place(number) {
            Ok(place) => &self.named[place].1,
            Err(_) => &self.default,
        }
    }

    /// Whether there is a class of that number.
    #[must_use]
    pub fn knows(&self, number: u16) -> bool {
        number == 0 || self.place(number).is_ok()
    }

    /// The number of a class by its name: a hash, so that neither the order of the classes nor
    /// their count matters, and never 0. Two names may share one; whoever reads the
    /// configuration refuses that.
    #[must_use]
    pub fn number_of(name: &str) -> u16 {
        // FNV-1a, folded into 1 to 65535.
        let hash = name.bytes().fold(0x811C_9DC5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        (hash % 0xFFFF + 1) as u16
    }

    fn place(&self, number: u16) -> Result<usize, usize> {
        self.named
            .binary_search_by_key(&number, |(known, _)| *known)
    }
}

impl From<ChargingClass> for ChargingClasses {
    fn from(default: ChargingClass) -> Self {
        Self::new(default)
    }
}

/// How one kind of call is charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargingClass {
    /// Offline charging at all.
    pub offline: bool,
    /// Which occurrences make records.
    pub rows: TriggerRows,
    /// What to do with the call when records cannot be delivered.
    pub realtime: RealtimePolicy,
    /// Acct-Interim-Interval proposed in START and INTERIM, seconds; 0 proposes nothing.
    pub proposed_interim_interval_s: u32,
    /// An INTERIM caused by SIP restarts the period of the periodic ones.
    pub interim_reset_on_sip: bool,
    /// When a call whose 2xx carries only the offer starts.
    pub late_offer: LateOffer,
    /// Service-Context-Id.
    pub service_context_id: String,
    /// Destination-Realm.
    pub destination_realm: String,
    /// Destination-Host; `None` leaves the choice to the realm.
    pub destination_host: Option<String>,
    /// SDP and early media appear in the records.
    pub record_sdp: bool,
    /// Subscription-Ids of type END_USER_E164 go without the `+` of a global number.
    pub strip_plus: bool,
    /// How long a STOP may wait for the answer to the BYE (`stop_at_bye_answer`), milliseconds.
    pub stop_hold_ms: u64,
    /// AVPs that no record carries.
    pub omitted: Omitted,
}

impl Default for ChargingClass {
    fn default() -> Self {
        Self {
            offline: true,
            rows: TriggerRows::default(),
            realtime: RealtimePolicy::GrantAndStore,
            proposed_interim_interval_s: 0,
            interim_reset_on_sip: false,
            late_offer: LateOffer::StartAtAnswer,
            service_context_id: SERVICE_CONTEXT_IMS.to_owned(),
            destination_realm: String::new(),
            destination_host: None,
            record_sdp: true,
            strip_plus: true,
            // Timer F of RFC 3261: after that no answer to the BYE will come.
            stop_hold_ms: 64 * 500,
            omitted: Omitted::default(),
        }
    }
}

/// The rows of TS 32.260 Table 5.2.1.1-1 as they apply to an AS; each can be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TriggerRows {
    /// 2xx to the initial INVITE: START, and with it the STOP.
    pub session: bool,
    /// ACK that carries the SDP answer after a START: INTERIM.
    pub interim_on_ack_answer: bool,
    /// 2xx to a re-INVITE or UPDATE: INTERIM.
    pub interim_on_media_change: bool,
    /// 4xx to 6xx to a re-INVITE or UPDATE: INTERIM.
    pub interim_on_media_change_failure: bool,
    /// Acct-Interim-Interval elapsed: INTERIM.
    pub interim_on_interval: bool,
    /// P-Access-Network-Info changed: INTERIM.
    pub interim_on_access_network_change: bool,
    /// Real-time tariff information arrived: INTERIM.
    pub interim_on_tariff: bool,
    /// The STOP waits for the answer to the BYE, which carries the last location.
    pub stop_at_bye_answer: bool,
    /// 3xx to the initial INVITE: EVENT.
    pub event_on_redirect: bool,
    /// 4xx to 6xx to the initial INVITE: EVENT.
    pub event_on_failure: bool,
    /// 401 and 407, which the caller answers with a new INVITE: EVENT.
    pub event_on_challenge: bool,
    /// CANCEL: EVENT.
    pub event_on_cancel: bool,
    /// Set-up failed inside before any SIP response: EVENT.
    pub event_on_internal_failure: bool,
    /// 2xx to a session-unrelated request: EVENT.
    pub event_on_one_shot: bool,
    /// 3xx to 6xx to a session-unrelated request: EVENT.
    pub event_on_one_shot_failure: bool,
}

impl Default for TriggerRows {
    fn default() -> Self {
        Self {
            session: true,
            interim_on_ack_answer: true,
            interim_on_media_change: true,
            interim_on_media_change_failure: true,
            interim_on_interval: true,
            interim_on_access_network_change: false,
            interim_on_tariff: false,
            stop_at_bye_answer: false,
            event_on_redirect: true,
            event_on_failure: true,
            event_on_challenge: false,
            event_on_cancel: true,
            event_on_internal_failure: true,
            event_on_one_shot: true,
            event_on_one_shot_failure: true,
        }
    }
}

/// Accounting-Realtime-Required (RFC 6733 s9.8.7), a local policy since 3GPP keeps it off the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RealtimePolicy {
    /// Service only while records can be delivered.
    DeliverAndGrant = 1,
    /// Service while records can be delivered or stored.
    #[default]
    GrantAndStore = 2,
    /// Service in any case.
    GrantAndLose = 3,
}

/// What to do when the 2xx to the INVITE carries the offer and the ACK the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LateOffer {
    /// START at the 2xx, INTERIM at the ACK (policy A).
    #[default]
    StartAtAnswer,
    /// START at the ACK (policy B).
    StartAtAck,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(interval_s: u32) -> ChargingClass {
        ChargingClass {
            proposed_interim_interval_s: interval_s,
            ..ChargingClass::default()
        }
    }

    #[test]
    fn a_class_is_found_by_its_number_whatever_else_there_is() {
        let number = ChargingClasses::number_of;
        let mut one = ChargingClasses::new(class(1));
        let mut other = ChargingClasses::new(class(1));
        for (name, interval_s) in [("trunk", 2), ("emergency", 3), ("roaming", 4)] {
            one.insert(number(name), class(interval_s));
        }
        other.insert(number("roaming"), class(4));
        for classes in [&one, &other] {
            let found = classes.find(number("roaming"));
            assert_eq!(found.proposed_interim_interval_s, 4);
            assert_eq!(classes.find(0).proposed_interim_interval_s, 1);
        }
        assert_eq!(one.find(number("trunk")).proposed_interim_interval_s, 2);
        assert!(one.knows(number("trunk")) && !other.knows(number("trunk")));
        assert_eq!(other.find(number("trunk")).proposed_interim_interval_s, 1);
        assert!((0..2_000).all(|n| number(&format!("class{n}")) != 0));
        // Stored numbers outlive releases: this one must never change.
        assert_eq!(number("trunk"), TRUNK);
    }

    const TRUNK: u16 = 19_421;
}
