//! Which files a ring takes up, which it empties and which it refuses.

use replication::error::ConfigError;
use replication::layout::{SUPERBLOCK, superblock};
use replication::{Map, OpenError, Origin, Ring, RingConfig};

fn config() -> RingConfig {
    RingConfig {
        node: 4,
        shard: 2,
        young_bytes: 64 << 10,
        old_bytes: 64 << 10,
        payload_bytes_max: 1000,
        calls_max: 10,
        schema_hash: 0xabc,
        boot_id: *b"0123456789abcdef",
        secret: 5,
        ..RingConfig::default()
    }
}

fn image() -> (Vec<u8>, Vec<u8>) {
    let map = || Map::heap(SUPERBLOCK + (64 << 10));
    let mut ring = Ring::create(map(), map(), &config()).expect("a possible configuration");
    let id = ring.next_id();
    ring.put(id, 1, 1, &[1; 500])
        .expect("an empty ring has room");
    ring.image()
}

fn open(young: &[u8], old: &[u8], config: &RingConfig) -> Result<(u64, Origin, u32), OpenError> {
    let (ring, recovery) = Ring::open(Map::heap_copy(young), Map::heap_copy(old), config)?;
    ring.verify();
    Ok((ring.calls(), recovery.origin, ring.incarnation()))
}

fn with_word(bytes: &[u8], at: usize, word: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
    bytes
}

#[test]
fn a_ring_of_this_boot_is_taken_up_under_a_new_incarnation() {
    let (young, old) = image();
    assert_eq!(open(&young, &old, &config()), Ok((1, Origin::Recovered, 2)));
    let config = RingConfig {
        incarnation: 70,
        ..config()
    };
    assert_eq!(open(&young, &old, &config), Ok((1, Origin::Recovered, 70)));
}

#[test]
fn a_ring_of_another_boot_is_emptied_and_its_incarnation_is_not_used_again() {
    let (young, old) = image();
    let config = RingConfig {
        boot_id: [9; 16],
        ..config()
    };
    assert_eq!(open(&young, &old, &config), Ok((0, Origin::OtherBoot, 2)));
}

#[test]
fn foreign_files_are_refused() {
    let (young, old) = image();
    let with = |at, word| open(&with_word(&young, at, word), &old, &config());
    assert_eq!(with(superblock::MAGIC, 7), Err(OpenError::NotARing));
    assert_eq!(with(superblock::FORMAT, 9), Err(OpenError::Format(9)));
    assert_eq!(
        with(superblock::CAPACITY, 1 << 40),
        Err(OpenError::NotARing)
    );
    assert_eq!(with(superblock::CAPACITY, 0), Err(OpenError::NotARing));
    assert_eq!(with(superblock::TAIL, 3), Err(OpenError::NotARing));
    assert_eq!(with(superblock::SECRET, 3), Err(OpenError::Mismatch));
    assert_eq!(open(&old, &young, &config()), Err(OpenError::Mismatch));
    let other = RingConfig {
        shard: 3,
        ..config()
    };
    assert_eq!(
        open(&young, &old, &other),
        Err(OpenError::Identity { node: 4, shard: 2 })
    );
}

#[test]
fn the_present_and_the_former_schema_are_read_and_no_other() {
    let (young, old) = image();
    let newer = RingConfig {
        schema_hash: 0xdef,
        schema_hash_former: Some(0xabc),
        ..config()
    };
    assert_eq!(open(&young, &old, &newer), Ok((1, Origin::Recovered, 2)));
    let later = RingConfig {
        schema_hash: 0x123,
        schema_hash_former: Some(0xdef),
        ..config()
    };
    assert_eq!(open(&young, &old, &later), Err(OpenError::Schema(0xabc)));
}

#[test]
fn impossible_limits_are_named() {
    let checks = [
        (
            RingConfig {
                payload_bytes_max: 0,
                ..config()
            },
            ConfigError::PayloadBytesMax,
        ),
        (
            RingConfig {
                young_bytes: 1024,
                ..config()
            },
            ConfigError::YoungBytes,
        ),
        (
            RingConfig {
                old_bytes: (64 << 10) + 1,
                ..config()
            },
            ConfigError::OldBytes,
        ),
        (
            RingConfig {
                calls_max: 0,
                ..config()
            },
            ConfigError::CallsMax,
        ),
        (
            RingConfig {
                high_water_percent: 95,
                ..config()
            },
            ConfigError::HighWaterPercent,
        ),
    ];
    for (config, error) in checks {
        assert_eq!(config.check(), Err(error));
    }
    assert_eq!(config().check(), Ok(()));
}

#[test]
fn files_come_back_closed_in_order_or_not() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (mut ring, recovery) = Ring::open_files(dir.path(), &config()).expect("new files");
    assert_eq!(recovery.origin, Origin::Created);
    let id = ring.next_id();
    ring.put(id, 1, 1, b"x").expect("an empty ring has room");
    assert_eq!(
        Ring::open_files(dir.path(), &config()).map(|_| ()),
        Err(OpenError::Locked),
        "one writer at a time"
    );
    ring.close();
    let (ring, recovery) = Ring::open_files(dir.path(), &config()).expect("the files are there");
    assert!(recovery.closed_in_order);
    drop(ring);
    let larger = RingConfig {
        old_bytes: 1 << 20,
        ..config()
    };
    let (ring, recovery) =
        Ring::open_files(dir.path(), &larger).expect("the files keep their size");
    assert!(!recovery.closed_in_order);
    assert_eq!(ring.calls(), 1);
    assert!(dir.path().join("4/2.young").is_file() && dir.path().join("4/2.old").is_file());
}

// A chain that breaks amid records must not be taken for a head: what lay behind is lost, and the
// node must not say that it kept all.
#[test]
fn damage_amid_records_is_told_from_a_head() {
    let map = || Map::heap(SUPERBLOCK + (64 << 10));
    let mut ring = Ring::create(map(), map(), &config()).expect("a possible configuration");
    for _ in 0..8 {
        let id = ring.next_id();
        ring.put(id, 1, 1, &[1; 500]).expect("room");
    }
    let (young, old) = ring.image();
    let opened = |young: &[u8]| {
        let memory = (Map::heap_copy(young), Map::heap_copy(&old));
        let (ring, recovery) = Ring::open(memory.0, memory.1, &config()).expect("a ring");
        ring.verify();
        (ring, recovery)
    };
    let (_, whole) = opened(&young);
    assert!(whole.kept() && whole.calls == 8);
    // 500 bytes and a header take nine lines; the third record's word, length and payload.
    let third = SUPERBLOCK + 2 * 9 * 64;
    for (at, bit) in [
        (third, 3),
        (third + 10, 7),
        (third + 8, 6),
        (third + 100, 1),
    ] {
        let mut damaged = young.clone();
        damaged[at] ^= 1 << bit;
        let (ring, recovery) = opened(&damaged);
        assert!(!recovery.kept(), "{at}: {recovery:?}");
        assert!(
            recovery.cut_off + recovery.corrupt > 0,
            "{at}: {recovery:?}"
        );
        // What was cut off does not come up at a later restart.
        let (young, _) = ring.image();
        let (_, again) = opened(&young);
        assert_eq!((again.calls, again.cut_off), (recovery.calls, 0), "{at}");
    }
    // A record that a kill cut short has no commit word: the head is where it was.
    let end = SUPERBLOCK + 8 * 9 * 64;
    let mut cut_short = young.clone();
    cut_short[end + 8..end + 300].fill(7);
    assert!(opened(&cut_short).1.kept());
}
