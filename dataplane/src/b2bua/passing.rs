//! Chargeable facts that pass inside messages of an answered call: a new access network, tariff
//! information, a new identity of the called party, the last location in the answer to a BYE.

use charging::trigger::Trigger;

use super::trust::is_network_provided;
use super::{B2bua, CallState, Phase, Side, User, facts};
use crate::config::Config;
use crate::dialog::{Text, Texts};
use crate::env::{CallKey, Env};
use crate::sip::{HeaderId, Message, NameAddr};

impl B2bua {
    /// A message inside the dialog came from `side`.
    pub(super) fn trigger_passing(
        &mut self,
        env: &mut Env,
        key: CallKey,
        side: Side,
        message: &Message<'_>,
    ) {
        // What comes before the answer the first record tells: a tariff, but not where the caller
        // was, which stood in the INVITE.
        let is_up = self.calls[key].is_up();
        let sets_up = self.calls[key].state.phase == Phase::SettingUp;
        if !self.config.rf.enabled || !(is_up || sets_up) {
            return;
        }
        let Some(class) = self.calls[key].state.charging.class() else {
            return;
        };
        let rows = self.config.rf.class(class).rules.rows;
        let asserted = self.asserts(self.calls[key].state.legs[side.index()].peer);
        // The served user is the caller's: where the callee is, is the business of its own AS.
        if is_up && rows.interim_on_access_network_change && side == Side::Originating {
            self.note_access_network(env, key, message, asserted);
        }
        // A price is the business of the networks: an outsider names none.
        if rows.interim_on_tariff
            && asserted
            && let Some(xml) = tariff_of(message)
        {
            let charging = &mut self.calls[key].state.charging;
            let trigger = Trigger::TariffReceived { xml };
            let verdict = self.ctf.on_trigger(env.now, charging, &trigger);
            self.obey(env, key, verdict);
            self.touch(key);
        }
    }

    fn note_access_network(
        &mut self,
        env: &mut Env,
        key: CallKey,
        message: &Message<'_>,
        asserted: bool,
    ) {
        let told = message.header(HeaderId::PAccessNetworkInfo);
        let Some(now) = told.filter(|info| asserted || !is_network_provided(info)) else {
            return;
        };
        let state = &mut self.calls[key].state;
        let transfer = facts::access_transfer(state.texts.get(state.access_network), now);
        if !replace_if_new(&mut state.texts, &mut state.access_network, now) {
            return;
        }
        let mut values: [&[u8]; VALUES_MAX] = [&[]; VALUES_MAX];
        let mut count = 0;
        for value in facts::accesses(message, asserted).take(VALUES_MAX) {
            values[count] = value;
            count += 1;
        }
        let trigger = Trigger::AccessNetworkChanged {
            access_network_info: &values[..count],
            change_time: env.now.wall,
            transfer,
        };
        let verdict = self.ctf.on_trigger(env.now, &mut state.charging, &trigger);
        self.obey(env, key, verdict);
        self.touch(key);
    }

    /// The 2xx to our BYE came: with `stop_at_bye_answer` the STOP waited for its location.
    pub(super) fn trigger_bye_answered(
        &mut self,
        env: &mut Env,
        user: User,
        response: &Message<'_>,
    ) {
        if !self.config.rf.enabled || response.status() < 200 {
            return;
        }
        let peer = self.calls[user.call].state.legs[user.side.index()].peer;
        let asserted = self.asserts(peer);
        let mut values: [&[u8]; VALUES_MAX] = [&[]; VALUES_MAX];
        let mut count = 0;
        for value in facts::accesses(response, asserted).take(VALUES_MAX) {
            values[count] = value;
            count += 1;
        }
        let trigger = Trigger::ByeAnswered {
            access_network_info: &values[..count],
        };
        let charging = &mut self.calls[user.call].state.charging;
        self.ctf.on_trigger(env.now, charging, &trigger);
        self.touch(user.call);
    }

    /// The identity that the called side asserts in `message`, if it is another than before.
    pub(super) fn new_called_identity<'a>(
        config: &Config,
        state: &mut CallState,
        message: &Message<'a>,
    ) -> &'a [u8] {
        if !config.sip.peers.is_empty() && !config.trusts(state.legs[1].peer) {
            return &[];
        }
        let asserted = message
            .values(HeaderId::PAssertedIdentity)
            .next()
            .and_then(|value| NameAddr::parse(value).ok());
        match asserted {
            Some(now) if replace_if_new(&mut state.texts, &mut state.called_identity, now.uri) => {
                now.uri
            }
            _ => &[],
        }
    }
}

// Keeps `new` in the place of `text`; true if it differs.
fn replace_if_new(texts: &mut Texts, text: &mut Text, new: &[u8]) -> bool {
    let differs = texts.get(*text) != new && new.len() <= VALUE_MAX;
    if differs {
        texts.replace(text, new);
    }
    differs
}

// Real-time tariff information (TS 29.658): an XML body of that type.
fn tariff_of<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    let kind = message.header(HeaderId::ContentType)?;
    let kind = kind.split(|&byte| byte == b';').next()?.trim_ascii();
    let rtti = kind.eq_ignore_ascii_case(b"application/vnd.etsi.sci+xml");
    (rtti && !message.body().is_empty()).then(|| message.body())
}

/// Values taken from one message.
const VALUES_MAX: usize = 8;
/// Longest value kept for comparison, bytes.
const VALUE_MAX: usize = 512;
