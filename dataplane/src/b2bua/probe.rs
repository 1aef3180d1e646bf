//! OPTIONS inside the dialog of a leg without session timer: whether its peer still knows the
//! call. Else a call whose BYE was lost would be billed until its longest duration is over.

use charging::time::UnixMillis;
use charging::trigger::CauseCode;

use super::{B2bua, Role, Side, User, usage};
use crate::compose;
use crate::env::{CallKey, Env};
use crate::sip::{Message, Method};
use crate::transaction::TxnId;

impl B2bua {
    /// When the peer of a leg is to be asked next: counted from its last sign of life, which
    /// stands in the call's state, so that whoever takes the call up goes on asking.
    pub(super) fn probe_due(&self, key: CallKey, side: Side) -> Option<UnixMillis> {
        let interval_ms = self.config.sip.probe_interval_s * 1_000;
        let session = self.calls[key].state.legs[side.index()].session;
        let wanted = interval_ms > 0 && session.expires_s == 0;
        wanted.then(|| session.refreshed.plus_ms(interval_ms))
    }

    /// How long until then. What is overdue belongs to a call that was just taken up, beside many
    /// others: those are spread.
    pub(super) fn probe_delay(&self, env: &mut Env, due: UnixMillis) -> u64 {
        let interval_ms = self.config.sip.probe_interval_s * 1_000;
        match due.ms_since(env.now.steady) {
            0 => env.rng.below(interval_ms.min(OVERDUE_SPREAD_MS)),
            // The clock of who had the call before must not silence the probe.
            delay => delay.min(interval_ms),
        }
    }

    /// Asks the peer of a leg.
    pub(super) fn send_probe(&mut self, env: &mut Env, key: CallKey, side: Side) {
        let state = &mut self.calls[key].state;
        let (id, leg) = (state.id, &mut state.legs[side.index()]);
        let (peer, listener, cseq) = (leg.peer, leg.listener, leg.next_cseq());
        let user = User {
            call: key,
            side,
            role: Role::Probe,
            link: None,
            fork: 0,
            at: env.now.wall,
        };
        let txn = self
            .layer
            .open_client(Method::Options, peer, listener, user);
        let mut out = env.pool.take();
        let state = &self.calls[key].state;
        let leg = &state.legs[side.index()];
        leg.write_request(&state.texts, &mut out, b"OPTIONS", cseq, 70, |out| {
            self.write_via(out, id, txn, listener);
        });
        self.write_own_contact(&mut out, id, side, listener);
        out.extend_from_slice(b"Accept: application/sdp\r\n");
        self.write_icid(&mut out, state, leg.peer);
        compose::end_without_body(&mut out);
        env.counters.call_probed += 1;
        self.touch(key);
        self.layer.start_client(env, txn, cseq, out);
    }

    /// The answer, `None` if none came: RFC 3261 12.2.1.2 has no answer mean what a 408 does.
    /// Anything but 481 and 408 shows that the peer knows the call.
    pub(super) fn on_probe_answer(
        &mut self,
        env: &mut Env,
        id: TxnId,
        user: User,
        response: Option<&Message<'_>>,
    ) {
        let status = response.map_or(408, Message::status);
        let key = user.call;
        if status < 200 || !self.calls[key].is_up() {
            return;
        }
        if response.is_some_and(|response| self.answer_challenge(env, id, user, response)) {
            return;
        }
        if usage::ends_session(Method::Options, status) {
            env.counters.call_probe_failed += 1;
            return self.end_call(env, key, CauseCode(i32::from(status)));
        }
        let session = &mut self.calls[key].state.legs[user.side.index()].session;
        // Timers may have been agreed meanwhile; they know better when the session was refreshed.
        if session.expires_s == 0 {
            session.refreshed = env.now.steady;
        }
        self.arm_session(env, key, user.side);
        self.touch(key);
    }
}

/// Overdue probes of calls that were taken up at once leave within this time, milliseconds.
const OVERDUE_SPREAD_MS: u64 = 10_000;
