//! Which node holds, and which adopts, a call: rendezvous hashing over the members of a view.
//!
//! Every node computes the same order of members for a call from the call's id alone, and a
//! member that comes or goes changes the place of no other.

use crate::record::CallId;

/// Weight of a node for a call; the member with the greatest comes first.
#[must_use]
#[inline]
pub fn weight(id: CallId, node: u16) -> u64 {
    // SplitMix64's finish: every bit of the call and of the node reaches every bit of the weight.
    let mut mixed = id.hash() ^ (u64::from(node) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Whether fewer than `first` of the `members` come before `node` for this call.
#[must_use]
pub fn is_among_first(
    id: CallId,
    node: u16,
    first: usize,
    members: impl Iterator<Item = u16>,
) -> bool {
    let own = (weight(id, node), node);
    members
        .filter(|&member| (weight(id, member), member) > own)
        .count()
        < first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(id: CallId, members: &[u16]) -> Vec<u16> {
        let is_first = |&&node: &&u16| is_among_first(id, node, 1, members.iter().copied());
        members.iter().filter(is_first).copied().collect()
    }

    #[test]
    fn every_call_has_exactly_one_first_member_and_the_load_is_even() {
        let mut load = [0; 5];
        for counter in 0..5000 {
            let chosen = first(CallId::new(1, 0, 1, counter), &[0, 1, 2, 3, 4]);
            assert_eq!(chosen.len(), 1);
            load[usize::from(chosen[0])] += 1;
        }
        assert!(
            load.iter().all(|&calls| (850..1150).contains(&calls)),
            "{load:?}"
        );
    }

    #[test]
    fn a_member_that_goes_moves_only_its_own_calls() {
        for counter in 0..1000 {
            let id = CallId::new(1, 0, 1, counter);
            let (before, after) = (first(id, &[0, 1, 2, 3]), first(id, &[0, 1, 3]));
            assert!(before == after || before == [2]);
        }
    }
}
