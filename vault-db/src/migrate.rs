//! Moving a database to another store: with other options, encrypted, or in a newer format.
//!
//! The source goes on being used. Each vault is copied from a snapshot and compared with it. What the source changed
//! meanwhile is copied again, from one last snapshot of everything: the target then is the source as it was at that
//! moment, with its tenants, its access control and its audit log. Ids stay what they are.
//!
//! The target keeps a list of the vaults that it has, each with the number of commits that had changed it, and when the last did. What
//! is on the list is there: before a vault is copied again it goes from the list, on stable storage.
//!
//! A migration that was interrupted goes on where it was: a vault that has not changed since is not copied again. The list alone
//! cannot tell. A source may have lost what it did not wait for, or an older copy of its directory may have been put back, and other
//! commits may have brought it to the same number. So each call compares what earlier ones brought, once, as it compares what it
//! copies itself. Nothing that a source says of itself would do instead: a copy of its files by other means says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vault_core::{
    Engine, KeyRange, KeyspaceId, KeyspaceOptions, Scan, Slice, Snapshot, WriteBatch, WriteOptions,
};

use crate::catalog::{self, Header, Record, Tally};
use crate::database::{Begun, Database, Shared, keyspaces_by_name};
use crate::error::{Error, Result};
use crate::key;

const KEYSPACE: &str = "vault.migration";
const AUDIT: &str = "vault.audit";
const SOURCE: &[u8] = b"source";
const FINISHED: &[u8] = b"finished";
const VAULT: u8 = b'v';

/// How often the source is looked at where vaults come and go meanwhile.
const LOOKS_MAX: u32 = 100;
/// Bytes of the audit log that are written at once.
const BATCH_BYTES: usize = 256 << 10;

/// How far a migration has come.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let target = vault_db::Database::temp()?;
/// db.vault("notes")?.put("a", &1)?;
/// let mut seen = Vec::new();
/// db.migrate_with(&target, |progress| {
///     seen.push(progress.vault.clone());
///     std::ops::ControlFlow::Continue(())
/// })?;
/// assert!(seen.contains(&"notes".to_owned()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MigrationProgress {
    /// The vault that is being copied.
    pub vault: String,
    /// Vaults that the target has.
    pub vaults_done: u64,
    /// Vaults in all, as far as it is known.
    pub vaults_total: u64,
    /// Entries copied, by this call.
    pub entries_done: u64,
}

/// What a migration did.
///
/// ```
/// # fn main() -> vault_db::Result<()> {
/// # let db = vault_db::Database::temp()?;
/// let target = vault_db::Database::temp()?;
/// db.vault("notes")?.put("a", &1)?;
/// let outcome = db.migrate_to(&target)?;
/// assert_eq!((outcome.vaults, outcome.entries, outcome.copied), (1, 1, 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MigrationOutcome {
    /// Vaults that the target has now.
    pub vaults: u64,
    /// Entries in them.
    pub entries: u64,
    /// Vaults that this call copied, each time counted.
    pub copied: u64,
    /// The last write of the source that the target has.
    pub sequence: u64,
}

/// A vault that the target has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    /// Commits that had changed it.
    commits: u64,
    entries: u64,
    key_bytes: u64,
    value_bytes: u64,
    expiring: u64,
    updated: u64,
}

impl Done {
    const fn tally(&self) -> Tally {
        Tally {
            entries: self.entries,
            key_bytes: self.key_bytes,
            value_bytes: self.value_bytes,
            expiring: self.expiring,
            commits: self.commits,
            updated: vault_core::Timestamp(self.updated),
        }
    }
}

/// Whether a store is the target of a migration that has not finished. Clears up after one that has.
pub(crate) fn is_under_way(
    engine: &dyn Engine,
    keyspaces: &BTreeMap<String, KeyspaceId>,
) -> Result<bool> {
    let Some(&keyspace) = keyspaces.get(KEYSPACE) else {
        return Ok(false);
    };
    if engine.get(keyspace, FINISHED)?.is_none() {
        return Ok(true);
    }
    engine.drop_keyspace(keyspace)?;
    Ok(false)
}

impl Database {
    /// Copies everything into an empty database, which may be encrypted, or have other options. This one goes on being used;
    /// the target becomes what this one is at some moment before the call returns. Interrupted, it goes on where it was when
    /// called with the same two databases again: vaults that the target has are compared, and copied again only where they differ.
    ///
    /// ```
    /// use vault_db::encryption::{Passphrase, SecretBytes};
    /// use vault_db::{Database, EncryptedDatabase};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("encrypted");
    /// # let plain = Database::temp()?;
    /// plain.vault("users")?.put("alice", "admin")?;
    /// let passphrase = Passphrase::new(SecretBytes::from_string("correct horse".to_owned())?)?;
    /// let encrypted = EncryptedDatabase::open(&path, passphrase)?;
    /// let outcome = plain.migrate_to(&encrypted)?;
    /// assert_eq!((outcome.vaults, outcome.entries), (1, 1));
    /// assert_eq!(encrypted.vault("users")?.get::<String>("alice")?.as_deref(), Some("admin"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::TargetNotEmpty`] where the target has anything: vaults, tenants, rules of access control, an audit log, or the
    /// beginnings of another database; [`Error::CopyDiffers`]; [`Error::Engine`] of either. Until it has ended, the target
    /// refuses to get anything else ([`Error::MigrationUnderWay`]).
    pub fn migrate_to(&self, target: &Self) -> Result<MigrationOutcome> {
        self.migrate_with(target, |_| ControlFlow::Continue(()))
    }

    /// As [`Database::migrate_to`], with `progress` called from time to time, which can stop the work; the next call goes on.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// use std::ops::ControlFlow;
    /// let target = vault_db::Database::temp()?;
    /// db.migrate_with(&target, |progress| {
    ///     println!("{}: {} of {} vaults", progress.vault, progress.vaults_done, progress.vaults_total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Database::migrate_to`]; [`Error::Cancelled`].
    pub fn migrate_with(
        &self,
        target: &Self,
        mut progress: impl FnMut(&MigrationProgress) -> ControlFlow<()>,
    ) -> Result<MigrationOutcome> {
        let (source, target) = (self.shared(), target.shared());
        let keyspace = claim(source, target)?;
        let mut migration = Migration {
            source,
            target,
            keyspace,
            told: MigrationProgress::default(),
            compared: BTreeSet::new(),
            copied: 0,
            progress: &mut progress,
        };
        migration.run()
    }
}

/// Makes the target this migration's, or finds that it is.
fn claim(source: &Shared, target: &Shared) -> Result<KeyspaceId> {
    let engine = &*target.engine;
    let database = source.structure().database.clone();
    // Nobody creates anything in the target meanwhile, and nobody will before it is done.
    let structure = target.structure();
    let occupied = |what: &str| {
        let what = what.to_owned();
        Err(Error::TargetNotEmpty { what })
    };
    if let Some(keyspace) = engine.keyspace(KEYSPACE)?
        // Without a source, the process ended just when it was begun.
        && let Some(begun) = engine.get(keyspace, SOURCE)?
    {
        if *begun != *database.as_bytes() {
            return occupied("been begun to be filled from another database");
        }
        return Ok(keyspace);
    }
    if structure.database == database {
        return occupied("everything: it is the source");
    }
    let vaults = target.registry().count();
    if vaults > 0 {
        return occupied(&format!("{vaults} vaults"));
    }
    for entry in engine.scan(target.keyspaces()?.catalog, KeyRange::all())? {
        if let Some(what) = catalog::what_stands_under(&entry?.0) {
            return occupied(what);
        }
    }
    if engine.keyspace(AUDIT)?.is_some() {
        return occupied("an audit log");
    }
    let keyspace = engine.create_keyspace(KEYSPACE, &KeyspaceOptions::default())?;
    engine.put(keyspace, SOURCE, database.as_bytes(), &WriteOptions::SYNC)?;
    Ok(keyspace)
}

impl Shared {
    /// Refuses where this is the target of a migration that has not ended: what came beside it would have the numbers of what
    /// is still to come.
    pub(crate) fn check_no_migration(&self) -> Result<()> {
        match self.engine.keyspace(KEYSPACE)? {
            Some(_) => Err(Error::MigrationUnderWay),
            None => Ok(()),
        }
    }
}

struct Migration<'a> {
    source: &'a Arc<Shared>,
    target: &'a Arc<Shared>,
    keyspace: KeyspaceId,
    told: MigrationProgress,
    /// The vaults whose copies were compared by this call. As long as it goes on, the source only goes forward.
    compared: BTreeSet<u32>,
    copied: u64,
    progress: &'a mut dyn FnMut(&MigrationProgress) -> ControlFlow<()>,
}

/// A vault of the source, at the moment of a snapshot.
struct Seen {
    name: String,
    record: Record,
    keyspace: KeyspaceId,
}

impl Migration<'_> {
    fn run(&mut self) -> Result<MigrationOutcome> {
        // The bulk, each vault at a moment of its own.
        let (_, seen) = self.look()?;
        for vault in &seen {
            let snapshot = self.source.engine.snapshot()?;
            if self.exists_in(&*snapshot, vault.record.id)? {
                self.bring(&snapshot, vault)?;
            }
        }
        // Then what has changed since, all at one moment, with what is known of accesses by then.
        self.source.save_accesses();
        let (snapshot, seen) = self.look()?;
        for vault in &seen {
            self.bring(&snapshot, vault)?;
        }
        self.finish(&*snapshot, &seen)
    }

    /// Takes a moment of the source, and lists the vaults that it has then.
    fn look(&mut self) -> Result<(Arc<dyn Snapshot>, Vec<Seen>)> {
        // A vault that is deleted goes on being readable in the snapshot, by the number of its keyspace, which has to be
        // known from before. One that comes and goes while this looks is missed: then it looks again.
        for _ in 0..LOOKS_MAX {
            let mut keyspaces = keyspaces_by_name(&*self.source.engine)?;
            let snapshot = self.source.engine.snapshot()?;
            keyspaces.extend(keyspaces_by_name(&*self.source.engine)?);
            if let Some(seen) = self.vaults_at(&*snapshot, &keyspaces)? {
                return Ok((snapshot, seen));
            }
        }
        Err(Error::Conflict {
            attempts: LOOKS_MAX,
            elapsed: std::time::Duration::ZERO,
        })
    }

    /// The vaults of the source, tenants' included; `None` where the keyspace of one is not known.
    fn vaults_at(
        &mut self,
        snapshot: &dyn Snapshot,
        keyspaces: &BTreeMap<String, KeyspaceId>,
    ) -> Result<Option<Vec<Seen>>> {
        let catalog = self.source.keyspaces()?.catalog;
        let mut seen = Vec::new();
        for entry in snapshot.scan_prefix(catalog, &catalog::all_records_prefix())? {
            let (key, value) = entry?;
            let what = "the record of a vault";
            let (_, name) =
                catalog::parse_record_key(&key).ok_or_else(|| catalog::malformed(what))?;
            let record: Record = catalog::decode(what, &value)?;
            let name = name.to_owned();
            let Some(&keyspace) = keyspaces.get(&catalog::keyspace_name(record.id)) else {
                return Ok(None);
            };
            seen.push(Seen {
                name,
                record,
                keyspace,
            });
        }
        self.told.vaults_total = seen.len() as u64;
        self.told.vaults_done = 0;
        Ok(Some(seen))
    }

    fn done_key(vault: u32) -> [u8; 5] {
        let [a, b, c, d] = vault.to_be_bytes();
        [VAULT, a, b, c, d]
    }

    fn done(&self, vault: u32) -> Result<Option<Done>> {
        let stored = self
            .target
            .engine
            .get(self.keyspace, &Self::done_key(vault))?;
        stored
            .map(|stored| catalog::decode("the state of a migration", &stored))
            .transpose()
    }

    /// Sees to it that the target has a vault as it is in a snapshot.
    fn bring(&mut self, snapshot: &Arc<dyn Snapshot>, vault: &Seen) -> Result<()> {
        self.told.vault.clone_from(&vault.name);
        let id = vault.record.id;
        let at = self.source.tally_at(&**snapshot, id)?;
        if !self.is_there(snapshot, vault, &at)? {
            let tally = self.copy(snapshot, vault)?;
            let done = Done {
                commits: at.commits,
                entries: tally.entries,
                key_bytes: tally.key_bytes,
                value_bytes: tally.value_bytes,
                expiring: tally.expiring,
                updated: at.updated.0,
            };
            let encoded = catalog::encode(&done)?;
            let engine = &*self.target.engine;
            engine.put(
                self.keyspace,
                &Self::done_key(id),
                &encoded,
                &WriteOptions::SYNC,
            )?;
            self.copied += 1;
        }
        self.compared.insert(id);
        self.told.vaults_done += 1;
        self.tell()
    }

    /// Whether the target has a vault as it is in a snapshot, where its tally is `at`.
    fn is_there(&self, snapshot: &Arc<dyn Snapshot>, vault: &Seen, at: &Tally) -> Result<bool> {
        let id = vault.record.id;
        let is_same = |done: Done| done.commits == at.commits && done.updated == at.updated.0;
        let is_listed = self.done(id)?.is_some_and(is_same);
        if !is_listed || self.compared.contains(&id) {
            return Ok(is_listed);
        }
        let name = catalog::keyspace_name(id);
        match self.target.engine.keyspace(&name)? {
            None => Ok(false),
            Some(copy) => {
                let difference = self.first_difference(snapshot, vault.keyspace, copy)?;
                Ok(difference.is_none())
            }
        }
    }

    /// Whether a vault is still there at the moment of a snapshot that was taken after it was listed.
    fn exists_in(&self, snapshot: &dyn Snapshot, vault: u32) -> Result<bool> {
        let catalog = self.source.keyspaces()?.catalog;
        Ok(snapshot
            .entry_info(catalog, &catalog::tally_key(vault))?
            .is_some())
    }

    fn tell(&mut self) -> Result<()> {
        match (self.progress)(&self.told) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }

    /// Copies a vault anew, and compares the copy.
    fn copy(&mut self, snapshot: &Arc<dyn Snapshot>, vault: &Seen) -> Result<Tally> {
        let id = vault.record.id;
        let name = catalog::keyspace_name(id);
        let source = vault.keyspace;
        let engine = &*self.target.engine;
        if let Some(begun) = engine.keyspace(&name)? {
            let mut batch = WriteBatch::new();
            batch.delete_prefix(self.target.keyspaces()?.expiry, &catalog::expiry_prefix(id));
            batch.delete(self.keyspace, &Self::done_key(id));
            // On stable storage: what the list says is of the copy that goes, and not of the one that may only be begun.
            engine.write(&batch, &WriteOptions::SYNC)?;
            engine.drop_keyspace(begun)?;
        }
        let keyspace = engine.create_keyspace(&name, &self.target.vaults)?;
        let begun = Begun { id, keyspace };
        let scan = snapshot.scan(source, KeyRange::all())?;
        let (told, progress) = (&mut self.told, &mut *self.progress);
        let before = told.entries_done;
        let tally = self.target.fill(&begun, scan, 0, &mut |done| {
            told.entries_done = before + done.entries_done;
            progress(told)
        })?;
        told.entries_done = before + tally.entries;
        match self.first_difference(snapshot, source, keyspace)? {
            None => Ok(tally),
            Some(key) => Err(Error::CopyDiffers {
                vault: vault.name.clone(),
                key: key::printable(&key),
            }),
        }
    }

    /// The first key under which a copy has something else than its source.
    fn first_difference(
        &self,
        snapshot: &Arc<dyn Snapshot>,
        source: KeyspaceId,
        copy: KeyspaceId,
    ) -> Result<Option<Slice>> {
        let target = &*self.target.engine;
        let mut below = snapshot.scan(source, KeyRange::all())?.peekable();
        let mut above = target.scan(copy, KeyRange::all())?.peekable();
        loop {
            let next = |side: &mut std::iter::Peekable<Scan>| match side.peek() {
                Some(Err(error)) => Err(error.clone()),
                Some(Ok((key, _))) => Ok(Some(key.clone())),
                None => Ok(None),
            };
            let (here, there) = (next(&mut below)?, next(&mut above)?);
            let key = match (here, there) {
                (None, None) => return Ok(None),
                (Some(here), Some(there)) if here[..] <= there[..] => here,
                (_, Some(there)) => there,
                (Some(here), None) => here,
            };
            let value_here =
                below.next_if(|entry| matches!(entry, Ok((at, _)) if at[..] == key[..]));
            let value_there =
                above.next_if(|entry| matches!(entry, Ok((at, _)) if at[..] == key[..]));
            let same = match (value_here, value_there) {
                (Some(Ok((_, here))), Some(Ok((_, there)))) => here[..] == there[..],
                // The two scans do not look at the same moment of the clock: what has expired by now is in neither.
                _ => {
                    snapshot.entry_info(source, &key)?.is_none()
                        && target.entry_info(copy, &key)?.is_none()
                }
            };
            if !same {
                return Ok(Some(key));
            }
        }
    }

    /// Lets everything appear in the target, by one batch.
    fn finish(&mut self, snapshot: &dyn Snapshot, seen: &[Seen]) -> Result<MigrationOutcome> {
        self.copy_audit(snapshot)?;
        let engine = &*self.target.engine;
        let (from, to) = (
            self.source.keyspaces()?.catalog,
            self.target.keyspaces()?.catalog,
        );
        let mut batch = WriteBatch::new();
        // All that the target had is its header.
        catalog::delete_everything(&mut batch, to);
        // Copies of vaults that the source has deleted since.
        let strays = self.strays(seen)?;
        for (vault, _) in &strays {
            batch.put(to, &catalog::stray_key(*vault), b"");
            let expiring = self.target.keyspaces()?.expiry;
            batch.delete_prefix(expiring, &catalog::expiry_prefix(*vault));
        }
        let mut entries = 0;
        for entry in snapshot.scan(from, KeyRange::all())? {
            let (key, value) = entry?;
            match catalog::tallied_vault(&key) {
                // It keeps a name of its own.
                None if *key == catalog::header_key() => {
                    let mut header: Header = catalog::decode("the header", &value)?;
                    header
                        .database
                        .clone_from(&self.target.structure().database);
                    batch.put(to, &key, &catalog::encode(&header)?);
                }
                // These may be many and large. They follow, one by one: nothing depends on them.
                None if catalog::accessed_vault(&key).is_some() => {}
                // Of what is on its way in the source.
                None if catalog::marked_vault(&key).is_some() => {}
                None => {
                    batch.put(to, &key, &value);
                }
                Some(id) => {
                    if let Some(done) = self.done(id)? {
                        entries += done.entries;
                        batch.put(to, &key, &done.tally().encode());
                    }
                }
            }
        }
        batch.put(self.keyspace, FINISHED, b"");
        engine.write(&batch, &WriteOptions::SYNC)?;
        let accesses = KeyRange::prefix(&catalog::accesses_prefix());
        self.copy_entries(snapshot.scan(from, accesses)?, to, WriteBatch::new())?;
        self.target.discard(&strays)?;
        engine.drop_keyspace(self.keyspace)?;
        self.target.reload()?;
        Ok(MigrationOutcome {
            vaults: seen.len() as u64,
            entries,
            copied: self.copied,
            sequence: snapshot.sequence(),
        })
    }

    /// The keyspaces of vaults in the target that are none of these.
    fn strays(&self, seen: &[Seen]) -> Result<Vec<(u32, KeyspaceId)>> {
        let known: BTreeSet<u32> = seen.iter().map(|vault| vault.record.id).collect();
        let keyspaces = keyspaces_by_name(&*self.target.engine)?.into_iter();
        let of_vaults = keyspaces
            .filter_map(|(name, keyspace)| Some((catalog::vault_of_keyspace(&name)?, keyspace)));
        Ok(of_vaults
            .filter(|(vault, _)| !known.contains(vault))
            .collect())
    }

    fn copy_audit(&self, snapshot: &dyn Snapshot) -> Result<()> {
        let Some(source) = self.source.engine.keyspace(AUDIT)? else {
            return Ok(());
        };
        let engine = &*self.target.engine;
        let target = engine.create_keyspace(AUDIT, &KeyspaceOptions::default())?;
        let mut batch = WriteBatch::new();
        // What an interrupted migration brought may have been pruned since.
        catalog::delete_everything(&mut batch, target);
        self.copy_entries(snapshot.scan(source, KeyRange::all())?, target, batch)
    }

    /// Writes entries as they are, behind what a batch holds already, a bounded part at a time.
    fn copy_entries(&self, entries: Scan, to: KeyspaceId, mut batch: WriteBatch) -> Result<()> {
        let engine = &*self.target.engine;
        for entry in entries {
            let (key, value) = entry?;
            batch.put(to, &key, &value);
            if batch.encoded().len() >= BATCH_BYTES {
                engine.write(&batch, &WriteOptions::OS)?;
                batch.clear();
            }
        }
        engine.write(&batch, &WriteOptions::OS)?;
        Ok(())
    }
}
