//! python-diameter as the CDF: what a decoder that shares nothing with ours reads in the records
//! is what stood in the SIP messages.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::process::{NodeProcess, Running, free_tcp, free_udp, is_installed, wait_until};
use tests::traffic::{self, KINDS, Kind, Traced};
use tests::venv;

/// The AVPs of a group: `[name, flags, value]` each.
#[derive(Clone, Copy)]
struct Group<'a>(&'a [Value]);

impl<'a> Group<'a> {
    fn of(value: &'a Value) -> Self {
        Self(value.as_array().expect("a group is a list of AVPs"))
    }

    fn all(self, name: &str) -> Vec<&'a Value> {
        self.0
            .iter()
            .filter(|avp| avp[0] == name)
            .map(|avp| &avp[2])
            .collect()
    }

    fn find(self, name: &str) -> Option<&'a Value> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} stands once at most: {:?}", self.0);
        all.first().copied()
    }

    fn get(self, name: &str) -> &'a Value {
        self.find(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", self.0))
    }

    fn group(self, name: &str) -> Self {
        Self::of(self.get(name))
    }

    fn text(self, name: &str) -> &'a str {
        self.get(name)
            .as_str()
            .unwrap_or_else(|| panic!("{name} is a text: {:?}", self.0))
    }
}

/// One call as its two parties saw it, and its records.
struct Call<'a> {
    kind: &'a Kind,
    caller: Vec<Traced>,
    callee: Vec<Traced>,
    records: Vec<Group<'a>>,
}

#[test]
fn python_diameter_reads_in_the_records_what_stood_in_the_messages() {
    if !is_installed("sipp") {
        return;
    }
    let Some(python) = venv::python_with("python-diameter", "diameter") else {
        return;
    };
    let (callee, address) = (free_udp(), free_tcp());
    let border = traffic::BORDER;
    let more =
        format!("[charging.rf]\ncdf = [\"{address}\"]\npropose_interim_interval_s = 600\n{border}");
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let log = dir.path().join("cdf.log");
    let _cdf = Running::start(
        Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/cdf.py"))
            .args([
                &address.port().to_string(),
                "300",
                "shard0.test.ringtoll.invalid",
            ]),
        &log,
    );
    let read_log = || std::fs::read_to_string(&log).unwrap_or_default();
    let is_up = wait_until(Duration::from_secs(20), || read_log().contains("ready"));
    assert!(is_up, "python-diameter must start: {}", read_log());
    let mut node = NodeProcess::start(callee, &more);
    node.wait_cdf();
    traffic::run(&node, callee, 1);
    let metrics = node.metrics();
    node.stop();

    let said = read_log();
    let lines = said.lines().filter(|line| line.starts_with('{'));
    let records: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let expected: usize = KINDS.iter().map(|kind| kind.records.len()).sum();
    assert_eq!(records.len(), expected, "{said}");
    assert_eq!(
        metrics["ringtoll_acr_acknowledged_total"], expected as f64,
        "all answered 2001"
    );
    for record in &records {
        assert_eq!(record["is_proxyable"], true);
        assert_eq!(record["is_retransmit"], false);
        flags_are_right(Group::of(&record["avps"]));
    }
    for kind in &KINDS {
        let call = call_of(kind, node.dir.path(), &records);
        assert_eq!(call.records.len(), kind.records.len(), "{}", kind.name);
        let opening = opening_of(&call);
        for (number, record) in call.records.iter().enumerate() {
            command_level(&call, *record, number);
            parties(&call, *record, opening);
            times(&call, *record);
            media(&call, *record);
            services(&call, *record);
        }
    }
    println!("python-diameter read {expected} records and answered each with 2001");
}

fn call_of<'a>(kind: &'a Kind, dir: &Path, records: &'a [Value]) -> Call<'a> {
    let caller = Traced::read_all(dir, kind, "caller");
    let call_id = caller[0].header("Call-ID").expect("a Call-ID").to_owned();
    let of_call = |record: &Group<'_>| ims(*record).text("User-Session-ID") == call_id;
    let records = records
        .iter()
        .map(|record| Group::of(&record["avps"]))
        .filter(of_call)
        .collect();
    Call {
        kind,
        caller,
        callee: Traced::read_all(dir, kind, "callee"),
        records,
    }
}

fn ims(record: Group<'_>) -> Group<'_> {
    record.group("Service-Information").group("IMS-Information")
}

fn opening_of<'a>(call: &'a Call<'_>) -> &'a Traced {
    call.callee
        .iter()
        .find(|message| !message.is_sent)
        .expect("the callee got a request")
}

// All of 3GPP's: vendor and mandatory; those of the IETF: mandatory.
fn flags_are_right(group: Group<'_>) {
    for avp in group.0 {
        let name = avp[0].as_str().expect("a name");
        assert_ne!(name, "Unknown", "{avp}");
        let ietf = [
            "Session-Id",
            "Origin-Host",
            "Origin-Realm",
            "Destination-Realm",
            "Origin-State-Id",
            "Accounting-Record-Type",
            "Accounting-Record-Number",
            "Acct-Application-Id",
            "Acct-Interim-Interval",
            "Event-Timestamp",
            "Service-Context-Id",
            "Subscription-Id",
            "Subscription-Id-Type",
            "Subscription-Id-Data",
        ];
        let expected = match name {
            _ if ietf.contains(&name) => 0x40,
            _ if name.starts_with("User-Equipment-Info") => 0,
            _ => 0xc0,
        };
        assert_eq!(avp[1], expected, "flags of {name}");
        if avp[2]
            .as_array()
            .is_some_and(|inner| inner.iter().all(Value::is_array))
        {
            flags_are_right(Group::of(&avp[2]));
        }
    }
}

fn command_level(call: &Call<'_>, record: Group<'_>, number: usize) {
    let name = call.kind.records[number];
    let code = ["", "EVENT", "START", "INTERIM", "STOP"]
        .iter()
        .position(|known| *known == name);
    assert_eq!(record.0[0][0], "Session-Id", "it comes first");
    assert_eq!(record.get("Session-Id"), call.records[0].get("Session-Id"));
    assert_eq!(
        record.get("Accounting-Record-Type").as_u64(),
        code.map(|code| code as u64)
    );
    assert_eq!(*record.get("Accounting-Record-Number"), number);
    assert_eq!(*record.get("Acct-Application-Id"), 3);
    assert_eq!(record.text("Service-Context-Id"), "17.32260@3gpp.org");
    assert_eq!(record.text("Destination-Realm"), "ringtoll.invalid");
    let proposed = matches!(name, "START" | "INTERIM").then_some(600);
    assert_eq!(
        record.find("Acct-Interim-Interval").and_then(Value::as_u64),
        proposed,
        "{name}"
    );
    let is_last = number + 1 == call.kind.records.len();
    let cause = ims(record).find("Cause-Code").and_then(Value::as_i64);
    assert_eq!(
        cause,
        is_last.then_some(call.kind.cause),
        "{} {name}",
        call.kind.name
    );
}

fn parties(call: &Call<'_>, record: Group<'_>, opening: &Traced) {
    let ims = ims(record);
    let invite = &call.caller[0];
    assert_eq!(
        ims.text("Calling-Party-Address"),
        invite.uri("P-Asserted-Identity").expect("sent")
    );
    let called = opening
        .first_line()
        .split(' ')
        .nth(1)
        .expect("a Request-URI");
    assert_eq!(
        ims.text("Called-Party-Address"),
        called,
        "as it left the node"
    );
    assert_eq!(
        ims.text("Outgoing-Session-Id"),
        opening.header("Call-ID").expect("a Call-ID")
    );
    assert_eq!(*ims.get("Role-Of-Node"), 0, "ORIGINATING_ROLE");
    assert_eq!(*ims.get("Node-Functionality"), 6, "AS");
    // The caller sends no P-Charging-Vector, so that the node makes the ICID; one for all.
    let icid = ims.text("IMS-Charging-Identifier");
    assert!(icid.starts_with("test-"), "{icid}");
    assert_eq!(
        icid,
        self::ims(call.records[0]).text("IMS-Charging-Identifier")
    );
    let subscription = record.group("Service-Information").group("Subscription-Id");
    assert_eq!(
        *subscription.get("Subscription-Id-Type"),
        2,
        "END_USER_SIP_URI"
    );
    assert_eq!(
        subscription.text("Subscription-Id-Data"),
        ims.text("Calling-Party-Address")
    );
}

fn instant(group: Group<'_>, name: &str) -> Option<f64> {
    let seconds = group.find(name)?.as_f64()?;
    let milliseconds = group.get(&format!("{name}-Fraction")).as_f64()?;
    assert!((0.0..1_000.0).contains(&milliseconds), "{name}");
    Some(seconds + milliseconds / 1e3)
}

// The request as the caller sent it and the response as the caller got it, within what loopback
// and two loaded cores need.
fn times(call: &Call<'_>, record: Group<'_>) {
    let ims = ims(record);
    let method = ims.group("Event-Type").text("3GPP-SIP-Method");
    let kind = record.get("Accounting-Record-Type").as_u64();
    let (request, status, nth) = match (kind, call.kind.name) {
        (Some(4), _) => ("BYE", None, 0),
        (Some(3), _) => ("INVITE", Some("200"), 1),
        (Some(2), _) => ("INVITE", Some("200"), 0),
        (_, "message") => ("MESSAGE", Some("200"), 0),
        (_, "busy") => ("INVITE", Some("486"), 0),
        (_, name) => {
            assert_eq!(name, "cancel");
            ("INVITE", Some("487"), 0)
        }
    };
    assert_eq!(method, request, "the method that caused the record");
    let nth_of = |what: &str| {
        call.caller
            .iter()
            .filter(|message| message.is(what, request))
            .nth(nth)
            .expect("a message")
    };
    let stamps = ims.group("Time-Stamps");
    let requested = instant(stamps, "SIP-Request-Timestamp").expect("every record has one");
    assert!(
        nth_of(request).is_near(requested, NEAR_S),
        "{requested} for {request}"
    );
    let responded = instant(stamps, "SIP-Response-Timestamp");
    assert_eq!(
        responded.is_some(),
        status.is_some(),
        "the STOP reports the BYE alone"
    );
    if let (Some(status), Some(responded)) = (status, responded) {
        assert!(
            nth_of(status).is_near(responded, NEAR_S),
            "{responded} for {status}"
        );
    }
    let event = record.get("Event-Timestamp").as_f64().expect("a time");
    let cause = responded.unwrap_or(requested);
    assert!(
        (event - cause).abs() < 2.0,
        "{event} is when the CTF learned of {cause}"
    );
}

/// One SDP-Media-Component: name, description lines, SDP-Type.
fn component(value: &Value) -> (String, Vec<String>, u64) {
    let group = Group::of(value);
    let lines = group.all("SDP-Media-Description");
    (
        group.text("SDP-Media-Name").to_owned(),
        lines
            .iter()
            .filter_map(|line| line.as_str())
            .map(str::to_owned)
            .collect(),
        group.get("SDP-Type").as_u64().expect("a number"),
    )
}

fn in_message(message: &Traced, sdp_type: u64) -> (String, Vec<String>, u64) {
    let body = message
        .body_lines("a=")
        .iter()
        .map(|line| format!("a={line}"))
        .collect();
    (message.body_lines("m=")[0].to_owned(), body, sdp_type)
}

fn media(call: &Call<'_>, record: Group<'_>) {
    let ims = ims(record);
    let components: Vec<_> = ims
        .all("SDP-Media-Component")
        .into_iter()
        .map(component)
        .collect();
    let offers: Vec<&Traced> = call
        .caller
        .iter()
        .filter(|message| message.is("INVITE", "INVITE"))
        .collect();
    let answers: Vec<&Traced> = call
        .caller
        .iter()
        .filter(|m| m.is("200", "INVITE") && !m.body_lines("m=").is_empty())
        .collect();
    let expected = match (
        record.get("Accounting-Record-Type").as_u64(),
        call.kind.name,
    ) {
        // The answer of this call came in a 183.
        (Some(2), "prack") => {
            let early = ims.group("Early-Media-Description");
            let answer = call
                .caller
                .iter()
                .find(|m| m.is("183", "INVITE"))
                .expect("a 183");
            let both: Vec<_> = early
                .all("SDP-Media-Component")
                .into_iter()
                .map(component)
                .collect();
            assert_eq!(both, [in_message(offers[0], 0), in_message(answer, 1)]);
            vec![in_message(offers[0], 0)]
        }
        (Some(2), _) => vec![in_message(offers[0], 0), in_message(answers[0], 1)],
        (Some(3), _) => vec![in_message(offers[1], 0), in_message(answers[1], 1)],
        _ => Vec::new(),
    };
    assert_eq!(components, expected, "{}", call.kind.name);
    let lines = ims.all("SDP-Session-Description").len();
    assert_eq!(lines, expected.len(), "one c= line for each SDP");
}

// The caller of this kind was forwarded to and holds the callee later on; its phone has an IMEI.
fn services(call: &Call<'_>, record: Group<'_>) {
    let ims = ims(record);
    let opens = matches!(record.get("Accounting-Record-Type").as_u64(), Some(1 | 2));
    let directions: Vec<_> = ims
        .all("NNI-Information")
        .into_iter()
        .map(|nni| Group::of(nni).get("Session-Direction").clone())
        .collect();
    assert_eq!(directions.len(), if opens { 2 } else { 0 }, "in and out");
    let service = record
        .group("Service-Information")
        .find("MMTel-Information");
    let shown = service.map(|group| Group::of(group).group("Supplementary-Service"));
    let of_type = shown.map(|service| service.get("MMTel-Service-Type").as_u64());
    let reinvite = call.kind.name == "reinvite";
    let expected = match record.get("Accounting-Record-Type").as_u64() {
        Some(2) if reinvite => Some(Some(6)),
        Some(3) => Some(Some(4)),
        _ => None,
    };
    assert_eq!(of_type, expected, "{}", call.kind.name);
    if let (Some(service), Some(Some(6))) = (shown, expected) {
        assert_eq!(*service.get("Number-Of-Diversions"), 1);
        assert_eq!(*service.get("Service-Mode"), 1, "CFB");
        assert!(
            service
                .text("Associated-Party-Address")
                .starts_with("sip:+4931")
        );
    }
    let phone = record.find("User-Equipment-Info");
    let imei = phone.map(|phone| Group::of(phone).text("User-Equipment-Info-Value"));
    assert_eq!(imei, reinvite.then_some("3553080800000042"));
}

/// Seconds between a message at sipp and its time in a record.
const NEAR_S: f64 = 0.25;
