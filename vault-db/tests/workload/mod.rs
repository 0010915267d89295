//! A workload of vaults, decided by a seed, with a model of what it makes.

#![expect(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test that cannot go on ends here; what is public is so to its test"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vault_core::MemoryEngine;
use vault_core::clock::{Clock, ManualClock};
use vault_core::random::SeededRandom;
use vault_core::vfs::MemoryFileSystem;
use vault_db::engine::{BackgroundWork, Settings};
use vault_db::{
    Database, Durability, Error, ImportMode, ImportOptions, Result, Scope, Timestamp, Vault,
    VaultChoice,
};

/// What is visible of every vault that is not empty: a vault that was just created and one that was not yet are the same here.
pub type Contents = BTreeMap<String, BTreeMap<String, i64>>;

/// A model of a database: the entries of each vault, with their expiries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    vaults: BTreeMap<String, BTreeMap<String, (i64, Option<Timestamp>)>>,
}

impl Model {
    pub fn visible_at(&self, now: Timestamp) -> Contents {
        let visible = |entries: &BTreeMap<String, (i64, Option<Timestamp>)>| {
            let alive = entries
                .iter()
                .filter(|(_, (_, expiry))| expiry.is_none_or(|expiry| expiry > now));
            alive
                .map(|(key, (value, _))| (key.clone(), *value))
                .collect()
        };
        let vaults = self.vaults.iter();
        vaults
            .map(|(name, entries)| (name.clone(), visible(entries)))
            .filter(|(_, entries): &(_, BTreeMap<_, _>)| !entries.is_empty())
            .collect()
    }

    fn vault(&mut self, name: &str) -> &mut BTreeMap<String, (i64, Option<Timestamp>)> {
        self.vaults.entry(name.to_owned()).or_default()
    }
}

/// What a run did.
pub struct Account {
    /// The model before the first step and after each.
    pub states: Vec<Model>,
    /// Steps that returned.
    pub acknowledged: usize,
    pub now: Timestamp,
    pub error: Option<Error>,
}

pub fn open(
    fs: &MemoryFileSystem,
    clock: &Arc<ManualClock>,
    durability: Durability,
) -> Result<Database> {
    let settings = Settings {
        durability,
        background: BackgroundWork::Manual,
        memory_bytes: 16 << 20,
        log_segment_bytes: Some(64 << 10),
        ..Settings::default()
    };
    let fs = Arc::new(fs.clone());
    Database::builder()
        .settings(settings)
        .clock(Arc::clone(clock) as Arc<dyn Clock>)
        .engine_options(|options| {
            options
                .file_system(fs)
                .random(Arc::new(SeededRandom::new(1)))
        })
        .open("/store")
}

/// Everything that can be read.
pub fn contents(db: &Database) -> Contents {
    let of = |vault: &Vault| {
        let items = vault.items::<String, i64>().unwrap();
        items.map(|item| item.unwrap()).collect()
    };
    let vaults = db.vaults().into_iter();
    vaults
        .map(|info| {
            let vault = db.existing_vault(&info.name).unwrap();
            (info.name, of(&vault))
        })
        .filter(|(_, entries): &(_, BTreeMap<_, _>)| !entries.is_empty())
        .collect()
}

/// Holds every count against a scan, before and after what has expired is taken away.
pub fn check_counts(db: &Database, context: &str) {
    for info in db.vaults() {
        let vault = db.existing_vault(&info.name).unwrap();
        let scanned = vault.keys::<String>().unwrap().count() as u64;
        assert_eq!(vault.len().unwrap(), scanned, "{context}: {info:?}");
    }
    db.cleanup_expired().unwrap();
    for info in db.vaults() {
        let vault = db.existing_vault(&info.name).unwrap();
        let (mut keys, mut bytes, mut expiring) = (0, 0, 0);
        for item in vault.items::<String, i64>().unwrap() {
            let (key, value) = item.unwrap();
            let expires = vault.time_to_live(&key).unwrap().unwrap().is_some();
            keys += 1;
            bytes += stored_bytes(&key, value, expires);
            expiring += u64::from(expires);
        }
        let counted = (info.keys, info.bytes, info.expiring);
        assert_eq!(counted, (keys, bytes, expiring), "{context}: {info:?}");
    }
}

/// Bytes of an entry as they are counted: the tag and the key, the header and the number.
fn stored_bytes(key: &str, value: i64, expires: bool) -> u64 {
    let number = match value {
        -32..=127 => 1,
        -128..=255 => 2,
        -32_768..=65_535 => 3,
        _ => 5,
    };
    (1 + key.len() + if expires { 9 } else { 1 } + number) as u64
}

/// Runs steps until one fails.
pub fn run(fs: &MemoryFileSystem, seed: u64, steps: usize, durability: Durability) -> Account {
    let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
    let mut account = Account {
        states: vec![Model::default()],
        acknowledged: 0,
        now: clock.now(),
        error: None,
    };
    match open(fs, &clock, durability) {
        Ok(db) => {
            let mut run = Run {
                db,
                clock: Arc::clone(&clock),
                random: SeededRandom::new(seed),
                model: Model::default(),
            };
            for _ in 0..steps {
                let result = run.step();
                account.states.push(run.model.clone());
                account.now = clock.now();
                if let Err(error) = result {
                    account.error = Some(error);
                    break;
                }
                account.acknowledged += 1;
            }
        }
        Err(error) => account.error = Some(error),
    }
    account
}

struct Run {
    db: Database,
    clock: Arc<ManualClock>,
    random: SeededRandom,
    model: Model,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl Run {
    fn name(&self) -> &'static str {
        NAMES[self.random.below(NAMES.len() as u64) as usize]
    }

    fn key(&self) -> String {
        format!("key {}", self.random.below(12))
    }

    fn value(&self) -> i64 {
        self.random.below(100_000) as i64 - 40_000
    }

    /// Takes one step: says in the model what it does, then does it.
    fn step(&mut self) -> Result<()> {
        self.clock
            .advance(Duration::from_millis(self.random.below(400)));
        let name = self.name();
        let verb = self.random.below(100);
        if verb < 60 {
            return self.change_entry(name, verb);
        }
        match verb {
            60..75 => self.transaction(name),
            75..80 => self.update(name),
            80..82 => {
                self.db.cleanup_expired()?;
                Ok(())
            }
            82..84 => self.restore(name),
            84..87 => {
                self.model.vault(name).clear();
                self.db.vault(name)?.clear().map(drop)
            }
            87..90 => self.rename(name),
            90..94 => self.copy(name),
            94..96 => {
                let existed = self.model.vaults.remove(name).is_some();
                match self.db.existing_vault(name) {
                    Ok(vault) => vault.delete().map(drop),
                    Err(Error::NoSuchVault { .. }) if !existed => Ok(()),
                    Err(error) => Err(error),
                }
            }
            96..98 => self.import(name),
            98 => Ok(self.db.engine().flush(None)?),
            _ => {
                let lsm = self.db.lsm().expect("the engine is ours");
                while lsm.background_step()? {}
                Ok(())
            }
        }
    }

    fn change_entry(&mut self, name: &str, verb: u64) -> Result<()> {
        let (key, value) = (self.key(), self.value());
        let now = self.clock.now();
        let time = Duration::from_millis(1 + self.random.below(3000));
        let entries = self.model.vault(name);
        let alive = |entry: &&(i64, Option<Timestamp>)| entry.1.is_none_or(|expiry| expiry > now);
        match verb {
            0..20 => {
                entries.insert(key.clone(), (value, None));
                self.db.vault(name)?.put(&key, &value)
            }
            20..35 => {
                let expiry = now.after(time)?;
                entries.insert(key.clone(), (value, Some(expiry)));
                self.db.vault(name)?.put_for(&key, &value, time)
            }
            35..45 => {
                entries.remove(&key);
                self.db.vault(name)?.remove(&key).map(drop)
            }
            45..53 => {
                let (from, expiry) = entries
                    .get(&key)
                    .filter(alive)
                    .copied()
                    .unwrap_or((0, None));
                entries.insert(key.clone(), (from + 7, expiry));
                self.db.vault(name)?.increment(&key, 7).map(drop)
            }
            _ => {
                let to = verb
                    .is_multiple_of(2)
                    .then(|| now.after(time))
                    .transpose()?;
                if let Some((from, _)) = entries.get(&key).filter(alive).copied() {
                    entries.insert(key.clone(), (from, to));
                }
                let time = to.map(|_| time);
                self.db.vault(name)?.expire(&key, time).map(drop)
            }
        }
    }

    fn transaction(&mut self, name: &'static str) -> Result<()> {
        let other = self.name();
        let (from, to, value) = (self.key(), self.key(), self.value());
        let rolls_back = self.random.percent(30);
        let now = self.clock.now();
        // Vaults that a transaction asks for are there from then on, whatever becomes of it.
        self.model.vault(name);
        self.model.vault(other);
        self.db.vault(name)?;
        self.db.vault(other)?;
        let entry = self.model.vault(name).remove(&from);
        let moved = entry.filter(|(_, expiry)| expiry.is_none_or(|expiry| expiry > now));
        let moved = moved.map_or(value, |(value, _)| value);
        self.model.vault(other).insert(to.clone(), (moved, None));
        self.db.write(|tx| {
            let (source, target) = (tx.vault(name)?, tx.vault(other)?);
            if rolls_back {
                let before = tx.savepoint()?;
                target.put("never", &1)?;
                source.remove(&to)?;
                tx.roll_back_to(&before)?;
            }
            let moved: i64 = source.pop(&from)?.unwrap_or(value);
            target.put(&to, &moved)
        })
    }

    fn update(&mut self, name: &str) -> Result<()> {
        let pairs: Vec<(String, i64)> = (0..4).map(|_| (self.key(), self.value())).collect();
        let entries = self.model.vault(name);
        for (key, value) in &pairs {
            entries.insert(key.clone(), (*value, None));
        }
        self.db.vault(name)?.update(pairs)
    }

    fn rename(&mut self, name: &str) -> Result<()> {
        let to = self.name();
        if to == name || self.model.vaults.contains_key(to) {
            return Ok(());
        }
        let Some(entries) = self.model.vaults.remove(name) else {
            return Ok(());
        };
        self.model.vaults.insert(to.to_owned(), entries);
        self.db.existing_vault(name)?.rename(to).map(drop)
    }

    fn import(&mut self, name: &str) -> Result<()> {
        let now = self.clock.now();
        let pairs: BTreeMap<String, i64> = (0..3).map(|_| (self.key(), self.value())).collect();
        let entries: Vec<String> = pairs
            .iter()
            .map(|(key, value)| format!("{{\"key\": \"{key}\", \"value\": {value}}}"))
            .collect();
        let text = format!(
            "{{\"format\": \"vault-json-v1\", \"entries\": [{}]}}",
            entries.join(", ")
        );
        let alive = self.model.visible_at(now).contains_key(name);
        let mode = match self.random.below(3) {
            0 => ImportMode::Replace,
            1 if !alive => ImportMode::Create,
            _ => ImportMode::Merge,
        };
        let model = self.model.vault(name);
        if mode != ImportMode::Merge {
            model.clear();
        }
        model.extend(pairs.into_iter().map(|(key, value)| (key, (value, None))));
        let options = ImportOptions { mode };
        self.db.import(name, text.as_bytes(), &options).map(drop)
    }

    /// Has one vault, or all, replaced by those of another database.
    fn restore(&mut self, name: &str) -> Result<()> {
        let source = Database::builder()
            .clock(Arc::clone(&self.clock) as Arc<dyn Clock>)
            .on(Arc::new(
                MemoryEngine::new().with_clock(Arc::clone(&self.clock) as Arc<dyn Clock>),
            ))?;
        let mut restored = Model::default();
        for name in [name, self.name()] {
            let expiry = self
                .clock
                .now()
                .after(Duration::from_millis(1 + self.random.below(3000)))?;
            for (expires, key) in [(false, self.key()), (true, self.key())] {
                let value = self.value();
                let expiry = expires.then_some(expiry);
                restored.vault(name).insert(key.clone(), (value, expiry));
                let vault = source.vault(name)?;
                vault.put(&key, &value)?;
                if let Some(expiry) = expiry {
                    let left = Duration::from_millis(expiry.0 - self.clock.now().0);
                    vault.expire(&key, Some(left))?;
                }
            }
        }
        let scope = if self.random.percent(50) {
            self.model = restored;
            Scope::Everything
        } else {
            let entries = restored.vaults.remove(name).unwrap_or_default();
            *self.model.vault(name) = entries;
            Scope::Vaults(vec![VaultChoice::named(name)])
        };
        self.db.restore_from(&source, &scope).map(drop)
    }

    fn copy(&mut self, name: &str) -> Result<()> {
        let to = self.name();
        if to == name || self.model.vaults.contains_key(to) {
            return Ok(());
        }
        let Some(entries) = self.model.vaults.get(name) else {
            return Ok(());
        };
        // What has expired is not copied, and nobody can tell.
        self.model.vaults.insert(to.to_owned(), entries.clone());
        self.db.existing_vault(name)?.copy_to(to).map(drop)
    }
}
