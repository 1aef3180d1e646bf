//! The node's part of the world: its shards' turns, its start and its end.

use std::net::SocketAddr;

use charging::config::CtfConfig;
use charging::ctf::Ctf;
use charging::diameter::peer::PeerConfig;
use charging::diameter::routing::RoutedPeer;
use charging::diameter::routing::Router;
use charging::diameter::routing::RouterConfig;
use charging::rf::backlog::Backlog;
use charging::rf::backlog::BacklogConfig;
use charging::state::RecordType;
use charging::time::Now;
use dataplane::b2bua::CallState;
use dataplane::b2bua::Origin;
use dataplane::b2bua::Phase;
use dataplane::b2bua::Place;
use dataplane::env::ListenerId;
use dataplane::shard::AnyStore;
use dataplane::shard::Parts;
use dataplane::shard::Shard;
use dataplane::shard::Taken;
use dataplane::sip::TokenKey;
use dataplane::store::BlobStore;

use super::Event;
use super::Sabotage;
use super::TEXTS_BOUND;
use super::TOKEN_KEY;
use super::World;
use super::members::write_late;
use crate::cdf::identity;
use crate::store::archive;

impl World {
    pub(super) fn start_node(&mut self) {
        let now = self.now_of(0);
        for place in 0..self.seats.len() {
            let parts = self.parts(place);
            let states = self.seats[place].blobs.states();
            let mut shard = Shard::new(parts, now);
            shard.resume(now, states.into_iter());
            self.seats[place].shard = Some(shard);
            self.turn(place, |_, _| ());
        }
    }

    /// What a shard is made of, for a test that runs it by itself, and the time.
    #[must_use]
    pub fn parts_of(&mut self, place: usize) -> (Parts, Now) {
        (self.parts(place), self.now_of(self.node_of(place)))
    }

    pub(super) fn parts(&mut self, place: usize) -> Parts {
        let config = self.config.clone();
        let node = self.node_of(place);
        let shard = place as u16 % self.setup.shards;
        let life = self.life_of(place);
        let epoch = 1_600_000_000 + life;
        let host = format!("shard{shard}.node{}.example", node + 1);
        let seed = self.setup.seed ^ (u64::from(life) << 32) ^ place as u64;
        let ctf = CtfConfig {
            origin_host: host.clone(),
            origin_realm: config.rf.origin_realm.clone(),
            origin_state_id: Some(epoch),
            boot_epoch_s: epoch,
            shard: u32::from(shard),
            seed,
            classes: config.rf.classes.rules(),
        };
        let peers = config.rf.cdf.iter().map(|address| RoutedPeer {
            address: *address,
            config: PeerConfig {
                watchdog_interval_ms: config.rf.watchdog_ms,
                reconnect_ms_max: 5_000,
                ..PeerConfig::default()
            },
        });
        let router = RouterConfig {
            peers: peers.collect(),
            acr_retry_interval_ms: config.rf.retry_interval_ms,
            acr_max_retries: config.rf.retries_max as u8,
            ..RouterConfig::default()
        };
        let records = self.seats[place].records.clone();
        let stored = records.all();
        let next = stored.last().map_or(0, |(sequence, _)| sequence + 1);
        let store = AnyStore(Box::new(records));
        let mut backlog = Backlog::new(BacklogConfig::default(), store, next);
        for (sequence, acr) in &stored {
            backlog.recover(*sequence, acr);
        }
        let now = self.now_of(node);
        let blobs: Box<dyn BlobStore> = match self.setup.cluster {
            None => Box::new(self.seats[place].blobs.clone()),
            Some(_) => self.store_of(place),
        };
        Parts {
            place: Place {
                node: if self.setup.cluster.is_some() {
                    node
                } else {
                    1
                },
                shard,
                incarnation: 1 + life,
            },
            shards: self.setup.shards,
            tokens: TokenKey::new(&TOKEN_KEY),
            ctf: Ctf::new(ctf, now),
            router: Router::new(router, &identity(&host, epoch), seed, now.instant),
            blobs,
            backlog,
            seed,
            config,
        }
    }

    pub(super) fn stop_node(&mut self) {
        for seat in &mut self.seats {
            seat.shard = None;
            seat.armed = None;
        }
        for far in &mut self.fars {
            for (_, link) in std::mem::take(&mut far.links) {
                far.cdf.on_closed(link.id);
            }
        }
    }

    pub(super) fn reach_node(&mut self, from: SocketAddr, bytes: Vec<u8>) {
        self.note(2, &bytes);
        let Some(node) = self.node_for(from) else {
            return;
        };
        if let Some(until) = self.is_paused(node) {
            self.push(until, Event::ToNode { from, bytes });
            return;
        }
        let life = self.restarts + self.troubles;
        self.watch.on_arrival(self.now, life, from, &bytes);
        if let Some(&phone) = self.by_address.get(&from) {
            self.show(phone, "arrives", &bytes);
        }
        let shards = usize::from(self.setup.shards);
        let first = usize::from(node) * shards;
        let place = first + self.rng.below(shards as u64) as usize;
        let origin = Origin {
            from,
            listener: ListenerId::default(),
        };
        let now = self.now_of(node);
        let mut elsewhere = None;
        self.turn(place, |shard, _| {
            if let Taken::Elsewhere(other) = shard.handle_datagram(now, origin, &bytes) {
                elsewhere = Some(first + usize::from(other));
            }
        });
        if let Some(other) = elsewhere {
            self.turn(other, |shard, violations| {
                if shard.handle_datagram(now, origin, &bytes) != Taken::Here {
                    violations.push("a datagram is handed over twice".to_owned());
                }
            });
        }
    }

    // One turn of a shard: feed, fire, settle, send, arm.
    pub(super) fn turn(&mut self, place: usize, feed: impl FnOnce(&mut Shard, &mut Vec<String>)) {
        let now = self.now_of(self.node_of(place));
        let Some(mut shard) = self.seats[place].shard.take() else {
            return;
        };
        write_late(&mut shard);
        self.arm_replicas(place, &mut shard);
        feed(&mut shard, &mut self.violations);
        // The membership runs beside the shards: a view may change between feeding and settling.
        self.hear_views(self.node_of(place));
        if self.setup.sabotage != Sabotage::NoTimers {
            shard.handle_timeout(now);
        }
        shard.settle(now);
        self.note_takeovers(place, &mut shard);
        self.check_settled(place, &shard);
        self.flush(place, &mut shard);
        self.serve_router(place, &mut shard);
        self.serve_peers(place, &mut shard);
        let deadline = shard.next_deadline();
        let armed = deadline.map(|at| self.world_ms(now.instant, at));
        let idle = self.setup.sabotage == Sabotage::NoTimers;
        self.seats[place].armed = armed.filter(|_| !idle);
        self.seats[place].shard = Some(shard);
    }

    // The law of the turn: what survives is as new as what leaves.
    pub(super) fn check_settled(&mut self, place: usize, shard: &Shard) {
        if self.setup.cluster.is_some() {
            return; // the rings are looked at as a whole
        }
        for call in shard.b2bua().calls() {
            let phase = call.state.phase;
            if call.state.texts.len() > TEXTS_BOUND {
                self.violations
                    .push(format!("{} bytes of texts", call.state.texts.len()));
            }
            if matches!(phase, Phase::SettingUp | Phase::Event)
                || !call.stored
                || call.waits_for.is_some()
            {
                continue;
            }
            if call.dirty {
                self.violations
                    .push(format!("{}: a call changed after settle", self.now));
            } else if self.seats[place].blobs.bytes(call.state.id).is_none() {
                self.violations
                    .push(format!("{}: a call is not in the store", self.now));
            } else if self.setup.seed.is_multiple_of(8)
                && let Some(kept) = self.seats[place].blobs.state(call.state.id)
                && comparable(kept) != comparable(call.state.clone())
            {
                self.violations
                    .push(format!("{}: the blob is not the state", self.now));
            }
        }
    }

    pub(super) fn flush(&mut self, place: usize, shard: &mut Shard) {
        let out = shard.outbox();
        let sent: Vec<_> = out
            .datagrams()
            .iter()
            .map(|one| (one.to, out.payload(one).to_vec()))
            .collect();
        out.clear();
        for (to, bytes) in sent {
            self.check_bye_copied(place, shard, &bytes);
            self.finals += u64::from(bytes.starts_with(b"SIP/2.0 2"));
            if self.setup.sabotage == Sabotage::SecondFinal && self.finals % 9 == 8 {
                let text =
                    String::from_utf8_lossy(&bytes).replacen("SIP/2.0 200", "SIP/2.0 500", 1);
                self.leave(to, text.into_bytes());
            }
            self.leave(to, bytes);
        }
    }

    pub(super) fn leave(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        self.note(3, &bytes);
        self.watch.on_departure(
            self.now,
            self.restarts + self.troubles,
            self.setup.cluster.is_some() && self.was_disturbed(),
            to,
            &bytes,
            &mut self.violations,
        );
        let Some(&phone) = self.by_address.get(&to) else {
            self.violations.push(format!("a datagram to nobody: {to}"));
            return;
        };
        self.show(phone, "leaves", &bytes);
        let delays: Vec<u64> = self.net.copies(&mut self.rng).collect();
        for delay in delays {
            self.push(
                self.now + delay,
                Event::ToPhone {
                    phone,
                    bytes: bytes.clone(),
                },
            );
        }
    }
}

// A state without what may change after the commit: whether its record went to a connection.
fn comparable(mut state: CallState) -> (Vec<u8>, Option<(RecordType, u32)>) {
    let charging = std::mem::take(&mut state.charging);
    let pending = charging
        .accounting
        .and_then(|accounting| accounting.pending_key());
    (
        archive(&state),
        pending.map(|key| (key.record_type, key.number)),
    )
}
