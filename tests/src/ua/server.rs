//! The requests a phone answers.

use std::net::SocketAddr;

use dataplane::sip::{HeaderId, Message, Method};

use super::message::{contact, response_head, session_of, text, value};
use super::{Dialog, DialogState, Do, LIFE, Phone, Sent, T1, T2};

/// A server transaction.
pub(super) struct Server {
    branch: String,
    method: String,
    cseq: u32,
    head: String,
    to: SocketAddr,
    response: Vec<u8>,
    code: u16,
    resend_at: Option<u64>,
    interval: u64,
    give_up_at: Option<u64>,
    dialog: usize,
    initial: bool,
    offered: bool,
    timer: Option<(u32, Option<bool>)>,
    rseq: u32,
    reliable: bool,
    acknowledged: bool,
}

impl Server {
    pub(super) fn due(&self) -> Option<u64> {
        match (self.resend_at, self.give_up_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

impl Phone {
    pub(super) fn on_request(&mut self, now: u64, from: SocketAddr, request: &Message<'_>) {
        let branch = request
            .top_via()
            .and_then(|via| via.branch)
            .map(text)
            .unwrap_or_default();
        let method = text(request.method_text());
        if request.method() == Method::Ack {
            return self.on_ack(now, &branch, request);
        }
        let known = self
            .servers
            .iter()
            .find(|one| one.branch == branch && one.method == method);
        if let Some(server) = known {
            if !server.response.is_empty() {
                self.out.push(Sent {
                    to: server.to,
                    bytes: server.response.clone(),
                });
            }
            return;
        }
        let place = self.open(from, branch, method, request);
        if self.plan.challenges > 0 && self.challenge(now, place, request) {
            return;
        }
        match request.method() {
            Method::Cancel => self.on_cancel(now, place),
            Method::Invite if request.to_tag().is_none() => self.on_invite(now, place, request),
            _ if request.to_tag().is_none() => {
                self.servers[place].initial = true;
                match self.plan.answer {
                    Some((after, code)) => self.plan_at(now + after, Do::Final(code)),
                    None => self.reply(now, place, 200, "", ""),
                }
            }
            _ => self.on_inside(now, place, request),
        }
    }

    fn open(
        &mut self,
        from: SocketAddr,
        branch: String,
        method: String,
        request: &Message<'_>,
    ) -> usize {
        self.servers.push(Server {
            branch,
            method,
            cseq: request.cseq().0,
            head: response_head(request),
            to: from,
            response: Vec::new(),
            code: 0,
            resend_at: None,
            interval: T1,
            give_up_at: None,
            dialog: 0,
            initial: false,
            offered: !request.body().is_empty(),
            timer: session_of(request),
            rseq: 0,
            reliable: request.has_token(HeaderId::Supported, b"100rel"),
            acknowledged: false,
        });
        self.servers.len() - 1
    }

    fn on_invite(&mut self, now: u64, place: usize, request: &Message<'_>) {
        let replaces = value(request, HeaderId::Replaces);
        if !self.dialogs.is_empty() && !replaces.is_empty() {
            self.ledger.replaced_by = replaces;
            return self.reply(now, place, 486, "", "");
        }
        if !self.dialogs.is_empty() {
            self.wrong(now, "a second INVITE", request);
            return self.reply(now, place, 486, "", "");
        }
        self.call_id = text(request.call_id());
        let mut dialog = Dialog {
            local_tag: format!("callee{}", self.number),
            remote_tag: request.from_tag().map(text).unwrap_or_default(),
            local: value(request, HeaderId::To),
            remote: without_tag(&value(request, HeaderId::From)),
            target: contact(request).unwrap_or_default(),
            cseq: 0,
            remote_cseq: request.cseq().0,
            state: DialogState::Early,
            fork: false,
            session_s: 0,
            refreshes: false,
        };
        self.dialogs.push(dialog.clone());
        if self.plan.fork_after.is_some() {
            dialog.local_tag.push_str("-fork");
            dialog.fork = true;
            self.dialogs.push(dialog);
        }
        self.servers[place].initial = true;
        let asked = self.servers[place]
            .timer
            .map_or(u32::MAX, |(seconds, _)| seconds);
        if asked < self.plan.min_se_s {
            let extra = format!("Min-SE: {}\r\n", self.plan.min_se_s);
            self.dialogs.clear(); // another INVITE will come
            self.servers[place].initial = false;
            return self.reply(now, place, 422, &extra, "");
        }
        self.reply(now, place, 100, "", "");
        for (after, code) in self.plan.rings.clone() {
            self.plan_at(now + after, Do::Provisional(code));
        }
        if let Some((after, code)) = self.plan.answer {
            self.plan_at(now + after, Do::Final(code));
        }
    }

    // Refuses a request without credentials, or with those for a nonce that is stale by now.
    fn challenge(&mut self, now: u64, place: usize, request: &Message<'_>) -> bool {
        if request.method() == Method::Cancel {
            return false;
        }
        let code = self.plan.challenges;
        let (asks, answers) = match code {
            401 => ("WWW-Authenticate", HeaderId::Authorization),
            _ => ("Proxy-Authenticate", HeaderId::ProxyAuthorization),
        };
        let given = value(request, answers);
        if given.contains("username=\"ada\"") {
            let method = text(request.method_text());
            self.ledger.credentials.push(format!("{method} {given}"));
        }
        let fresh = self.plan.stale_nonces;
        let is_right =
            given.contains(&format!("nonce=\"n{fresh}\"")) && given.contains("response=");
        if is_right && !self.plan.never_satisfied {
            return false;
        }
        // The first challenge of a request names the oldest nonce.
        let known = (0..fresh).find(|old| given.contains(&format!("nonce=\"n{old}\"")));
        let next = known.map_or(0, |old| old + 1);
        let stale = if known.is_some() { ", stale=true" } else { "" };
        let extra =
            format!("{asks}: Digest realm=\"trunk\", nonce=\"n{next}\", qop=\"auth\"{stale}\r\n");
        self.reply(now, place, code, &extra, "");
        true
    }

    fn initial(&self) -> Option<usize> {
        self.servers.iter().rposition(|server| server.initial)
    }

    pub(super) fn ring(&mut self, now: u64, code: u16) {
        let Some(place) = self
            .initial()
            .filter(|place| self.servers[*place].code < 200)
        else {
            return;
        };
        let mut extra = self.allow().to_owned();
        if self.plan.reliable && self.servers[place].reliable {
            if self.servers[place].resend_at.is_some() {
                return; // RFC 3262 3: not before the PRACK of the one before
            }
            self.servers[place].rseq += 1;
            extra.push_str(&format!(
                "Require: 100rel\r\nRSeq: {}\r\n",
                self.servers[place].rseq
            ));
        }
        let body = if code == 183 {
            self.sdp()
        } else {
            String::new()
        };
        self.reply(now, place, code, &extra, &body);
        if self.plan.reliable && self.servers[place].reliable {
            let server = &mut self.servers[place];
            (server.interval, server.resend_at) = (T1, Some(now + T1));
            server.give_up_at = Some(now + LIFE);
        }
    }

    pub(super) fn answer(&mut self, now: u64, code: u16, fork: bool) {
        let Some(place) = self.initial() else { return };
        if self.servers[place].method != "INVITE" {
            return self.reply(now, place, code, "", "");
        }
        if self.servers[place].code >= 200 && !fork {
            return;
        }
        let mut extra = self.allow().to_owned();
        if code >= 300 {
            return self.reply(now, place, code, &extra, "");
        }
        extra.push_str(&self.supported());
        let dialog = usize::from(fork);
        if let Some((seconds, _)) = self.servers[place]
            .timer
            .filter(|_| self.plan.session_s > 0)
        {
            let refresher = if self.plan.node_refreshes {
                "uac"
            } else {
                "uas"
            };
            extra.push_str(&format!(
                "Require: timer\r\nSession-Expires: {seconds};refresher={refresher}\r\n"
            ));
            self.dialogs[dialog].session_s = seconds;
            self.dialogs[dialog].refreshes = !self.plan.node_refreshes;
            self.arm_refresh(now, dialog);
        }
        self.dialogs[dialog].state = DialogState::Confirmed;
        let body = self.sdp();
        if fork {
            // As if another phone of the same user answered.
            self.dialogs[dialog].state = DialogState::Early;
            if self.fork_answer.is_empty() {
                let tag = self.dialogs[dialog].local_tag.clone();
                let head = &self.servers[place].head;
                self.fork_answer = self.write_response(head, 200, &tag, &extra, &body);
                self.fork_since = now;
            }
            if self.ledger.fork_acknowledged || now > self.fork_since + LIFE {
                return;
            }
            let (to, bytes) = (self.servers[place].to, self.fork_answer.clone());
            self.out.push(Sent { to, bytes });
            return self.plan_at(now + T2, Do::Fork);
        }
        self.ledger.answered.get_or_insert(now);
        self.reply(now, place, code, &extra, &body);
        if let Some(after) = self.plan.fork_after {
            self.plan_at(now + after, Do::Fork);
        }
    }

    // Sends a response and arms what the standard wants repeated.
    fn reply(&mut self, now: u64, place: usize, code: u16, extra: &str, body: &str) {
        let server = &self.servers[place];
        let tag = match () {
            () if server
                .head
                .rsplit("\r\n")
                .next()
                .is_some_and(|to| to.contains(";tag=")) =>
            {
                ""
            }
            () if code == 100 => "",
            () => match self.dialogs.get(server.dialog) {
                Some(dialog) => dialog.local_tag.as_str(),
                None => "none",
            },
        };
        let tag = tag.to_owned();
        let bytes = self.write_response(&server.head, code, &tag, extra, body);
        let server = &mut self.servers[place];
        self.out.push(Sent {
            to: server.to,
            bytes: bytes.clone(),
        });
        (server.response, server.code) = (bytes, code);
        if server.method == "INVITE" && code >= 200 {
            (server.interval, server.resend_at) = (T1, Some(now + T1));
            server.give_up_at = Some(now + LIFE);
        }
    }

    pub(super) fn run_servers(&mut self, now: u64) {
        for place in 0..self.servers.len() {
            let server = &mut self.servers[place];
            if server.resend_at.is_some_and(|at| at <= now) {
                server.interval = (server.interval * 2).min(T2);
                server.resend_at = Some(now + server.interval);
                self.out.push(Sent {
                    to: server.to,
                    bytes: server.response.clone(),
                });
            }
            if server.give_up_at.is_some_and(|at| at <= now) {
                (server.resend_at, server.give_up_at) = (None, None);
                let (code, dialog) = (server.code, server.dialog);
                if code < 200 {
                    self.reply(now, place, 504, "", ""); // RFC 3262 3: no PRACK came
                } else if code < 300 {
                    self.ledger.ack_missing = true;
                    self.hang_up(now, dialog);
                }
            }
        }
    }

    fn on_ack(&mut self, now: u64, branch: &str, ack: &Message<'_>) {
        let tag = ack.to_tag().map(text).unwrap_or_default();
        let cseq = ack.cseq().0;
        let Some(dialog) = self
            .dialogs
            .iter()
            .position(|dialog| dialog.local_tag == tag)
        else {
            let failure = self.servers.iter_mut().find(|one| one.branch == branch);
            match failure {
                Some(server) => (server.resend_at, server.give_up_at) = (None, None),
                None => self.wrong(now, "an ACK for nothing", ack),
            }
            return;
        };
        if self.dialogs[dialog].fork {
            if self.plan.fork_acks_lost > 0 {
                self.plan.fork_acks_lost -= 1;
                return;
            }
            if !std::mem::replace(&mut self.ledger.fork_acknowledged, true) {
                self.dialogs[dialog].state = DialogState::Confirmed;
            }
            return;
        }
        let found = self.servers.iter().position(|server| {
            server.method == "INVITE" && server.cseq == cseq && server.code >= 200
        });
        let Some(place) = found else {
            return self.wrong(now, "an ACK for nothing", ack);
        };
        let server = &mut self.servers[place];
        if server.code >= 300 && server.branch != branch {
            return self.wrong(now, "the ACK of a 2xx for a failure", ack);
        }
        (server.resend_at, server.give_up_at) = (None, None);
        if std::mem::replace(&mut server.acknowledged, true) || server.code >= 300 {
            return;
        }
        if server.initial {
            self.ledger.acknowledged.get_or_insert(now);
            if self.dialogs[dialog].state == DialogState::Confirmed {
                self.on_answered(now, dialog);
            }
        }
    }

    fn on_cancel(&mut self, now: u64, place: usize) {
        let branch = self.servers[place].branch.clone();
        let invite = self
            .servers
            .iter()
            .position(|server| server.method == "INVITE" && server.branch == branch);
        let Some(invite) = invite else {
            return self.reply(now, place, 481, "", "");
        };
        self.ledger.cancel_received = true;
        self.servers[place].dialog = self.servers[invite].dialog;
        self.reply(now, place, 200, "", "");
        if self.servers[invite].code < 200 && !self.plan.ignores_cancel {
            self.reply(now, invite, 487, "", "");
        }
    }

    fn on_inside(&mut self, now: u64, place: usize, request: &Message<'_>) {
        let tag = request.to_tag().map(text).unwrap_or_default();
        let from = request.from_tag().map(text).unwrap_or_default();
        let found = self.dialogs.iter().position(|dialog| {
            dialog.local_tag == tag
                && dialog.remote_tag == from
                && self.call_id.as_bytes() == request.call_id()
        });
        let Some(dialog) = found else {
            self.wrong(now, "a request for no dialog", request);
            return self.reply(now, place, 481, "", "");
        };
        self.servers[place].dialog = dialog;
        let cseq = request.cseq().0;
        let late = cseq <= self.dialogs[dialog].remote_cseq;
        if late {
            // Overtaken on the way; with a network that keeps the order, a fault.
            return self.reply(now, place, 500, "", "");
        }
        self.dialogs[dialog].remote_cseq = cseq;
        self.ledger.received.push(text(request.method_text()));
        if request.method() == Method::Bye {
            return self.on_bye(now, place, dialog, request);
        }
        if self.dialogs[dialog].state == DialogState::Ended {
            return self.reply(now, place, 481, "", "");
        }
        if let (Some(target), Method::Invite | Method::Update) =
            (contact(request), request.method())
        {
            self.dialogs[dialog].target = target;
        }
        match request.method() {
            Method::Invite => self.on_reinvite(now, place),
            Method::Update => self.on_update(now, place, dialog),
            Method::Prack => {
                if let Some(invite) = self.initial().filter(|one| self.servers[*one].code < 200) {
                    let server = &mut self.servers[invite];
                    (server.resend_at, server.give_up_at) = (None, None);
                }
                if !self.plan.ignores_prack {
                    self.reply(now, place, 200, "", "");
                }
            }
            _ => self.reply(now, place, 200, "", ""),
        }
    }

    fn on_bye(&mut self, now: u64, place: usize, dialog: usize, bye: &Message<'_>) {
        if self.dialogs[dialog].fork {
            self.ledger.fork_ended = true;
        } else {
            self.ledger.bye_received.get_or_insert(now);
            self.ledger.bye_reason = value(bye, HeaderId::Reason);
            for server in &mut self.servers {
                // The session is over: nobody needs the 2xx any more.
                if server.method == "INVITE" && (200..300).contains(&server.code) {
                    (server.resend_at, server.give_up_at) = (None, None);
                }
            }
        }
        self.end(dialog);
        self.reply(now, place, 200, "", "");
        self.refuse_pending(now, dialog);
    }

    /// RFC 3261 15.1.2: pending requests of an ended dialog get 487.
    pub(super) fn refuse_pending(&mut self, now: u64, dialog: usize) {
        for place in 0..self.servers.len() {
            let server = &self.servers[place];
            let pending = server.method == "INVITE" && server.code < 200 && server.dialog == dialog;
            if pending && !server.initial {
                self.reply(now, place, 487, "", "");
            }
        }
    }

    fn on_reinvite(&mut self, now: u64, place: usize) {
        let pending = self.servers[..place]
            .iter()
            .any(|server| server.method == "INVITE" && server.code < 200);
        if self.is_negotiating() || self.plan.reinvites_refused > 0 {
            self.plan.reinvites_refused = self.plan.reinvites_refused.saturating_sub(1);
            return self.reply(now, place, 491, "", "");
        }
        if pending {
            return self.reply(now, place, 500, "Retry-After: 3\r\n", "");
        }
        self.reply(now, place, 100, "", "");
        if !self.plan.reinvite_ignored {
            self.plan_at(now + self.plan.reinvite_after, Do::AnswerReinvite(place));
        }
    }

    pub(super) fn answer_reinvite(&mut self, now: u64, place: usize) {
        if self.servers[place].code >= 200 {
            return;
        }
        let code = if self.plan.reinvite_status == 0 {
            200
        } else {
            self.plan.reinvite_status
        };
        let body = if code == 200 {
            self.sdp()
        } else {
            String::new()
        };
        let extra = self.accept_timer(now, place);
        self.reply(now, place, code, &extra, &body);
    }

    fn on_update(&mut self, now: u64, place: usize, dialog: usize) {
        let offered = self.servers[place].offered;
        let early = self.dialogs[dialog].state == DialogState::Early;
        if offered && self.is_negotiating() && !early {
            return self.reply(now, place, 491, "", "");
        }
        let body = if offered { self.sdp() } else { String::new() };
        let extra = self.accept_timer(now, place);
        self.reply(now, place, 200, &extra, &body);
    }

    // What the 2xx to a refresh says about the session timer.
    fn accept_timer(&mut self, now: u64, place: usize) -> String {
        let Some((seconds, uac)) = self.servers[place].timer else {
            return self.allow().to_owned();
        };
        let uac = uac.unwrap_or(true);
        let dialog = self.servers[place].dialog;
        self.dialogs[dialog].session_s = seconds;
        self.dialogs[dialog].refreshes = !uac;
        self.arm_refresh(now, dialog);
        let who = if uac { "uac" } else { "uas" };
        let require = if uac { "Require: timer\r\n" } else { "" };
        format!(
            "{require}Session-Expires: {seconds};refresher={who}\r\n{}",
            self.allow()
        )
    }
}

fn without_tag(value: &str) -> String {
    value.split(";tag=").next().unwrap_or_default().to_owned()
}
