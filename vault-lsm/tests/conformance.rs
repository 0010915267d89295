//! The engine keeps the contract of `vault_core::Engine`, with threads and without.

mod support;

mod with_threads {
    vault_core::conformance_tests!(super::support::THREADS);
}

mod step_by_step {
    vault_core::conformance_tests!(super::support::MANUAL);
}
