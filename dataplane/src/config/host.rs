//! Whether a configuration fits the machine it is read on: what `ringtoll check` looks at besides
//! the file.

use std::fs;
use std::path::Path;

use super::file::{Wrong, wrong};
use super::{Config, ConfigError};

impl Config {
    /// Checks that the cores exist and that the directories can be written to. Nothing is left
    /// behind; `path` is only named in errors.
    pub fn check_host(&self, path: &Path) -> Result<(), ConfigError> {
        let online = fs::read_to_string(ONLINE).unwrap_or_default();
        let node = &self.node;
        let checked = cores(&node.cores, &online)
            .and_then(|()| directory("node.state_dir", &node.state_dir))
            .and_then(|()| directory("node.data_dir", &node.data_dir));
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

// A directory that is not there yet is made when the node starts, so its parent has to take it.
fn directory(key: &str, path: &Path) -> Result<(), Wrong> {
    let there = path.ancestors().find(|above| above.exists());
    let there = match there {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
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
