//! A soak of a few seconds, with a reopening every other one: the machinery of the long one, and whatever goes
//! wrong at once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "where it fails, the table tells why")]

use std::time::Duration;

use vault_core::Clock as _;
use vault_core::clock::SystemClock;
use vault_sim::soak::{self, Settings};

#[test]
fn fifteen_seconds_with_eight_threads() {
    soak_for_a_moment(false);
}

/// With rotations, other secrets, and locking in between.
#[test]
fn fifteen_seconds_with_eight_threads_on_an_encrypted_store() {
    soak_for_a_moment(true);
}

fn soak_for_a_moment(encrypted: bool) {
    let directory = tempfile::tempdir().unwrap();
    let seed = SystemClock::new().now().0;
    let settings = Settings {
        sample_every: Duration::from_secs(2),
        reopen_every: Duration::from_secs(2),
        encrypted,
        ..Settings::new(Duration::from_secs(15), directory.path().join("soak"), seed)
    };
    let mut table = Vec::new();
    let outcome = soak::run(&settings, &mut table).unwrap();
    let table = String::from_utf8(table).unwrap();
    println!("{table}");
    assert!(outcome.problems.is_empty(), "{table}");
    // On any machine that is not in trouble.
    assert!(
        outcome.operations > 1_000 && outcome.reopenings >= 2,
        "{outcome:?}"
    );
    assert!(table.contains("every invariant held"), "{table}");
}
