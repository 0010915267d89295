//! A tenant at work: what it does is decided by a seed, and all that it can observe of it is kept as text.

#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that cannot go on ends here; what is public is so to its test"
)]

use std::fmt::Write as _;
use std::time::Duration;

use vault_core::random::SeededRandom;
use vault_db::{ExportFormat, ImportMode, ImportOptions, Key, Result, Tenant, Value};

/// What a tenant does, decided by a seed, and everything it can observe of it, as text.
pub struct Actor {
    random: SeededRandom,
    tenant: Tenant,
    pub observed: String,
}

impl Actor {
    pub fn new(tenant: Tenant, seed: u64) -> Self {
        Self {
            random: SeededRandom::new(seed),
            tenant,
            observed: String::new(),
        }
    }

    fn name(&self) -> String {
        format!("v{}", self.random.below(3))
    }

    fn observe(&mut self, what: &dyn std::fmt::Debug) {
        writeln!(self.observed, "{what:?}").unwrap();
    }

    pub fn step(&mut self) {
        let (name, key, value) = (
            self.name(),
            self.random.below(6) as i64,
            self.random.below(100) as i64,
        );
        let verb = self.random.below(22);
        let tenant = self.tenant.clone();
        let vault = || tenant.vault(&name);
        let seen: Box<dyn std::fmt::Debug> = match verb {
            0..4 => Box::new(
                vault()
                    .and_then(|vault| vault.put(key, &value))
                    .map_err(|e| e.to_string()),
            ),
            4 => Box::new(
                vault()
                    .and_then(|vault| vault.remove(key))
                    .map_err(|e| e.to_string()),
            ),
            5 => Box::new(
                vault()
                    .and_then(|vault| vault.increment(key, 1))
                    .map_err(|e| e.to_string()),
            ),
            6 => Box::new(
                vault()
                    .and_then(|vault| vault.get::<i64>(key))
                    .map_err(|e| e.to_string()),
            ),
            7 => Box::new(
                vault()
                    .and_then(|vault| vault.len())
                    .map_err(|e| e.to_string()),
            ),
            8 => Box::new(
                vault()
                    .and_then(|vault| vault.items::<Key, Value>()?.collect::<Result<Vec<_>>>())
                    .map_err(|e| e.to_string()),
            ),
            9 => {
                let infos = tenant
                    .vaults()
                    .into_iter()
                    .map(|info| (info.name, info.keys, info.bytes));
                Box::new(infos.collect::<Vec<_>>())
            }
            10 => Box::new(
                vault()
                    .and_then(|vault| vault.clear())
                    .map_err(|e| e.to_string()),
            ),
            11 => {
                let to = self.name();
                Box::new(
                    vault()
                        .and_then(|vault| vault.rename(&to))
                        .map_err(|e| e.to_string()),
                )
            }
            12 => Box::new(
                tenant
                    .existing_vault(&name)
                    .and_then(|vault| vault.delete())
                    .map_err(|e| e.to_string()),
            ),
            13 => {
                let to = self.name();
                let copied = vault().and_then(|vault| vault.copy_to(&to)?.len());
                Box::new(copied.map_err(|e| e.to_string()))
            }
            14 => Box::new(
                vault()
                    .and_then(|vault| vault.put_for(key, &value, Duration::from_secs(3)))
                    .map_err(|e| e.to_string()),
            ),
            15 => Box::new(tenant.cleanup_expired().map_err(|e| e.to_string())),
            16 => {
                let mut text = Vec::new();
                let exported = vault()
                    .and_then(|vault| vault.export(ExportFormat::Base64, &mut text))
                    .map(|_| String::from_utf8(text).unwrap());
                Box::new(exported.map_err(|e| e.to_string()))
            }
            17 => {
                let text = format!(
                    r#"{{"format": "vault-json-v1", "entries": [{{"key": {{"$integer": {key}}}, "value": {value}}}]}}"#
                );
                let mode = match value % 3 {
                    0 => ImportMode::Create,
                    1 => ImportMode::Merge,
                    _ => ImportMode::Replace,
                };
                let imported = tenant.import(&name, text.as_bytes(), &ImportOptions { mode });
                Box::new(imported.map_err(|e| e.to_string()))
            }
            18 => {
                let stats = vault().and_then(|vault| vault.stats()).map(|stats| {
                    (
                        [stats.reads, stats.writes, stats.deletes, stats.scans],
                        (stats.accesses_24h, stats.commits, stats.top_keys),
                    )
                });
                Box::new(stats.map_err(|e| e.to_string()))
            }
            19 => {
                let accesses = tenant.recent_accesses().into_iter();
                let accesses = accesses.map(|it| (it.vault, it.verb, it.key));
                Box::new(accesses.collect::<Vec<_>>())
            }
            20 => {
                let read = tenant.read(|tx| tx.vault(&name)?.len());
                Box::new(read.map_err(|e| e.to_string()))
            }
            _ => {
                let other = self.name();
                let written = tenant.write(|tx| {
                    let moved: Option<i64> = tx.vault(&name)?.pop(key)?;
                    tx.vault(&other)?.put(key + 1, &moved)?;
                    Ok(moved)
                });
                Box::new((
                    written.map_err(|e| e.to_string()),
                    tenant.info().map(|info| (info.keys, info.bytes)).ok(),
                ))
            }
        };
        self.observe(&seen);
    }
}
