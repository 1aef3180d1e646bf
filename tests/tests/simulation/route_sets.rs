//! Route sets (RFC 3261 12.1, 12.2.1.1, 16.12): proxies that stay in the path of a leg, an
//! application server behind its S-CSCF, and routers that follow RFC 2543.

use tests::by_hand::header;
use tests::hand::{Hands, Leg, SDP};
use tests::sim::{NODE, phone_address};

fn router(phone: usize, lr: &str) -> String {
    format!("<sip:{}{lr}>", phone_address(phone))
}

fn route_of(text: &str) -> Vec<String> {
    let lines = text.lines().take_while(|line| !line.is_empty());
    let values = lines.filter_map(|line| line.strip_prefix("Route: "));
    values
        .flat_map(|value| value.split(", "))
        .map(str::to_owned)
        .collect()
}

fn target_of(text: &str) -> &str {
    text.split(' ').nth(1).unwrap_or_default()
}

// The INVITE of phone 0 as proxies 3 and then 2 pass it on to the node.
fn through_proxies(hands: &mut Hands, lr: &str, uri: &str, more: &str) -> String {
    let routes = format!(
        "Record-Route: {}, {}\r\n{more}",
        router(2, lr),
        router(3, lr)
    );
    let invite = hands.opening(0, "INVITE", uri, &routes);
    let vias = format!(
        "Via: SIP/2.0/UDP {};branch=z9hG4bKproxy\r\nVia: SIP/2.0/UDP ",
        phone_address(2)
    );
    invite.replacen("Via: SIP/2.0/UDP ", &vias, 1)
}

// Leg A stays with proxies 2 and 3, leg B with 4 and 5; 2 and 4 stand beside the node.
fn call_through_proxies(lr: &str) -> (Hands, [Leg; 2], [String; 2]) {
    let route = "[[sip.route]]\nmatch = \"*\"\nnext_hop = \"10.1.0.5\"\n";
    let mut hands = Hands::new(route, 6);
    let uri = format!("sip:+4930@{NODE}");
    let invite = through_proxies(&mut hands, lr, &uri, "");
    hands.say(2, &invite);
    let arrived = hands.hears(4, "INVITE ");
    assert_eq!(header(&arrived, "Record-Route"), "", "{arrived}");
    let routes = format!("Record-Route: {}, {}\r\n", router(5, lr), router(4, lr));
    hands.answer(4, &arrived, "200 OK", &routes);
    let answer = hands.hears(2, "SIP/2.0 200");
    // RFC 3261 12.1.1: the proxies of the caller's leg, as they were; nobody of the other one.
    let expected = format!("{}, {}", router(2, lr), router(3, lr));
    assert_eq!(header(&answer, "Record-Route"), expected);
    let legs = [Leg::of_caller(&invite, &answer), Leg::of_callee(&arrived)];
    let ack = hands.request(0, &legs[0], "ACK", 1, "");
    hands.say(2, &ack);
    (hands, legs, [invite, arrived])
}

fn contact_of(phone: usize) -> String {
    format!("sip:p{phone}@{}", phone_address(phone))
}

#[test]
fn requests_in_both_directions_take_the_route_set_of_their_leg() {
    let (mut hands, legs, _) = call_through_proxies(";lr");
    let to_callee = [router(4, ";lr"), router(5, ";lr")];
    let to_caller = [router(2, ";lr"), router(3, ";lr")];
    let ack = hands.hears(4, "ACK ");
    assert_eq!(route_of(&ack), to_callee, "RFC 3261 12.1.2: reversed");
    assert_eq!(target_of(&ack), contact_of(4));
    for (from, to, routes, target, leg) in [
        (2, 4, &to_callee, contact_of(4), &legs[0]),
        // The re-INVITE that phone 2 sent first was a target refresh.
        (4, 2, &to_caller, contact_of(2), &legs[1]),
    ] {
        let re_invite = hands.request(from, leg, "INVITE", 2, SDP);
        hands.say(from, &re_invite);
        let arrived = hands.hears(to, "INVITE ");
        assert_eq!(route_of(&arrived), *routes);
        assert_eq!(target_of(&arrived), target);
        // RFC 3261 12.2.1.2: no Record-Route inside a dialog changes its route set.
        let other = format!("Record-Route: <sip:192.0.2.77;lr>\r\n{SDP}");
        hands.answer(to, &arrived, "200 OK", &other);
        hands.final_answer(from, &re_invite);
        let ack = hands.request(from, leg, "ACK", 2, "");
        hands.say(from, &ack);
        let arrived = hands.hears(to, "ACK ");
        assert_eq!(route_of(&arrived), *routes);
    }
    let info = hands.request(4, &legs[1], "INFO", 3, "");
    hands.say(4, &info);
    let arrived = hands.hears(2, "INFO ");
    assert_eq!(route_of(&arrived), to_caller);
    hands.answer(2, &arrived, "200 OK", "");
    let bye = hands.request(4, &legs[1], "BYE", 4, "");
    hands.say(4, &bye);
    let arrived = hands.hears(2, "BYE ");
    assert_eq!(route_of(&arrived), to_caller);
    hands.answer(2, &arrived, "200 OK", "");
}

/// RFC 3261 12.2.1.1: a router without `lr` is the Request-URI, the target the last route.
#[test]
fn a_strict_router_gets_itself_as_the_request_uri() {
    let (mut hands, legs, _) = call_through_proxies("");
    let ack = hands.hears(4, "ACK ");
    let strict = |first: usize, second: usize, last: &str| {
        let uri = format!("sip:{}", phone_address(first));
        (uri, vec![router(second, ""), format!("<{last}>")])
    };
    let shape = |text: &str| (target_of(text).to_owned(), route_of(text));
    assert_eq!(shape(&ack), strict(4, 5, &contact_of(4)));
    let info = hands.request(2, &legs[0], "INFO", 2, "");
    hands.say(2, &info);
    let arrived = hands.hears(4, "INFO ");
    assert_eq!(shape(&arrived), strict(4, 5, &contact_of(4)));
    hands.answer(4, &arrived, "200 OK", "");
    let bye = hands.request(4, &legs[1], "BYE", 2, "");
    hands.say(4, &bye);
    let arrived = hands.hears(2, "BYE ");
    // An INFO is no target refresh.
    assert_eq!(shape(&arrived), strict(2, 3, &contact_of(0)));
    hands.answer(2, &arrived, "200 OK", "");
}

// The S-CSCF is phone 2, and nothing of the route table covers the user.
fn on_isc(method: &str, lr: &str) -> (Hands, String, String) {
    let mut hands = Hands::new("", 3);
    let routes = format!("Route: <sip:{NODE};lr;orig>, {}\r\n", router(2, lr));
    let request = hands.opening(0, method, "sip:+4930@home.example", &routes);
    hands.say(2, &request);
    let arrived = hands.hears(2, method);
    (hands, request, arrived)
}

/// RFC 3261 16.4, 16.6: the Route that named this node is used up, the next one is followed.
#[test]
fn a_request_from_the_s_cscf_goes_back_to_it_by_its_own_route() {
    let (mut hands, invite, arrived) = on_isc("INVITE", ";lr");
    assert_eq!(route_of(&arrived), [router(2, ";lr")]);
    assert_eq!(target_of(&arrived), "sip:+4930@home.example");
    hands.answer(2, &arrived, "180 Ringing", "");
    let cancel = {
        let head = invite.replace("INVITE", "CANCEL");
        let end = head.find("Contact:").expect("a Contact");
        format!("{}Content-Length: 0\r\n\r\n", &head[..end])
    };
    hands.say(0, &cancel);
    // RFC 3261 9.1, 17.1.1.3: CANCEL and the ACK of a failure take the INVITE's Route.
    let cancelled = hands.hears(2, "CANCEL ");
    assert_eq!(route_of(&cancelled), [router(2, ";lr")]);
    hands.answer(2, &cancelled, "200 OK", "");
    hands.answer(2, &arrived, "487 Request Terminated", "");
    let ack = hands.hears(2, "ACK ");
    assert_eq!(route_of(&ack), [router(2, ";lr")]);
    assert_eq!(target_of(&ack), "sip:+4930@home.example");
    let (_, _, arrived) = on_isc("MESSAGE", ";lr");
    assert_eq!(route_of(&arrived), [router(2, ";lr")]);
    assert_eq!(target_of(&arrived), "sip:+4930@home.example");
}

/// RFC 3261 16.6 step 6.
#[test]
fn a_strict_next_route_of_a_first_request_takes_the_place_of_its_target() {
    for method in ["INVITE", "MESSAGE"] {
        let (_, _, arrived) = on_isc(method, "");
        let strict = format!("sip:{}", phone_address(2));
        assert_eq!(target_of(&arrived), strict, "{arrived}");
        assert_eq!(
            route_of(&arrived),
            ["<sip:+4930@home.example>"],
            "{arrived}"
        );
    }
}

/// RFC 3261 16.4: a strict router before this node leaves the target as the last route.
#[test]
fn a_request_that_came_by_a_strict_router_gets_its_target_back() {
    for method in ["INVITE", "MESSAGE"] {
        let mut hands = Hands::new("", 3);
        let routes = format!("Route: {}, <sip:+4930@home.example>\r\n", router(2, ";lr"));
        let request = hands.opening(0, method, &format!("sip:{NODE};lr"), &routes);
        hands.say(2, &request);
        let arrived = hands.hears(2, method);
        assert_eq!(target_of(&arrived), "sip:+4930@home.example", "{arrived}");
        assert_eq!(route_of(&arrived), [router(2, ";lr")], "{arrived}");
    }
}
