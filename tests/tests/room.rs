//! A file system that is too small for the rings is told at once, by `ringtoll check` and at the
//! start, and never by the kernel in the midst of a call.

use std::path::Path;
use std::process::Command;

use replication::{OpenError, Ring, RingConfig};
use tests::process::{ringtoll, skip};

/// A tmpfs of a few MiB that is gone when the test is over.
struct SmallTmpfs(tempfile::TempDir);

impl SmallTmpfs {
    /// Nothing, and a notice, where this user may not mount.
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("there is room for temporary files");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]);
        let said = mount.arg(dir.path()).output();
        if said.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        skip("a small file system cannot be mounted: that takes root");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallTmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

fn config(bytes: u64, huge_pages: bool) -> RingConfig {
    RingConfig {
        secret: 3,
        young_bytes: bytes,
        old_bytes: 2 * bytes,
        huge_pages,
        ..RingConfig::default()
    }
}

#[test]
fn a_ring_without_room_is_refused_and_one_with_room_can_be_written_to_the_end() {
    for options in ["size=8m", "size=8m,huge=advise"] {
        let Some(small) = SmallTmpfs::mount(options) else {
            return;
        };
        for huge in [false, true] {
            let refused = Ring::open_files(small.path(), &config(4 << 20, huge)).map(|_| ());
            assert!(
                matches!(refused, Err(OpenError::NoRoom { .. })),
                "{options} {huge} {refused:?}"
            );
            let dir = small.path().join("0");
            std::fs::remove_dir_all(dir).expect("the rings can be removed");
            let (mut ring, _) =
                Ring::open_files(small.path(), &config(2 << 20, huge)).expect("room");
            // Whoever else fills the file system comes too late to harm.
            let _ = std::fs::write(small.path().join("other"), vec![1; 8 << 20]);
            for _ in 0..20_000 {
                let id = ring.next_id();
                if ring.put(id, 1, 1, &[7; 1_000]).is_err() {
                    break;
                }
            }
            for _ in 0..20_000 {
                let id = ring.iter_live().next().expect("live").meta.id;
                ring.update(id, |bytes| bytes.fill(9)).expect("it has room");
            }
            ring.verify();
            drop(ring);
            for name in ["0", "other"] {
                let path = small.path().join(name);
                let _ = std::fs::remove_dir_all(&path);
                let _ = std::fs::remove_file(&path);
            }
        }
    }
}

#[test]
fn check_compares_what_the_rings_lack_with_what_is_free() {
    let Some(small) = SmallTmpfs::mount("size=40m") else {
        return;
    };
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let check = |old_mib: u32| {
        let file = dir.path().join("node.toml");
        let text = format!(
            "[node]\nstate_dir = \"{}\"\ndata_dir = \"{}\"\nring_young_mib = 8\n\
             ring_old_mib = {old_mib}\n",
            small.path().join("rings").display(),
            dir.path().display()
        );
        std::fs::write(&file, text).expect("the directory takes files");
        let output = Command::new(ringtoll())
            .args(["check", "--config"])
            .arg(&file)
            .output();
        let output = output.expect("the program starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.code(), said)
    };
    let (status, said) = check(24);
    assert_eq!(status, Some(0), "{said}");
    let (status, said) = check(64);
    assert_eq!(status, Some(2), "{said}");
    let parts = [
        "node.toml: key `node.state_dir`: ",
        "has 40 MiB free",
        "need 73 MiB more",
        "\n  fix: mount it larger",
    ];
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
}
