//! Replays what fuzzing has found, on the stable compiler and in every run of the tests.
//!
//! Each file of `fuzz/corpus/<target>` goes through the very check that the fuzz target runs.

#![expect(
    clippy::disallowed_methods,
    reason = "a corpus is the repository's own files, not a store's"
)]

#[path = "../../fuzz/checks/operations.rs"]
mod operations;

#[test]
fn operations_hold_for_the_whole_corpus() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/operations");
    let mut replayed = 0;
    for entry in std::fs::read_dir(corpus).expect("the repository carries the corpus") {
        let path = entry.expect("a readable entry").path();
        let data = std::fs::read(&path).expect("a readable file");
        println!("replaying {}", path.display());
        operations::check(&data);
        replayed += 1;
    }
    assert!(replayed >= 10, "only {replayed} inputs in {corpus}");
}

/// Damages each input at every byte: what a corpus holds is mostly sound, what a disk returns need not
/// be.
#[test]
fn operations_hold_for_damaged_inputs() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/operations");
    for entry in std::fs::read_dir(corpus).expect("the repository carries the corpus") {
        let path = entry.expect("a readable entry").path();
        let data = std::fs::read(&path).expect("a readable file");
        for i in 0..data.len().min(4096) {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = data.clone();
                damaged[i] ^= flip;
                operations::check(&damaged);
            }
            operations::check(&data[..i]);
        }
    }
}
