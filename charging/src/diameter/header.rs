//! The 20 octets in front of every Diameter message (RFC 6733 s3).

/// Octets of a Diameter header.
pub const HEADER_LENGTH: usize = 20;

/// Command flag R: the message is a request.
pub const REQUEST: u8 = 0x80;
/// Command flag P: the message may be proxied.
pub const PROXIABLE: u8 = 0x40;
/// Command flag E: the answer reports a protocol error (RFC 6733 s7.2).
pub const ERROR: u8 = 0x20;
/// Command flag T: this request may have been sent before.
pub const RETRANSMITTED: u8 = 0x10;

/// Where the command flags stand in a message.
pub const FLAGS_AT: usize = 4;
/// Where the Hop-by-Hop Identifier stands in a message.
pub const HOP_BY_HOP_AT: usize = 12;
/// Where the End-to-End Identifier stands in a message.
pub const END_TO_END_AT: usize = 16;

/// A parsed Diameter header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Octets of the whole message, header and padding included.
    pub length: u32,
    /// [`REQUEST`], [`PROXIABLE`], [`ERROR`], [`RETRANSMITTED`]; reserved bits as received.
    pub flags: u8,
    /// Command Code, 24 bits.
    pub command: u32,
    /// Application-ID.
    pub application: u32,
    /// Matches an answer to its request on one connection.
    pub hop_by_hop: u32,
    /// Marks copies of one request end to end.
    pub end_to_end: u32,
}

/// Why octets are no Diameter header. Nothing has been consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Fewer than [`HEADER_LENGTH`] octets.
    Short,
    /// The version is not 1 (answered 5011 where an answer is possible).
    Version,
    /// The length is below 20 or no multiple of four (RFC 6733 s3).
    Length,
}

impl Header {
    /// A header to be encoded: the length is patched when the message is complete.
    #[must_use]
    pub const fn new(flags: u8, command: u32, application: u32) -> Self {
        Self {
            length: 0,
            flags,
            command,
            application,
            hop_by_hop: 0,
            end_to_end: 0,
        }
    }

    /// Reads the header at the start of `bytes`.
    ///
    /// # Errors
    /// See [`HeaderError`]. That `bytes` holds the whole message is not checked here.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(head) = bytes.first_chunk::<HEADER_LENGTH>() else {
            return Err(HeaderError::Short);
        };
        if head[0] != 1 {
            return Err(HeaderError::Version);
        }
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = word(0) & 0x00FF_FFFF;
        if (length as usize) < HEADER_LENGTH || !length.is_multiple_of(4) {
            return Err(HeaderError::Length);
        }
        Ok(Self {
            length,
            flags: head[FLAGS_AT],
            command: word(4) & 0x00FF_FFFF,
            application: word(8),
            hop_by_hop: word(HOP_BY_HOP_AT),
            end_to_end: word(END_TO_END_AT),
        })
    }

    /// The header as octets.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[0..4].copy_from_slice(&(self.length & 0x00FF_FFFF).to_be_bytes());
        bytes[0] = 1;
        bytes[4..8].copy_from_slice(&(self.command & 0x00FF_FFFF).to_be_bytes());
        bytes[FLAGS_AT] = self.flags;
        bytes[8..12].copy_from_slice(&self.application.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.hop_by_hop.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.end_to_end.to_be_bytes());
        bytes
    }

    /// The header of the answer to this request: same command, application, identifiers and
    /// P flag (RFC 6733 s6.2).
    #[must_use]
    pub const fn answer(&self) -> Self {
        Self {
            length: 0,
            flags: self.flags & PROXIABLE,
            ..*self
        }
    }

    /// Is the R flag set?
    #[must_use]
    pub const fn is_request(&self) -> bool {
        self.flags & REQUEST != 0
    }

    /// Is the E flag set?
    #[must_use]
    pub const fn is_error(&self) -> bool {
        self.flags & ERROR != 0
    }

    /// Is the T flag set?
    #[must_use]
    pub const fn is_retransmitted(&self) -> bool {
        self.flags & RETRANSMITTED != 0
    }
}

/// Writes the Hop-by-Hop Identifier into an encoded message; short input is left alone.
pub fn set_hop_by_hop(message: &mut [u8], id: u32) {
    if let Some(field) = message.get_mut(HOP_BY_HOP_AT..HOP_BY_HOP_AT + 4) {
        field.copy_from_slice(&id.to_be_bytes());
    }
}

/// Sets the T flag of an encoded message; short input is left alone.
pub fn set_retransmitted(message: &mut [u8]) {
    if let Some(flags) = message.get_mut(FLAGS_AT) {
        *flags |= RETRANSMITTED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACR: [u8; 20] = [
        1, 0, 0, 20, 0xD0, 0, 1, 0x0F, 0, 0, 0, 3, 0xAA, 0xBB, 0xCC, 0xDD, 1, 2, 3, 4,
    ];

    #[test]
    fn a_header_survives_the_round_trip() {
        let header = Header::parse(&ACR).unwrap();
        assert_eq!(header.command, 271);
        assert_eq!(header.application, 3);
        assert!(header.is_request() && header.is_retransmitted() && !header.is_error());
        assert_eq!(header.hop_by_hop, 0xAABB_CCDD);
        assert_eq!(header.to_bytes(), ACR);
    }

    #[test]
    fn an_answer_keeps_identifiers_and_the_p_flag_only() {
        let answer = Header::parse(&ACR).unwrap().answer();
        assert_eq!(answer.flags, PROXIABLE);
        assert_eq!(
            (answer.hop_by_hop, answer.end_to_end),
            (0xAABB_CCDD, 0x0102_0304)
        );
    }

    #[test]
    fn bad_versions_and_lengths_are_refused() {
        let mut bytes = ACR;
        bytes[0] = 2;
        assert_eq!(Header::parse(&bytes), Err(HeaderError::Version));
        bytes[0] = 1;
        bytes[3] = 19;
        assert_eq!(Header::parse(&bytes), Err(HeaderError::Length));
        bytes[3] = 22;
        assert_eq!(Header::parse(&bytes), Err(HeaderError::Length));
        assert_eq!(Header::parse(&bytes[..19]), Err(HeaderError::Short));
    }
}
