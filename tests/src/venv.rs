//! Python packages for the tests, in a virtual environment under the build directory.

use std::path::PathBuf;
use std::process::Command;

use crate::process::{cache, is_installed, skip};

/// The interpreter of an environment that has `package`; `None`, said aloud, where that cannot
/// be had.
pub fn python_with(package: &str, module: &str) -> Option<PathBuf> {
    if !is_installed("python3") {
        return None;
    }
    let dir = cache("venv");
    let python = dir.join("bin/python");
    let has_it = || {
        let found = Command::new(&python)
            .args(["-c", &format!("import {module}")])
            .output();
        found.is_ok_and(|output| output.status.success())
    };
    if has_it() {
        return Some(python);
    }
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&dir)
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        skip("python3 cannot make a virtual environment");
        return None;
    }
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        package,
    ];
    let installed = Command::new(&python).args(pip).output();
    if installed.is_ok_and(|output| output.status.success()) && has_it() {
        return Some(python);
    }
    skip(&format!("pip cannot install {package}"));
    None
}
