//! Style as a test: words that are confined to a file stay there, arrows between crates point
//! one way, files and functions keep to one room.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for package in ["charging", "replication", "dataplane", "bench", "tests"] {
        collect(&root().join(package), &mut found);
    }
    assert!(found.len() > 100, "the sources are found");
    found
}

fn collect(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).expect("the sources are readable") {
        let path = entry.expect("the sources are readable").path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("fuzz") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            let name = path
                .strip_prefix(root())
                .expect("below the root")
                .to_string_lossy();
            found.push((name.replace('\\', "/"), text));
        }
    }
}

// Lines of code: without comments, blank lines and the tests at the end of the file.
fn code_lines(text: &str) -> usize {
    let code = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    code.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}

fn is_test_file(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("tests.rs") || name.starts_with("tests/")
}

#[test]
fn confined_words_stay_where_they_belong() {
    let confined: [(&str, &[&str]); 6] = [
        ("glommio::", &["dataplane/src/io/"]),
        ("memmap2::", &["replication/src/map.rs"]),
        (
            "rsip::",
            &["dataplane/src/sip/digest.rs", "bench/", "tests/"],
        ),
        (
            "allow(unsafe_code)",
            &[
                "dataplane/src/io/sys.rs",
                "replication/src/map.rs",
                "bench/src/bin/",
                "charging/tests/",
                "tests/tests/allocations.rs",
            ],
        ),
        (
            "SystemTime::now",
            &["dataplane/src/io/", "bench/", "tests/"],
        ),
        (
            "Clock::new",
            &[
                "dataplane/src/io/",
                "bench/",
                "tests/",
                "charging/",
                "replication/tests/",
            ],
        ),
    ];
    for (name, text) in sources() {
        if name == "tests/tests/tidy.rs" {
            continue;
        }
        for (word, homes) in confined {
            let at_home = homes.iter().any(|home| name.starts_with(home));
            assert!(
                at_home || !text.contains(word),
                "`{word}` does not belong into {name}"
            );
        }
    }
}

#[test]
fn sans_io_code_asks_no_clock() {
    for (name, text) in sources() {
        let sans_io = ["charging/src/", "replication/src/", "dataplane/src/"]
            .iter()
            .any(|home| name.starts_with(home));
        if !sans_io || name.starts_with("dataplane/src/io/") {
            continue;
        }
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            assert!(
                !line.contains("Instant::now()"),
                "{name} asks a clock: {line}"
            );
        }
    }
}

#[test]
fn files_keep_to_one_room() {
    for (name, text) in sources() {
        if !is_test_file(&name) {
            let lines = code_lines(&text);
            assert!(lines <= 600, "{name} has {lines} lines of code: split it");
        }
    }
}

#[test]
fn the_leaves_know_neither_each_other_nor_sip_nor_glommio() {
    for leaf in ["charging", "replication"] {
        let manifest = fs::read_to_string(root().join(leaf).join("Cargo.toml")).expect("readable");
        for foreign in [
            "glommio",
            "rsip",
            "dataplane",
            "charging.workspace",
            "replication.workspace",
        ] {
            assert!(
                !manifest.contains(foreign),
                "{leaf} must not depend on {foreign}"
            );
        }
    }
    for (name, text) in sources() {
        if name.starts_with("dataplane/") {
            assert!(
                !text.contains("use bench::") && !text.contains("use tests::"),
                "{name}"
            );
        }
    }
}

#[test]
fn nothing_is_left_unfinished_or_skipped() {
    for (name, text) in sources() {
        if name == "tests/tests/tidy.rs" {
            continue;
        }
        for word in ["todo!(", "unimplemented!(", "FIXME", "#[ignore", "dbg!("] {
            assert!(!text.contains(word), "{name} contains {word}");
        }
    }
}

#[test]
fn every_package_of_the_design_is_in_the_readme_and_in_use() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let all: String = sources().into_iter().map(|(_, text)| text).collect();
    for package in [
        "glommio",
        "rsip",
        "crossbeam",
        "rkyv",
        "memmap2",
        "quanta",
        "tracing",
    ] {
        assert!(
            readme.contains(&format!("`{package}`")),
            "the README says where {package} serves"
        );
        assert!(all.contains(&format!("{package}::")), "{package} is used");
    }
}
