//! AVPs (RFC 6733 s4): a reader that borrows, a writer that appends.
//!
//! Reading never copies and never recurses: a grouped AVP gives another iterator, and each
//! iterator knows how deep it stands. Writing patches lengths when a group or a message closes.

use std::net::IpAddr;

use super::dictionary::Attribute;
use super::header::{HEADER_LENGTH, Header, HeaderError};

/// AVP flag V: a Vendor-Id follows the length.
pub const VENDOR: u8 = 0x80;
/// AVP flag M: the receiver must understand the AVP.
pub const MANDATORY: u8 = 0x40;

/// How deep grouped AVPs may nest. The deepest group of TS 32.299 stands at 5.
pub const DEPTH_MAX: u8 = 8;

/// Seconds from 1900 (the epoch of Time AVPs, RFC 6733 s4.3.1) to 1970: 70 years, 17 leap days.
pub const NTP_OFFSET_S: u64 = (70 * 365 + 17) * 86_400;

/// One complete message: its header and the AVPs behind it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The parsed header.
    pub header: Header,
    bytes: &'a [u8],
}

/// Why octets are no Diameter message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// The header is bad.
    Header(HeaderError),
    /// The header's length is not the number of octets given.
    Length,
}

impl<'a> Message<'a> {
    /// Reads the header of `bytes`, which must be exactly one message. AVPs are checked as they
    /// are iterated.
    ///
    /// # Errors
    /// See [`MessageError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let header = Header::parse(bytes).map_err(MessageError::Header)?;
        if header.length as usize != bytes.len() {
            return Err(MessageError::Length);
        }
        Ok(Self { header, bytes })
    }

    /// The whole message.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The AVPs at command level.
    #[must_use]
    pub fn avps(&self) -> Avps<'a> {
        Avps {
            rest: &self.bytes[HEADER_LENGTH..],
            depth: 0,
        }
    }

    /// The first well-formed AVP of that attribute at command level.
    #[must_use]
    pub fn find(&self, attribute: Attribute) -> Option<Avp<'a>> {
        self.avps().find_attribute(attribute)
    }
}

/// One AVP of a message.
#[derive(Clone, Copy, Debug)]
pub struct Avp<'a> {
    /// AVP Code.
    pub code: u32,
    /// Vendor-ID, 0 if the V flag is clear.
    pub vendor: u32,
    /// [`VENDOR`], [`MANDATORY`]; reserved bits as received.
    pub flags: u8,
    /// The value without header and padding.
    pub data: &'a [u8],
    /// Header, value and padding as received.
    pub raw: &'a [u8],
    depth: u8,
}

/// Why an AVP cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AvpError {
    /// The octets end inside the AVP header.
    Truncated,
    /// The AVP length is below its header's size or beyond the enclosing octets (5014).
    Length,
    /// The octets end inside the padding.
    Padding,
    /// Groups nest deeper than [`DEPTH_MAX`].
    Depth,
    /// The value has the wrong size for its type (5014).
    Size,
}

impl<'a> Avp<'a> {
    /// Is this AVP of that attribute? Flags are not compared: peers differ about M.
    #[must_use]
    pub const fn is(&self, attribute: Attribute) -> bool {
        self.code == attribute.code && self.vendor == attribute.vendor
    }

    /// The value as Unsigned32 or Enumerated.
    ///
    /// # Errors
    /// [`AvpError::Size`] unless the value has four octets.
    pub fn u32(&self) -> Result<u32, AvpError> {
        self.data
            .try_into()
            .map(u32::from_be_bytes)
            .map_err(|_| AvpError::Size)
    }

    /// The value as Integer32.
    ///
    /// # Errors
    /// [`AvpError::Size`] unless the value has four octets.
    pub fn i32(&self) -> Result<i32, AvpError> {
        self.data
            .try_into()
            .map(i32::from_be_bytes)
            .map_err(|_| AvpError::Size)
    }

    /// The value as Unsigned64.
    ///
    /// # Errors
    /// [`AvpError::Size`] unless the value has eight octets.
    pub fn u64(&self) -> Result<u64, AvpError> {
        self.data
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| AvpError::Size)
    }

    /// The value of a Time AVP in seconds since 1970. RFC 6733 s4.3.1: a value with the top bit
    /// clear lies behind the overflow of 2036.
    ///
    /// # Errors
    /// [`AvpError::Size`] unless the value has four octets.
    pub fn unix_seconds(&self) -> Result<u64, AvpError> {
        let ntp = u64::from(self.u32()?);
        let era = if ntp & 0x8000_0000 == 0 { 1 << 32 } else { 0 };
        Ok((ntp + era).saturating_sub(NTP_OFFSET_S))
    }

    /// The AVPs inside this grouped AVP.
    ///
    /// # Errors
    /// [`AvpError::Depth`] beyond [`DEPTH_MAX`].
    pub const fn grouped(&self) -> Result<Avps<'a>, AvpError> {
        if self.depth >= DEPTH_MAX {
            return Err(AvpError::Depth);
        }
        Ok(Avps {
            rest: self.data,
            depth: self.depth + 1,
        })
    }
}

/// Iterates over AVPs that stand side by side. After an error it ends.
#[derive(Clone, Copy, Debug)]
pub struct Avps<'a> {
    rest: &'a [u8],
    depth: u8,
}

impl<'a> Avps<'a> {
    /// AVPs without a message around them.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            depth: 0,
        }
    }

    /// The first AVP of that attribute; `None` if there is none before a malformed one.
    #[must_use]
    pub fn find_attribute(self, attribute: Attribute) -> Option<Avp<'a>> {
        self.map_while(Result::ok).find(|avp| avp.is(attribute))
    }

    fn read(&mut self) -> Result<Avp<'a>, AvpError> {
        let Some(head) = self.rest.first_chunk::<8>() else {
            return Err(AvpError::Truncated);
        };
        let code = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let flags = head[4];
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        let (vendor, header_length) = if flags & VENDOR == 0 {
            (0, 8)
        } else {
            let Some(field) = self.rest.get(8..12) else {
                return Err(AvpError::Truncated);
            };
            (
                u32::from_be_bytes([field[0], field[1], field[2], field[3]]),
                12,
            )
        };
        if length < header_length || length > self.rest.len() {
            return Err(AvpError::Length);
        }
        let padded = length.next_multiple_of(4);
        if padded > self.rest.len() {
            return Err(AvpError::Padding);
        }
        let (raw, rest) = self.rest.split_at(padded);
        self.rest = rest;
        Ok(Avp {
            code,
            vendor,
            flags,
            data: &raw[header_length..length],
            raw,
            depth: self.depth,
        })
    }
}

impl<'a> Iterator for Avps<'a> {
    type Item = Result<Avp<'a>, AvpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let item = self.read();
        if item.is_err() {
            self.rest = &[];
        }
        Some(item)
    }
}

/// Appends a message, or loose AVPs, to a buffer of the caller.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
}

/// An open grouped AVP: hand it back to [`Writer::close`].
#[must_use = "a group that is not closed has length zero"]
#[derive(Debug)]
pub struct Group {
    at: usize,
}

impl<'b> Writer<'b> {
    /// Starts a message behind what `out` holds; [`Writer::finish`] patches its length.
    pub fn message(out: &'b mut Vec<u8>, header: &Header) -> Self {
        let start = out.len();
        out.extend_from_slice(&header.to_bytes());
        Self { out, start }
    }

    /// Starts loose AVPs behind what `out` holds.
    pub const fn avps(out: &'b mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start }
    }

    /// Octets written so far by this writer.
    #[must_use]
    pub const fn written(&self) -> usize {
        self.out.len() - self.start
    }

    /// Octets in the buffer: the position of the next AVP.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.out.len()
    }

    /// Closes a message: patches the message length.
    ///
    /// # Panics
    /// If the message has 2^24 octets or more: callers bound what they write.
    pub fn finish(self) {
        let length = self.written();
        patch_length(self.out, self.start + 1, length);
    }

    /// Appends an AVP of raw octets (OctetString, DiameterIdentity).
    pub fn octets(&mut self, attribute: Attribute, data: &[u8]) {
        self.head(attribute, data.len());
        self.out.extend_from_slice(data);
        self.pad();
    }

    /// Appends a UTF8String; what is no UTF-8 becomes `?`, so that no value ever grows.
    pub fn text(&mut self, attribute: Attribute, data: &[u8]) {
        if data.is_ascii() || std::str::from_utf8(data).is_ok() {
            self.octets(attribute, data);
            return;
        }
        let at = self.out.len();
        self.head(attribute, 0);
        for chunk in data.utf8_chunks() {
            self.out.extend_from_slice(chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                self.out.push(b'?');
            }
        }
        let length = self.out.len() - at;
        patch_length(self.out, at + 5, length);
        self.pad();
    }

    /// Appends an Unsigned32 or Enumerated.
    pub fn u32(&mut self, attribute: Attribute, value: u32) {
        self.octets(attribute, &value.to_be_bytes());
    }

    /// Appends an Integer32.
    pub fn i32(&mut self, attribute: Attribute, value: i32) {
        self.octets(attribute, &value.to_be_bytes());
    }

    /// Appends an Unsigned64.
    pub fn u64(&mut self, attribute: Attribute, value: u64) {
        self.octets(attribute, &value.to_be_bytes());
    }

    /// Appends a Time AVP from seconds since 1970.
    pub fn time(&mut self, attribute: Attribute, unix_seconds: u64) {
        self.octets(attribute, &ntp_seconds(unix_seconds).to_be_bytes());
    }

    /// Appends an Address (RFC 6733 s4.3.1: address family, then the address).
    pub fn address(&mut self, attribute: Attribute, address: IpAddr) {
        let mut data = [0; 18];
        let length = match address {
            IpAddr::V4(v4) => {
                data[1] = 1;
                data[2..6].copy_from_slice(&v4.octets());
                6
            }
            IpAddr::V6(v6) => {
                data[1] = 2;
                data[2..].copy_from_slice(&v6.octets());
                18
            }
        };
        self.octets(attribute, &data[..length]);
    }

    /// Appends AVPs that are already encoded.
    pub fn encoded(&mut self, avps: &[u8]) {
        self.out.extend_from_slice(avps);
    }

    /// Opens a grouped AVP.
    pub fn open(&mut self, attribute: Attribute) -> Group {
        let at = self.out.len();
        self.head(attribute, 0);
        Group { at }
    }

    /// Closes a grouped AVP: patches its length.
    ///
    /// # Panics
    /// If the group has 2^24 octets or more: callers bound what they write.
    pub fn close(&mut self, group: Group) {
        let length = self.out.len() - group.at;
        patch_length(self.out, group.at + 5, length);
    }

    /// Closes a grouped AVP, or takes it back if nothing was written into it.
    pub fn close_unless_empty(&mut self, group: Group, attribute: Attribute) {
        if self.out.len() == group.at + attribute.header_length() {
            self.out.truncate(group.at);
        } else {
            self.close(group);
        }
    }

    fn head(&mut self, attribute: Attribute, data_length: usize) {
        let length = attribute.header_length() + data_length;
        assert!(length < 1 << 24, "an AVP length has 24 bits");
        let (code, vendor) = (attribute.code.to_be_bytes(), attribute.vendor.to_be_bytes());
        let [_, l0, l1, l2] = (length as u32).to_be_bytes();
        let mut head = [0; 12];
        head[..4].copy_from_slice(&code);
        head[4..8].copy_from_slice(&[attribute.flags, l0, l1, l2]);
        head[8..].copy_from_slice(&vendor);
        // One reservation for all that follows, padding included.
        self.out.reserve(length + 3);
        if attribute.header_length() == 12 {
            self.out.extend_from_slice(&head);
        } else {
            self.out.extend_from_slice(&head[..8]);
        }
    }

    fn pad(&mut self) {
        let padding = (4 - ((self.out.len() - self.start) & 3)) & 3;
        self.out.extend_from_slice(&[0; 3][..padding]);
    }
}

/// Seconds since 1970 as the value of a Time AVP (it overflows in 2036, as SNTP does).
#[must_use]
pub const fn ntp_seconds(unix_seconds: u64) -> u32 {
    unix_seconds.wrapping_add(NTP_OFFSET_S) as u32
}

/// Writes a 24-bit length at `at`.
pub(crate) fn patch_length(bytes: &mut [u8], at: usize, length: usize) {
    assert!(length < 1 << 24, "Diameter lengths have 24 bits");
    bytes[at..at + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
}

#[cfg(test)]
mod tests {
    use super::super::dictionary as d;
    use super::*;

    fn loose(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Writer::avps(&mut out));
        out
    }

    #[test]
    fn base_and_vendor_avps_have_their_known_octets() {
        let base = loose(|w| w.text(d::SESSION_ID, b"a;1;2"));
        assert_eq!(base, b"\x00\x00\x01\x07\x40\x00\x00\x0Da;1;2\0\0\0");
        let vendor = loose(|w| w.u32(d::ROLE_OF_NODE, 1));
        assert_eq!(
            vendor,
            b"\x00\x00\x03\x3D\xC0\x00\x00\x10\x00\x00\x28\xAF\x00\x00\x00\x01"
        );
    }

    #[test]
    fn time_counts_from_1900_and_returns() {
        // 2208988800 + 1609459200 = 3818448000 = 0xE398E480 (RFC 868 gives the first term).
        let bytes = loose(|w| w.time(d::EVENT_TIMESTAMP, 1_609_459_200));
        assert_eq!(&bytes[8..], [0xE3, 0x98, 0xE4, 0x80]);
        let avp = Avps::new(&bytes).next().unwrap().unwrap();
        assert_eq!(avp.unix_seconds(), Ok(1_609_459_200));
        let late = loose(|w| w.time(d::EVENT_TIMESTAMP, 2_300_000_000));
        let avp = Avps::new(&late).next().unwrap().unwrap();
        assert_eq!(avp.unix_seconds(), Ok(2_300_000_000));
    }

    #[test]
    fn groups_carry_their_length_and_nest() {
        let bytes = loose(|w| {
            let outer = w.open(d::SERVICE_INFORMATION);
            let inner = w.open(d::IMS_INFORMATION);
            w.text(d::USER_SESSION_ID, b"abc");
            w.close(inner);
            w.close(outer);
        });
        assert_eq!(bytes.len(), 12 + 12 + 16);
        let outer = Avps::new(&bytes)
            .find_attribute(d::SERVICE_INFORMATION)
            .unwrap();
        let inner = outer
            .grouped()
            .unwrap()
            .find_attribute(d::IMS_INFORMATION)
            .unwrap();
        let text = inner
            .grouped()
            .unwrap()
            .find_attribute(d::USER_SESSION_ID)
            .unwrap();
        assert_eq!(text.data, b"abc");
    }

    #[test]
    fn an_empty_group_can_be_taken_back() {
        let bytes = loose(|w| {
            let group = w.open(d::TIME_STAMPS);
            w.close_unless_empty(group, d::TIME_STAMPS);
        });
        assert!(bytes.is_empty());
    }

    #[test]
    fn octets_that_are_no_text_become_question_marks() {
        let bytes = loose(|w| w.text(d::FROM_ADDRESS, b"a\xFF\xFEb"));
        let avp = Avps::new(&bytes).next().unwrap().unwrap();
        assert_eq!(avp.data, b"a??b");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn addresses_carry_their_family() {
        let bytes = loose(|w| w.address(d::HOST_IP_ADDRESS, "192.0.2.1".parse().unwrap()));
        assert_eq!(&bytes[8..14], [0, 1, 192, 0, 2, 1]);
        let bytes = loose(|w| w.address(d::HOST_IP_ADDRESS, "2001:db8::1".parse().unwrap()));
        assert_eq!(&bytes[8..12], [0, 2, 0x20, 0x01]);
        assert_eq!(bytes.len(), 28);
    }

    #[test]
    fn malformed_avps_end_the_iteration_with_their_reason() {
        let error = |bytes: &[u8]| Avps::new(bytes).find_map(Result::err);
        assert_eq!(error(&[0, 0, 1]), Some(AvpError::Truncated));
        assert_eq!(error(&[0, 0, 1, 7, 0x40, 0, 0, 7]), Some(AvpError::Length));
        assert_eq!(
            error(&[0, 0, 1, 7, 0xC0, 0, 0, 12]),
            Some(AvpError::Truncated)
        );
        assert_eq!(
            error(&[0, 0, 1, 7, 0x40, 0, 0, 12, 1]),
            Some(AvpError::Length)
        );
        assert_eq!(
            error(&[0, 0, 1, 7, 0x40, 0, 0, 9, 1]),
            Some(AvpError::Padding)
        );
        assert_eq!(error(&[0, 0, 1, 7, 0x40, 0, 0, 9, 1, 0, 0, 0]), None);
    }

    #[test]
    fn a_thousand_nested_groups_stop_at_the_depth_limit() {
        let mut bytes = Vec::new();
        let mut writer = Writer::avps(&mut bytes);
        let groups: Vec<Group> = (0..1_000).map(|_| writer.open(d::FAILED_AVP)).collect();
        for group in groups.into_iter().rev() {
            writer.close(group);
        }
        let mut avps = Avps::new(&bytes);
        let mut depth = 0;
        let error = loop {
            let avp = avps.next().unwrap().unwrap();
            match avp.grouped() {
                Ok(inner) => avps = inner,
                Err(error) => break error,
            }
            depth += 1;
        };
        assert_eq!((error, depth), (AvpError::Depth, DEPTH_MAX));
    }

    #[test]
    fn a_message_is_exactly_as_long_as_its_header_says() {
        let mut out = Vec::new();
        let mut writer = Writer::message(&mut out, &Header::new(0x80, 280, 0));
        writer.text(d::ORIGIN_HOST, b"a.example");
        writer.finish();
        assert!(Message::parse(&out).is_ok());
        assert_eq!(
            Message::parse(&out[..20]).unwrap_err(),
            MessageError::Length
        );
    }
}
