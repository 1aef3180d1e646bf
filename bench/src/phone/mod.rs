//! Both phones, sans-IO: given datagrams and a `now`, they give back datagrams and a deadline.
//!
//! ```text
//!   caller   INVITE ->            <- 180 <- 200   ACK ->   hold   BYE ->   <- 200
//!            |  T1, 2*T1, .. until 1xx     |
//!            |  CANCEL while it rings      |  200 again, T1, 2*T1, .. T2, until ACK
//!   callee        -> 180   ring   -> 200 / 486 / 480 / 487      <- 200
//! ```
//! Once a call is up both sides are equal: either may send the re-INVITE and the BYE.

mod client;
mod proxies;
mod server;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dataplane::sip::{self, HeaderId, Index, Message, Uri};

use crate::latency::Latency;
use crate::ledger::Ledger;
use crate::plan::{Plan, Run, Scenario, Side};
use crate::template::{self, Template};

use proxies::Proxies;

/// One phone with as many lines as there are calls.
pub struct Phone {
    side: Side,
    run: Run,
    word: String,
    local: SocketAddr,
    proxies: Proxies,
    contact: String,
    invite: Template,
    message: Template,
    lines: HashMap<u32, Line>,
    alarms: BinaryHeap<Reverse<(Instant, u32, Alarm)>>,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    index: Box<Index>,
    busy: usize,
    begun: u32,
    ledger: Ledger,
    latency: Latency,
}

/// One call as one phone has it.
struct Line {
    plan: Plan,
    state: State,
    cseq: u32,
    call_id: Vec<u8>,
    /// From of our requests.
    local: Vec<u8>,
    /// To of our requests.
    remote: Vec<u8>,
    remote_target: Vec<u8>,
    /// Route header lines of our requests.
    routes: Vec<u8>,
    /// The INVITE or MESSAGE that began the call, sent or received, and where from.
    first: Vec<u8>,
    source: SocketAddr,
    /// Our request that has no final answer yet.
    request: Option<Sent>,
    cancel: Option<Sent>,
    /// Our final response to an INVITE that has no ACK yet.
    answer: Option<Sent>,
    /// What we last answered, for requests that come again, and the branch it answers.
    response: (u32, Vec<u8>),
    branch: Vec<u8>,
    /// ACK of the last 2xx, for 2xx that come again.
    ack: (u32, Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No final answer to the INVITE or MESSAGE yet.
    Opening,
    Up,
    /// Our BYE has no answer yet.
    Closing,
    /// Kept for messages that come again.
    Over,
}

/// A message that goes out again until somebody answers.
struct Sent {
    bytes: Vec<u8>,
    cseq: u32,
    /// Where the last copy went, when, and how many copies went anywhere.
    to: SocketAddr,
    last: Instant,
    copies: u32,
    since: Instant,
    again: Instant,
    interval: Duration,
    /// Most time between two copies; an INVITE has none (RFC 3261 17.1.1.2).
    interval_max: Duration,
    until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Request,
    Cancel,
    Answer,
    /// The callee has rung long enough.
    Rung,
    GiveUp,
    Reinvite,
    HangUp,
    /// The other side should have hung up long ago.
    Abandon,
    Forget,
}

impl Phone {
    /// A phone on `local` that talks to `targets` only, its outbound proxies.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn new(side: Side, run: Run, local: SocketAddr, targets: &[SocketAddr]) -> Self {
        let word = run.word();
        let user = match side {
            Side::Caller => "caller",
            Side::Callee => "callee",
        };
        Self {
            side,
            local,
            proxies: Proxies::new(targets),
            contact: format!("<sip:{user}@{local}>"),
            invite: Template::invite(local, DOMAIN, &word),
            message: Template::message(local, DOMAIN, &word),
            run,
            word,
            lines: HashMap::new(),
            alarms: BinaryHeap::new(),
            out: VecDeque::new(),
            spare: Vec::new(),
            index: Box::default(),
            busy: 0,
            begun: 0,
            ledger: Ledger::default(),
            latency: Latency::default(),
        }
    }

    /// Begins a call; `due` is its place in the schedule, from which latency counts.
    pub fn place(&mut self, now: Instant, due: Instant, number: u32) {
        self.open(now, due, number);
    }

    /// Takes a datagram.
    pub fn handle(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        self.proxies.on_heard(now, from);
        let mut index = std::mem::take(&mut self.index);
        if let Ok(message) = sip::parse(bytes, &mut index) {
            if message.is_request() {
                self.on_request(now, from, &message);
            } else {
                self.on_response(now, from, &message);
            }
        }
        self.index = index;
    }

    /// Lets everything happen that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(Reverse((at, number, alarm))) = self.alarms.peek().copied() {
            if at > now {
                break;
            }
            self.alarms.pop();
            self.on_alarm(now, at, number, alarm);
        }
    }

    /// The next datagram to send; give the buffer back with [`Phone::recycle`].
    pub fn poll(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.out.pop_front()
    }

    /// Takes a sent buffer back.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// When [`Phone::handle_timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.alarms.peek().map(|Reverse((at, ..))| *at)
    }

    /// No call is going on.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.busy == 0
    }

    /// Calls begun and calls going on.
    #[must_use]
    pub fn progress(&self) -> (u32, u32) {
        (self.begun, self.busy as u32)
    }

    /// The caller's Call-ID of a call.
    #[must_use]
    pub fn call_id(&self, number: u32) -> String {
        template::call_id(&self.word, number)
    }

    /// What it saw and what it timed.
    #[must_use]
    pub fn into_results(self) -> (Ledger, Latency) {
        (self.ledger, self.latency)
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    fn send_to(&mut self, to: SocketAddr, bytes: &[u8]) {
        let mut copy = self.buffer();
        copy.extend_from_slice(bytes);
        self.out.push_back((to, copy));
    }

    fn arm(&mut self, at: Instant, number: u32, alarm: Alarm) {
        self.alarms.push(Reverse((at, number, alarm)));
    }

    fn on_alarm(&mut self, now: Instant, at: Instant, number: u32, alarm: Alarm) {
        let Some(line) = self.lines.get(&number) else {
            return;
        };
        match alarm {
            Alarm::Request | Alarm::Cancel | Alarm::Answer => self.resend(now, at, number, alarm),
            Alarm::Rung => self.pick_up(now, number),
            Alarm::GiveUp => self.give_up(now, number),
            Alarm::Reinvite if line.state == State::Up => self.reinvite(now, number),
            Alarm::HangUp if line.state == State::Up => self.hang_up(now, number),
            Alarm::Reinvite | Alarm::HangUp => {}
            Alarm::Abandon if line.state != State::Over => {
                self.ledger.at(number).timed_out = true;
                self.drop_requests(number);
                self.close(now, number);
            }
            Alarm::Abandon => {}
            Alarm::Forget => {
                self.lines.remove(&number);
            }
        }
    }

    // An alarm that is not the message's own time is a left-over: the answer has come.
    fn resend(&mut self, now: Instant, at: Instant, number: u32, alarm: Alarm) {
        let line = self
            .lines
            .get_mut(&number)
            .expect("the caller looked it up");
        let place = match alarm {
            Alarm::Request => &mut line.request,
            Alarm::Cancel => &mut line.cancel,
            _ => &mut line.answer,
        };
        let Some(sent) = place.as_mut().filter(|sent| sent.again == at) else {
            return;
        };
        if now >= sent.until {
            *place = None;
            self.ledger.at(number).timed_out = true;
            return self.on_unanswered(now, number, alarm);
        }
        sent.interval = (sent.interval * 2).min(sent.interval_max);
        sent.again = (now + sent.interval).min(sent.until);
        if alarm != Alarm::Answer {
            sent.to = self.proxies.after(now, sent.to, sent.last, sent.copies);
        }
        sent.last = now;
        sent.copies += 1;
        let (again, to) = (sent.again, sent.to);
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.extend_from_slice(&sent.bytes);
        self.out.push_back((to, copy));
        self.ledger.at(number).resent += 1;
        self.arm(again, number, alarm);
    }

    // RFC 3261 13.3.1.4: a call whose 2xx was never acknowledged is ended with a BYE.
    fn on_unanswered(&mut self, now: Instant, number: u32, alarm: Alarm) {
        let is_answered = self.ledger.of(number).answered.is_some();
        let may_end = matches!(self.lines[&number].state, State::Opening | State::Up);
        if alarm == Alarm::Answer && is_answered && may_end {
            self.hang_up(now, number);
        } else {
            self.close(now, number);
        }
    }

    /// The call is over, its line is kept for what comes again.
    fn close(&mut self, now: Instant, number: u32) {
        let Some(line) = self.lines.get_mut(&number) else {
            return;
        };
        if line.state != State::Over {
            line.state = State::Over;
            self.busy -= 1;
            let seen = self.ledger.at(number);
            seen.settled = seen.settled.or(Some(now));
            self.arm(now + T1 * 64, number, Alarm::Forget);
        }
    }

    /// How long the callee rings at most.
    fn rings(&self, number: u32) -> Duration {
        match self.lines[&number].plan.scenario {
            // The caller gives up; if it does not, the callee does long after.
            Scenario::Cancel => self.run.ring + RINGING_LATE_MAX,
            _ => self.run.ring,
        }
    }

    /// Both sides arm what their plan gives them once the call is up.
    fn arm_plan(&mut self, now: Instant, number: u32) {
        let plan = self.lines[&number].plan;
        if plan.scenario == Scenario::Reinvite && plan.reinvites == self.side {
            self.arm(now + self.run.hold / 2, number, Alarm::Reinvite);
        }
        if plan.hangs_up == self.side {
            self.arm(now + self.run.hold, number, Alarm::HangUp);
        }
        // A side that is not to hang up has no alarm of its own: without this one it would wait
        // without end for a BYE whose sender has given up.
        let late_max = self.run.patience * CALL_LATE_MAX;
        self.arm(now + self.run.hold + late_max, number, Alarm::Abandon);
    }

    /// Whose call a message is about: our own tag says, or the Request-URI of a first request.
    fn number_of(&self, message: &Message<'_>) -> Option<u32> {
        let tag = if message.is_request() {
            message.to_tag()
        } else {
            message.from_tag()
        };
        match tag {
            Some(tag) => template::number_at_end(tag.strip_prefix(self.word.as_bytes())?),
            None if message.is_request() => {
                let uri = Uri::parse(message.request_uri()).ok()?;
                template::number_at_end(uri.user?)
            }
            None => None,
        }
    }
}

impl Line {
    fn new(plan: Plan, source: SocketAddr) -> Self {
        Self {
            plan,
            state: State::Opening,
            cseq: 1,
            call_id: Vec::new(),
            local: Vec::new(),
            remote: Vec::new(),
            remote_target: Vec::new(),
            routes: Vec::new(),
            first: Vec::new(),
            source,
            request: None,
            cancel: None,
            answer: None,
            response: (0, Vec::new()),
            branch: Vec::new(),
            ack: (0, Vec::new()),
        }
    }

    /// Takes over the route set and the remote target of the message that makes the dialog.
    fn learn(&mut self, message: &Message<'_>, side: Side) {
        if let Some(contact) = message.contact() {
            self.remote_target = contact.uri.to_vec();
        }
        let mut routes: Vec<&[u8]> = message.values(HeaderId::RecordRoute).collect();
        if side == Side::Caller {
            // RFC 3261 12.1.2: the UAC takes them in reverse order.
            routes.reverse();
        }
        self.routes.clear();
        for route in routes {
            sip::write::header(&mut self.routes, HeaderId::Route, route);
        }
    }
}

impl Sent {
    fn new(now: Instant, to: SocketAddr, cseq: u32, bytes: Vec<u8>, patience: Duration) -> Self {
        Self {
            bytes,
            cseq,
            to,
            last: now,
            copies: 1,
            since: now,
            again: now + T1,
            interval: T1,
            interval_max: T2,
            until: now + patience,
        }
    }

    /// One that goes out at ever longer intervals: an INVITE (RFC 3261 17.1.1.2).
    fn unbounded(self) -> Self {
        Self {
            interval_max: Duration::MAX,
            ..self
        }
    }
}

/// RFC 3261 17.1.1.1.
const T1: Duration = Duration::from_millis(500);
/// RFC 3261 17.1.2.2.
const T2: Duration = Duration::from_secs(4);
/// How much longer than planned a callee rings whose caller was to give up.
const RINGING_LATE_MAX: Duration = T2.saturating_mul(4);
/// How late a BYE may be, in patiences: a re-INVITE in its way may take one, and so may the BYE.
const CALL_LATE_MAX: u32 = 2;
/// Buffers kept for reuse.
const SPARE_MAX: usize = 1_024;
/// Domain of both parties' identities.
const DOMAIN: &str = "phones.example.net";

#[cfg(test)]
mod tests;
