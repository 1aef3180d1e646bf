//! Charging classes: `[charging.rf]` is the default one, each `[[charging.class]]` says in what it
//! differs, and routes and peers name theirs.

use std::collections::BTreeMap;

use charging::config::{ChargingClass, ChargingClasses, LateOffer};
use replication::Mode;
use serde::Deserialize;

use super::file::{Wrong, wrong};
use super::{rf, triggers};

/// One kind of calls, by how they are charged and replicated.
#[derive(Clone, Debug)]
pub struct Class {
    /// Name in the configuration.
    pub name: String,
    /// What a call's state keeps of it: a hash of the name, 0 for the default class.
    pub number: u16,
    /// How its calls are charged.
    pub rules: ChargingClass,
    /// How its calls are replicated; `None`: as `[cluster]` says.
    pub mode: Option<Mode>,
}

/// All of them, in the order of their numbers: the default class is the first.
#[derive(Clone, Debug)]
pub struct Classes(Vec<Class>);

impl Classes {
    /// The class of that number; the default one in place of a class that is not there any more.
    #[must_use]
    pub fn find(&self, number: u16) -> &Class {
        let place = self.0.binary_search_by_key(&number, |class| class.number);
        &self.0[place.unwrap_or(0)]
    }

    /// The classes, the default one first.
    pub fn iter(&self) -> impl Iterator<Item = &Class> {
        self.0.iter()
    }

    /// What the charging trigger function needs of them.
    #[must_use]
    pub fn rules(&self) -> ChargingClasses {
        let mut rules = ChargingClasses::new(self.0[0].rules.clone());
        for class in &self.0[1..] {
            rules.insert(class.number, class.rules.clone());
        }
        rules
    }

    // The number that `charging_class = "name"` under `key` stands for.
    pub(super) fn named(&self, key: &str, name: Option<&str>) -> Result<Option<u16>, Wrong> {
        let Some(name) = name else { return Ok(None) };
        let known = self.0.iter().find(|class| class.name == name);
        let known = known.ok_or_else(|| {
            let names: Vec<_> = self.0.iter().map(|class| class.name.as_str()).collect();
            let fix = format!("name a [[charging.class]], or \"{DEFAULT}\" for [charging.rf]");
            let reason = format!("there is no class `{name}`, only: {}", names.join(", "));
            wrong(format!("{key}.charging_class"), reason, fix)
        })?;
        Ok(Some(known.number))
    }
}

/// The keys that `[charging.rf]` and a `[[charging.class]]` have in common.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) enabled: Option<bool>,
    pub(super) realtime: Option<String>,
    pub(super) propose_interim_interval_s: Option<u32>,
    pub(super) interim_reset_on_sip: Option<bool>,
    pub(super) late_offer: Option<String>,
    pub(super) record_sdp: Option<bool>,
    pub(super) strip_plus: Option<bool>,
    pub(super) stop_hold_ms: Option<u64>,
    pub(super) service_context_id: Option<String>,
    pub(super) destination_realm: Option<String>,
    pub(super) destination_host: Option<String>,
    pub(super) omit_avps: Option<Vec<String>>,
    pub(super) triggers: BTreeMap<String, bool>,
}

impl Keys {
    /// What they make of the class that holds where they say nothing; `at` is where they stand.
    pub(super) fn over(self, at: &str, base: &ChargingClass) -> Result<ChargingClass, Wrong> {
        let mut class = base.clone();
        let key = |name: &str| format!("{at}.{name}");
        set(&mut class.offline, self.enabled);
        set(
            &mut class.proposed_interim_interval_s,
            self.propose_interim_interval_s,
        );
        set(&mut class.interim_reset_on_sip, self.interim_reset_on_sip);
        set(&mut class.record_sdp, self.record_sdp);
        set(&mut class.strip_plus, self.strip_plus);
        if let Some(name) = &self.realtime {
            class.realtime = triggers::realtime(&key("realtime"), name)?;
        }
        if let Some(name) = &self.late_offer {
            class.late_offer = late_offer(&key("late_offer"), name)?;
        }
        if let Some(hold_ms) = self.stop_hold_ms {
            class.stop_hold_ms = stop_hold(&key("stop_hold_ms"), hold_ms)?;
        }
        if let Some(id) = self.service_context_id {
            class.service_context_id = service_context(&key("service_context_id"), id)?;
        }
        if let Some(realm) = &self.destination_realm {
            class.destination_realm = rf::identity(&key("destination_realm"), "realm", realm)?;
        }
        if let Some(host) = &self.destination_host {
            let host = rf::identity(&key("destination_host"), "host name", host)?;
            class.destination_host = Some(host);
        }
        if let Some(names) = &self.omit_avps {
            class.omitted = triggers::omitted(&key("omit_avps"), names)?;
        }
        class.rows = triggers::rows(&key("triggers"), class.rows, &self.triggers)?;
        Ok(class)
    }
}

fn set<T>(target: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *target = given;
    }
}

fn late_offer(key: &str, name: &str) -> Result<LateOffer, Wrong> {
    match name {
        "start-at-answer" => Ok(LateOffer::StartAtAnswer),
        "start-at-ack" => Ok(LateOffer::StartAtAck),
        other => Err(wrong(
            key,
            format!("`{other}` is no policy"),
            "write \"start-at-answer\" (START at the 2xx) or \"start-at-ack\"",
        )),
    }
}

fn stop_hold(key: &str, hold_ms: u64) -> Result<u64, Wrong> {
    if hold_ms > STOP_HOLD_MS_MAX {
        return Err(wrong(
            key,
            format!("a STOP would wait {hold_ms} ms for the answer to the BYE"),
            format!("write 0 to {STOP_HOLD_MS_MAX}"),
        ));
    }
    Ok(hold_ms)
}

fn service_context(key: &str, id: String) -> Result<String, Wrong> {
    let is_fit = !id.is_empty() && id.len() <= 255 && id.bytes().all(|b| b.is_ascii_graphic());
    if !is_fit {
        return Err(wrong(
            key,
            format!("`{id}` is no service context"),
            "write RELEASE.CONTEXT@DOMAIN, for instance \"17.32260@3gpp.org\"",
        ));
    }
    Ok(id)
}

/// A `[[charging.class]]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClassFile {
    name: String,
    mode: Option<String>,
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
    #[serde(default)]
    triggers: BTreeMap<String, bool>,
}

/// The default class and the named ones.
pub(super) fn classes(rules: ChargingClass, files: Vec<ClassFile>) -> Result<Classes, Wrong> {
    if files.len() > CLASSES_MAX {
        return Err(wrong(
            "charging.class",
            format!("{} classes", files.len()),
            format!("write at most {CLASSES_MAX}"),
        ));
    }
    let mut classes = Classes(vec![Class {
        name: DEFAULT.to_owned(),
        number: 0,
        rules,
        mode: None,
    }]);
    for (place, file) in files.into_iter().enumerate() {
        let class = class(&format!("charging.class[{place}]"), file, &classes)?;
        classes.0.push(class);
    }
    classes.0.sort_by_key(|class| class.number);
    Ok(classes)
}

fn class(at: &str, file: ClassFile, before: &Classes) -> Result<Class, Wrong> {
    let name = file.name;
    let key = format!("{at}.name");
    let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name.is_empty() || name.len() > 63 || !name.chars().all(fit) {
        return Err(wrong(
            key,
            format!("`{name}` is no name"),
            "use 1 to 63 letters, digits, dots, hyphens and underscores",
        ));
    }
    let number = ChargingClasses::number_of(&name);
    for other in before.iter() {
        if other.name == name {
            let fix = format!("name each class once; \"{DEFAULT}\" is [charging.rf] itself");
            return Err(wrong(key, format!("`{name}` is there already"), fix));
        }
        if other.number == number {
            return Err(wrong(
                key,
                format!("calls could not tell `{name}` from `{}`", other.name),
                "choose another name: the states of calls keep 16 bits of it",
            ));
        }
    }
    let mode = file
        .mode
        .map(|name| super::cluster::mode(&format!("{at}.mode"), &name))
        .transpose()?;
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
    Ok(Class {
        name,
        number,
        rules: keys.over(at, &before.find(0).rules)?,
        mode,
    })
}

/// What `[charging.rf]` is called where a class is named.
const DEFAULT: &str = "default";
/// Most named classes.
const CLASSES_MAX: usize = 1_000;
/// A STOP waits no longer than this for the answer to the BYE: ten minutes.
const STOP_HOLD_MS_MAX: u64 = 10 * 60 * 1_000;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use charging::config::RealtimePolicy;

    use super::super::Config;
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("x")).unwrap_or_else(|wrong| panic!("valid: {wrong}"))
    }

    #[test]
    fn a_class_has_what_the_default_says_where_it_says_nothing() {
        let text = "[charging.rf]\norigin_realm = \"ims.example\"\nlate_offer = \"start-at-ack\"\n\
                    record_sdp = false\nomit_avps = [\"From-Address\"]\n\
                    [charging.rf.triggers]\nevent_on_cancel = false\nevent_on_redirect = false\n\
                    [[charging.class]]\nname = \"same\"\n\
                    [[charging.class]]\nname = \"other\"\nrecord_sdp = true\n\
                    realtime = \"grant-and-lose\"\ndestination_host = \"cdf7.example\"\n\
                    stop_hold_ms = 5\nomit_avps = []\nmode = \"async\"\n\
                    triggers = { event_on_cancel = true }\n";
        let config = config(text);
        let class = |name| config.rf.class(ChargingClasses::number_of(name));
        let default = &config.rf.class(0).rules;
        assert_eq!(default.destination_realm, "ims.example");
        assert_eq!(default.late_offer, LateOffer::StartAtAck);
        assert_eq!((&class("same").rules, class("same").mode), (default, None));
        let other = class("other");
        assert_eq!(other.mode, Some(Mode::Async));
        assert_eq!(other.rules.realtime, RealtimePolicy::GrantAndLose);
        assert_eq!(other.rules.late_offer, LateOffer::StartAtAck);
        assert!(other.rules.record_sdp && !default.record_sdp);
        assert_eq!(
            other.rules.destination_host.as_deref(),
            Some("cdf7.example")
        );
        assert!(other.rules.rows.event_on_cancel && !other.rules.rows.event_on_redirect);
        assert_ne!(other.rules.omitted, default.omitted);
        assert_eq!(class("nobody").name, "default");
    }

    #[test]
    fn a_route_decides_about_the_class_before_the_peer() {
        let text = "[[charging.class]]\nname = \"trunk\"\n[[charging.class]]\nname = \"core\"\n\
                    [[sip.peer]]\nname = \"a\"\nallow = [\"192.0.2.1\"]\ncharging_class = \"core\"\n\
                    [[sip.route]]\nmatch = \"1*\"\nnext_hop = \"192.0.2.9\"\n\
                    [[sip.route]]\nmatch = \"2*\"\nnext_hop = \"192.0.2.9\"\n\
                    charging_class = \"trunk\"\n\
                    [[sip.route]]\nmatch = \"3*\"\nnext_hop = \"192.0.2.9\"\n\
                    charging_class = \"default\"\n";
        let config = config(text);
        let at = |text: &str| text.parse().expect("an address");
        let (known, unknown) = (at("192.0.2.1:5060"), at("192.0.2.2:5060"));
        let name = |route, from| config.rf.class(config.class_of(route, from)).name.as_str();
        let at = |place: usize, from| name(config.sip.routes[place].number, from);
        assert_eq!((at(0, known), at(0, unknown)), ("core", "default"));
        assert_eq!((at(1, known), at(1, unknown)), ("trunk", "trunk"));
        assert_eq!(at(2, known), "default");
        assert_eq!(name(crate::b2bua::NO_ROUTE, known), "core");
    }

    #[test]
    fn charging_is_on_when_any_class_is_charged() {
        let off = "[charging.rf]\nenabled = false\n[[charging.class]]\nname = \"a\"\n";
        assert!(!config(off).rf.enabled);
        assert!(config(&format!("{off}enabled = true\n")).rf.enabled);
    }

    #[test]
    fn names_that_share_a_number_are_refused() {
        let mut seen = BTreeMap::new();
        let (one, other) = (0..)
            .find_map(|n| {
                let name = format!("c{n}");
                let other = seen.insert(ChargingClasses::number_of(&name), name.clone())?;
                Some((other, name))
            })
            .expect("16 bits are soon used up");
        let text = format!(
            "[[charging.class]]\nname = \"{one}\"\n[[charging.class]]\nname = \"{other}\"\n"
        );
        let wrong = Config::parse(&text, Path::new("x")).expect_err("they share a number");
        assert_eq!(wrong.key, "charging.class[1].name");
        assert!(wrong.reason.contains(&one), "{wrong}");
    }
}
