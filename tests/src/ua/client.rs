//! The requests of a phone.

use dataplane::sip::{HeaderId, Message, Method};

use super::message::{Request, contact, session_of, text, value};
use super::{CANCEL_LIFE, Dialog, DialogState, Do, LIFE, Phone, Sent, T1, T2};

/// A client transaction.
pub(super) struct Client {
    branch: String,
    method: String,
    cseq: u32,
    bytes: Vec<u8>,
    resend_at: Option<u64>,
    interval: u64,
    give_up_at: Option<u64>,
    heard: bool,
    done: bool,
    dialog: usize,
    initial: bool,
    late_offer: bool,
    cancelled: bool,
    // The ACK of each 2xx, by To tag; empty until it is due.
    acks: Vec<(String, Vec<u8>)>,
    failure_ack: Vec<u8>,
    // Provisional responses acknowledged, by To tag and RSeq.
    pracks: Vec<(String, String)>,
}

impl Client {
    pub(super) fn due(&self) -> Option<u64> {
        match (self.resend_at, self.give_up_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

impl Phone {
    pub(super) fn call(&mut self, now: u64) {
        self.ledger.asked = Some(now);
        let method = if self.plan.method.is_empty() {
            "INVITE"
        } else {
            self.plan.method
        };
        self.call_id = format!("call-{}@{}", self.number, self.address.ip());
        self.dialogs.push(Dialog {
            local_tag: format!("caller{}", self.number),
            remote_tag: String::new(),
            local: format!("<sip:p{}@{}>", self.number, self.address),
            remote: format!("<{}>", self.plan.target),
            target: self.plan.target.clone(),
            cseq: 0,
            remote_cseq: 0,
            state: DialogState::Early,
            fork: false,
            session_s: 0,
            refreshes: false,
        });
        let body = match method {
            "INVITE" if !self.plan.late_offer => self.sdp(),
            _ => String::new(),
        };
        let mut extra = self.supported();
        extra.push_str(self.allow());
        extra.push_str(&self.plan.extra);
        if method == "INVITE" && self.plan.session_s > 0 {
            extra.push_str(&format!(
                "Session-Expires: {};refresher=uac\r\nMin-SE: 90\r\n",
                self.plan.session_s
            ));
        }
        self.send(now, 0, method, &extra, &body);
        if let Some(client) = self.clients.last_mut() {
            client.initial = true;
            client.late_offer = self.plan.late_offer;
        }
        if let Some(after) = self.plan.cancel_after {
            self.plan_at(now + after, Do::Cancel);
        }
    }

    // Starts a client transaction inside `dialog`.
    fn send(&mut self, now: u64, dialog: usize, method: &str, extra: &str, body: &str) {
        let branch = self.next_branch();
        self.dialogs[dialog].cseq += 1;
        let cseq = self.dialogs[dialog].cseq;
        let request = Request {
            method,
            cseq,
            branch: &branch,
            extra,
            body,
        };
        let bytes = self.write_request(&self.dialogs[dialog], &request);
        self.start(now, dialog, method, cseq, branch, bytes);
    }

    fn start(
        &mut self,
        now: u64,
        dialog: usize,
        method: &str,
        cseq: u32,
        branch: String,
        bytes: Vec<u8>,
    ) {
        self.out.push(Sent {
            to: self.node,
            bytes: bytes.clone(),
        });
        self.clients.push(Client {
            branch,
            method: method.to_owned(),
            cseq,
            bytes,
            resend_at: Some(now + T1),
            interval: T1,
            give_up_at: Some(now + LIFE),
            heard: false,
            done: false,
            dialog,
            initial: false,
            late_offer: false,
            cancelled: false,
            acks: Vec::new(),
            failure_ack: Vec::new(),
            pracks: Vec::new(),
        });
    }

    pub(super) fn run_clients(&mut self, now: u64) {
        for place in 0..self.clients.len() {
            let client = &mut self.clients[place];
            if client.resend_at.is_some_and(|at| at <= now) {
                let cap = if client.method == "INVITE" {
                    u64::MAX
                } else {
                    T2
                };
                client.interval = (client.interval * 2).min(cap);
                client.resend_at = Some(now + client.interval);
                self.out.push(Sent {
                    to: self.node,
                    bytes: client.bytes.clone(),
                });
            }
            if client.give_up_at.is_some_and(|at| at <= now) {
                (client.resend_at, client.give_up_at) = (None, None);
                if !client.done {
                    client.done = true;
                    self.ledger.unanswered.push(client.branch.clone());
                    let (dialog, inside) = (client.dialog, !client.initial);
                    let ends = client.method != "BYE" && client.method != "CANCEL";
                    if ends && inside && self.dialogs[dialog].state == DialogState::Confirmed {
                        self.hang_up(now, dialog); // RFC 3261 12.2.1.2
                    }
                }
            }
        }
    }

    pub(super) fn on_response(&mut self, now: u64, response: &Message<'_>) {
        let branch = response
            .top_via()
            .and_then(|via| via.branch)
            .map(text)
            .unwrap_or_default();
        let (cseq, method) = response.cseq();
        let found = self.clients.iter().position(|client| {
            client.branch == branch && client.method == method.as_str() && client.cseq == cseq
        });
        let Some(place) = found else {
            return self.wrong(now, "a response to nothing", response);
        };
        if value(response, HeaderId::CallId) != self.call_id {
            return self.wrong(now, "a response with another Call-ID", response);
        }
        match response.status() {
            ..200 => self.on_provisional(now, place, response),
            code if method == Method::Invite && code < 300 => self.on_2xx(now, place, response),
            _ if method == Method::Invite => self.on_refusal(now, place, response),
            _ => self.on_final(now, place, response),
        }
    }

    fn on_provisional(&mut self, now: u64, place: usize, response: &Message<'_>) {
        let client = &mut self.clients[place];
        if client.done || !client.acks.is_empty() {
            return; // overtaken by the final response
        }
        client.heard = true;
        if client.method == "INVITE" {
            (client.resend_at, client.give_up_at) = (None, None);
            if client.cancelled {
                client.give_up_at = Some(now + CANCEL_LIFE);
                self.send_cancel(now, place);
            }
        }
        let client = &self.clients[place];
        if !client.initial || response.status() == 100 || client.method != "INVITE" {
            return;
        }
        self.ledger.provisionals.push(response.status());
        let tag = response.to_tag().map(text).unwrap_or_default();
        let required = response.has_token(HeaderId::Require, b"100rel");
        let key = (tag.clone(), value(response, HeaderId::RSeq));
        if required && !self.clients[place].pracks.contains(&key) {
            self.clients[place].pracks.push(key.clone());
            let dialog = self.dialog_of(place, &tag, response);
            let rack = format!("RAck: {} {} INVITE\r\n", key.1, self.clients[place].cseq);
            self.send(now, dialog, "PRACK", &rack, "");
        }
    }

    // The dialog that a response to the first INVITE belongs to.
    fn dialog_of(&mut self, place: usize, tag: &str, response: &Message<'_>) -> usize {
        if !self.clients[place].initial {
            return self.clients[place].dialog;
        }
        let known = self
            .dialogs
            .iter()
            .position(|dialog| dialog.remote_tag == tag);
        let dialog = known.unwrap_or_else(|| {
            let mut dialog = self.dialogs[0].clone();
            dialog.remote_tag = tag.to_owned();
            dialog.state = DialogState::Early;
            dialog.cseq = self
                .dialogs
                .iter()
                .map(|dialog| dialog.cseq)
                .max()
                .unwrap_or(1);
            self.dialogs.push(dialog);
            self.dialogs.len() - 1
        });
        if let Some(target) = contact(response) {
            self.dialogs[dialog].target = target;
        }
        dialog
    }

    fn on_2xx(&mut self, now: u64, place: usize, response: &Message<'_>) {
        let tag = response.to_tag().map(text).unwrap_or_default();
        let client = &mut self.clients[place];
        (client.resend_at, client.give_up_at) = (None, None);
        if client.done && client.acks.is_empty() {
            return self.wrong(now, "a 2xx after a failure or too late", response);
        }
        client.done = true;
        if let Some((_, ack)) = client.acks.iter().find(|(known, _)| *known == tag) {
            if !ack.is_empty() {
                self.out.push(Sent {
                    to: self.node,
                    bytes: ack.clone(),
                });
            }
            return;
        }
        let second = client.initial && !client.acks.is_empty();
        client.acks.push((tag.clone(), Vec::new()));
        let (initial, cancelled) = (client.initial, client.cancelled);
        let dialog = self.dialog_of(place, &tag, response);
        if let Some((seconds, uac)) = session_of(response) {
            self.dialogs[dialog].session_s = seconds;
            self.dialogs[dialog].refreshes = uac != Some(false);
            self.arm_refresh(now, dialog);
        }
        if !initial {
            self.ledger
                .inside
                .push(("INVITE".to_owned(), response.status()));
            return self.acknowledge(now, place, &tag);
        }
        self.ledger.finals.push((response.status(), tag.clone()));
        self.ledger.final_at.get_or_insert(now);
        if second {
            self.wrong(now, "a second dialog", response);
        }
        self.ledger.answered.get_or_insert(now);
        self.dialogs[dialog].state = DialogState::Confirmed;
        if !self.plan.no_ack {
            self.plan_at(now + self.plan.ack_after, Do::Ack(place, tag));
        }
        if cancelled || second {
            // The CANCEL came too late: RFC 3261 15 lets the caller end it with a BYE.
            self.plan_at(now + self.plan.ack_after + 1, Do::Bye(dialog));
        } else {
            self.on_answered(now, dialog);
        }
    }

    pub(super) fn acknowledge(&mut self, now: u64, place: usize, tag: &str) {
        let client = &self.clients[place];
        let (initial, cseq) = (client.initial, client.cseq);
        let body = if client.late_offer {
            self.sdp()
        } else {
            String::new()
        };
        let own = self.clients[place].dialog;
        let found = self
            .dialogs
            .iter()
            .position(|dialog| dialog.remote_tag == tag);
        let dialog = if initial { found.unwrap_or(own) } else { own };
        let branch = self.next_branch();
        let request = Request {
            method: "ACK",
            cseq,
            branch: &branch,
            extra: "",
            body: &body,
        };
        let bytes = self.write_request(&self.dialogs[dialog], &request);
        if initial {
            self.ledger.acknowledged.get_or_insert(now);
        }
        self.out.push(Sent {
            to: self.node,
            bytes: bytes.clone(),
        });
        if let Some(ack) = self.clients[place]
            .acks
            .iter_mut()
            .find(|(known, _)| known == tag)
        {
            ack.1 = bytes;
        }
    }

    fn on_refusal(&mut self, now: u64, place: usize, response: &Message<'_>) {
        let client = &mut self.clients[place];
        if !client.acks.is_empty() {
            return self.wrong(now, "a failure after a 2xx", response);
        }
        if client.failure_ack.is_empty() {
            let text = String::from_utf8_lossy(&client.bytes).into_owned();
            client.failure_ack = failure_ack(&text, client.cseq, &value(response, HeaderId::To));
        }
        self.out.push(Sent {
            to: self.node,
            bytes: client.failure_ack.clone(),
        });
        (client.resend_at, client.give_up_at) = (None, None);
        if std::mem::replace(&mut client.done, true) {
            return;
        }
        let (initial, dialog) = (client.initial, client.dialog);
        let code = response.status();
        if initial {
            let tag = response.to_tag().map(text).unwrap_or_default();
            self.ledger.finals.push((code, tag));
            self.ledger.final_at.get_or_insert(now);
            for dialog in &mut self.dialogs {
                dialog.state = DialogState::Ended;
            }
        } else {
            self.ledger.inside.push(("INVITE".to_owned(), code));
            self.after_inside(now, dialog, code);
        }
    }

    fn on_final(&mut self, now: u64, place: usize, response: &Message<'_>) {
        let client = &mut self.clients[place];
        (client.resend_at, client.give_up_at) = (None, None);
        if std::mem::replace(&mut client.done, true) {
            return;
        }
        let (method, initial, dialog) = (client.method.clone(), client.initial, client.dialog);
        let code = response.status();
        if initial {
            let tag = response.to_tag().map(text).unwrap_or_default();
            self.ledger.finals.push((code, tag));
            self.ledger.final_at.get_or_insert(now);
            return;
        }
        self.ledger.inside.push((method.clone(), code));
        if method == "UPDATE" && (200..300).contains(&code) {
            if let Some((seconds, uac)) = session_of(response) {
                self.dialogs[dialog].session_s = seconds;
                self.dialogs[dialog].refreshes = uac != Some(false);
            }
            self.arm_refresh(now, dialog);
        }
        if method != "BYE" && method != "CANCEL" && method != "PRACK" {
            self.after_inside(now, dialog, code);
        }
    }

    fn after_inside(&mut self, now: u64, dialog: usize, code: u16) {
        if (code == 491 || code == 500) && self.dialogs[dialog].refreshes && !self.plan.lazy {
            // RFC 3261 14.1: who opened the dialog waits longer.
            let wait = if self.plan.calls_at.is_some() {
                2_100
            } else {
                0
            };
            self.agenda
                .retain(|_, what| !matches!(what, Do::Refresh(_)));
            self.plan_at(
                now + wait + 200 * (self.number as u64 % 9),
                Do::Refresh(dialog),
            );
        }
        if (code == 481 || code == 408) && self.dialogs[dialog].state == DialogState::Confirmed {
            self.hang_up(now, dialog); // RFC 3261 12.2.1.2
        }
    }

    pub(super) fn cancel(&mut self, now: u64) {
        let Some(place) = self
            .clients
            .iter()
            .position(|client| client.initial && client.method == "INVITE")
        else {
            return;
        };
        let client = &mut self.clients[place];
        if client.done || client.cancelled {
            return;
        }
        client.cancelled = true;
        if client.heard || self.plan.hasty_cancel {
            client.give_up_at = Some(now + CANCEL_LIFE);
            self.send_cancel(now, place);
        }
    }

    fn send_cancel(&mut self, now: u64, place: usize) {
        let (branch, cseq) = (self.clients[place].branch.clone(), self.clients[place].cseq);
        if self.clients.iter().any(|client| client.method == "CANCEL") {
            return;
        }
        let mut dialog = self.dialogs[0].clone();
        dialog.remote_tag = String::new();
        dialog.target = self.plan.target.clone();
        let request = Request {
            method: "CANCEL",
            cseq,
            branch: &branch,
            extra: "",
            body: "",
        };
        let bytes = self.write_request(&dialog, &request);
        self.start(now, 0, "CANCEL", cseq, branch, bytes);
    }

    pub(super) fn hang_up(&mut self, now: u64, dialog: usize) {
        if self.dialogs[dialog].state != DialogState::Confirmed {
            return;
        }
        self.end(dialog);
        self.ledger.bye_sent.get_or_insert(now);
        self.send(now, dialog, "BYE", "", "");
        self.refuse_pending(now, dialog);
    }

    pub(super) fn ask_inside(&mut self, now: u64, method: &'static str) {
        let Some(dialog) = self.confirmed() else {
            return;
        };
        let open = |client: &Client| client.method == method && !client.done;
        if self.clients.iter().any(open) || (method != "INFO" && self.is_negotiating()) {
            return;
        }
        let mut extra = self.supported();
        extra.push_str(self.allow());
        let session_s = self.dialogs[dialog].session_s;
        if session_s > 0 && method != "INFO" {
            let refresher = if self.dialogs[dialog].refreshes {
                "uac"
            } else {
                "uas"
            };
            extra.push_str(&format!(
                "Session-Expires: {session_s};refresher={refresher}\r\n"
            ));
        }
        let body = if method == "INFO" {
            String::new()
        } else {
            self.sdp()
        };
        self.send(now, dialog, method, &extra, &body);
    }

    pub(super) fn refresh(&mut self, now: u64, dialog: usize) {
        if self.dialogs[dialog].state != DialogState::Confirmed {
            return;
        }
        let method = if self.plan.no_update {
            "INVITE"
        } else {
            "UPDATE"
        };
        if self.is_negotiating() {
            return self.plan_at(now + 2_000, Do::Refresh(dialog));
        }
        let session_s = self.dialogs[dialog].session_s;
        let extra = format!(
            "Supported: timer\r\n{}Session-Expires: {session_s};refresher=uac\r\n",
            self.allow()
        );
        let body = if method == "INVITE" {
            self.sdp()
        } else {
            String::new()
        };
        self.send(now, dialog, method, &extra, &body);
    }

    /// Whether an offer of ours waits for its answer.
    pub(super) fn is_negotiating(&self) -> bool {
        self.clients
            .iter()
            .any(|client| !client.done && (client.method == "INVITE" || client.method == "UPDATE"))
    }

    pub(super) fn confirmed(&self) -> Option<usize> {
        self.dialogs
            .iter()
            .position(|dialog| dialog.state == DialogState::Confirmed && !dialog.fork)
    }
}

// RFC 3261 17.1.1.3.
fn failure_ack(invite: &str, cseq: u32, to: &str) -> Vec<u8> {
    let mut lines = invite.split("\r\n");
    let first = lines
        .next()
        .unwrap_or_default()
        .replacen("INVITE", "ACK", 1);
    let mut ack = format!("{first}\r\n");
    for line in lines.take_while(|line| !line.is_empty()) {
        let keep = ["Via:", "Max-Forwards:", "From:", "Call-ID:"];
        if keep.iter().any(|name| line.starts_with(name)) {
            ack.push_str(&format!("{line}\r\n"));
        }
    }
    ack.push_str(&format!(
        "To: {to}\r\nCSeq: {cseq} ACK\r\nContent-Length: 0\r\n\r\n"
    ));
    ack.into_bytes()
}
