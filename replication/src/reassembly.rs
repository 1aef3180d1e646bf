//! Puts records together that were too long for one datagram.
//!
//! A few buffers of fixed size; the oldest gives way. Nothing is acked before it is whole, so
//! what gives way is sent again.

use crate::frame::Entry;
use crate::record::Version;

/// Records under way.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    payload_bytes_max: usize,
    parts: Vec<Part>,
    turn: u64,
    given_up: u64,
}

#[derive(Debug)]
struct Part {
    number: u64,
    version: Version,
    total: usize,
    seen: [u64; PIECES_MAX.div_ceil(64)],
    missing: usize,
    touched: u64,
    bytes: Vec<u8>,
}

impl Reassembly {
    pub(crate) fn new(payload_bytes_max: usize) -> Self {
        Self {
            payload_bytes_max,
            parts: Vec::new(),
            turn: 0,
            given_up: 0,
        }
    }

    /// Wholes that gave way before they were whole.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// As `add`, and frees the buffer at once: for what nobody sends again.
    pub(crate) fn add_once(&mut self, entry: &Entry<'_>) -> Option<&[u8]> {
        self.add(entry)?;
        let part = self.parts.iter_mut();
        let part = part.max_by_key(|part| part.touched)?;
        (part.number, part.touched) = (0, 0);
        Some(&part.bytes[..part.total])
    }

    /// Adds a piece; hands out the payload once it is whole.
    pub(crate) fn add(&mut self, entry: &Entry<'_>) -> Option<&[u8]> {
        let (total, offset) = (entry.total as usize, entry.offset as usize);
        let fits = total <= self.payload_bytes_max && total <= PIECES_MAX * PIECE;
        let is_whole_piece = entry.piece.len() == PIECE.min(total.checked_sub(offset)?);
        if !fits || !offset.is_multiple_of(PIECE) || !is_whole_piece {
            return None;
        }
        self.turn += 1;
        let at = self.part_of(entry);
        let part = &mut self.parts[at];
        part.touched = self.turn;
        let piece = offset / PIECE;
        if part.seen[piece / 64] >> (piece % 64) & 1 == 0 {
            part.seen[piece / 64] |= 1 << (piece % 64);
            part.missing -= 1;
            part.bytes[offset..offset + entry.piece.len()].copy_from_slice(entry.piece);
        }
        (part.missing == 0).then_some(&part.bytes[..total])
    }

    /// Frees the buffer of a record that is stored.
    pub(crate) fn drop_number(&mut self, number: u64) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.number == number) {
            (part.number, part.touched) = (0, 0);
        }
    }

    fn part_of(&mut self, entry: &Entry<'_>) -> usize {
        let total = entry.total as usize;
        let same = |part: &Part| {
            (part.number, part.version, part.total) == (entry.number, entry.version, total)
        };
        if let Some(at) = self.parts.iter().position(same) {
            return at;
        }
        let stale = self
            .parts
            .iter()
            .position(|part| part.number == entry.number);
        let at = stale.unwrap_or_else(|| {
            if self.parts.len() < PARTS_MAX {
                self.parts.push(Part::new(self.payload_bytes_max));
                return self.parts.len() - 1;
            }
            let oldest = self
                .parts
                .iter()
                .enumerate()
                .min_by_key(|(_, part)| part.touched);
            oldest.expect("PARTS_MAX is not 0").0
        });
        let part = &mut self.parts[at];
        self.given_up += u64::from(part.number != 0 && part.missing != 0);
        (part.number, part.version, part.total) = (entry.number, entry.version, total);
        part.seen = [0; PIECES_MAX.div_ceil(64)];
        part.missing = total.div_ceil(PIECE);
        at
    }
}

impl Part {
    fn new(payload_bytes_max: usize) -> Self {
        Self {
            number: 0,
            version: Version { epoch: 0, ver: 0 },
            total: 0,
            seen: [0; PIECES_MAX.div_ceil(64)],
            missing: 0,
            touched: 0,
            bytes: vec![0; payload_bytes_max],
        }
    }
}

/// Bytes of every piece but the last.
pub(crate) const PIECE: usize = 1280;
/// Pieces of the longest payload any configuration allows.
const PIECES_MAX: usize = crate::config::PAYLOAD_BYTES_LIMIT.div_ceil(PIECE);
/// Records one peer may have under way at once.
const PARTS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::EntryKind;
    use crate::record::CallId;

    fn piece(payload: &[u8], number: u64, version: Version, n: usize) -> Entry<'_> {
        let end = payload.len().min((n + 1) * PIECE);
        Entry {
            id: CallId::from_u128(1),
            version,
            number,
            owner: 1,
            shard: 0,
            schema: 0,
            kind: EntryKind::Put,
            flags: 0,
            total: payload.len() as u32,
            offset: (n * PIECE) as u32,
            piece: &payload[n * PIECE..end],
        }
    }

    #[test]
    fn pieces_make_a_whole_in_any_order_and_number() {
        let payload: Vec<u8> = (0..4000).map(|n| n as u8).collect();
        let mut pieces = Reassembly::new(8192);
        let v = Version::first(1);
        for n in [2, 0, 2, 0, 3] {
            assert!(pieces.add(&piece(&payload, 5, v, n)).is_none());
        }
        assert_eq!(pieces.add(&piece(&payload, 5, v, 1)), Some(&payload[..]));
    }

    #[test]
    fn pieces_of_different_versions_do_not_mix() {
        let (old, new) = (vec![1; 2000], vec![2; 2000]);
        let mut pieces = Reassembly::new(8192);
        assert!(pieces.add(&piece(&old, 5, Version::first(1), 0)).is_none());
        assert!(pieces.add(&piece(&new, 5, Version::first(2), 1)).is_none());
        assert_eq!(
            pieces.add(&piece(&new, 5, Version::first(2), 0)),
            Some(&new[..])
        );
    }

    #[test]
    fn too_many_records_at_once_cost_the_oldest() {
        let payload = vec![3; 2000];
        let mut pieces = Reassembly::new(8192);
        let v = Version::first(1);
        for number in 1..=PARTS_MAX as u64 + 1 {
            assert!(pieces.add(&piece(&payload, number, v, 0)).is_none());
        }
        assert_eq!(pieces.parts.len(), PARTS_MAX);
        assert!(pieces.add(&piece(&payload, 2, v, 1)).is_some());
        assert!(pieces.add(&piece(&payload, 1, v, 1)).is_none());
    }

    #[test]
    fn a_payload_longer_than_allowed_or_cut_elsewhere_is_ignored() {
        let payload = vec![3; 9000];
        let mut pieces = Reassembly::new(8192);
        let v = Version::first(1);
        assert!(pieces.add(&piece(&payload, 1, v, 0)).is_none());
        let odd = Entry {
            offset: 7,
            ..piece(&payload[..3000], 1, v, 0)
        };
        assert!(pieces.add(&odd).is_none());
        assert!(pieces.parts.is_empty());
    }
}
