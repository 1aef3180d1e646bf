//! The backlog's log on a disk, as pure functions: frames to append, and what a scan recovers.
//!
//! ```text
//!  0 u32 magic      4 u32 crc32c over [8 .. 24 + length]
//!  8 u64 sequence  16 u32 length   20 u32 kind (1 put, 2 delete)
//! 24 payload (put: the ACR), padded with zeros to a multiple of 8
//! ```
//!
//! A log is a row of segments. Frames are only ever appended; a delete names the sequence of a
//! put, in the same or an earlier segment; a segment whose puts are all deleted may be removed
//! once no segment before it is left. A scan believes nothing without its checksum, so a torn
//! tail after a crash ends the segment, and damage in the middle costs only what it hit.

use std::collections::BTreeMap;

/// Octets in front of a payload.
pub const FRAME_HEADER_LENGTH: usize = 24;
/// Longest payload: the longest Diameter message.
pub const PAYLOAD_LENGTH_MAX: usize = 1 << 24;

const MAGIC: u32 = 0x52_66_4C_31;
const PUT: u32 = 1;
const DELETE: u32 = 2;
const ALIGNMENT: usize = 8;

/// Appends the frame of a stored record to `out`.
pub fn encode_put(out: &mut Vec<u8>, sequence: u64, acr: &[u8]) {
    encode(out, sequence, PUT, acr);
}

/// Appends the frame that deletes a stored record to `out`.
pub fn encode_delete(out: &mut Vec<u8>, sequence: u64) {
    encode(out, sequence, DELETE, &[]);
}

/// Octets a put of that payload takes in a segment.
#[must_use]
pub const fn frame_length(payload_length: usize) -> usize {
    (FRAME_HEADER_LENGTH + payload_length).next_multiple_of(ALIGNMENT)
}

fn encode(out: &mut Vec<u8>, sequence: u64, kind: u32, payload: &[u8]) {
    assert!(
        payload.len() < PAYLOAD_LENGTH_MAX,
        "a Diameter message has less than 2^24 octets"
    );
    let start = out.len();
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(payload);
    let crc = crc32c::crc32c(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + frame_length(payload.len()), 0);
}

/// Where a stored record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The segment.
    pub segment: u64,
    /// Offset of its payload in the segment.
    pub offset: usize,
    /// Octets of the payload.
    pub length: usize,
}

/// What scanning segments, oldest first, has found.
#[derive(Debug, Default)]
pub struct Recovery {
    live: BTreeMap<u64, Location>,
    next_sequence: u64,
    /// Octets that belong to no frame: damage, or a torn tail.
    pub octets_skipped: u64,
    /// Frames that carried a right checksum.
    pub frames_read: u64,
}

impl Recovery {
    /// Nothing scanned yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            live: BTreeMap::new(),
            next_sequence: 0,
            octets_skipped: 0,
            frames_read: 0,
        }
    }

    /// Scans one segment. Returns the offset behind its last good frame: append there, or start
    /// a new segment.
    pub fn scan(&mut self, segment: u64, bytes: &[u8]) -> usize {
        let (mut at, mut end) = (0, 0);
        while at < bytes.len() {
            match read_frame(&bytes[at..]) {
                Some((sequence, kind, length)) => {
                    self.apply(
                        sequence,
                        kind,
                        Location {
                            segment,
                            offset: at + FRAME_HEADER_LENGTH,
                            length,
                        },
                    );
                    at += frame_length(length);
                    end = at.min(bytes.len());
                }
                None => {
                    // Frames are aligned: the next one can only start at a multiple of 8.
                    let step = ALIGNMENT.min(bytes.len() - at);
                    self.octets_skipped += step as u64;
                    at += step;
                }
            }
        }
        end
    }

    /// The records still owed to the CDF, in the order they were stored.
    pub fn live(&self) -> impl Iterator<Item = (u64, Location)> + '_ {
        self.live
            .iter()
            .map(|(&sequence, &location)| (sequence, location))
    }

    /// Does anything in that segment have to be kept?
    #[must_use]
    pub fn is_needed(&self, segment: u64) -> bool {
        self.live
            .values()
            .any(|location| location.segment == segment)
    }

    /// The sequence the next stored record gets: above all that were ever seen.
    #[must_use]
    pub const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    fn apply(&mut self, sequence: u64, kind: u32, location: Location) {
        self.frames_read += 1;
        self.next_sequence = self.next_sequence.max(sequence.saturating_add(1));
        match kind {
            PUT => {
                self.live.insert(sequence, location);
            }
            _ => {
                self.live.remove(&sequence);
            }
        }
    }
}

/// Sequence, kind and payload length of the frame at the start of `bytes`.
fn read_frame(bytes: &[u8]) -> Option<(u64, u32, usize)> {
    let head = bytes.first_chunk::<FRAME_HEADER_LENGTH>()?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (length, kind) = (word(16) as usize, word(20));
    if word(0) != MAGIC || length >= PAYLOAD_LENGTH_MAX || !matches!(kind, PUT | DELETE) {
        return None;
    }
    let covered = bytes.get(8..FRAME_HEADER_LENGTH + length)?;
    if crc32c::crc32c(covered) != word(4) {
        return None;
    }
    let sequence = u64::from(word(8)) | u64::from(word(12)) << 32;
    Some((sequence, kind, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(recovery: &Recovery) -> Vec<u64> {
        recovery.live().map(|(sequence, _)| sequence).collect()
    }

    #[test]
    fn what_was_put_and_not_deleted_is_recovered_in_order() {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for sequence in 1..=3 {
            encode_put(
                &mut first,
                sequence,
                format!("record {sequence}").as_bytes(),
            );
        }
        encode_delete(&mut second, 2);
        encode_put(&mut second, 4, b"");
        let mut recovery = Recovery::new();
        assert_eq!(recovery.scan(0, &first), first.len());
        assert_eq!(recovery.scan(1, &second), second.len());
        assert_eq!(live(&recovery), [1, 3, 4]);
        let (_, location) = recovery.live().nth(1).unwrap();
        let payload = &first[location.offset..location.offset + location.length];
        assert_eq!(payload, b"record 3");
        assert_eq!((recovery.next_sequence(), recovery.octets_skipped), (5, 0));
        assert!(recovery.is_needed(0) && recovery.is_needed(1) && !recovery.is_needed(2));
    }

    #[test]
    fn a_torn_tail_ends_the_segment_at_every_length() {
        let mut bytes = Vec::new();
        encode_put(&mut bytes, 1, b"whole");
        let whole = bytes.len();
        encode_put(&mut bytes, 2, b"torn in the middle");
        let last_payload_octet = whole + FRAME_HEADER_LENGTH + 18;
        for length in whole..last_payload_octet {
            let mut recovery = Recovery::new();
            assert_eq!(recovery.scan(0, &bytes[..length]), whole);
            assert_eq!(live(&recovery), [1]);
        }
    }

    #[test]
    fn a_flipped_bit_costs_its_own_record_only() {
        let mut bytes = Vec::new();
        for sequence in 1..=3 {
            encode_put(&mut bytes, sequence, b"0123456789");
        }
        let frame = frame_length(10);
        for at in frame..frame + FRAME_HEADER_LENGTH + 10 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            let mut recovery = Recovery::new();
            recovery.scan(0, &damaged);
            assert_eq!(live(&recovery), [1, 3], "octet {at}");
            assert_eq!(recovery.octets_skipped, frame as u64);
        }
    }

    #[test]
    fn octets_from_elsewhere_recover_nothing() {
        let mut random = crate::random::SplitMix64::new(8);
        let noise: Vec<u8> = (0..65_536).map(|_| random.next_u32() as u8).collect();
        let mut recovery = Recovery::new();
        assert_eq!(recovery.scan(0, &noise), 0);
        assert_eq!(recovery.frames_read, 0);
    }
}
