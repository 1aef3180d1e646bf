//! Requests the phones send, and the responses to them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dataplane::sip::{self, HeaderId, Index, Message, Method, Writer};

use super::{Alarm, Line, Phone, Sent, State, T1};
use crate::latency::Interval;
use crate::plan::{Scenario, Side};
use crate::template::{HOLD_OFFER, digits};

impl Phone {
    pub(super) fn open(&mut self, now: Instant, due: Instant, number: u32) {
        let plan = self.run.plan(number);
        let to = self.proxies.next(now);
        let mut line = Line::new(plan, to);
        let is_message = plan.scenario == Scenario::Message;
        let template = if is_message {
            &self.message
        } else {
            &self.invite
        };
        template.write(number, &mut line.first);
        line.call_id = self.call_id(number).into_bytes();
        let mut sent = Sent::new(now, to, 1, line.first.clone(), self.run.patience);
        if !is_message {
            sent = sent.unbounded();
        }
        self.send_to(to, &line.first);
        self.arm(sent.again, number, Alarm::Request);
        line.request = Some(Sent { since: due, ..sent });
        self.lines.insert(number, line);
        self.begun += 1;
        self.busy += 1;
        let seen = self.ledger.at(number);
        (seen.begun, seen.through) = (Some(now), Some(to));
    }

    pub(super) fn on_response(&mut self, now: Instant, from: SocketAddr, response: &Message<'_>) {
        let Some(number) = self.number_of(response) else {
            return;
        };
        let Some(line) = self.lines.get_mut(&number) else {
            return;
        };
        let (cseq, method) = response.cseq();
        if method == Method::Cancel {
            line.cancel = line.cancel.take().filter(|_| response.status() < 200);
            return;
        }
        // RFC 3261 13.2.2.4: each 2xx that comes again is acknowledged again.
        if method == Method::Invite && response.status() / 100 == 2 && line.ack.0 == cseq {
            let ack = std::mem::take(&mut line.ack.1);
            self.send_to(from, &ack);
            self.line(number).ack.1 = ack;
            return;
        }
        let is_ours = line.request.as_ref().is_some_and(|sent| sent.cseq == cseq);
        if method == Method::Invite && response.status() >= 300 {
            // 17.1.1.3: also for a final answer that comes again.
            self.acknowledge_refusal(number, from, response);
        }
        if !is_ours {
            return;
        }
        if response.status() < 200 {
            return self.on_provisional(now, number, method);
        }
        let sent = self.line(number).request.take().expect("it is ours");
        let took = now.saturating_duration_since(sent.since);
        match method {
            Method::Invite => self.on_invite_answered(now, number, cseq, took, response),
            Method::Bye => {
                self.latency.record(Interval::ByeToAnswer, took);
                let is_refused = response.status() >= 300;
                self.ledger.at(number).byes_refused += u32::from(is_refused);
                self.close(now, number);
            }
            _ => {
                if response.status() == 200 {
                    self.latency.record(Interval::MessageToAnswer, took);
                }
                self.ledger.at(number).status = response.status();
                self.close(now, number);
            }
        }
    }

    fn on_provisional(&mut self, now: Instant, number: u32, method: Method) {
        let patience = self.rings(number) + self.run.patience;
        let line = self.line(number);
        let first = line.response.0 == 0;
        let is_opening = line.state == State::Opening && method == Method::Invite;
        let Some(sent) = line.request.as_mut().filter(|_| is_opening) else {
            return;
        };
        // Timer A stops, and so does Timer B: ringing may last.
        sent.again = now + patience;
        sent.until = sent.again;
        let (again, since) = (sent.again, sent.since);
        if first {
            line.response.0 = 1;
            self.latency.record(
                Interval::InviteToProvisional,
                now.saturating_duration_since(since),
            );
        }
        self.arm(again, number, Alarm::Request);
        // RFC 3261 9.1: any provisional response will do, and a 180 may be lost.
        if first && self.line(number).plan.scenario == Scenario::Cancel {
            self.arm(now + self.run.ring, number, Alarm::GiveUp);
        }
    }

    fn on_invite_answered(
        &mut self,
        now: Instant,
        number: u32,
        cseq: u32,
        took: Duration,
        response: &Message<'_>,
    ) {
        let side = self.side;
        let is_answer = response.status() / 100 == 2;
        let line = self.line(number);
        let is_first = line.state == State::Opening;
        if is_answer {
            if is_first {
                line.local = response.header(HeaderId::From).unwrap_or_default().to_vec();
                line.remote = response.header(HeaderId::To).unwrap_or_default().to_vec();
                line.learn(response, side);
                line.state = State::Up;
            }
            self.acknowledge(now, number, cseq);
        }
        let seen = self.ledger.at(number);
        match (is_first, is_answer) {
            (true, _) => (seen.status, seen.settled) = (response.status(), Some(now)),
            (false, true) => seen.reinvites_accepted += 1,
            (false, false) => seen.reinvites_refused += 1,
        }
        if is_first && is_answer {
            seen.answered = Some(now);
            self.latency.record(Interval::InviteToAnswer, took);
            self.arm_plan(now, number);
        } else if is_first {
            self.close(now, number);
        }
    }

    pub(super) fn give_up(&mut self, now: Instant, number: u32) {
        let line = self.line(number);
        if line.state != State::Opening || line.cancel.is_some() {
            return;
        }
        // RFC 3261 9.1: where the INVITE went.
        let to = line.request.as_ref().map_or(line.source, |sent| sent.to);
        let mut index = Index::new();
        let first = std::mem::take(&mut line.first);
        let invite = sip::parse(&first, &mut index).expect("our own INVITE is well formed");
        let mut cancel = self.buffer();
        // RFC 3261 9.1: Request-URI, Call-ID, To, From, the number of CSeq and the top Via.
        Writer::request(&mut cancel, b"CANCEL", invite.request_uri())
            .header(
                HeaderId::Via,
                invite.header(HeaderId::Via).unwrap_or_default(),
            )
            .header_number(HeaderId::MaxForwards, 70)
            .copy(&invite, |id| {
                matches!(id, HeaderId::From | HeaderId::To | HeaderId::CallId)
            })
            .cseq(1, b"CANCEL")
            .header(HeaderId::Reason, b"SIP;cause=487;text=\"Caller gave up\"")
            .no_body();
        self.line(number).first = first;
        self.send_to(to, &cancel);
        let sent = Sent::new(now, to, 1, cancel, self.run.patience);
        self.arm(sent.again, number, Alarm::Cancel);
        self.line(number).cancel = Some(sent);
    }

    pub(super) fn reinvite(&mut self, now: Instant, number: u32) {
        self.request(now, number, b"INVITE");
    }

    pub(super) fn hang_up(&mut self, now: Instant, number: u32) {
        if self.line(number).request.is_some() || self.line(number).answer.is_some() {
            // A re-INVITE of ours is not answered yet, or an answer of ours not acknowledged.
            return self.arm(now + RETRY, number, Alarm::HangUp);
        }
        let side = self.side;
        self.line(number).state = State::Closing;
        self.ledger.at(number).ended = Some((now, side));
        self.request(now, number, b"BYE");
    }

    /// A request inside the dialog.
    fn request(&mut self, now: Instant, number: u32, method: &[u8]) {
        let mut bytes = self.buffer();
        let line = self.line(number);
        line.cseq += 1;
        let cseq = line.cseq;
        self.write(number, cseq, method, &mut bytes);
        let to = self
            .proxies
            .towards(now, &self.lines[&number].remote_target);
        self.send_to(to, &bytes);
        let mut sent = Sent::new(now, to, cseq, bytes, self.run.patience);
        if method == b"INVITE" {
            sent = sent.unbounded();
        }
        self.arm(sent.again, number, Alarm::Request);
        self.line(number).request = Some(sent);
    }

    fn acknowledge(&mut self, now: Instant, number: u32, cseq: u32) {
        let mut bytes = std::mem::take(&mut self.line(number).ack.1);
        bytes.clear();
        self.write(number, cseq, b"ACK", &mut bytes);
        let to = self
            .proxies
            .towards(now, &self.lines[&number].remote_target);
        self.send_to(to, &bytes);
        self.line(number).ack = (cseq, bytes);
    }

    fn write(&mut self, number: u32, cseq: u32, method: &[u8], out: &mut Vec<u8>) {
        let line = &self.lines[&number];
        let branch = branch(&self.word, number, cseq, method);
        let mut writer = Writer::request(out, method, &line.remote_target).via(
            "UDP",
            self.local,
            branch.as_bytes(),
        );
        writer.out().extend_from_slice(&line.routes);
        let writer = writer
            .header_number(HeaderId::MaxForwards, 70)
            .header(HeaderId::From, &line.local)
            .header(HeaderId::To, &line.remote)
            .header(HeaderId::CallId, &line.call_id)
            .cseq(cseq, method);
        if method == b"INVITE" {
            writer
                .header(HeaderId::Contact, self.contact.as_bytes())
                .header(HeaderId::ContentType, b"application/sdp")
                .body(HOLD_OFFER.as_bytes());
        } else {
            writer.no_body();
        }
    }

    // RFC 3261 17.1.1.3: the ACK of a refusal belongs to the INVITE's transaction.
    fn acknowledge_refusal(&mut self, number: u32, to: SocketAddr, response: &Message<'_>) {
        let mut ack = self.buffer();
        let line = &self.lines[&number];
        let mut index = Index::new();
        let Ok(first) = sip::parse(&line.first, &mut index) else {
            return;
        };
        let is_first = line.state == State::Opening || line.remote_target.is_empty();
        let uri = if is_first {
            first.request_uri()
        } else {
            &line.remote_target
        };
        let via = response.header(HeaderId::Via).unwrap_or_default();
        let mut writer = Writer::request(&mut ack, b"ACK", uri).header(HeaderId::Via, via);
        if !is_first {
            writer.out().extend_from_slice(&line.routes);
        }
        writer
            .header_number(HeaderId::MaxForwards, 70)
            .copy(response, |id| {
                matches!(id, HeaderId::From | HeaderId::To | HeaderId::CallId)
            })
            .cseq(response.cseq().0, b"ACK")
            .no_body();
        self.send_to(to, &ack);
        self.recycle(ack);
    }

    pub(super) fn line(&mut self, number: u32) -> &mut Line {
        self.lines
            .get_mut(&number)
            .expect("a line is forgotten by its own alarm only")
    }

    /// The BYE of the other side came: what we still wait for will not come.
    pub(super) fn drop_requests(&mut self, number: u32) {
        let line = self.line(number);
        line.request = None;
        line.cancel = None;
        line.answer = None;
    }

    pub(super) const fn is_caller(&self) -> bool {
        matches!(self.side, Side::Caller)
    }
}

fn branch(word: &str, number: u32, cseq: u32, method: &[u8]) -> String {
    let digits = digits(number);
    let digits = std::str::from_utf8(&digits).expect("digits are ASCII");
    let letter = char::from(method[0].to_ascii_lowercase());
    format!("z9hG4bK{word}{digits}{letter}{cseq}")
}

/// How soon a phone tries again what it could not do yet.
const RETRY: Duration = Duration::from_millis(10);
const _: () = assert!(RETRY.as_millis() < T1.as_millis());
