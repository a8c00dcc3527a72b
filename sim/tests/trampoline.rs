//! The way of a plain `cargo test` into the simulation: its tests are built again, on the simulated runtime, and run.
//!
//! It is what is built where the flag is missing, so a run without the flag cannot pass by simulating nothing.

#![cfg(not(madsim))]

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The flags of this build, and the one that makes it a simulation. Cargo separates them by this character.
fn flags() -> String {
    let encoded = env::var("CARGO_ENCODED_RUSTFLAGS").ok();
    let plain = || {
        env::var("RUSTFLAGS").ok().map(|flags| flags.split_whitespace().collect::<Vec<_>>().join("\u{1f}"))
    };
    let mut flags = encoded.or_else(plain).unwrap_or_default();
    if !flags.is_empty() {
        flags.push('\u{1f}');
    }
    flags + "--cfg\u{1f}madsim"
}

#[test]
fn the_simulation_passes() {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| here.join("../target"), PathBuf::from);
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "--package", "sim", "--profile", "sim", "--lib", "--tests", "--target-dir"])
        .arg(target.join("sim"))
        .current_dir(&here)
        .env("CARGO_ENCODED_RUSTFLAGS", flags())
        .env_remove("RUSTFLAGS")
        .status()
        .expect("cargo runs this test, so it can be run");
    assert!(status.success(), "the simulation failed: {status}");
}
