//! What a call reports to the charging trigger function, in words of SIP but without SIP types.
//!
//! Byte strings are header values as received; an empty one means "not there". Octets that are
//! no UTF-8 are replaced when a record is made.

use std::net::IpAddr;

use crate::time::UnixMillis;

/// Longest single value taken into a record, octets; longer ones are cut.
pub const VALUE_LENGTH_MAX: usize = 512;
/// Values taken from one list.
pub const LIST_LENGTH_MAX: usize = 8;

/// Role-Of-Node (829).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoleOfNode {
    /// Serves the calling party.
    #[default]
    Originating = 0,
    /// Serves the called party.
    Terminating = 1,
    /// Serves a party that diverts the call.
    Forwarding = 2,
}

/// Subscription-Id-Type (450).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionIdType {
    /// END_USER_E164.
    E164 = 0,
    /// END_USER_IMSI.
    Imsi = 1,
    /// END_USER_SIP_URI.
    SipUri = 2,
    /// END_USER_NAI.
    Nai = 3,
    /// END_USER_PRIVATE.
    Private = 4,
}

/// What is known about a session when its first request arrives.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionFacts<'a> {
    /// Number of the charging class.
    pub class: u16,
    /// The caller's slot number, the last part of the Session-Id.
    pub slot: u32,
    /// Role-Of-Node.
    pub role_of_node: RoleOfNode,
    /// Method of the request.
    pub method: &'a [u8],
    /// Call-ID of the incoming dialog.
    pub user_session_id: &'a [u8],
    /// Call-ID of the outgoing dialog, if known already.
    pub outgoing_session_id: &'a [u8],
    /// P-Asserted-Identity values of the request.
    pub calling_party: &'a [&'a [u8]],
    /// Outgoing Request-URI, if known already.
    pub called_party: &'a [u8],
    /// Incoming Request-URI; recorded if it differs from the called party.
    pub requested_party: &'a [u8],
    /// From header.
    pub from_address: &'a [u8],
    /// icid-value.
    pub icid: &'a [u8],
    /// related-icid.
    pub related_icid: &'a [u8],
    /// related-icid-generated-at.
    pub related_icid_node: Option<IpAddr>,
    /// orig-ioi.
    pub orig_ioi: &'a [u8],
    /// term-ioi, if known already.
    pub term_ioi: &'a [u8],
    /// transit-ioi of the request.
    pub transit_ioi: &'a [u8],
    /// P-Access-Network-Info, one entry per access-net-spec, network-provided first.
    pub access_network_info: &'a [&'a [u8]],
    /// Cellular-Network-Info.
    pub cellular_network_info: &'a [u8],
    /// P-Visited-Network-ID.
    pub visited_network: &'a [u8],
    /// P-Asserted-Service.
    pub icsi: &'a [u8],
    /// +sip.instance of the Contact.
    pub instance_id: &'a [u8],
    /// fe-identifier.
    pub fe_identifiers: &'a [u8],
    /// Session-Priority, 0 highest to 4.
    pub session_priority: Option<u32>,
    /// The served user.
    pub subscription_ids: &'a [(SubscriptionIdType, &'a [u8])],
    /// Private identity (User-Name).
    pub user_name: &'a [u8],
    /// rn= of the Request-URI.
    pub number_portability: &'a [u8],
    /// cic= of the Request-URI.
    pub carrier_select: &'a [u8],
    /// Alternate-Charged-Party-Address, in START only.
    pub alternate_charged_party: &'a [u8],
    /// Online-Charging-Flag, when known.
    pub online_charging: Option<bool>,
    /// Product data: (Service-Specific-Type, Service-Specific-Data).
    pub service_specific: &'a [(u32, &'a [u8])],
    /// Bodies of the request that are not SDP.
    pub message_bodies: &'a [MessageBody<'a>],
    /// icid-value of the session this one goes on with, if the INVITE replaces a dialog.
    pub initial_icid: &'a [u8],
    /// Borders between networks that the session crosses.
    pub nni: &'a [Nni],
    /// What the INVITE took over from another access, if it replaces a dialog.
    pub access_transfer: Option<AccessTransfer<'a>>,
    /// IMEI of the served user's phone, decimal digits.
    pub imei: &'a [u8],
    /// Supplementary services that the request shows.
    pub services: &'a [SupplementaryService<'a>],
}

/// Session-Direction (2707).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionDirection {
    /// The session comes in over the border.
    Inbound = 0,
    /// The session leaves over the border.
    Outbound = 1,
}

/// NNI-Type (2704).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NniType {
    /// Between home networks.
    NonRoaming = 0,
    /// Between home and visited network, without loopback routing.
    Roaming = 1,
    /// Between home and visited network, with loopback routing.
    Loopback = 2,
}

/// A border between two networks (NNI-Information, 2703).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nni {
    /// Which way the session crosses it.
    pub direction: SessionDirection,
    /// What kind of border.
    pub nni_type: NniType,
    /// The other network is inside the trust domain (Relationship-Mode).
    pub is_trusted: bool,
    /// The other network's border node.
    pub neighbour: Option<IpAddr>,
}

/// Access-Transfer-Type (2710).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessTransferType {
    /// From packet to circuit switched.
    PsToCs = 0,
    /// From circuit to packet switched.
    CsToPs = 1,
    /// From packet to packet switched.
    PsToPs = 2,
    /// From circuit to circuit switched.
    CsToCs = 3,
}

/// A session moved to another access (Access-Transfer-Information, 2709).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessTransfer<'a> {
    /// Between which kinds of access.
    pub transfer_type: AccessTransferType,
    /// P-Access-Network-Info on the new access, one entry per access-net-spec.
    pub access_network_info: &'a [&'a [u8]],
    /// Another phone of the user took the session over; `None` if the phones are not known.
    pub is_inter_ue: Option<bool>,
    /// +sip.instance on the new access.
    pub instance_id: &'a [u8],
    /// When.
    pub change_time: UnixMillis,
}

/// TAD-Identifier (2717): the access on which the session was terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminatingAccess {
    /// Circuit switched.
    Cs = 0,
    /// Packet switched.
    Ps = 1,
}

/// Values of MMTel-SService-Type (2031) that SIP shows (TS 32.299 s7.2.108).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// Communication hold.
    Hold = 4,
    /// Communication diversion.
    Diversion = 6,
    /// Conference.
    Conference = 10,
    /// Explicit communication transfer.
    Transfer = 20,
}

/// Values of Service-Mode (2032) that SIP shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceMode {
    /// Forwarding unconditional.
    Unconditional = 0,
    /// Forwarding on busy.
    Busy = 1,
    /// Forwarding on no reply.
    NoReply = 2,
    /// Forwarding on not logged in.
    NotLoggedIn = 3,
    /// Deflection.
    Deflection = 4,
    /// Forwarding on not reachable.
    NotReachable = 5,
    /// Blind transfer.
    BlindTransfer = 9,
    /// Consultative transfer.
    ConsultativeTransfer = 10,
}

/// One use of a supplementary service (Supplementary-Service, 2048).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupplementaryService<'a> {
    /// Which service.
    pub service_type: ServiceType,
    /// In which form.
    pub mode: Option<ServiceMode>,
    /// How often the call was diverted.
    pub diversions: Option<u32>,
    /// Whom the service is provided to: the forwarding party, the transferor.
    pub associated_party: &'a [u8],
}

/// A message body other than SDP (Message-Body, 889).
#[derive(Clone, Copy, Debug)]
pub struct MessageBody<'a> {
    /// Content-Type.
    pub content_type: &'a [u8],
    /// Content-Length, octets.
    pub content_length: u32,
    /// Content-Disposition.
    pub disposition: &'a [u8],
    /// Sent by the called party.
    pub from_called_party: bool,
}

/// SDP-Type (2036).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SdpType {
    /// An offer.
    Offer = 0,
    /// An answer.
    Answer = 1,
}

/// Media-Initiator-Flag (882).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaInitiator {
    /// The called party.
    Called = 0,
    /// The calling party.
    Calling = 1,
    /// Unknown.
    Unknown = 2,
}

/// One session description.
#[derive(Clone, Copy, Debug)]
pub struct Sdp<'a> {
    /// The text of the body.
    pub text: &'a [u8],
    /// Offer or answer.
    pub sdp_type: SdpType,
    /// Who began the exchange; `None` on session set-up, where it is the calling party.
    pub initiator: Option<MediaInitiator>,
    /// The address of that party (Media-Initiator-Party).
    pub initiator_party: &'a [u8],
    /// Access-Network-Charging-Identifier-Value for the media.
    pub access_network_charging_id: &'a [u8],
    /// 3GPP-Charging-Id of the bearer; takes the place of the one above, since a component
    /// carries one of the two.
    pub charging_id: Option<u32>,
}

impl<'a> Sdp<'a> {
    /// A description with nothing else known about it.
    #[must_use]
    pub const fn new(text: &'a [u8], sdp_type: SdpType) -> Self {
        Self {
            text,
            sdp_type,
            initiator: None,
            initiator_party: b"",
            access_network_charging_id: b"",
            charging_id: None,
        }
    }
}

/// What a response says of the called side.
#[derive(Clone, Copy, Debug, Default)]
pub struct CalledSide<'a> {
    /// term-ioi.
    pub term_ioi: &'a [u8],
    /// transit-ioi.
    pub transit_ioi: &'a [u8],
    /// P-Asserted-Identity values of a 2xx.
    pub asserted_identity: &'a [&'a [u8]],
}

/// A chargeable event.
#[derive(Clone, Copy, Debug)]
pub enum Trigger<'a> {
    /// An initial INVITE arrived.
    SetUp {
        /// What is known about the session.
        facts: &'a SessionFacts<'a>,
        /// When the INVITE arrived.
        request_time: UnixMillis,
    },
    /// The INVITE went out; may come again when another destination is tried.
    Routed {
        /// Outgoing Request-URI.
        called_party: &'a [u8],
        /// Call-ID of the outgoing dialog.
        outgoing_session_id: &'a [u8],
        /// The border that the session leaves over, if it does.
        nni: Option<Nni>,
    },
    /// Offer and answer were exchanged before the final response.
    EarlyMedia {
        /// The offer, if seen.
        offer: Option<Sdp<'a>>,
        /// When the offer was seen.
        offer_time: Option<UnixMillis>,
        /// The answer, if seen.
        answer: Option<Sdp<'a>>,
        /// When the answer was seen.
        answer_time: Option<UnixMillis>,
    },
    /// 2xx to the initial INVITE (the first one).
    Answered {
        /// When the 2xx arrived.
        response_time: UnixMillis,
        /// The SDP answer is known; `false` if the ACK will carry it (late offer).
        answer_known: bool,
        /// Session descriptions of INVITE and 2xx.
        sdp: &'a [Sdp<'a>],
        /// What the 2xx says of the called side.
        called: CalledSide<'a>,
        /// Where the session was terminated, if the 2xx says so.
        terminating_access: Option<TerminatingAccess>,
        /// Body of the 2xx that is not SDP.
        message_bodies: &'a [MessageBody<'a>],
    },
    /// The ACK to an INVITE or re-INVITE carried the SDP answer.
    AckWithAnswer {
        /// When the ACK arrived.
        request_time: UnixMillis,
        /// The answer.
        sdp: &'a [Sdp<'a>],
    },
    /// Final response to a re-INVITE or UPDATE.
    MediaChanged {
        /// INVITE or UPDATE.
        method: &'a [u8],
        /// When the request arrived.
        request_time: UnixMillis,
        /// When the response arrived.
        response_time: UnixMillis,
        /// Status code of the response.
        code: u16,
        /// Session descriptions of the transaction.
        sdp: &'a [Sdp<'a>],
        /// The called party's new asserted identity, if it changed.
        called_identity: &'a [u8],
        /// Bodies of the transaction that are not SDP.
        message_bodies: &'a [MessageBody<'a>],
        /// Supplementary services that the transaction shows.
        services: &'a [SupplementaryService<'a>],
    },
    /// The access network of the served user changed.
    AccessNetworkChanged {
        /// The new P-Access-Network-Info, one entry per access-net-spec.
        access_network_info: &'a [&'a [u8]],
        /// When.
        change_time: UnixMillis,
        /// The kind of access changed too, as far as its name tells.
        transfer: Option<AccessTransferType>,
    },
    /// Real-time tariff information (RTTI XML) passed.
    TariffReceived {
        /// The XML document.
        xml: &'a [u8],
    },
    /// The initial INVITE failed for good; not for each branch of a fork.
    SetUpFailed {
        /// Why.
        cause: SetUpFailure,
        /// Reason header values of the CANCEL or the response.
        reasons: &'a [&'a [u8]],
        /// When the final response (or the CANCEL) was seen.
        response_time: UnixMillis,
    },
    /// The answered call ended.
    Ended {
        /// Why; [`CauseCode::from_reason`] reads a BYE's Reason.
        cause: CauseCode,
        /// Reason header values of the BYE.
        reasons: &'a [&'a [u8]],
        /// When the BYE was received, or decided on by us.
        request_time: UnixMillis,
        /// Bodies of the BYE.
        message_bodies: &'a [MessageBody<'a>],
    },
    /// 2xx to the BYE: needed only with `stop_at_bye_answer`.
    ByeAnswered {
        /// P-Access-Network-Info of the response.
        access_network_info: &'a [&'a [u8]],
    },
    /// Final response to a request outside of calls (MESSAGE, SUBSCRIBE, REGISTER, REFER ...).
    OneShot {
        /// What is known about it.
        facts: &'a SessionFacts<'a>,
        /// Status code of the response.
        code: u16,
        /// Event header.
        event: &'a [u8],
        /// Expires, seconds.
        expires: Option<u32>,
        /// What the response says of the called side.
        called: CalledSide<'a>,
        /// When the request arrived.
        request_time: UnixMillis,
        /// When the response arrived.
        response_time: UnixMillis,
    },
}

/// Why an INVITE did not become a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetUpFailure {
    /// A final response, 3xx to 6xx.
    Response(u16),
    /// The caller sent CANCEL.
    Cancelled,
    /// An error of ours before any SIP response.
    Internal,
    /// Nobody knows.
    Unspecified,
}

impl SetUpFailure {
    /// The Cause-Code of the EVENT.
    #[must_use]
    pub const fn cause_code(self) -> CauseCode {
        match self {
            Self::Response(code) => CauseCode::from_final_response(code),
            Self::Cancelled => CauseCode(487),
            Self::Internal => CauseCode::INTERNAL_ERROR,
            Self::Unspecified => CauseCode::UNSPECIFIED,
        }
    }
}

/// Cause-Code (861), TS 32.299 s7.2.35: zero and negative for success, positive for failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CauseCode(pub i32);

impl CauseCode {
    /// Normal end of session.
    pub const NORMAL: Self = Self(0);
    /// Successful transaction (200).
    pub const SUCCESS: Self = Self(-1);
    /// End of SUBSCRIBE dialog.
    pub const END_OF_SUBSCRIBE: Self = Self(-2);
    /// End of REGISTER dialog.
    pub const END_OF_REGISTER: Self = Self(-3);
    /// Unspecified error.
    pub const UNSPECIFIED: Self = Self(1);
    /// Unsuccessful session set-up: answered, but no ACK came.
    pub const UNSUCCESSFUL_SETUP: Self = Self(2);
    /// Internal error.
    pub const INTERNAL_ERROR: Self = Self(3);

    /// 200 is -1, another 2xx or 3xx its negative, 4xx to 6xx the code itself.
    #[must_use]
    pub const fn from_final_response(code: u16) -> Self {
        match code {
            200 => Self::SUCCESS,
            201..400 => Self(-(code as i32)),
            400..700 => Self(code as i32),
            _ => Self::UNSPECIFIED,
        }
    }

    /// The cause of a BYE with that Reason value (RFC 3326): `SIP;cause=N` with an error is N,
    /// everything else (no such protocol, 2xx, Q.850) a normal end.
    #[must_use]
    pub fn from_reason(reason: &[u8]) -> Self {
        let mut parts = reason.split(|&octet| octet == b';').map(<[u8]>::trim_ascii);
        if !parts
            .next()
            .is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"SIP"))
        {
            return Self::NORMAL;
        }
        let cause = parts.find_map(|part| {
            let (name, value) = part.split_at(part.iter().position(|&octet| octet == b'=')?);
            name.trim_ascii()
                .eq_ignore_ascii_case(b"cause")
                .then(|| value[1..].trim_ascii())
        });
        let number = cause
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse::<u16>().ok());
        match number {
            Some(code @ 400..=699) => Self(i32::from(code)),
            _ => Self::NORMAL,
        }
    }
}

/// What the call has to do after a trigger, an answer or a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    GoOn,
    /// Hold the message that caused the trigger (credit check pending; never from Rf alone).
    Hold,
    /// End the call with this cause: BYE both legs. The closing record is made already.
    End(CauseCode),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_codes_have_the_sign_of_ts_32_299() {
        let of = |code| CauseCode::from_final_response(code).0;
        assert_eq!(
            [
                of(200),
                of(202),
                of(302),
                of(486),
                of(503),
                of(603),
                of(100)
            ],
            [-1, -202, -302, 486, 503, 603, 1]
        );
        assert_eq!(SetUpFailure::Cancelled.cause_code().0, 487);
        assert_eq!(SetUpFailure::Internal.cause_code().0, 3);
    }

    #[test]
    fn the_reason_of_a_bye_becomes_its_cause() {
        let of = |reason: &[u8]| CauseCode::from_reason(reason).0;
        assert_eq!(of(b"SIP;cause=480;text=\"gone\""), 480);
        assert_eq!(of(b"sip ; text=\"x\" ; Cause = 503"), 503);
        assert_eq!(of(b"SIP;cause=200;text=\"Call completed elsewhere\""), 0);
        assert_eq!(of(b"Q.850;cause=16"), 0);
        assert_eq!(of(b"SIP;cause=99999"), 0);
        assert_eq!(of(b""), 0);
    }
}
