//! Simulations of fixed seeds, and that each is the same every time.

use vault_sim::plan::Wanted;
use vault_sim::{Plan, Report, run_plan};

/// Seeds that every run of the tests takes. `cargo xtask sim --seeds N` takes more.
const SEEDS: u64 = 30;

fn run(seed: u64) -> Report {
    run_plan(&Plan::from_seed(seed)).unwrap_or_else(|failure| {
        panic!("seed {seed} failed {failure}\nreplay: cargo xtask sim --seed {seed} --trace")
    })
}

/// The seeds pass, and between them meet everything that simulations are for: a change to the plans that
/// no longer crashes, fails or compacts would otherwise pass in silence.
#[test]
fn fixed_seeds_pass_and_cover() {
    let mut all = Report::default();
    for seed in 1..=SEEDS {
        all.merge(&run(seed));
    }
    assert_eq!(all.seeds, SEEDS);
    for end in [
        "process killed",
        "power lost, nothing unsynced kept",
        "power lost, some of the unsynced kept",
        "power lost, all of the unsynced kept",
        "while opening: power lost, some of the unsynced kept",
        "while opening: process killed",
    ] {
        assert!(all.crashes.of(end) > 5, "{end}: {}", all.crashes.of(end));
    }
    for operation in [
        "write",
        "checkpoint",
        "ingest",
        "open_read_only",
        "drop_keyspace",
    ] {
        assert!(all.operations.of(operation) > 10, "{operation}");
    }
    for error in ["Io", "DiskFull", "Poisoned"] {
        assert!(all.errors.of(error) > 5, "{error}");
    }
    for event in [
        "flushed",
        "recovered, torn tail cut",
        "ingested",
        "checkpointed",
    ] {
        assert!(all.events.of(event) > 5, "{event}");
    }
    assert!((8..=22).contains(&all.encrypted), "{}", all.encrypted);
    for event in ["keys rotated", "epochs retired", "locked", "resumed"] {
        assert!(all.events.of(event) > 5, "{event}");
    }
    assert!(all.operations.of("change_secret") > 5);
    assert!(all.rollbacks_refused > 5 && all.searches > 150);
    assert!(all.seals > 3_000 && all.keys > 1_000 && all.texts_searched > 3_000);
    assert_eq!((all.seals_repeated, all.seals_unnoted), (0, 0));
    let compacted = all
        .events
        .iter()
        .filter(|(name, _)| name.starts_with("compacted"));
    assert!(compacted.map(|(_, count)| count).sum::<u64>() > 50);
    assert!(all.faults_hit > 50 && all.recoveries > 200);
}

/// Every choice, every answer, every file operation: the digest takes in all of them.
#[test]
fn a_seed_gives_the_same_run_each_time() {
    for seed in 100..112 {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(run(100).digest, run(101).digest);
}

/// Either mode can be asked for; where a seed would have chosen it anyway, nothing changes.
#[test]
fn a_seed_runs_in_both_modes() {
    for seed in [1, 2, 3, 4] {
        let plan = |wanted| Plan::from_seed_wanting(seed, wanted);
        let [plain, encrypted] = [Wanted::Plain, Wanted::Encrypted].map(plan);
        assert!(plain.cipher.is_none() && encrypted.cipher.is_some());
        let chosen = plan(Wanted::Either);
        let same = if chosen.cipher.is_none() {
            &plain
        } else {
            &encrypted
        };
        assert_eq!(&chosen, same);
        for plan in [plain, encrypted] {
            let report = run_plan(&plan).unwrap();
            assert_eq!(report.encrypted, u64::from(plan.cipher.is_some()));
            assert_eq!(report.seals > 0, plan.cipher.is_some());
        }
    }
}

/// A plan that was made from a seed can be carried out with any of its operations left out: shrinking
/// rests on that.
#[test]
fn operations_can_be_left_out() {
    for seed in [7, 8] {
        let whole = Plan::from_seed(seed);
        for skipped in (0..whole.operations.len()).step_by(23) {
            let mut plan = whole.clone();
            plan.operations.remove(skipped);
            run_plan(&plan).unwrap();
        }
    }
}
