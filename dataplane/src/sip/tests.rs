//! Messages of our own after the sections of RFC 3261, RFC 4475 and RFC 5118.

use super::*;

/// A request with the five fields every message has, and `lines` before them.
fn request(start: &str, lines: &str) -> Vec<u8> {
    let method = start.split(' ').next().unwrap_or_default();
    format!(
        "{start}\r\n{lines}Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
         From: <sip:a@example.com>;tag=1\r\nTo: <sip:b@example.net>\r\n\
         Call-ID: c@example.com\r\nCSeq: 1 {method}\r\n\r\n"
    )
    .into_bytes()
}

fn options(lines: &str) -> Vec<u8> {
    request("OPTIONS sip:b@example.net SIP/2.0", lines)
}

/// Parses and validates; the answer is the first fault.
fn fault(raw: &[u8]) -> Option<ParseError> {
    let mut index = Index::new();
    let result = parse(raw, &mut index).and_then(|message| message.validate());
    result.err()
}

#[test]
fn the_five_fields_suffice() {
    assert_eq!(fault(&options("")), None);
}

#[test]
fn a_keep_alive_is_no_message() {
    for raw in [&b""[..], b"\r\n", b"\r\n\r\n", b"\n\n\n"] {
        assert_eq!(fault(raw), Some(ParseError::Keepalive));
    }
    let mut padded = b"\r\n\r\n".to_vec();
    padded.extend_from_slice(&options(""));
    assert_eq!(fault(&padded), None);
}

#[test]
fn the_start_line_has_two_single_spaces() {
    // RFC 4475 3.1.2.7 to 3.1.2.10 and 3.1.2.16.
    let cases = [
        ("OPTIONS  sip:b@h SIP/2.0", ParseError::StartLine),
        ("OPTIONS sip:b@h  SIP/2.0", ParseError::StartLine),
        ("OPTIONS sip:b@h SIP/2.0 ", ParseError::StartLine),
        ("OPTIONS sip:b@h; lr SIP/2.0", ParseError::StartLine),
        ("OPTIONS <sip:b@h> SIP/2.0", ParseError::RequestUri),
        (
            "OPTIONS sip:b@h?Route=%3Csip:h%3E SIP/2.0",
            ParseError::RequestUri,
        ),
        ("OPTIONS sip:b@h SIP/3.0", ParseError::Version),
        ("OPTIONS soap.beep://b@h SIP/2.0", ParseError::UriScheme),
        ("OPTIONS sip:2001:db8::1 SIP/2.0", ParseError::RequestUri),
        ("OPTIONS sip:b@h SOP/2.0", ParseError::NotSip),
        ("OPTIONS sip:b@h", ParseError::NotSip),
        ("GET / HTTP/1.1", ParseError::NotSip),
        (" OPTIONS sip:b@h SIP/2.0", ParseError::NotSip),
    ];
    for (start, expected) in cases {
        assert_eq!(fault(&request(start, "")), Some(expected), "{start}");
    }
    assert_eq!(
        fault(&request("OPTIONS sip:b@h sip/2.0", "")),
        None,
        "compared without case"
    );
}

#[test]
fn a_status_code_has_three_digits_in_six_classes() {
    let response = |start: &str| {
        let text = String::from_utf8(options("")).expect("ASCII");
        text.replacen("OPTIONS sip:b@example.net SIP/2.0", start, 1)
            .into_bytes()
    };
    for good in [
        "SIP/2.0 200 OK",
        "SIP/2.0 100 ",
        "SIP/2.0 699 \u{431}",
        "SIP/2.0 487",
    ] {
        let raw = response(good);
        let mut index = Index::new();
        let message = parse(&raw, &mut index).expect(good);
        assert_eq!(message.method(), Method::Options);
        assert!(!message.is_request());
        assert_eq!(message.request_uri(), b"");
    }
    for bad in [
        "SIP/2.0 4294967301 x",
        "SIP/2.0 099 x",
        "SIP/2.0 700 x",
        "SIP/2.0 2x0 x",
    ] {
        assert_eq!(fault(&response(bad)), Some(ParseError::StatusCode), "{bad}");
    }
    assert_eq!(fault(&response("SIP/2.0 20")), Some(ParseError::StartLine));
}

#[test]
fn folding_and_white_space_round_separators_are_legal() {
    let raw = b"INVITE sip:b@example.net;unknownparam SIP/2.0\r\n\
        TO :\r\n sip:b@example.net ;   tag    = 19n\r\n\
        from   : \"J \\\\\\\"\"       <sip:a@example.com>\r\n  ;\r\n  tag = 98\r\n\
        MaX-fOrWaRdS: 0068\r\nCall-ID: w@192.0.2.1\r\ncseq: 0009\r\n  INVITE\r\n\
        Via  : SIP  /   2.0\r\n /UDP\r\n    192.0.2.2;branch=390\r\ns :\r\n\
        Odd: ;;,,;;,;\r\nRoute:\r\n <sip:services.example.com;lr;a=b;c>\r\n\
        v:  SIP  / 2.0  / TCP     s.example.com   ;\r\n  branch  =   z9hG4bK9  ,\r\n \
        SIP  /    2.0   / UDP  192.168.255.111 : 5070  ; branch=\r\n z9hG4bK3\r\n\
        m:\"Q \\\"\\\"\" <sip:j@example.com> ; newparam =\r\n      newvalue ;\r\n  \
        q = 0.33\r\n\r\n";
    let mut index = Index::new();
    let message = parse(raw, &mut index).expect("RFC 4475 3.1.1.1");
    message.validate().expect("valid");
    assert_eq!(message.to_tag(), Some(&b"19n"[..]));
    assert_eq!(message.from_tag(), Some(&b"98"[..]));
    assert_eq!(message.cseq(), (9, Method::Invite));
    assert_eq!(message.max_forwards(), Some(68));
    let vias: Vec<_> = message
        .values(HeaderId::Via)
        .map(|v| Via::parse(v).expect("Via"))
        .collect();
    assert_eq!(vias.len(), 3);
    assert_eq!(vias[0].transport, b"UDP");
    assert_eq!(vias[1].branch, Some(&b"z9hG4bK9"[..]));
    assert_eq!(
        (vias[2].host, vias[2].port),
        (&b"192.168.255.111"[..], Some(5070))
    );
    assert_eq!(message.header(HeaderId::Subject), Some(&b""[..]));
    let contact = message.contact().expect("a Contact");
    assert_eq!(contact.param(b"newparam"), Some(Some(&b"newvalue"[..])));
    assert_eq!(contact.param(b"q"), Some(Some(&b"0.33"[..])));
    assert!(message.has_more_vias());
}

#[test]
fn lines_end_with_cr_and_lf_together() {
    for bad in ["X: a\rb\r\n", "X: a\nb\r\n", "X: a\n", "X: a\r\r\n"] {
        let error = fault(&options(bad));
        assert_eq!(error, Some(ParseError::LineEnd), "{bad:?}");
    }
    let text = String::from_utf8(options("")).expect("ASCII");
    assert!(fault(text.replace("\r\n", "\n").as_bytes()).is_some());
}

#[test]
fn the_header_ends_with_an_empty_line() {
    let raw = options("");
    for cut in 1..raw.len() {
        assert!(fault(&raw[..cut]).is_some(), "cut at {cut}");
    }
    let without = &raw[..raw.len() - 2];
    assert_eq!(fault(without), Some(ParseError::NoEmptyLine));
}

#[test]
fn a_line_without_a_colon_is_named_and_the_rest_is_read() {
    let raw = options("no colon here\r\n");
    let mut index = Index::new();
    assert_eq!(parse(&raw, &mut index).err(), Some(ParseError::HeaderLine));
    let message = salvage(&raw, &index).expect("enough for an answer");
    assert_eq!(message.call_id(), b"c@example.com");
    assert_eq!(
        fault(&options(": nameless\r\n")),
        Some(ParseError::HeaderLine)
    );
    assert_eq!(
        fault(&options("Sp ace: x\r\n")),
        Some(ParseError::HeaderLine)
    );
}

#[test]
fn exactly_the_fatal_fields_may_not_be_repeated() {
    for (line, id) in [
        ("t: <sip:b@h>\r\n", HeaderId::To),
        ("FROM: <sip:b@h>\r\n", HeaderId::From),
        ("i: c@example.com\r\n", HeaderId::CallId),
        ("CSeq: 1 OPTIONS\r\n", HeaderId::CSeq),
        (
            "Max-Forwards: 7\r\nMax-Forwards: 7\r\n",
            HeaderId::MaxForwards,
        ),
        ("l: 0\r\nContent-Length: 0\r\n", HeaderId::ContentLength),
    ] {
        let raw = options(line);
        assert_eq!(fault(&raw), Some(ParseError::Repeated(id)));
        let mut index = Index::new();
        let _ = parse(&raw, &mut index);
        assert!(salvage(&raw, &index).is_some());
    }
    assert_eq!(fault(&options("c: a/b\r\nContent-Type: a/b\r\n")), None);
}

#[test]
fn sixty_four_lines_fit_and_one_more_does_not() {
    let lines = "X: 1\r\n".repeat(HEADERS_MAX - 5);
    assert_eq!(fault(&options(&lines)), None);
    let one_more = format!("{lines}X: 1\r\n");
    assert_eq!(fault(&options(&one_more)), Some(ParseError::TooManyHeaders));
    let large = vec![b'a'; MESSAGE_BYTES_MAX + 1];
    assert_eq!(fault(&large), Some(ParseError::TooLarge));
}

#[test]
fn content_length_cuts_and_never_stretches() {
    let with_body = |length: &str| {
        let mut raw = options(&format!("Content-Length: {length}\r\n"));
        raw.extend_from_slice(b"0123456789");
        raw
    };
    for (length, body) in [("0", &b""[..]), ("4", b"0123"), ("10", b"0123456789")] {
        let raw = with_body(length);
        let mut index = Index::new();
        assert_eq!(parse(&raw, &mut index).expect("fits").body(), body);
    }
    assert_eq!(fault(&with_body("11")), Some(ParseError::Truncated));
    let malformed = Some(ParseError::Value(HeaderId::ContentLength));
    for bad in ["-1", "", "4a", "99999999999999999999999"] {
        assert_eq!(fault(&with_body(bad)), malformed, "{bad}");
    }
    let mut open = options("");
    open.extend_from_slice(b"to the end");
    let mut index = Index::new();
    assert_eq!(
        parse(&open, &mut index).expect("no length").body(),
        b"to the end"
    );
}

#[test]
fn scalars_keep_their_ranges() {
    let cases = [
        ("Max-Forwards: 256\r\n", HeaderId::MaxForwards),
        ("Max-Forwards: x\r\n", HeaderId::MaxForwards),
        ("Expires: 4294967296\r\n", HeaderId::Expires),
        ("Session-Expires: soon\r\n", HeaderId::SessionExpires),
        ("x: 1800;;\r\n", HeaderId::SessionExpires),
        ("Min-SE: -90\r\n", HeaderId::MinSe),
        ("RAck: 1 INVITE\r\n", HeaderId::RAck),
        ("RAck: 1 2 INVITE x\r\n", HeaderId::RAck),
    ];
    for (line, id) in cases {
        assert_eq!(fault(&options(line)), Some(ParseError::Value(id)), "{line}");
    }
    let good = "Expires: 4294967295\r\nx: 1800 ;refresher=uac\r\nRAck: 776656 1 INVITE\r\n";
    assert_eq!(fault(&options(good)), None);
}

#[test]
fn cseq_is_a_number_below_2_31_and_the_method() {
    let with = |cseq: &str| {
        let text = String::from_utf8(options("")).expect("ASCII");
        text.replace("CSeq: 1 OPTIONS", &format!("CSeq: {cseq}"))
            .into_bytes()
    };
    assert_eq!(fault(&with("2147483647 OPTIONS")), None);
    let malformed = Some(ParseError::Value(HeaderId::CSeq));
    for bad in [
        "2147483648 OPTIONS",
        "36893488147419103232 OPTIONS",
        "OPTIONS",
        "1OPTIONS",
        "1",
    ] {
        let error = fault(&with(bad));
        assert_eq!(error, malformed, "{bad}");
    }
    assert_eq!(fault(&with("1 INVITE")), Some(ParseError::CSeqMethod));
    assert_eq!(fault(&with("1 options")), Some(ParseError::CSeqMethod));
}

#[test]
fn only_an_answerable_request_is_salvaged() {
    let salvageable = |raw: &[u8]| {
        let mut index = Index::new();
        assert!(parse(raw, &mut index).is_err());
        salvage(raw, &index).is_some()
    };
    assert!(salvageable(&request("INVITE sip:b@h SIP/2.0", "l: -1\r\n")));
    assert!(salvageable(&request("INVITE sip:b@h SIP/7.0", "")));
    assert!(
        !salvageable(&request("ACK sip:b@h SIP/2.0", "l: -1\r\n")),
        "never answered"
    );
    assert!(!salvageable(
        b"INVITE sip:b@h SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n"
    ));
    let text = String::from_utf8(options("l: -1\r\n")).expect("ASCII");
    let response = text.replacen("OPTIONS sip:b@example.net SIP/2.0", "SIP/2.0 200 OK", 1);
    assert!(!salvageable(response.as_bytes()), "a response is dropped");
    let blind = text.replace("SIP/2.0/UDP 192.0.2.1", "SIP/2.0/UDP");
    assert!(!salvageable(blind.as_bytes()), "nowhere to send it");
}

#[test]
fn the_user_part_ends_at_the_last_at_sign() {
    let uri = Uri::parse(b"sip:user;par=u%40example.net@example.com:5070;lr?h=1").expect("legal");
    assert_eq!(uri.user, Some(&b"user;par=u%40example.net"[..]));
    assert_eq!((uri.host, uri.port), (&b"example.com"[..], Some(5070)));
    assert_eq!(uri.param(b"LR"), Some(None));
    assert_eq!(uri.headers, b"?h=1");
    let odd = b"sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_\
        too.(doesn't-it)@example.com";
    assert_eq!(
        Uri::parse(odd).expect("RFC 4475 3.1.1.2").host,
        b"example.com"
    );
    let escaped = Uri::parse(b"sip:sips%3Auser%40example.com@example.net").expect("3.1.1.3");
    assert_eq!(escaped.user, Some(&b"sips%3Auser%40example.com"[..]));
}

#[test]
fn uris_of_other_schemes_keep_their_parts() {
    let tel = Uri::parse(b"tel:+1-201-555-0123;phone-context=example.com").expect("legal");
    assert_eq!(
        (tel.scheme, tel.user),
        (Scheme::Tel, Some(&b"+1-201-555-0123"[..]))
    );
    assert_eq!(tel.param(b"phone-context"), Some(Some(&b"example.com"[..])));
    assert_eq!(
        Uri::parse(b"urn:service:sos").expect("legal").scheme,
        Scheme::Urn
    );
    assert_eq!(Uri::parse(b"SIPS:h").expect("legal").scheme, Scheme::Sips);
    assert_eq!(
        Uri::parse(b"isbn:2983792873").expect("legal").scheme,
        Scheme::Other
    );
    for bad in [
        "",
        "sip",
        "sip:",
        ":x",
        "sip:@h",
        "sip:a@",
        "sip:a@h:",
        "sip:a@h:65536",
        "1p:x",
    ] {
        assert!(Uri::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    for bad in [
        "sip:a b@h",
        "sip:a@h x",
        "sip:<a@h",
        "sip:a@h:5060x",
        "sip:a@[::1",
        "sip:a@[]",
    ] {
        assert!(Uri::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn an_ipv6_reference_is_a_host() {
    // RFC 5118 4.1 to 4.5, 4.9 and 4.10.
    let uri = Uri::parse(b"sip:[2001:db8::10]:5070").expect("4.4");
    assert_eq!(uri.socket_addr(), "[2001:db8::10]:5070".parse().ok());
    let ambiguous = Uri::parse(b"sip:[2001:db8::10:5070]").expect("4.3");
    assert_eq!(ambiguous.port, None);
    assert_eq!(
        ambiguous.socket_addr(),
        "[2001:db8::10:5070]:5060".parse().ok()
    );
    assert_eq!(
        Uri::parse(b"sips:192.0.2.1")
            .expect("v4")
            .socket_addr()
            .map(|a| a.port()),
        Some(5061)
    );
    assert_eq!(
        Uri::parse(b"sip:cafe.example")
            .expect("a name")
            .socket_addr(),
        None
    );
    let via = Via::parse(b"SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bKa");
    let via = via.expect("4.5");
    assert_eq!(via.received, Some(&b"2001:db8::9:255"[..]));
    assert_eq!(via.response_addr(), "[2001:db8::9:255]:5060".parse().ok());
    let delimited = Via::parse(b"SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255]");
    assert_eq!(delimited.expect("4.5").response_addr(), via.response_addr());
    let mapped = Via::parse(b"SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bKb").expect("4.9");
    assert_eq!(mapped.port, Some(19823));
    let colons = Via::parse(b"SIP/2.0/UDP h;received=[2001:db8:::192.0.2.1]").expect("4.10");
    assert_eq!(colons.response_addr(), None);
}

#[test]
fn a_via_says_where_its_response_goes() {
    let address = |text: &str| Via::parse(text.as_bytes()).expect("legal").response_addr();
    assert_eq!(
        address("SIP/2.0/UDP 192.0.2.1"),
        "192.0.2.1:5060".parse().ok()
    );
    assert_eq!(
        address("SIP/2.0/TLS 192.0.2.1"),
        "192.0.2.1:5061".parse().ok()
    );
    assert_eq!(
        address("SIP/2.0/UDP h:1;received=192.0.2.2"),
        "192.0.2.2:1".parse().ok()
    );
    assert_eq!(
        address("SIP/2.0/UDP h:1;rport=9;received=192.0.2.2"),
        "192.0.2.2:9".parse().ok()
    );
    assert_eq!(address("SIP/2.0/UDP h"), None);
    let via = Via::parse(b"SIP/2.0/UDP h;rport;branch=z9hG4bK").expect("legal");
    assert_eq!(via.rport, Some(None));
    assert!(
        !via.has_magic_cookie(),
        "RFC 4475 3.2.1: nothing behind the cookie"
    );
    for bad in [
        "",
        "SIP/2.0/UDP",
        "SIP/2.0 h",
        "SIX/2.0/UDP h",
        "SIP/2.0/UDP h;;",
        "SIP/2.0/UDP ;",
    ] {
        assert!(Via::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn a_name_addr_takes_a_display_name_apart_from_its_uri() {
    let parsed = |text: &'static str| NameAddr::parse(text.as_bytes()).expect(text);
    let plain = parsed("sip:a@h;tag=1");
    assert_eq!(
        (plain.uri, plain.param(b"TAG")),
        (&b"sip:a@h"[..], Some(Some(&b"1"[..])))
    );
    let named = parsed("caller<sip:a@h;x=1>;tag=2;y=\"a;b\"");
    assert_eq!(
        (named.display, named.uri),
        (&b"caller"[..], &b"sip:a@h;x=1"[..])
    );
    assert_eq!(named.param(b"x"), None);
    assert_eq!(named.param(b"y"), Some(Some(&b"\"a;b\""[..])));
    assert_eq!(
        parsed("token1~` token2'+_ token3*%!.- <sip:a@h>").uri,
        b"sip:a@h"
    );
    assert_eq!(parsed("\"a \\\"<\" <sip:a@h>").display, b"\"a \\\"<\"");
    assert_eq!(
        parsed("J\u{f6}rg W. <sip:a@h>").display,
        "J\u{f6}rg W.".as_bytes()
    );
    for bad in [
        "",
        "\"open <sip:a@h>",
        "\"a\" sip:a@h",
        "<sip:a@h",
        "<>",
        "< sip:a@h >",
        "Bell, A <sip:a@h>",
        "sip:a@h?x=y",
        "<sip:a@h> tag=1",
        "nocolon",
        "<sip:a@h>x",
    ] {
        assert!(NameAddr::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn lists_are_split_over_lines_and_commas() {
    let raw = options("k: 100rel , timer\r\nSupported: Path\r\nRequire:\r\n");
    let mut index = Index::new();
    let message = parse(&raw, &mut index).expect("well formed");
    let values: Vec<_> = message.values(HeaderId::Supported).collect();
    assert_eq!(values, [&b"100rel"[..], b"timer", b"Path"]);
    assert!(message.has_token(HeaderId::Supported, b"path"));
    assert!(!message.has_token(HeaderId::Supported, b"100"));
    assert_eq!(message.headers(HeaderId::Supported).count(), 2);
    let ids: Vec<_> = message
        .all()
        .map(|header| (header.id, header.name))
        .collect();
    assert_eq!(ids[0], (HeaderId::Supported, &b"k"[..]));
    assert_eq!(ids.len(), 8);
    assert!(message.all().all(|header| header.line.ends_with(b"\r\n")));
}

#[test]
fn a_charging_vector_gives_up_its_parameters() {
    let vector = b"icid-value=\"a;b\";icid-generated-at=192.0.2.1;orig-ioi=home1.net";
    assert_eq!(
        param_of_list(vector, b"icid-value"),
        Some(Some(&b"\"a;b\""[..]))
    );
    assert_eq!(
        param_of_list(vector, b"ORIG-IOI"),
        Some(Some(&b"home1.net"[..]))
    );
    assert_eq!(param_of_list(vector, b"term-ioi"), None);
    let state = b"active;expires=60";
    assert_eq!(param_of_list(state, b"expires"), Some(Some(&b"60"[..])));
    assert_eq!(param_of_list(state, b"active"), Some(None));
}

#[test]
fn every_fault_but_two_has_an_answer() {
    assert_eq!(ParseError::Keepalive.response(), None);
    assert_eq!(ParseError::NotSip.response(), None);
    let named = ParseError::Repeated(HeaderId::CallId).response();
    assert_eq!(named, Some((400, "Repeated Call-ID")));
    assert_eq!(
        ParseError::Version.response().map(|answer| answer.0),
        Some(505)
    );
    assert_eq!(
        ParseError::UriScheme.response().map(|answer| answer.0),
        Some(416)
    );
    assert_eq!(
        ParseError::TooLarge.response().map(|answer| answer.0),
        Some(513)
    );
}
