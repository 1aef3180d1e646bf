//! freeDiameter as the CDF: what it does not find in its dictionaries, or finds with other
//! flags, it refuses, so that an answer of success to every ACR says that ours are theirs too.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::by_hand::Phone;
use tests::process::{
    NodeProcess, Running, Sipp, free_tcp, free_udp, is_installed, skip, wait_until,
};
use tests::traffic;

struct FreeDiameter {
    process: Running,
    dir: tempfile::TempDir,
    address: SocketAddr,
}

impl FreeDiameter {
    /// Starts one with the dictionaries named; `None` where that is impossible here.
    fn start(dictionaries: &[&str]) -> Option<Self> {
        let programs = ["freeDiameterd", "gcc", "openssl", "sipp"];
        if !programs.iter().all(|program| is_installed(program)) {
            return None;
        }
        if !Path::new("/usr/include/freeDiameter/extension.h").is_file() {
            skip("freeDiameter's headers are not installed");
            return None;
        }
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let address = free_tcp();
        build_extension(dir.path());
        make_certificate(dir.path());
        write(dir.path(), "acl.conf", "ALLOW_IPSEC *.ringtoll.invalid\n");
        write(dir.path(), "interval.conf", "300\n");
        write(
            dir.path(),
            "fd.conf",
            &configuration(dir.path(), address, dictionaries),
        );
        let log = dir.path().join("fd.log");
        let config = dir.path().join("fd.conf");
        let process = Running::start(Command::new("freeDiameterd").arg("-c").arg(config), &log);
        let freediameter = Self {
            process,
            dir,
            address,
        };
        let up = wait_until(Duration::from_secs(20), || {
            freediameter.log().contains("daemon initialized")
        });
        assert!(up, "freeDiameterd must listen:\n{}", freediameter.log());
        Some(freediameter)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("fd.log")).unwrap_or_default()
    }

    /// The ACRs that the extension saw: type, number, T flag, Session-Id.
    fn acrs(&self) -> Vec<(String, u32, bool, String)> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| line.strip_prefix("ACR "));
        lines
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let number = words[1].parse().expect("a record number");
                (
                    words[0].to_owned(),
                    number,
                    words[2] == "1",
                    words[3].to_owned(),
                )
            })
            .collect()
    }
}

impl Drop for FreeDiameter {
    // What it refused and why, for whoever reads of a failure.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let told = log.lines().filter(|line| !line.starts_with("ACR "));
            told.for_each(|line| println!("{line}"));
        }
    }
}

fn build_extension(dir: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/acr_answer.c");
    let output = Command::new("gcc")
        .args([
            "-shared",
            "-fPIC",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unused-parameter",
            "-o",
        ])
        .arg(dir.join("acr_answer.fdx"))
        .arg(source)
        .output()
        .expect("gcc starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

// freeDiameter does not start without a certificate, even if it will never use it.
fn make_certificate(dir: &Path) {
    let output = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args(["-subj", "/CN=cdf.ringtoll.invalid", "-keyout"])
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .output()
        .expect("openssl starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn configuration(dir: &Path, address: SocketAddr, dictionaries: &[&str]) -> String {
    let dir = dir.display();
    let mut text = format!(
        "Identity = \"cdf.ringtoll.invalid\";\nRealm = \"ringtoll.invalid\";\n\
         Port = {};\nSecPort = 0;\nNo_SCTP;\nNo_IPv6;\nListenOn = \"127.0.0.1\";\n\
         TLS_Cred = \"{dir}/cert.pem\", \"{dir}/key.pem\";\nTLS_CA = \"{dir}/cert.pem\";\n",
        address.port()
    );
    for dictionary in dictionaries {
        text.push_str(&format!("LoadExtension = \"{dictionary}.fdx\";\n"));
    }
    text.push_str(&format!(
        "LoadExtension = \"acl_wl.fdx\" : \"{dir}/acl.conf\";\n\
         LoadExtension = \"{dir}/acr_answer.fdx\" : \"{dir}/interval.conf\";\n"
    ));
    text
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).expect("the directory takes files");
}

fn charging_to(cdf: SocketAddr) -> String {
    let border = traffic::BORDER;
    format!("[charging.rf]\ncdf = [\"{cdf}\"]\npropose_interim_interval_s = 600\n{border}")
}

#[test]
fn freediameter_accepts_every_record() {
    let dictionaries = ["dict_nasreq", "dict_dcca", "dict_dcca_3gpp"];
    let Some(freediameter) = FreeDiameter::start(&dictionaries) else {
        return;
    };
    let callee = free_udp();
    let mut node = NodeProcess::start(callee, &charging_to(freediameter.address));
    node.wait_cdf();
    let calls = 20;
    traffic::run(&node, callee, calls);
    let metrics = node.metrics();
    node.stop();

    let acrs = freediameter.acrs();
    let log = freediameter.log();
    let mut all = 0;
    for record_type in ["START", "INTERIM", "STOP", "EVENT"] {
        let expected = traffic::records_of_type(record_type, calls);
        let seen = acrs.iter().filter(|acr| acr.0 == record_type).count();
        assert_eq!(seen, expected as usize, "{record_type} records\n{log}");
        let produced = format!("ringtoll_acr_{}_produced_total", record_type.to_lowercase());
        assert_eq!(metrics[&produced], f64::from(expected), "{produced}");
        all += expected;
    }
    assert_eq!(
        metrics["ringtoll_acr_acknowledged_total"],
        f64::from(all),
        "all were answered 2001"
    );
    assert_eq!(metrics["ringtoll_acr_stored_total"], 0.0);
    assert_eq!(metrics["ringtoll_backlog_records"], 0.0);
    let mut keys: Vec<_> = acrs.iter().map(|acr| (&acr.3, acr.1)).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(
        keys.len(),
        all as usize,
        "no number of a session comes twice"
    );
    assert!(
        acrs.iter().all(|acr| !acr.2),
        "nothing had to be sent again"
    );
    for fault in [
        " ERROR ",
        "DIAMETER_AVP_UNSUPPORTED",
        "DIAMETER_MISSING_AVP",
    ] {
        assert!(!log.contains(fault), "freeDiameter complains:\n{log}");
    }
    println!("freeDiameter answered {all} of {all} ACRs with 2001");
}

// What freeDiameter itself read, told by its extension that dumps messages: with `omit_avps` all
// that may be left out is, without it the traffic has it, and the rest stays.
#[test]
fn what_is_left_out_never_reaches_freediameter() {
    let optional = ["From-Address", "Instance-Id"];
    for omits in [false, true] {
        let all = [
            "dict_nasreq",
            "dict_dcca",
            "dict_dcca_3gpp",
            "dbg_msg_dumps",
        ];
        let Some(freediameter) = FreeDiameter::start(&all) else {
            return;
        };
        let names: Vec<_> = optional.iter().map(|name| format!("\"{name}\"")).collect();
        let omitted = if omits {
            names.join(", ")
        } else {
            String::new()
        };
        let cdf = freediameter.address;
        let more = format!("[charging.rf]\ncdf = [\"{cdf}\"]\nomit_avps = [{omitted}]\n");
        let callee = Phone::at("127.0.0.3");
        let caller = Phone::at("127.0.0.2");
        let mut node = NodeProcess::start(callee.address(), &more);
        node.wait_cdf();
        let uri = format!("sip:+49301@{}", node.sip);
        let invite = caller.opening("INVITE", &uri, "omitted");
        let own = format!("<sip:caller@{}>", caller.address());
        let instance = format!("{own};+sip.instance=\"<urn:gsma:imei:35530808-000000-0>\"");
        let invite = invite.replace(&own, &instance);
        caller.send(node.sip, &invite);
        let arrived = callee.request("INVITE");
        callee.answer(node.sip, &arrived, "486 Busy Here", "");
        caller.final_answer(node.sip, &invite);
        node.wait_idle();
        assert_eq!(node.metrics()["ringtoll_acr_acknowledged_total"], 1.0);
        node.stop();
        let log = freediameter.log();
        assert!(log.contains("Calling-Party-Address"), "{log}");
        for name in optional {
            assert_eq!(log.contains(name), !omits, "{name}:\n{log}");
        }
    }
}

// The counterpart: a CDF that does not know an AVP refuses the record, which ends the call.
#[test]
fn freediameter_refuses_what_its_dictionary_does_not_know() {
    let Some(freediameter) = FreeDiameter::start(&["dict_nasreq", "dict_dcca"]) else {
        return;
    };
    let callee = free_udp();
    let mut node = NodeProcess::start(callee, &charging_to(freediameter.address));
    node.wait_cdf();
    let sipp = Sipp {
        scenario: ("basic_uac", "basic_uas"),
        calls: 1,
        rate: 1,
        hold_ms: 3_000,
        limit: Duration::from_secs(30),
    };
    let log = |name: &str| node.dir.path().join(name);
    let _callee = sipp.callee(callee, &log("callee.log"));
    let mut caller = sipp.caller_with(&node, &log("caller.log"), &[]);
    let status = caller.wait(sipp.limit).expect("sipp ends with its call");
    assert!(
        !status.success(),
        "the node hangs up before the caller does"
    );
    node.wait_idle();
    assert_eq!(node.metrics()["ringtoll_acr_acknowledged_total"], 0.0);
    assert_eq!(node.metrics()["ringtoll_call_ended_by_charging_total"], 1.0);
    assert!(
        freediameter.log().contains("DIAMETER_AVP_UNSUPPORTED"),
        "{}",
        freediameter.log()
    );
    assert!(freediameter.process.pid() > 0);
    node.stop();
}
