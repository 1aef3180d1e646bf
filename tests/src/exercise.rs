//! Calls everything a parser offers, on any input: what fuzzing, torture and corpus tests share.
//!
//! The only claims are those that hold for every input: nothing panics, and what is accepted can
//! be written and read again with the same meaning.

use std::hint::black_box;
use std::path::Path;

use charging::UnixMillis;
use charging::diameter::avp::{self, Avps};
use charging::diameter::base::Identity;
use charging::diameter::peer::PeerConfig;
use charging::server::cdf::{Cdf, CdfConfig};
use charging::server::record::{MemoryCdfStore, ReceivedRecord};
use dataplane::config::Config;
use dataplane::sip::digest::{Challenge, Credentials};
use dataplane::sip::{self, HeaderId, Index, Message, NameAddr, Params, Sdp, Uri, Via, write};

/// Reads `raw` as a SIP message and as each of its parts.
pub fn sip(raw: &[u8]) {
    let mut index = Index::new();
    match sip::parse(raw, &mut index) {
        Ok(message) => {
            let _ = black_box(message.validate());
            read_all(&message);
            copy_reads_back(&message);
        }
        Err(error) => {
            black_box(error.response());
            if let Some(message) = sip::salvage(raw, &index) {
                read_all(&message);
                answer_reads_back(&message);
            }
        }
    }
    parts(raw);
}

fn parts(text: &[u8]) {
    if let Ok(uri) = black_box(Uri::parse(text)) {
        black_box((uri.socket_addr(), uri.param(b"lr")));
    }
    if let Ok(address) = black_box(NameAddr::parse(text)) {
        black_box((address.uri().ok(), address.param(b"tag")));
    }
    if let Ok(via) = black_box(Via::parse(text)) {
        black_box((
            via.response_addr(),
            via.has_magic_cookie(),
            via.param(b"ttl"),
        ));
    }
    if let Some(sdp) = Sdp::parse(text) {
        assert!(sdp.is_same_media(&sdp));
        black_box((
            sdp.digest(),
            sdp.streams(),
            sdp.is_hold(),
            sdp.session().count(),
        ));
        for media in sdp.media() {
            black_box((
                media.kind(),
                media.port(),
                media.proto(),
                media.formats().count(),
            ));
            black_box((
                media.direction(),
                media.connection_address(),
                media.codec(b"0"),
            ));
        }
    }
    if let Ok(challenge) = Challenge::parse(text) {
        let credentials = Credentials {
            username: "ada",
            password: "secret",
        };
        let answer = challenge.answer(sip::Method::Invite, "sip:h", credentials, "c");
        let answer = answer.expect("an INVITE can be challenged");
        assert!(!answer.contains(['\r', '\n']), "an answer is one line");
    }
    black_box(Params::new(text).count());
    black_box(sip::param_of_list(text, b"icid-value"));
}

fn read_all(message: &Message<'_>) {
    black_box((
        message.method(),
        message.method_text(),
        message.status(),
        message.reason(),
    ));
    black_box((
        message.cseq(),
        message.max_forwards(),
        message.call_id(),
        message.body(),
    ));
    black_box((
        message.from(),
        message.to(),
        message.from_tag(),
        message.to_tag(),
    ));
    black_box((
        message.top_via(),
        message.contact(),
        message.has_more_vias(),
    ));
    parts(message.request_uri());
    parts(message.body());
    for header in message.all() {
        black_box((header.id.name(), header.name));
        assert!(header.line.len() >= header.name.len() + header.value.len());
        for value in message.values(header.id) {
            black_box(value);
        }
        black_box(message.headers(header.id).count());
        black_box(message.has_token(header.id, b"100rel"));
        parts(header.value);
    }
}

/// Copies every header line and the body; the copy is the same message.
fn copy_reads_back(message: &Message<'_>) {
    let mut out = Vec::new();
    if message.is_request() {
        write::request_line(&mut out, message.method_text(), message.request_uri());
    } else {
        write::status_line(&mut out, message.status(), message.reason());
    }
    write::copy_headers(&mut out, message, |id| id != HeaderId::ContentLength);
    let Some(room) = sip::MESSAGE_BYTES_MAX.checked_sub(out.len() + message.body().len()) else {
        return;
    };
    if room < b"Content-Length: 65535\r\n\r\n".len() || message.all().count() == sip::HEADERS_MAX {
        return;
    }
    write::header_number(
        &mut out,
        HeaderId::ContentLength,
        message.body().len() as u64,
    );
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(message.body());
    let mut index = Index::new();
    let copy = sip::parse(&out, &mut index).expect("a copy of a message is a message");
    assert_eq!(copy.method_text(), message.method_text());
    assert_eq!(
        (copy.status(), copy.cseq()),
        (message.status(), message.cseq())
    );
    assert_eq!(copy.request_uri(), message.request_uri());
    assert_eq!(copy.body(), message.body());
    let lines = |message: &Message<'_>| {
        let other = |header: &sip::HeaderRef<'_>| header.id != HeaderId::ContentLength;
        message
            .all()
            .filter(other)
            .map(|header| header.value.to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&copy), lines(message));
}

/// Answers what was salvaged; the answer is a message.
fn answer_reads_back(request: &Message<'_>) {
    let source = std::net::SocketAddr::from(([192, 0, 2, 1], 5060));
    let mut out = Vec::new();
    write::Writer::response(&mut out, request, source, 400, "", b"tag").no_body();
    if out.len() <= sip::MESSAGE_BYTES_MAX {
        let mut index = Index::new();
        let error = sip::parse(&out, &mut index).err();
        // The faulty field may be one that the answer returns.
        let fault = error.is_some_and(|error| error.response().is_none());
        assert!(!fault, "{error:?}");
    }
}

/// Reads `raw` as a Diameter message, and as what a client of the CDF sends on its connection.
pub fn diameter(raw: &[u8]) {
    if let Ok(message) = avp::Message::parse(raw) {
        walk(message.avps(), 0);
        let _ = black_box(ReceivedRecord::read(&message));
    }
    let identity = Identity {
        origin_host: "cdf.example".to_owned(),
        origin_realm: "example".to_owned(),
        host_addresses: vec![std::net::Ipv4Addr::LOCALHOST.into()],
        vendor_id: 0,
        product_name: "exercise".to_owned(),
        firmware_revision: None,
        origin_state_id: None,
    };
    let config = CdfConfig {
        identity,
        peer: PeerConfig::default(),
        connections_max: 1,
        interim_interval_s: Some(1),
    };
    let mut cdf = Cdf::new(config, MemoryCdfStore::default(), 1);
    let now = quanta::Instant::recent();
    let Some(connection) = cdf.accept(now) else {
        return;
    };
    // In two parts, so that every boundary inside a message is met.
    let (first, second) = raw.split_at(raw.len() / 2);
    cdf.handle_bytes(now, connection, first);
    cdf.handle_bytes(now, connection, second);
    black_box(cdf.transmit(connection).map(|bytes| bytes.len()));
    black_box(UnixMillis(0));
}

fn walk(avps: Avps<'_>, depth: u32) {
    for avp in avps.flatten() {
        black_box((avp.u32().ok(), avp.unix_seconds().ok()));
        if depth < NESTED
            && let Ok(inner) = avp.grouped()
        {
            walk(inner, depth + 1);
        }
    }
}

/// Reads `raw` as a configuration file. Names are not looked up.
pub fn config(raw: &[u8]) {
    let text = String::from_utf8_lossy(raw);
    match Config::parse_with(&text, Path::new("exercise.toml"), |_| None) {
        Ok(config) => drop(black_box(config)),
        Err(error) => assert!(!error.fix.is_empty(), "an error shows a way out: {error}"),
    }
}

/// How deep the exercise itself goes; the reader has a limit of its own.
const NESTED: u32 = 4;
