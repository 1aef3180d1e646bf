//! First requests as templates: rsip writes them once, each call patches its number in.

use std::net::SocketAddr;

use rsip::headers::{UntypedHeader, untyped};
use rsip::{Header, Method, Request, Uri, Version};

/// A request in which only the call's number differs from call to call.
pub struct Template {
    text: Vec<u8>,
    places: Vec<usize>,
}

impl Template {
    /// The INVITE that opens a call.
    #[must_use]
    pub fn invite(local: SocketAddr, domain: &str, word: &str) -> Self {
        Self::request(
            Method::Invite,
            local,
            domain,
            word,
            ("application/sdp", OFFER),
        )
    }

    /// The MESSAGE of a call that is none.
    #[must_use]
    pub fn message(local: SocketAddr, domain: &str, word: &str) -> Self {
        Self::request(
            Method::Message,
            local,
            domain,
            word,
            ("text/plain", "Are you at home?"),
        )
    }

    fn request(
        method: Method,
        local: SocketAddr,
        domain: &str,
        word: &str,
        (content_type, body): (&str, &str),
    ) -> Self {
        let caller = format!("sip:{CALLER_PREFIX}{MARK}@{domain};user=phone");
        let callee = format!("sip:{CALLEE_PREFIX}{MARK}@{domain};user=phone");
        let branch = format!("z9hG4bK{word}{MARK}i");
        let headers: Vec<Header> = vec![
            untyped::Via::new(format!("SIP/2.0/UDP {local};branch={branch};rport")).into(),
            untyped::MaxForwards::new("70").into(),
            untyped::From::new(format!("<{caller}>;tag={word}n{MARK}")).into(),
            untyped::To::new(format!("<{callee}>")).into(),
            untyped::CallId::new(call_id_text(word, MARK)).into(),
            untyped::CSeq::new(format!("1 {method}")).into(),
            untyped::Contact::new(format!("<sip:caller@{local}>")).into(),
            untyped::Allow::new("INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE").into(),
            Header::Other("P-Asserted-Identity".into(), format!("<{caller}>")),
            untyped::ContentType::new(content_type).into(),
            untyped::ContentLength::new(body.len().to_string()).into(),
        ];
        let request = Request {
            method,
            uri: Uri::try_from(callee.as_str()).expect("the callee's URI is well formed"),
            version: Version::V2,
            headers: headers.into(),
            body: body.as_bytes().to_vec(),
        };
        Self::new(Vec::from(request))
    }

    fn new(text: Vec<u8>) -> Self {
        let mark = MARK.as_bytes();
        let places = (0..text.len() - mark.len())
            .filter(|at| &text[*at..*at + mark.len()] == mark)
            .collect();
        Self { text, places }
    }

    /// Appends the request of a call.
    pub fn write(&self, number: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.text);
        let digits = digits(number);
        for place in &self.places {
            out[start + place..][..digits.len()].copy_from_slice(&digits);
        }
    }
}

/// The caller's Call-ID of a call.
#[must_use]
pub fn call_id(word: &str, number: u32) -> String {
    let digits = digits(number);
    call_id_text(
        word,
        std::str::from_utf8(&digits).expect("digits are ASCII"),
    )
}

fn call_id_text(word: &str, number: &str) -> String {
    format!("{word}-{number}@caller")
}

/// A call's number as it stands in texts.
#[must_use]
pub fn digits(number: u32) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    let mut left = number;
    for digit in digits.iter_mut().rev() {
        *digit += (left % 10) as u8;
        left /= 10;
    }
    digits
}

/// The number at the end of a tag, or at the end of a URI's user.
#[must_use]
pub fn number_at_end(text: &[u8]) -> Option<u32> {
    let digits = text.get(text.len().checked_sub(DIGITS)?..)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Digits of a call's number in texts.
pub const DIGITS: usize = 9;
/// Stands in a template where the number goes.
const MARK: &str = "NNNNNNNNN";
const _: () = assert!(MARK.len() == DIGITS);
const CALLER_PREFIX: &str = "+4930";
const CALLEE_PREFIX: &str = "+4940";

/// The caller's SDP.
pub const OFFER: &str = "v=0\r\no=phone 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\n\
    t=0 0\r\nm=audio 49170 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
    a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n";
/// The callee's SDP.
pub const ANSWER: &str = "v=0\r\no=phone 2 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\n\
    t=0 0\r\nm=audio 49172 RTP/AVP 8 101\r\na=rtpmap:8 PCMA/8000\r\n\
    a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n";
/// What a re-INVITE offers: the other side is put on hold.
pub const HOLD_OFFER: &str = "v=0\r\no=phone 3 2 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\
    \r\nt=0 0\r\nm=audio 49170 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=sendonly\r\n";
/// The answer to that.
pub const HOLD_ANSWER: &str = "v=0\r\no=phone 4 2 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\
    \r\nt=0 0\r\nm=audio 49172 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=recvonly\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::sip;

    #[test]
    fn a_template_gives_valid_requests_that_carry_their_number() {
        let local = "127.0.0.1:15060".parse().expect("an address");
        for template in [
            Template::invite(local, "example.net", "00c0ffee"),
            Template::message(local, "example.net", "00c0ffee"),
        ] {
            let mut text = Vec::new();
            template.write(4_711, &mut text);
            let mut index = sip::Index::new();
            let message = sip::parse(&text, &mut index).expect("well formed");
            message.validate().expect("valid");
            assert_eq!(message.call_id(), call_id("00c0ffee", 4_711).as_bytes());
            let tag = message.from_tag().expect("a tag");
            assert_eq!(number_at_end(tag), Some(4_711));
            let uri = sip::Uri::parse(message.request_uri()).expect("a URI");
            assert_eq!(uri.user.and_then(number_at_end), Some(4_711));
            assert!(!text.windows(2).any(|pair| pair == b"NN"));
        }
    }
}
