//! Phones that a test plays itself, datagram by datagram, against a running node.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// A socket that speaks SIP as the test tells it to.
pub struct Phone {
    socket: UdpSocket,
}

impl Phone {
    /// One at an address of the loopback network, with a port of its own.
    ///
    /// # Panics
    /// When there is no such address.
    #[must_use]
    pub fn at(address: &str) -> Self {
        let socket = UdpSocket::bind((address, 0)).expect("loopback has many addresses");
        Self { socket }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let address = self.socket.local_addr();
        address.expect("a bound socket has an address")
    }

    /// Sends a datagram.
    pub fn send(&self, to: SocketAddr, text: &str) {
        let sent = self.socket.send_to(text.as_bytes(), to);
        sent.expect("loopback takes datagrams");
    }

    /// The next datagram that is meant; others are passed over.
    ///
    /// # Panics
    /// When none comes within 5 s.
    pub fn receive(&self, is_meant: impl Fn(&str) -> bool) -> String {
        self.receive_within(Duration::from_secs(20), is_meant)
            .expect("a datagram in time")
    }

    /// The same, if it comes in time.
    pub fn receive_within(
        &self,
        limit: Duration,
        is_meant: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let until = Instant::now() + limit;
        let mut buffer = [0; 65_535];
        loop {
            let left = until.checked_duration_since(Instant::now())?;
            let left = left.max(Duration::from_millis(1));
            let timeout = self.socket.set_read_timeout(Some(left));
            timeout.expect("a socket takes a timeout");
            let length = self.socket.recv(&mut buffer).ok()?;
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if is_meant(&text) {
                return Some(text);
            }
        }
    }

    /// The final answer to the request with that Call-ID and CSeq; an INVITE's failure gets its
    /// ACK.
    pub fn final_answer(&self, node: SocketAddr, request: &str) -> String {
        let (id, cseq) = (header(request, "Call-ID"), header(request, "CSeq"));
        let answer = self.receive(|text| {
            text.starts_with("SIP/2.0 ")
                && !text.starts_with("SIP/2.0 1")
                && header(text, "Call-ID") == id
                && header(text, "CSeq") == cseq
        });
        if request.starts_with("INVITE") && !answer.starts_with("SIP/2.0 2") {
            let ack = request
                .replace("INVITE", "ACK")
                .replace(header(request, "To"), header(&answer, "To"));
            self.send(node, &without_body(&ack));
        }
        answer
    }

    /// The next request with that method.
    pub fn request(&self, method: &str) -> String {
        self.receive(|text| text.starts_with(&format!("{method} ")))
    }

    /// Answers a request; `more` are further header lines.
    pub fn answer(&self, node: SocketAddr, request: &str, status: &str, more: &str) {
        self.send(node, &self.answer_to(request, status, more));
    }

    /// The answer to a request.
    #[must_use]
    pub fn answer_to(&self, request: &str, status: &str, more: &str) -> String {
        let mut out = format!("SIP/2.0 {status}\r\n");
        for line in request.lines().take_while(|line| !line.is_empty()) {
            let kept = ["Via:", "From:", "Call-ID:", "CSeq:", "Record-Route:"];
            if kept.iter().any(|name| line.starts_with(name)) {
                out.push_str(&format!("{line}\r\n"));
            } else if line.starts_with("To:") {
                let tag = if line.contains(";tag=") {
                    ""
                } else {
                    ";tag=callee"
                };
                out.push_str(&format!("{line}{tag}\r\n"));
            }
        }
        let own = self.address();
        format!("{out}Contact: <sip:callee@{own}>\r\n{more}Content-Length: 0\r\n\r\n")
    }

    /// A request that opens something: its text.
    #[must_use]
    pub fn opening(&self, method: &str, uri: &str, id: &str) -> String {
        let own = self.address();
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{id}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:+49401@home.example>;tag=caller\r\n\
             To: <{uri}>\r\nCall-ID: {id}\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:caller@{own}>\r\nContent-Length: 0\r\n\r\n"
        )
    }

    /// A request of the callee inside the dialog that this INVITE opened and it answered.
    #[must_use]
    pub fn inside(&self, invite: &str, method: &str, cseq: u32) -> String {
        let (of, own) = (|name| header(invite, name), self.address());
        let target = of("Contact").trim_matches(['<', '>']);
        format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKc{cseq}{}\r\n\
             Max-Forwards: 70\r\nFrom: {};tag=callee\r\nTo: {}\r\nCall-ID: {}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:callee@{own}>\r\nContent-Length: 0\r\n\r\n",
            of("Call-ID"),
            of("To"),
            of("From"),
            of("Call-ID"),
        )
    }

    /// Sends an INVITE to `user` through the node.
    #[must_use]
    pub fn invite(&self, node: SocketAddr, user: &str, id: &str) -> String {
        let invite = self.opening("INVITE", &format!("sip:{user}@{node}"), id);
        self.send(node, &invite);
        invite
    }

    /// A call that `callee` takes at once.
    ///
    /// # Panics
    /// When the node does not take it.
    #[must_use]
    pub fn call(&self, callee: &Self, node: SocketAddr, id: &str) -> Established {
        let call = self.try_call(callee, node, id);
        call.expect("the node takes the call")
    }

    /// The same, unless the node refuses it with 503.
    #[must_use]
    pub fn try_call(&self, callee: &Self, node: SocketAddr, id: &str) -> Option<Established> {
        self.try_call_to(callee, node, ("+49301", id))
    }

    /// The same, to a user of your choice.
    #[must_use]
    pub fn try_call_to(
        &self,
        callee: &Self,
        node: SocketAddr,
        (user, id): (&str, &str),
    ) -> Option<Established> {
        let invite = self.invite(node, user, id);
        let first = self.receive(|text| header(text, "Call-ID") == id);
        if first.starts_with("SIP/2.0 503") {
            let to = (header(&invite, "To"), header(&first, "To"));
            let ack = invite.replace("INVITE", "ACK").replace(to.0, to.1);
            self.send(node, &ack);
            return None;
        }
        let arrived = callee.request("INVITE");
        callee.answer(node, &arrived, "200 OK", "");
        let answer = self.final_answer(node, &invite);
        assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
        let established = Established { invite, answer };
        self.send(node, &established.request("ACK", 1));
        callee.request("ACK");
        Some(established)
    }
}

/// A call that was answered, as its caller knows it.
pub struct Established {
    invite: String,
    answer: String,
}

impl Established {
    /// The one that this INVITE and its 2xx made.
    #[must_use]
    pub fn of(invite: String, answer: String) -> Self {
        Self { invite, answer }
    }

    /// A request of the caller inside the dialog.
    #[must_use]
    pub fn request(&self, method: &str, cseq: u32) -> String {
        let of_invite = |name| header(&self.invite, name);
        let contact = header(&self.answer, "Contact");
        let (_, target) = contact.split_once('<').expect("a Contact has its brackets");
        let (target, _) = target.split_once('>').expect("a Contact has its brackets");
        let (id, to) = (of_invite("Call-ID"), header(&self.answer, "To"));
        format!(
            "{method} {target} SIP/2.0\r\n{}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {to}\r\n\
             Call-ID: {id}\r\nCSeq: {cseq} {method}\r\nContact: {}\r\nContent-Length: 0\r\n\r\n",
            self.via(method, cseq),
            of_invite("From"),
            of_invite("Contact"),
        )
    }

    /// Ends it from the caller's side; `callee` answers.
    pub fn hang_up(&self, caller: &Phone, callee: &Phone, node: SocketAddr) {
        let bye = self.request("BYE", 9);
        caller.send(node, &bye);
        let arrived = callee.request("BYE");
        callee.answer(node, &arrived, "200 OK", "");
        let answer = caller.final_answer(node, &bye);
        assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    }

    fn via(&self, method: &str, cseq: u32) -> String {
        let via = header(&self.invite, "Via");
        format!("Via: {via}-{method}-{cseq}")
    }
}

/// Two phones that repeat what is not answered, as RFC 3261 17.1 has it: a node that may not act for
/// a moment, on a machine that is busy, leaves a request to its repetition.
pub struct Patient<'a> {
    /// Who calls.
    pub caller: &'a Phone,
    /// Who is called.
    pub callee: &'a Phone,
}

/// A call of theirs that rings.
pub struct Ringing {
    node: SocketAddr,
    invite: String,
    arrived: String,
}

/// A call of theirs that is up.
pub struct Up {
    call: Established,
    arrived: String,
}

impl Patient<'_> {
    /// A call through `node` that rings.
    ///
    /// # Panics
    /// When it does not reach the callee.
    #[must_use]
    pub fn ring(&self, node: SocketAddr, id: &str) -> Ringing {
        let uri = format!("sip:{id}@{node}");
        let invite = self.caller.opening("INVITE", &uri, id);
        let start = format!("INVITE sip:{id}@");
        let arrived = repeat(
            || self.caller.send(node, &invite),
            || {
                self.callee
                    .receive_within(T1, |text| text.starts_with(&start))
            },
        );
        self.callee.answer(node, &arrived, "180 Ringing", "");
        Ringing {
            node,
            invite,
            arrived,
        }
    }

    /// Takes it.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn pick_up(&self, ringing: Ringing) -> Up {
        let Ringing {
            node,
            invite,
            arrived,
        } = ringing;
        let accept = || self.callee.answer(node, &arrived, "200 OK", "");
        let answer = repeat(accept, || self.answered(&invite));
        let call = Established { invite, answer };
        let ack = call.request("ACK", 1);
        // The 2xx that comes again makes the node acknowledge it again.
        let acknowledge = || {
            accept();
            self.caller.send(node, &ack);
        };
        let _ = repeat(acknowledge, || self.arrives("ACK", &arrived));
        Up { call, arrived }
    }

    /// Ends it through `node`.
    ///
    /// # Panics
    /// When the BYE does not arrive, or is refused.
    pub fn hang_up(&self, up: &Up, node: SocketAddr) {
        let bye = up.call.request("BYE", 9);
        let say = || self.caller.send(node, &bye);
        let arrived = repeat(say, || self.arrives("BYE", &up.arrived));
        let _ = repeat(
            || self.callee.answer(node, &arrived, "200 OK", ""),
            || self.answered(&bye),
        );
    }

    fn arrives(&self, method: &str, invite: &str) -> Option<String> {
        let id = header(invite, "Call-ID");
        let is_meant = |text: &str| text.starts_with(method) && header(text, "Call-ID") == id;
        self.callee.receive_within(T1, is_meant)
    }

    fn answered(&self, request: &str) -> Option<String> {
        let of = |text: &str| ["Call-ID", "CSeq"].map(|name| header(text, name).to_owned());
        let is_final = |text: &str| text.starts_with("SIP/2.0 ") && !text.starts_with("SIP/2.0 1");
        let is_meant = |text: &str| is_final(text) && of(text) == of(request);
        let answer = self.caller.receive_within(T1, is_meant)?;
        assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
        Some(answer)
    }
}

// Says something again and again until something is heard.
fn repeat(say: impl Fn(), heard: impl Fn() -> Option<String>) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        say();
        if let Some(text) = heard() {
            return text;
        }
        assert!(Instant::now() < until, "nothing is heard in time");
    }
}

/// RFC 3261 17.1.1.1.
const T1: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(20);

/// The value of a header line, empty without one.
#[must_use]
pub fn header<'a>(text: &'a str, name: &str) -> &'a str {
    let mut lines = text.lines().take_while(|line| !line.is_empty());
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.map_or("", str::trim)
}

/// A message without body with an SDP of one audio stream, as `media` says.
#[must_use]
pub fn with_sdp(text: &str, media: &str) -> String {
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
         m={media}\r\n"
    );
    let end = format!(
        "Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    );
    text.replace("Content-Length: 0\r\n\r\n", &end)
}

/// A message without body with further header lines.
#[must_use]
pub fn with(text: &str, lines: &str) -> String {
    text.replace("Content-Length: 0", &format!("{lines}Content-Length: 0"))
}

fn without_body(text: &str) -> String {
    let head = text.split("\r\n\r\n").next().unwrap_or(text);
    format!("{head}\r\n\r\n")
}
