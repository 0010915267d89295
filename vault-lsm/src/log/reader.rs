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
fn peek_start(env: &Env, number: u64, salt: Option<&Salt>) -> Result<Option<Start>> {
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
                self.replay.last_segment = number;
                let problem = self.records(&mut records, number, end, apply)?;
                self.replay.last_end = records.offset();
                self.replay.used.push(UsedSegment {
                    number,
                    end: self.replay.last_end,
                    position: self.replay.position,
                });
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
    fn records(
        &mut self,
        records: &mut SegmentRecords<'_>,
        number: u64,
        end: Option<u64>,
        apply: &mut impl FnMut(ReplayedBatch<'_>) -> Result<()>,
    ) -> Result<Option<String>> {
        loop {
            let offset = records.offset();
            if end.is_some_and(|end| offset >= end) {
                return Ok(None);
            }
            match records.next()? {
                Next::Record { payload, len } => {
                    let Some(record) = record::decode(payload) else {
                        return Ok(Some("a record that opens makes no sense".to_owned()));
                    };
                    self.replay.synced = self.replay.synced.max(record.synced);
                    match record.body {
                        Body::Start(start) => {
                            if start.base > POSITION_MAX {
                                return Ok(Some(format!(
                                    "the segment begins at log position {}, which no log reaches",
                                    start.base
                                )));
                            }
                            if start.base < self.replay.position {
                                return Ok(Some(format!(
                                    "the segment begins at log position {}, before {}",
                                    start.base, self.replay.position
                                )));
                            }
                            self.replay.position = start.base;
                        }
                        Body::Batch {
                            first_sequence,
                            count,
                            operations,
                        } => {
                            if first_sequence < self.next_sequence {
                                return Ok(Some(format!(
                                    "sequence number {first_sequence} follows {}",
                                    self.next_sequence
                                )));
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
                    return Ok(Some(format!(
                        "records end here, {end} was recorded as their end"
                    )));
                }
                Next::Broken => return Ok(Some("a record does not open".to_owned())),
            }
        }
    }

    /// Refuses the log if a record behind the broken place says that the place was durable.
    fn check_nothing_durable_behind(&self, records: &mut SegmentRecords<'_>) -> Result<()> {
        let Some(broken) = &self.broken else {
            return Ok(());
        };
        // Where not even the first segment began, nobody knows at which position the log ends. A batch names one
        // beyond the beginning of its own segment, or none; the start of a segment may name one from before the
        // log that is left. It proves something where it says that all before it was durable.
        let known = !self.replay.used.is_empty();
        let reaches = |record: &Record<'_>| match &record.body {
            Body::Start(start) => known || record.synced >= start.base,
            Body::Batch { .. } => true,
        };
        let durable = |payload: &[u8]| {
            record::decode(payload)
                .is_some_and(|record| record.synced > broken.position && reaches(&record))
        };
        match records.find_from_here(durable)? {
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use vault_core::Timestamp;
    use vault_core::clock::ManualClock;
    use vault_core::random::SeededRandom;
    use vault_core::transform::ChecksumTransform;
    use vault_core::vfs::{Fault, FaultKind, FileSystem, MemoryFileSystem, OperationClass};

    use super::*;
    use crate::log::{LogSync, LogWriter, Segment, SegmentSource};

    struct Source<'a>(&'a Env, std::cell::Cell<u64>);

    impl SegmentSource for Source<'_> {
        fn new_segment(&self, bytes: u64, _: u64) -> Result<Segment> {
            self.1.set(self.1.get() + 1);
            Segment::create(self.0, self.1.get(), bytes)
        }
    }

    fn env(fs: &MemoryFileSystem) -> Env {
        fs.create_dir_all(Path::new("/s")).unwrap();
        reopened(fs)
    }

    fn reopened(fs: &MemoryFileSystem) -> Env {
        Env {
            directory: "/s".into(),
            store: [1; 16],
            fs: Arc::new(fs.clone()),
            clock: Arc::new(ManualClock::new(Timestamp(1))),
            random: Arc::new(SeededRandom::new(1)),
            transform: Arc::new(ChecksumTransform),
            listener: None,
            listener_panics: Arc::default(),
        }
    }

    /// Writes `batches` of 100 bytes into segments of 4 KiB; syncs after those in `synced`.
    fn write(env: &Env, batches: u64, synced: &[u64]) -> (Vec<u64>, (u64, u64)) {
        let sync = Arc::new(LogSync::new(0));
        let mut writer = LogWriter::new(0, 0, 0, 4096, Arc::clone(&sync));
        let source = Source(env, std::cell::Cell::new(0));
        for i in 0..batches {
            let appended = writer.append(&source, 1 + i, 1, &[i as u8; 100]).unwrap();
            if synced.contains(&i) {
                sync.wait_for(appended.end).unwrap();
            }
        }
        ((1..=source.1.get()).collect(), writer.end())
    }

    fn read(
        env: &Env,
        segments: &[u64],
        clean_end: Option<(u64, u64)>,
    ) -> Result<(Vec<u64>, Replay)> {
        let mut seen = Vec::new();
        let request = ReplayRequest {
            segments,
            salts: &BTreeMap::new(),
            clean_end,
            live: false,
        };
        let replay = replay(env, &request, |batch| {
            assert_eq!(batch.operations, [(batch.first_sequence - 1) as u8; 100]);
            seen.push(batch.first_sequence);
            Ok(())
        })?;
        Ok((seen, replay))
    }

    #[test]
    fn batches_come_back_across_segments() {
        let fs = MemoryFileSystem::new();
        let env = env(&fs);
        let (segments, end) = write(&env, 100, &[]);
        assert!(segments.len() > 2);
        let (seen, replay) = read(&env, &segments, Some(end)).unwrap();
        assert_eq!(seen, (1..=100).collect::<Vec<_>>());
        assert_eq!((replay.last_segment, replay.last_end), end);
        assert_eq!(replay.torn_bytes, 0);
    }

    #[test]
    fn an_unsynced_tail_is_cut_and_a_synced_middle_is_refused() {
        let fs = MemoryFileSystem::new();
        let env = env(&fs);
        let (segments, _) = write(&env, 100, &[80]);
        let path = env.path(FileKind::Log, segments[0]);
        let mut bytes = fs.read_file(&path).unwrap();
        bytes[300] ^= 1;
        fs.write_file(&path, &bytes).unwrap();
        let error = read(&env, &segments, None).unwrap_err();
        assert!(matches!(error, Error::Corruption { .. }), "{error}");

        let fs = MemoryFileSystem::new();
        let env = self::env(&fs);
        let (segments, end) = write(&env, 100, &[]);
        let path = env.path(FileKind::Log, segments[1]);
        let mut bytes = fs.read_file(&path).unwrap();
        bytes[1000] ^= 1;
        fs.write_file(&path, &bytes).unwrap();
        let (seen, replay) = read(&env, &segments, None).unwrap();
        assert!(seen.len() < 100 && seen.len() > 20);
        assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>());
        assert!(replay.torn_bytes > 0 && !replay.unused.is_empty());
        // The same damage in a store that was closed cleanly is never taken for a torn tail.
        assert!(matches!(
            read(&env, &segments, Some(end)),
            Err(Error::Corruption { .. })
        ));
    }

    /// Fills a segment that begins at position `base`, and writes the first record of the next one. Gives the path of
    /// the first. With `durable`, each of its records is.
    fn fill_a_segment(env: &Env, base: u64, durable: bool) -> PathBuf {
        let sync = Arc::new(LogSync::new(base));
        let mut writer = LogWriter::new(0, 0, base, 4096, Arc::clone(&sync));
        let source = Source(env, std::cell::Cell::new(0));
        for sequence in 1.. {
            let bytes = [(sequence - 1) as u8; 100];
            let appended = writer.append(&source, sequence, 1, &bytes).unwrap();
            if appended.segment > 1 {
                break;
            }
            if durable {
                sync.wait_for(appended.end).unwrap();
            }
        }
        env.path(FileKind::Log, 1)
    }

    /// The last record of a full segment was durable, and the record that begins the next segment was alone in
    /// saying so. The search for such a record began a byte behind the beginning of each segment, past just that
    /// one: the damage passed for a torn tail, and a durable write was gone without an error.
    #[test]
    fn the_start_of_the_next_segment_says_what_was_durable() {
        let fs = MemoryFileSystem::new();
        let env = env(&fs);
        let path = fill_a_segment(&env, 0, true);
        let mut bytes = fs.read_file(&path).unwrap();
        let last = bytes.iter().rposition(|&byte| byte != 0).unwrap();
        bytes[last] ^= 1;
        fs.write_file(&path, &bytes).unwrap();
        let error = read(&env, &[1, 2], None).unwrap_err();
        assert!(matches!(error, Error::Corruption { .. }), "{error}");
    }

    /// Of a log whose older segments had been let go of, the first that was left had lost its beginning, and the next
    /// one named a position from before both: all that had ever been synced. With the end of the log unknown, the
    /// unsynced tail would pass for damage.
    #[test]
    fn a_position_from_before_the_log_that_is_left_proves_nothing() {
        let fs = MemoryFileSystem::new();
        let env = env(&fs);
        let path = fill_a_segment(&env, 10_000, false);
        let mut bytes = fs.read_file(&path).unwrap();
        bytes[HEADER_BYTES..512].fill(0);
        fs.write_file(&path, &bytes).unwrap();
        let (seen, replay) = read(&env, &[1, 2], None).unwrap();
        assert!(seen.is_empty() && replay.unused == [1, 2], "{replay:?}");
    }

    #[test]
    fn a_missing_segment_is_refused() {
        let fs = MemoryFileSystem::new();
        let env = env(&fs);
        let (segments, _) = write(&env, 100, &[]);
        fs.remove(&env.path(FileKind::Log, segments[1])).unwrap();
        assert!(matches!(
            read(&env, &segments, None),
            Err(Error::Corruption { .. })
        ));
    }

    /// A full disk cut a record short, and then kept the next segment from getting its start record. The
    /// one after that named the vain one as its predecessor, so that nothing said any more where the log
    /// ended before both: the cut record passed for damage, and durable writes behind it were lost.
    #[test]
    fn a_segment_begun_in_vain_does_not_hide_where_the_log_goes_on() {
        let fs = MemoryFileSystem::new();
        let env = env(&fs);
        let sync = Arc::new(LogSync::new(0));
        let mut writer = LogWriter::new(0, 0, 0, 4096, Arc::clone(&sync));
        let source = Source(&env, std::cell::Cell::new(0));
        let mut append =
            |sequence: u64| writer.append(&source, sequence, 1, &[(sequence - 1) as u8; 100]);
        append(1).unwrap();
        let first = env.path(FileKind::Log, 1);
        let full = FaultKind::Error(std::io::ErrorKind::StorageFull);
        fs.inject(Fault::new(OperationClass::Write, full).on_path("000001.log"));
        // Its header gets through, its start record does not.
        fs.inject(
            Fault::new(OperationClass::Write, full)
                .on_path("000002.log")
                .after(1),
        );
        for _ in 0..2 {
            let error = append(2).unwrap_err();
            assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        }
        let appended = append(2).unwrap();
        assert_eq!(appended.segment, 3);
        sync.wait_for(appended.end).unwrap();
        append(3).unwrap();

        // What of the cut record had reached the file.
        let mut bytes = fs.read_file(&first).unwrap();
        let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
        bytes[end + 40] = 7;
        let after = fs.kill();
        after.write_file(&first, &bytes).unwrap();
        let (seen, replay) = read(&reopened(&after), &[1, 2, 3], None).unwrap();
        assert_eq!(seen, [1, 2, 3]);
        assert_eq!(replay.unused, [2]);
    }

    /// A segment that was made ready in the background once came into use behind one with a higher
    /// number. Segments were taken for older than they were, and removed while still needed: the
    /// writes in them were gone after the next opening.
    #[test]
    fn the_order_of_segments_is_that_of_their_numbers() {
        let fs = MemoryFileSystem::new();
        let env = env(&fs);
        let (segments, end) = write(&env, 100, &[]);
        // Without one in between, the chain shows it, even where nothing was ever synced.
        let gap: Vec<u64> = segments
            .iter()
            .copied()
            .filter(|&number| number != 2)
            .collect();
        assert!(matches!(
            read(&env, &gap, None),
            Err(Error::Corruption { .. })
        ));
        // Old segments that nobody needs may be gone.
        let (seen, _) = read(&env, &segments[1..], Some(end)).unwrap();
        assert!(seen.len() < 100 && seen.last() == Some(&100));
    }
}
