//! The border of the trust domain: which header fields cross it, and whom to believe.
//!
//! ```text
//!   sender \\ receiver      inside                          outside
//!   inside                 everything                      no charging data, no location, no
//!                                                          identity that is to be private
//!   outside                no assertions, no charging      as both
//!                          data; our own ICID instead
//! ```
//!
//! Who is inside says the configuration (`trusted` of a peer). Without any peer there is no
//! domain: nobody gets charging data, and everything else passes.

use std::net::SocketAddr;

use super::{B2bua, CallState};
use crate::sip::{HeaderId, Message};

/// On which sides of the border a message was sent and is received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trust {
    /// There is a trust domain.
    has_domain: bool,
    /// The sender is inside.
    from: bool,
    /// The receiver is inside.
    to: bool,
}

/// Which header fields of one message cross the border.
#[derive(Clone, Copy, Debug)]
pub(super) struct Border {
    charging: bool,
    inner: bool,
    told: bool,
    identity: bool,
    location: bool,
}

impl B2bua {
    /// Whether what `from` asserts is believed: without any configured peer nobody is inside, but
    /// what they assert is all there is to bill by.
    pub(super) fn asserts(&self, from: SocketAddr) -> bool {
        self.config.sip.peers.is_empty() || self.config.trusts(from)
    }

    /// Writes the ICID of a call into a message of our own to `peer`, if that is inside.
    pub(super) fn write_icid(&self, out: &mut Vec<u8>, state: &CallState, peer: SocketAddr) {
        if self.config.trusts(peer) {
            state.write_charging_vector(out);
        }
    }

    /// The border between two peers.
    pub(super) fn trust(&self, from: SocketAddr, to: SocketAddr) -> Trust {
        Trust {
            has_domain: !self.config.sip.peers.is_empty(),
            from: self.config.trusts(from),
            to: self.config.trusts(to),
        }
    }
}

impl Trust {
    /// What of a message crosses.
    pub(super) fn border(self, message: &Message<'_>) -> Border {
        let is_inside = self.from && self.to;
        let believed = self.from || !self.has_domain;
        // RFC 3325 9.1: with Privacy `id` the asserted identity stays inside the trust domain.
        let hides = !self.to && message.has_token(HeaderId::Privacy, b"id");
        Border {
            charging: is_inside,
            inner: is_inside || !self.has_domain,
            told: believed,
            identity: believed && !hides,
            location: !self.has_domain || (self.to && (self.from || !is_provided(message))),
        }
    }

    /// Whether the message needs a P-Charging-Vector of ours: inside the domain every message of a
    /// session carries the ICID (TS 32.260 5.1.2), and none of an outsider's.
    pub(super) fn wants_vector(self, message: &Message<'_>) -> bool {
        self.to && !(self.from && message.header(HeaderId::PChargingVector).is_some())
    }
}

impl Border {
    /// Whether a field passes.
    pub(super) fn passes(&self, id: HeaderId) -> bool {
        match id {
            // RFC 7315 4.5 and 4.6, RFC 5502: of no meaning outside, and not to be seen there.
            HeaderId::PChargingVector
            | HeaderId::PChargingFunctionAddresses
            | HeaderId::PServedUser => self.charging,
            // RFC 4457, RFC 6050, RFC 7315 4.3: between nodes that trust each other.
            HeaderId::PUserDatabase | HeaderId::PAssertedService | HeaderId::PVisitedNetworkId => {
                self.inner
            }
            // RFC 7315 4.2: told to the called phone, which is outside; never by one.
            HeaderId::PCalledPartyId => self.told,
            HeaderId::PAssertedIdentity => self.identity,
            // RFC 7315 4.4: where a phone is, it tells its provider, who tells nobody else.
            HeaderId::PAccessNetworkInfo | HeaderId::CellularNetworkInfo => self.location,
            _ => true,
        }
    }
}

/// Whether an access-net-spec says that the network provided it (RFC 7315 5.4): a phone outside
/// the trust domain cannot say so.
pub(super) fn is_network_provided(value: &[u8]) -> bool {
    value
        .split(|&byte| matches!(byte, b';' | b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(b"network-provided"))
}

fn is_provided(message: &Message<'_>) -> bool {
    message
        .values(HeaderId::PAccessNetworkInfo)
        .any(is_network_provided)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Index, parse};

    // Which of some fields pass, with Privacy `id` and an access network that the network provided.
    fn passing(has_domain: bool, from: bool, to: bool) -> Vec<HeaderId> {
        let text = b"MESSAGE sip:b@b SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
            Max-Forwards: 70\r\nFrom: <sip:a@a>;tag=1\r\nTo: <sip:b@b>\r\nCall-ID: c\r\n\
            CSeq: 1 MESSAGE\r\nPrivacy: id\r\nContent-Length: 0\r\n\
            P-Access-Network-Info: IEEE-802.11, 3GPP-NR-FDD;network-provided\r\n\r\n";
        let mut index = Index::new();
        let message = parse(text, &mut index).expect("well formed");
        let trust = Trust {
            has_domain,
            from,
            to,
        };
        assert_eq!(trust.wants_vector(&message), to, "the message has none");
        let border = trust.border(&message);
        let all = [
            HeaderId::PChargingVector,
            HeaderId::PAssertedService,
            HeaderId::PCalledPartyId,
            HeaderId::PAssertedIdentity,
            HeaderId::PAccessNetworkInfo,
        ];
        all.into_iter().filter(|id| border.passes(*id)).collect()
    }

    #[test]
    fn what_crosses_depends_on_both_sides_of_the_border() {
        use HeaderId::{
            PAccessNetworkInfo, PAssertedIdentity, PAssertedService, PCalledPartyId,
            PChargingVector,
        };
        let all = [
            PChargingVector,
            PAssertedService,
            PCalledPartyId,
            PAssertedIdentity,
            PAccessNetworkInfo,
        ];
        assert_eq!(passing(true, true, true), all);
        assert_eq!(passing(true, true, false), [PCalledPartyId]);
        assert_eq!(passing(true, false, true), []);
        assert_eq!(passing(true, false, false), []);
        let without_domain = [PAssertedService, PCalledPartyId, PAccessNetworkInfo];
        assert_eq!(passing(false, false, false), without_domain);
    }

    #[test]
    fn a_phone_says_where_it_is_but_not_what_the_network_provided() {
        assert!(is_network_provided(b"3GPP-NR-FDD; Network-Provided"));
        assert!(is_network_provided(b"IEEE-802.11;network-provided, GSTN"));
        assert!(!is_network_provided(
            b"IEEE-802.11;i-wlan-node-id=network-provided"
        ));
    }
}
