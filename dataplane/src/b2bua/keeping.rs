//! The calls' way into and out of the table: taken up from a state, held back, dropped, removed.

use replication::{Mode, Version};

use super::call::{CHARGING, DURATION, HOP, RINGING, SESSION};
use super::{B2bua, CallState, Held, Origin, Phase, Side};
use crate::env::{CallKey, CallTimer, Env, ListenerId, TimerKey};

impl B2bua {
    /// Takes a finished call out of the table. `None` if it is not finished; else whether it
    /// stands in the ring.
    pub fn remove_finished(&mut self, env: &mut Env, key: CallKey) -> Option<(u128, bool)> {
        if !self.calls.get(key)?.is_finished() {
            return None;
        }
        self.take_out(env, key)
    }

    fn take_out(&mut self, env: &mut Env, key: CallKey) -> Option<(u128, bool)> {
        let mut call = self.calls.remove(key)?;
        let (id, stored) = (call.state.id, call.stored);
        self.by_id.remove(&id);
        for timer in &mut call.timers {
            if let Some(handle) = timer.take() {
                env.wheel.cancel(handle);
            }
        }
        for invite in call.invites.iter_mut().filter_map(Option::take) {
            env.pool.give(invite.ack);
        }
        for held in call.held.drain(..) {
            env.pool.give(held.bytes);
        }
        call.close_invites(&mut env.pool);
        env.pool.give(call.set_up.reset());
        self.ctf.recycle(&mut call.state.charging);
        if self.spare.len() < SPARE_MAX {
            self.spare.push(call);
        }
        Some((id, stored))
    }

    /// Takes a call up from its state. What fell due meanwhile is done within `spread_ms` at random;
    /// no deadline in it is believed further than any clock could have set it.
    pub fn resume(&mut self, env: &mut Env, mut state: CallState, spread_ms: u64) {
        let id = state.id;
        self.ctf.adopt(env.now, &mut state.charging, spread_ms);
        state.open.retain(|invite| {
            let age_ms = env.now.steady.ms_since(invite.since);
            !invite.is_answered() || age_ms <= ANSWER_KEPT_MS
        });
        if state.phase == Phase::Answered && state.open_invite(Side::Originating).is_none() {
            // The ACK may have come while nobody listened; its lack ends nothing any more.
            state.phase = Phase::Confirmed;
        }
        let peer = Origin {
            from: state.legs[0].peer,
            listener: state.legs[0].listener,
        };
        let key = self.open_call(state.phase, peer, state.begun);
        let fresh = self.calls[key].state.id;
        self.by_id.remove(&fresh);
        self.by_id.insert(id, key);
        let call = &mut self.calls[key];
        call.unanswered = [0, 1].map(|leg| state.legs[leg].remote_cseq);
        call.state = state;
        (call.stored, call.takes_over) = (true, true);
        self.arm_taken_up(env, key, spread_ms);
        self.end_again(env, key);
        self.go_on_with_invites(env, key);
        self.touch(key);
    }

    /// The call with that id, if it is in the table.
    #[must_use]
    pub fn key_of(&self, id: u128) -> Option<CallKey> {
        self.by_id.get(&id).copied()
    }

    /// Drops a call without a word: another node goes on with it. False if it is not here.
    pub fn forget(&mut self, env: &mut Env, id: u128) -> bool {
        let Some(&key) = self.by_id.get(&id) else {
            return false;
        };
        self.silence(env, |of| of == key);
        self.take_out(env, key).is_some()
    }

    // Whatever these calls still say could contradict the node that has them now, what was said
    // in this turn as well: it is not committed, and nobody else knows of it.
    fn silence(&mut self, env: &mut Env, is_over: impl Fn(CallKey) -> bool) {
        self.layer.drop_of(env, &is_over);
        env.out.extract(|datagram, _| is_over(datagram.call));
    }

    /// Calls that another node could go on with as well, `limit` at most: nobody waits for
    /// anything inside them. `is_late`: be it for the answer to a charging request.
    #[must_use]
    pub fn movable(&self, is_late: bool, limit: usize) -> Vec<(CallKey, u128)> {
        let mut busy = std::collections::HashSet::new();
        self.layer.each_open(|user| {
            busy.insert(user.call);
        });
        let moves = |(key, call): &(CallKey, &super::Call)| {
            call.is_at_rest() && (is_late || call.is_charged_so_far()) && !busy.contains(key)
        };
        let calls = self.calls.iter().filter(moves).take(limit);
        calls.map(|(key, call)| (key, call.state.id)).collect()
    }

    /// Drops calls without a word: other nodes go on with them.
    pub fn forget_all(&mut self, env: &mut Env, calls: &[(CallKey, u128)]) {
        if calls.is_empty() {
            return;
        }
        let keys: std::collections::HashSet<CallKey> = calls.iter().map(|(key, _)| *key).collect();
        self.silence(env, |of| keys.contains(&of));
        for (key, _) in calls {
            self.take_out(env, *key);
        }
    }

    /// Drops every call that others may know of; those being set up are known to nobody else.
    pub fn forget_stored(&mut self, env: &mut Env) -> u64 {
        let stored = self.calls.iter().filter(|(_, call)| call.stored);
        let stored: Vec<CallKey> = stored.map(|(key, _)| key).collect();
        let keys: std::collections::HashSet<CallKey> = stored.iter().copied().collect();
        self.silence(env, |of| keys.contains(&of));
        for &key in &stored {
            self.take_out(env, key);
        }
        stored.len() as u64
    }

    /// Settles of what class a call is that is about to be stored, and says how that class's calls
    /// are replicated.
    pub fn settle_class(&mut self, key: CallKey) -> Option<Mode> {
        let call = self.calls.get_mut(key)?;
        let class = call.state.class(&self.config);
        call.state.class = Some(class);
        self.config.rf.class(class).mode
    }

    /// Puts a call on the list of those to settle although its state did not change.
    pub fn list(&mut self, key: CallKey) {
        if let Some(call) = self.calls.get_mut(key)
            && !call.listed
        {
            call.listed = true;
            self.touched.push(key);
        }
    }

    /// What the call causes from now on waits for this version.
    pub fn wait_for(&mut self, key: CallKey, version: Version) {
        if let Some(call) = self.calls.get_mut(key) {
            call.waits_for = Some(version);
        }
    }

    /// Whether what the call causes has to wait.
    #[must_use]
    pub fn is_waiting(&self, key: CallKey) -> bool {
        self.calls
            .get(key)
            .is_some_and(|call| call.waits_for.is_some())
    }

    /// Holds a datagram of the call back if it has to wait; false if it has not to.
    pub fn hold(
        &mut self,
        surroundings: &mut HoldEnv<'_>,
        key: CallKey,
        to: std::net::SocketAddr,
        listener: ListenerId,
        bytes: &[u8],
    ) -> bool {
        let Some(call) = self.calls.get_mut(key) else {
            return false;
        };
        if call.waits_for.is_none() {
            return false;
        }
        if call.held.len() < HELD_MAX {
            let bytes = surroundings.pool.copy_of(bytes);
            call.held.push(Held {
                to,
                listener,
                bytes,
            });
            surroundings.counters.sip_datagram_held += 1;
        } else {
            surroundings.counters.sip_datagram_held_dropped += 1;
        }
        true
    }

    /// The call's state has its copies up to `version`: what waited for it leaves.
    pub fn release(&mut self, env: &mut Env, key: CallKey, version: Version) {
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        if call.waits_for.is_none_or(|wanted| wanted > version) {
            return;
        }
        call.waits_for = None;
        for held in call.held.drain(..) {
            env.out
                .push(CallKey::default(), held.to, held.listener, &held.bytes);
            env.pool.give(held.bytes);
        }
        self.list(key);
    }

    /// Marks a call whose record waits until this node may act; true if it was not yet.
    pub fn park(&mut self, key: CallKey) -> bool {
        self.calls
            .get_mut(key)
            .is_some_and(|call| !std::mem::replace(&mut call.parked, true))
    }

    /// Takes that mark away, to try again.
    pub fn unpark(&mut self, key: CallKey) {
        if let Some(call) = self.calls.get_mut(key) {
            call.parked = false;
            self.list(key);
        }
    }

    /// A call's timer is due but must not act yet: it comes again.
    pub fn postpone(&mut self, env: &mut Env, key: CallKey, timer: CallTimer) {
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        let slot = match timer {
            CallTimer::Charging => CHARGING,
            CallTimer::Session(side) => SESSION + usize::from(side),
            CallTimer::MaxDuration => DURATION,
            CallTimer::Ringing => RINGING,
            CallTimer::Hop => HOP,
        };
        // Not in step with the heartbeats, or a lease that is short now and then, because a peer is
        // slow, would be found wanting each time.
        let delay = POSTPONED_MS / 4 + env.rng.below(POSTPONED_MS);
        call.timers[slot] = Some(env.arm(delay, TimerKey::Call(key, timer)));
    }
}

/// What holding back needs of the surroundings while the outbox is being looked through.
pub struct HoldEnv<'a> {
    /// Where the copies come from.
    pub pool: &'a mut crate::env::BufPool,
    /// What is counted.
    pub counters: &'a mut crate::counters::Counters,
}

/// So long a caller acknowledges a 2xx that comes again: 64*T1 (RFC 3261 13.2.2.4).
const ANSWER_KEPT_MS: u64 = 64 * 500;
/// Ended calls kept for their memory.
const SPARE_MAX: usize = 16 * 1_024;
/// Datagrams of one call that wait for copies; more are dropped, for SIP repeats them.
const HELD_MAX: usize = 32;
/// A timer that must not act is put off by a quarter of this at least, and at random.
const POSTPONED_MS: u64 = 100;
