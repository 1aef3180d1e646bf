//! What a message says that a record wants to know: the header mapping of TS 32.260 for an AS.

use std::net::IpAddr;

use charging::time::UnixMillis;
use charging::trigger::{
    AccessTransfer, AccessTransferType, CalledSide, MessageBody, Nni, RoleOfNode, Sdp, SdpType,
    SessionFacts, SubscriptionIdType, SupplementaryService, TerminatingAccess,
};

use super::trust::is_network_provided;
use super::{bridge, services};
use crate::sip::{HeaderId, Message, Method, NameAddr, Scheme, Uri, param, param_of_list};

/// What is known of a request besides the request.
#[derive(Default)]
pub(super) struct Known<'a> {
    /// The call's IMS Charging Identifier.
    pub(super) icid: &'a [u8],
    /// The call's number.
    pub(super) id: u128,
    /// Number of the call's charging class.
    pub(super) class: u16,
    /// The sender is inside the trust domain.
    pub(super) asserted: bool,
    /// The borders that the request crosses.
    pub(super) nni: &'a [Nni],
    /// icid-value of the call whose dialog the request replaces.
    pub(super) replaced_icid: &'a [u8],
    /// What moved to another access with it.
    pub(super) transfer: Option<AccessTransfer<'a>>,
}

/// The lists that [`SessionFacts`] borrows.
#[derive(Default)]
pub(super) struct Values<'a> {
    calling: List<'a>,
    access: List<'a>,
    flat: Vec<(SubscriptionIdType, &'a [u8])>,
    body: Option<MessageBody<'a>>,
    services: Vec<SupplementaryService<'a>>,
    role: RoleOfNode,
    imei: [u8; IMEISV_DIGITS],
    imei_len: usize,
}

impl<'a> Values<'a> {
    pub(super) fn read(&mut self, request: &Message<'a>, asserted: bool) {
        if asserted {
            self.calling
                .add_uris(request.values(HeaderId::PAssertedIdentity));
        }
        self.role = role_of(request, asserted);
        // Network-provided access information first (TS 32.299 7.2.1).
        for provided in [true, false] {
            for value in accesses(request, asserted) {
                if is_network_provided(value) == provided {
                    self.access.add(value);
                }
            }
        }
        self.read_served_user(request, asserted);
        self.body = body_of(request, false);
        services::of_request(request, asserted, &mut self.services);
        (self.imei, self.imei_len) = imei_of(instance_of(request));
    }

    fn read_served_user(&mut self, request: &Message<'a>, asserted: bool) {
        let served = request
            .header(HeaderId::PServedUser)
            .filter(|_| asserted)
            .and_then(|value| NameAddr::parse(value).ok());
        match (served, self.role) {
            (Some(served), _) => self.subscribe(served.uri),
            (None, RoleOfNode::Terminating) => {
                let called = request
                    .header(HeaderId::PCalledPartyId)
                    .and_then(|value| NameAddr::parse(value).ok());
                self.subscribe(called.map_or(request.request_uri(), |called| called.uri));
            }
            (None, _) => {
                for place in 0..self.calling.len {
                    self.subscribe(self.calling.values[place]);
                }
            }
        }
    }

    fn subscribe(&mut self, uri: &'a [u8]) {
        let Ok(parsed) = Uri::parse(uri) else { return };
        let entry = match parsed.scheme {
            Scheme::Tel => {
                let digits = uri.get(4..).unwrap_or_default();
                let end = digits
                    .iter()
                    .position(|&byte| byte == b';')
                    .unwrap_or(digits.len());
                (SubscriptionIdType::E164, &digits[..end])
            }
            _ => (SubscriptionIdType::SipUri, uri),
        };
        self.flat.push(entry);
    }

    pub(super) fn facts<'b>(
        &'b self,
        request: &Message<'b>,
        known: &'b Known<'b>,
    ) -> SessionFacts<'b> {
        // What only the trust domain may say, and whom credentials name: nobody here checked them.
        let asserted = |id| {
            let value = request.header(id).filter(|_| known.asserted);
            value.unwrap_or_default()
        };
        let vector = asserted(HeaderId::PChargingVector);
        let of_vector = |name: &[u8]| {
            param_of_list(vector, name)
                .flatten()
                .map_or(&b""[..], unquoted)
        };
        let number_params = number_params_of(request.request_uri());
        let of_number = |name: &[u8]| param(number_params, name).flatten().unwrap_or_default();
        let of = |id| request.header(id).unwrap_or_default();
        SessionFacts {
            class: known.class,
            slot: known.id as u32,
            role_of_node: self.role,
            method: request.method_text(),
            user_session_id: request.call_id(),
            calling_party: self.calling.get(),
            requested_party: request.request_uri(),
            from_address: of(HeaderId::From),
            icid: known.icid,
            initial_icid: known.replaced_icid,
            related_icid: of_vector(b"related-icid"),
            related_icid_node: address_of(of_vector(b"related-icid-generated-at")),
            orig_ioi: of_vector(b"orig-ioi"),
            term_ioi: of_vector(b"term-ioi"),
            transit_ioi: of_vector(b"transit-ioi"),
            fe_identifiers: of_vector(b"fe-identifier"),
            access_network_info: self.access.get(),
            cellular_network_info: of(HeaderId::CellularNetworkInfo),
            visited_network: asserted(HeaderId::PVisitedNetworkId),
            icsi: icsi_of(request)
                .filter(|_| known.asserted)
                .unwrap_or_default(),
            instance_id: instance_of(request),
            imei: &self.imei[..self.imei_len],
            session_priority: priority_of(request),
            subscription_ids: &self.flat,
            user_name: user_name_of(request)
                .filter(|_| known.asserted)
                .unwrap_or_default(),
            number_portability: of_number(b"rn"),
            carrier_select: of_number(b"cic"),
            online_charging: online_of(request).filter(|_| known.asserted),
            message_bodies: self.body.as_slice(),
            nni: known.nni,
            access_transfer: known.transfer,
            services: &self.services,
            ..SessionFacts::default()
        }
    }
}

/// A few borrowed values.
#[derive(Default)]
pub(super) struct List<'a> {
    values: [&'a [u8]; LIST],
    len: usize,
}

impl<'a> List<'a> {
    pub(super) fn add(&mut self, value: &'a [u8]) {
        if self.len < LIST {
            self.values[self.len] = value;
            self.len += 1;
        }
    }

    pub(super) fn add_uris(&mut self, values: impl Iterator<Item = &'a [u8]>) {
        for value in values {
            if let Ok(address) = NameAddr::parse(value) {
                self.add(address.uri);
            }
        }
    }

    pub(super) fn get(&self) -> &[&'a [u8]] {
        &self.values[..self.len]
    }
}

/// What a response says to a record of the called side.
#[derive(Default)]
pub(super) struct Answer<'a> {
    vector: &'a [u8],
    identity: List<'a>,
}

impl<'a> Answer<'a> {
    /// Reads it, if the sender may be believed.
    pub(super) fn read(response: &Message<'a>, asserted: bool) -> Self {
        let mut answer = Self::default();
        if asserted {
            let vector = response.header(HeaderId::PChargingVector);
            answer.vector = vector.unwrap_or_default();
        }
        if asserted && (200..300).contains(&response.status()) {
            let identity = response.values(HeaderId::PAssertedIdentity);
            answer.identity.add_uris(identity);
        }
        answer
    }

    pub(super) fn called(&self) -> CalledSide<'_> {
        let of_vector = |name: &[u8]| {
            let value = param_of_list(self.vector, name).flatten();
            value.map_or(&b""[..], unquoted)
        };
        CalledSide {
            term_ioi: of_vector(b"term-ioi"),
            transit_ioi: of_vector(b"transit-ioi"),
            asserted_identity: self.identity.get(),
        }
    }
}

/// For how long a request wants what it asks for, seconds. Of the contacts of a REGISTER each may
/// say it for itself (RFC 3261 10.2.1.1), and `*` removes all of them (10.2.2).
pub(super) fn expires_of(request: &Message<'_>) -> Option<u32> {
    let expires = request.header(HeaderId::Expires).and_then(number);
    if request.method() != Method::Register || request.header(HeaderId::Contact).is_none() {
        return expires;
    }
    let mut longest = Some(0);
    for contact in request.values(HeaderId::Contact) {
        let of_contact = match contact {
            b"*" => Some(0),
            _ => NameAddr::parse(contact)
                .ok()
                .and_then(|contact| number(contact.param(b"expires")??))
                .or(expires),
        };
        longest = longest
            .zip(of_contact)
            .map(|(longest, one)| longest.max(one));
    }
    longest
}

/// The body of a message, if it is no session description (TS 32.260: SDP is never recorded as
/// Message-Body).
pub(super) fn body_of<'a>(
    message: &Message<'a>,
    from_called_party: bool,
) -> Option<MessageBody<'a>> {
    let has_body = bridge::sdp_of(message).is_none() && !message.body().is_empty();
    has_body.then(|| MessageBody {
        content_type: message.header(HeaderId::ContentType).unwrap_or_default(),
        content_length: message.body().len() as u32,
        disposition: message
            .header(HeaderId::ContentDisposition)
            .unwrap_or_default(),
        from_called_party,
    })
}

/// A session description of `message`, with the bearer that its sender's P-Charging-Vector names
/// if it may be believed.
pub(super) fn described<'a>(
    text: &'a [u8],
    sdp_type: SdpType,
    message: &Message<'a>,
    asserted: bool,
) -> Sdp<'a> {
    let vector = message
        .header(HeaderId::PChargingVector)
        .filter(|_| asserted);
    let mut sdp = Sdp::new(text, sdp_type);
    if let Some(id) = vector.and_then(bearer_of) {
        sdp.access_network_charging_id = id;
        sdp.charging_id = std::str::from_utf8(id)
            .ok()
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
    }
    sdp
}

// RFC 7315 5.6 and TS 24.229 7.2A.5: `gcid` or `ecid` inside a quoted access network charging
// info. With several bearers nothing says which of them a media component uses.
fn bearer_of(vector: &[u8]) -> Option<&[u8]> {
    let mut found = None;
    for (at, window) in vector.windows(5).enumerate() {
        let is_name =
            window.eq_ignore_ascii_case(b"gcid=") || window.eq_ignore_ascii_case(b"ecid=");
        let begins = at == 0 || matches!(vector[at - 1], b';' | b' ' | b'"' | b'\t');
        if !is_name || !begins {
            continue;
        }
        let value = &vector[at + 5..];
        let end = value
            .iter()
            .position(|byte| !byte.is_ascii_hexdigit())
            .unwrap_or(value.len());
        if end == 0 || found.is_some() {
            return None;
        }
        found = Some(&value[..end]);
    }
    found
}

/// Where the terminating side's access is: named by the 2xx of the callee that is served here.
/// `asserted`: whether caller and callee are inside the trust domain.
pub(super) fn terminating_access(
    invite: &Message<'_>,
    response: &Message<'_>,
    asserted: [bool; 2],
) -> Option<TerminatingAccess> {
    if role_of(invite, asserted[0]) != RoleOfNode::Terminating {
        return None;
    }
    let info = accesses(response, asserted[1]).next()?;
    Some(match is_circuit_switched(info) {
        true => TerminatingAccess::Cs,
        false => TerminatingAccess::Ps,
    })
}

/// The access networks that a message tells of (RFC 7315 5.4). What the network provided, nobody
/// outside the trust domain can say.
pub(super) fn accesses<'a>(
    message: &Message<'a>,
    asserted: bool,
) -> impl Iterator<Item = &'a [u8]> {
    message
        .values(HeaderId::PAccessNetworkInfo)
        .filter(move |value| asserted || !is_network_provided(value))
}

/// Between which kinds of access a user moved, if the kind of access changed at all.
pub(super) fn access_transfer(before: &[u8], now: &[u8]) -> Option<AccessTransferType> {
    let (old, new) = (access_type(before), access_type(now));
    if old.is_empty() || new.is_empty() || old.eq_ignore_ascii_case(new) {
        return None;
    }
    Some(
        match (is_circuit_switched(before), is_circuit_switched(now)) {
            (false, false) => AccessTransferType::PsToPs,
            (false, true) => AccessTransferType::PsToCs,
            (true, false) => AccessTransferType::CsToPs,
            (true, true) => AccessTransferType::CsToCs,
        },
    )
}

/// What an INVITE that replaces a dialog moves to another access; `before` is where the phone of
/// that dialog was.
pub(super) fn taken_over<'a>(
    before: &[u8],
    invite: &Message<'a>,
    change_time: UnixMillis,
) -> Option<AccessTransfer<'a>> {
    let now = invite.header(HeaderId::PAccessNetworkInfo)?;
    Some(AccessTransfer {
        transfer_type: access_transfer(before, now)?,
        access_network_info: &[],
        is_inter_ue: None,
        instance_id: instance_of(invite),
        change_time,
    })
}

// RFC 7315 5.4: an access-net-spec begins with its access type.
fn access_type(info: &[u8]) -> &[u8] {
    let end = info.iter().position(|byte| matches!(byte, b';' | b','));
    info[..end.unwrap_or(info.len())].trim_ascii()
}

// The one access type of TS 24.229 7.2A.4 that no packets cross.
fn is_circuit_switched(info: &[u8]) -> bool {
    access_type(info).eq_ignore_ascii_case(b"GSTN")
}

// TS 24.229: P-Served-User's sescase, or the `orig` parameter of the Route that names us.
fn role_of(request: &Message<'_>, asserted: bool) -> RoleOfNode {
    if !asserted {
        return RoleOfNode::Originating;
    }
    let case = request
        .header(HeaderId::PServedUser)
        .and_then(|value| NameAddr::parse(value).ok())
        .and_then(|served| param(served.params, b"sescase").flatten());
    match case {
        Some(case) if case.eq_ignore_ascii_case(b"term") => RoleOfNode::Terminating,
        Some(_) => RoleOfNode::Originating,
        // On the terminating side the S-CSCF names the called party (RFC 7315 4.2).
        None if request.header(HeaderId::PCalledPartyId).is_some() => RoleOfNode::Terminating,
        None => RoleOfNode::Originating,
    }
}

// RFC 4694: `rn` and `cic` are parameters of a telephone number, and stand with it in the user part
// of a SIP URI (RFC 3261 19.1.6), never among the URI's own parameters.
fn number_params_of(uri: &[u8]) -> &[u8] {
    let Ok(uri) = Uri::parse(uri) else {
        return b"";
    };
    match uri.scheme {
        Scheme::Tel => uri.params,
        Scheme::Sip | Scheme::Sips => {
            let user = uri.user.unwrap_or_default();
            let number = user.split(|&byte| byte == b':').next().unwrap_or_default();
            let start = number.iter().position(|&byte| byte == b';');
            start.map_or(&b""[..], |start| &number[start..])
        }
        _ => b"",
    }
}

/// +sip.instance of the Contact.
pub(super) fn instance_of<'a>(request: &Message<'a>) -> &'a [u8] {
    request
        .values(HeaderId::Contact)
        .next()
        .and_then(|contact| NameAddr::parse(contact).ok())
        .and_then(|contact| param(contact.params, b"+sip.instance").flatten())
        .map_or(&b""[..], unquoted)
}

// RFC 7254: `<urn:gsma:imei:35530808-000000-0;svn=42>`, of which a record wants the digits: as
// IMEISV, in which the software version stands in the place of the spare digit, if it is told.
fn imei_of(instance: &[u8]) -> ([u8; IMEISV_DIGITS], usize) {
    let (mut digits, mut len) = ([0; IMEISV_DIGITS], 0);
    let urn = instance.strip_prefix(b"<").unwrap_or(instance);
    let is_imei = urn
        .get(..IMEI_URN.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(IMEI_URN));
    if !is_imei {
        return (digits, 0);
    }
    let rest = &urn[IMEI_URN.len()..];
    let number = rest
        .iter()
        .take_while(|byte| byte.is_ascii_digit() || **byte == b'-')
        .filter(|byte| byte.is_ascii_digit());
    for digit in number.take(IMEI_DIGITS) {
        digits[len] = *digit;
        len += 1;
    }
    let version = rest.windows(7).find_map(|part| {
        let version = part.strip_prefix(b";svn=")?;
        version.iter().all(u8::is_ascii_digit).then_some(version)
    });
    if let Some(version) = version.filter(|_| len == IMEI_DIGITS) {
        digits[IMEI_DIGITS - 1..].copy_from_slice(version);
        len = IMEISV_DIGITS;
    }
    (digits, len)
}

// P-Asserted-Service (RFC 6050), else the ICSI that a Feature-Caps names (RFC 6809).
fn icsi_of<'a>(request: &Message<'a>) -> Option<&'a [u8]> {
    request.header(HeaderId::PAssertedService).or_else(|| {
        request
            .values(HeaderId::FeatureCaps)
            .find_map(|value| param_of_list(value, b"+g.3gpp.icsi-ref").flatten())
            .map(unquoted)
    })
}

// TS 32.299 7.2.143A: whether the network named an online charging function.
fn online_of(request: &Message<'_>) -> Option<bool> {
    let functions = request.header(HeaderId::PChargingFunctionAddresses)?;
    Some(param_of_list(functions, b"ecf").is_some())
}

// Session-Priority 0 (highest) to 4: of the Resource-Priority namespaces that count downwards to
// 0 as the highest (RFC 4412 12.6), else of RFC 3261 20.26.
fn priority_of(request: &Message<'_>) -> Option<u32> {
    let resource = request
        .values(HeaderId::ResourcePriority)
        .find_map(resource_priority);
    if resource.is_some() {
        return resource;
    }
    let value = request.header(HeaderId::Priority)?;
    [&b"emergency"[..], b"urgent", b"normal", b"non-urgent"]
        .iter()
        .position(|name| value.eq_ignore_ascii_case(name))
        .map(|place| place as u32)
}

fn resource_priority(value: &[u8]) -> Option<u32> {
    let dot = value.iter().position(|&byte| byte == b'.')?;
    let known = [&b"ets"[..], b"wps", b"q735"];
    let is_known = known
        .iter()
        .any(|name| value[..dot].eq_ignore_ascii_case(name));
    match value[dot + 1..] {
        [digit @ b'0'..=b'4'] if is_known => Some(u32::from(digit - b'0')),
        _ => None,
    }
}

fn user_name_of<'a>(request: &Message<'a>) -> Option<&'a [u8]> {
    [HeaderId::Authorization, HeaderId::ProxyAuthorization]
        .into_iter()
        .filter_map(|id| request.header(id))
        .find_map(|value| {
            let at = value
                .windows(10)
                .position(|part| part.eq_ignore_ascii_case(b"username=\""))?;
            let rest = &value[at + 10..];
            Some(&rest[..rest.iter().position(|&byte| byte == b'"')?])
        })
}

// A host that is written as an address; a name has no place in an AVP of type Address.
fn address_of(host: &[u8]) -> Option<IpAddr> {
    let bare = host.strip_prefix(b"[").unwrap_or(host);
    let bare = bare.strip_suffix(b"]").unwrap_or(bare);
    std::str::from_utf8(bare).ok()?.parse().ok()
}

/// A value without its quotation marks.
pub(super) fn unquoted(value: &[u8]) -> &[u8] {
    value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .unwrap_or(value)
}

/// A number in a header value.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// Values taken from a list header.
const LIST: usize = 8;
/// How an IMEI begins as an instance identifier.
const IMEI_URN: &[u8] = b"urn:gsma:imei:";
/// Digits of an IMEI: type allocation code, serial number, a spare one.
const IMEI_DIGITS: usize = 15;
/// Digits of an IMEISV: two of the software version in place of the spare one.
const IMEISV_DIGITS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Index, parse};
    use charging::trigger::{NniType, ServiceType, SessionDirection};

    fn request(line: &str, headers: &str, body: &str) -> String {
        let (length, method) = (body.len(), line.split(' ').next().unwrap_or_default());
        format!(
            "{line} SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
             From: <sip:a@a.example>;tag=1\r\nTo: <sip:b@b.example>\r\nCall-ID: c\r\n\
             CSeq: 1 {method}\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        )
    }

    fn with_invite(headers: &str, body: &str, check: impl FnOnce(&Message<'_>)) {
        let text = request("INVITE sip:+49891@b.example", headers, body);
        let mut index = Index::new();
        check(&parse(text.as_bytes(), &mut index).expect("well formed"));
    }

    fn with_facts(headers: &str, check: impl FnOnce(&SessionFacts<'_>)) {
        with_invite(headers, "", |invite| {
            let mut values = Values::default();
            values.read(invite, true);
            let known = Known {
                asserted: true,
                ..Known::default()
            };
            check(&values.facts(invite, &known));
        });
    }

    #[test]
    fn the_charging_vector_gives_identifiers_operators_and_nodes() {
        let vector = "P-Charging-Vector: icid-value=\"i\";orig-ioi=a.example;term-ioi=\"b\";\
                      transit-ioi=\"x.1\";related-icid=\"r\";\
                      related-icid-generated-at=\"192.0.2.9\";fe-identifier=\"fe\"\r\n";
        with_facts(vector, |facts| {
            assert_eq!(
                (facts.orig_ioi, facts.term_ioi),
                (&b"a.example"[..], &b"b"[..])
            );
            assert_eq!(
                (facts.transit_ioi, facts.related_icid),
                (&b"x.1"[..], &b"r"[..])
            );
            assert_eq!(facts.related_icid_node, Some([192, 0, 2, 9].into()));
            assert_eq!(facts.fe_identifiers, b"fe");
        });
    }

    #[test]
    fn the_phone_is_known_by_its_instance() {
        let contact = "Contact: <sip:a@192.0.2.1>;\
                       +sip.instance=\"<urn:gsma:imei:35530808-000000-0>\"\r\n";
        with_facts(contact, |facts| {
            assert_eq!(facts.instance_id, b"<urn:gsma:imei:35530808-000000-0>");
            assert_eq!(facts.imei, b"355308080000000");
        });
        let version = contact.replace("-0>", "-0;svn=42>");
        with_facts(&version, |facts| {
            assert_eq!(facts.imei, b"3553080800000042")
        });
        let other = "Contact: <sip:a@192.0.2.1>;+sip.instance=\"<urn:uuid:1234>\"\r\n";
        with_facts(other, |facts| assert!(facts.imei.is_empty()));
        let long = "Contact: <sip:a@192.0.2.1>;\
                    +sip.instance=\"<urn:gsma:imei:123456789012345678901234567890>\"\r\n";
        with_facts(long, |facts| assert_eq!(facts.imei.len(), IMEI_DIGITS));
    }

    #[test]
    fn priority_is_that_of_the_resource_or_of_the_caller() {
        let of = |headers: &str| {
            let mut found = None;
            with_facts(headers, |facts| found = facts.session_priority);
            found
        };
        assert_eq!(of("Resource-Priority: dsn.flash, ets.1\r\n"), Some(1));
        assert_eq!(
            of("Resource-Priority: wps.9\r\nPriority: urgent\r\n"),
            Some(1)
        );
        assert_eq!(of("Priority: emergency\r\n"), Some(0));
        assert_eq!(of(""), None);
    }

    #[test]
    fn the_service_is_asserted_or_a_capability() {
        let service = "P-Asserted-Service: urn:urn-7:3gpp-service.ims.icsi.mmtel\r\n";
        with_facts(service, |facts| {
            assert_eq!(facts.icsi, b"urn:urn-7:3gpp-service.ims.icsi.mmtel");
        });
        let caps = "Feature-Caps: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3Ax\"\r\n";
        with_facts(caps, |facts| assert_eq!(facts.icsi, b"urn%3Aurn-7%3Ax"));
    }

    #[test]
    fn an_online_charging_function_that_was_named_is_told() {
        let of = |headers: &str| {
            let mut found = None;
            with_facts(headers, |facts| found = facts.online_charging);
            found
        };
        let both = "P-Charging-Function-Addresses: ccf=192.0.2.1; ecf=192.0.2.2\r\n";
        assert_eq!(of(both), Some(true));
        assert_eq!(
            of("P-Charging-Function-Addresses: ccf=192.0.2.1\r\n"),
            Some(false)
        );
        assert_eq!(of(""), None);
    }

    #[test]
    fn routing_parameters_of_the_request_uri_are_recorded() {
        let routing = |uri: &str| {
            let text = request(&format!("INVITE {uri}"), "", "");
            let mut index = Index::new();
            let invite = parse(text.as_bytes(), &mut index).expect("well formed");
            let known = Known::default();
            let values = Values::default();
            let facts = values.facts(&invite, &known);
            [facts.number_portability, facts.carrier_select]
                .map(|value| String::from_utf8_lossy(value).into_owned())
        };
        for uri in [
            "sip:+33123;npdi;rn=+33999;cic=+4933@b.example;user=phone",
            "sips:+33123;RN=+33999;cic=+4933:secret@b.example",
            "tel:+33123;npdi;rn=+33999;cic=+4933",
        ] {
            assert_eq!(routing(uri), ["+33999", "+4933"], "{uri}");
        }
        for uri in [
            "sip:+49891@b.example;rn=+49890;cic=+4933",
            "sip:b.example;rn=+49890;cic=+4933",
            "urn:service:sos;rn=+49890;cic=+4933",
        ] {
            assert_eq!(routing(uri), ["", ""], "{uri}");
        }
    }

    #[test]
    fn a_registration_ends_by_any_of_the_ways_to_say_so() {
        let of = |headers: &str| {
            let text = request("REGISTER sip:b.example", headers, "");
            let mut index = Index::new();
            expires_of(&parse(text.as_bytes(), &mut index).expect("well formed"))
        };
        for ends in [
            "Expires: 0\r\nContact: <sip:a@192.0.2.1>\r\n",
            "Contact: <sip:a@192.0.2.1>;expires=0\r\n",
            "Expires: 60\r\nContact: <sip:a@192.0.2.1>;expires=0, <sip:b@192.0.2.1>;expires=0\r\n",
            "Expires: 0\r\nContact: *\r\n",
            "Contact: *\r\n",
        ] {
            assert_eq!(of(ends), Some(0), "{ends}");
        }
        let two = "Contact: <sip:a@192.0.2.1>;expires=0, <sip:b@192.0.2.1>";
        assert_eq!(of(&format!("{two};expires=90\r\n")), Some(90));
        assert_eq!(of(&format!("{two}\r\nExpires: 60\r\n")), Some(60));
        assert_eq!(
            of(&format!("{two}\r\n")),
            None,
            "as long as the registrar likes"
        );
        let one = "Expires: 0\r\nContact: <sip:a@192.0.2.1>;expires=60\r\n";
        assert_eq!(of(one), Some(60), "the contact's own counts");
        assert_eq!(of("Expires: 60\r\n"), Some(60));
    }

    #[test]
    fn a_bearer_is_told_when_it_is_the_only_one() {
        let one = b"icid-value=1;eps-info=\"eps-item=1;eps-sig=no;ecid=1E240;flow-id=({1,1})\"";
        assert_eq!(bearer_of(one), Some(&b"1E240"[..]));
        let two = b"icid-value=1;pdp-info=\"pdp-item=1;gcid=1;pdp-item=2;gcid=2\"";
        assert_eq!(bearer_of(two), None);
        assert_eq!(bearer_of(b"icid-value=xgcid=1"), None);
        let vector = "P-Charging-Vector: icid-value=1;ggsn=192.0.2.3;\
                      pdp-info=\"pdp-item=1;pdp-sig=no;gcid=1E240\"\r\n";
        with_invite(vector, "", |invite| {
            let sdp = described(b"v=0", SdpType::Offer, invite, true);
            assert_eq!(sdp.charging_id, Some(0x1_E240));
            assert_eq!(
                described(b"v=0", SdpType::Offer, invite, false).charging_id,
                None
            );
        });
    }

    #[test]
    fn bodies_other_than_sdp_are_told() {
        with_invite("Content-Type: application/sdp\r\n", "v=0\r\n", |invite| {
            assert!(body_of(invite, false).is_none());
        });
        let headers = "Content-Type: application/isup\r\nContent-Disposition: signal\r\n";
        with_invite(headers, "abc", |invite| {
            let body = body_of(invite, true).expect("a body");
            assert_eq!(
                (body.content_type, body.content_length),
                (&b"application/isup"[..], 3)
            );
            assert_eq!(body.disposition, b"signal");
            assert!(body.from_called_party);
        });
    }

    #[test]
    fn a_change_of_access_type_is_a_transfer_and_a_change_of_cell_is_none() {
        use AccessTransferType::{CsToPs, PsToCs, PsToPs};
        let lte = b"3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1";
        let wlan = b"IEEE-802.11;i-wlan-node-id=2";
        assert_eq!(access_transfer(lte, wlan), Some(PsToPs));
        assert_eq!(
            access_transfer(lte, b"GSTN;operator-specific-GI=1"),
            Some(PsToCs)
        );
        assert_eq!(access_transfer(b"GSTN", wlan), Some(CsToPs));
        assert_eq!(
            access_transfer(lte, b"3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=2"),
            None
        );
        assert_eq!(access_transfer(b"", wlan), None);
    }

    #[test]
    fn the_terminating_access_is_that_of_the_callee_that_is_served_here() {
        let response = b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
            From: <sip:a@a>;tag=1\r\nTo: <sip:b@b>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\
            P-Access-Network-Info: IEEE-802.11\r\nContent-Length: 0\r\n\r\n";
        let mut index = Index::new();
        let response = parse(response, &mut index).expect("well formed");
        let called = "P-Called-Party-ID: <sip:b@b.example>\r\n";
        with_invite(called, "", |invite| {
            let access = |asserted| terminating_access(invite, &response, asserted);
            assert_eq!(access([true; 2]), Some(TerminatingAccess::Ps));
            assert_eq!(access([false, true]), None);
        });
        with_invite("", "", |invite| {
            assert_eq!(terminating_access(invite, &response, [true; 2]), None);
        });
    }

    #[test]
    fn borders_and_services_reach_the_facts() {
        let nni = Nni {
            direction: SessionDirection::Inbound,
            nni_type: NniType::NonRoaming,
            is_trusted: true,
            neighbour: None,
        };
        let replaces = "Replaces: x;to-tag=1;from-tag=2\r\n";
        with_invite(replaces, "", |invite| {
            let mut values = Values::default();
            values.read(invite, false);
            let known = Known {
                nni: &[nni],
                replaced_icid: b"icid-0",
                ..Known::default()
            };
            let facts = values.facts(invite, &known);
            assert_eq!(facts.nni, [nni]);
            assert_eq!(facts.initial_icid, b"icid-0");
            assert_eq!(facts.services[0].service_type, ServiceType::Transfer);
        });
    }
}
