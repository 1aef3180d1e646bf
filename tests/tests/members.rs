//! Members of a cluster as processes: what an operator does to them, and what they say.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::process::{Running, free_tcp, free_udp, ringtoll, wait_until};

// Two nodes and a witness.
fn configuration(dir: &Path, name: &str, id: u8, cores: &str, addresses: &[String]) -> String {
    let (dir, sip, admin) = (dir.display(), free_udp(), free_tcp());
    format!(
        "[node]\nname = \"{name}\"\ncores = [{cores}]\nstate_dir = \"{dir}/state\"\ndata_dir = \"{dir}/{name}\"\n\
         ring_young_mib = 4\nring_old_mib = 4\ndrain_timeout_s = 1\n[sip]\nlisten = [\"udp:{sip}\"]\n\
         [charging.rf]\nenabled = false\n[admin]\nlisten = \"{admin}\"\n[cluster]\nid = {id}\nkey_file = \"{dir}/cluster.key\"\n\
         members = [{{ id = 1, address = \"{}\" }}, {{ id = 2, address = \"{}\" }}]\n\
         witness = {{ id = 3, address = \"{}\" }}\n",
        addresses[0], addresses[1], addresses[2]
    )
}

// The first start of a node.
fn start(dir: &Path, command: &str, name: &str, config: &str) -> Running {
    fs::create_dir_all(dir.join(name)).expect("the directory takes files");
    fs::write(dir.join(name).join("vote.boot"), []).expect("the directory takes files");
    start_again(dir, command, name, config)
}

fn start_again(dir: &Path, command: &str, name: &str, config: &str) -> Running {
    let file = dir.join(format!("{name}.toml"));
    fs::write(&file, config).expect("the directory takes files");
    let mut process = Command::new(ringtoll());
    process.args([command, "--config"]).arg(&file);
    Running::start(&mut process, &dir.join(format!("{name}.log")))
}

fn make_keys(file: &Path) {
    let made = Command::new(ringtoll())
        .args(["key", "--file"])
        .arg(file)
        .status();
    assert!(made.expect("the program starts").success());
}

#[test]
fn a_hang_up_makes_node_and_witness_read_their_keys_and_ends_neither() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let keys = dir.path().join("cluster.key");
    make_keys(&keys);
    // A node's shards use the ports behind its own; below those that the kernel gives to others.
    let ports = [21_310, 21_320, 21_330].map(|port| format!("127.0.0.1:{port}"));
    let started = [("run", "n1", 1), ("witness", "w", 3)].map(|(command, name, id)| {
        let config = configuration(dir.path(), name, id, "", &ports);
        (name, start(dir.path(), command, name, &config))
    });
    let log = |name: &str| fs::read_to_string(dir.path().join(format!("{name}.log")));
    let says = |name: &str, what: &str, times: usize| {
        let said = || log(name).unwrap_or_default().matches(what).count() >= times;
        assert!(
            wait_until(Duration::from_secs(10), said),
            "{name}: {:?}",
            log(name)
        );
    };
    for (name, process) in started {
        let mut process = process;
        says(name, "ready", 1);
        let hang_up = |times| {
            let sent = Command::new("kill")
                .args(["-HUP", &process.pid().to_string()])
                .status();
            assert!(sent.expect("kill is there").success());
            says(name, "the cluster's keys", times);
        };
        hang_up(1);
        says(name, "were read again", 1);
        let good = fs::read(&keys).expect("the keys are there");
        fs::write(&keys, "nonsense").expect("the file takes text");
        hang_up(2);
        says(name, "stay as they are", 1);
        fs::write(&keys, good).expect("the file takes text");
        let ended = process.terminate(Duration::from_secs(10));
        assert!(ended.is_some_and(|status| status.success()), "{name}");
    }
}

#[test]
fn nodes_with_different_numbers_of_shards_say_so() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    make_keys(&dir.path().join("cluster.key"));
    let ports = [21_340, 21_350, 21_360].map(|port| format!("127.0.0.1:{port}"));
    let started = [("n1", 1, ""), ("n2", 2, "0, 1")].map(|(name, id, cores)| {
        let config = configuration(dir.path(), name, id, cores, &ports);
        (name, start(dir.path(), "run", name, &config))
    });
    for (name, _process) in &started {
        let log = || fs::read_to_string(dir.path().join(format!("{name}.log"))).unwrap_or_default();
        let said = || log().contains("another number of shards");
        assert!(wait_until(Duration::from_secs(10), said), "{}", log());
        assert!(!log().contains("no version in common"));
    }
}

#[test]
fn a_node_without_vote_starts_only_if_its_operator_says_that_it_never_ran() {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    make_keys(&dir.path().join("cluster.key"));
    let ports = [21_370, 21_380, 21_390].map(|port| format!("127.0.0.1:{port}"));
    let config = configuration(dir.path(), "n1", 1, "", &ports);
    let log = || fs::read_to_string(dir.path().join("n1.log")).unwrap_or_default();
    let is_refused = |what: &str| {
        let mut process = start_again(dir.path(), "run", "n1", &config);
        let status = process.wait(Duration::from_secs(20));
        assert_eq!(
            status.and_then(|status| status.code()),
            Some(1),
            "{}",
            log()
        );
        assert!(log().contains(what), "{}", log());
    };
    is_refused("`touch vote.boot`");
    let mut process = start(dir.path(), "run", "n1", &config);
    let is_ready = || log().matches("ready").count() == 1;
    assert!(wait_until(Duration::from_secs(20), is_ready), "{}", log());
    process.kill();
    // Said again and again it is not asked any more: there is a vote.
    let data = dir.path().join("n1");
    assert!(data.join("vote").exists() && !data.join("vote.boot").exists());
    fs::remove_file(data.join("vote")).expect("it was there");
    is_refused("date +%s > vote.replace");
    fs::write(data.join("vote.boot"), []).expect("the directory takes files");
    is_refused("its rings are in");
    assert!(data.join("vote.boot").exists() && !data.join("vote").exists());
}
