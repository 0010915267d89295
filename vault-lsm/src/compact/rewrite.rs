//! Writing a table anew, at its place, with the same entries: for the sake of the keys that it is sealed under, or of the
//! blob files that it points into.
//!
//! Nothing is decided here. Versions that nobody can see, tombstones that hide nothing and what has expired are copied
//! like all else, so that the place of the table among the others stays what it was; compactions drop them in their own
//! time. Snapshots read from the copy what they read from the table.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use vault_core::transform::FileKind;
use vault_core::{Error, Event, Result};

use super::job::{Claim, Pace, Progress};
use super::output::BYTES_PER_TICK;
use super::written::OutputTables;
use crate::blob::{Placing, ValueOutput};
use crate::cursor::InternalCursor;
use crate::manifest::Edit;
use crate::memory::Lease;
use crate::store::{Store, sync_failed};
use crate::table::{TableMeta, TableOptions, TableWriter};
use crate::version::{Placed, TableFile};

/// Entries between two looks at whether to stop.
const ENTRIES_PER_TICK: u64 = 512;

/// A table that is being copied.
struct Copying<'a> {
    file: &'a TableFile,
    writer: TableWriter,
    values: ValueOutput<'a>,
}

impl Claim {
    /// Writes the one table of this claim anew, with the values that lie in files of an epoch before `epoch`.
    pub(crate) fn rewrite_in(
        &mut self,
        store: &Arc<Store>,
        epoch: u32,
        progress: Progress<'_>,
    ) -> Result<()> {
        self.leaving = self.view.version.blobs_before(epoch).collect();
        self.rewrite(store, "sealed under an older key", progress)
    }

    /// Writes the one table of this claim anew, with the values that it points to in the blob files that are collected. Where it is
    /// damaged, that is remembered ([`TableFile::is_damaged`]): it would be chosen again and again.
    pub(crate) fn collect(&self, store: &Arc<Store>) -> Result<()> {
        let mut go_on = |_| ControlFlow::Continue(());
        self.rewrite(store, "garbage among large values", &mut go_on)
            .inspect_err(|error| self.note_damage(error))?;
        store.counters.collections.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Remembers that the table of this claim is damaged, if that is what a failure means. Where it is a value, its file has noted it.
    fn note_damage(&self, error: &Error) {
        let blobs = self.view.version.blobs();
        let mut left = blobs.filter(|(file, _)| self.leaving.contains(&file.meta().number));
        if !matches!(error, Error::Corruption { .. }) || left.any(|(file, _)| file.is_damaged()) {
            return;
        }
        if let Some((_, _, file)) = self.first_table().and_then(|number| self.file(number)) {
            file.note_damaged();
        }
    }

    /// Writes the one table of this claim anew and puts the copy in its place.
    fn rewrite(
        &self,
        store: &Arc<Store>,
        reason: &'static str,
        progress: Progress<'_>,
    ) -> Result<()> {
        let Some((level, run, file)) = self.first_table().and_then(|number| self.file(number))
        else {
            return Ok(());
        };
        let began = store.env.clock.monotonic();
        let written = self
            .copy(store, file, progress)
            .map_err(|error| self.view.keyspace.unless_dropped(error))
            .map_err(|error| store.poison_if_unknown(error))?;
        let keyspace = self.view.keyspace.id;
        let meta = file.meta();
        let mut edits = vec![Edit::RemoveTable {
            keyspace: keyspace.0,
            level: level as u32,
            number: meta.number,
        }];
        edits.extend(written.additions(keyspace, level, run));
        let opened = written.open(store, keyspace)?;
        let blobs = opened.blobs_added();
        let files = opened.tables.into_iter();
        let placed = files.map(|file| Placed { level, run, file });
        self.install(store, edits, placed.collect(), blobs)
            .inspect_err(|error| written.discard_after(store, error))?;

        let bytes_written = written.bytes();
        let copied: u64 = written.blobs.iter().map(|meta| meta.value_bytes).sum();
        let counters = &store.counters;
        counters.compaction_bytes.fetch_add(bytes_written, Relaxed);
        store.env.emit(&Event::Compacted {
            keyspace,
            output_level: level,
            tables_read: 1,
            tables_written: 1,
            bytes_read: meta.bytes + copied,
            bytes_written,
            elapsed: store.env.clock.monotonic().saturating_sub(began),
            reason,
        });
        Ok(())
    }

    /// Writes the copy. Where it fails, no file is left behind.
    fn copy(
        &self,
        store: &Arc<Store>,
        file: &TableFile,
        progress: Progress<'_>,
    ) -> Result<OutputTables> {
        let mut copy = OutputTables::begin(store);
        let number = store.manifest()?.next_file_number();
        let placing = Placing {
            from_bytes: None,
            leaving: self.leaving.clone(),
        };
        let mut copying = Copying {
            file,
            writer: TableWriter::create(
                &store.table_env,
                &store.env.path(FileKind::Table, number),
                number,
                self.view.keyspace.id,
                &TableOptions::from(&*self.view.options),
                file.meta().created,
            )?,
            values: ValueOutput::new(store, &self.view, placing),
        };
        let blobs = self
            .copy_into(store, &mut copying, progress)
            .and_then(|()| copying.values.finish());
        copy.blobs = match blobs {
            Ok(blobs) => blobs,
            Err(error) => {
                copying.values.abandon();
                copying.writer.abandon();
                return Err(error);
            }
        };
        let meta = copying
            .writer
            .finish()
            .inspect_err(|_| copy.discard(store))?;
        let same = says_the_same(file.meta(), &meta, &self.leaving);
        copy.tables.push(Arc::new(meta));
        copy.shadowed.push(file.shadowed.load(Relaxed));
        let checked = if same {
            store.env.sync_directory().map_err(sync_failed)
        } else {
            let path = store.env.path(FileKind::Table, file.meta().number);
            let problem = "what is read of this table is not what is known of it";
            Err(Error::corruption(&path, 0, problem))
        };
        checked.inspect_err(|_| copy.discard(store))?;
        Ok(copy)
    }

    fn copy_into(
        &self,
        store: &Arc<Store>,
        copying: &mut Copying<'_>,
        progress: Progress<'_>,
    ) -> Result<()> {
        let Copying {
            file,
            writer,
            values,
        } = copying;
        let blobs = file.meta().blobs.iter();
        let copied = blobs.filter(|blob| self.leaving.contains(&blob.file));
        let copied: u64 = copied.map(|blob| blob.bytes).sum();
        let mut pace = Pace::new(store, file.meta().raw_bytes + copied);
        let mut tick = |bytes: u64| {
            pace.tick(bytes, &self.view)?;
            match progress(pace.progress()) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::Cancelled),
            }
        };
        tick(0)?;
        let lease = Arc::new(Lease::compaction(&store.memory, 1));
        let mut cursor = file.table.scan_cursor().leased(&lease);
        let (mut entries, mut bytes) = (0_u64, 0);
        cursor.first()?;
        while cursor.valid() {
            let (key, trailer, stored) = (cursor.key(), cursor.trailer(), cursor.value());
            match values.place(key, trailer, stored)? {
                None => writer.add(key, trailer, stored)?,
                Some((trailer, stored)) => writer.add(key, trailer, stored)?,
            }
            bytes += (key.len() + stored.len()) as u64 + values.take_copied_bytes();
            entries += 1;
            if entries % ENTRIES_PER_TICK == 0 || bytes >= BYTES_PER_TICK {
                tick(std::mem::take(&mut bytes))?;
            }
            cursor.next()?;
        }
        for tombstone in file.table.range_tombstones() {
            writer.add_range_tombstone(tombstone);
        }
        tick(bytes)
    }
}

/// Whether two tables say the same of what they hold: the copy is about to take the place of the other. Where values of
/// the blob files in `leaving` are is not the same, nor how long the pointers to them are; how many there are is.
fn says_the_same(old: &TableMeta, new: &TableMeta, leaving: &BTreeSet<u64>) -> bool {
    let moves = old.blobs.iter().any(|blob| leaving.contains(&blob.file));
    let content = |meta: &TableMeta| TableMeta {
        number: 0,
        bytes: 0,
        salt: Default::default(),
        ingest_sequence: 0,
        raw_bytes: if moves { 0 } else { meta.raw_bytes },
        blobs: Box::default(),
        ..meta.clone()
    };
    let apart = |meta: &TableMeta| {
        let blobs = meta.blobs.iter();
        blobs.fold((0, 0), |(values, bytes), blob| {
            (values + blob.values, bytes + blob.bytes)
        })
    };
    content(old) == content(new) && apart(old) == apart(new)
}
