//! The engines that this binary itself can run, and the rivals, each of which has a binary of its own.

#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "vault")]
mod vault;

use crate::target::EngineKind;

/// An engine in the rivals' package: the name of its binary and of the feature that builds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rival {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// What it takes to build it the first time.
    pub takes: &'static str,
}

/// The engines in the rivals' package.
pub const RIVALS: &[Rival] = &[
    Rival {
        name: "fjall",
        what: "log-structured merge engine in Rust, 3.1",
        takes: "a minute",
    },
    Rival {
        name: "lmdb",
        what: "mapped B+ tree in C, 0.9",
        takes: "a minute, and a C compiler",
    },
    Rival {
        name: "redb",
        what: "copy-on-write B+ tree in Rust, 4.5",
        takes: "a minute",
    },
    Rival {
        name: "rocksdb",
        what: "log-structured merge engine in C++, 11.8",
        takes: "twenty minutes, a C++ compiler and libclang",
    },
    Rival {
        name: "sqlite",
        what: "relational database in C, 3",
        takes: "two minutes, and a C compiler",
    },
];

/// The engines in this binary.
#[must_use]
pub fn own() -> Vec<EngineKind> {
    let kinds: Vec<Vec<EngineKind>> = vec![
        #[cfg(feature = "vault")]
        vault::kinds(),
        #[cfg(feature = "memory")]
        vec![memory::kind()],
    ];
    kinds.concat()
}

/// The rival of this name.
#[must_use]
pub fn rival(name: &str) -> Option<&'static Rival> {
    RIVALS.iter().find(|rival| rival.name == name)
}

/// Whether an engine of this name is a rival, with a binary of its own.
#[must_use]
pub fn is_rival(name: &str) -> bool {
    rival(name).is_some()
}
