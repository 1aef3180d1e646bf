//! What crosses the border of the trust domain, and what does not: by datagrams of our own between
//! a trusted caller, an untrusted callee and a stranger.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use tests::process::{NodeProcess, record_types};

/// An address of the loopback network with a port of its own.
fn phone(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind((address, 0)).expect("loopback has many addresses");
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a socket takes a timeout");
    socket
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("a bound socket has an address")
}

/// The next datagram that is meant; repetitions of others are passed over.
fn receive(socket: &UdpSocket, is_meant: impl Fn(&str) -> bool) -> String {
    let mut buffer = [0; 65_535];
    loop {
        let length = socket.recv(&mut buffer).expect("a datagram in time");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if is_meant(&text) {
            return text;
        }
    }
}

fn request(method: &str, own: SocketAddr, node: SocketAddr) -> String {
    format!(
        "{method} sip:+49301@{node} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bKb{method}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:+49401@home.example>;tag=1\r\n\
         To: <sip:+49301@home.example>\r\nCall-ID: inside-{method}\r\nCSeq: 1 {method}\r\n\
         Contact: <sip:ada@{own}>\r\nExpires: 60\r\nEvent: presence\r\n\
         Subscription-State: active\r\nP-Asserted-Identity: <sip:+49401@home.example>\r\n\
         P-Charging-Vector: icid-value=inner-icid;orig-ioi=home.example\r\n\
         P-Charging-Function-Addresses: ccf=192.0.2.200\r\n\
         P-Served-User: <sip:+49401@home.example>;sescase=orig;regstate=reg\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

fn answer(request: &str, status: &str) -> String {
    let kept = ["Via:", "From:", "Call-ID:", "CSeq:"];
    let mut out = format!("SIP/2.0 {status}\r\n");
    for line in request.lines() {
        if kept.iter().any(|name| line.starts_with(name)) {
            out.push_str(&format!("{line}\r\n"));
        } else if line.starts_with("To:") {
            out.push_str(&format!("{line};tag=callee\r\n"));
        }
    }
    out + "Expires: 60\r\nContent-Length: 0\r\n\r\n"
}

#[test]
fn charging_headers_stay_inside_and_strangers_outside() {
    let (caller, callee) = (phone("127.0.0.2"), phone("127.0.0.3"));
    let peers = "[[sip.peer]]\nname = \"core\"\nallow = [\"127.0.0.2\"]\ntrusted = true\n\
                 [[sip.peer]]\nname = \"trunk\"\nallow = [\"127.0.0.3\"]\n";
    let mut node = NodeProcess::start(address(&callee), peers);
    let methods = ["SUBSCRIBE", "NOTIFY", "PUBLISH", "REGISTER", "INVITE"];
    for method in methods {
        let sent = request(method, address(&caller), node.sip);
        caller
            .send_to(sent.as_bytes(), node.sip)
            .expect("loopback takes datagrams");
        let seen = receive(&callee, |text| text.starts_with(method));
        for hidden in ["P-Charging", "P-Served-User", "inner-icid"] {
            assert!(!seen.contains(hidden), "{hidden} leaves:\n{seen}");
        }
        let status = if method == "INVITE" {
            // A call is two dialogs: of the caller's, nothing is told but who calls.
            let own = address(&caller).to_string();
            assert!(
                !seen.contains(&own) && !seen.contains("inside-INVITE"),
                "{seen}"
            );
            "486 Busy Here"
        } else {
            "200 OK"
        };
        callee
            .send_to(answer(&seen, status).as_bytes(), node.sip)
            .expect("loopback takes datagrams");
        let wanted = format!("SIP/2.0 {status}");
        let heard = receive(&caller, |text| {
            text.starts_with(&wanted) && text.contains(&format!("CSeq: 1 {method}"))
        });
        assert!(
            heard.contains(&format!("Call-ID: inside-{method}\r\n")),
            "{heard}"
        );
        if method == "INVITE" {
            let tag = heard
                .lines()
                .find(|line| line.starts_with("To:"))
                .unwrap_or_default();
            let ack = sent
                .replace("INVITE", "ACK")
                .replace("inside-ACK", "inside-INVITE");
            let ack = ack.replace("z9hG4bKbACK", "z9hG4bKbINVITE");
            let ack = ack.replace("To: <sip:+49301@home.example>", tag);
            caller
                .send_to(ack.as_bytes(), node.sip)
                .expect("loopback takes datagrams");
        }
    }
    let stranger = phone("127.0.0.4");
    let sent = request("MESSAGE", address(&stranger), node.sip);
    stranger
        .send_to(sent.as_bytes(), node.sip)
        .expect("loopback takes datagrams");
    receive(&stranger, |text| text.starts_with("SIP/2.0 403 "));
    assert_eq!(node.metrics()["ringtoll_sip_source_refused_total"], 1.0);
    node.wait_idle();
    node.stop();
    let cdrs = node.cdrs();
    assert_eq!(cdrs.len(), methods.len(), "the stranger is not billed");
    assert!(cdrs.iter().all(|cdr| record_types(cdr) == "EVENT"));
}
