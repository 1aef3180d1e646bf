//! The streams between the shards and the CDFs.

use charging::diameter::avp::Message as Diameter;
use charging::diameter::routing::IoAction;
use charging::diameter::routing::PeerIndex;
use charging::server::CdfIo;
use charging::server::ConnectionId;
use charging::server::Fault;
use dataplane::shard::Shard;

use super::Event;
use super::Sabotage;
use super::World;
use crate::cdf::Link;

impl World {
    pub(super) fn serve_router(&mut self, place: usize, shard: &mut Shard) {
        while let Some(action) = shard.router().poll_io() {
            match action {
                IoAction::Connect { peer, .. } => {
                    let far = usize::from(peer.0);
                    let event = Event::Connected {
                        shard: place,
                        far,
                        life: self.life_of(place),
                    };
                    self.push(self.now + 3, event);
                }
                IoAction::Close { peer } => {
                    let far = &mut self.fars[usize::from(peer.0)];
                    if let Some(link) = far.links.remove(&place) {
                        far.cdf.on_closed(link.id);
                    }
                }
            }
        }
        for far in 0..self.fars.len() {
            let Some(waiting) = shard.router().transmit(PeerIndex(far as u16)) else {
                continue;
            };
            if waiting.is_empty() {
                continue;
            }
            let bytes = std::mem::take(waiting);
            self.check_written_ahead(place, &bytes);
            if self.setup.cluster.is_some() {
                self.check_copied_ahead(place, shard, &bytes);
            }
            self.note(4, &bytes);
            let entry = &mut self.fars[far];
            let Some(link) = entry.links.get_mut(&place) else {
                continue;
            };
            link.broken |= entry.is_black;
            let (id, at) = (link.id, link.arrival(0, self.now + entry.delay));
            for bytes in self.pieces(bytes) {
                let shard = place;
                self.push(
                    at,
                    Event::Up {
                        shard,
                        far,
                        id,
                        bytes,
                    },
                );
            }
        }
    }

    // A stream knows no messages: what was written at once may arrive in two parts.
    fn pieces(&mut self, mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
        if self.setup.sabotage != Sabotage::None || self.rng.below(4) > 0 {
            return vec![bytes];
        }
        let rest = bytes.split_off(self.rng.below(bytes.len() as u64) as usize);
        vec![bytes, rest]
    }

    // No ACR leaves whose record a restart would not find.
    pub(super) fn check_written_ahead(&mut self, place: usize, bytes: &[u8]) {
        if self.setup.cluster.is_some() {
            return;
        }
        let seat = &self.seats[place];
        let mut states = None;
        for acr in requests(bytes) {
            let session = acr.find(charging::diameter::dictionary::SESSION_ID);
            let number = acr.find(charging::diameter::dictionary::ACCOUNTING_RECORD_NUMBER);
            let session = session.map(|avp| avp.data).unwrap_or_default();
            let number = number.and_then(|avp| avp.u32().ok()).unwrap_or(u32::MAX);
            let states = states.get_or_insert_with(|| seat.blobs.states());
            let pending = states.iter().any(|state| {
                state
                    .charging
                    .accounting
                    .as_ref()
                    .is_some_and(|accounting| {
                        accounting.session_id() == session
                            && accounting
                                .pending_key()
                                .is_some_and(|key| key.number == number)
                    })
            });
            let stored = || {
                seat.records.all().iter().any(|(_, stored)| {
                    Diameter::parse(stored).is_ok_and(|stored| {
                        stored
                            .find(charging::diameter::dictionary::SESSION_ID)
                            .is_some_and(|avp| avp.data == session)
                    })
                })
            };
            if !pending && !stored() {
                self.violations.push(format!(
                    "{}: record {number} of {} left before it was written",
                    self.now,
                    String::from_utf8_lossy(session)
                ));
            }
        }
    }

    pub(super) fn connect(&mut self, place: usize, far: usize, life: u32) {
        if life != self.life_of(place) || self.seats[place].shard.is_none() {
            return;
        }
        let node = self.node_of(place);
        let (now, local) = (self.instant(), self.now_of(node).instant);
        let peer = PeerIndex(far as u16);
        let state = self.nodes.get(usize::from(node));
        let is_cut_off = state.is_some_and(|state| state.without_cdfs);
        let entry = &mut self.fars[far];
        let accepted = if entry.is_down || entry.is_black || is_cut_off {
            None
        } else {
            entry.cdf.accept(now)
        };
        match accepted {
            Some(id) => {
                entry.links.insert(
                    place,
                    Link {
                        id,
                        broken: false,
                        last: [0; 2],
                    },
                );
                self.turn(place, |shard, _| shard.router().on_connected(local, peer));
            }
            None => self.turn(place, |shard, _| {
                shard.router().on_connect_failed(local, peer)
            }),
        }
    }

    pub(super) fn reach_far(&mut self, place: usize, far: usize, id: ConnectionId, bytes: &[u8]) {
        let link = self.fars[far].links.get(&place);
        if link.is_none_or(|link| link.id != id || link.broken) {
            return;
        }
        let now = self.instant();
        let planted = self.setup.sabotage != Sabotage::None;
        for acr in requests(if planted { bytes } else { &[] }) {
            self.acrs += 1;
            let lose = self.setup.sabotage == Sabotage::LoseRecord && self.acrs % 7 == 6;
            let fault = if lose {
                Fault::Refuse(2_001)
            } else {
                Fault::None
            };
            if self.setup.sabotage == Sabotage::LoseRecord {
                self.fars[far].cdf.queue_fault(fault);
            }
            if self.setup.sabotage == Sabotage::ForgeRecord && self.acrs % 5 == 4 {
                let mut forged = acr.bytes().to_vec();
                let last = forged.len() - 9;
                forged[last] ^= 1;
                self.fars[far].cdf.handle_bytes(now, id, &forged);
            }
        }
        self.fars[far].cdf.handle_bytes(now, id, bytes);
        self.serve_far(far);
    }

    // Sends what a CDF has to send, and closes what it wants closed.
    pub(super) fn serve_far(&mut self, far: usize) {
        let links: Vec<_> = self.fars[far].links.iter().map(|(s, l)| (*s, *l)).collect();
        for (shard, link) in links {
            let entry = &mut self.fars[far];
            let bytes = entry
                .cdf
                .transmit(link.id)
                .map(std::mem::take)
                .unwrap_or_default();
            if bytes.is_empty() {
                continue;
            }
            if entry.is_black {
                if let Some(link) = entry.links.get_mut(&shard) {
                    link.broken = true;
                }
                continue;
            }
            let at = self.now + entry.delay;
            let at = entry
                .links
                .get_mut(&shard)
                .map_or(at, |link| link.arrival(1, at));
            let id = link.id;
            for bytes in self.pieces(bytes) {
                self.push(
                    at,
                    Event::Down {
                        shard,
                        far,
                        id,
                        bytes,
                    },
                );
            }
        }
        while let Some(CdfIo::Close(id)) = self.fars[far].cdf.poll_io() {
            self.fars[far].cdf.on_closed(id);
            let shard = self.fars[far]
                .links
                .iter()
                .find(|(_, link)| link.id == id)
                .map(|l| *l.0);
            if let Some(shard) = shard {
                self.fars[far].links.remove(&shard);
                let now = self.now_of(self.node_of(shard)).instant;
                self.turn(shard, |shard, _| {
                    shard.router().on_closed(now, PeerIndex(far as u16));
                });
            }
        }
    }

    pub(super) fn cut(&mut self, far: usize) {
        self.cut_of(far, |_| true);
    }

    pub(super) fn cut_cdfs(&mut self, node: u16) {
        self.nodes[usize::from(node)].without_cdfs = true;
        let shards = usize::from(self.setup.shards);
        for far in 0..self.fars.len() {
            self.cut_of(far, |place| place / shards == usize::from(node));
        }
    }

    // Cuts the connections of some shards to a CDF.
    fn cut_of(&mut self, far: usize, is_cut: impl Fn(usize) -> bool) {
        let links = std::mem::take(&mut self.fars[far].links);
        let (cut, kept) = links.into_iter().partition(|(place, _)| is_cut(*place));
        self.fars[far].links = kept;
        let cut: std::collections::BTreeMap<_, _> = cut;
        for (shard, link) in cut {
            let now = self.now_of(self.node_of(shard)).instant;
            self.fars[far].cdf.on_closed(link.id);
            self.turn(shard, |shard, _| {
                shard.router().on_closed(now, PeerIndex(far as u16))
            });
        }
    }
}

/// The ACRs in a stream's chunk, which holds whole messages.
pub(crate) fn requests(bytes: &[u8]) -> Vec<Diameter<'_>> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while rest.len() >= 20 {
        let length = u32::from_be_bytes([0, rest[1], rest[2], rest[3]]) as usize;
        let Some(one) = rest.get(..length.max(20)) else {
            break;
        };
        rest = &rest[one.len()..];
        let Ok(message) = Diameter::parse(one) else {
            continue;
        };
        let accounting = charging::diameter::dictionary::ACCOUNTING;
        if message.header.is_request() && message.header.command == accounting {
            found.push(message);
        }
    }
    found
}
