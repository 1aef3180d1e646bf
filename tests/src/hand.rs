//! Phones and proxies that a test plays itself, message by message, in a simulated world.

use crate::by_hand::header;
use crate::sim::{NODE, Setup, World, phone_address};
use crate::ua::Plan;

/// A world whose phones say nothing by themselves.
pub struct Hands {
    /// The world.
    pub world: World,
    read: Vec<usize>,
    branches: u32,
}

impl Hands {
    /// A node with these keys of `[sip]`, and what comes after it, between `phones` phones.
    #[must_use]
    pub fn new(config: &str, phones: usize) -> Self {
        Self::of(
            Setup {
                config: config.to_owned(),
                interim_s: None,
                ..Setup::default()
            },
            phones,
        )
    }

    /// The same in a world of your own.
    #[must_use]
    pub fn of(setup: Setup, phones: usize) -> Self {
        let mut world = World::new(setup);
        for _ in 0..phones {
            world.add_phone(Plan {
                by_hand: true,
                ..Plan::default()
            });
        }
        Self {
            world,
            read: vec![0; phones],
            branches: 0,
        }
    }

    /// Lets the time pass.
    pub fn wait(&mut self, ms: u64) {
        self.world.run_until(self.world.now + ms);
    }

    /// Sends.
    pub fn say(&mut self, phone: usize, text: &str) {
        self.world.say(phone, text);
    }

    /// The next datagram to that phone that begins so, if it comes within `limit` milliseconds;
    /// what came before it is passed over.
    pub fn hears_within(&mut self, phone: usize, start: &str, limit: u64) -> Option<String> {
        let until = self.world.now + limit;
        loop {
            let heard = &self.world.phones[phone].ledger.heard;
            let found = heard[self.read[phone]..]
                .iter()
                .position(|(_, text)| text.starts_with(start));
            if let Some(place) = found {
                let text = heard[self.read[phone] + place].1.clone();
                self.read[phone] += place + 1;
                return Some(text);
            }
            if self.world.now >= until {
                return None;
            }
            self.wait(1);
        }
    }

    /// The same, which has to come soon.
    ///
    /// # Panics
    /// When it does not.
    pub fn hears(&mut self, phone: usize, start: &str) -> String {
        let heard = self.hears_within(phone, start, SOON);
        heard.unwrap_or_else(|| panic!("phone {phone} hears no {start}"))
    }

    /// The final answer to a request that this phone sent.
    ///
    /// # Panics
    /// When none comes soon.
    pub fn final_answer(&mut self, phone: usize, request: &str) -> String {
        loop {
            let answer = self.hears(phone, "SIP/2.0 ");
            let same = ["Call-ID", "CSeq"]
                .iter()
                .all(|name| header(&answer, name) == header(request, name));
            if same && !answer.starts_with("SIP/2.0 1") {
                return answer;
            }
        }
    }

    /// Passes over what has come to a phone.
    pub fn pass_over(&mut self, phone: usize) {
        self.read[phone] = self.world.phones[phone].ledger.heard.len();
    }

    /// How many datagrams that begin so came to a phone, from the beginning on.
    #[must_use]
    pub fn count(&self, phone: usize, start: &str) -> usize {
        let heard = self.world.phones[phone].ledger.heard.iter();
        heard.filter(|(_, text)| text.starts_with(start)).count()
    }

    /// A request outside dialogs, `more` being header lines.
    pub fn opening(&mut self, phone: usize, method: &str, uri: &str, more: &str) -> String {
        let own = phone_address(phone);
        let (id, branch) = (format!("id{}", self.branches), self.branch());
        self.world.phones[phone].call_id.clone_from(&id);
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch={branch}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:p{phone}@{own}>;tag=t{phone}\r\nTo: <{uri}>\r\n\
             Call-ID: {id}\r\nCSeq: 1 {method}\r\nContact: <sip:p{phone}@{own}>\r\n{more}\
             Content-Length: 0\r\n\r\n"
        )
    }

    /// Sends an answer to a request; `more` are header lines, and the body after an empty one.
    pub fn answer(&mut self, phone: usize, request: &str, status: &str, more: &str) {
        let mut out = format!("SIP/2.0 {status}\r\n");
        for line in request.lines().take_while(|line| !line.is_empty()) {
            let kept = ["Via:", "From:", "Call-ID:", "CSeq:", "Record-Route:"];
            if kept.iter().any(|name| line.starts_with(name)) {
                out.push_str(&format!("{line}\r\n"));
            } else if line.starts_with("To:") {
                let open = !line.contains(";tag=") && !status.starts_with("100");
                let tag = if open {
                    format!(";tag=t{phone}")
                } else {
                    String::new()
                };
                out.push_str(&format!("{line}{tag}\r\n"));
            }
        }
        let own = phone_address(phone);
        out.push_str(&format!("Contact: <sip:p{phone}@{own}>\r\n"));
        self.say(phone, &with_body(&out, more));
    }

    /// A call from phone 0 that phone 1 takes at once; the legs as the phones know them.
    pub fn call(&mut self, more: &str, of_answer: &str) -> [Leg; 2] {
        let uri = format!("sip:p1@{}", phone_address(1));
        let invite = self.opening(0, "INVITE", &uri, more);
        self.say(0, &invite);
        let arrived = self.hears(1, "INVITE ");
        self.answer(1, &arrived, "200 OK", of_answer);
        let answer = self.final_answer(0, &invite);
        let legs = [Leg::of_caller(&invite, &answer), Leg::of_callee(&arrived)];
        let ack = self.request(0, &legs[0], "ACK", 1, "");
        self.say(0, &ack);
        self.hears(1, "ACK ");
        legs
    }

    /// A request inside a dialog of that phone; `more` as in [`Hands::answer`].
    pub fn request(
        &mut self,
        phone: usize,
        leg: &Leg,
        method: &str,
        cseq: u32,
        more: &str,
    ) -> String {
        let (own, branch) = (phone_address(phone), self.branch());
        let Leg {
            id,
            local,
            remote,
            target,
        } = leg;
        let tag = if local.contains(";tag=") {
            String::new()
        } else {
            format!(";tag=t{phone}")
        };
        let head = format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch={branch}\r\n\
             Max-Forwards: 70\r\nFrom: {local}{tag}\r\nTo: {remote}\r\nCall-ID: {id}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:p{phone}@{own}>\r\n"
        );
        with_body(&head, more)
    }

    /// Sends such a request, which the other phone answers, and gives what the sender hears.
    pub fn ask(
        &mut self,
        from: usize,
        leg: &Leg,
        (method, cseq): (&str, u32),
        status: &str,
    ) -> String {
        let request = self.request(from, leg, method, cseq, "");
        self.say(from, &request);
        let arrived = self.hears(1 - from, &format!("{method} "));
        self.answer(1 - from, &arrived, status, "");
        self.final_answer(from, &request)
    }

    fn branch(&mut self) -> String {
        self.branches += 1;
        format!("z9hG4bKhand{}", self.branches)
    }
}

/// One leg of a call as its phone knows it.
#[derive(Clone, Debug)]
pub struct Leg {
    /// Call-ID.
    pub id: String,
    /// From of what the phone sends.
    pub local: String,
    /// To of what it sends.
    pub remote: String,
    /// Request-URI of what it sends.
    pub target: String,
}

impl Leg {
    /// The caller's, from its INVITE and the 2xx.
    #[must_use]
    pub fn of_caller(invite: &str, answer: &str) -> Self {
        Self {
            id: header(invite, "Call-ID").to_owned(),
            local: header(invite, "From").to_owned(),
            remote: header(answer, "To").to_owned(),
            target: uri_of(header(answer, "Contact")),
        }
    }

    /// The callee's, from the INVITE that it got.
    #[must_use]
    pub fn of_callee(invite: &str) -> Self {
        Self {
            id: header(invite, "Call-ID").to_owned(),
            local: header(invite, "To").to_owned(),
            remote: header(invite, "From").to_owned(),
            target: uri_of(header(invite, "Contact")),
        }
    }
}

/// The URI between the brackets of a name-addr.
#[must_use]
pub fn uri_of(value: &str) -> String {
    let inner = value.split_once('<').map_or(value, |(_, rest)| rest);
    inner.split('>').next().unwrap_or_default().to_owned()
}

/// Header lines, with a body after an empty line, as the end of a message.
fn with_body(head: &str, more: &str) -> String {
    let (lines, body) = match more.split_once("\r\n\r\n") {
        Some((lines, body)) => (format!("{lines}\r\n"), body),
        None => (more.to_owned(), ""),
    };
    let length = body.len();
    format!("{head}{lines}Content-Length: {length}\r\n\r\n{body}")
}

/// A description of media as what ends a message.
pub const SDP: &str = "Content-Type: application/sdp\r\n\r\nv=0\r\no=- 1 1 IN IP4 192.0.2.9\r\n\
s=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n";
/// The node's own URI.
#[must_use]
pub fn node_uri() -> String {
    format!("sip:{NODE}")
}
/// What comes, comes within this time: far less than anything is repeated in.
const SOON: u64 = 400;
