//! Replays the fuzzing corpus, and a bounded number of mutations of it drawn from a seed.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use tests::{exercise, exercise_replication};

/// SplitMix64: the same mutations on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let entries = fs::read_dir(directory).expect("the corpus is part of the project");
    let mut inputs: Vec<_> = entries
        .map(|entry| entry.expect("a readable directory"))
        .map(|entry| {
            let input = fs::read(entry.path()).expect("a readable file");
            (entry.file_name().to_string_lossy().into_owned(), input)
        })
        .collect();
    inputs.sort();
    inputs
}

/// Bytes that mean something to SIP, more likely to break it than others.
const TELLING: &[u8] = b"\r\n\r\n\t :;,<>\"\\@[]?=/%*0z\0\x7f\x80\xff";

fn mutate(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut output = input.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(output.len() + 1);
        let telling = TELLING[random.below(TELLING.len())];
        match random.below(7) {
            0 if at < output.len() => output[at] = telling,
            1 if at < output.len() => output[at] = random.next() as u8,
            2 if at < output.len() => drop(output.remove(at)),
            3 => output.insert(at, telling),
            4 => output.truncate(at),
            5 => {
                let end = at + random.below(output.len() - at + 1).min(64);
                let copy = output[at..end].to_vec();
                let to = random.below(output.len() + 1);
                output.splice(to..to, copy);
            }
            _ => {
                let from = random.below(other.len() + 1);
                let end = from + random.below(other.len() - from + 1);
                let end_here = at + random.below(output.len() - at + 1);
                output.splice(at..end_here, other[from..end].iter().copied());
            }
        }
    }
    output
}

fn replay(inputs: &[(String, Vec<u8>)], exercise: fn(&[u8])) {
    for (name, input) in inputs {
        let outcome = catch_unwind(|| exercise(input));
        assert!(outcome.is_ok(), "{name}");
    }
}

fn replay_mutations(inputs: &[(String, Vec<u8>)], exercise: fn(&[u8]), rounds: u64) {
    for seed in 0..rounds {
        let mut random = Random(seed);
        let (name, input) = &inputs[random.below(inputs.len())];
        let (_, other) = &inputs[random.below(inputs.len())];
        let mutated = mutate(&mut random, input, other);
        let outcome = catch_unwind(|| exercise(&mutated));
        assert!(
            outcome.is_ok(),
            "seed={seed} of {name}: {}",
            mutated.escape_ascii()
        );
    }
}

/// How many mutations a run of the tests draws; `RINGTOLL_MUTATIONS` asks for more.
fn rounds() -> u64 {
    let asked = std::env::var("RINGTOLL_MUTATIONS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(30_000)
}

#[test]
fn no_input_of_the_sip_corpus_does_harm() {
    replay(&corpus("sip"), exercise::sip);
}

#[test]
fn no_mutation_of_the_sip_corpus_does_harm() {
    replay_mutations(&corpus("sip"), exercise::sip, rounds());
}

#[test]
fn no_input_of_the_diameter_corpus_does_harm() {
    replay(&corpus("diameter"), exercise::diameter);
}

#[test]
fn no_mutation_of_the_diameter_corpus_does_harm() {
    replay_mutations(&corpus("diameter"), exercise::diameter, rounds() / 3);
}

#[test]
fn no_input_of_the_configuration_corpus_does_harm() {
    replay(&corpus("config"), exercise::config);
}

#[test]
fn no_mutation_of_the_configuration_corpus_does_harm() {
    replay_mutations(&corpus("config"), exercise::config, rounds() / 10);
}

#[test]
fn no_input_of_the_replication_corpus_does_harm() {
    let exercise = exercise_replication::replication;
    replay(&corpus("replication"), exercise);
}

#[test]
fn no_mutation_of_the_replication_corpus_does_harm() {
    let exercise = exercise_replication::replication;
    replay_mutations(&corpus("replication"), exercise, rounds() / 3);
}
