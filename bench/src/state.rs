//! The state of a real call, as a shard commits it: how long it is, and what writing it costs.

use std::cell::RefCell;
use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use charging::config::CtfConfig;
use charging::ctf::Ctf;
use charging::diameter::base::Identity;
use charging::diameter::routing::{Router, RouterConfig};
use charging::rf::backlog::{Backlog, BacklogConfig, BacklogStore, StoreError};
use charging::time::{Now, UnixMillis};
use dataplane::b2bua::{CallState, Origin, Place, SCHEMA, read_state, write_state};
use dataplane::config::Config;
use dataplane::env::ListenerId;
use dataplane::shard::{AnyStore, Parts, Shard, Taken};
use dataplane::sip::TokenKey;
use dataplane::store::{Blob, BlobStore, Stored};

use crate::message;

const CALLER: &str = "192.0.2.11:5060";
const CALLEE: &str = "198.51.100.20:5060";

/// A store that keeps what was committed last.
#[derive(Clone, Default)]
struct Kept(Rc<RefCell<Vec<u8>>>);

impl BlobStore for Kept {
    fn set_now(&mut self, _: Now) {}

    fn commit(&mut self, _: u128, blob: Blob<'_>) -> Stored {
        let mut kept = self.0.borrow_mut();
        kept.clear();
        kept.extend_from_slice(blob.bytes);
        Stored::Safe
    }

    fn retire(&mut self, _: u128) {}

    fn is_open(&self) -> bool {
        true
    }

    fn fill_percent(&self) -> u32 {
        0
    }

    fn reclaim(&mut self) -> bool {
        false
    }
}

/// Records for which no CDF is there.
struct Nowhere;

impl BacklogStore for Nowhere {
    fn append(&mut self, _: u64, _: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }

    fn read(&mut self, _: u64, _: &mut Vec<u8>) -> Result<(), StoreError> {
        Err(StoreError::Failed)
    }

    fn remove(&mut self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
}

fn shard(now: Now, kept: Kept) -> Shard {
    let config = "[charging.rf]\ncdf = [\"192.0.2.1:3868\"]\norigin_realm = \"example\"\n\
        [sip]\nlisten = [\"udp:192.0.2.1:5060\"]\n";
    let config = Arc::new(Config::parse(config, Path::new("bench")).expect("it is valid"));
    let ctf = CtfConfig {
        origin_host: "shard0.node1.example".to_owned(),
        origin_realm: "example".to_owned(),
        origin_state_id: Some(1),
        boot_epoch_s: 1_700_000_000,
        shard: 0,
        seed: 1,
        classes: config.rf.classes.rules(),
    };
    let identity = Identity {
        origin_host: ctf.origin_host.clone(),
        origin_realm: ctf.origin_realm.clone(),
        host_addresses: vec![[192, 0, 2, 1].into()],
        vendor_id: 0,
        product_name: "ringtoll".to_owned(),
        firmware_revision: None,
        origin_state_id: Some(1),
    };
    let router = Router::new(RouterConfig::default(), &identity, 1, now.instant);
    let place = Place {
        node: 1,
        shard: 0,
        incarnation: 1,
    };
    let backlog = Backlog::new(BacklogConfig::default(), AnyStore(Box::new(Nowhere)), 0);
    let parts = Parts {
        config,
        place,
        shards: 1,
        tokens: TokenKey::new(b"a key for tokens"),
        ctf: Ctf::new(ctf, now),
        router,
        blobs: Box::new(kept),
        backlog,
        seed: 1,
    };
    Shard::new(parts, now)
}

// One turn with a datagram from `from`; what leaves then for `to`.
fn turn(shard: &mut Shard, now: Now, from: &str, bytes: &[u8], to: &str) -> String {
    let [from, to]: [SocketAddr; 2] = [from, to].map(|one| one.parse().expect("an address"));
    let listener = ListenerId::default();
    let taken = shard.handle_datagram(now, Origin { from, listener }, bytes);
    assert_eq!(taken, Taken::Here);
    shard.settle(now);
    let out = shard.outbox();
    let sent = out.datagrams().iter().find(|one| one.to == to).copied();
    let text = sent.map(|one| String::from_utf8_lossy(out.payload(&one)).into_owned());
    out.clear();
    text.unwrap_or_default()
}

fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let mut lines = message.split("\r\n");
    lines
        .find(|line| line.starts_with(name))
        .unwrap_or_else(|| panic!("no {name} in {message}"))
}

/// The blob that was committed last of a call that is answered and confirmed.
///
/// # Panics
/// When the shard does not set the call up.
#[must_use]
pub fn confirmed() -> Vec<u8> {
    let now = Now {
        // A mock, as in `record::started`.
        instant: quanta::Clock::mock().0.now(),
        wall: UnixMillis(1_700_000_000_000),
        steady: UnixMillis(1_700_000_000_000),
    };
    let kept = Kept::default();
    let mut shard = shard(now, kept.clone());
    let invite = turn(&mut shard, now, CALLER, &message::invite(), CALLEE);
    let head = ["Via", "From", "To", "Call-ID", "CSeq"].map(|name| header(&invite, name));
    let [via, from, to, call_id, cseq] = head;
    let sdp = message::invite();
    let sdp = String::from_utf8_lossy(&sdp);
    let sdp = sdp.split_once("\r\n\r\n").expect("a body").1;
    let answer = format!(
        "SIP/2.0 200 OK\r\n{via}\r\n{from}\r\n{to};tag=a6c85cf\r\n{call_id}\r\n{cseq}\r\n\
         Contact: <sip:+49301234567@{CALLEE}>\r\nAllow: INVITE, ACK, BYE, CANCEL, UPDATE\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    );
    let answer = turn(&mut shard, now, CALLEE, answer.as_bytes(), CALLER);
    let contact = header(&answer, "Contact: <");
    let target = contact["Contact: <".len()..].split('>').next();
    let ack = format!(
        "ACK {} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};branch=z9hG4bKack\r\nMax-Forwards: 70\r\n\
         {}\r\n{}\r\nCall-ID: 5d0c77a1b2e94@192.0.2.11\r\nCSeq: 271828 ACK\r\n\
         Content-Length: 0\r\n\r\n",
        target.expect("a URI"),
        header(&answer, "From"),
        header(&answer, "To")
    );
    let ack = turn(&mut shard, now, CALLER, ack.as_bytes(), CALLEE);
    assert!(ack.starts_with("ACK "), "{ack}");
    let blob = kept.0.borrow().clone();
    assert!(!blob.is_empty(), "nothing was committed");
    blob
}

/// Writes the state of such a call so many times.
pub fn write(rounds: u64) {
    let state: CallState = read_state(SCHEMA, &confirmed()).expect("it was just written");
    let mut blob = rkyv::util::AlignedVec::new();
    for _ in 0..rounds {
        let written = write_state(black_box(&state), SCHEMA, &mut blob);
        assert!(written, "it was written before");
        black_box(&blob);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_call_takes_no_more_than_the_figures_say() {
        let bytes = super::confirmed().len();
        println!("a state of {bytes} bytes");
        let record = replication::layout::record_size(bytes);
        // 2,500 bytes a call at 70 % fill.
        assert!((1_000..=1_750).contains(&record), "{record} bytes");
    }
}
