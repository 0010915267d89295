//! Writing a table anew, sealed under the keys of the current epoch: the same entries, at the same place.
//!
//! Nothing is decided here. Versions that nobody can see, tombstones that hide nothing and what has expired are copied
//! like all else, so that the place of the table among the others stays what it was; compactions drop them in their own
//! time. Snapshots read from the copy what they read from the table.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use vault_core::transform::FileKind;
use vault_core::{Error, Event, Result};

use super::job::{Claim, Pace, Progress};
use super::output::OutputTables;
use crate::cursor::InternalCursor;
use crate::manifest::Edit;
use crate::memory::Lease;
use crate::store::{Store, sync_failed};
use crate::table::{TableMeta, TableOptions, TableWriter};
use crate::version::{Placed, TableFile};

/// Entries between two looks at whether to stop.
const ENTRIES_PER_TICK: u64 = 512;

impl Claim {
    /// Writes the one table of this claim anew and puts the copy in its place.
    pub(crate) fn rewrite(&self, store: &Arc<Store>, progress: Progress<'_>) -> Result<()> {
        let Some((level, run, file)) = self.first_table().and_then(|number| self.file(number))
        else {
            return Ok(());
        };
        let began = store.env.clock.monotonic();
        let written = self
            .copy(store, file, progress)
            .map_err(|error| store.poison_if_unknown(error))?;
        let keyspace = self.view.keyspace.id;
        let meta = file.meta();
        let mut edits = vec![Edit::RemoveTable {
            keyspace: keyspace.0,
            level: level as u32,
            number: meta.number,
        }];
        edits.extend(written.tables.iter().map(|meta| Edit::AddTable {
            keyspace: keyspace.0,
            level: level as u32,
            run,
            meta: Arc::clone(meta),
        }));
        let files = written.open(store, keyspace)?;
        let placed = files.into_iter().map(|file| Placed { level, run, file });
        self.install(store, &edits, placed.collect())
            .inspect_err(|error| written.discard_after(store, error))?;

        let bytes_written = written.tables.iter().map(|meta| meta.bytes).sum();
        let counters = &store.counters;
        counters.compaction_bytes.fetch_add(bytes_written, Relaxed);
        store.env.emit(&Event::Compacted {
            keyspace,
            output_level: level,
            tables_read: 1,
            tables_written: 1,
            bytes_read: meta.bytes,
            bytes_written,
            elapsed: store.env.clock.monotonic().saturating_sub(began),
            reason: "sealed under an older key",
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
        let mut writer = TableWriter::create(
            &store.table_env,
            &store.env.path(FileKind::Table, number),
            number,
            self.view.keyspace.id,
            &TableOptions::from(&*self.view.options),
            file.meta().created,
        )?;
        if let Err(error) = self.copy_into(store, file, &mut writer, progress) {
            writer.abandon();
            return Err(error);
        }
        let meta = writer.finish()?;
        let same = says_the_same(file.meta(), &meta);
        copy.tables.push(Arc::new(meta));
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
        file: &TableFile,
        writer: &mut TableWriter,
        progress: Progress<'_>,
    ) -> Result<()> {
        let mut pace = Pace::new(store, file.meta().raw_bytes);
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
        let (mut entries, mut bytes) = (0, 0);
        cursor.first()?;
        while cursor.valid() {
            writer.add(cursor.key(), cursor.trailer(), cursor.value())?;
            bytes += (cursor.key().len() + cursor.value().len()) as u64;
            entries += 1;
            if entries % ENTRIES_PER_TICK == 0 {
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

/// Whether two tables say the same of what they hold: the copy is about to take the place of the other.
fn says_the_same(old: &TableMeta, new: &TableMeta) -> bool {
    let content = |meta: &TableMeta| TableMeta {
        number: 0,
        bytes: 0,
        salt: Default::default(),
        ingest_sequence: 0,
        ..meta.clone()
    };
    content(old) == content(new)
}
