//! The health of next hops: whoever does not answer, or says that it cannot serve, is tried last
//! for a while (RFC 3263 4.3), and OPTIONS may ask each of them whether it lives.
//!
//! Each shard learns for itself. What it knows is a row for each next hop of the route table, so
//! it is bounded by the configuration, and no other address is remembered.

use std::net::SocketAddr;

use slotmap::Key;

use super::{B2bua, Phase, Role, Side, User, id_of};
use crate::compose;
use crate::config::Sip;
use crate::env::{CallKey, CallTimer, Env, ListenerId, TimerKey};
use crate::sip::{HeaderId, Message, Method, Token, write};
use crate::transaction::TxnId;

/// What is known of the next hops of the route table.
pub(super) struct Hops {
    // By address, so that one is found by halving.
    rows: Vec<Health>,
}

#[derive(Clone, Copy, Debug)]
struct Health {
    address: SocketAddr,
    // Tried last until then, on the wheel's scale.
    avoided_until: u64,
    // Why: it was silent, so whatever comes from it shows that it lives again.
    was_silent: bool,
    // The last OPTIONS came to nothing.
    is_down: bool,
    ping: Option<TxnId>,
    pings: u32,
}

impl Hops {
    /// Every next hop of the route table, all of them taken for healthy.
    pub(super) fn new(sip: &Sip) -> Self {
        let hops = sip.routes.iter().flat_map(|route| &route.hops);
        let mut addresses: Vec<SocketAddr> = hops.map(|hop| hop.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let healthy = |address| Health {
            address,
            avoided_until: 0,
            was_silent: false,
            is_down: false,
            ping: None,
            pings: 0,
        };
        Self {
            rows: addresses.into_iter().map(healthy).collect(),
        }
    }

    /// Whether others are to be tried before this one.
    pub(super) fn avoids(&self, address: SocketAddr, now_ms: u64) -> bool {
        let place = self.place_of(address);
        place.is_some_and(|place| self.rows[place].is_avoided(now_ms))
    }

    /// How many are tried last at the moment.
    pub(super) fn avoided(&self, now_ms: u64) -> usize {
        let avoided = self.rows.iter().filter(|row| row.is_avoided(now_ms));
        avoided.count()
    }

    fn place_of(&self, address: SocketAddr) -> Option<usize> {
        self.rows
            .binary_search_by_key(&address, |row| row.address)
            .ok()
    }
}

impl Health {
    const fn is_avoided(&self, now_ms: u64) -> bool {
        self.is_down || self.avoided_until > now_ms
    }
}

impl B2bua {
    /// Arms what the node does by itself: OPTIONS to the next hops, spread over the interval.
    pub fn begin(&mut self, env: &mut Env) {
        let interval_ms = self.config.sip.ping_interval_s * 1_000;
        if interval_ms == 0 {
            return;
        }
        for place in 0..self.hops.rows.len() {
            let delay = env.rng.below(interval_ms);
            env.arm(delay, TimerKey::Ping(place as u16));
        }
    }

    /// Number of next hops that are tried last at the moment.
    #[must_use]
    pub fn hops_avoided(&self, now_ms: u64) -> usize {
        self.hops.avoided(now_ms)
    }

    /// A hop sent nothing, or 503: it is tried last for as long as it asks for, else as long as
    /// `[sip] hop_penalty_s` says.
    pub(super) fn penalise_hop(
        &mut self,
        env: &mut Env,
        address: SocketAddr,
        response: Option<&Message<'_>>,
    ) {
        let usual = self.config.sip.hop_penalty_s;
        let Some(place) = self.hops.place_of(address).filter(|_| usual > 0) else {
            return;
        };
        // RFC 3261 21.5.4. What it may ask for is bounded: it need not be right for ever.
        let asked = response.and_then(retry_after_s);
        let seconds = asked.unwrap_or(usual).min(RETRY_AFTER_S_MAX.max(usual));
        let row = &mut self.hops.rows[place];
        row.avoided_until = env.now_ms + seconds * 1_000;
        row.was_silent = response.is_none();
        env.counters.hop_penalised += 1;
        tracing::debug!(hop = %address, seconds, "a next hop is tried last");
    }

    /// A response to an INVITE came from the hop that it went to.
    pub(super) fn hear_hop(&mut self, env: &mut Env, key: CallKey) {
        if std::mem::replace(&mut self.calls[key].set_up.heard, true) {
            return;
        }
        self.stop_hop_timer(env, key);
        let peer = self.calls[key].state.legs[1].peer;
        if let Some(place) = self.hops.place_of(peer)
            && std::mem::take(&mut self.hops.rows[place].was_silent)
        {
            self.hops.rows[place].avoided_until = 0;
        }
    }

    /// An INVITE left for a hop. If there are others to try, it is not waited for as long as
    /// Timer B.
    pub(super) fn watch_hop(&mut self, env: &mut Env, key: CallKey) {
        self.stop_hop_timer(env, key);
        let call = &mut self.calls[key];
        call.set_up.heard = false;
        let limit = self.config.sip.hop_timeout_ms;
        if limit > 0 && !call.set_up.hops.is_empty() {
            let timer = env.arm(limit, TimerKey::Call(key, CallTimer::Hop));
            call.timers[super::call::HOP] = Some(timer);
        }
    }

    /// The call waits for no hop any more.
    pub(super) fn stop_hop_timer(&mut self, env: &mut Env, key: CallKey) {
        if let Some(timer) = self.calls[key].timers[super::call::HOP].take() {
            env.wheel.cancel(timer);
        }
    }

    /// The hop was silent for too long: the next one gets the INVITE. There is nothing to cancel
    /// before a provisional response (RFC 3261 9.1); if one comes later, it is cancelled then,
    /// and a 2xx is acknowledged and ended.
    pub(super) fn on_hop_silent(&mut self, env: &mut Env, key: CallKey) {
        let call = &mut self.calls[key];
        call.timers[super::call::HOP] = None;
        let waits = call.state.phase == Phase::SettingUp && !call.set_up.over;
        if !waits || call.set_up.heard || call.set_up.hops.is_empty() {
            return;
        }
        let peer = call.state.legs[1].peer;
        if let Some(client) = call.set_up.client.take() {
            self.layer.leave(env, client);
        }
        env.counters.hop_left += 1;
        self.penalise_hop(env, peer, None);
        self.send_invite(env, key);
    }

    /// It is time to ask a hop again. While this node may not act, it asks nobody.
    pub fn on_ping_timer(&mut self, env: &mut Env, place: u16, acts: bool) {
        let interval_ms = self.config.sip.ping_interval_s * 1_000;
        env.arm(interval_ms, TimerKey::Ping(place));
        let open = self.hops.rows[usize::from(place)].ping.take();
        if let Some(open) = open {
            self.layer.forget(env, open);
        }
        // Answers do not reach a node that may not act.
        if acts {
            if open.is_some() {
                self.judge_hop(env, usize::from(place), false);
            }
            self.send_ping(env, usize::from(place));
        }
    }

    /// The answer to an OPTIONS of ours, `None` if none came.
    pub(super) fn on_ping_answer(
        &mut self,
        env: &mut Env,
        id: TxnId,
        response: Option<&Message<'_>>,
    ) {
        let is_its = |row: &Health| row.ping == Some(id);
        let Some(place) = self.hops.rows.iter().position(is_its) else {
            return;
        };
        match response.map(Message::status) {
            Some(..200) => {}
            // Whatever else it says, it speaks.
            status => {
                self.hops.rows[place].ping = None;
                self.judge_hop(env, place, status.is_some_and(|status| status != 503));
            }
        }
    }

    fn judge_hop(&mut self, env: &mut Env, place: usize, lives: bool) {
        let row = &mut self.hops.rows[place];
        let was_down = std::mem::replace(&mut row.is_down, !lives);
        if lives && std::mem::take(&mut row.was_silent) {
            row.avoided_until = 0;
        }
        env.counters.hop_ping_unanswered += u64::from(!lives);
        let hop = row.address;
        match (was_down, lives) {
            (true, true) => tracing::info!(%hop, "a next hop answers again"),
            (false, false) => tracing::info!(%hop, "a next hop does not answer"),
            _ => {}
        }
    }

    fn send_ping(&mut self, env: &mut Env, place: usize) {
        let address = self.hops.rows[place].address;
        let listener = self.listener_for(address, ListenerId::default());
        let user = User {
            call: CallKey::null(),
            side: Side::Terminating,
            role: Role::Ping,
            link: None,
            fork: 0,
            at: env.now.wall,
        };
        let txn = self
            .layer
            .open_client(Method::Options, address, listener, user);
        let mut target = Vec::from(b"sip:");
        write::socket_addr(&mut target, address);
        let mut out = env.pool.take();
        write::request_line(&mut out, b"OPTIONS", &target);
        // The answer finds this shard by the token of a call that never was.
        let nobody = Token {
            node: self.place.node,
            shard: self.place.shard,
            incarnation: self.place.incarnation,
            counter: 0,
        };
        self.write_via(&mut out, id_of(&nobody), txn, listener);
        write::header_number(&mut out, HeaderId::MaxForwards, 70);
        let row = &mut self.hops.rows[place];
        row.pings = row.pings.wrapping_add(1);
        let (tag, cseq) = (env.rng.next_u64(), 1);
        let host = self.config.sip.advertise[listener.index()].as_bytes();
        out.extend_from_slice(b"From: <sip:");
        out.extend_from_slice(host);
        out.extend_from_slice(b">;tag=");
        compose::hex(&mut out, tag);
        out.extend_from_slice(b"\r\nTo: <");
        out.extend_from_slice(&target);
        out.extend_from_slice(b">\r\nCall-ID: ping-");
        compose::hex(&mut out, tag ^ u64::from(row.pings));
        out.push(b'@');
        out.extend_from_slice(host);
        out.extend_from_slice(b"\r\n");
        write::cseq(&mut out, cseq, b"OPTIONS");
        out.extend_from_slice(b"Contact: <sip:");
        out.extend_from_slice(host);
        out.extend_from_slice(b">\r\nAccept: application/sdp\r\n");
        compose::end_without_body(&mut out);
        row.ping = Some(txn);
        env.counters.hop_ping_sent += 1;
        self.layer.start_client(env, txn, cseq, out);
    }
}

// RFC 3261 20.33: seconds, which a comment or parameters may follow.
fn retry_after_s(response: &Message<'_>) -> Option<u64> {
    let value = response.header(HeaderId::RetryAfter)?;
    let end = value.iter().position(|byte| !byte.is_ascii_digit());
    let digits = &value[..end.unwrap_or(value.len())];
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Longest time that the Retry-After of a next hop keeps it last, seconds.
const RETRY_AFTER_S_MAX: u64 = 300;
