//! Writing merged entries: which versions stay, and where one table ends and the next begins.
//!
//! Flushes and compactions both end here. Entries come in internal key order; the versions of a key are
//! put before [`Rules`], which says what becomes of each. A table is cut only between keys, so that all
//! versions of a key that survive are in one table. Range tombstones are cut at the same keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use vault_core::batch::{KIND_HAS_EXPIRY, OperationKind};
use vault_core::transform::FileKind;
use vault_core::{Error, MergeOperator, Result, Slice, Timestamp};
use vault_snapshot::visibility::{
    Decision, DropReason, Fate, Fold, FoldBase, Rules, Version, VersionKind,
};

use super::written::OutputTables;
use crate::blob::{Placing, ValueOutput, pointer_of};
use crate::cursor::InternalCursor;
use crate::internal_key::{has_expiry, kind_of, pack, sequence_of, split_expiry};
use crate::keyspace::KeyspaceView;
use crate::read::get::{malformed_entry, value_apart};
use crate::read::visible::{combine_all, fold};
use crate::store::{Store, sync_failed};
use crate::table::{TableOptions, TableWriter};
use crate::tombstones::Fragments;

/// Entries between two looks at whether to stop, and two notes of progress.
const ENTRIES_PER_TICK: u64 = 512;
/// Bytes between them, where entries are large.
pub(super) const BYTES_PER_TICK: u64 = 1 << 20;

/// Called from time to time with the bytes read since the last call; an error ends the work.
pub(crate) type Tick<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// Writes tables.
pub(crate) struct Output<'a> {
    store: &'a Arc<Store>,
    view: &'a KeyspaceView,
    options: TableOptions,
    table_bytes: u64,
    /// Bytes of values of one key that are held at once.
    gathered_bytes_max: u64,
    created: Timestamp,
    writer: Option<TableWriter>,
    /// Entries of the table being written that only snapshots can see.
    shadowed: u64,
    values: ValueOutput<'a>,
    /// The first key that the next table may hold tombstones from; `None`: from the start.
    tombstones_from: Option<Vec<u8>>,
    tables: OutputTables,
}

/// The versions of one key that somebody may still see, gathered.
#[derive(Default)]
struct Gathered {
    key: Vec<u8>,
    trailers: Vec<u64>,
    /// Their stored values, as far as they fit; the others are read again if they are needed.
    values: Vec<Option<Slice>>,
    value_bytes: u64,
    /// The last of them that ends every reader's search for older ones.
    end: Option<u64>,
    /// How many of the last of them could be combined into one.
    operands: usize,
    /// The stripe of the last one.
    stripe: usize,
    described: Vec<Version>,
    decision: Decision,
}

/// Operands of one key that are gathered before they are combined.
const OPERANDS_GATHERED_MAX: usize = 1024;

/// Versions in one stripe are seen by the same snapshots.
fn stripe_of(sequence: u64, rules: &Rules) -> usize {
    rules.snapshots.partition_point(|&s| s < sequence)
}

impl Gathered {
    /// What a value that is kept takes beside its bytes, about: its share of the block it lies in.
    const VALUE_OVERHEAD_BYTES: u64 = 256;

    fn begin(&mut self, key: &[u8]) {
        self.key.clear();
        self.key.extend_from_slice(key);
        self.trailers.clear();
        self.values.clear();
        self.described.clear();
        self.value_bytes = 0;
        self.end = None;
        self.operands = 0;
    }

    /// Whether the value that the cursor stands on may be held beside the others.
    fn has_room(&self, cursor: &impl InternalCursor, bytes_max: u64) -> bool {
        let bytes = cursor.value().len() as u64 + Self::VALUE_OVERHEAD_BYTES;
        self.value_bytes + bytes <= bytes_max
    }

    /// Takes the version that the cursor stands on.
    fn push(
        &mut self,
        version: Version,
        cursor: &impl InternalCursor,
        rules: &Rules,
        bytes_max: u64,
    ) {
        let fits = self.has_room(cursor, bytes_max);
        if fits {
            self.value_bytes += cursor.value().len() as u64 + Self::VALUE_OVERHEAD_BYTES;
        }
        self.values.push(fits.then(|| cursor.value_slice()));
        self.trailers.push(cursor.trailer());
        if version.kind != VersionKind::Merge {
            self.end = Some(version.sequence);
        }
        let joins = version.kind == VersionKind::Merge && version.expiry.is_none() && fits;
        let stripe = stripe_of(version.sequence, rules);
        self.operands = match joins {
            true if self.operands > 0 && self.stripe == stripe => self.operands + 1,
            joins => usize::from(joins),
        };
        self.stripe = stripe;
        self.described.push(version);
    }

    /// Whether nobody can see `version`, because a newer one hides it from everybody who would.
    fn hides(&self, version: &Version, rules: &Rules) -> bool {
        let own = stripe_of(version.sequence, rules);
        self.end.is_some_and(|end| stripe_of(end, rules) == own)
    }

    /// Combines the last operands, which stand next to each other in one stripe, into the newest of them:
    /// a key that is counted up a million times has a million. Gives how many there are less.
    fn combine(&mut self, operator: Option<&dyn MergeOperator>) -> u64 {
        let first = self.values.len() - self.operands;
        let values = self.values[first..].iter().rev().flatten();
        let oldest_first = values.map(|value| &value[..]);
        let combined = operator.and_then(|op| combine_all(&self.key, oldest_first, op));
        let less = self.operands as u64 - 1;
        self.operands = 0;
        let Some(combined) = combined else {
            return 0;
        };
        self.values.truncate(first);
        self.trailers.truncate(first + 1);
        self.described.truncate(first + 1);
        self.values.push(Some(Slice::from(combined)));
        let kept = self.values.iter().flatten();
        self.value_bytes = kept
            .map(|v| v.len() as u64 + Self::VALUE_OVERHEAD_BYTES)
            .sum();
        self.operands = 1;
        less
    }
}

impl<'a> Output<'a> {
    /// Starts an output whose tables are cut at `table_bytes`. Large values go apart, and those in the blob files `leaving`
    /// into others.
    pub(crate) fn new(
        store: &'a Arc<Store>,
        view: &'a KeyspaceView,
        table_bytes: u64,
        leaving: BTreeSet<u64>,
    ) -> Self {
        let placing = Placing {
            from_bytes: view.options.large_value_bytes,
            leaving,
        };
        Self {
            values: ValueOutput::new(store, view, placing),
            store,
            view,
            options: TableOptions::from(&*view.options),
            table_bytes,
            gathered_bytes_max: store.memory.shares().compaction / 4,
            created: store.env.clock.now(),
            writer: None,
            shadowed: 0,
            tombstones_from: None,
            tables: OutputTables::begin(store),
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
                self.values.abandon();
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
            bytes += self.values.take_copied_bytes();
            if entries % ENTRIES_PER_TICK == 0 || bytes >= BYTES_PER_TICK {
                tick(std::mem::take(&mut bytes))?;
            }
        }
        tick(bytes)?;
        self.tables.blobs = self.values.finish()?;
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
        gathered.begin(cursor.key());
        self.cut_if_full(&gathered.key, tombstones, rules)?;

        // The newest version stays as it is if it is a plain put that nothing covers. Most keys have no
        // other, and then nothing has to be gathered.
        let trailer = cursor.trailer();
        let plain = kind_of(trailer) == Some(OperationKind::Put)
            && !has_expiry(trailer)
            && tombstones.is_empty();
        *bytes += (cursor.key().len() + cursor.value().len()) as u64;
        let newest = self.describe(cursor)?;
        if plain {
            let stored = zeroed(trailer, rules);
            self.add(&gathered.key, stored, cursor.value())?;
            gathered.push(newest, cursor, rules, 0);
        } else {
            gathered.push(newest, cursor, rules, self.gathered_bytes_max);
        }
        cursor.next()?;
        while cursor.valid() && cursor.key() == gathered.key.as_slice() {
            *bytes += (cursor.key().len() + cursor.value().len()) as u64;
            let version = self.describe(cursor)?;
            // A key that was written a million times would fill the memory with what is dropped anyway.
            if gathered.hides(&version, rules) {
                self.tables.counts.obsolete += 1;
            } else {
                let many = gathered.operands >= OPERANDS_GATHERED_MAX
                    || !gathered.has_room(cursor, self.gathered_bytes_max);
                if many && gathered.operands > 1 && tombstones.is_empty() {
                    let operator = self.view.keyspace.operator.as_deref();
                    self.tables.counts.obsolete += gathered.combine(operator);
                }
                gathered.push(version, cursor, rules, self.gathered_bytes_max);
            }
            cursor.next()?;
        }
        if plain && gathered.trailers.len() == 1 {
            return Ok(());
        }
        self.decide(cursor, gathered, tombstones, rules, usize::from(plain))
    }

    /// Describes the version that the cursor stands on to the rules.
    fn describe(&self, cursor: &impl InternalCursor) -> Result<Version> {
        let trailer = cursor.trailer();
        let kind = match kind_of(trailer) {
            Some(OperationKind::Put) => VersionKind::Put,
            Some(OperationKind::Delete) => VersionKind::Delete,
            Some(OperationKind::Merge) => VersionKind::Merge,
            Some(OperationKind::RangeDelete) | None => return Err(malformed_entry(self.view)),
        };
        let split = split_expiry(trailer, cursor.value());
        let (expiry, _) = split.ok_or_else(|| malformed_entry(self.view))?;
        Ok(Version {
            sequence: sequence_of(trailer),
            kind,
            expiry,
        })
    }

    /// Puts the gathered versions before the rules and does what they say, from version `from` on.
    fn decide(
        &mut self,
        cursor: &mut impl InternalCursor,
        gathered: &mut Gathered,
        tombstones: &Fragments,
        rules: &Rules,
        from: usize,
    ) -> Result<()> {
        let covering = tombstones.covering_all(&gathered.key);
        rules.decide(&gathered.described, covering, &mut gathered.decision);
        let mut moved = false;
        let mut at = from;
        while at < gathered.trailers.len() {
            match gathered.decision.fates[at] {
                Fate::Keep => {
                    let newer = &gathered.described[..at];
                    let is_hidden = newer.iter().any(|newer| newer.kind != VersionKind::Merge);
                    self.shadowed += u64::from(is_hidden);
                    let stored = zeroed(gathered.trailers[at], rules);
                    moved |= self.keep(cursor, gathered, at, stored)?;
                }
                Fate::KeepAsTombstone => {
                    let sequence = sequence_of(gathered.trailers[at]);
                    let tombstone = pack(sequence, OperationKind::Delete as u8);
                    self.tables.counts.expired += 1;
                    self.writer()?.add(&gathered.key, tombstone, &[])?;
                }
                Fate::Drop(reason) => self.count(reason),
                Fate::Fold => {
                    let mut folds = gathered.decision.folds.iter();
                    let group = folds.find(|fold| fold.newest == at).copied();
                    let group = group.expect("a fold group begins where its first member stands");
                    moved |= self.fold(cursor, gathered, &group)?;
                    at = group.oldest;
                }
            }
            at += 1;
        }
        if moved {
            cursor.seek(&gathered.key, 0)?;
            while cursor.valid() && cursor.key() == gathered.key.as_slice() {
                cursor.next()?;
            }
        }
        Ok(())
    }

    /// Writes a version that stays, under `trailer`. Gives whether the cursor had to be moved to it, since
    /// its value had not fitted into memory.
    fn keep(
        &mut self,
        cursor: &mut impl InternalCursor,
        gathered: &Gathered,
        at: usize,
        trailer: u64,
    ) -> Result<bool> {
        let key = &gathered.key;
        if let Some(value) = &gathered.values[at] {
            self.add(key, trailer, value)?;
            return Ok(false);
        }
        let own = gathered.trailers[at];
        cursor.seek(key, own)?;
        if !cursor.valid() || cursor.key() != key.as_slice() || cursor.trailer() != own {
            return Err(malformed_entry(self.view));
        }
        self.add(key, trailer, cursor.value())?;
        Ok(true)
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
    /// operator cannot, the group is larger than memory allows, or what is below is damaged, they stay as
    /// they are: a reader then folds them, or gets the error. Gives whether the cursor was moved.
    fn fold(
        &mut self,
        cursor: &mut impl InternalCursor,
        gathered: &Gathered,
        fold_group: &Fold,
    ) -> Result<bool> {
        let members = fold_group.newest..=fold_group.oldest;
        let values = self.values_of(gathered, fold_group)?;
        let folded = values.and_then(|values| self.folded(&gathered.key, &values, fold_group));
        if let Some((kind, value)) = folded {
            self.tables.counts.obsolete += members.count() as u64 - 1;
            let newest = sequence_of(gathered.trailers[fold_group.newest]);
            let trailer = pack(newest, kind as u8);
            self.add(&gathered.key, trailer, &value)?;
            return Ok(false);
        }
        let mut moved = false;
        for at in members {
            moved |= self.keep(cursor, gathered, at, gathered.trailers[at])?;
        }
        Ok(moved)
    }

    /// The values of a group of merge operands and what is below them; `None` where they don't fit into memory, or the one below is
    /// damaged: a reader of the key is told so, and all else goes on being merged.
    fn values_of(&self, gathered: &Gathered, fold_group: &Fold) -> Result<Option<Vec<Slice>>> {
        let members = fold_group.newest..=fold_group.oldest;
        let values: Option<Vec<Slice>> = gathered.values[members].iter().cloned().collect();
        let Some(mut values) = values else {
            return Ok(None);
        };
        // Only what the operands are merged over can be kept apart.
        let trailer = gathered.trailers[fold_group.oldest];
        let base = values
            .last_mut()
            .filter(|_| fold_group.base == FoldBase::Value);
        if let Some(base) = base
            && let Some(pointer) = pointer_of(trailer, base)
        {
            let pointer = pointer.ok_or_else(|| malformed_entry(self.view))?;
            if gathered.value_bytes + u64::from(pointer.raw) > self.gathered_bytes_max {
                return Ok(None);
            }
            *base = match value_apart(self.view, &gathered.key, &pointer) {
                Ok(value) => value,
                Err(Error::Corruption { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
        }
        Ok(Some(values))
    }

    /// What a group of operands, newest first, comes to; `None` where the operator cannot tell.
    fn folded(
        &self,
        key: &[u8],
        group: &[Slice],
        fold_group: &Fold,
    ) -> Option<(OperationKind, Vec<u8>)> {
        let operator = self.view.keyspace.operator.as_deref();
        let operands = &group[..=fold_group.operand_oldest - fold_group.newest];
        let oldest_first = operands.iter().rev().map(|operand| &operand[..]);
        match fold_group.base {
            FoldBase::Value | FoldBase::Nothing => {
                let base = group.last().filter(|_| fold_group.base == FoldBase::Value);
                let value = fold(key, base.map(|value| &value[..]), oldest_first, operator);
                value.ok().map(|value| (OperationKind::Put, value))
            }
            FoldBase::Unknown => {
                let combined = combine_all(key, oldest_first, operator?);
                combined.map(|combined| (OperationKind::Merge, combined))
            }
        }
    }

    /// Writes an entry, and its value apart where it belongs there.
    fn add(&mut self, key: &[u8], trailer: u64, stored: &[u8]) -> Result<()> {
        self.writer()?;
        let writer = self.writer.as_mut().expect("made just above");
        match self.values.place(key, trailer, stored)? {
            None => writer.add(key, trailer, stored),
            Some((trailer, stored)) => writer.add(key, trailer, stored),
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
            self.tables
                .shadowed
                .push(std::mem::take(&mut self.shadowed));
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
