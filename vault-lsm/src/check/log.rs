//! The log, judged as an opening judges it, and read beyond damage as far as it goes.
//!
//! [`judge`] runs the replay of an opening, so that "the log is sound" means here what it means there.
//! [`prefix`] keeps what stands before damage; [`Segment::read`] reads one segment on its own, with
//! every record of it that opens.

use std::collections::BTreeMap;

use vault_core::batch::{Operation, decode_operation};
use vault_core::codec::Decoder;
use vault_core::transform::{FileKind, HEADER_BYTES};
use vault_core::vfs::{read_up_to, read_whole};
use vault_core::{Error, Result, SequenceNumber};

use super::stock::as_damage;
use crate::frame::{Next, Records};
use crate::internal_key::SEQUENCE_MAX;
use crate::layout::{Env, NewFile};
use crate::log::record::{self, Body, Start};
use crate::log::{LOG_VERSION, Replay, ReplayRequest, ReplayedBatch, replay};
use crate::manifest::{Pointer, State};
use crate::replay::check_follows;

/// Takes the operations of the log, in their order, with their sequence numbers.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&Operation<'_>, SequenceNumber) -> Result<()>;

/// What the log holds.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Contents {
    pub(crate) batches: u64,
    pub(crate) operations: u64,
    pub(crate) last_sequence: SequenceNumber,
}

/// Reads the log as opening the store would, and refuses it where that would.
pub(crate) fn judge(
    env: &Env,
    state: &State,
    pointer: Option<&Pointer>,
    sink: Sink<'_>,
) -> Result<(Contents, Replay)> {
    let segments: Vec<u64> = state.logs.keys().copied().collect();
    let clean_end = pointer
        .map(|pointer| pointer.log_end)
        .filter(|end| end.0 != 0);
    let request = ReplayRequest {
        segments: &segments,
        salts: &state.logs,
        clean_end,
        live: false,
    };
    let mut contents = Contents::default();
    let replay = replay(env, &request, |batch| {
        contents.take(env, state, &batch, sink)
    })
    .map_err(as_damage)?;
    check_whole(env, state, &replay)?;
    Ok((contents, replay))
}

/// Reads what stands before the first damage: the batches that follow one another from the beginning
/// of the log.
pub(crate) fn prefix(env: &Env, state: &State, sink: Sink<'_>) -> Result<Contents> {
    let mut segments: Vec<u64> = Vec::new();
    for (&number, salt) in &state.logs {
        let opened = env.open_file(FileKind::Log, number, LOG_VERSION);
        match opened
            .and_then(|opened| opened.check_salt(salt))
            .map_err(as_damage)
        {
            Ok(()) => segments.push(number),
            Err(Error::Corruption { .. } | Error::Io { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    loop {
        let request = ReplayRequest {
            segments: &segments,
            salts: &state.logs,
            clean_end: None,
            live: true,
        };
        let mut contents = Contents::default();
        let walked = replay(env, &request, |batch| {
            contents.take(env, state, &batch, sink)
        });
        match walked.map_err(as_damage) {
            Ok(_) => return Ok(contents),
            // Nothing was handed on: a segment does not follow the one before it.
            Err(Error::Corruption { .. }) if contents.batches == 0 && segments.len() > 1 => {
                segments.pop();
            }
            Err(Error::Corruption { .. }) => return Ok(contents),
            Err(error) => return Err(error),
        }
    }
}

impl Contents {
    fn take(
        &mut self,
        env: &Env,
        state: &State,
        batch: &ReplayedBatch<'_>,
        sink: Sink<'_>,
    ) -> Result<()> {
        check_follows(env, state, self.last_sequence, batch)?;
        let path = env.path(FileKind::Log, batch.segment);
        let damaged = |problem: &str| Error::corruption(&path, 0, problem);
        // All of it is looked at before any of it is used: a batch is taken whole.
        let mut operations = Vec::new();
        let last = decode_batch(
            batch.first_sequence,
            batch.count,
            batch.operations,
            |op, at| {
                operations.push((*op, at));
            },
        );
        let Some(last) = last else {
            return Err(damaged("a batch holds an operation that makes no sense"));
        };
        let unknown = |id: u32| !state.keyspaces.contains_key(&id) && id >= state.next_keyspace;
        if operations.iter().any(|(op, _)| unknown(op.keyspace.0)) {
            return Err(damaged("a batch names a keyspace that never existed"));
        }
        for (operation, sequence) in &operations {
            sink(operation, *sequence)?;
        }
        self.batches += 1;
        self.operations += operations.len() as u64;
        self.last_sequence = self.last_sequence.max(last);
        Ok(())
    }
}

/// Decodes the operations of a batch. Gives the last sequence number; `None` where the batch makes no
/// sense: then what was handed on must not be used.
fn decode_batch<'a>(
    first_sequence: u64,
    count: u32,
    operations: &'a [u8],
    mut take: impl FnMut(&Operation<'a>, u64),
) -> Option<u64> {
    let end = first_sequence.checked_add(u64::from(count))?;
    if end > SEQUENCE_MAX {
        return None;
    }
    let mut decoder = Decoder::new(operations);
    for sequence in first_sequence..end {
        take(&decode_operation(&mut decoder)?, sequence);
    }
    decoder.is_empty().then(|| end.saturating_sub(1))
}

/// As recovery does: the log must reach as far as the manifest relies on.
fn check_whole(env: &Env, state: &State, replay: &Replay) -> Result<()> {
    let (segment, position) = state.log_synced;
    if replay.last_segment >= segment && (segment == 0 || replay.position >= position) {
        return Ok(());
    }
    let path = env.path(FileKind::Log, segment);
    let (end, last) = (replay.position, replay.last_segment);
    let problem = format!(
        "the log was durable up to position {position}, and ends at {end} in segment {last}"
    );
    Err(Error::corruption(&path, replay.last_end, problem))
}

/// Whether a segment holds anything behind its header.
pub(crate) fn holds_records(env: &Env, number: u64) -> Result<bool> {
    let path = env.path(FileKind::Log, number);
    let mut start = [0; 512];
    let read = env
        .fs
        .open(&path)
        .and_then(|file| read_up_to(&*file, &mut start, HEADER_BYTES as u64))
        .map_err(|e| Error::io("read", &path, e))?;
    Ok(start[..read].iter().any(|&byte| byte != 0))
}

/// Where segments end, learnt while they are read from the last one to the first: what stands behind is of no
/// meaning.
pub(crate) struct Ends(BTreeMap<u64, u64>);

impl Ends {
    pub(crate) fn new(pointer: Option<&Pointer>) -> Self {
        let clean = pointer.map(|pointer| pointer.log_end);
        Self(clean.into_iter().filter(|end| end.0 != 0).collect())
    }

    /// Reads the segment before those that were read so far.
    pub(crate) fn read(&mut self, env: &Env, number: u64, sink: Sink<'_>) -> Result<Segment> {
        let segment = Segment::read(env, number, self.0.get(&number).copied(), sink)?;
        if let Some(start) = segment.start {
            self.0.insert(start.previous, start.previous_end);
        }
        Ok(segment)
    }
}

/// A segment read on its own.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    /// Its start record, if that opens.
    pub(crate) start: Option<Start>,
    /// Batches that open and make sense.
    pub(crate) batches: u64,
    pub(crate) operations: u64,
    /// Bytes that are no zeros and belong to no record that opens.
    pub(crate) bytes_lost: u64,
    /// Where the first of them are.
    pub(crate) broken_at: Option<u64>,
}

impl Segment {
    /// Reads every record up to byte `to` that opens, those behind damage too, and hands their operations on.
    ///
    /// # Errors
    /// Where the file cannot be opened, its header cannot be used, or the sink says so.
    pub(crate) fn read(env: &Env, number: u64, to: Option<u64>, sink: Sink<'_>) -> Result<Self> {
        let NewFile {
            path,
            file,
            blocks,
            header_checksum,
            ..
        } = env
            .open_file(FileKind::Log, number, LOG_VERSION)
            .map_err(as_damage)?;
        let mut bytes = read_whole(&*file).map_err(|e| Error::io("read", &path, e))?;
        if let Some(to) = to {
            bytes.truncate(to as usize);
        }
        let used = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0) + 1;
        let mut records = Records::new(&mut bytes, header_checksum, &*blocks);
        let mut segment = Self::default();
        loop {
            let offset = records.offset() as u64;
            match records.next() {
                Next::Record { payload, .. } => {
                    if !segment.record(payload, sink)? {
                        segment.broken_at.get_or_insert(offset);
                    }
                }
                Next::End => return Ok(segment),
                Next::Broken => {
                    segment.broken_at.get_or_insert(offset);
                    let more = records.resume_behind();
                    let end = if more { records.offset() } else { used };
                    segment.bytes_lost += (end as u64).saturating_sub(offset);
                    if !more {
                        return Ok(segment);
                    }
                }
            }
        }
    }

    /// Takes a record. Gives whether it makes sense.
    fn record(&mut self, payload: &[u8], sink: Sink<'_>) -> Result<bool> {
        let Some(record) = record::decode(payload) else {
            return Ok(false);
        };
        let (first_sequence, count, operations) = match record.body {
            Body::Start(start) => {
                self.start = Some(start);
                return Ok(true);
            }
            Body::Batch {
                first_sequence,
                count,
                operations,
            } => (first_sequence, count, operations),
        };
        let mut decoded = Vec::new();
        let sound = decode_batch(first_sequence, count, operations, |operation, sequence| {
            decoded.push((*operation, sequence));
        });
        if sound.is_none() {
            return Ok(false);
        }
        for (operation, sequence) in &decoded {
            sink(operation, *sequence)?;
        }
        self.batches += 1;
        self.operations += decoded.len() as u64;
        Ok(true)
    }
}
