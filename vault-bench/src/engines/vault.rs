//! Vault's own engine, as it is set up for a benchmark: plain, and encrypted with each cipher.

use std::path::Path;
use std::sync::Arc;

use vault_core::transform::{Plain, Protection};
use vault_core::{Compression, Durability, Engine, FilterPolicy, KeyspaceOptions};
use vault_crypto::cipher::{Provider, providers};
use vault_crypto::source::RawKey;
use vault_crypto::{Algorithm, EncryptedProtection, SecretKey};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions};

use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::target::{EngineKind, EngineTarget, Open, Target};

/// The engine, plain and encrypted.
pub(super) fn kinds() -> Vec<EngineKind> {
    let kind = |name, setup, open: Open| EngineKind {
        name,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        persists: true,
        setup,
        open,
    };
    vec![
        kind(
            "vault",
            "leveled, LZ4, bloom filter of 10 bits, everything else as it comes",
            |directory, settings| open("vault", directory, settings, Arc::new(Plain)),
        ),
        kind(
            "vault-aes",
            "as vault, encrypted: AES-256-GCM by the best provider of this build",
            |directory, settings| {
                encrypted(
                    "vault-aes",
                    directory,
                    settings,
                    Algorithm::Aes256Gcm,
                    false,
                )
            },
        ),
        kind(
            "vault-aes-rust",
            "as vault, encrypted: AES-256-GCM in Rust alone",
            |directory, settings| {
                encrypted(
                    "vault-aes-rust",
                    directory,
                    settings,
                    Algorithm::Aes256Gcm,
                    true,
                )
            },
        ),
        kind(
            "vault-chacha",
            "as vault, encrypted: ChaCha20-Poly1305 by the best provider of this build",
            |directory, settings| {
                encrypted(
                    "vault-chacha",
                    directory,
                    settings,
                    Algorithm::ChaCha20Poly1305,
                    false,
                )
            },
        ),
        kind(
            "vault-chacha-rust",
            "as vault, encrypted: ChaCha20-Poly1305 in Rust alone",
            |directory, settings| {
                let algorithm = Algorithm::ChaCha20Poly1305;
                encrypted("vault-chacha-rust", directory, settings, algorithm, true)
            },
        ),
    ]
}

/// The least that the engine can be told to do with.
const MEMORY_BYTES_MIN: u64 = 16 << 20;

/// Opens an encrypted store under a key of this benchmark's own.
fn encrypted(
    name: &'static str,
    directory: &Path,
    settings: &Settings,
    algorithm: Algorithm,
    in_rust: bool,
) -> Result<Box<dyn Target>> {
    let key = RawKey::new(SecretKey::from_bytes(&mut [7; 32]));
    let chosen = providers()
        .iter()
        .filter(|provider| provider.algorithm() == algorithm)
        .find(|provider| !in_rust || provider.name() == "rust");
    let mut protection = EncryptedProtection::with_source(Arc::new(key)).algorithm(algorithm);
    if let Some(chosen) = chosen {
        protection = protection.provider(Arc::new(*chosen));
    }
    open(name, directory, settings, Arc::new(protection))
}

fn open(
    name: &'static str,
    dir: &Path,
    settings: &Settings,
    protection: Arc<dyn Protection>,
) -> Result<Box<dyn Target>> {
    let own = |e: vault_core::Error| Error::engine(name, &e);
    let options = options(settings).protection(protection);
    let engine = Lsm::open(dir, options).map_err(own)?;
    let keyspace_options = KeyspaceOptions {
        compression: Compression::Lz4,
        filter: FilterPolicy::Bloom { bits_per_key: 10 },
        write_buffer_bytes: settings.write_buffer_bytes(),
        ..KeyspaceOptions::default()
    };
    let keyspace = engine
        .create_keyspace("bench", &keyspace_options)
        .map_err(own)?;
    let settling = engine.clone();
    let target = EngineTarget::new(name, Arc::new(engine), keyspace);
    Ok(Box::new(target.settle_with(move || settling.settle())))
}

/// How the engine is opened.
pub(super) fn options(settings: &Settings) -> LsmOptions {
    // Each put says its durability; the default is named for those that come from the engine itself.
    // The budget for blocks, filters and indexes is one and the same for every engine: what Vault keeps
    // apart for filters and indexes is taken from the cache.
    let metadata_bytes = settings.cache_bytes() / 16;
    let mut options = LsmOptions::default()
        .cache_bytes(settings.cache_bytes() - metadata_bytes)
        .durability(Durability::Os);
    options.settings.table_metadata_bytes = Some(metadata_bytes);
    // The other parts of the budget are what they are by default, however large the cache is; but where memory is limited,
    // all of it together is bounded, and memtables have two fifths of what is left beside the cache: 2.4 write buffers, where
    // the others may have 3.
    options.settings.memory_bytes = settings.memory_budget_bytes().map_or_else(
        || options.settings.memory_bytes + settings.cache_bytes(),
        |budget| budget.max(MEMORY_BYTES_MIN),
    );
    if let Some(compaction) = u8::try_from(settings.background_threads)
        .ok()
        .filter(|&n| n > 0)
    {
        options = options.background(BackgroundWork::Threads { compaction });
    }
    options
}
