//! The torture messages of RFC 4475 and RFC 5118 and a collection of captured ones, read where
//! they lie: none of them is part of the project.
//!
//! `RINGTOLL_TORTURE` names the directory that holds `rfc4475/`, `rfc5118/` and `samples/`, each
//! with a `manifest.tsv`. Without it the tests say that they were skipped.

use std::fs;
use std::path::{Path, PathBuf};

use dataplane::sip::{self, HeaderId, Index, ParseError, Uri};
use tests::exercise;

/// One line of a manifest.
struct Case {
    file: String,
    section: String,
    class: String,
    raw: Vec<u8>,
}

fn directory(name: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("RINGTOLL_TORTURE") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/torture"),
    };
    let directory = root.join(name);
    if directory.join("manifest.tsv").is_file() {
        return Some(directory);
    }
    println!("SKIPPED: no {name}/manifest.tsv under {}", root.display());
    None
}

fn cases(directory: &Path) -> Vec<Case> {
    let manifest = fs::read_to_string(directory.join("manifest.tsv")).expect("a manifest");
    let case = |line: &str| {
        let mut fields = line.split('\t').map(str::to_owned);
        let mut field = || fields.next().unwrap_or_default();
        let (file, section, class) = (field(), field(), field());
        let raw = fs::read(directory.join(&file)).expect("a file the manifest names");
        Case {
            file,
            section,
            class,
            raw,
        }
    };
    manifest
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty())
        .map(case)
        .collect()
}

/// What a node does before it lets a message create state.
fn verdict(raw: &[u8]) -> Result<(), ParseError> {
    let mut index = Index::new();
    sip::parse(raw, &mut index)?.validate()
}

/// Counts the files that are accepted and prints each one's verdict.
fn accepted(cases: &[&Case]) -> usize {
    let mut count = 0;
    for case in cases {
        let verdict = verdict(&case.raw);
        println!("{:<12}{:<28}{verdict:?}", case.section, case.file);
        count += usize::from(verdict.is_ok());
    }
    count
}

#[test]
fn rfc_4475_valid_messages_are_accepted_and_invalid_ones_refused() {
    let Some(directory) = directory("rfc4475") else {
        return;
    };
    let cases = cases(&directory);
    let section = |start: &str| -> Vec<&Case> {
        let of_the_rfc = |case: &&Case| case.section.starts_with(start);
        cases
            .iter()
            .filter(of_the_rfc)
            .filter(|case| !case.file.contains(".fixed."))
            .collect()
    };
    let (valid, invalid) = (section("3.1.1."), section("3.1.2."));
    let (valid_accepted, invalid_accepted) = (accepted(&valid), accepted(&invalid));
    let invalid_refused = invalid.len() - invalid_accepted;
    println!(
        "RFC 4475 3.1.1 valid: {valid_accepted} of {} accepted",
        valid.len()
    );
    println!(
        "RFC 4475 3.1.2 invalid: {invalid_refused} of {} refused",
        invalid.len()
    );
    assert_eq!((valid.len(), valid_accepted), (13, 13));
    assert_eq!(invalid.len(), 19);
    assert!(
        invalid_refused >= 18,
        "all but baddate, whose Date nobody here reads"
    );
}

#[test]
fn rfc_4475_other_sections_get_the_verdict_of_their_layer() {
    let Some(directory) = directory("rfc4475") else {
        return;
    };
    let cases = cases(&directory);
    let verdict_of = |file: &str| {
        verdict(
            &cases
                .iter()
                .find(|case| case.file == file)
                .expect("a file of the RFC")
                .raw,
        )
    };
    for file in [
        "badbranch.dat",
        "unksm2.dat",
        "bext01.dat",
        "invut.dat",
        "regaut01.dat",
        "bcast.dat",
        "zeromf.dat",
        "cparam01.dat",
        "cparam02.dat",
        "regescrt.dat",
        "sdp01.dat",
        "inv2543.dat",
    ] {
        assert_eq!(verdict_of(file), Ok(()), "{file} is for a layer above");
    }
    assert_eq!(verdict_of("unkscm.dat"), Err(ParseError::UriScheme));
    assert_eq!(verdict_of("novelsc.dat"), Err(ParseError::UriScheme));
    assert_eq!(verdict_of("badvers.dat"), Err(ParseError::Version));
    assert_eq!(verdict_of("clerr.dat"), Err(ParseError::Truncated));
    assert_eq!(verdict_of("mismatch01.dat"), Err(ParseError::CSeqMethod));
    assert_eq!(
        verdict_of("mcl01.dat"),
        Err(ParseError::Repeated(HeaderId::ContentLength))
    );
    assert!(matches!(
        verdict_of("multi01.dat"),
        Err(ParseError::Repeated(_))
    ));
    assert!(matches!(
        verdict_of("insuf.dat"),
        Err(ParseError::Missing(_))
    ));
}

#[test]
fn rfc_4475_malformed_requests_can_be_answered() {
    let Some(directory) = directory("rfc4475") else {
        return;
    };
    for case in cases(&directory) {
        let mut index = Index::new();
        let Err(error) = sip::parse(&case.raw, &mut index) else {
            continue;
        };
        let answer = sip::salvage(&case.raw, &index).and(error.response());
        println!("{:<28}{error:?} -> {answer:?}", case.file);
        let is_response = case.raw.starts_with(b"SIP/2.0 ");
        let hopeless = is_response || ["insuf.dat", "test.dat"].contains(&case.file.as_str());
        assert_eq!(answer.is_none(), hopeless, "{}", case.file);
    }
}

#[test]
fn rfc_5118_messages_are_accepted_but_for_a_bare_ipv6_address() {
    let Some(directory) = directory("rfc5118") else {
        return;
    };
    let cases = cases(&directory);
    let valid: Vec<&Case> = cases.iter().filter(|case| case.class == "valid").collect();
    let invalid: Vec<&Case> = cases
        .iter()
        .filter(|case| case.class == "invalid")
        .collect();
    let (valid_accepted, invalid_accepted) = (accepted(&valid), accepted(&invalid));
    println!(
        "RFC 5118 valid: {valid_accepted} of {} accepted",
        valid.len()
    );
    println!(
        "RFC 5118 4.2: {} of {} refused",
        invalid.len() - invalid_accepted,
        invalid.len()
    );
    assert_eq!(valid_accepted, valid.len());
    assert!(valid.len() >= 11);
    assert_eq!((invalid.len(), invalid_accepted), (1, 0));
}

#[test]
fn no_captured_message_does_harm() {
    let Some(directory) = directory("samples") else {
        return;
    };
    let cases = cases(&directory);
    let (mut parsed, mut valid) = (0, 0);
    for case in &cases {
        exercise::sip(&case.raw);
        let mut index = Index::new();
        match sip::parse(&case.raw, &mut index) {
            Ok(message) => {
                parsed += 1;
                match message.validate() {
                    Ok(()) => valid += 1,
                    Err(error) => println!("{:<44}{error:?}", case.file),
                }
            }
            Err(error) => println!("{:<44}parse: {error:?}", case.file),
        }
    }
    println!("samples: {parsed} of {} parsed, {valid} valid", cases.len());
    assert!(
        parsed > cases.len() / 2,
        "most of them are what peers really send"
    );
}

#[test]
fn the_torture_names_mean_what_the_rfc_says() {
    let Some(directory) = directory("rfc4475") else {
        return;
    };
    let raw = fs::read(directory.join("semiuri.dat")).expect("a file of the RFC");
    let mut index = Index::new();
    let message = sip::parse(&raw, &mut index).expect("3.1.1.9");
    let uri = Uri::parse(message.request_uri()).expect("3.1.1.9");
    assert_eq!(uri.user, Some(&b"user;par=u%40example.net"[..]));
    let raw = fs::read(directory.join("dblreq.dat")).expect("a file of the RFC");
    let message = sip::parse(&raw, &mut index).expect("3.1.1.8");
    assert!(
        message.body().is_empty(),
        "what follows Content-Length is not ours"
    );
    let raw = fs::read(directory.join("longreq.dat")).expect("a file of the RFC");
    let message = sip::parse(&raw, &mut index).expect("3.1.1.7");
    assert_eq!(message.values(HeaderId::Via).count(), 34);
}
