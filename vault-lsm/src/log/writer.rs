//! Appending to the log.
//!
//! A segment is reserved at its full length, mapped, and filled by copying: a commit costs no system
//! call. Where the file system does not map, records are written at their offset instead.
//!
//! Segments start small and double up to the configured length, so that a small store stays small.

use std::sync::Arc;

use vault_core::transform::{BlockTransform, FileKind, HEADER_BYTES, Salt};
use vault_core::vfs::{File, WriteMap};
use vault_core::{Error, Result};

use crate::frame::{self, FRAME_BYTES, record_identity};
use crate::layout::{Env, NewFile};
use crate::log::LOG_VERSION;
use crate::log::record::{self, Start};
use crate::log::sync::LogSync;
use crate::store::{sync_failed, write_failed};

/// Length of the first segment of an opening, in bytes.
const FIRST_SEGMENT_BYTES: u64 = 1 << 20;

/// Makes segments: reserves the number, creates the file, and records it in the manifest.
pub(crate) trait SegmentSource {
    /// A fresh segment of at least `bytes`, known to the manifest, with a number above `after`: the
    /// order of the numbers is the order of the log.
    fn new_segment(&self, bytes: u64, after: u64) -> Result<Segment>;
}

/// A segment that can be appended to.
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) salt: Salt,
    file: Arc<dyn File>,
    target: Target,
    blocks: Arc<dyn BlockTransform>,
    header_checksum: u32,
    path: std::path::PathBuf,
    capacity: usize,
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

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.target {
            Target::Map(map) => map.write(offset, bytes),
            Target::File => self.file.write_at(bytes, offset as u64),
        };
        written.map_err(|e| Error::io("write", &self.path, e))
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

/// Appends records. Lives behind the commit lock.
pub(crate) struct LogWriter {
    current: Option<Active>,
    /// What the next segment's start record says of the one before it.
    previous: u64,
    previous_end: u64,
    /// Log position behind the last record.
    position: u64,
    next_bytes: u64,
    segment_bytes_max: u64,
    sync: Arc<LogSync>,
    buffer: Vec<u8>,
}

struct Active {
    segment: Segment,
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

    /// Appends a batch. On an error nothing of it will be read back.
    pub(crate) fn append(
        &mut self,
        source: &dyn SegmentSource,
        first_sequence: u64,
        count: u32,
        operations: &[u8],
    ) -> Result<Appended> {
        // Frame, payload fields at their longest, and a tag of any transform there may be.
        const OVERHEAD_MAX: usize = FRAME_BYTES + 64;
        self.ensure_room(source, operations.len() + OVERHEAD_MAX)?;
        let Some(active) = &mut self.current else {
            unreachable!("ensure_room has begun a segment");
        };
        // Until a sync has reached this segment, its start record, which alone says where the segment
        // lies in the log, may be lost with the power. A position that a record names then would be
        // compared with an unknown one, and a torn tail be taken for damage. So none is named.
        let synced = self.sync.synced();
        let synced = if synced > active.base { synced } else { 0 };
        self.buffer.clear();
        self.buffer.extend_from_slice(&[0; FRAME_BYTES]);
        record::encode_batch(&mut self.buffer, synced, first_sequence, count, operations);
        if let Err(error) = active.put(&mut self.buffer) {
            // The bytes may be there in part. The segment ends before them: its successor says so.
            self.retire();
            return Err(write_failed(error));
        }
        let bytes = self.buffer.len() as u64;
        self.position += bytes;
        self.sync.appended(self.position);
        Ok(Appended {
            end: self.position,
            segment: active.segment.number,
            bytes,
        })
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

    fn ensure_room(&mut self, source: &dyn SegmentSource, bytes: usize) -> Result<()> {
        if let Some(active) = &self.current
            && active.offset + bytes <= active.segment.capacity
        {
            return Ok(());
        }
        self.begin_segment(source, bytes)
    }

    fn begin_segment(&mut self, source: &dyn SegmentSource, bytes: usize) -> Result<()> {
        const START_BYTES_MAX: usize = 128;
        let wanted = self
            .next_bytes
            .max((HEADER_BYTES + START_BYTES_MAX + bytes) as u64);
        let segment = source.new_segment(wanted, self.end().0)?;
        assert!(segment.number > self.end().0, "log segments go up");
        self.retire();
        let start = Start {
            previous: self.previous,
            previous_end: self.previous_end,
            base: self.position,
        };
        let mut active = Active {
            segment,
            base: self.position,
            offset: HEADER_BYTES,
            ordinal: 0,
        };
        self.buffer.clear();
        self.buffer.extend_from_slice(&[0; FRAME_BYTES]);
        record::encode_start(&mut self.buffer, self.sync.synced(), &start);
        let put = active.put(&mut self.buffer);
        self.position += self.buffer.len() as u64;
        self.sync.begin_segment(
            Arc::clone(&active.segment.file),
            active.segment.path.clone(),
        );
        self.next_bytes = (self.next_bytes * 2).min(self.segment_bytes_max);
        // Without its start the segment is skipped by readers: the next one again says where the log
        // ends before both. It begins behind this start, which may be there after all; but nobody may
        // come to rely on that, so the log has not grown by it.
        put.map_err(write_failed)?;
        self.sync.appended(self.position);
        self.current = Some(active);
        Ok(())
    }
}

impl Active {
    /// Seals the payload that stands in `buffer` behind room for its frame, and writes both.
    #[inline]
    fn put(&mut self, buffer: &mut Vec<u8>) -> Result<()> {
        self.segment
            .blocks
            .seal(&record_identity(self.ordinal), buffer, FRAME_BYTES)?;
        let sealed_len = u32::try_from(buffer.len() - FRAME_BYTES)
            .expect("a batch is limited to less than 4 GiB");
        let frame = frame::encode(self.segment.header_checksum, self.ordinal, sealed_len);
        buffer[..FRAME_BYTES].copy_from_slice(&frame);
        // The ordinal is spent even if writing fails: no two texts are sealed under it.
        self.ordinal += 1;
        self.segment.write(self.offset, buffer)?;
        self.offset += buffer.len();
        Ok(())
    }
}
