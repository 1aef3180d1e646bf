//! Offers inside a dialog: one at a time, and not against one that is on its way (RFC 3261 14,
//! RFC 3311 5.2).

use super::{B2bua, Origin, Side, bridge};
use crate::dialog::session_timer::{self, Asked};
use crate::env::{CallKey, Env};
use crate::sip::{HeaderId, Message, Method, write};
use crate::transaction::{ServerKey, TxnId};

/// An UPDATE that was passed on.
#[derive(Clone, Copy, Debug)]
pub struct PassedUpdate {
    /// Its transaction on the leg it came from; once that is answered, it is in nobody's way.
    pub server: TxnId,
    /// It carried an offer.
    pub offers: bool,
}

impl B2bua {
    // Glare, overlapping offers and session intervals: whether the request may go on.
    pub(super) fn may_offer(
        &mut self,
        env: &mut Env,
        server: ServerKey,
        (key, side): (CallKey, Side),
        request: &Message<'_>,
        origin: Origin,
    ) -> bool {
        let leg = (key, side);
        let call = &self.calls[key];
        let invite = request.method() == Method::Invite;
        let offers = invite || bridge::sdp_of(request).is_some();
        let established = call.is_up();
        if offers && established && self.has_offered_to(key, side) {
            // RFC 3261 14.2, RFC 3311 5.2: an offer of ours is on its way to this peer.
            let (status, reason) = (491, b"Request Pending");
            self.decline(env, server, leg, request, origin, status, reason, b"");
            return false;
        }
        let theirs = call.invites[side.index()].as_ref();
        let overlaps = match invite {
            true => {
                theirs.is_some_and(|invite| invite.ack.is_empty())
                    || self.open_update(key, side).is_some()
            }
            // RFC 3311 5.2: any UPDATE before the answer to the last one, an offer before the
            // answer to any.
            false => {
                let negotiates = established && self.negotiates(key, side);
                self.open_update(key, side).is_some() || (offers && negotiates)
            }
        };
        if overlaps {
            self.decline_for_now(env, server, leg, request, origin);
            return false;
        }
        match session_timer::judge_request(self.config.sip.session, request, env.now.steady) {
            Asked::TooSmall => {
                let mut extra = env.pool.take();
                let floor = u64::from(self.config.sip.session.min_se_s);
                write::header_number(&mut extra, HeaderId::MinSe, floor);
                let (status, reason) = (422, b"Session Interval Too Small");
                self.decline(env, server, leg, request, origin, status, reason, &extra);
                env.pool.give(extra);
                false
            }
            Asked::Agreed(session) => {
                if established {
                    self.calls[key].state.legs[side.index()].session = session;
                }
                true
            }
        }
    }

    // Whether an offer is on its way to the peer of that leg: one that the other leg sent, or one
    // of our own that refreshes the session.
    fn has_offered_to(&self, key: CallKey, side: Side) -> bool {
        let call = &self.calls[key];
        let own = call.refreshing[side.index()];
        self.negotiates(key, side.other())
            || self
                .open_update(key, side.other())
                .is_some_and(|update| update.offers)
            || own.is_some_and(|refresh| self.layer.is_open(refresh))
    }

    // Whether the INVITE from that leg waits for its answer.
    fn negotiates(&self, key: CallKey, from: Side) -> bool {
        let invite = self.calls[key].invites[from.index()].as_ref();
        invite.is_some_and(|invite| !invite.answered && !invite.answered_early)
    }

    fn open_update(&self, key: CallKey, from: Side) -> Option<PassedUpdate> {
        let update = self.calls[key].updates[from.index()];
        update.filter(|update| self.layer.is_open(update.server))
    }

    /// Remembers a request that is passed on, if it is an UPDATE.
    pub(super) fn note_update(
        &mut self,
        key: CallKey,
        from: Side,
        server: TxnId,
        request: &Message<'_>,
    ) {
        if request.method() == Method::Update {
            let offers = bridge::sdp_of(request).is_some();
            self.calls[key].updates[from.index()] = Some(PassedUpdate { server, offers });
        }
    }

    /// A provisional answer to the INVITE from that leg: one that is reliable and has a
    /// description answers the offer, and the next one may follow (RFC 3262 5).
    pub(super) fn note_early_answer(
        &mut self,
        key: CallKey,
        from: Side,
        client: TxnId,
        response: &Message<'_>,
    ) {
        let is_reliable = response.header(HeaderId::RSeq).is_some();
        if let Some(invite) = &mut self.calls[key].invites[from.index()]
            && invite.client == Some(client)
            && is_reliable
            && bridge::sdp_of(response).is_some()
        {
            invite.answered_early = true;
        }
    }

    /// 500 with Retry-After: the same request may be taken a little later (RFC 3261 14.2).
    pub(super) fn decline_for_now(
        &mut self,
        env: &mut Env,
        key: ServerKey,
        leg: (CallKey, Side),
        request: &Message<'_>,
        origin: Origin,
    ) {
        let mut extra = env.pool.take();
        extra.extend_from_slice(b"Retry-After: ");
        write::number(&mut extra, env.rng.below(RETRY_AFTER_S_MAX + 1));
        extra.extend_from_slice(b"\r\n");
        let (status, reason) = (500, b"Server Internal Error");
        self.decline(env, key, leg, request, origin, status, reason, &extra);
        env.pool.give(extra);
    }
}

/// RFC 3261 14.2, RFC 3311 5.2: a random number from 0 to that many seconds.
const RETRY_AFTER_S_MAX: u64 = 10;
