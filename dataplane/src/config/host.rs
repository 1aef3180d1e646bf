//! Whether a configuration fits the machine it is read on: what `ringtoll check` looks at besides
//! the file.

use std::fs;
use std::path::Path;

use replication::layout::SUPERBLOCK;
use replication::{map, ring_paths};

use super::file::{Wrong, wrong};
use super::{Config, ConfigError, Node};

impl Config {
    /// Checks that the cores exist, that the directories can be written to and that there is room
    /// for the rings. Nothing is left behind; `path` is only named in errors.
    pub fn check_host(&self, path: &Path) -> Result<(), ConfigError> {
        let online = fs::read_to_string(ONLINE).unwrap_or_default();
        let node = &self.node;
        let checked = cores(&node.cores, &online)
            .and_then(|()| directory("node.state_dir", &node.state_dir))
            .and_then(|()| directory("node.data_dir", &node.data_dir))
            .and_then(|()| rings(node, self.node_number()));
        checked.map_err(|wrong| wrong.of(path))
    }
}

// `online` is a list like `0-3,8`; an empty one says that nothing is known.
fn cores(wanted: &[usize], online: &str) -> Result<(), Wrong> {
    let online = online.trim();
    let exists = |core: usize| {
        online.split(',').any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let bounds = (first.parse::<usize>(), last.parse::<usize>());
            matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&core))
        })
    };
    let missing = wanted.iter().find(|&&core| !exists(core));
    match missing {
        Some(core) if !online.is_empty() => Err(wrong(
            "node.cores",
            format!("this host has no core {core}: {online} are online"),
            "name cores that are online, or none for one shard without a core of its own",
        )),
        _ => Ok(()),
    }
}

// What of a path is there.
fn existing(path: &Path) -> &Path {
    match path.ancestors().find(|above| above.exists()) {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    }
}

// The node takes all the room of its rings when it starts, but for those that are there.
fn rings(node: &Node, number: u16) -> Result<(), Wrong> {
    let shards = node.cores.len().max(1);
    let files = (0..shards).flat_map(|shard| {
        let (young, old) = ring_paths(&node.state_dir, number, shard as u16);
        [(young, node.ring_young_bytes), (old, node.ring_old_bytes)]
    });
    let lacking = files.fold(0, |sum: u64, (path, bytes)| {
        let len = bytes.saturating_add(SUPERBLOCK as u64);
        sum.saturating_add(map::bytes_to_take(&path, len))
    });
    let room = map::room(existing(&node.state_dir)).unwrap_or(u64::MAX);
    if lacking <= room {
        return Ok(());
    }
    Err(wrong(
        "node.state_dir",
        format!(
            "the file system of `{}` has {} MiB free, and the rings of {shards} shard(s) need {} \
             MiB more",
            node.state_dir.display(),
            room >> 20,
            lacking.div_ceil(1 << 20)
        ),
        "mount it larger (tmpfs: remount with size=), name another directory, or make \
         node.ring_young_mib and node.ring_old_mib smaller",
    ))
}

// A directory that is not there yet is made when the node starts, so its parent has to take it.
fn directory(key: &str, path: &Path) -> Result<(), Wrong> {
    let there = existing(path);
    let probe = there.join(format!(".ringtoll-check-{}", std::process::id()));
    let tried = match there.is_dir() {
        true => fs::write(&probe, b"").map_err(|error| error.to_string()),
        false => Err("it is not a directory".to_owned()),
    };
    let _ = fs::remove_file(&probe);
    tried.map_err(|error| {
        wrong(
            key,
            format!(
                "`{}` cannot be used: {}: {error}",
                path.display(),
                there.display()
            ),
            "name a directory that this user can write to or create",
        )
    })
}

/// The cores that the kernel runs on.
const ONLINE: &str = "/sys/devices/system/cpu/online";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_looked_for_among_those_that_are_online() {
        assert!(cores(&[0, 3, 8], "0-3,8\n").is_ok());
        assert!(cores(&[], "0").is_ok());
        assert!(cores(&[7], "").is_ok(), "nothing is known");
        for missing in [4, 7, 9] {
            let wrong = cores(&[0, missing], "0-3,8\n").expect_err("it does not exist");
            assert!(wrong.reason.contains(&format!("core {missing}:")));
        }
    }

    #[test]
    fn rings_need_room_unless_they_are_there() {
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let mut node = Config::embedded().node;
        node.state_dir = dir.path().join("new");
        (node.ring_young_bytes, node.ring_old_bytes) = (1 << 20, 1 << 20);
        assert!(rings(&node, 1).is_ok());
        node.ring_old_bytes = 1 << 60;
        node.cores = vec![0, 1];
        let wrong = rings(&node, 1).expect_err("no file system is so large");
        for part in ["MiB free", "2 shard(s)", "2199023255555 MiB more"] {
            assert!(wrong.reason.contains(part), "{}", wrong.reason);
        }
        // Rings that are there keep their size, whatever the file says.
        for shard in 0..2 {
            let (young, old) = ring_paths(&node.state_dir, 1, shard);
            fs::create_dir_all(young.parent().expect("a directory")).expect("writable");
            for path in [young, old] {
                fs::write(path, [1; 8192]).expect("room");
            }
        }
        assert!(rings(&node, 1).is_ok());
        assert!(rings(&node, 2).is_err(), "those are another node's");
    }

    #[test]
    fn a_directory_is_there_or_can_be_made() {
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let below = |name: &str| dir.path().join(name);
        assert!(directory("k", dir.path()).is_ok());
        assert!(directory("k", &below("new/deeper")).is_ok());
        assert!(!below("new").exists(), "nothing is left behind");
        fs::write(below("file"), b"").expect("the directory takes files");
        for name in ["file", "file/below"] {
            let wrong = directory("k", &below(name)).expect_err("it is a file");
            assert!(wrong.reason.contains("not a directory"), "{}", wrong.reason);
        }
        let left = fs::read_dir(dir.path()).expect("readable").count();
        assert_eq!(left, 1);
    }
}
