//! Bulk ingest: sorted data becomes tables without passing through the log and the memtables.
//!
//! The tables are written first, with sequence number 0 in every entry, while writers go on. Then, under the
//! commit lock, the whole gets the next sequence number: it is recorded in the tables' metadata and
//! stands for every entry ([`crate::table`]). Under that lock no memtable may hold anything in the range,
//! or it would be asked before the newer tables: such memtables are flushed first.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vault_core::error::printable;
use vault_core::{Error, Event, KeyspaceId, Result, SequenceNumber};

use crate::blob::{Placing, ValueOutput};
use crate::compact::output::PLAIN_PUT;
use crate::compact::written::OutputTables;
use crate::cursor::InternalCursor;
use crate::internal_key::pack;
use crate::keyspace::{KeyspaceView, WriteBuffer};
use crate::manifest::Edit;
use crate::store::{Store, lock, sync_failed, unknown_keyspace};
use crate::table::{TableMeta, TableOptions, TableWriter};
use crate::version::Placed;
use crate::write::commit::check_sequence;
use vault_core::transform::FileKind;

/// Rounds of flushing what is in the way of an ingest before writers are held up for one.
const ROUNDS_WITH_WRITERS: usize = 2;

/// What an ingest took in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IngestOutcome {
    /// Entries.
    pub entries: u64,
    /// Tables written.
    pub tables: u64,
    /// Bytes of the tables.
    pub bytes: u64,
    /// The sequence number of all entries (that of the latest write where there were none).
    pub sequence: SequenceNumber,
}

/// Takes in pairs with strictly ascending keys.
pub(crate) fn ingest<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    store: &Arc<Store>,
    id: KeyspaceId,
    pairs: impl Iterator<Item = (K, V)>,
) -> Result<IngestOutcome> {
    store.check_writable()?;
    let pinned = store.views.pin();
    let view = pinned.keyspace(id).ok_or_else(|| unknown_keyspace(id))?;
    let view = view.without_memtables(&store.memory);
    drop(pinned);
    let placing = Placing {
        from_bytes: view.options.large_value_bytes,
        ..Placing::default()
    };
    let mut writing = Writing {
        store,
        view: &view,
        writer: None,
        values: ValueOutput::new(store, &view, placing),
        written: OutputTables::begin(store),
    };
    let entries = match writing.write(pairs) {
        Ok(entries) => entries,
        Err(error) => {
            writing.abandon();
            let error = view.keyspace.unless_dropped(error);
            return Err(store.poison_if_unknown(error));
        }
    };
    let written = writing.written;
    if entries == 0 {
        let sequence = store.visible.load(Ordering::Acquire);
        return Ok(IngestOutcome {
            sequence,
            ..IngestOutcome::default()
        });
    }
    let tables = written.tables.len() as u64;
    let bytes = written.bytes();
    let sequence =
        install(store, id, &written).inspect_err(|error| written.discard_after(store, error))?;
    store
        .counters
        .ingest_bytes
        .fetch_add(bytes, Ordering::Relaxed);
    store.env.emit(&Event::Ingested {
        keyspace: id,
        entries,
        bytes,
    });
    crate::compact::shape_changed(store, id);
    Ok(IngestOutcome {
        entries,
        tables,
        bytes,
        sequence,
    })
}

struct Writing<'a> {
    store: &'a Arc<Store>,
    view: &'a KeyspaceView,
    writer: Option<TableWriter>,
    values: ValueOutput<'a>,
    written: OutputTables,
}

impl Writing<'_> {
    fn write<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        pairs: impl Iterator<Item = (K, V)>,
    ) -> Result<u64> {
        let limits = self.store.settings.limits;
        let mut previous: Option<Vec<u8>> = None;
        let mut entries = 0;
        for (key, value) in pairs {
            let (key, value) = (key.as_ref(), value.as_ref());
            limits.check_key(key)?;
            limits.check_value(value)?;
            if let Some(previous) = previous.as_mut() {
                if key <= previous.as_slice() {
                    let (key, previous) = (printable(key), printable(previous));
                    return Err(self.store.env.discreet(Error::UnsortedInput {
                        index: entries,
                        key,
                        previous,
                    }));
                }
                previous.clear();
                previous.extend_from_slice(key);
            } else {
                previous = Some(key.to_vec());
            }
            self.store.check_writable()?;
            self.add(key, value)?;
            entries += 1;
        }
        self.written.blobs = self.values.finish()?;
        self.finish_table()?;
        if entries > 0 {
            self.store.env.sync_directory().map_err(sync_failed)?;
        }
        Ok(entries)
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let full = self
            .writer
            .as_ref()
            .is_some_and(|writer| writer.estimated_bytes() >= self.view.options.table_bytes);
        if full {
            self.finish_table()?;
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let number = self.store.manifest()?.next_file_number();
                none.insert(TableWriter::create(
                    &self.store.table_env,
                    &self.store.env.path(FileKind::Table, number),
                    number,
                    self.view.keyspace.id,
                    &TableOptions::from(&*self.view.options),
                    self.store.env.clock.now(),
                )?)
            }
        };
        let trailer = pack(0, PLAIN_PUT);
        match self.values.place(key, trailer, value)? {
            None => writer.add(key, trailer, value),
            Some((trailer, pointer)) => writer.add(key, trailer, pointer),
        }
    }

    fn finish_table(&mut self) -> Result<()> {
        if let Some(writer) = self.writer.take() {
            self.written.tables.push(Arc::new(writer.finish()?));
        }
        Ok(())
    }

    fn abandon(mut self) {
        if let Some(writer) = self.writer {
            writer.abandon();
        }
        self.values.abandon();
        self.written.discard(self.store);
    }
}

/// Gives the tables their sequence number and makes them part of the store.
fn install(store: &Arc<Store>, id: KeyspaceId, written: &OutputTables) -> Result<SequenceNumber> {
    // Not while a checkpoint takes stock of an earlier moment.
    let _turn = lock(&store.checkpoint_turn);
    let (Some(first), Some(last)) = (written.tables.first(), written.tables.last()) else {
        return Ok(store.visible.load(Ordering::Acquire));
    };
    let (first, last) = (&first.smallest[..], &last.largest[..]);
    let mut rounds = 0;
    loop {
        let commit = store.commit()?;
        let pinned = store.views.pin();
        let view = pinned.keyspace(id).ok_or_else(|| unknown_keyspace(id))?;
        // Whatever is in memory within the range would be asked before the tables: it goes to tables first.
        // Under steady writes that would never end, so after a few rounds the writers wait.
        let mut in_the_way = false;
        for buffer in view.buffers() {
            in_the_way |= overlaps(buffer, first, last)?;
        }
        if in_the_way {
            store.seal(&commit, id);
            let waiting = store
                .views
                .pin()
                .keyspace(id)
                .map(|view| view.sealed.clone());
            let commit = (rounds >= ROUNDS_WITH_WRITERS).then_some(commit);
            rounds += 1;
            crate::flush::wait_until_flushed(store, &waiting.unwrap_or_default())?;
            drop(commit);
            continue;
        }
        let mut commit = commit;
        let sequence = commit.last_sequence + 1;
        check_sequence(sequence)?;
        // Later writes must not outlive the ones before them.
        let position = store.log_sync.position();
        store.sync_log(position)?;
        let run = store.next_run.fetch_add(1, Ordering::Relaxed);
        let tables: Vec<Arc<TableMeta>> = written
            .tables
            .iter()
            .map(|meta| Arc::new(meta.with_sequence(sequence)))
            .collect();
        let mut with_sequence = OutputTables::default();
        with_sequence.tables = tables;
        with_sequence.blobs.clone_from(&written.blobs);
        let opened = with_sequence.open(store, id)?;
        let mut edits = with_sequence.additions(id, 0, run);
        edits.push(Edit::LastSequence(sequence));
        let segment = store.log_current.load(Ordering::Acquire);
        edits.push(Edit::LogSynced { segment, position });
        let mut manifest = store.manifest()?;
        manifest
            .commit(&store.env, &edits)
            .map_err(|error| store.poison_if_unknown(error))?;
        store.update_keyspace(id, |current| {
            let mut next = KeyspaceView::clone(current);
            let blobs = opened.blobs_added();
            let added = opened.tables.into_iter();
            let added = added.map(|file| Placed {
                level: 0,
                run,
                file,
            });
            next.version = Arc::new(current.version.changed(&[], added.collect(), blobs));
            next
        });
        commit.last_sequence = sequence;
        // Before anybody sees what it brings.
        view.keyspace.gaps.clear();
        store.visible.store(sequence, Ordering::Release);
        return Ok(sequence);
    }
}

/// Whether the memtable holds anything about keys from `first` to `last`.
fn overlaps(buffer: &WriteBuffer, first: &[u8], last: &[u8]) -> Result<bool> {
    let mut cursor = buffer.memtable.cursor();
    cursor.seek(first, u64::MAX)?;
    let entries = cursor.valid() && cursor.key() <= last;
    let tombstones = buffer
        .memtable
        .range_tombstones()
        .is_some_and(|tombstones| {
            tombstones
                .fragment_at_or_after(first)
                .is_some_and(|(start, ..)| start <= last)
        });
    Ok(entries || tombstones)
}
