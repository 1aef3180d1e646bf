//! Codes: commands, applications, results, and the attributes that are sent or read.
//!
//! An [`Attribute`] carries code, vendor and flags together, so that no place that writes an AVP
//! can combine them wrongly. Flags follow TS 32.299 s7.1 and s7.2.

use super::avp::{MANDATORY, VENDOR};

/// Code, vendor and flags of an AVP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// AVP Code.
    pub code: u32,
    /// Vendor-ID, 0 for the IETF's.
    pub vendor: u32,
    /// AVP flags as sent.
    pub flags: u8,
}

impl Attribute {
    const fn base(code: u32) -> Self {
        Self {
            code,
            vendor: 0,
            flags: MANDATORY,
        }
    }

    const fn base_optional(code: u32) -> Self {
        Self {
            code,
            vendor: 0,
            flags: 0,
        }
    }

    const fn tgpp(code: u32) -> Self {
        Self {
            code,
            vendor: VENDOR_3GPP,
            flags: VENDOR | MANDATORY,
        }
    }

    const fn tgpp_optional(code: u32) -> Self {
        Self {
            code,
            vendor: VENDOR_3GPP,
            flags: VENDOR,
        }
    }

    /// Octets of the AVP header: 12 with a Vendor-ID, else 8.
    #[must_use]
    pub const fn header_length(&self) -> usize {
        if self.flags & VENDOR == 0 { 8 } else { 12 }
    }
}

/// Vendor-ID of 3GPP.
pub const VENDOR_3GPP: u32 = 10_415;

/// Application-ID of the base protocol's own commands.
pub const APPLICATION_BASE: u32 = 0;
/// Diameter base accounting (Rf; TS 32.299 s6.1.1).
pub const APPLICATION_ACCOUNTING: u32 = 3;
/// Diameter credit control (Ro).
pub const APPLICATION_CREDIT_CONTROL: u32 = 4;
/// What a relay advertises: every application (RFC 6733 s2.4).
pub const APPLICATION_RELAY: u32 = 0xFFFF_FFFF;

/// Capabilities-Exchange (CER, CEA).
pub const CAPABILITIES_EXCHANGE: u32 = 257;
/// Re-Auth (RAR, RAA).
pub const RE_AUTH: u32 = 258;
/// Accounting (ACR, ACA).
pub const ACCOUNTING: u32 = 271;
/// Credit-Control (CCR, CCA).
pub const CREDIT_CONTROL: u32 = 272;
/// Abort-Session (ASR, ASA).
pub const ABORT_SESSION: u32 = 274;
/// Device-Watchdog (DWR, DWA).
pub const DEVICE_WATCHDOG: u32 = 280;
/// Disconnect-Peer (DPR, DPA).
pub const DISCONNECT_PEER: u32 = 282;

/// Values of Result-Code (RFC 6733 s7.1).
pub mod result {
    /// DIAMETER_SUCCESS.
    pub const SUCCESS: u32 = 2001;
    /// DIAMETER_LIMITED_SUCCESS.
    pub const LIMITED_SUCCESS: u32 = 2002;
    /// DIAMETER_COMMAND_UNSUPPORTED.
    pub const COMMAND_UNSUPPORTED: u32 = 3001;
    /// DIAMETER_UNABLE_TO_DELIVER.
    pub const UNABLE_TO_DELIVER: u32 = 3002;
    /// DIAMETER_TOO_BUSY.
    pub const TOO_BUSY: u32 = 3004;
    /// DIAMETER_LOOP_DETECTED.
    pub const LOOP_DETECTED: u32 = 3005;
    /// DIAMETER_APPLICATION_UNSUPPORTED.
    pub const APPLICATION_UNSUPPORTED: u32 = 3007;
    /// DIAMETER_INVALID_AVP_BITS.
    pub const INVALID_AVP_BITS: u32 = 3009;
    /// DIAMETER_UNKNOWN_PEER.
    pub const UNKNOWN_PEER: u32 = 3010;
    /// DIAMETER_OUT_OF_SPACE.
    pub const OUT_OF_SPACE: u32 = 4002;
    /// ELECTION_LOST.
    pub const ELECTION_LOST: u32 = 4003;
    /// DIAMETER_UNKNOWN_SESSION_ID.
    pub const UNKNOWN_SESSION_ID: u32 = 5002;
    /// DIAMETER_INVALID_AVP_VALUE.
    pub const INVALID_AVP_VALUE: u32 = 5004;
    /// DIAMETER_MISSING_AVP.
    pub const MISSING_AVP: u32 = 5005;
    /// DIAMETER_AVP_OCCURS_TOO_MANY_TIMES.
    pub const AVP_OCCURS_TOO_MANY_TIMES: u32 = 5009;
    /// DIAMETER_NO_COMMON_APPLICATION.
    pub const NO_COMMON_APPLICATION: u32 = 5010;
    /// DIAMETER_UNABLE_TO_COMPLY.
    pub const UNABLE_TO_COMPLY: u32 = 5012;
    /// DIAMETER_INVALID_AVP_LENGTH.
    pub const INVALID_AVP_LENGTH: u32 = 5014;
}

macro_rules! attributes {
    ($($kind:ident { $($name:ident = $code:literal, $text:literal;)* })*) => {
        $($(
            #[doc = concat!("`", $text, "`, AVP code ", stringify!($code), ".")]
            pub const $name: Attribute = Attribute::$kind($code);
        )*)*

        /// Every attribute above with the name the standards give it.
        pub const ALL: &[(&str, Attribute)] = &[$($(($text, $name),)*)*];
    };
}

attributes! {
    base {
        SESSION_ID = 263, "Session-Id";
        ORIGIN_HOST = 264, "Origin-Host";
        ORIGIN_REALM = 296, "Origin-Realm";
        DESTINATION_HOST = 293, "Destination-Host";
        DESTINATION_REALM = 283, "Destination-Realm";
        ACCT_APPLICATION_ID = 259, "Acct-Application-Id";
        AUTH_APPLICATION_ID = 258, "Auth-Application-Id";
        VENDOR_SPECIFIC_APPLICATION_ID = 260, "Vendor-Specific-Application-Id";
        ACCOUNTING_RECORD_TYPE = 480, "Accounting-Record-Type";
        ACCOUNTING_RECORD_NUMBER = 485, "Accounting-Record-Number";
        ACCT_INTERIM_INTERVAL = 85, "Acct-Interim-Interval";
        USER_NAME = 1, "User-Name";
        ORIGIN_STATE_ID = 278, "Origin-State-Id";
        EVENT_TIMESTAMP = 55, "Event-Timestamp";
        PROXY_INFO = 284, "Proxy-Info";
        ROUTE_RECORD = 282, "Route-Record";
        SERVICE_CONTEXT_ID = 461, "Service-Context-Id";
        RESULT_CODE = 268, "Result-Code";
        EXPERIMENTAL_RESULT = 297, "Experimental-Result";
        EXPERIMENTAL_RESULT_CODE = 298, "Experimental-Result-Code";
        FAILED_AVP = 279, "Failed-AVP";
        CC_REQUEST_TYPE = 416, "CC-Request-Type";
        CC_REQUEST_NUMBER = 415, "CC-Request-Number";
        SUBSCRIPTION_ID = 443, "Subscription-Id";
        SUBSCRIPTION_ID_TYPE = 450, "Subscription-Id-Type";
        SUBSCRIPTION_ID_DATA = 444, "Subscription-Id-Data";
        TERMINATION_CAUSE = 295, "Termination-Cause";
        DISCONNECT_CAUSE = 273, "Disconnect-Cause";
        HOST_IP_ADDRESS = 257, "Host-IP-Address";
        VENDOR_ID = 266, "Vendor-Id";
        SUPPORTED_VENDOR_ID = 265, "Supported-Vendor-Id";
        INBAND_SECURITY_ID = 299, "Inband-Security-Id";
        RE_AUTH_REQUEST_TYPE = 285, "Re-Auth-Request-Type";
    }
    base_optional {
        ERROR_MESSAGE = 281, "Error-Message";
        ERROR_REPORTING_HOST = 294, "Error-Reporting-Host";
        PRODUCT_NAME = 269, "Product-Name";
        FIRMWARE_REVISION = 267, "Firmware-Revision";
        USER_EQUIPMENT_INFO = 458, "User-Equipment-Info";
        USER_EQUIPMENT_INFO_TYPE = 459, "User-Equipment-Info-Type";
        USER_EQUIPMENT_INFO_VALUE = 460, "User-Equipment-Info-Value";
    }
    tgpp {
        SERVICE_INFORMATION = 873, "Service-Information";
        IMS_INFORMATION = 876, "IMS-Information";
        EVENT_TYPE = 823, "Event-Type";
        SIP_METHOD = 824, "SIP-Method";
        EVENT = 825, "Event";
        EXPIRES = 888, "Expires";
        ROLE_OF_NODE = 829, "Role-Of-Node";
        NODE_FUNCTIONALITY = 862, "Node-Functionality";
        USER_SESSION_ID = 830, "User-Session-Id";
        OUTGOING_SESSION_ID = 2320, "Outgoing-Session-Id";
        CALLING_PARTY_ADDRESS = 831, "Calling-Party-Address";
        CALLED_PARTY_ADDRESS = 832, "Called-Party-Address";
        CALLED_ASSERTED_IDENTITY = 1250, "Called-Asserted-Identity";
        CALLED_IDENTITY_CHANGE = 3917, "Called-Identity-Change";
        CALLED_IDENTITY = 3916, "Called-Identity";
        CHANGE_TIME = 2038, "Change-Time";
        NUMBER_PORTABILITY_ROUTING_INFORMATION = 2024, "Number-Portability-Routing-Information";
        CARRIER_SELECT_ROUTING_INFORMATION = 2023, "Carrier-Select-Routing-Information";
        ALTERNATE_CHARGED_PARTY_ADDRESS = 1280, "Alternate-Charged-Party-Address";
        REQUESTED_PARTY_ADDRESS = 1251, "Requested-Party-Address";
        ASSOCIATED_URI = 856, "Associated-URI";
        TIME_STAMPS = 833, "Time-Stamps";
        SIP_REQUEST_TIMESTAMP = 834, "SIP-Request-Timestamp";
        SIP_RESPONSE_TIMESTAMP = 835, "SIP-Response-Timestamp";
        SIP_REQUEST_TIMESTAMP_FRACTION = 2301, "SIP-Request-Timestamp-Fraction";
        SIP_RESPONSE_TIMESTAMP_FRACTION = 2302, "SIP-Response-Timestamp-Fraction";
        APPLICATION_SERVER_INFORMATION = 850, "Application-Server-Information";
        APPLICATION_SERVER = 836, "Application-Server";
        APPLICATION_PROVIDED_CALLED_PARTY_ADDRESS = 837,
            "Application-Provided-Called-Party-Address";
        STATUS_AS_CODE = 2702, "Status-AS-Code";
        INTER_OPERATOR_IDENTIFIER = 838, "Inter-Operator-Identifier";
        ORIGINATING_IOI = 839, "Originating-IOI";
        TERMINATING_IOI = 840, "Terminating-IOI";
        TRANSIT_IOI_LIST = 2701, "Transit-IOI-List";
        IMS_CHARGING_IDENTIFIER = 841, "IMS-Charging-Identifier";
        SDP_SESSION_DESCRIPTION = 842, "SDP-Session-Description";
        SDP_MEDIA_COMPONENT = 843, "SDP-Media-Component";
        SDP_MEDIA_NAME = 844, "SDP-Media-Name";
        SDP_MEDIA_DESCRIPTION = 845, "SDP-Media-Description";
        SDP_TYPE = 2036, "SDP-Type";
        MEDIA_INITIATOR_FLAG = 882, "Media-Initiator-Flag";
        MEDIA_INITIATOR_PARTY = 1288, "Media-Initiator-Party";
        LOCAL_GW_INSERTED_INDICATION = 2604, "Local-GW-Inserted-Indication";
        IP_REALM_DEFAULT_INDICATION = 2603, "IP-Realm-Default-Indication";
        TRANSCODER_INSERTED_INDICATION = 2605, "Transcoder-Inserted-Indication";
        ACCESS_NETWORK_CHARGING_IDENTIFIER_VALUE = 503, "Access-Network-Charging-Identifier-Value";
        TGPP_CHARGING_ID = 2, "3GPP-Charging-Id";
        SERVED_PARTY_IP_ADDRESS = 848, "Served-Party-IP-Address";
        SERVER_CAPABILITIES = 603, "Server-Capabilities";
        TRUNK_GROUP_ID = 851, "Trunk-Group-ID";
        INCOMING_TRUNK_GROUP_ID = 852, "Incoming-Trunk-Group-ID";
        OUTGOING_TRUNK_GROUP_ID = 853, "Outgoing-Trunk-Group-ID";
        BEARER_SERVICE = 854, "Bearer-Service";
        SERVICE_ID = 855, "Service-ID";
        SERVICE_SPECIFIC_INFO = 1249, "Service-Specific-Info";
        SERVICE_SPECIFIC_DATA = 863, "Service-Specific-Data";
        SERVICE_SPECIFIC_TYPE = 1257, "Service-Specific-Type";
        MESSAGE_BODY = 889, "Message-Body";
        CONTENT_TYPE = 826, "Content-Type";
        CONTENT_LENGTH = 827, "Content-Length";
        CONTENT_DISPOSITION = 828, "Content-Disposition";
        ORIGINATOR = 864, "Originator";
        CAUSE_CODE = 861, "Cause-Code";
        REASON_HEADER = 3401, "Reason-Header";
        ACCESS_NETWORK_INFORMATION = 1263, "Access-Network-Information";
        CELLULAR_NETWORK_INFORMATION = 3924, "Cellular-Network-Information";
        EARLY_MEDIA_DESCRIPTION = 1272, "Early-Media-Description";
        SDP_TIMESTAMPS = 1273, "SDP-TimeStamps";
        SDP_OFFER_TIMESTAMP = 1274, "SDP-Offer-Timestamp";
        SDP_ANSWER_TIMESTAMP = 1275, "SDP-Answer-Timestamp";
        IMS_COMMUNICATION_SERVICE_IDENTIFIER = 1281, "IMS-Communication-Service-Identifier";
        IMS_APPLICATION_REFERENCE_IDENTIFIER = 2601, "IMS-Application-Reference-Identifier";
        ONLINE_CHARGING_FLAG = 2303, "Online-Charging-Flag";
        REAL_TIME_TARIFF_INFORMATION = 2305, "Real-Time-Tariff-Information";
        TARIFF_XML = 2306, "Tariff-XML";
        ACCOUNT_EXPIRATION = 2309, "Account-Expiration";
        INITIAL_IMS_CHARGING_IDENTIFIER = 2321, "Initial-IMS-Charging-Identifier";
        NNI_INFORMATION = 2703, "NNI-Information";
        SESSION_DIRECTION = 2707, "Session-Direction";
        NNI_TYPE = 2704, "NNI-Type";
        RELATIONSHIP_MODE = 2706, "Relationship-Mode";
        NEIGHBOUR_NODE_ADDRESS = 2705, "Neighbour-Node-Address";
        FROM_ADDRESS = 2708, "From-Address";
        IMS_EMERGENCY_INDICATOR = 2322, "IMS-Emergency-Indicator";
        IMS_VISITED_NETWORK_IDENTIFIER = 2713, "IMS-Visited-Network-Identifier";
        ACCESS_NETWORK_INFO_CHANGE = 4401, "Access-Network-Info-Change";
        ACCESS_TRANSFER_INFORMATION = 2709, "Access-Transfer-Information";
        ACCESS_TRANSFER_TYPE = 2710, "Access-Transfer-Type";
        INTER_UE_TRANSFER = 3902, "Inter-UE-Transfer";
        RELATED_IMS_CHARGING_IDENTIFIER = 2711, "Related-IMS-Charging-Identifier";
        RELATED_IMS_CHARGING_IDENTIFIER_NODE = 2712, "Related-IMS-Charging-Identifier-Node";
        ROUTE_HEADER_RECEIVED = 3403, "Route-Header-Received";
        ROUTE_HEADER_TRANSMITTED = 3404, "Route-Header-Transmitted";
        INSTANCE_ID = 3402, "Instance-Id";
        TAD_IDENTIFIER = 2717, "TAD-Identifier";
        FE_IDENTIFIER_LIST = 4413, "FE-Identifier-List";
        SUPPLEMENTARY_SERVICE = 2048, "Supplementary-Service";
        MMTEL_INFORMATION = 2030, "MMTel-Information";
        MMTEL_SSERVICE_TYPE = 2031, "MMTel-SService-Type";
        SERVICE_MODE = 2032, "Service-Mode";
        NUMBER_OF_DIVERSIONS = 2034, "Number-Of-Diversions";
        ASSOCIATED_PARTY_ADDRESS = 2035, "Associated-Party-Address";
    }
    tgpp_optional {
        SESSION_PRIORITY = 650, "Session-Priority";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes a CDF operator expects, written down a second time on purpose.
    const PINNED: &[(Attribute, u32, u32, u8)] = &[
        (SESSION_ID, 263, 0, 0x40),
        (ORIGIN_HOST, 264, 0, 0x40),
        (ORIGIN_REALM, 296, 0, 0x40),
        (DESTINATION_REALM, 283, 0, 0x40),
        (ACCOUNTING_RECORD_TYPE, 480, 0, 0x40),
        (ACCOUNTING_RECORD_NUMBER, 485, 0, 0x40),
        (ACCT_APPLICATION_ID, 259, 0, 0x40),
        (ACCT_INTERIM_INTERVAL, 85, 0, 0x40),
        (EVENT_TIMESTAMP, 55, 0, 0x40),
        (ORIGIN_STATE_ID, 278, 0, 0x40),
        (SERVICE_CONTEXT_ID, 461, 0, 0x40),
        (SUBSCRIPTION_ID, 443, 0, 0x40),
        (PRODUCT_NAME, 269, 0, 0),
        (FIRMWARE_REVISION, 267, 0, 0),
        (ERROR_MESSAGE, 281, 0, 0),
        (SERVICE_INFORMATION, 873, 10_415, 0xC0),
        (IMS_INFORMATION, 876, 10_415, 0xC0),
        (EVENT_TYPE, 823, 10_415, 0xC0),
        (SIP_METHOD, 824, 10_415, 0xC0),
        (ROLE_OF_NODE, 829, 10_415, 0xC0),
        (NODE_FUNCTIONALITY, 862, 10_415, 0xC0),
        (USER_SESSION_ID, 830, 10_415, 0xC0),
        (OUTGOING_SESSION_ID, 2320, 10_415, 0xC0),
        (CALLING_PARTY_ADDRESS, 831, 10_415, 0xC0),
        (CALLED_PARTY_ADDRESS, 832, 10_415, 0xC0),
        (REQUESTED_PARTY_ADDRESS, 1251, 10_415, 0xC0),
        (TIME_STAMPS, 833, 10_415, 0xC0),
        (SIP_REQUEST_TIMESTAMP, 834, 10_415, 0xC0),
        (SIP_RESPONSE_TIMESTAMP, 835, 10_415, 0xC0),
        (SIP_REQUEST_TIMESTAMP_FRACTION, 2301, 10_415, 0xC0),
        (SIP_RESPONSE_TIMESTAMP_FRACTION, 2302, 10_415, 0xC0),
        (IMS_CHARGING_IDENTIFIER, 841, 10_415, 0xC0),
        (CAUSE_CODE, 861, 10_415, 0xC0),
        (REASON_HEADER, 3401, 10_415, 0xC0),
        (FROM_ADDRESS, 2708, 10_415, 0xC0),
        (EARLY_MEDIA_DESCRIPTION, 1272, 10_415, 0xC0),
        (SDP_SESSION_DESCRIPTION, 842, 10_415, 0xC0),
        (SDP_MEDIA_COMPONENT, 843, 10_415, 0xC0),
        (SESSION_PRIORITY, 650, 10_415, 0x80),
        (INITIAL_IMS_CHARGING_IDENTIFIER, 2321, 10_415, 0xC0),
        (NNI_INFORMATION, 2703, 10_415, 0xC0),
        (SESSION_DIRECTION, 2707, 10_415, 0xC0),
        (NNI_TYPE, 2704, 10_415, 0xC0),
        (RELATIONSHIP_MODE, 2706, 10_415, 0xC0),
        (NEIGHBOUR_NODE_ADDRESS, 2705, 10_415, 0xC0),
        (ACCESS_TRANSFER_INFORMATION, 2709, 10_415, 0xC0),
        (ACCESS_TRANSFER_TYPE, 2710, 10_415, 0xC0),
        (INTER_UE_TRANSFER, 3902, 10_415, 0xC0),
        (TAD_IDENTIFIER, 2717, 10_415, 0xC0),
        (MMTEL_INFORMATION, 2030, 10_415, 0xC0),
        (SUPPLEMENTARY_SERVICE, 2048, 10_415, 0xC0),
        (MMTEL_SSERVICE_TYPE, 2031, 10_415, 0xC0),
        (SERVICE_MODE, 2032, 10_415, 0xC0),
        (NUMBER_OF_DIVERSIONS, 2034, 10_415, 0xC0),
        (ASSOCIATED_PARTY_ADDRESS, 2035, 10_415, 0xC0),
        (TGPP_CHARGING_ID, 2, 10_415, 0xC0),
        (ACCESS_NETWORK_CHARGING_IDENTIFIER_VALUE, 503, 10_415, 0xC0),
        (USER_EQUIPMENT_INFO, 458, 0, 0),
        (USER_EQUIPMENT_INFO_TYPE, 459, 0, 0),
        (USER_EQUIPMENT_INFO_VALUE, 460, 0, 0),
    ];

    #[test]
    fn codes_vendors_and_flags_are_the_published_ones() {
        for &(attribute, code, vendor, flags) in PINNED {
            assert_eq!(
                attribute,
                Attribute {
                    code,
                    vendor,
                    flags
                }
            );
        }
    }

    #[test]
    fn no_code_is_defined_twice() {
        let mut keys: Vec<_> = ALL.iter().map(|(_, a)| (a.vendor, a.code)).collect();
        keys.sort_unstable();
        let all = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }
}
