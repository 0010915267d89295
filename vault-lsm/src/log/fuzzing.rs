//! What fuzz targets reach of the log. See [`crate::fuzzing`].

use std::fmt;

use vault_core::Result;
use vault_core::transform::FileKind;

use super::reader::{Replay, ReplayRequest, replay};
use super::record::{self, BatchHead, Body, Record};
use crate::fuzzing::{Chained, Seals, memory_env, put_file, stated_identity};
use crate::layout::Env;

/// The payload of a record, decoded.
#[derive(PartialEq, Eq)]
pub struct LogRecord<'a>(Record<'a>);

/// Decodes the payload of a record.
#[must_use]
pub fn log_record(payload: &[u8]) -> Option<LogRecord<'_>> {
    record::decode(payload).map(LogRecord)
}

impl LogRecord<'_> {
    /// The bytes that the writer would have laid out for it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.0.body {
            Body::Start(start) => record::encode_start(&mut out, self.0.synced, start),
            Body::Batch {
                first_sequence,
                count,
                operations,
            } => {
                let head = BatchHead {
                    padding: 0,
                    synced: self.0.synced,
                    first_sequence: *first_sequence,
                    count: *count,
                };
                record::encode_batch(&mut out, &head, operations);
            }
        }
        out
    }

    /// The operations of a batch, with their number and the sequence number of the first.
    #[must_use]
    pub fn operations(&self) -> Option<(u64, u32, &[u8])> {
        match self.0.body {
            Body::Batch {
                first_sequence,
                count,
                operations,
            } => Some((first_sequence, count, operations)),
            Body::Start(_) => None,
        }
    }
}

impl fmt::Debug for LogRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Segments that are ready for reading.
pub struct LogFiles {
    env: Env,
    numbers: Vec<u64>,
    seals: Seals,
}

/// What was read.
#[derive(Debug, Default)]
pub struct LogRead {
    /// Batches: segment, first sequence number, number of operations, bytes.
    pub batches: u64,
    /// Bytes of their operations.
    pub operation_bytes: u64,
    /// Whether sequence numbers only went up.
    pub ascending: bool,
    /// The segments that were there, ascending.
    pub segments: Vec<u64>,
    /// The segments that were read from.
    pub used: Vec<u64>,
    /// Those that are of no use.
    pub unused: Vec<u64>,
    /// Where the log ends: segment and byte.
    pub end: (u64, u64),
    /// Bytes that were cut off.
    pub torn_bytes: u64,
}

impl LogFiles {
    /// Makes segments ready, each under the number that its header states. The first one says which store
    /// they are of.
    #[must_use]
    pub fn new(segments: &[&[u8]], seals: Seals) -> Self {
        let store = segments.first().map_or([0; 16], |s| stated_identity(s).0);
        let (env, fs) = memory_env(store, seals);
        let mut numbers = Vec::new();
        for segment in segments {
            let (_, number) = stated_identity(segment);
            if numbers.contains(&number) {
                continue;
            }
            numbers.push(number);
            let bytes = seals.prepare(segment, Some(Chained::No));
            put_file(&fs, env.path(FileKind::Log, number), &bytes);
        }
        numbers.sort_unstable();
        Self {
            env,
            numbers,
            seals,
        }
    }

    /// Reads them as recovery does.
    ///
    /// # Errors
    /// What the reader says.
    pub fn read(&self, clean_end: Option<(u64, u64)>, live: bool) -> Result<LogRead> {
        debug_assert_eq!(self.env.transform.id(), self.seals.transform().id());
        let request = ReplayRequest {
            segments: &self.numbers,
            salts: &std::collections::BTreeMap::new(),
            clean_end,
            live,
        };
        let (mut next, mut ascending, mut operation_bytes) = (0, true, 0);
        let Replay {
            last_segment,
            last_end,
            used,
            unused,
            batches,
            torn_bytes,
            ..
        } = replay(&self.env, &request, |batch| {
            ascending &= batch.first_sequence >= next;
            next = batch.first_sequence.saturating_add(u64::from(batch.count));
            operation_bytes += batch.operations.len() as u64;
            Ok(())
        })?;
        Ok(LogRead {
            batches,
            operation_bytes,
            ascending,
            segments: self.numbers.clone(),
            used: used.iter().map(|segment| segment.number).collect(),
            unused,
            end: (last_segment, last_end),
            torn_bytes,
        })
    }
}
