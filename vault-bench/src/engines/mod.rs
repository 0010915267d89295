//! The engines that this binary itself can run, and the rivals, each of which has a binary of its own.

#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "vault")]
mod vault;
#[cfg(feature = "vault")]
mod vault_db;

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
        #[cfg(feature = "vault")]
        vault_db::kinds(),
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

/// What a write of this engine survives, as it is measured: the two levels of the workloads.
#[must_use]
pub fn durability(name: &str) -> &'static str {
    let base = name.split_once('@').map_or(name, |(base, _)| base);
    match base {
        "fjall" => {
            "each write handed to the operating system (its journal); fillsync: `persist(SyncData)`"
        }
        "rocksdb" => "each write handed to the operating system (its WAL); fillsync: `sync = true`",
        "lmdb" => {
            "each write a transaction whose pages the operating system has (`MDB_NOSYNC`); fillsync: `mdb_env_sync`"
        }
        "redb" => {
            "each write a transaction in memory alone (`Durability::None`): weaker than the others; fillsync: `Durability::Immediate`"
        }
        "sqlite" => {
            "each write handed to the operating system (`synchronous = NORMAL`, WAL); fillsync: `FULL`"
        }
        "memory" => "none: nothing is kept",
        _ => {
            "each write in pages the operating system holds (`Durability::Os`); fillsync: `Durability::Sync`"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rival_says_what_its_writes_survive() {
        for rival in RIVALS {
            assert_ne!(
                durability(rival.name),
                durability("vault"),
                "{}",
                rival.name
            );
        }
        assert_eq!(durability("vault@main"), durability("vault"));
    }
}
