//! rsip as an oracle: where both readers accept a message, and the values are made of token
//! characters, they must agree. Elsewhere rsip 0.4.0 is known to err on legal input.

use std::fs;
use std::path::Path;

use dataplane::sip::{self, Index, Message};
use rsip::prelude::{HasHeaders, HeadersExt, ToTypedHeader};

/// Compares what both accept; whether they both did.
fn agree(raw: &[u8]) -> bool {
    let mut index = Index::new();
    let Ok(ours) = sip::parse(raw, &mut index) else {
        return false;
    };
    let Ok(theirs) = rsip::SipMessage::try_from(raw) else {
        return false;
    };
    match &theirs {
        rsip::SipMessage::Request(request) => {
            assert!(ours.is_request());
            assert_eq!(ours.method_text(), request.method.to_string().as_bytes());
        }
        rsip::SipMessage::Response(response) => {
            assert_eq!(ours.status(), response.status_code.code());
        }
    }
    assert_eq!(ours.all().count(), theirs.headers().iter().count());
    agree_on_values(&ours, &theirs);
    // rsip knows no Content-Length.
    assert!(theirs.body().starts_with(ours.body()));
    true
}

fn agree_on_values(ours: &Message<'_>, theirs: &rsip::SipMessage) {
    if let Ok(call_id) = theirs.call_id_header() {
        assert_eq!(
            ours.call_id(),
            call_id
                .to_string()
                .trim_start_matches("Call-ID: ")
                .as_bytes()
        );
    }
    if let Ok(cseq) = theirs
        .cseq_header()
        .and_then(|cseq| cseq.clone().into_typed())
    {
        assert_eq!(ours.cseq().0, cseq.seq);
    }
    if let Ok(Some(tag)) = theirs
        .from_header()
        .map(|from| from.clone().into_typed())
        .map(|from| from.ok().and_then(|from| from.tag().cloned()))
        && is_token(tag.to_string().as_bytes())
    {
        assert_eq!(ours.from_tag(), Some(tag.value().as_bytes()));
    }
    if let Ok(Some(tag)) = theirs
        .to_header()
        .map(|to| to.clone().into_typed())
        .map(|to| to.ok().and_then(|to| to.tag().cloned()))
    {
        assert_eq!(ours.to_tag(), Some(tag.value().as_bytes()));
    }
    let Some(via) = theirs
        .via_header()
        .ok()
        .and_then(|via| via.clone().into_typed().ok())
    else {
        return;
    };
    let Some(our_via) = ours.top_via() else {
        return;
    };
    if let Some(branch) = via.branch()
        && is_token(branch.value().as_bytes())
    {
        assert_eq!(our_via.branch, Some(branch.value().as_bytes()));
    }
    assert_eq!(our_via.host, via.uri.host().to_string().as_bytes());
    assert_eq!(our_via.port, via.uri.port().map(|port| *port.value()));
}

fn is_token(text: &[u8]) -> bool {
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(byte);
    !text.is_empty() && text.iter().all(legal)
}

#[test]
fn rsip_agrees_on_the_corpus() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/sip");
    let mut agreed = 0;
    for entry in fs::read_dir(directory).expect("the corpus is part of the project") {
        let path = entry.expect("a readable directory").path();
        agreed += usize::from(agree(&fs::read(path).expect("a readable file")));
    }
    println!("both accept {agreed} inputs of the corpus");
    assert!(agreed >= 3);
}

#[test]
fn rsip_agrees_on_messages_of_token_characters() {
    const TOKENS: [&str; 4] = ["a", "x-1.2!3", "Z9%*_+`'~", "0"];
    let mut count = 0;
    for method in ["INVITE", "BYE", "SUBSCRIBE", "ACK"] {
        for tag in TOKENS {
            for branch in TOKENS {
                for port in ["", ":5070"] {
                    let to_tag = if count % 2 == 0 { ";tag=to" } else { "" };
                    let raw = format!(
                        "{method} sip:bob@example.net SIP/2.0\r\n\
                         Via: SIP/2.0/UDP host.example.com{port};branch=z9hG4bK{branch}\r\n\
                         Via: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKother\r\n\
                         From: Ada <sip:ada@example.com>;tag={tag}\r\n\
                         To: <sip:bob@example.net>{to_tag}\r\nCall-ID: {tag}@{branch}\r\n\
                         CSeq: {count} {method}\r\nX-Other: {tag}\r\n\
                         Content-Length: 4\r\n\r\nbody and more"
                    );
                    assert!(agree(raw.as_bytes()), "{raw}");
                    count += 1;
                }
            }
        }
    }
}
