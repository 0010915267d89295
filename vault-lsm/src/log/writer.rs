//! Appending to the log.
//!
//! A segment is reserved at its full length, mapped, and filled by copying: a commit costs no system
//! call. A record gets its place and its ordinal under the commit lock ([`LogWriter::reserve`]), and is sealed and
//! copied there by the thread that reserved it ([`Reserved::write`]), beside others that do the same. The log
//! reaches as far as all before it are there: who reserved earlier says so earlier
//! ([`crate::write::turns`]). A record that takes no time to seal is written when it is reserved, unless others are on
//! their way; and so is every record where the file system does not map, at its offset.
//!
//! Segments start small and double up to the configured length, so that a small store stays small.
//!
//! How the pages of a segment are written depends on how often it is synced: [`pages`](super::pages) watches that.

use std::cell::Cell;
use std::sync::Arc;

use vault_core::transform::{BlockTransform, FileKind, HEADER_BYTES, Salt};
use vault_core::vfs::{Claim, File, Syncs, WriteMap};
use vault_core::{Error, Result};

use crate::frame::{self, FRAME_BYTES, record_identity};
use crate::layout::{Env, NewFile};
use crate::log::LOG_VERSION;
use crate::log::pages::Watch;
use crate::log::record::{self, BatchHead, Start};
use crate::log::sync::LogSync;
use crate::store::{sync_failed, write_failed};
use crate::sync;

/// Length of the first segment of an opening, in bytes.
const FIRST_SEGMENT_BYTES: u64 = 1 << 20;
/// Bytes of the segment that a store at rest keeps.
const RESTING_SEGMENT_BYTES: u64 = 64 << 10;
/// Frame, the fields in front of the operations, and what any transform there may be adds.
const OVERHEAD_MAX: usize = FRAME_BYTES + BatchHead::BYTES_MAX + 64;
/// A thread's buffer for sealing records in is kept up to this size.
const BUFFER_BYTES_KEPT: usize = 64 << 10;

/// Makes segments: reserves the number, creates the file, and records it in the manifest.
pub(crate) trait SegmentSource {
    /// A fresh segment of at least `bytes`, known to the manifest, with a number above `after`: the
    /// order of the numbers is the order of the log.
    fn new_segment(&self, bytes: u64, after: u64) -> Result<Segment>;

    /// Hears that a segment takes records from now on, and where it lies in the log.
    fn segment_begun(&self, _: &Segment, _: &Start) {}
}

/// A segment that can be appended to.
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) salt: Salt,
    pub(crate) file: Arc<dyn File>,
    target: Target,
    blocks: Arc<dyn BlockTransform>,
    header_checksum: u32,
    path: std::path::PathBuf,
    capacity: usize,
    /// Records of up to this length are written at once: handing over would take longer.
    quick_bytes: usize,
    /// Payloads are padded to a multiple of this.
    stride: usize,
}

/// How bytes get into the file.
enum Target {
    Map(Box<dyn WriteMap>),
    File,
}

impl Segment {
    /// Creates the file, reserves its space and makes its header durable.
    pub(crate) fn create(env: &Env, number: u64, bytes: u64) -> Result<Self> {
        let NewFile {
            path,
            file,
            blocks,
            salt,
            header_checksum,
        } = env.create_file(FileKind::Log, number, LOG_VERSION)?;
        let made = (|| {
            file.allocate(bytes)
                .map_err(|e| Error::io("reserve space for", &path, e))?;
            let capacity = usize::try_from(bytes)
                .map_err(|e| Error::io("map", &path, std::io::Error::other(e)))?;
            let target = match file.map(capacity) {
                Ok(map) => Target::Map(map),
                Err(e) if e.kind() == std::io::ErrorKind::Unsupported => Target::File,
                Err(e) => return Err(Error::io("map", &path, e)),
            };
            file.sync()
                .map_err(|e| sync_failed(Error::io("sync", &path, e)))?;
            env.sync_directory().map_err(sync_failed)?;
            Ok((target, capacity))
        })();
        // Models are to reach the other way.
        let quick_bytes = if sync::MODELLED {
            0
        } else {
            blocks.quick_bytes()
        };
        let stride = blocks.stride();
        match made {
            Ok((target, capacity)) => Ok(Self {
                number,
                salt,
                file,
                target,
                blocks,
                header_checksum,
                path,
                capacity,
                quick_bytes,
                stride,
            }),
            Err(error) => {
                // Nothing refers to the file yet. What removal leaves behind, the next opening removes.
                let _ = env.fs.remove(&path);
                Err(error)
            }
        }
    }

    /// The epoch of the key that seals it; 0 where there is none.
    pub(crate) fn epoch(&self) -> u32 {
        self.blocks.epoch()
    }

    /// Bytes it can hold, header included.
    pub(crate) const fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    const fn is_mapped(&self) -> bool {
        matches!(self.target, Target::Map(_))
    }

    fn expect(&self, syncs: Syncs) {
        if let Target::Map(map) = &self.target {
            map.expect(syncs);
        }
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let written = match &self.target {
            Target::Map(map) => map.write(offset, bytes),
            Target::File => self.file.write_at(bytes, offset as u64),
        };
        written.map_err(|e| self.not_written(e))
    }

    /// Claims a place for a record in the map.
    fn claim(&self, offset: usize, len: usize) -> Result<Claim> {
        let claim = match &self.target {
            Target::Map(map) => map.claim(offset, len),
            Target::File => Err(std::io::ErrorKind::Unsupported.into()),
        };
        claim.map_err(|e| self.not_written(e))
    }

    fn fill(&self, claim: Claim, bytes: &[u8]) -> Result<()> {
        let filled = match &self.target {
            Target::Map(map) => map.fill(claim, bytes),
            Target::File => Err(std::io::ErrorKind::Unsupported.into()),
        };
        filled.map_err(|e| self.not_written(e))
    }

    fn not_written(&self, error: std::io::Error) -> Error {
        Error::io("write", &self.path, error)
    }

    /// Seals the payload that stands in `buffer` behind room for its frame, and frames it.
    #[inline]
    fn seal(&self, ordinal: u32, buffer: &mut Vec<u8>) -> Result<()> {
        let identity = record_identity(ordinal);
        self.blocks.seal(&identity, buffer, FRAME_BYTES)?;
        let sealed_len = u32::try_from(buffer.len() - FRAME_BYTES)
            .expect("a batch is limited to less than 4 GiB");
        let frame = frame::encode(self.header_checksum, ordinal, sealed_len);
        buffer[..FRAME_BYTES].copy_from_slice(&frame);
        Ok(())
    }
}

/// Where a record went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    /// The log position behind the record: durable once [`LogSync`] has passed it.
    pub(crate) end: u64,
    /// The segment that holds it.
    pub(crate) segment: u64,
    /// Bytes written.
    pub(crate) bytes: u64,
}

/// A record that has its place in the log, and may not be there yet.
pub(crate) struct Reserved {
    pub(crate) appended: Appended,
    unwritten: Option<Unwritten>,
}

/// What the record is still to be made of, beside the operations.
struct Unwritten {
    segment: Arc<Segment>,
    claim: Claim,
    ordinal: u32,
    head: BatchHead,
}

impl Reserved {
    /// Whether the record is there already.
    #[inline]
    pub(crate) const fn is_written(&self) -> bool {
        self.unwritten.is_none()
    }

    /// Writes the record, unless it is there already. Nobody else waits for a lock meanwhile, but those that come
    /// later in the log wait for this.
    ///
    /// # Errors
    /// There is a hole in the log then, behind which nothing will be read back.
    pub(crate) fn write(self, operations: &[u8]) -> Result<()> {
        let Some(record) = self.unwritten else {
            return Ok(());
        };
        with_buffer(|buffer| {
            lay_out(buffer, &record.head, operations);
            record.segment.seal(record.ordinal, buffer)?;
            record.segment.fill(record.claim, buffer)
        })
    }
}

fn lay_out(buffer: &mut Vec<u8>, head: &BatchHead, operations: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(&[0; FRAME_BYTES]);
    record::encode_batch(buffer, head, operations);
}

/// Lends this thread's buffer, in which records are sealed.
#[inline]
fn with_buffer(work: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    thread_local! {
        static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    // Taken out of its place meanwhile: a thread that is ending has none any more, and works on a fresh one.
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    let result = work(&mut buffer);
    if result.is_err() {
        // It may not have been sealed.
        buffer.fill(0);
    }
    if buffer.capacity() <= BUFFER_BYTES_KEPT {
        let _ = BUFFER.try_with(|place| place.set(buffer));
    }
    result
}

/// Appends records. Lives behind the commit lock.
pub(crate) struct LogWriter {
    current: Option<Active>,
    /// What the next segment's start record says of the one before it.
    previous: u64,
    previous_end: u64,
    /// Log position behind the last record that has a place.
    position: u64,
    next_bytes: u64,
    segment_bytes_max: u64,
    sync: Arc<LogSync>,
    watch: Watch,
    /// For records that are written at once.
    buffer: Vec<u8>,
}

struct Active {
    segment: Arc<Segment>,
    /// Log position at which the segment begins.
    base: u64,
    offset: usize,
    ordinal: u32,
}

impl LogWriter {
    /// Continues a log that ends with segment `previous` at offset `previous_end` and at `position`.
    /// The first segment is begun with the first record.
    pub(crate) fn new(
        previous: u64,
        previous_end: u64,
        position: u64,
        segment_bytes_max: u64,
        sync: Arc<LogSync>,
    ) -> Self {
        Self {
            current: None,
            previous,
            previous_end,
            position,
            next_bytes: FIRST_SEGMENT_BYTES.min(segment_bytes_max),
            segment_bytes_max,
            watch: Watch::new(sync.syncs()),
            sync,
            buffer: Vec::new(),
        }
    }

    /// The last segment and the offset at which it ends.
    pub(crate) fn end(&self) -> (u64, u64) {
        match &self.current {
            Some(active) => (active.segment.number, active.offset as u64),
            None => (self.previous, self.previous_end),
        }
    }

    #[cfg(test)]
    pub(crate) fn sync(&self) -> &LogSync {
        &self.sync
    }

    /// Whether a batch of this many bytes fits into the current segment. Where it does not, its reservation begins the
    /// next one, and everything before it must have been written by then.
    pub(crate) fn has_room(&self, operations_bytes: usize) -> bool {
        self.current.as_ref().is_some_and(|active| {
            active.offset + operations_bytes + OVERHEAD_MAX <= active.segment.capacity
        })
    }

    /// Gives a batch its place behind the others, in the next segment if there is [no room](Self::has_room). Where all
    /// before it are written, which `alone` says, it may be written too. On an error nothing of it will be read back.
    pub(crate) fn reserve(
        &mut self,
        source: &dyn SegmentSource,
        first_sequence: u64,
        count: u32,
        operations: &[u8],
        alone: bool,
    ) -> Result<Reserved> {
        if !self.has_room(operations.len()) {
            self.begin_segment(source, operations.len() + OVERHEAD_MAX)?;
        }
        let Some(active) = &mut self.current else {
            unreachable!("a segment was begun");
        };
        if let Some(expected) = self.watch.record(|| self.sync.syncs()) {
            active.segment.expect(expected);
        }
        // Until a sync has reached this segment, its start record, which alone says where the segment
        // lies in the log, may be lost with the power. A position that a record names then would be
        // compared with an unknown one, and a torn tail be taken for damage. So none is named.
        let synced = self.sync.synced();
        let synced = if synced > active.base { synced } else { 0 };
        let head = BatchHead {
            synced,
            first_sequence,
            count,
            padding: 0,
        };
        let head = head.padded(operations, active.segment.stride);
        match active.reserve(&head, operations, alone, &mut self.buffer) {
            Ok((bytes, unwritten)) => {
                self.position += bytes;
                let appended = Appended {
                    end: self.position,
                    segment: active.segment.number,
                    bytes,
                };
                Ok(Reserved {
                    appended,
                    unwritten,
                })
            }
            Err(error) => {
                // The bytes may be there in part. The segment ends before them: its successor says so.
                self.retire();
                Err(write_failed(error))
            }
        }
    }

    /// Ends the current segment; the next record begins another.
    pub(crate) fn retire(&mut self) {
        if let Some(active) = self.current.take() {
            self.previous = active.segment.number;
            self.previous_end = active.offset as u64;
        }
    }

    /// Begins the next segment now, whatever room there is, and gives its number: what is in the ones before can
    /// be let go of once it is in tables.
    pub(crate) fn switch(&mut self, source: &dyn SegmentSource) -> Result<u64> {
        self.begin_segment(source, 0)?;
        Ok(self.end().0)
    }

    /// As [`LogWriter::switch`], to a segment as short as a store at rest needs.
    pub(crate) fn switch_to_short(&mut self, source: &dyn SegmentSource) -> Result<u64> {
        self.next_bytes = RESTING_SEGMENT_BYTES.min(self.segment_bytes_max);
        self.switch(source)
    }

    fn begin_segment(&mut self, source: &dyn SegmentSource, bytes: usize) -> Result<()> {
        const START_BYTES_MAX: usize = 128;
        let wanted = self
            .next_bytes
            .max((HEADER_BYTES + START_BYTES_MAX + bytes) as u64);
        let segment = source.new_segment(wanted, self.end().0)?;
        assert!(segment.number > self.end().0, "log segments go up");
        segment.expect(self.watch.expected());
        self.retire();
        let start = Start {
            previous: self.previous,
            previous_end: self.previous_end,
            base: self.position,
        };
        let mut active = Active {
            segment: Arc::new(segment),
            base: self.position,
            offset: HEADER_BYTES,
            ordinal: 0,
        };
        let mut buffer = vec![0; FRAME_BYTES];
        record::encode_start(&mut buffer, self.sync.synced(), &start);
        let put = active.put(&mut buffer);
        self.position += buffer.len() as u64;
        self.sync.begin_segment(
            active.segment.number,
            Arc::clone(&active.segment.file),
            active.segment.path.clone(),
        );
        self.next_bytes = (self.next_bytes * 2).min(self.segment_bytes_max);
        // Without its start the segment is skipped by readers: the next one again says where the log
        // ends before both. It begins behind this start, which may be there after all; but nobody may
        // come to rely on that, so the log has not grown by it.
        put.map_err(write_failed)?;
        self.sync.appended(self.position);
        source.segment_begun(&active.segment, &start);
        self.current = Some(active);
        Ok(())
    }
}

impl Active {
    /// Gives a record its place and its ordinal, and writes it if that takes no time or there is no map.
    #[inline]
    fn reserve(
        &mut self,
        head: &BatchHead,
        operations: &[u8],
        alone: bool,
        buffer: &mut Vec<u8>,
    ) -> Result<(u64, Option<Unwritten>)> {
        let overhead = self.segment.blocks.overhead();
        let len = FRAME_BYTES + head.payload_len(operations) + overhead;
        if alone && (len <= self.segment.quick_bytes || !self.segment.is_mapped()) {
            lay_out(buffer, head, operations);
            self.put(buffer)?;
            return Ok((len as u64, None));
        }
        // Whatever can fail is to fail before the batch is in memtables.
        self.segment.blocks.ready()?;
        let claim = self.segment.claim(self.offset, len)?;
        let ordinal = self.ordinal;
        self.ordinal += 1;
        self.offset += len;
        let unwritten = Unwritten {
            segment: Arc::clone(&self.segment),
            claim,
            ordinal,
            head: *head,
        };
        Ok((len as u64, Some(unwritten)))
    }

    /// Seals the payload that stands in `buffer` behind room for its frame, and writes both.
    fn put(&mut self, buffer: &mut Vec<u8>) -> Result<()> {
        self.segment.seal(self.ordinal, buffer)?;
        // The ordinal is spent even if writing fails: no two texts are sealed under it.
        self.ordinal += 1;
        self.segment.write(self.offset, buffer)?;
        self.offset += buffer.len();
        Ok(())
    }
}
