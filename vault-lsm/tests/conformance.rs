//! The engine keeps the contract of `vault_core::Engine`, with threads and without, with values in tables
//! and nearly all of them apart.

mod support;

mod with_threads {
    vault_core::conformance_tests!(super::support::THREADS);
}

mod step_by_step {
    vault_core::conformance_tests!(super::support::MANUAL);
}

mod with_threads_and_values_apart {
    vault_core::conformance_tests!(super::support::THREADS_APART);
}

mod step_by_step_and_values_apart {
    vault_core::conformance_tests!(super::support::MANUAL_APART);
}
