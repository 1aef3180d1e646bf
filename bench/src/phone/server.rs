//! Requests the phones receive, and their responses to them.

use std::net::SocketAddr;
use std::time::Instant;

use dataplane::sip::{self, HeaderId, Index, Message, Method, Writer};

use super::{Alarm, Line, Phone, Sent, State};
use crate::plan::{Scenario, Side};
use crate::template::{ANSWER, HOLD_ANSWER, digits};

impl Phone {
    pub(super) fn on_request(&mut self, now: Instant, from: SocketAddr, request: &Message<'_>) {
        let method = request.method();
        let (cseq, _) = request.cseq();
        let Some(number) = self.number_of(request) else {
            return self.refuse(from, request);
        };
        if method == Method::Ack {
            return self.on_ack(now, number, cseq);
        }
        if request.to_tag().is_none() {
            return self.on_first_request(now, number, from, request);
        }
        let Some(line) = self.lines.get(&number) else {
            return self.refuse(from, request);
        };
        if line.response.0 == cseq && line.is_answered(request) {
            return self.repeat_response(number, from);
        }
        if method == Method::Invite && line.state == State::Opening {
            self.take_as_acknowledged(now, number, cseq);
        }
        match method {
            Method::Invite if self.line(number).state == State::Up => {
                let response = self.respond(number, from, request, 200, HOLD_ANSWER);
                let sent = Sent::new(now, from, cseq, response, self.run.patience);
                self.arm(sent.again, number, Alarm::Answer);
                self.line(number).answer = Some(sent);
            }
            Method::Bye => self.on_bye(now, number, from, request),
            Method::Options | Method::Update | Method::Info => {
                self.respond(number, from, request, 200, "");
            }
            _ => self.refuse(from, request),
        }
    }

    // Who sends a re-INVITE has our 2xx, though its ACK was lost on the way (RFC 5407, moratorium).
    fn take_as_acknowledged(&mut self, now: Instant, number: u32, cseq: u32) {
        let answer = self.line(number).answer.as_ref();
        let first = answer.map(|sent| sent.cseq).filter(|first| *first < cseq);
        if let Some(first) = first {
            self.on_ack(now, number, first);
        }
    }

    fn on_bye(&mut self, now: Instant, number: u32, from: SocketAddr, bye: &Message<'_>) {
        self.respond(number, from, bye, 200, "");
        self.drop_requests(number);
        let other = if self.is_caller() {
            Side::Callee
        } else {
            Side::Caller
        };
        let ended = &mut self.ledger.at(number).ended;
        if ended.is_none() {
            *ended = Some((now, other));
        }
        self.close(now, number);
    }

    fn on_ack(&mut self, now: Instant, number: u32, cseq: u32) {
        let Some(line) = self.lines.get_mut(&number) else {
            return;
        };
        let Some(sent) = line.answer.take_if(|sent| sent.cseq == cseq) else {
            return;
        };
        self.recycle(sent.bytes);
        let line = self.line(number);
        if line.state != State::Opening {
            return;
        }
        if self.ledger.of(number).answered.is_some() {
            self.line(number).state = State::Up;
            self.arm_plan(now, number);
        } else {
            self.close(now, number);
        }
    }

    // INVITE, CANCEL or MESSAGE.
    fn on_first_request(
        &mut self,
        now: Instant,
        number: u32,
        from: SocketAddr,
        request: &Message<'_>,
    ) {
        let method = request.method();
        if let Some(line) = self.lines.get(&number) {
            if method == Method::Cancel {
                return self.on_cancel(now, number, from, request);
            }
            if line.call_id != request.call_id() {
                return self.refuse(from, request);
            }
            if method == Method::Message && !line.is_answered(request) {
                // Another node took it up: it knows nothing of the first answer.
                self.respond(number, from, request, 200, "");
                return;
            }
            return self.repeat_response(number, from);
        }
        if self.is_caller() || !matches!(method, Method::Invite | Method::Message) {
            return self.refuse(from, request);
        }
        let mut line = Line::new(self.run.plan(number), from);
        line.first.extend_from_slice(request.raw());
        line.call_id = request.call_id().to_vec();
        let plan = line.plan;
        self.begun += 1;
        self.busy += 1;
        self.ledger.at(number).begun = Some(now);
        if method == Method::Message {
            self.lines.insert(number, line);
            self.respond(number, from, request, 200, "");
            self.ledger.at(number).status = 200;
            return self.close(now, number);
        }
        line.learn(request, Side::Callee);
        line.remote = request.header(HeaderId::From).unwrap_or_default().to_vec();
        line.local = request.header(HeaderId::To).unwrap_or_default().to_vec();
        line.local.extend_from_slice(b";tag=");
        line.local.extend_from_slice(&self.tag(number));
        self.lines.insert(number, line);
        if plan.scenario == Scenario::Busy {
            return self.pick_up(now, number);
        }
        self.respond(number, from, request, 180, "");
        let rings = self.rings(number);
        self.arm(now + rings, number, Alarm::Rung);
    }

    /// The final answer to the INVITE, as the plan has it.
    pub(super) fn pick_up(&mut self, now: Instant, number: u32) {
        let line = self.line(number);
        if line.state != State::Opening || line.answer.is_some() {
            return;
        }
        let (status, body) = match line.plan.scenario {
            Scenario::Busy => (486, ""),
            Scenario::Cancel | Scenario::NoAnswer => (480, ""),
            Scenario::Plain | Scenario::Reinvite | Scenario::Message => (200, ANSWER),
        };
        self.answer_invite(now, number, status, body);
    }

    fn on_cancel(&mut self, now: Instant, number: u32, from: SocketAddr, cancel: &Message<'_>) {
        let mut bytes = self.buffer();
        let tag = self.tag(number);
        Writer::response(&mut bytes, cancel, from, 200, "", &tag).no_body();
        self.send_to(from, &bytes);
        self.recycle(bytes);
        let line = self.line(number);
        if line.state == State::Opening && line.answer.is_none() {
            self.answer_invite(now, number, 487, "");
        }
    }

    fn answer_invite(&mut self, now: Instant, number: u32, status: u16, body: &str) {
        let line = self.line(number);
        let source = line.source;
        let first = std::mem::take(&mut line.first);
        let mut index = Index::new();
        if let Ok(invite) = sip::parse(&first, &mut index) {
            let response = self.respond(number, source, &invite, status, body);
            let patience = self.run.patience;
            let sent = Sent::new(now, source, invite.cseq().0, response, patience);
            self.arm(sent.again, number, Alarm::Answer);
            self.line(number).answer = Some(sent);
        }
        self.line(number).first = first;
        let seen = self.ledger.at(number);
        seen.status = status;
        seen.answered = (status == 200).then_some(now);
    }

    /// Sends a response and keeps it for the request's coming again.
    fn respond(
        &mut self,
        number: u32,
        to: SocketAddr,
        request: &Message<'_>,
        status: u16,
        body: &str,
    ) -> Vec<u8> {
        let mut bytes = self.buffer();
        let tag = self.tag(number);
        let mut writer = Writer::response(&mut bytes, request, to, status, "", &tag);
        if request.method() == Method::Invite && status < 300 {
            writer = writer
                .copy(request, |id| id == HeaderId::RecordRoute)
                .header(HeaderId::Contact, self.contact.as_bytes());
        }
        if body.is_empty() {
            writer.no_body();
        } else {
            writer
                .header(HeaderId::ContentType, b"application/sdp")
                .body(body.as_bytes());
        }
        self.send_to(to, &bytes);
        let line = self.line(number);
        line.branch.clear();
        line.branch.extend_from_slice(branch_of(request));
        let kept = &mut line.response;
        kept.0 = request.cseq().0;
        kept.1.clear();
        kept.1.extend_from_slice(&bytes);
        bytes
    }

    fn repeat_response(&mut self, number: u32, to: SocketAddr) {
        let response = std::mem::take(&mut self.line(number).response.1);
        if !response.is_empty() {
            self.send_to(to, &response);
            self.ledger.at(number).resent += 1;
        }
        self.line(number).response.1 = response;
    }

    // 481 for what belongs to no call of ours; an ACK is never answered.
    fn refuse(&mut self, from: SocketAddr, request: &Message<'_>) {
        if request.method() == Method::Ack {
            return;
        }
        let mut bytes = self.buffer();
        Writer::response(&mut bytes, request, from, 481, "", b"none").no_body();
        self.send_to(from, &bytes);
        self.recycle(bytes);
    }

    fn tag(&self, number: u32) -> Vec<u8> {
        let mut tag = self.word.clone().into_bytes();
        tag.push(b'n');
        tag.extend_from_slice(&digits(number));
        tag
    }
}

impl Line {
    /// We answered this very request last, not one that looks like it.
    fn is_answered(&self, request: &Message<'_>) -> bool {
        !self.response.1.is_empty() && self.branch == branch_of(request)
    }
}

fn branch_of<'a>(message: &Message<'a>) -> &'a [u8] {
    let via = message.top_via();
    via.and_then(|via| via.branch).unwrap_or_default()
}
