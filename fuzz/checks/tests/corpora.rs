//! Replays what fuzzing has found, on the stable compiler and in every run of the tests.
//!
//! Each file of `fuzz/corpus/<target>` goes through the very check that the fuzz target runs: as it is, cut
//! short, and with bytes changed.

#![expect(
    clippy::disallowed_methods,
    reason = "a corpus is the repository's own files, not a store's"
)]

use std::path::{Path, PathBuf};

use vault_fuzz_checks::{TARGETS, Target, seeds};

/// Inputs that a corpus has at least.
const INPUTS_MIN: usize = 1;
/// Changes that are made to each input: all places of a small one, some of a large one.
const CHANGES_MAX: usize = 48;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = seeds::corpus_of(&root(), target.name);
    let entries = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a readable entry").path();
            let bytes = std::fs::read(&path).expect("a readable file");
            (path, bytes)
        })
        .collect();
    inputs.sort();
    assert!(
        inputs.len() >= INPUTS_MIN,
        "{} holds {} inputs; `cargo xtask fuzz seeds` makes some",
        directory.display(),
        inputs.len()
    );
    inputs
}

#[test]
fn every_check_holds_for_its_whole_corpus() {
    for target in &TARGETS {
        for (path, bytes) in corpus(target) {
            println!("replaying {}", path.display());
            (target.check)(&bytes);
        }
    }
}

/// Whether an input has no name but that which a fuzzer gave it. There are many, near each other already.
fn is_numbered(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.len() == 40 && name.chars().all(|c| c.is_ascii_hexdigit()))
}

/// What a corpus holds is mostly sound, what a disk returns need not be.
#[test]
fn every_check_holds_for_damaged_inputs() {
    for target in &TARGETS {
        for (path, bytes) in corpus(target) {
            if is_numbered(&path) {
                continue;
            }
            let step = (bytes.len() / CHANGES_MAX).max(1);
            for at in (0..bytes.len()).step_by(step) {
                println!("replaying {} changed at {at}", path.display());
                for flip in [0x01, 0x80, 0xff] {
                    let mut damaged = bytes.clone();
                    damaged[at] ^= flip;
                    (target.check)(&damaged);
                }
                (target.check)(&bytes[..at]);
            }
        }
    }
}

/// What is printed of an input is there to be read when something was found: it must not fail then.
#[test]
fn every_input_can_be_printed() {
    for target in &TARGETS {
        for (path, bytes) in corpus(target) {
            println!("printing {}", path.display());
            assert!(!(target.describe)(&bytes).is_empty());
        }
    }
}

#[test]
fn every_corpus_has_a_target_and_every_target_a_binary() {
    let names = |directory: &str| {
        let entries = std::fs::read_dir(root().join(directory)).expect("a readable directory");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("a readable entry").path())
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        names
    };
    let mut targets: Vec<String> = TARGETS.iter().map(|t| t.name.to_owned()).collect();
    targets.sort();
    assert_eq!(names(seeds::CORPUS), targets);
    assert_eq!(names("fuzz/fuzz_targets"), targets);
    let manifest = std::fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("a manifest");
    for target in targets {
        let declared = format!("path = \"fuzz_targets/{target}.rs\"");
        assert!(manifest.contains(&declared), "no `[[bin]]` for {target}");
    }
}

/// The seeds are made by code, so that they can be made anew where a format changes.
#[test]
fn seeds_are_the_same_whenever_they_are_made() {
    let (once, again) = (seeds::all().expect("seeds"), seeds::all().expect("seeds"));
    assert_eq!(once, again);
    for target in &TARGETS {
        let made = once.get(target.name).map_or(0, Vec::len);
        assert!(made > 0, "{} has no seeds", target.name);
    }
}
