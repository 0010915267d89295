//! The engine in memory passes the conformance suite.
#![cfg(feature = "conformance")]

use std::sync::Arc;

use vault_core::conformance::{Harness, Setup, random_history, run_all};
use vault_core::{Engine, MemoryEngine};

struct InMemory;

impl Harness for InMemory {
    type Store = MemoryEngine;

    fn open(&self, setup: &Setup) -> MemoryEngine {
        MemoryEngine::new()
            .with_clock(Arc::clone(&setup.clock))
            .with_merge_operators(setup.merge_operators.clone())
            .with_limits(setup.limits)
    }

    fn engine(&self, store: &MemoryEngine) -> Arc<dyn Engine> {
        Arc::new(store.clone())
    }
}

vault_core::conformance_tests!(InMemory);

#[test]
fn longer_histories() {
    for seed in 100..104 {
        random_history(&InMemory, seed, 5_000);
    }
}

/// A suite that lets a wrong engine pass is worth nothing: this one goes by another clock, forgets its
/// merge operators and holds nobody to limits.
struct Careless;

impl Harness for Careless {
    type Store = MemoryEngine;

    fn open(&self, _: &Setup) -> MemoryEngine {
        MemoryEngine::new()
    }

    fn engine(&self, store: &MemoryEngine) -> Arc<dyn Engine> {
        Arc::new(store.clone())
    }
}

#[test]
fn a_careless_engine_is_found_out() {
    let report = run_all(&Careless);
    let failed: Vec<_> = report.failed.iter().map(|failure| failure.case).collect();
    for case in [
        "time_comes_from_the_clock",
        "expired_puts_are_absent",
        "values_from_empty_to_the_limit",
        "batches_up_to_the_limit",
        "what_lies_below_operands",
        "random_histories",
    ] {
        assert!(failed.contains(&case), "{case} let it pass; {failed:?}");
    }
    assert!(report.passed.contains(&"put_get_delete"), "{report}");
    assert_eq!(
        report.passed.len() + failed.len(),
        vault_core::conformance::cases::<Careless>().len()
    );
}
