//! Reading the log back.
//!
//! Segments are walked in order and each batch handed on. The walk ends at the log's end, at a torn
//! tail, or with [`Error::Corruption`]; `docs/format/log.md` says how they are told apart.

use std::collections::BTreeMap;
use std::path::PathBuf;

use vault_core::transform::{FileKind, HEADER_BYTES, Salt};
use vault_core::vfs::read_beginning;
use vault_core::{Error, Result};

use crate::frame::{self, Records};
use crate::layout::{Env, NewFile};
use crate::log::LOG_VERSION;
use crate::log::record::{self, Body, Record, Start};
use crate::log::records::{Next, SegmentRecords};

/// A batch as the log recorded it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplayedBatch<'a> {
    /// The segment it stands in.
    pub(crate) segment: u64,
    /// Sequence number of its first operation.
    pub(crate) first_sequence: u64,
    /// Number of operations.
    pub(crate) count: u32,
    /// The operations, encoded.
    pub(crate) operations: &'a [u8],
}

/// What to read.
pub(crate) struct ReplayRequest<'a> {
    /// The segments that the manifest knows and still needs, ascending.
    pub(crate) segments: &'a [u64],
    /// Their salts, as far as they are known: another file with the number of one is refused.
    pub(crate) salts: &'a BTreeMap<u64, Salt>,
    /// The last segment and where it ends, where the store was closed cleanly.
    pub(crate) clean_end: Option<(u64, u64)>,
    /// Whether a writer may be appending while we read: then the log ends at the first record that is
    /// not whole, without judgement.
    pub(crate) live: bool,
}

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// The last segment that holds records; 0: none.
    pub(crate) last_segment: u64,
    /// Byte offset at which it ends.
    pub(crate) last_end: u64,
    /// Log position behind the last record.
    pub(crate) position: u64,
    /// The greatest position of which a record says that it was durable.
    pub(crate) synced: u64,
    /// Segments that were read from.
    pub(crate) used: Vec<UsedSegment>,
    /// Segments behind the end, of no use to anybody.
    pub(crate) unused: Vec<u64>,
    /// Batches handed on.
    pub(crate) batches: u64,
    /// Bytes behind the last whole record, cut off.
    pub(crate) torn_bytes: u64,
}

/// A segment that records were read from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UsedSegment {
    pub(crate) number: u64,
    /// Byte offset behind its last record.
    pub(crate) end: u64,
    /// Log position behind its last record.
    pub(crate) position: u64,
}

/// Greatest log position at which a segment can begin: far beyond any, and far from where counting ends.
const POSITION_MAX: u64 = 1 << 62;

/// Reads the segments and hands each batch to `apply`.
pub(crate) fn replay(
    env: &Env,
    request: &ReplayRequest<'_>,
    mut apply: impl FnMut(ReplayedBatch<'_>) -> Result<()>,
) -> Result<Replay> {
    let mut starts = Vec::with_capacity(request.segments.len());
    for &number in request.segments {
        starts.push(peek_start(env, number, request.salts.get(&number))?);
    }
    check_chain(env, request.segments, &starts)?;
    let mut walk = Walk {
        replay: Replay::default(),
        next_sequence: 0,
        broken: None,
    };
    for (i, &number) in request.segments.iter().enumerate() {
        // Where the next segment's start record says that this one ends.
        let successor = starts[i + 1..]
            .iter()
            .flatten()
            .find(|start| start.previous == number);
        let mut end = successor.map(|start| start.previous_end);
        if let Some((clean_segment, clean_end)) = request.clean_end
            && clean_segment == number
        {
            end = Some(clean_end);
        }
        // A later segment follows directly on one before this.
        let skipped = starts[i].is_none()
            && starts[i + 1..]
                .iter()
                .flatten()
                .any(|start| start.previous < number);
        let place = Place {
            number,
            start: starts[i],
            end,
            skipped,
        };
        walk.segment(env, &place, request.live, &mut apply)?;
    }
    walk.finish(request)
}

/// Checks that no segment is missing between the first and the last: each names the one before it.
fn check_chain(env: &Env, segments: &[u64], starts: &[Option<Start>]) -> Result<()> {
    let first = segments.first().copied().unwrap_or(0);
    for (number, start) in segments.iter().zip(starts) {
        let Some(Start { previous, .. }) = *start else {
            continue;
        };
        // What stands before the first segment is not needed any more.
        if previous >= first && (previous >= *number || !segments.contains(&previous)) {
            let path = env.path(FileKind::Log, *number);
            let problem = format!("the segment follows segment {previous}, which is not there");
            return Err(Error::corruption(&path, HEADER_BYTES as u64, problem));
        }
    }
    Ok(())
}

/// Reads the start record of a segment. `None` where there is none that opens.
pub(crate) fn peek_start(env: &Env, number: u64, salt: Option<&Salt>) -> Result<Option<Start>> {
    const PEEK_BYTES: u64 = HEADER_BYTES as u64 + 256;
    let opened = open_segment(env, number)?;
    salt.map_or(Ok(()), |salt| opened.check_salt(salt))?;
    // A look that came back short would make a segment that holds records one that was never begun.
    let mut bytes = read_beginning(&*opened.file, PEEK_BYTES)
        .map_err(|e| Error::io("read", &opened.path, e))?;
    let mut records = Records::new(&mut bytes, opened.header_checksum, &*opened.blocks);
    let frame::Next::Record { payload, .. } = records.next() else {
        return Ok(None);
    };
    Ok(
        record::decode(payload).and_then(|record| match record.body {
            Body::Start(start) => Some(start),
            Body::Batch { .. } => None,
        }),
    )
}

fn open_segment(env: &Env, number: u64) -> Result<NewFile> {
    env.open_file(FileKind::Log, number, LOG_VERSION)
        .map_err(|error| match error {
            Error::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Error::corruption(&path, 0, "this log segment is needed and is missing")
            }
            other => other,
        })
}

/// A segment's place in the log.
struct Place {
    number: u64,
    start: Option<Start>,
    /// Where it ends, if that is recorded.
    end: Option<u64>,
    /// Whether the log goes past it.
    skipped: bool,
}

/// The place where the log stops making sense.
struct Broken {
    path: PathBuf,
    offset: u64,
    position: u64,
    problem: String,
}

struct Walk {
    replay: Replay,
    next_sequence: u64,
    broken: Option<Broken>,
}

impl Walk {
    fn segment(
        &mut self,
        env: &Env,
        place: &Place,
        live: bool,
        apply: &mut impl FnMut(ReplayedBatch<'_>) -> Result<()>,
    ) -> Result<()> {
        let Place {
            number,
            start,
            end,
            skipped,
        } = *place;
        if self.broken.is_some() {
            self.replay.unused.push(number);
            if live {
                return Ok(());
            }
        }
        if skipped {
            // Begun, but its first record could not be written; a later segment took over.
            self.replay.unused.push(number);
            return Ok(());
        }
        let opened = open_segment(env, number)?;
        let mut records = SegmentRecords::new(&opened)?;

        if self.broken.is_none() {
            let problem = if start.is_none() {
                // The log ends with the segment before; nothing of this one counts.
                self.replay.unused.push(number);
                if end.is_none() && matches!(records.next()?, Next::End) {
                    // Reserved and never begun.
                    return Ok(());
                }
                "the record that begins the segment does not open".to_owned()
            } else {
                let problem = self.records_beside_a_writer(&mut records, place, live, apply)?;
                let Some(problem) = problem else {
                    return Ok(());
                };
                problem
            };
            self.replay.torn_bytes += records.rest();
            self.broken = Some(Broken {
                path: opened.path.clone(),
                offset: records.offset(),
                position: self.replay.position,
                problem,
            });
            if live {
                return Ok(());
            }
        }
        self.check_nothing_durable_behind(&mut records)
    }

    /// Hands on the records of a segment. Gives what is wrong where they end too early.
    ///
    /// Whoever reads beside a writer may come to a record while it is copied to its place, and later see one behind it that
    /// says that it was durable. It was whole before that was said, so it is looked at once more: if it opens, all is well,
    /// and the walk goes on with it.
    fn records_beside_a_writer(
        &mut self,
        records: &mut SegmentRecords<'_>,
        place: &Place,
        live: bool,
        apply: &mut impl FnMut(ReplayedBatch<'_>) -> Result<()>,
    ) -> Result<Option<String>> {
        let number = place.number;
        self.replay.last_segment = number;
        loop {
            let problem = self.records(records, number, place.end, apply)?;
            let position = self.replay.position;
            let proof = match &problem {
                Some(Problem::Unopened(_)) if !live => {
                    records.find_from_here(says_durable(position, true))?
                }
                _ => None,
            };
            if proof.is_some() && records.opens_by_now()? {
                continue;
            }
            self.replay.last_end = records.offset();
            self.replay.used.push(UsedSegment {
                number,
                end: self.replay.last_end,
                position,
            });
            return Ok(problem.map(Problem::text));
        }
    }

    /// Hands on the records of a segment up to the first that is none.
    fn records(
        &mut self,
        records: &mut SegmentRecords<'_>,
        number: u64,
        end: Option<u64>,
        apply: &mut impl FnMut(ReplayedBatch<'_>) -> Result<()>,
    ) -> Result<Option<Problem>> {
        let senseless = |text: String| Ok(Some(Problem::Senseless(text)));
        loop {
            let offset = records.offset();
            if end.is_some_and(|end| offset >= end) {
                return Ok(None);
            }
            match records.next()? {
                Next::Record { payload, len } => {
                    let Some(record) = record::decode(payload) else {
                        return senseless("a record that opens makes no sense".to_owned());
                    };
                    self.replay.synced = self.replay.synced.max(record.synced);
                    match record.body {
                        Body::Start(start) => {
                            if start.base > POSITION_MAX {
                                return senseless(format!(
                                    "the segment begins at log position {}, which no log reaches",
                                    start.base
                                ));
                            }
                            if start.base < self.replay.position {
                                return senseless(format!(
                                    "the segment begins at log position {}, before {}",
                                    start.base, self.replay.position
                                ));
                            }
                            self.replay.position = start.base;
                        }
                        Body::Batch {
                            first_sequence,
                            count,
                            operations,
                        } => {
                            if first_sequence < self.next_sequence {
                                return senseless(format!(
                                    "sequence number {first_sequence} follows {}",
                                    self.next_sequence
                                ));
                            }
                            self.next_sequence = first_sequence.saturating_add(u64::from(count));
                            self.replay.batches += 1;
                            apply(ReplayedBatch {
                                segment: number,
                                first_sequence,
                                count,
                                operations,
                            })?;
                        }
                    }
                    self.replay.position = self.replay.position.saturating_add(len as u64);
                }
                Next::End if end.is_none() => return Ok(None),
                Next::End => {
                    let end = end.unwrap_or_default();
                    return Ok(Some(Problem::Unopened(format!(
                        "records end here, {end} was recorded as their end"
                    ))));
                }
                Next::Broken => {
                    let text = "a record does not open".to_owned();
                    return Ok(Some(Problem::Unopened(text)));
                }
            }
        }
    }

    /// Refuses the log if a record behind the broken place says that the place was durable.
    fn check_nothing_durable_behind(&self, records: &mut SegmentRecords<'_>) -> Result<()> {
        let Some(broken) = &self.broken else {
            return Ok(());
        };
        let known = !self.replay.used.is_empty();
        match records.find_from_here(says_durable(broken.position, known))? {
            Some(at) => Err(Error::corruption(
                &broken.path,
                broken.offset,
                format!(
                    "{}, but a record at byte {at} behind it says that it was durable",
                    broken.problem
                ),
            )),
            None => Ok(()),
        }
    }

    fn finish(self, request: &ReplayRequest<'_>) -> Result<Replay> {
        if request.clean_end.is_some()
            && let Some(broken) = &self.broken
        {
            let problem = format!("{}, but the store was closed cleanly", broken.problem);
            return Err(Error::corruption(&broken.path, broken.offset, problem));
        }
        Ok(self.replay)
    }
}

/// What is wrong where records end too early.
enum Problem {
    /// What stands there is no record that opens.
    Unopened(String),
    /// A record opens, and does not say what can be.
    Senseless(String),
}

impl Problem {
    fn text(self) -> String {
        match self {
            Self::Unopened(text) | Self::Senseless(text) => text,
        }
    }
}

/// Whether a record says that the log was durable beyond `position`; `known`: whether that is where the log ends.
///
/// Where not even the first segment began, nobody knows at which position the log ends. A batch names one
/// beyond the beginning of its own segment, or none; the start of a segment may name one from before the
/// log that is left. It proves something where it says that all before it was durable.
fn says_durable(position: u64, known: bool) -> impl FnMut(&[u8]) -> bool {
    let reaches = move |record: &Record<'_>| match &record.body {
        Body::Start(start) => known || record.synced >= start.base,
        Body::Batch { .. } => true,
    };
    move |payload| {
        record::decode(payload).is_some_and(|record| record.synced > position && reaches(&record))
    }
}

#[cfg(test)]
mod tests;
