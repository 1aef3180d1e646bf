//! The base protocol's own messages: CER, CEA, DWR, DWA, DPR, DPA (RFC 6733 s5.3 to s5.5).

use std::net::IpAddr;

use super::avp::{Message, Writer};
use super::dictionary as d;
use super::dictionary::result;
use super::header::{ERROR, Header, REQUEST};

/// Who this end is: what CER and CEA say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Origin-Host: a DiameterIdentity, different for each connection's owner.
    pub origin_host: String,
    /// Origin-Realm.
    pub origin_realm: String,
    /// Host-IP-Address, at least one.
    pub host_addresses: Vec<IpAddr>,
    /// Vendor-Id of the product; 0 means "ignore" (RFC 6733 s5.3.3).
    pub vendor_id: u32,
    /// Product-Name.
    pub product_name: String,
    /// Firmware-Revision, absent if `None`.
    pub firmware_revision: Option<u32>,
    /// Origin-State-Id: grows when sessions were lost, not at a restart that kept them.
    pub origin_state_id: Option<u32>,
}

/// Disconnect-Cause (RFC 6733 s5.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectCause {
    /// The node restarts: reconnecting is welcome.
    Rebooting = 0,
    /// Too busy to keep the connection.
    Busy = 1,
    /// No messages are expected.
    DoNotWantToTalkToYou = 2,
}

/// What a CER or CEA says about its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities<'a> {
    /// Origin-Host.
    pub origin_host: &'a [u8],
    /// Origin-Realm.
    pub origin_realm: &'a [u8],
    /// Result-Code (CEA only).
    pub result_code: Option<u32>,
    /// Origin-State-Id.
    pub origin_state_id: Option<u32>,
    /// The sender does base accounting, or relays everything.
    pub accounting: bool,
    /// The sender does credit control, or relays everything.
    pub credit_control: bool,
    /// The sender offers to go on without in-band security (no AVP at all means the same).
    pub plain: bool,
}

impl<'a> Capabilities<'a> {
    /// Reads a CER or CEA.
    ///
    /// # Errors
    /// The Result-Code the message deserves: 5014 for a malformed AVP, 5005 without an Origin-Host.
    pub fn read(message: &Message<'a>) -> Result<Self, u32> {
        let mut found = Self::default();
        let mut security_offered = false;
        for avp in message.avps() {
            let avp = avp.map_err(|_| result::INVALID_AVP_LENGTH)?;
            let number = || avp.u32().map_err(|_| result::INVALID_AVP_LENGTH);
            if avp.is(d::ORIGIN_HOST) {
                found.origin_host = avp.data;
            } else if avp.is(d::ORIGIN_REALM) {
                found.origin_realm = avp.data;
            } else if avp.is(d::RESULT_CODE) {
                found.result_code = Some(number()?);
            } else if avp.is(d::ORIGIN_STATE_ID) {
                found.origin_state_id = Some(number()?);
            } else if avp.is(d::INBAND_SECURITY_ID) {
                security_offered = true;
                found.plain |= number()? == 0;
            } else if avp.is(d::VENDOR_SPECIFIC_APPLICATION_ID) {
                for inner in avp.grouped().map_err(|_| result::INVALID_AVP_LENGTH)? {
                    let inner = inner.map_err(|_| result::INVALID_AVP_LENGTH)?;
                    found.add_application(&inner)?;
                }
            } else {
                found.add_application(&avp)?;
            }
        }
        found.plain |= !security_offered;
        if found.origin_host.is_empty() {
            Err(result::MISSING_AVP)
        } else {
            Ok(found)
        }
    }

    fn add_application(&mut self, avp: &super::avp::Avp<'_>) -> Result<(), u32> {
        let accounting = avp.is(d::ACCT_APPLICATION_ID);
        if !accounting && !avp.is(d::AUTH_APPLICATION_ID) {
            return Ok(());
        }
        let id = avp.u32().map_err(|_| result::INVALID_AVP_LENGTH)?;
        let relay = id == d::APPLICATION_RELAY;
        self.accounting |= relay || (accounting && id == d::APPLICATION_ACCOUNTING);
        self.credit_control |= relay || (!accounting && id == d::APPLICATION_CREDIT_CONTROL);
        Ok(())
    }
}

/// Appends a CER.
pub fn encode_cer(out: &mut Vec<u8>, identity: &Identity, hop_by_hop: u32, end_to_end: u32) {
    let header = Header {
        hop_by_hop,
        end_to_end,
        ..Header::new(REQUEST, d::CAPABILITIES_EXCHANGE, 0)
    };
    let mut writer = Writer::message(out, &header);
    capabilities(&mut writer, identity);
    writer.finish();
}

/// Appends the CEA for a CER.
pub fn encode_cea(out: &mut Vec<u8>, cer: &Header, identity: &Identity, result_code: u32) {
    let mut writer = Writer::message(out, &answer_header(cer, result_code));
    writer.u32(d::RESULT_CODE, result_code);
    capabilities(&mut writer, identity);
    writer.finish();
}

/// Appends a DWR.
pub fn encode_dwr(out: &mut Vec<u8>, identity: &Identity, hop_by_hop: u32, end_to_end: u32) {
    let header = Header {
        hop_by_hop,
        end_to_end,
        ..Header::new(REQUEST, d::DEVICE_WATCHDOG, 0)
    };
    let mut writer = Writer::message(out, &header);
    origin(&mut writer, identity);
    if let Some(id) = identity.origin_state_id {
        writer.u32(d::ORIGIN_STATE_ID, id);
    }
    writer.finish();
}

/// Appends a DPR.
pub fn encode_dpr(
    out: &mut Vec<u8>,
    identity: &Identity,
    cause: DisconnectCause,
    hop_by_hop: u32,
    end_to_end: u32,
) {
    let header = Header {
        hop_by_hop,
        end_to_end,
        ..Header::new(REQUEST, d::DISCONNECT_PEER, 0)
    };
    let mut writer = Writer::message(out, &header);
    origin(&mut writer, identity);
    writer.u32(d::DISCONNECT_CAUSE, cause as u32);
    writer.finish();
}

/// Appends the plain answer of the base protocol (DWA, DPA, or an error to any request): result,
/// origin and, in a DWA, the Origin-State-Id. A 3xxx result sets the E flag (RFC 6733 s7.1.3) and
/// the Session-Id of the request is repeated if there is one (s6.2).
pub fn encode_answer(out: &mut Vec<u8>, request: &Message<'_>, identity: &Identity, result: u32) {
    let mut writer = Writer::message(out, &answer_header(&request.header, result));
    if let Some(session) = request.find(d::SESSION_ID) {
        writer.octets(d::SESSION_ID, session.data);
    }
    writer.u32(d::RESULT_CODE, result);
    origin(&mut writer, identity);
    if request.header.command == d::DEVICE_WATCHDOG
        && let Some(id) = identity.origin_state_id
    {
        writer.u32(d::ORIGIN_STATE_ID, id);
    }
    writer.finish();
}

/// The header of an answer with that result: protocol errors carry the E flag.
#[must_use]
pub fn answer_header(request: &Header, result: u32) -> Header {
    let mut header = request.answer();
    if (3_000..4_000).contains(&result) {
        header.flags |= ERROR;
    }
    header
}

/// Writes Origin-Host and Origin-Realm.
pub fn origin(writer: &mut Writer<'_>, identity: &Identity) {
    writer.octets(d::ORIGIN_HOST, identity.origin_host.as_bytes());
    writer.octets(d::ORIGIN_REALM, identity.origin_realm.as_bytes());
}

/// The part CER and CEA share, in the order of RFC 6733 s5.3.1.
fn capabilities(writer: &mut Writer<'_>, identity: &Identity) {
    origin(writer, identity);
    for &address in &identity.host_addresses {
        writer.address(d::HOST_IP_ADDRESS, address);
    }
    writer.u32(d::VENDOR_ID, identity.vendor_id);
    writer.octets(d::PRODUCT_NAME, identity.product_name.as_bytes());
    if let Some(id) = identity.origin_state_id {
        writer.u32(d::ORIGIN_STATE_ID, id);
    }
    writer.u32(d::SUPPORTED_VENDOR_ID, d::VENDOR_3GPP);
    writer.u32(d::AUTH_APPLICATION_ID, d::APPLICATION_CREDIT_CONTROL);
    writer.u32(d::ACCT_APPLICATION_ID, d::APPLICATION_ACCOUNTING);
    if let Some(revision) = identity.firmware_revision {
        writer.u32(d::FIRMWARE_REVISION, revision);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn identity(host: &str) -> Identity {
        Identity {
            origin_host: host.to_owned(),
            origin_realm: "example".to_owned(),
            host_addresses: vec!["192.0.2.7".parse().unwrap()],
            vendor_id: 0,
            product_name: "ringtoll".to_owned(),
            firmware_revision: Some(1),
            origin_state_id: Some(9),
        }
    }

    #[test]
    fn a_cer_says_what_strict_peers_ask_for() {
        let mut out = Vec::new();
        encode_cer(&mut out, &identity("a.example"), 1, 2);
        let codes: Vec<u32> = Message::parse(&out)
            .unwrap()
            .avps()
            .map(|avp| avp.unwrap().code)
            .collect();
        assert_eq!(codes, [264, 296, 257, 266, 269, 278, 265, 258, 259, 267]);
        let message = Message::parse(&out).unwrap();
        assert_eq!(message.find(d::ACCT_APPLICATION_ID).unwrap().u32(), Ok(3));
        assert_eq!(message.find(d::AUTH_APPLICATION_ID).unwrap().u32(), Ok(4));
        assert_eq!(
            message.find(d::SUPPORTED_VENDOR_ID).unwrap().u32(),
            Ok(10_415)
        );
        let read = Capabilities::read(&message).unwrap();
        assert!(read.accounting && read.credit_control && read.plain);
        assert_eq!(read.origin_host, b"a.example");
    }

    #[test]
    fn a_dwr_has_its_known_octets() {
        let mut out = Vec::new();
        let mut who = identity("a");
        who.origin_realm = "b".to_owned();
        encode_dwr(&mut out, &who, 0x0101_0101, 0x0202_0202);
        let expected: [u8; 56] = [
            1, 0, 0, 56, 0x80, 0, 1, 24, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, // header
            0, 0, 1, 8, 0x40, 0, 0, 9, b'a', 0, 0, 0, // Origin-Host
            0, 0, 1, 40, 0x40, 0, 0, 9, b'b', 0, 0, 0, // Origin-Realm
            0, 0, 1, 22, 0x40, 0, 0, 12, 0, 0, 0, 9, // Origin-State-Id
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn applications_inside_a_vendor_specific_group_count() {
        let mut out = Vec::new();
        let mut writer = Writer::message(&mut out, &Header::new(REQUEST, 257, 0));
        writer.octets(d::ORIGIN_HOST, b"c.example");
        let group = writer.open(d::VENDOR_SPECIFIC_APPLICATION_ID);
        writer.u32(d::VENDOR_ID, 10_415);
        writer.u32(d::ACCT_APPLICATION_ID, 3);
        writer.close(group);
        writer.finish();
        let read = Capabilities::read(&Message::parse(&out).unwrap()).unwrap();
        assert!(read.accounting && !read.credit_control);
    }

    #[test]
    fn protocol_errors_carry_the_e_flag_and_others_do_not() {
        let request = Header::new(REQUEST, 271, 3);
        assert!(answer_header(&request, result::TOO_BUSY).is_error());
        assert!(!answer_header(&request, result::MISSING_AVP).is_error());
    }
}
