//! Supplementary services of MMTel that SIP shows to whoever stands between the parties: a
//! diversion by History-Info or Diversion, a transfer by REFER or Replaces, hold by the
//! direction of an offer, a conference by its focus.

use charging::trigger::{ServiceMode, ServiceType, SupplementaryService};

use crate::sip::{HeaderId, Message, Method, NameAddr, Sdp, Uri, param};

/// Services that a request opening a call, or a REFER, shows. Whom they are provided to, and might
/// be billed to, is believed inside the trust domain only.
pub(super) fn of_request<'a>(
    request: &Message<'a>,
    asserted: bool,
    into: &mut Vec<SupplementaryService<'a>>,
) {
    into.extend(by_history(request).or_else(|| by_diversion(request)));
    if request.method() == Method::Refer {
        into.push(transfer(request, refer_mode(request)));
    } else if request.header(HeaderId::Replaces).is_some() {
        into.push(transfer(request, ServiceMode::ConsultativeTransfer));
    }
    if is_focus(request) {
        into.push(SupplementaryService {
            service_type: ServiceType::Conference,
            mode: None,
            diversions: None,
            associated_party: initiator_of(request),
        });
    }
    if !asserted {
        into.iter_mut().for_each(|one| one.associated_party = b"");
    }
}

/// Hold: the offer of a re-INVITE or UPDATE silences the other side.
pub(super) fn of_offer<'a>(
    request: &Message<'a>,
    offer: Option<&[u8]>,
    asserted: bool,
) -> Option<SupplementaryService<'a>> {
    let is_hold = offer
        .and_then(Sdp::parse)
        .is_some_and(|offer| offer.is_hold());
    is_hold.then(|| SupplementaryService {
        service_type: ServiceType::Hold,
        mode: None,
        diversions: None,
        associated_party: match asserted {
            true => initiator_of(request),
            false => b"",
        },
    })
}

// RFC 7044: an entry whose URI carries a cause (RFC 4458) is where the call was sent by the
// party of the entry before.
fn by_history<'a>(request: &Message<'a>) -> Option<SupplementaryService<'a>> {
    let (mut before, mut count, mut last) = (&b""[..], 0, None);
    for value in request.values(HeaderId::HistoryInfo) {
        let Ok(entry) = NameAddr::parse(value) else {
            continue;
        };
        let uri = entry.uri;
        let cause = Uri::parse(uri)
            .ok()
            .and_then(|uri| uri.param(b"cause").flatten());
        if let Some(mode) = cause.and_then(mode_of_cause) {
            count += 1;
            last = Some((mode, before));
        }
        before = uri.split(|&byte| byte == b'?').next().unwrap_or(uri);
    }
    let (mode, forwarding) = last?;
    Some(diversion(mode, count, forwarding))
}

// RFC 5806: the last diversion stands first, each entry may count several.
fn by_diversion<'a>(request: &Message<'a>) -> Option<SupplementaryService<'a>> {
    let (mut count, mut first) = (0u32, None);
    for value in request.values(HeaderId::Diversion) {
        let Ok(entry) = NameAddr::parse(value) else {
            continue;
        };
        let counted = param(entry.params, b"counter")
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
        count = count.saturating_add(counted.unwrap_or(1));
        let reason = param(entry.params, b"reason").flatten().unwrap_or_default();
        first.get_or_insert((mode_of_reason(reason), entry.uri));
    }
    let (mode, forwarding) = first?;
    let mut service = diversion(ServiceMode::Unconditional, count, forwarding);
    service.mode = mode;
    Some(service)
}

fn diversion(mode: ServiceMode, count: u32, forwarding: &[u8]) -> SupplementaryService<'_> {
    SupplementaryService {
        service_type: ServiceType::Diversion,
        mode: Some(mode),
        diversions: Some(count),
        associated_party: forwarding,
    }
}

// RFC 4458 4, as TS 24.604 4.5.2.6.2 uses it.
fn mode_of_cause(cause: &[u8]) -> Option<ServiceMode> {
    Some(match cause {
        b"302" => ServiceMode::Unconditional,
        b"486" => ServiceMode::Busy,
        b"408" => ServiceMode::NoReply,
        b"404" => ServiceMode::NotLoggedIn,
        b"480" | b"487" => ServiceMode::Deflection,
        b"503" => ServiceMode::NotReachable,
        _ => return None,
    })
}

fn mode_of_reason(reason: &[u8]) -> Option<ServiceMode> {
    let reason = super::facts::unquoted(reason);
    let known = [
        (&b"unconditional"[..], ServiceMode::Unconditional),
        (b"user-busy", ServiceMode::Busy),
        (b"no-answer", ServiceMode::NoReply),
        (b"deflection", ServiceMode::Deflection),
        (b"unavailable", ServiceMode::NotReachable),
        (b"out-of-service", ServiceMode::NotReachable),
    ];
    known
        .iter()
        .find(|(name, _)| reason.eq_ignore_ascii_case(name))
        .map(|(_, mode)| *mode)
}

fn transfer<'a>(request: &Message<'a>, mode: ServiceMode) -> SupplementaryService<'a> {
    let transferor = request
        .header(HeaderId::ReferredBy)
        .and_then(|value| NameAddr::parse(value).ok());
    SupplementaryService {
        service_type: ServiceType::Transfer,
        mode: Some(mode),
        diversions: None,
        associated_party: transferor.map_or_else(|| initiator_of(request), |who| who.uri),
    }
}

// A Refer-To that replaces a dialog completes a consultation (RFC 5589 7).
fn refer_mode(request: &Message<'_>) -> ServiceMode {
    let target = request.header(HeaderId::ReferTo).unwrap_or_default();
    let replaces = target
        .windows(9)
        .any(|part| part.eq_ignore_ascii_case(b"Replaces="));
    match replaces {
        true => ServiceMode::ConsultativeTransfer,
        false => ServiceMode::BlindTransfer,
    }
}

// RFC 4579: the Contact of a conference says so.
fn is_focus(request: &Message<'_>) -> bool {
    request
        .contact()
        .is_some_and(|contact| contact.param(b"isfocus").is_some())
}

// Whoever sent the request, as the network asserts it.
fn initiator_of<'a>(request: &Message<'a>) -> &'a [u8] {
    request
        .values(HeaderId::PAssertedIdentity)
        .next()
        .and_then(|value| NameAddr::parse(value).ok())
        .map_or(&b""[..], |address| address.uri)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Index, parse};

    type Seen = (ServiceType, Option<ServiceMode>, Option<u32>, String);

    fn services(method: &str, headers: &str) -> Vec<Seen> {
        let text = format!(
            "{method} sip:c@c.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
             Max-Forwards: 70\r\nFrom: <sip:a@a>;tag=1\r\nTo: <sip:b@b>\r\nCall-ID: c\r\n\
             CSeq: 1 {method}\r\n{headers}Content-Length: 0\r\n\r\n"
        );
        let mut index = Index::new();
        let request = parse(text.as_bytes(), &mut index).expect("well formed");
        let mut found = Vec::new();
        of_request(&request, true, &mut found);
        found
            .iter()
            .map(|one| {
                let party = String::from_utf8_lossy(one.associated_party).into_owned();
                (one.service_type, one.mode, one.diversions, party)
            })
            .collect()
    }

    #[test]
    fn a_history_tells_who_forwarded_last_why_and_how_often() {
        let history = "History-Info: <sip:b@b.example>;index=1,\
                       <sip:c@c.example;cause=486>;index=1.1;mp=1,\
                       <sip:d@d.example;cause=408?Privacy=none>;index=1.1.1;mp=1.1\r\n";
        let expected = (
            ServiceType::Diversion,
            Some(ServiceMode::NoReply),
            Some(2),
            "sip:c@c.example;cause=486".to_owned(),
        );
        assert_eq!(services("INVITE", history), [expected]);
        let retargeted = "History-Info: <sip:b@b.example>;index=1,<sip:b@h>;index=1.1;rc=1\r\n";
        assert_eq!(services("INVITE", retargeted), []);
    }

    #[test]
    fn a_diversion_header_counts_what_it_says() {
        let header = "Diversion: <tel:+49301>;reason=user-busy;counter=2, <tel:+49302>;\
                      reason=unconditional\r\n";
        let expected = (
            ServiceType::Diversion,
            Some(ServiceMode::Busy),
            Some(3),
            "tel:+49301".to_owned(),
        );
        assert_eq!(services("INVITE", header), [expected]);
    }

    #[test]
    fn refer_and_replaces_are_transfers() {
        let of = |method, headers: &str| services(method, headers)[0].clone();
        let blind = of(
            "REFER",
            "Refer-To: <sip:d@d.example>\r\nReferred-By: <sip:a@x>\r\n",
        );
        assert_eq!(blind.1, Some(ServiceMode::BlindTransfer));
        assert_eq!(
            (blind.0, blind.3.as_str()),
            (ServiceType::Transfer, "sip:a@x")
        );
        let consulted = "Refer-To: <sip:d@d?Replaces=x%3Bto-tag%3D1%3Bfrom-tag%3D2>\r\n";
        assert_eq!(
            of("REFER", consulted).1,
            Some(ServiceMode::ConsultativeTransfer)
        );
        let replaces = of("INVITE", "Replaces: x;to-tag=1;from-tag=2\r\n");
        assert_eq!(replaces.1, Some(ServiceMode::ConsultativeTransfer));
        assert_eq!(services("INVITE", ""), []);
    }

    #[test]
    fn a_focus_is_a_conference() {
        let contact = "Contact: <sip:conf@192.0.2.1>;isfocus\r\n\
                       P-Asserted-Identity: <sip:conf@x>\r\n";
        let seen = services("INVITE", contact);
        assert_eq!(
            (seen[0].0, seen[0].3.as_str()),
            (ServiceType::Conference, "sip:conf@x")
        );
    }

    #[test]
    fn an_offer_that_silences_the_other_side_is_hold() {
        let text = b"INVITE sip:c@c SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
            Max-Forwards: 70\r\nFrom: <sip:a@a>;tag=1\r\nTo: <sip:b@b>;tag=2\r\nCall-ID: c\r\n\
            CSeq: 2 INVITE\r\nP-Asserted-Identity: <sip:a@home>\r\nContent-Length: 0\r\n\r\n";
        let mut index = Index::new();
        let request = parse(text, &mut index).expect("well formed");
        let sdp = |direction: &str| {
            format!("v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP 8\r\na={direction}\r\n")
        };
        let held = sdp("sendonly");
        let hold = of_offer(&request, Some(held.as_bytes()), true).expect("hold");
        assert_eq!(hold.service_type, ServiceType::Hold);
        assert_eq!(hold.associated_party, b"sip:a@home");
        let outside = of_offer(&request, Some(held.as_bytes()), false).expect("hold");
        assert_eq!(outside.associated_party, b"");
        assert!(of_offer(&request, Some(sdp("sendrecv").as_bytes()), true).is_none());
        assert!(of_offer(&request, None, true).is_none());
    }
}
