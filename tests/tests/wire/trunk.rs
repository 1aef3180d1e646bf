//! A trunk that challenges: to its 401 sipp computes the digest itself and lets nobody in whose
//! answer is another.

use std::process::Command;
use std::time::Duration;

use tests::by_hand::{Phone, header};
use tests::process::{NodeProcess, free_udp, is_installed};

use super::sipp::{Expected, NO_INTERIM, at_200_a_second, run};

fn through(callee: &'static str) {
    let sipp = at_200_a_second(("basic_uac", callee), 200);
    let secret = "username = \"trunk-4711\"\npassword = \"s3cret, really\"\n";
    run(
        &sipp,
        &format!("{secret}{NO_INTERIM}"),
        &Expected {
            types: "START STOP",
            cause: 0,
            kind: "session",
        },
    );
}

#[test]
fn sipp_accepts_the_answer_to_its_401_and_the_call_is_billed_once() {
    through("trunk_401_uas");
}

#[test]
fn sipp_sees_an_answer_to_its_407_and_the_call_is_billed_once() {
    through("trunk_407_uas");
}

// The counterpart: sipp does compute, and refuses another password.
#[test]
fn sipp_refuses_another_password() {
    if !is_installed("sipp") {
        return;
    }
    let sipp = at_200_a_second(("basic_uac", "trunk_401_uas"), 1);
    let callee = free_udp();
    let secret = "username = \"trunk-4711\"\npassword = \"another\"\n";
    let mut node = NodeProcess::start(callee, &format!("{secret}{NO_INTERIM}"));
    let log = |name: &str| node.dir.path().join(name);
    let _callee = sipp.callee(callee, &log("callee.log"));
    let mut caller = sipp.caller_with(&node, &log("caller.log"), &[]);
    let status = caller.wait(sipp.limit).expect("sipp ends with its call");
    assert!(!status.success(), "the call fails");
    node.wait_idle();
    node.stop();
    let cdrs = node.cdrs();
    assert_eq!(cdrs.len(), 1);
    assert_eq!(cdrs[0]["cause_code"], 403, "{}", cdrs[0]);
}

/// RFC 7616 3.4 by Python's hashlib, which shares nothing with ours.
const RESPONSE: &str = "
import hashlib, sys
algorithm, user, realm, password, method, uri, nonce, qop, nc, cnonce = sys.argv[1:]
digest = lambda text: hashlib.new(algorithm, text.encode()).hexdigest()
secret = digest(f'{user}:{realm}:{password}')
request = digest(f'{method}:{uri}')
between = f'{nonce}:{nc}:{cnonce}:{qop}' if qop else nonce
print(digest(f'{secret}:{between}:{request}'))
";

/// A parameter of a credentials header, without its quotation marks.
fn parameter<'a>(credentials: &'a str, name: &str) -> &'a str {
    let list = credentials.strip_prefix("Digest ").unwrap_or_default();
    let mut all = list.split(',').filter_map(|one| one.trim().split_once('='));
    let value = all.find_map(|(key, value)| (key == name).then_some(value));
    value.unwrap_or_default().trim_matches('"')
}

#[test]
fn the_answer_to_a_407_is_what_python_computes() {
    if !is_installed("python3") {
        return;
    }
    let (caller, trunk) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
    let secret = "username = \"trunk-4711\"\npassword = \"s3cret, really\"\n";
    let mut node = NodeProcess::start(trunk.address(), &format!("{secret}{NO_INTERIM}"));
    for (n, algorithm, qop) in [
        (0, "MD5", ""),
        (1, "MD5", "auth"),
        (2, "SHA-256", "auth"),
        (3, "SHA-256", ""),
    ] {
        let invite = caller.invite(node.sip, "+49301", &format!("trunk{n}"));
        let first = trunk.request("INVITE");
        assert_eq!(header(&first, "Proxy-Authorization"), "");
        let nonce = format!("nonce/{n}+=");
        let offered = if qop.is_empty() { "" } else { ",qop=\"auth\"" };
        let challenge = format!(
            "Proxy-Authenticate: Digest realm=\"trunk.example\",nonce=\"{nonce}\",\
             algorithm={algorithm}{offered}\r\n"
        );
        trunk.answer(
            node.sip,
            &first,
            "407 Proxy Authentication Required",
            &challenge,
        );
        let again = trunk.receive(|text| {
            text.starts_with("INVITE ") && !header(text, "Proxy-Authorization").is_empty()
        });
        let given = header(&again, "Proxy-Authorization");
        let of = |name| parameter(given, name);
        assert_eq!(
            (of("realm"), of("nonce")),
            ("trunk.example", nonce.as_str())
        );
        assert_eq!((of("username"), of("qop")), ("trunk-4711", qop));
        let target = again.split(' ').nth(1).expect("a Request-URI");
        assert_eq!(of("uri"), target);
        let output = Command::new("python3")
            .args(["-c", RESPONSE])
            .arg(algorithm.replace('-', "").to_lowercase())
            .args(["trunk-4711", "trunk.example", "s3cret, really", "INVITE"])
            .args([target, &nonce, qop, of("nc"), of("cnonce")])
            .output()
            .expect("python3 starts");
        let computed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(of("response"), computed.trim(), "{given}\n{output:?}");
        trunk.answer(node.sip, &again, "486 Busy Here", "");
        let answer = caller.final_answer(node.sip, &invite);
        assert!(answer.starts_with("SIP/2.0 486"), "{answer}");
    }
    node.wait_idle();
    node.stop();
    assert_eq!(node.cdrs().len(), 4, "challenges are not billed");
}

// A call finds the credentials of its own route again after a restart that moved it in the table,
// and none when that route is gone.
#[test]
fn a_restart_with_another_route_table_never_lends_a_call_other_credentials() {
    let auth = |user: &str| format!("username = \"{user}\"\npassword = \"s3cret\"\n");
    for (remains, told) in [(true, "own"), (false, "")] {
        let (caller, trunk) = (Phone::at("127.0.0.2"), Phone::at("127.0.0.3"));
        let hop = format!("next_hop = \"{}\"\n", trunk.address());
        let mut node = NodeProcess::start(trunk.address(), &format!("{}{NO_INTERIM}", auth("own")));
        let call = caller.call(&trunk, node.sip, &format!("moved-{remains}"));
        node.kill();
        let file = node.dir.path().join("node.toml");
        let text = std::fs::read_to_string(&file).expect("the configuration is there");
        let other = format!("[[sip.route]]\nmatch = \"9*\"\n{hop}{}", auth("other"));
        let text = text.replace("[[sip.route]]", &format!("{other}[[sip.route]]"));
        let text = match remains {
            true => text,
            false => text.replace(&auth("own"), &auth("another")),
        };
        std::fs::write(&file, text).expect("it can be written");
        node.restart();
        let info = call.request("INFO", 2);
        caller.send(node.sip, &info);
        let first = trunk.request("INFO");
        let challenge = "Proxy-Authenticate: Digest realm=\"trunk.example\",nonce=\"n\",\
                         algorithm=MD5\r\n";
        let status = "407 Proxy Authentication Required";
        trunk.answer(node.sip, &first, status, challenge);
        let is_again = |text: &str| !header(text, "Proxy-Authorization").is_empty();
        let again = trunk.receive_within(Duration::from_millis(500), is_again);
        let given = again
            .as_deref()
            .map_or("", |again| header(again, "Proxy-Authorization"));
        assert_eq!(parameter(given, "username"), told, "{given}");
        if let Some(again) = &again {
            trunk.answer(node.sip, again, "200 OK", "");
        }
        let answer = caller.final_answer(node.sip, &info);
        let status = if remains {
            "SIP/2.0 200"
        } else {
            "SIP/2.0 407"
        };
        assert!(answer.starts_with(status), "{answer}");
        call.hang_up(&caller, &trunk, node.sip);
        node.wait_idle();
        node.stop();
    }
}
