//! 100,000 random operations against the model, compared at every step: flushes, compactions under each
//! policy and reopens happen all along. Twenty seeds, half of them with background threads; ten more with
//! nearly all values kept apart.

mod support;

use vault_core::conformance::random_history;

const STEPS: usize = 5_000;

macro_rules! seeds {
    ($($name:ident: $seed:literal, $harness:ident;)*) => {$(
        #[test]
        fn $name() {
            random_history(&support::$harness, $seed, STEPS);
        }
    )*};
}

seeds! {
    seed_100: 100, THREADS;
    seed_101: 101, MANUAL;
    seed_102: 102, THREADS;
    seed_103: 103, MANUAL;
    seed_104: 104, THREADS;
    seed_105: 105, MANUAL;
    seed_106: 106, THREADS;
    seed_107: 107, MANUAL;
    seed_108: 108, THREADS;
    seed_109: 109, MANUAL;
    seed_110: 110, THREADS;
    seed_111: 111, MANUAL;
    seed_112: 112, THREADS;
    seed_113: 113, MANUAL;
    seed_114: 114, THREADS;
    seed_115: 115, MANUAL;
    seed_116: 116, THREADS;
    seed_117: 117, MANUAL;
    seed_118: 118, THREADS;
    seed_119: 119, MANUAL;
    seed_120: 120, THREADS_APART;
    seed_121: 121, MANUAL_APART;
    seed_122: 122, THREADS_APART;
    seed_123: 123, MANUAL_APART;
    seed_124: 124, THREADS_APART;
    seed_125: 125, MANUAL_APART;
    seed_126: 126, THREADS_APART;
    seed_127: 127, MANUAL_APART;
    seed_128: 128, THREADS_APART;
    seed_129: 129, MANUAL_APART;
}
