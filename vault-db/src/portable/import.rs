//! Reading a vault from text: whole, or not at all.
//!
//! Entries go, in the order in which they come, into a keyspace that no vault owns yet; memory holds one of them. When the
//! text has come to its end, and only then, a single batch lets them appear. Whatever fails before, or ends the process,
//! leaves a keyspace that the next opening removes.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use vault_core::{KeyRange, Slice, Timestamp};

use super::parse::{self, About, Parsed};
use crate::access::Saved;
use crate::catalog::{Header, Record, Tally};
use crate::commit::NewValue;
use crate::database::{
    Arrival, Begun, Database, Departure, Exchange, Filling, NO_TENANT, Shared, VaultState,
};
use crate::error::{Error, Result};
use crate::key;
use crate::name::check_vault_name;
use crate::value::Stored;

/// Entries between two calls of `progress`.
const PROGRESS_EVERY: u64 = 1024;
/// Bytes of keys and values up to which a merge is one commit among others. Beyond, the vault is written anew.
const MERGED_IN_PLACE_BYTES_MAX: u64 = 8 << 20;

/// What to do where the vault is there already.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// use vault_db::{ImportMode, ImportOptions};
/// db.vault("notes")?.put("old", &1)?;
/// let text = r#"{"format": "vault-json-v1", "entries": [{"key": "new", "value": 2}]}"#;
/// db.import("notes", text.as_bytes(), &ImportOptions { mode: ImportMode::Replace })?;
/// assert!(!db.vault("notes")?.contains("old")?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ImportMode {
    /// Refuse with [`Error::VaultExists`], unless it is empty.
    #[default]
    Create,
    /// Set what the import has, leave the rest.
    Merge,
    /// Have the import take its place.
    Replace,
}

/// How to import.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// use vault_db::{ImportMode, ImportOptions};
/// assert_eq!(ImportOptions::default().mode, ImportMode::Create);
/// let text = r#"{"format": "vault-json-v1", "entries": []}"#;
/// db.import("notes", text.as_bytes(), &ImportOptions::default())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportOptions {
    /// What to do where the vault is there already.
    pub mode: ImportMode,
}

/// How far an import has come.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let text = r#"{"format": "vault-json-v1", "entries": []}"#;
/// db.import_with("notes", text.as_bytes(), &Default::default(), |progress| {
///     println!("{} entries so far", progress.entries_done);
///     std::ops::ControlFlow::Continue(())
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportProgress {
    /// Entries read.
    pub entries_done: u64,
    /// Bytes of their keys and values.
    pub bytes_done: u64,
}

/// What an import did.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let text = r#"{"format": "vault-json-v1", "entries": [{"key": "a", "value": 1, "expires_at": 1}]}"#;
/// let outcome = db.import("notes", text.as_bytes(), &Default::default())?;
/// assert_eq!((outcome.entries, outcome.expired), (0, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportOutcome {
    /// Entries taken in.
    pub entries: u64,
    /// Entries left out because they had expired.
    pub expired: u64,
}

impl Database {
    /// Reads a vault from text that [`Vault::export`](crate::Vault::export) wrote, in any of its forms. All of it is taken
    /// in, at one moment, or after an error nothing. Takes no more memory than an entry does, whatever the size.
    ///
    /// Handles of a vault that is replaced go on with what was read.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// use vault_db::{ImportMode, ImportOptions};
    /// let text = r#"{"format": "vault-json-v1", "entries": [{"key": "debug", "value": true}]}"#;
    /// db.import("config", text.as_bytes(), &ImportOptions::default())?;
    /// assert_eq!(db.vault("config")?.get::<bool>("debug")?, Some(true));
    ///
    /// let text = r#"{"format": "vault-json-v1", "entries": [{"key": "port", "value": 80}]}"#;
    /// db.import("config", text.as_bytes(), &ImportOptions { mode: ImportMode::Merge })?;
    /// assert_eq!(db.vault("config")?.len()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Import`] with the line, [`Error::DuplicateKey`], [`Error::NewerExport`], [`Error::VaultExists`],
    /// [`Error::Stream`] where `input` fails, the errors of bounds, [`Error::Engine`].
    pub fn import(
        &self,
        name: &str,
        input: impl BufRead,
        options: &ImportOptions,
    ) -> Result<ImportOutcome> {
        self.import_with(name, input, options, |_| ControlFlow::Continue(()))
    }

    /// As [`Database::import`], with `progress` called from time to time, which can stop the work.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// use std::ops::ControlFlow;
    /// use vault_db::ImportOptions;
    /// let text = r#"{"format": "vault-json-v1", "entries": []}"#;
    /// db.import_with("v", text.as_bytes(), &ImportOptions::default(), |progress| {
    ///     println!("{} entries", progress.entries_done);
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Database::import`]; [`Error::Cancelled`].
    pub fn import_with(
        &self,
        name: &str,
        input: impl BufRead,
        options: &ImportOptions,
        progress: impl FnMut(ImportProgress) -> ControlFlow<()>,
    ) -> Result<ImportOutcome> {
        self.shared()
            .import(NO_TENANT, name, input, options, progress)
    }
}

/// What was read.
struct Staged {
    about: About,
    tally: Tally,
    outcome: ImportOutcome,
}

impl Shared {
    /// Reads a vault of a tenant from text.
    pub(crate) fn import(
        &self,
        tenant: u32,
        name: &str,
        input: impl BufRead,
        options: &ImportOptions,
        mut progress: impl FnMut(ImportProgress) -> ControlFlow<()>,
    ) -> Result<ImportOutcome> {
        check_vault_name(name)?;
        self.check_importable(tenant, name, options.mode)?;
        let begun = self.begin_vault(&mut self.structure())?;
        let staging = || self.stage(&begun, input, &mut progress);
        let staged = catch_unwind(AssertUnwindSafe(staging)).unwrap_or_else(|panicked| {
            // It was the caller's reader, or `progress`: what was read so far goes, and then the panic goes on.
            self.abandon(&begun);
            resume_unwind(panicked)
        });
        let published = staged.and_then(|staged| {
            let take_in = || self.take_in(tenant, name, options.mode, &begun, &staged);
            let became = self.with_quota(tenant, take_in)?;
            Ok((staged.outcome, became))
        });
        // What did not become a vault goes.
        if !matches!(published, Ok((_, Became::Vault | Became::Successor(_)))) {
            self.abandon(&begun);
        }
        let (outcome, became) = published?;
        match became {
            Became::Successor(old) | Became::Merged(Some(old)) => self.settle(&[old])?,
            Became::Vault => self.make_durable()?,
            Became::Merged(None) => {}
        }
        Ok(outcome)
    }

    /// Refuses early what would be refused in the end.
    fn check_importable(&self, tenant: u32, name: &str, mode: ImportMode) -> Result<()> {
        let there = self.registry().find(tenant, name).map(Arc::clone);
        match there {
            Some(vault) if mode == ImportMode::Create && self.len_held(&vault)? > 0 => {
                Err(Error::VaultExists {
                    name: name.to_owned(),
                })
            }
            Some(_) => Ok(()),
            None => self.check_vault_room(tenant),
        }
    }

    /// Reads everything into a keyspace that no vault owns.
    fn stage(
        &self,
        begun: &Begun,
        input: impl BufRead,
        progress: &mut dyn FnMut(ImportProgress) -> ControlFlow<()>,
    ) -> Result<Staged> {
        let mut filling = Filling::begin(self, begun)?;
        let mut expired = 0;
        let keys_max = self.bounds.keys_per_vault_max;
        let now = self.now();
        let about = parse::read(input, self.bounds.value_bytes_max, &mut |line, parsed| {
            self.check_read(line, &parsed)?;
            if parsed.expiry.is_some_and(|expiry| expiry <= now) {
                expired += 1;
                return Ok(());
            }
            if !filling.put_new(&parsed.key, &parsed.stored, parsed.expiry)? {
                let key = key::printable(&parsed.key);
                return Err(Error::DuplicateKey { line, key });
            }
            if filling.entries() > keys_max {
                return Err(Error::VaultFull {
                    vault: "the import".to_owned(),
                    max: keys_max,
                });
            }
            let done = ImportProgress {
                entries_done: filling.entries(),
                bytes_done: filling.bytes(),
            };
            if done.entries_done.is_multiple_of(PROGRESS_EVERY) && progress(done).is_break() {
                return Err(Error::Cancelled);
            }
            Ok(())
        })?;
        let tally = filling.finish()?;
        let outcome = ImportOutcome {
            entries: tally.entries,
            expired,
        };
        Ok(Staged {
            about,
            tally,
            outcome,
        })
    }

    /// Refuses an entry that no vault may have.
    fn check_read(&self, line: u64, entry: &Parsed) -> Result<()> {
        self.bounds.check_key(&entry.key)?;
        self.bounds.check_value(&entry.stored)?;
        if entry.expiry.is_some_and(|expiry| expiry > Timestamp::MAX) {
            let problem = "it expires after the year 9999".to_owned();
            return Err(Error::Import { line, problem });
        }
        Ok(())
    }

    /// Refuses what [`import`](Self::import) would refuse of a text, and keeps nothing of it. Gives whether its keys ascend, as those
    /// of exports do: only then a key that comes twice is found.
    pub(crate) fn check_document(&self, input: impl BufRead) -> Result<bool> {
        let (mut entries, mut ascending) = (0_u64, true);
        let mut last: Option<Vec<u8>> = None;
        let (max, now) = (self.bounds.keys_per_vault_max, self.now());
        let about = parse::read(input, self.bounds.value_bytes_max, &mut |line, parsed| {
            self.check_read(line, &parsed)?;
            if parsed.expiry.is_some_and(|expiry| expiry <= now) {
                return Ok(());
            }
            entries += 1;
            if entries > max {
                let vault = "the import".to_owned();
                return Err(Error::VaultFull { vault, max });
            }
            if last.as_ref() == Some(&parsed.key) {
                let key = key::printable(&parsed.key);
                return Err(Error::DuplicateKey { line, key });
            }
            ascending &= last.as_ref().is_none_or(|last| *last < parsed.key);
            last = Some(parsed.key);
            Ok(())
        })?;
        self.record_of(0, about).check()?;
        Ok(ascending)
    }

    fn record_of(&self, id: u32, about: About) -> Record {
        Record {
            id,
            created: self.now().0,
            description: about.description,
            owner: about.owner,
            tags: about.tags,
        }
    }

    /// Lets what was read appear.
    fn take_in(
        &self,
        tenant: u32,
        name: &str,
        mode: ImportMode,
        begun: &Begun,
        staged: &Staged,
    ) -> Result<Became> {
        let mut structure = self.structure();
        let there = self.registry().find(tenant, name).map(Arc::clone);
        let mut record = self.record_of(begun.id, staged.about.clone());
        record.check()?;
        let Some(old) = there else {
            // Others may have taken the room meanwhile.
            self.check_vault_room(tenant)?;
            self.publish_vault(tenant, name, begun, record, &staged.tally)?;
            return Ok(Became::Vault);
        };
        if mode == ImportMode::Merge && staged.tally.bytes() <= MERGED_IN_PLACE_BYTES_MAX {
            drop(structure);
            match self.merge_in_place(&old, begun) {
                // More than this engine takes at once.
                Err(Error::TransactionTooLarge { .. }) => structure = self.structure(),
                other => return other.map(|()| Became::Merged(None)),
            }
        }
        let held = old.hold_all()?;
        let old = Arc::clone(held.vault);
        record.created = old.live().record.created;
        match mode {
            ImportMode::Create if self.len_held(&old)? > 0 => {
                let name = name.to_owned();
                Err(Error::VaultExists { name })
            }
            ImportMode::Create | ImportMode::Replace => {
                self.replace_vault(held, begun, record, staged.tally)?;
                Ok(Became::Successor(old))
            }
            ImportMode::Merge => {
                self.merge_anew(&mut structure, held, begun)?;
                Ok(Became::Merged(Some(old)))
            }
        }
    }

    /// Has what was filled take the place of a vault.
    fn replace_vault(
        &self,
        held: Departure<'_>,
        begun: &Begun,
        record: Record,
        tally: Tally,
    ) -> Result<()> {
        let old = held.vault;
        self.exchange(Exchange {
            arrivals: vec![Arrival {
                owner: old.owner.clone(),
                name: old.name(),
                begun: *begun,
                record,
                tally,
                accesses: Saved::default(),
            }],
            departures: vec![held],
            within_quotas: true,
            ..Exchange::default()
        })
    }

    /// Sets what was read in a vault, as one commit among others.
    fn merge_in_place(&self, vault: &Arc<VaultState>, begun: &Begun) -> Result<()> {
        let mut changes: BTreeMap<Vec<u8>, NewValue> = BTreeMap::new();
        for entry in self.engine.scan(begun.keyspace, KeyRange::all())? {
            let (key, stored) = entry?;
            let expiry = Stored::parse(&stored).and_then(|stored| stored.expiry);
            changes.insert(key.to_vec(), Some((stored.to_vec(), expiry)));
        }
        self.change_keys(vault, changes)
    }

    /// Fills a keyspace with the entries of a vault and with what was read laid over it.
    fn lay_over(&self, old: &VaultState, begun: &Begun, merged: &Begun) -> Result<Tally> {
        let below = self.engine.scan(old.keyspace, KeyRange::all())?;
        let above = self.engine.scan(begun.keyspace, KeyRange::all())?;
        let total = old.counts.entries();
        let laid = Laid {
            below: below.peekable(),
            above: above.peekable(),
        };
        self.fill(merged, laid, total, &mut |_| ControlFlow::Continue(()))
    }

    /// Writes a vault anew, with what was read laid over it, while nobody else changes it; readers go on.
    fn merge_anew(&self, header: &mut Header, held: Departure<'_>, begun: &Begun) -> Result<()> {
        let old = held.vault;
        let merged = self.begin_vault(header)?;
        let filled = self.lay_over(old, begun, &merged);
        let replaced = filled.and_then(|tally| {
            let max = self.bounds.keys_per_vault_max;
            if tally.entries > max {
                let vault = old.name().to_string();
                return Err(Error::VaultFull { vault, max });
            }
            let mut record = old.live().record.clone();
            record.id = merged.id;
            self.replace_vault(held, &merged, record, tally)
        });
        if replaced.is_err() {
            self.abandon(&merged);
        }
        replaced
    }
}

/// What became of the keyspace that an import was read into.
enum Became {
    /// A new vault.
    Vault,
    /// The vault that took the place of this one.
    Successor(Arc<VaultState>),
    /// Nothing: what it had was merged into a vault, or into one that took the place of this.
    Merged(Option<Arc<VaultState>>),
}

type Entry = vault_core::Result<(Slice, Slice)>;

/// Entries of two scans in the order of their keys; where both have a key, that of `above`.
struct Laid<I: Iterator<Item = Entry>> {
    below: std::iter::Peekable<I>,
    above: std::iter::Peekable<I>,
}

impl<I: Iterator<Item = Entry>> Iterator for Laid<I> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let order = match (self.below.peek(), self.above.peek()) {
            (Some(Ok((below, _))), Some(Ok((above, _)))) => below[..].cmp(&above[..]),
            // Errors go first: they end everything.
            (Some(Err(_)), _) | (_, None) => std::cmp::Ordering::Less,
            (_, Some(_)) => std::cmp::Ordering::Greater,
        };
        if order.is_eq() {
            self.below.next();
        }
        if order.is_lt() {
            self.below.next()
        } else {
            self.above.next()
        }
    }
}
