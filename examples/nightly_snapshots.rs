//! Snapshots every night, kept as long as they are worth it, and tried out before they are needed.
//!
//! `cargo run --release --example nightly_snapshots`

#![expect(
    clippy::print_stdout,
    reason = "an example talks to the person who runs it"
)]

use std::time::Duration;

use vault_db::snapshot::{Retention, Schedule, SnapshotOptions};
use vault_db::{Database, Result, Scope, VaultChoice};

fn main() -> Result<()> {
    let place = tempfile::tempdir().expect("a directory for this example");
    let directory = place.path();
    let db = Database::open(directory.join("shop"))?;
    let orders = db.vault("orders")?;
    orders.update((0..10_000).map(|n| (n, format!("order {n}"))))?;

    // A snapshot a night, and one whenever a million entries have changed. Most of it is shared with the night before.
    let nightly = Schedule {
        interval: Some(Duration::from_secs(24 * 3600)),
        changed_entries: Some(1_000_000),
        events: ["before the move".to_owned()].into(),
        ..Schedule::default()
    };
    let keep = Retention {
        last: 3,
        daily: 7,
        weekly: 4,
        monthly: 12,
        ..Retention::default()
    };
    let snapshots = db.snapshots(directory.join("snapshots"))?;
    let runner = snapshots
        .clone()
        .run(nightly, SnapshotOptions::default(), Some(keep.clone()))?;

    // The host knows of moments of its own.
    runner.happened("before the move");
    while runner.status().made == 0 {
        std::thread::yield_now();
    }
    let status = runner.stop();
    println!("made {:?}, error {:?}", status.last, status.error);

    // A snapshot that nobody has tried to restore is a hope.
    let drill = snapshots.drill()?;
    assert!(drill.is_good(), "{:?}", drill.problems);
    println!(
        "{}: {} entries of {} vaults read again",
        drill.snapshot, drill.entries, drill.vaults
    );

    // Someone empties the vault. What would come back? And back it comes, under the handle that everybody has.
    orders.clear()?;
    let scope = Scope::Vaults(vec![VaultChoice::named("orders")]);
    let changes = snapshots.preview(drill.snapshot, &scope)?;
    println!("{} entries would come back", changes[0].added);
    let outcome = snapshots.restore(drill.snapshot, &scope)?;
    println!(
        "{} entries are back, writers waited {:?}",
        outcome.entries, outcome.writers_waited
    );
    assert_eq!(orders.len()?, 10_000);

    // What retention would remove, without removing it.
    let plan = snapshots.repository().prune(&keep, true)?;
    println!("kept {}, removed {}", plan.keep.len(), plan.remove.len());
    Ok(())
}
