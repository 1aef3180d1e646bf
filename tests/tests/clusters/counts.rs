//! What the shards of a cluster count.

use replication::Mode;
use tests::hand::Hands;
use tests::sim::{Cluster, Setup};

#[test]
fn a_datagram_that_is_passed_on_is_received_once_by_each_node() {
    let cluster = Cluster {
        nodes: 3,
        witness: false,
        copies: 2,
        mode: Mode::SemiSync,
        // Every datagram arrives somewhere.
        scatter: 100,
        loss: 0,
        upgrade: false,
    };
    let setup = Setup {
        cluster: Some(cluster),
        interim_s: None,
        ..Setup::default()
    };
    let mut hands = Hands::of(setup, 2);
    hands.wait(3_000);
    let [caller, _] = hands.call("", "");
    for cseq in 2..30 {
        hands.ask(0, &caller, ("INFO", cseq), "200 OK");
    }
    hands.ask(0, &caller, ("BYE", 30), "200 OK");
    // INVITE, ACK, and each request: what the caller sent, and the callee's answer.
    let sent = 2 + 1 + 2 * 29;
    let (mut received, mut passed_on) = (0, 0);
    for place in 0..3 {
        let counters = hands.world.shard(place).expect("it runs").env().counters;
        received += counters.sip_datagram_received;
        passed_on += counters.sip_datagram_forwarded;
    }
    assert!(passed_on > 20, "{passed_on}");
    assert!(
        received <= sent + passed_on,
        "{received} received, {sent} sent and {passed_on} passed on"
    );
}
