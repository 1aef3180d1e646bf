//! Heartbeats: what a node says of itself, and what it remembers of the others (V1).

use super::{Heartbeat, PeerView, SUSPECT_NS, VOTERS_MAX, Versions, ViewMessage, Views};
use crate::plant::{self, Plant};
use crate::register::RegisterMessage;

impl Views {
    pub(super) fn on_heartbeat(&mut self, now: u64, from: u8, heartbeat: &Heartbeat) {
        if heartbeat.incarnation < self.peers[usize::from(from)].incarnation
            || !self.is_compatible(from, &heartbeat.versions)
        {
            return;
        }
        let peer = &mut self.peers[usize::from(from)];
        peer.versions = heartbeat.versions;
        (peer.mask, peer.heard) = (heartbeat.mask, now);
        (peer.incarnation, peer.view) = (heartbeat.incarnation, heartbeat.view);
        (peer.synced, peer.settled) = (heartbeat.synced, heartbeat.settled);
        (peer.kept, peer.ages_ms) = (heartbeat.kept, heartbeat.ages_ms);
        (peer.drain, peer.drained) = (heartbeat.drain, heartbeat.drained);
        peer.given = now;
        if plant::is(Plant::LeaseByHearing) {
            peer.acked = now;
        }
        // Who does not know what it accepted confirms nobody's lease. A view may be known that was
        // never accepted here: it was decided without this voter, and counts as much.
        let accepted = if self.register.is_lost() {
            u32::MAX
        } else {
            let accepted = self.register.vote().accepted.1.number;
            accepted.max(self.view.number)
        };
        self.send(
            from,
            ViewMessage::Ack {
                sent: heartbeat.sent,
                accepted,
            },
        );
        if heartbeat.view < self.view.number {
            let decided = RegisterMessage::Decided(self.view);
            self.send(from, ViewMessage::Register(decided));
        }
    }

    pub(super) fn heartbeat(&self, now: u64) -> Heartbeat {
        let age = |node: usize| {
            let ms = now.saturating_sub(self.peers[node].given) / 1_000_000;
            u16::try_from(ms).unwrap_or(u16::MAX)
        };
        let own = &self.peers[self.me()];
        Heartbeat {
            sent: now,
            incarnation: self.incarnation,
            view: self.view.number,
            mask: own.mask,
            synced: self.synced,
            settled: self.settled,
            kept: self.kept,
            drain: self.drain,
            drained: self.drained,
            versions: self.versions,
            ages_ms: std::array::from_fn(age),
        }
    }

    /// What this node would tell itself in a heartbeat.
    pub(super) fn note_self(&mut self, now: u64) {
        let fresh = |node: &usize| *node == self.me() || self.has_fresh_round_trip(now, *node);
        let mask = (0..usize::from(self.config.voters))
            .filter(fresh)
            .fold(0, |m, n| m | 1 << n);
        let me = self.me();
        let (synced, settled, kept) = (self.synced, self.settled, self.kept);
        let (incarnation, view) = (self.incarnation, self.view.number);
        let (drain, drained) = (self.drain, self.drained);
        let own = &mut self.peers[me];
        (own.mask, own.heard, own.incarnation, own.view) = (mask, now, incarnation, view);
        (own.synced, own.settled, own.kept) = (synced, settled, kept);
        (own.drain, own.drained) = (drain, drained);
    }

    pub(super) fn has_fresh_round_trip(&self, now: u64, node: usize) -> bool {
        // After a start everybody gets the benefit of the doubt once.
        now < self.peers[node].acked.max(self.boot) + SUSPECT_NS
    }
}

impl PeerView {
    pub(super) fn unknown(now: u64) -> Self {
        Self {
            acked: 0,
            accepted: 0,
            mask: u32::MAX,
            heard: now,
            incarnation: 0,
            view: 0,
            synced: 0,
            settled: 0,
            kept: true,
            drain: false,
            drained: 0,
            versions: Versions::default(),
            given: now,
            ages_ms: [0; VOTERS_MAX],
            dead_since: now,
            former_lives: 0,
        }
    }
}
