//! Service-Information and IMS-Information (TS 32.299 s7.2): the groups an AS fills on Rf.
//!
//! Which AVP belongs to which record type follows the AS column of TS 32.260 Table 6.3.2.1.

use crate::diameter::avp::Writer;
use crate::diameter::dictionary as d;
use crate::time::UnixMillis;
use crate::trigger::{
    AccessTransfer, AccessTransferType, LIST_LENGTH_MAX, MessageBody, Nni, Sdp, SessionFacts,
    SubscriptionIdType, SupplementaryService, VALUE_LENGTH_MAX,
};

/// Node-Functionality of an application server.
const NODE_FUNCTIONALITY_AS: u32 = 6;
/// What stands for a calling party nobody asserted, and for a missing transit-ioi.
const UNKNOWN: &[u8] = b"unknown";

/// Octets of variable AVPs in one record; SDP lines beyond are left out. Records are written into
/// a buffer of their own, so the position in it is what they have taken.
pub(crate) const CONTENT_LENGTH_MAX: usize = 16 * 1024;
/// Room every SDP line must leave below [`CONTENT_LENGTH_MAX`] for the AVPs behind it.
const SDP_LENGTH_MAX: usize = CONTENT_LENGTH_MAX * 3 / 4;
/// Early-Media-Descriptions in one record.
pub(crate) const EARLY_MEDIA_MAX: u8 = 4;

/// A value cut to what a record takes.
pub(crate) fn bounded(value: &[u8]) -> &[u8] {
    &value[..value.len().min(VALUE_LENGTH_MAX)]
}

/// Writes a text AVP unless the value is empty.
pub(crate) fn text(writer: &mut Writer<'_>, attribute: d::Attribute, value: &[u8]) {
    if !value.is_empty() {
        writer.text(attribute, bounded(value));
    }
}

fn texts(writer: &mut Writer<'_>, attribute: d::Attribute, values: &[&[u8]]) {
    for value in values.iter().take(LIST_LENGTH_MAX) {
        text(writer, attribute, value);
    }
}

/// Subscription-Ids: on Rf they stand inside Service-Information.
pub(crate) fn subscriptions(writer: &mut Writer<'_>, facts: &SessionFacts<'_>, strip_plus: bool) {
    for (kind, data) in facts.subscription_ids.iter().take(LIST_LENGTH_MAX) {
        let number = data.strip_prefix(b"+").filter(|_| strip_plus);
        let data = match kind {
            SubscriptionIdType::E164 => number.unwrap_or(data),
            _ => data,
        };
        let group = writer.open(d::SUBSCRIPTION_ID);
        writer.u32(d::SUBSCRIPTION_ID_TYPE, *kind as u32);
        writer.text(d::SUBSCRIPTION_ID_DATA, bounded(data));
        writer.close(group);
    }
}

/// IMS-Information of every record (columns S, I, S, E) as far as it is known at set-up.
pub(crate) fn session_facts(writer: &mut Writer<'_>, facts: &SessionFacts<'_>) {
    writer.u32(d::ROLE_OF_NODE, facts.role_of_node as u32);
    writer.u32(d::NODE_FUNCTIONALITY, NODE_FUNCTIONALITY_AS);
    text(writer, d::USER_SESSION_ID, facts.user_session_id);
    if facts.calling_party.is_empty() {
        writer.text(d::CALLING_PARTY_ADDRESS, UNKNOWN);
    } else {
        texts(writer, d::CALLING_PARTY_ADDRESS, facts.calling_party);
    }
    text(writer, d::IMS_CHARGING_IDENTIFIER, facts.icid);
    text(
        writer,
        d::RELATED_IMS_CHARGING_IDENTIFIER,
        facts.related_icid,
    );
    if let Some(node) = facts.related_icid_node {
        writer.address(d::RELATED_IMS_CHARGING_IDENTIFIER_NODE, node);
    }
    text(
        writer,
        d::INITIAL_IMS_CHARGING_IDENTIFIER,
        facts.initial_icid,
    );
    text(writer, d::FROM_ADDRESS, facts.from_address);
    text(
        writer,
        d::IMS_VISITED_NETWORK_IDENTIFIER,
        facts.visited_network,
    );
    text(writer, d::INSTANCE_ID, facts.instance_id);
    text(writer, d::FE_IDENTIFIER_LIST, facts.fe_identifiers);
    access_networks(writer, facts.access_network_info);
    if !facts.cellular_network_info.is_empty() {
        let value = bounded(facts.cellular_network_info);
        writer.octets(d::CELLULAR_NETWORK_INFORMATION, value);
    }
    if let Some(online) = facts.online_charging {
        writer.u32(d::ONLINE_CHARGING_FLAG, u32::from(online));
    }
    for (kind, data) in facts.service_specific.iter().take(LIST_LENGTH_MAX) {
        let group = writer.open(d::SERVICE_SPECIFIC_INFO);
        text(writer, d::SERVICE_SPECIFIC_DATA, data);
        writer.u32(d::SERVICE_SPECIFIC_TYPE, *kind);
        writer.close(group);
    }
}

/// IMS-Information of START and EVENT only (columns S--E), and the bodies of the first request.
pub(crate) fn opening_facts(writer: &mut Writer<'_>, facts: &SessionFacts<'_>) {
    if let Some(priority) = facts.session_priority {
        writer.u32(d::SESSION_PRIORITY, priority);
    }
    text(
        writer,
        d::NUMBER_PORTABILITY_ROUTING_INFORMATION,
        facts.number_portability,
    );
    text(
        writer,
        d::CARRIER_SELECT_ROUTING_INFORMATION,
        facts.carrier_select,
    );
    text(writer, d::IMS_COMMUNICATION_SERVICE_IDENTIFIER, facts.icsi);
    message_bodies(writer, facts.message_bodies);
    for nni in facts.nni.iter().take(LIST_LENGTH_MAX) {
        nni_information(writer, nni);
    }
}

/// NNI-Information.
pub(crate) fn nni_information(writer: &mut Writer<'_>, nni: &Nni) {
    let group = writer.open(d::NNI_INFORMATION);
    writer.u32(d::SESSION_DIRECTION, nni.direction as u32);
    writer.u32(d::NNI_TYPE, nni.nni_type as u32);
    writer.u32(d::RELATIONSHIP_MODE, u32::from(!nni.is_trusted));
    if let Some(address) = nni.neighbour {
        writer.address(d::NEIGHBOUR_NODE_ADDRESS, address);
    }
    writer.close(group);
}

/// User-Equipment-Info: for IMS the IMEI in decimal digits, as IMEISV (TS 32.299 s7.1.17).
pub(crate) fn user_equipment(writer: &mut Writer<'_>, imei: &[u8]) {
    if imei.is_empty() {
        return;
    }
    let group = writer.open(d::USER_EQUIPMENT_INFO);
    writer.u32(d::USER_EQUIPMENT_INFO_TYPE, USER_EQUIPMENT_INFO_TYPE_IMEISV);
    writer.octets(d::USER_EQUIPMENT_INFO_VALUE, bounded(imei));
    writer.close(group);
}

/// MMTel-Information, a neighbour of IMS-Information inside Service-Information.
pub(crate) fn mmtel(writer: &mut Writer<'_>, services: &[SupplementaryService<'_>]) {
    if services.is_empty() {
        return;
    }
    let group = writer.open(d::MMTEL_INFORMATION);
    for service in services.iter().take(LIST_LENGTH_MAX) {
        let group = writer.open(d::SUPPLEMENTARY_SERVICE);
        writer.u32(d::MMTEL_SSERVICE_TYPE, service.service_type as u32);
        if let Some(mode) = service.mode {
            writer.u32(d::SERVICE_MODE, mode as u32);
        }
        if let Some(count) = service.diversions {
            writer.u32(d::NUMBER_OF_DIVERSIONS, count);
        }
        text(
            writer,
            d::ASSOCIATED_PARTY_ADDRESS,
            service.associated_party,
        );
        writer.close(group);
    }
    writer.close(group);
}

/// Access-Transfer-Information of START: the session goes on on another access.
pub(crate) fn access_transfer(writer: &mut Writer<'_>, transfer: &AccessTransfer<'_>) {
    let group = writer.open(d::ACCESS_TRANSFER_INFORMATION);
    writer.u32(d::ACCESS_TRANSFER_TYPE, transfer.transfer_type as u32);
    access_networks(writer, transfer.access_network_info);
    if let Some(is_inter_ue) = transfer.is_inter_ue {
        writer.u32(d::INTER_UE_TRANSFER, u32::from(is_inter_ue));
    }
    text(writer, d::INSTANCE_ID, transfer.instance_id);
    writer.time(d::CHANGE_TIME, transfer.change_time.seconds());
    writer.close(group);
}

/// Called and requested party, outgoing Call-ID.
pub(crate) fn parties(writer: &mut Writer<'_>, called: &[u8], requested: &[u8], outgoing: &[u8]) {
    text(writer, d::OUTGOING_SESSION_ID, outgoing);
    // Before any routing the target is what was asked for.
    let called = if called.is_empty() { requested } else { called };
    text(writer, d::CALLED_PARTY_ADDRESS, called);
    if requested != called {
        text(writer, d::REQUESTED_PARTY_ADDRESS, requested);
    }
}

/// Inter-Operator-Identifier.
pub(crate) fn operators(writer: &mut Writer<'_>, originating: &[u8], terminating: &[u8]) {
    let group = writer.open(d::INTER_OPERATOR_IDENTIFIER);
    text(writer, d::ORIGINATING_IOI, originating);
    text(writer, d::TERMINATING_IOI, terminating);
    writer.close_unless_empty(group, d::INTER_OPERATOR_IDENTIFIER);
}

/// Transit-IOI-List: the request's, then the response's; a missing first one is "unknown".
pub(crate) fn transit(writer: &mut Writer<'_>, request: &[u8], response: &[u8]) {
    if request.is_empty() && response.is_empty() {
        return;
    }
    let request = if request.is_empty() { UNKNOWN } else { request };
    text(writer, d::TRANSIT_IOI_LIST, request);
    text(writer, d::TRANSIT_IOI_LIST, response);
}

/// Event-Type: the method of the request that caused the record.
pub(crate) fn event_type(
    writer: &mut Writer<'_>,
    method: &[u8],
    event: &[u8],
    expires: Option<u32>,
) {
    let group = writer.open(d::EVENT_TYPE);
    text(writer, d::SIP_METHOD, method);
    text(writer, d::EVENT, event);
    if let Some(seconds) = expires {
        writer.u32(d::EXPIRES, seconds);
    }
    writer.close_unless_empty(group, d::EVENT_TYPE);
}

/// Time-Stamps of the transaction that caused the record: seconds and milliseconds apart.
pub(crate) fn time_stamps(
    writer: &mut Writer<'_>,
    request: Option<UnixMillis>,
    response: Option<UnixMillis>,
) {
    let fraction = |time: UnixMillis| (time.0 % 1_000) as u32;
    let group = writer.open(d::TIME_STAMPS);
    if let Some(time) = request {
        writer.time(d::SIP_REQUEST_TIMESTAMP, time.seconds());
    }
    if let Some(time) = response {
        writer.time(d::SIP_RESPONSE_TIMESTAMP, time.seconds());
    }
    if let Some(time) = request {
        writer.u32(d::SIP_REQUEST_TIMESTAMP_FRACTION, fraction(time));
    }
    if let Some(time) = response {
        writer.u32(d::SIP_RESPONSE_TIMESTAMP_FRACTION, fraction(time));
    }
    writer.close_unless_empty(group, d::TIME_STAMPS);
}

/// Access-Network-Information, one AVP per access-net-spec.
pub(crate) fn access_networks(writer: &mut Writer<'_>, values: &[&[u8]]) {
    for value in values
        .iter()
        .take(LIST_LENGTH_MAX)
        .filter(|value| !value.is_empty())
    {
        writer.octets(d::ACCESS_NETWORK_INFORMATION, bounded(value));
    }
}

/// Access-Network-Info-Change, and with the kind of access Access-Transfer-Information.
pub(crate) fn access_network_change(
    writer: &mut Writer<'_>,
    values: &[&[u8]],
    transfer: Option<AccessTransferType>,
    change_time: UnixMillis,
) {
    if let Some(transfer_type) = transfer {
        let transfer = AccessTransfer {
            transfer_type,
            access_network_info: values,
            is_inter_ue: Some(false),
            instance_id: b"",
            change_time,
        };
        access_transfer(writer, &transfer);
    }
    let group = writer.open(d::ACCESS_NETWORK_INFO_CHANGE);
    access_networks(writer, values);
    writer.time(d::CHANGE_TIME, change_time.seconds());
    writer.close(group);
}

/// Called-Identity-Change.
pub(crate) fn called_identity_change(
    writer: &mut Writer<'_>,
    identity: &[u8],
    change_time: UnixMillis,
) {
    let group = writer.open(d::CALLED_IDENTITY_CHANGE);
    text(writer, d::CALLED_IDENTITY, identity);
    writer.time(d::CHANGE_TIME, change_time.seconds());
    writer.close(group);
}

/// Called-Asserted-Identity, one AVP each.
pub(crate) fn called_asserted(writer: &mut Writer<'_>, identities: &[&[u8]]) {
    texts(writer, d::CALLED_ASSERTED_IDENTITY, identities);
}

/// Real-Time-Tariff-Information.
pub(crate) fn tariff(writer: &mut Writer<'_>, xml: &[u8]) {
    if xml.is_empty() {
        return;
    }
    let group = writer.open(d::REAL_TIME_TARIFF_INFORMATION);
    writer.text(d::TARIFF_XML, bounded_tariff(xml));
    writer.close(group);
}

/// A tariff cut to what a record takes.
pub(crate) fn bounded_tariff(xml: &[u8]) -> &[u8] {
    &xml[..xml.len().min(SDP_LENGTH_MAX / 4)]
}

/// Cause-Code and Reason-Headers: STOP and EVENT only.
pub(crate) fn cause(writer: &mut Writer<'_>, code: i32, reasons: &[&[u8]]) {
    writer.i32(d::CAUSE_CODE, code);
    texts(writer, d::REASON_HEADER, reasons);
}

/// Early-Media-Description: the exchange before the final response.
pub(crate) fn early_media(
    writer: &mut Writer<'_>,
    offer: (Option<Sdp<'_>>, Option<UnixMillis>),
    answer: (Option<Sdp<'_>>, Option<UnixMillis>),
) {
    let group = writer.open(d::EARLY_MEDIA_DESCRIPTION);
    let times = writer.open(d::SDP_TIMESTAMPS);
    if let Some(time) = offer.1 {
        writer.time(d::SDP_OFFER_TIMESTAMP, time.seconds());
    }
    if let Some(time) = answer.1 {
        writer.time(d::SDP_ANSWER_TIMESTAMP, time.seconds());
    }
    writer.close_unless_empty(times, d::SDP_TIMESTAMPS);
    for description in [offer.0, answer.0].iter().flatten() {
        sdp(writer, description);
    }
    writer.close_unless_empty(group, d::EARLY_MEDIA_DESCRIPTION);
}

/// SDP-Session-Description per session-level line, SDP-Media-Component per m= line.
///
/// TS 32.299 s7.2.190 to s7.2.194: the lines i=, c=, b=, k=, a= are kept whole, and of the m= line
/// its content. What exceeds [`CONTENT_LENGTH_MAX`] is left out, line by line.
pub(crate) fn sdp(writer: &mut Writer<'_>, description: &Sdp<'_>) {
    let mut component = None;
    let lines = description.text.split(|&octet| octet == b'\n');
    for line in lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)) {
        if writer.position() + line.len() + SDP_TRAILER > SDP_LENGTH_MAX {
            break;
        }
        match line {
            [b'm', b'=', media @ ..] => {
                if let Some(group) = component.take() {
                    media_trailer(writer, description);
                    writer.close(group);
                }
                component = Some(writer.open(d::SDP_MEDIA_COMPONENT));
                text(writer, d::SDP_MEDIA_NAME, media);
            }
            [b'i' | b'c' | b'b' | b'k' | b'a', b'=', ..] => {
                let attribute = if component.is_some() {
                    d::SDP_MEDIA_DESCRIPTION
                } else {
                    d::SDP_SESSION_DESCRIPTION
                };
                text(writer, attribute, line);
            }
            _ => {}
        }
    }
    if let Some(group) = component {
        media_trailer(writer, description);
        writer.close(group);
    }
}

/// Most that [`media_trailer`] and the headers around it add to a component.
const SDP_TRAILER: usize = 2 * VALUE_LENGTH_MAX + 128;

fn media_trailer(writer: &mut Writer<'_>, description: &Sdp<'_>) {
    if let Some(initiator) = description.initiator {
        writer.u32(d::MEDIA_INITIATOR_FLAG, initiator as u32);
    }
    text(
        writer,
        d::MEDIA_INITIATOR_PARTY,
        description.initiator_party,
    );
    // TS 32.299 s7.2.192: one of the two, never both.
    if let Some(id) = description.charging_id {
        writer.u32(d::TGPP_CHARGING_ID, id);
    } else if !description.access_network_charging_id.is_empty() {
        writer.octets(
            d::ACCESS_NETWORK_CHARGING_IDENTIFIER_VALUE,
            bounded(description.access_network_charging_id),
        );
    }
    writer.u32(d::SDP_TYPE, description.sdp_type as u32);
}

/// Message-Body, one AVP per body.
pub(crate) fn message_bodies(writer: &mut Writer<'_>, bodies: &[MessageBody<'_>]) {
    for body in bodies.iter().take(LIST_LENGTH_MAX) {
        let group = writer.open(d::MESSAGE_BODY);
        text(writer, d::CONTENT_TYPE, body.content_type);
        writer.u32(d::CONTENT_LENGTH, body.content_length);
        text(writer, d::CONTENT_DISPOSITION, body.disposition);
        writer.u32(d::ORIGINATOR, u32::from(body.from_called_party));
        writer.close(group);
    }
}

/// User-Equipment-Info-Type IMEISV (RFC 8506 s8.50).
const USER_EQUIPMENT_INFO_TYPE_IMEISV: u32 = 0;

const _: () = assert!(SDP_TRAILER < SDP_LENGTH_MAX && SDP_LENGTH_MAX < CONTENT_LENGTH_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diameter::avp::Avps;
    use crate::trigger::{
        MediaInitiator, NniType, SdpType, ServiceMode, ServiceType, SessionDirection,
    };

    const SDP: &[u8] = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\n\
        t=0 0\r\na=group:BUNDLE 1\r\nm=audio 4000 RTP/AVP 8\r\nb=AS:64\r\na=sendrecv\r\n\
        m=video 0 RTP/AVP 99\r\na=inactive\r\n";

    fn loose(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Writer::avps(&mut out));
        out
    }

    fn flat(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        Avps::new(bytes)
            .map(|avp| avp.map(|avp| (avp.code, avp.data.to_vec())).unwrap())
            .collect()
    }

    #[test]
    fn sdp_becomes_session_lines_and_media_components() {
        let mut description = Sdp::new(SDP, SdpType::Answer);
        description.initiator = Some(MediaInitiator::Called);
        let avps = flat(&loose(|w| sdp(w, &description)));
        let codes: Vec<u32> = avps.iter().map(|avp| avp.0).collect();
        assert_eq!(codes, [842, 842, 843, 843]);
        assert_eq!(avps[0].1, b"c=IN IP4 192.0.2.1");
        assert_eq!(avps[1].1, b"a=group:BUNDLE 1");
        let audio = flat(&avps[2].1);
        assert_eq!(audio[0], (844, b"audio 4000 RTP/AVP 8".to_vec()));
        assert_eq!(audio[1], (845, b"b=AS:64".to_vec()));
        assert_eq!(audio[2], (845, b"a=sendrecv".to_vec()));
        assert_eq!(audio[3], (882, vec![0, 0, 0, 0]));
        assert_eq!(audio[4], (2036, vec![0, 0, 0, 1]));
        assert_eq!(flat(&avps[3].1)[0].1, b"video 0 RTP/AVP 99");
    }

    #[test]
    fn a_hostile_sdp_cannot_grow_a_record() {
        let text = b"m=audio 1 RTP/AVP 0\na=x\n".repeat(10_000);
        let bytes = loose(|w| {
            sdp(w, &Sdp::new(&text, SdpType::Offer));
            sdp(w, &Sdp::new(&text, SdpType::Answer));
        });
        assert!(bytes.len() <= CONTENT_LENGTH_MAX);
        assert!(Avps::new(&bytes).all(|avp| avp.is_ok()));
    }

    #[test]
    fn time_stamps_split_seconds_and_milliseconds() {
        let bytes = loose(|w| {
            time_stamps(
                w,
                Some(UnixMillis(1_609_459_200_123)),
                Some(UnixMillis(1_609_459_201_004)),
            );
        });
        let avps = flat(Avps::new(&bytes).next().unwrap().unwrap().data);
        assert_eq!(avps[0], (834, vec![0xE3, 0x98, 0xE4, 0x80]));
        assert_eq!(avps[1], (835, vec![0xE3, 0x98, 0xE4, 0x81]));
        assert_eq!(avps[2], (2301, vec![0, 0, 0, 123]));
        assert_eq!(avps[3], (2302, vec![0, 0, 0, 4]));
    }

    #[test]
    fn a_requested_party_is_recorded_only_if_it_differs() {
        let codes = |called: &[u8], requested: &[u8]| -> Vec<u32> {
            flat(&loose(|w| parties(w, called, requested, b"")))
                .iter()
                .map(|avp| avp.0)
                .collect()
        };
        assert_eq!(codes(b"tel:1", b"tel:2"), [832, 1251]);
        assert_eq!(codes(b"tel:1", b"tel:1"), [832]);
        assert_eq!(codes(b"", b"tel:1"), [832]);
    }

    #[test]
    fn a_caller_nobody_asserted_is_unknown() {
        let bytes = loose(|w| session_facts(w, &SessionFacts::default()));
        let calling = Avps::new(&bytes)
            .find_attribute(d::CALLING_PARTY_ADDRESS)
            .unwrap();
        assert_eq!(calling.data, b"unknown");
    }

    #[test]
    fn a_missing_transit_of_the_request_is_unknown() {
        let avps = flat(&loose(|w| transit(w, b"", b"two")));
        assert_eq!(avps, [(2701, b"unknown".to_vec()), (2701, b"two".to_vec())]);
        assert!(loose(|w| transit(w, b"", b"")).is_empty());
    }

    fn inside(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        flat(Avps::new(bytes).next().unwrap().unwrap().data)
    }

    #[test]
    fn a_border_is_described_with_its_neighbour() {
        let nni = Nni {
            direction: SessionDirection::Outbound,
            nni_type: NniType::Loopback,
            is_trusted: false,
            neighbour: Some([192, 0, 2, 7].into()),
        };
        let avps = inside(&loose(|w| nni_information(w, &nni)));
        assert_eq!(avps[0], (2707, vec![0, 0, 0, 1]));
        assert_eq!(avps[1], (2704, vec![0, 0, 0, 2]));
        assert_eq!(avps[2], (2706, vec![0, 0, 0, 1]));
        assert_eq!(avps[3], (2705, vec![0, 1, 192, 0, 2, 7]));
    }

    #[test]
    fn a_diversion_names_its_mode_its_count_and_the_forwarding_party() {
        let service = SupplementaryService {
            service_type: ServiceType::Diversion,
            mode: Some(ServiceMode::NoReply),
            diversions: Some(2),
            associated_party: b"sip:bob@b.example",
        };
        let group = inside(&loose(|w| mmtel(w, &[service])));
        assert_eq!(group[0].0, 2048);
        let avps = flat(&group[0].1);
        assert_eq!(avps[0], (2031, vec![0, 0, 0, 6]));
        assert_eq!(avps[1], (2032, vec![0, 0, 0, 2]));
        assert_eq!(avps[2], (2034, vec![0, 0, 0, 2]));
        assert_eq!(avps[3], (2035, b"sip:bob@b.example".to_vec()));
        assert!(loose(|w| mmtel(w, &[])).is_empty());
    }

    #[test]
    fn a_component_carries_one_charging_identifier_of_the_bearer() {
        let mut description = Sdp::new(b"m=audio 1 RTP/AVP 0\n", SdpType::Offer);
        description.access_network_charging_id = b"00A1";
        description.charging_id = Some(0xA1);
        let both = inside(&loose(|w| sdp(w, &description)));
        assert!(both.contains(&(2, vec![0, 0, 0, 0xA1])));
        assert!(both.iter().all(|avp| avp.0 != 503));
        description.charging_id = None;
        let one = inside(&loose(|w| sdp(w, &description)));
        assert!(one.contains(&(503, b"00A1".to_vec())));
    }

    #[test]
    fn an_access_transfer_tells_its_type_and_whether_the_phone_changed() {
        let transfer = AccessTransfer {
            transfer_type: AccessTransferType::CsToPs,
            access_network_info: &[b"IEEE-802.11"],
            is_inter_ue: Some(true),
            instance_id: b"<urn:x>",
            change_time: UnixMillis(1_609_459_200_123),
        };
        let codes: Vec<u32> = inside(&loose(|w| access_transfer(w, &transfer)))
            .iter()
            .map(|avp| avp.0)
            .collect();
        assert_eq!(codes, [2710, 1263, 3902, 3402, 2038]);
    }

    #[test]
    fn a_phone_is_known_by_its_imei_in_digits() {
        let avps = inside(&loose(|w| user_equipment(w, b"355308080000000")));
        assert_eq!(avps[0], (459, vec![0; 4]));
        assert_eq!(avps[1], (460, b"355308080000000".to_vec()));
        assert!(loose(|w| user_equipment(w, b"")).is_empty());
    }
}
