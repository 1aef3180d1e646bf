//! How a phone writes and reads messages.

use dataplane::sip::{HeaderId, Message};

use super::{Dialog, Phone};

/// What a request is made of, besides its dialog.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) cseq: u32,
    pub(super) branch: &'a str,
    pub(super) extra: &'a str,
    pub(super) body: &'a str,
}

impl Phone {
    pub(super) fn next_branch(&mut self) -> String {
        self.branches += 1;
        format!("z9hG4bK-{}-{}", self.number, self.branches)
    }

    pub(super) fn sdp(&mut self) -> String {
        self.version += 1;
        let ip = self.address.ip();
        let port = 4_000 + 2 * self.version;
        format!(
            "v=0\r\no=- {} {} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
             m=audio {port} RTP/AVP 8\r\n",
            self.number, self.version
        )
    }

    pub(super) fn write_request(&self, dialog: &Dialog, request: &Request<'_>) -> Vec<u8> {
        let Request {
            method,
            cseq,
            branch,
            extra,
            body,
        } = request;
        let to_tag = match dialog.remote_tag.as_str() {
            "" => String::new(),
            tag => format!(";tag={tag}"),
        };
        format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch={branch};rport\r\n\
             Max-Forwards: 70\r\nFrom: {};tag={}\r\nTo: {}{to_tag}\r\nCall-ID: {}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:p{}@{}>\r\n{extra}{}\
             Content-Length: {}\r\n\r\n{body}",
            dialog.target,
            self.address,
            dialog.local,
            dialog.local_tag,
            dialog.remote,
            self.call_id,
            self.number,
            self.address,
            content_type(body),
            body.len()
        )
        .into_bytes()
    }

    // `head` is what `response_head` kept of the request.
    pub(super) fn write_response(
        &self,
        head: &str,
        code: u16,
        tag: &str,
        extra: &str,
        body: &str,
    ) -> Vec<u8> {
        let tag = if tag.is_empty() {
            String::new()
        } else {
            format!(";tag={tag}")
        };
        format!(
            "SIP/2.0 {code} {}\r\n{head}{tag}\r\nContact: <sip:p{}@{}>\r\n{extra}{}\
             Content-Length: {}\r\n\r\n{body}",
            dataplane::sip::default_reason(code),
            self.number,
            self.address,
            content_type(body),
            body.len()
        )
        .into_bytes()
    }

    pub(super) fn allow(&self) -> &'static str {
        if self.plan.no_update {
            "Allow: INVITE, ACK, CANCEL, BYE, PRACK, INFO\r\n"
        } else {
            "Allow: INVITE, ACK, CANCEL, BYE, PRACK, INFO, UPDATE\r\n"
        }
    }

    pub(super) fn supported(&self) -> String {
        let mut tags = Vec::new();
        if self.plan.reliable {
            tags.push("100rel");
        }
        if self.plan.session_s > 0 {
            tags.push("timer");
        }
        if tags.is_empty() {
            String::new()
        } else {
            format!("Supported: {}\r\n", tags.join(", "))
        }
    }
}

fn content_type(body: &str) -> &'static str {
    if body.is_empty() {
        ""
    } else {
        "Content-Type: application/sdp\r\n"
    }
}

/// What a response repeats of its request, the To line last and open for a tag.
pub(super) fn response_head(request: &Message<'_>) -> String {
    let mut head = String::new();
    for via in request.headers(HeaderId::Via) {
        head.push_str(&format!("Via: {}\r\n", text(via)));
    }
    for (name, id) in [
        ("From", HeaderId::From),
        ("Call-ID", HeaderId::CallId),
        ("CSeq", HeaderId::CSeq),
    ] {
        head.push_str(&format!("{name}: {}\r\n", value(request, id)));
    }
    head.push_str(&format!("To: {}", value(request, HeaderId::To)));
    head
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn value(message: &Message<'_>, id: HeaderId) -> String {
    text(message.header(id).unwrap_or_default())
}

pub(super) fn contact(message: &Message<'_>) -> Option<String> {
    message.contact().map(|contact| text(contact.uri))
}

/// Session-Expires: seconds, and whether the UAC refreshes.
pub(super) fn session_of(message: &Message<'_>) -> Option<(u32, Option<bool>)> {
    let value = value(message, HeaderId::SessionExpires);
    let (seconds, params) = value.split_once(';').unwrap_or((&value, ""));
    let uac = match params.trim() {
        "refresher=uac" => Some(true),
        "refresher=uas" => Some(false),
        _ => None,
    };
    Some((seconds.trim().parse().ok()?, uac))
}
