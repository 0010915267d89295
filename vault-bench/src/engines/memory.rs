//! The engine in memory: what the contract costs without any storage behind it.

use std::path::Path;
use std::sync::Arc;

use vault_core::{Engine, KeyspaceOptions, MemoryEngine};

use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::target::{EngineKind, EngineTarget, Target};

const NAME: &str = "memory";

/// Describes the engine.
pub(super) fn kind() -> EngineKind {
    EngineKind {
        name: NAME,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        persists: false,
        setup: "nothing to set; keeps everything in memory and nothing on disk",
        open,
    }
}

fn open(_: &Path, _: &Settings) -> Result<Box<dyn Target>> {
    let engine = MemoryEngine::new();
    let keyspace = engine
        .create_keyspace("bench", &KeyspaceOptions::default())
        .map_err(|e| Error::engine(NAME, &e))?;
    Ok(Box::new(EngineTarget::new(
        NAME,
        Arc::new(engine),
        keyspace,
    )))
}
