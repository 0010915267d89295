//! Writing merged entries: which versions stay, and where one table ends and the next begins.
//!
//! Flushes and compactions both end here. Entries come in internal key order; the versions of a key are
//! put before [`Rules`], which says what becomes of each. A table is cut only between keys, so that all
//! versions of a key that survive are in one table. Range tombstones are cut at the same keys.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use vault_core::batch::{KIND_HAS_EXPIRY, OperationKind};
use vault_core::transform::FileKind;
use vault_core::{Error, KeyspaceId, Result, Slice, Timestamp};
use vault_snapshot::visibility::{
    Decision, DropReason, Fate, Fold, FoldBase, Rules, Version, VersionKind,
};

use crate::counters::Counters;
use crate::cursor::InternalCursor;
use crate::internal_key::{has_expiry, kind_of, pack, sequence_of, split_expiry};
use crate::keyspace::KeyspaceView;
use crate::read::get::malformed_entry;
use crate::read::visible::{fold, guarded};
use crate::store::{Store, sync_failed};
use crate::table::{Table, TableMeta, TableOptions, TableWriter};
use crate::tombstones::Fragments;
use crate::version::TableFile;

/// Entries between two looks at whether to stop, and two notes of progress.
const ENTRIES_PER_TICK: u64 = 512;

/// Called from time to time with the bytes read since the last call; an error ends the work.
pub(crate) type Tick<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// Writes tables.
pub(crate) struct Output<'a> {
    store: &'a Arc<Store>,
    view: &'a KeyspaceView,
    options: TableOptions,
    table_bytes: u64,
    created: Timestamp,
    writer: Option<TableWriter>,
    /// The first key that the next table may hold tombstones from; `None`: from the start.
    tombstones_from: Option<Vec<u8>>,
    tables: OutputTables,
}

/// What was written, and what was not needed any more.
#[derive(Default)]
pub(crate) struct OutputTables {
    pub(crate) tables: Vec<Arc<TableMeta>>,
    pub(crate) counts: Removed,
}

/// Entries that were not needed any more.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Removed {
    pub(crate) obsolete: u64,
    pub(crate) tombstones: u64,
    pub(crate) expired: u64,
}

impl Removed {
    pub(crate) fn add_to(&self, counters: &Counters) {
        counters.obsolete_removed.fetch_add(self.obsolete, Relaxed);
        counters
            .tombstones_removed
            .fetch_add(self.tombstones, Relaxed);
        counters.expired_removed.fetch_add(self.expired, Relaxed);
    }

    pub(crate) const fn total(&self) -> u64 {
        self.obsolete + self.tombstones + self.expired
    }
}

impl OutputTables {
    /// Opens the tables that were written. Where one cannot be, all are removed.
    pub(crate) fn open(&self, store: &Store, keyspace: KeyspaceId) -> Result<Vec<Arc<TableFile>>> {
        let opened: Result<Vec<_>> = self
            .tables
            .iter()
            .map(|meta| open_table(store, keyspace, TableMeta::clone(meta)))
            .collect();
        opened.inspect_err(|_| self.discard(store))
    }

    /// Removes the files of tables that did not become part of the store, as `error` says. Where nobody
    /// knows whether they did, they stay: the next opening may find them named.
    pub(crate) fn discard_after(&self, store: &Store, error: &Error) {
        if !matches!(error, Error::Poisoned { .. }) {
            self.discard(store);
        }
    }

    /// Removes the files of tables that did not become part of the store.
    pub(crate) fn discard(&self, store: &Store) {
        for meta in &self.tables {
            // Should this fail, the next opening removes the orphan.
            let _ = store
                .env
                .fs
                .remove(&store.env.path(FileKind::Table, meta.number));
        }
    }
}

/// Opens a table of the store.
pub(crate) fn open_table(
    store: &Store,
    keyspace: KeyspaceId,
    meta: TableMeta,
) -> Result<Arc<TableFile>> {
    let path = store.env.path(FileKind::Table, meta.number);
    let table = Table::open(&store.table_env, &path, keyspace, meta)?;
    Ok(Arc::new(TableFile::new(
        table,
        path,
        Arc::clone(&store.reclaim),
    )))
}

/// The versions of one key, gathered.
#[derive(Default)]
struct Gathered {
    key: Vec<u8>,
    versions: Vec<(u64, Slice)>,
    described: Vec<Version>,
    decision: Decision,
}

impl<'a> Output<'a> {
    /// Starts an output whose tables are cut at `table_bytes`.
    pub(crate) fn new(store: &'a Arc<Store>, view: &'a KeyspaceView, table_bytes: u64) -> Self {
        Self {
            store,
            view,
            options: TableOptions::from(&*view.options),
            table_bytes,
            created: store.env.clock.now(),
            writer: None,
            tombstones_from: None,
            tables: OutputTables::default(),
        }
    }

    /// Writes what stays of the cursor's entries and of the range tombstones. Where it fails, no file is
    /// left behind.
    pub(crate) fn write(
        mut self,
        cursor: impl InternalCursor,
        tombstones: &Fragments,
        rules: &Rules,
        tick: Tick<'_>,
    ) -> Result<OutputTables> {
        match self.write_all(cursor, tombstones, rules, tick) {
            Ok(()) => Ok(self.tables),
            Err(error) => {
                if let Some(writer) = self.writer.take() {
                    writer.abandon();
                }
                self.tables.discard(self.store);
                Err(self.store.poison_if_unknown(error))
            }
        }
    }

    fn write_all(
        &mut self,
        mut cursor: impl InternalCursor,
        tombstones: &Fragments,
        rules: &Rules,
        tick: Tick<'_>,
    ) -> Result<()> {
        let mut gathered = Gathered::default();
        let (mut entries, mut bytes) = (0, 0);
        cursor.first()?;
        while cursor.valid() {
            self.key(&mut cursor, &mut gathered, tombstones, rules, &mut bytes)?;
            entries += 1;
            if entries % ENTRIES_PER_TICK == 0 {
                tick(std::mem::take(&mut bytes))?;
            }
        }
        tick(bytes)?;
        self.finish_table(tombstones, rules, None)?;
        if !self.tables.tables.is_empty() {
            self.store.env.sync_directory().map_err(sync_failed)?;
        }
        Ok(())
    }

    /// Takes all versions of the next key off the cursor and writes those that stay.
    fn key(
        &mut self,
        cursor: &mut impl InternalCursor,
        gathered: &mut Gathered,
        tombstones: &Fragments,
        rules: &Rules,
        bytes: &mut u64,
    ) -> Result<()> {
        gathered.key.clear();
        gathered.key.extend_from_slice(cursor.key());
        gathered.versions.clear();
        self.cut_if_full(&gathered.key, tombstones, rules)?;

        // The newest version stays as it is if it is a plain put that nothing covers. Most keys have no
        // other, and then nothing has to be gathered.
        let trailer = cursor.trailer();
        let plain = kind_of(trailer) == Some(OperationKind::Put)
            && !has_expiry(trailer)
            && tombstones.is_empty();
        *bytes += (cursor.key().len() + cursor.value().len()) as u64;
        if plain {
            let stored = zeroed(trailer, rules);
            self.writer()?.add(&gathered.key, stored, cursor.value())?;
            gathered.versions.push((trailer, Slice::empty()));
        } else {
            gathered.versions.push((trailer, cursor.value_slice()));
        }
        cursor.next()?;
        while cursor.valid() && cursor.key() == gathered.key.as_slice() {
            *bytes += (cursor.key().len() + cursor.value().len()) as u64;
            gathered
                .versions
                .push((cursor.trailer(), cursor.value_slice()));
            cursor.next()?;
        }
        if plain && gathered.versions.len() == 1 {
            return Ok(());
        }
        self.decide(gathered, tombstones, rules, usize::from(plain))
    }

    /// Puts the gathered versions before the rules and does what they say, from version `from` on.
    fn decide(
        &mut self,
        gathered: &mut Gathered,
        tombstones: &Fragments,
        rules: &Rules,
        from: usize,
    ) -> Result<()> {
        gathered.described.clear();
        for (i, (trailer, stored)) in gathered.versions.iter().enumerate() {
            // A version that was written already is a plain put: its value is not here any more.
            let expiry = if i < from {
                None
            } else {
                split_expiry(*trailer, stored)
                    .ok_or_else(|| malformed_entry(self.view))?
                    .0
            };
            let kind = match kind_of(*trailer) {
                Some(OperationKind::Put) => VersionKind::Put,
                Some(OperationKind::Delete) => VersionKind::Delete,
                Some(OperationKind::Merge) => VersionKind::Merge,
                Some(OperationKind::RangeDelete) | None => {
                    return Err(malformed_entry(self.view));
                }
            };
            gathered.described.push(Version {
                sequence: sequence_of(*trailer),
                kind,
                expiry,
            });
        }
        let covering = tombstones.covering_all(&gathered.key);
        rules.decide(&gathered.described, covering, &mut gathered.decision);

        let Gathered {
            key,
            versions,
            decision,
            ..
        } = gathered;
        let mut at = from;
        while at < versions.len() {
            let (trailer, stored) = &versions[at];
            match decision.fates[at] {
                Fate::Keep => {
                    let trailer = zeroed(*trailer, rules);
                    self.writer()?.add(key, trailer, stored)?;
                }
                Fate::KeepAsTombstone => {
                    let tombstone = pack(sequence_of(*trailer), OperationKind::Delete as u8);
                    self.tables.counts.expired += 1;
                    self.writer()?.add(key, tombstone, &[])?;
                }
                Fate::Drop(reason) => self.count(reason),
                Fate::Fold => {
                    let group = decision.folds.iter().find(|fold| fold.newest == at);
                    let group = group.expect("a fold group begins where its first member stands");
                    self.fold(key, &versions[group.newest..=group.oldest], group)?;
                    at = group.oldest;
                }
            }
            at += 1;
        }
        Ok(())
    }

    fn count(&mut self, reason: DropReason) {
        let counts = &mut self.tables.counts;
        match reason {
            DropReason::Obsolete | DropReason::RangeDeleted => counts.obsolete += 1,
            DropReason::Tombstone => counts.tombstones += 1,
            DropReason::Expired => counts.expired += 1,
        }
    }

    /// Writes one entry in the place of a group of merge operands and what is below them. Where the
    /// operator cannot, they stay as they are: a reader then gets the operator's error.
    fn fold(&mut self, key: &[u8], group: &[(u64, Slice)], fold_group: &Fold) -> Result<()> {
        let operator = self.view.keyspace.operator.as_deref();
        let newest = sequence_of(group[0].0);
        let operands = &group[..=fold_group.operand_oldest - fold_group.newest];
        let oldest_first = operands.iter().rev().map(|(_, operand)| &operand[..]);
        let folded = match fold_group.base {
            FoldBase::Value => {
                let base = group.last().map(|(_, value)| &value[..]);
                fold(key, base, oldest_first, operator)
                    .ok()
                    .map(|v| (OperationKind::Put, v))
            }
            FoldBase::Nothing => fold(key, None, oldest_first, operator)
                .ok()
                .map(|v| (OperationKind::Put, v)),
            FoldBase::Unknown => operator.and_then(|operator| {
                let mut oldest_first = oldest_first;
                let first = oldest_first.next()?.to_vec();
                oldest_first
                    .try_fold(first, |older, newer| {
                        guarded(|| Ok(operator.combine(key, &older, newer)))
                            .ok()
                            .flatten()
                    })
                    .map(|combined| (OperationKind::Merge, combined))
            }),
        };
        match folded {
            Some((kind, value)) => {
                self.tables.counts.obsolete += group.len() as u64 - 1;
                self.writer()?.add(key, pack(newest, kind as u8), &value)
            }
            None => group
                .iter()
                .try_for_each(|(trailer, stored)| self.writer()?.add(key, *trailer, stored)),
        }
    }

    fn writer(&mut self) -> Result<&mut TableWriter> {
        if self.writer.is_none() {
            let number = self.store.manifest()?.next_file_number();
            let path = self.store.env.path(FileKind::Table, number);
            let keyspace = self.view.keyspace.id;
            self.writer = Some(TableWriter::create(
                &self.store.table_env,
                &path,
                number,
                keyspace,
                &self.options,
                self.created,
            )?);
        }
        Ok(self.writer.as_mut().expect("made just above"))
    }

    fn cut_if_full(&mut self, key: &[u8], tombstones: &Fragments, rules: &Rules) -> Result<()> {
        let full = self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.estimated_bytes() >= self.table_bytes);
        if full {
            self.finish_table(tombstones, rules, Some(key))?;
            self.tombstones_from = Some(key.to_vec());
        }
        Ok(())
    }

    /// Ends the current table; it holds the range tombstones up to `until`.
    fn finish_table(
        &mut self,
        tombstones: &Fragments,
        rules: &Rules,
        until: Option<&[u8]>,
    ) -> Result<()> {
        if !tombstones.is_empty() {
            for tombstone in tombstones.clip(self.tombstones_from.as_deref(), until) {
                if rules.range_tombstone_stays(tombstone.sequence) {
                    self.writer()?.add_range_tombstone(&tombstone);
                } else {
                    self.tables.counts.tombstones += 1;
                }
            }
        }
        if let Some(writer) = self.writer.take() {
            let meta = writer.finish()?;
            self.tables.tables.push(Arc::new(meta));
        }
        Ok(())
    }
}

/// The trailer to write for one that stays: with sequence number 0 where every reader sees the version
/// whatever its number. Trailers that are all alike take no space.
fn zeroed(trailer: u64, rules: &Rules) -> u64 {
    if kind_of(trailer) != Some(OperationKind::Put) {
        return trailer;
    }
    let version = Version {
        sequence: sequence_of(trailer),
        kind: VersionKind::Put,
        expiry: None,
    };
    if rules.can_zero_sequence(&version) {
        pack(0, trailer as u8)
    } else {
        trailer
    }
}

/// The kind byte of a plain put, for those who write tables from bare pairs.
pub(crate) const PLAIN_PUT: u8 = OperationKind::Put as u8;
const _: () = assert!(
    PLAIN_PUT & KIND_HAS_EXPIRY == 0,
    "a plain put carries no expiry"
);
