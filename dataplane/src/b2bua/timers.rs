//! What happens when nothing happens: transaction time-outs, session timers, the longest
//! duration, and the deadlines of charging.

use charging::trigger::CauseCode;

use super::call::{CHARGING, DURATION, SESSION};
use super::{B2bua, Origin, Role, Side, User};
use crate::compose;
use crate::dialog::session_timer::{self, Refresher};
use crate::env::{CallKey, CallTimer, Env, TimerKey};
use crate::sip::{HeaderId, Message, Method, write};
use crate::transaction::{Expired, Timer, TxnId};

impl B2bua {
    /// A transaction's timer expired.
    pub fn on_transaction_timer(&mut self, env: &mut Env, id: TxnId, timer: Timer) {
        let method = self.layer.method(id);
        match self.layer.on_timer(env, id, timer) {
            Expired::Nothing => {}
            Expired::NoAnswer(id, user) if self.calls.contains_key(user.call) => match user.role {
                Role::InviteClient => self.on_invite_unanswered(env, id, user.call),
                Role::Relay => self.on_relay_unanswered(env, id, user, method),
                Role::Event => self.on_event_response(env, id, user, None),
                Role::Refresh => self.on_refresh_unanswered(env, user),
                Role::Probe => self.on_probe_answer(env, id, user, None),
                Role::Bye => self.on_bye_over(id, user),
                Role::InviteServer | Role::Local | Role::Cancel | Role::Ping => {}
            },
            Expired::NoAck(id, user) if self.calls.contains_key(user.call) => {
                self.on_ack_missing(env, id, user);
            }
            Expired::NoAnswer(id, user) if user.role == Role::Ping => {
                self.on_ping_answer(env, id, None);
            }
            Expired::NoAnswer(_, user) => self.on_orphan_unanswered(env, user),
            Expired::NoAck(..) => {}
        }
    }

    /// A call's timer expired.
    pub fn on_call_timer(&mut self, env: &mut Env, key: CallKey, timer: CallTimer) {
        if !self.calls.contains_key(key) {
            return;
        }
        match timer {
            CallTimer::Charging => self.on_charging_deadline(env, key),
            CallTimer::Session(side) => self.on_session_timer(env, key, Side::from_index(side)),
            CallTimer::Ringing => self.on_ringing_too_long(env, key),
            CallTimer::Hop => self.on_hop_silent(env, key),
            CallTimer::MaxDuration => {
                self.calls[key].timers[DURATION] = None;
                env.counters.call_duration_exceeded += 1;
                self.end_call(env, key, CauseCode(408));
            }
        }
    }

    /// Arms what an answered call waits for: both session timers and the longest duration.
    pub(super) fn arm_established(&mut self, env: &mut Env, key: CallKey) {
        for side in [Side::Originating, Side::Terminating] {
            self.arm_session(env, key, side);
        }
        self.arm_duration(env, key, 0);
    }

    /// The same for a call that another process or node had: what its clock was is not known.
    pub(super) fn arm_taken_up(&mut self, env: &mut Env, key: CallKey, spread_ms: u64) {
        let now = env.now.steady;
        for side in [Side::Originating, Side::Terminating] {
            let session = &mut self.calls[key].state.legs[side.index()].session;
            match session.take_up(now, spread_ms, |bound| env.rng.below(bound)) {
                Some(delay) => self.arm_session_in(env, key, side, delay),
                None => self.arm_session(env, key, side),
            }
        }
        // By a clock that may be believed it would have been ended long ago, or is not up yet.
        let longest = self.config.sip.max_call_duration_s * 1_000;
        let up_since = &mut self.calls[key].state.up_since;
        if *up_since > now || now.ms_since(*up_since) > 2 * longest {
            *up_since = now;
        }
        self.arm_duration(env, key, spread_ms);
    }

    // A call that is too old already is ended within `spread_ms`.
    fn arm_duration(&mut self, env: &mut Env, key: CallKey, spread_ms: u64) {
        let call = &self.calls[key];
        let longest = self.config.sip.max_call_duration_s * 1_000;
        if longest > 0 && call.timers[DURATION].is_none() && call.is_up() {
            let age = env.now.steady.ms_since(call.state.up_since);
            let delay = match longest.saturating_sub(age) {
                0 => env.rng.below(spread_ms + 1),
                delay => delay,
            };
            let timer = env.arm(delay, TimerKey::Call(key, CallTimer::MaxDuration));
            self.calls[key].timers[DURATION] = Some(timer);
        }
    }

    /// Arms the session timer of a leg, or the next probe of one without.
    pub(super) fn arm_session(&mut self, env: &mut Env, key: CallKey, side: Side) {
        self.cancel_session(env, key, side);
        let due = self.calls[key].state.legs[side.index()].session.due();
        let refresh = due.map(|due| due.ms_since(env.now.steady));
        let delay = refresh.or_else(|| {
            let due = self.probe_due(key, side)?;
            Some(self.probe_delay(env, due))
        });
        if let Some(delay) = delay {
            self.arm_session_in(env, key, side, delay);
        }
    }

    fn arm_session_in(&mut self, env: &mut Env, key: CallKey, side: Side, delay: u64) {
        self.cancel_session(env, key, side);
        if self.calls[key].is_up() {
            let timer = TimerKey::Call(key, CallTimer::Session(side as u8));
            self.calls[key].timers[SESSION + side.index()] = Some(env.arm(delay, timer));
        }
    }

    fn cancel_session(&mut self, env: &mut Env, key: CallKey, side: Side) {
        if let Some(old) = self.calls[key].timers[SESSION + side.index()].take() {
            env.wheel.cancel(old);
        }
    }

    // RFC 4028 10: refresh if that is our part, else the peer has failed to.
    fn on_session_timer(&mut self, env: &mut Env, key: CallKey, side: Side) {
        let call = &mut self.calls[key];
        call.timers[SESSION + side.index()] = None;
        if !call.is_up() {
            return;
        }
        let session = call.state.legs[side.index()].session;
        if session.expires_s == 0 {
            return self.send_probe(env, key, side);
        }
        let expired = session
            .expiry()
            .is_some_and(|expiry| expiry <= env.now.steady);
        if expired {
            env.counters.call_session_expired += 1;
            self.end_call(env, key, CauseCode(408));
        } else if session.refresher == Some(Refresher::Us) && !self.can_refresh(key, side) {
            // A session that nobody is able to refresh must not end for it.
            let session = &mut self.calls[key].state.legs[side.index()].session;
            (session.expires_s, session.refresher) = (0, None);
            session.refreshed = env.now.steady;
            self.arm_session(env, key, side);
            self.touch(key);
        } else if session.refresher == Some(Refresher::Us) {
            let sent = self.send_refresh(env, key, side);
            // If the refresh comes to nothing, the expiry ends the call.
            let left = session
                .expiry()
                .map_or(0, |expiry| expiry.ms_since(env.now.steady));
            let left = if sent {
                left
            } else {
                left.min(REFRESH_AGAIN_MS)
            };
            self.arm_session_in(env, key, side, left);
        } else {
            self.arm_session(env, key, side);
        }
    }

    fn can_refresh(&self, key: CallKey, side: Side) -> bool {
        let state = &self.calls[key].state;
        state.legs[side.index()].allows_update || !state.sdp[side.index()].is_empty()
    }

    // UPDATE without SDP if the peer knows UPDATE (RFC 4028 7.4), else a re-INVITE that repeats
    // the SDP sent last.
    // False if it has to wait for an INVITE that is under way.
    fn send_refresh(&mut self, env: &mut Env, key: CallKey, side: Side) -> bool {
        self.touch(key);
        let call = &mut self.calls[key];
        let busy = call.invites[side.other().index()]
            .as_ref()
            .is_some_and(|i| !i.answered);
        let (id, sdp) = (call.state.id, call.state.sdp[side.index()]);
        let leg = &mut call.state.legs[side.index()];
        let method = match leg.allows_update {
            true => Method::Update,
            false if busy => return false,
            false => Method::Invite,
        };
        let (peer, listener, cseq) = (leg.peer, leg.listener, leg.next_cseq());
        let user = User {
            call: key,
            side,
            role: Role::Refresh,
            link: None,
            fork: 0,
            at: env.now.wall,
        };
        let txn = self.layer.open_client(method, peer, listener, user);
        let mut out = env.pool.take();
        let state = &self.calls[key].state;
        let leg = &state.legs[side.index()];
        let name = method.as_str().as_bytes();
        leg.write_request(&state.texts, &mut out, name, cseq, 70, |out| {
            self.write_via(out, id, txn, listener);
        });
        self.write_own_contact(&mut out, id, side, listener);
        out.extend_from_slice(b"Supported: timer\r\n");
        let floor = self.config.sip.session.min_se_s;
        super::in_dialog::write_session_expires(&mut out, &leg.session, floor);
        self.write_icid(&mut out, state, peer);
        if method == Method::Invite {
            write::header(&mut out, HeaderId::ContentType, b"application/sdp");
            compose::end_with_body(&mut out, state.texts.get(sdp));
        } else {
            compose::end_without_body(&mut out);
        }
        if method == Method::Invite {
            self.calls[key].refreshing[side.index()] = Some(txn);
        }
        self.layer.start_client(env, txn, cseq, out);
        true
    }

    /// The answer to our own refresh.
    pub(super) fn on_refresh_response(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: &Message<'_>,
        origin: Origin,
    ) {
        let status = response.status();
        let (cseq, method) = response.cseq();
        if status < 200
            || !self.calls[user.call].is_up()
            || self.answer_challenge(env, id, user, response)
        {
            return;
        }
        if status < 300 {
            if method == Method::Invite {
                self.acknowledge_refresh(env, user, id, cseq);
            }
            let state = &mut self.calls[user.call].state;
            let leg = &mut state.legs[user.side.index()];
            leg.refresh_target(&mut state.texts, response, origin.from);
            leg.session = session_timer::from_answer(leg.session, response, env.now.steady);
            self.arm_session(env, user.call, user.side);
            self.touch(user.call);
        } else if status == 481 || status == 408 {
            self.end_call(env, user.call, CauseCode(i32::from(status)));
        } else if status == 491 || status == 500 {
            self.refresh_again(env, user);
        }
        // Any other failure leaves the session as it was; its expiry is armed.
    }

    // RFC 3261 14.1: the refresh met an offer of the peer's and is tried again a little later.
    fn refresh_again(&mut self, env: &mut Env, user: User) {
        let legs = &self.calls[user.call].state.legs;
        let expiry = legs[user.side.index()].session.expiry();
        let left = expiry.map_or(0, |expiry| expiry.ms_since(env.now.steady));
        let delay = left.min(REFRESH_AGAIN_MS + env.rng.below(REFRESH_AGAIN_MS));
        self.arm_session_in(env, user.call, user.side, delay);
    }

    fn on_refresh_unanswered(&mut self, env: &mut Env, user: User) {
        env.counters.call_session_expired += 1;
        self.end_call(env, user.call, CauseCode(408));
    }

    fn acknowledge_refresh(&mut self, env: &mut Env, user: User, id: TxnId, cseq: u32) {
        let state = &self.calls[user.call].state;
        let leg = &state.legs[user.side.index()];
        let mut out = env.pool.take();
        leg.write_request(&state.texts, &mut out, b"ACK", cseq, 70, |out| {
            self.write_ack_via(out, state.id, id, leg.listener);
        });
        self.write_icid(&mut out, state, leg.peer);
        compose::end_without_body(&mut out);
        env.out.push(user.call, leg.peer, leg.listener, &out);
        env.pool.give(out);
    }

    /// Arms the wheel for the next deadline of the call's charging, if it changed.
    pub fn arm_charging(&mut self, env: &mut Env, key: CallKey) {
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        let due = call.state.charging.next_deadline();
        if due == call.charging_due {
            return;
        }
        if let Some(old) = call.timers[CHARGING].take() {
            env.wheel.cancel(old);
        }
        call.charging_due = due;
        if let Some(due) = due {
            let delay = due.ms_since(env.now.steady);
            let timer = env.arm(delay, TimerKey::Call(key, CallTimer::Charging));
            call.timers[CHARGING] = Some(timer);
        }
    }

    fn on_charging_deadline(&mut self, env: &mut Env, key: CallKey) {
        let call = &mut self.calls[key];
        call.timers[CHARGING] = None;
        call.charging_due = None;
        let verdict = self.ctf.on_deadline(env.now, &mut call.state.charging);
        self.obey(env, key, verdict);
        self.touch(key);
    }
}

/// Least wait before a refresh that met another offer is tried again (RFC 3261 14.1).
const REFRESH_AGAIN_MS: u64 = 2_000;
