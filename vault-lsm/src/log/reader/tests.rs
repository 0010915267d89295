//! Logs that were cut, damaged, or lost a segment: what comes back, and what is refused.

use std::path::Path;
use std::sync::Arc;

use vault_core::Timestamp;
use vault_core::clock::ManualClock;
use vault_core::random::SeededRandom;
use vault_core::transform::ChecksumTransform;
use vault_core::vfs::{Fault, FaultKind, FileSystem, MemoryFileSystem, OperationClass};

use super::*;
use crate::log::writer::Appended;
use crate::log::{LogSync, LogWriter, Segment, SegmentSource};

/// Appends a record, as a commit does that is alone.
fn append(
    writer: &mut LogWriter,
    source: &Source<'_>,
    first_sequence: u64,
    count: u32,
    operations: &[u8],
) -> Result<Appended> {
    let reserved = writer.reserve(source, first_sequence, count, operations, true)?;
    let appended = reserved.appended;
    reserved.write(operations)?;
    writer.sync().appended(appended.end);
    Ok(appended)
}

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
    let sync = Arc::new(LogSync::new(0, Arc::new(ManualClock::new(Timestamp(0)))));
    let mut writer = LogWriter::new(0, 0, 0, 4096, Arc::clone(&sync));
    let source = Source(env, std::cell::Cell::new(0));
    for i in 0..batches {
        let appended = append(&mut writer, &source, 1 + i, 1, &[i as u8; 100]).unwrap();
        if synced.contains(&i) {
            sync.wait_for(appended.end).unwrap();
        }
    }
    ((1..=source.1.get()).collect(), writer.end())
}

fn read(env: &Env, segments: &[u64], clean_end: Option<(u64, u64)>) -> Result<(Vec<u64>, Replay)> {
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
    let sync = Arc::new(LogSync::new(base, Arc::new(ManualClock::new(Timestamp(0)))));
    let mut writer = LogWriter::new(0, 0, base, 4096, Arc::clone(&sync));
    let source = Source(env, std::cell::Cell::new(0));
    for sequence in 1.. {
        let bytes = [(sequence - 1) as u8; 100];
        let appended = append(&mut writer, &source, sequence, 1, &bytes).unwrap();
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
    let sync = Arc::new(LogSync::new(0, Arc::new(ManualClock::new(Timestamp(0)))));
    let mut writer = LogWriter::new(0, 0, 0, 4096, Arc::clone(&sync));
    let source = Source(&env, std::cell::Cell::new(0));
    let mut append = |sequence: u64| {
        append(
            &mut writer,
            &source,
            sequence,
            1,
            &[(sequence - 1) as u8; 100],
        )
    };
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

/// Several threads write their records at once, each in its place. Where the process is killed, one may be there and
/// those before it not: the log ends at the first that is missing. Nobody was told of what lies behind it.
#[test]
fn a_hole_is_where_the_log_ends() {
    let payload = |sequence: u64| [(sequence - 1) as u8; 100];
    for synced_first in [false, true] {
        let fs = MemoryFileSystem::new();
        let env = env(&fs);
        let sync = Arc::new(LogSync::new(0, Arc::new(ManualClock::new(Timestamp(0)))));
        let mut writer = LogWriter::new(0, 0, 0, 1 << 20, Arc::clone(&sync));
        let source = Source(&env, std::cell::Cell::new(0));
        for sequence in 1..=3 {
            append(&mut writer, &source, sequence, 1, &payload(sequence)).unwrap();
        }
        if synced_first {
            sync.wait_for(sync.position()).unwrap();
        }
        let reserved: Vec<_> = (4..=6)
            .map(|sequence| writer.reserve(&source, sequence, 1, &payload(sequence), false))
            .collect::<Result<_>>()
            .unwrap();
        assert!(sync.position() < reserved[0].appended.end);
        let [first, second, third] = reserved.try_into().ok().unwrap();
        third.write(&payload(6)).unwrap();
        assert_eq!(read(&env, &[1], None).unwrap().0, [1, 2, 3]);
        first.write(&payload(4)).unwrap();
        assert_eq!(read(&env, &[1], None).unwrap().0, [1, 2, 3, 4]);
        second.write(&payload(5)).unwrap();
        assert_eq!(read(&env, &[1], None).unwrap().0, [1, 2, 3, 4, 5, 6]);
    }
}

/// A read-only opening reads a window of the log while a writer is copying a record to its place, and then finds one behind
/// it that says that the half of a record was durable. It was refused as damage, over and over where writers with a slow cipher
/// were busy, and gave up after sixteen attempts. The record is there by then: it is looked at again.
#[test]
fn a_record_that_was_being_written_when_it_was_first_read_is_looked_at_again() {
    const HALF: usize = 40;
    let fs = MemoryFileSystem::new();
    let env = env(&fs);
    let sync = Arc::new(LogSync::new(0, Arc::new(ManualClock::new(Timestamp(0)))));
    let mut writer = LogWriter::new(0, 0, 0, 4096, Arc::clone(&sync));
    let source = Source(&env, std::cell::Cell::new(0));
    let mut ends = Vec::new();
    for i in 0..5 {
        let appended = append(&mut writer, &source, 1 + i, 1, &[i as u8; 100]).unwrap();
        ends.push(writer.end().1 as usize);
        sync.wait_for(appended.end).unwrap();
    }
    drop(writer);
    let path = env.path(FileKind::Log, 1);
    let written = fs.read_file(&path).unwrap();
    // As it was when the second of five was on its way, and the others were not.
    let mut before = written.clone();
    before[ends[0] + HALF..].fill(0);
    let read_while = |repaired: &[u8]| {
        fs.write_file(&path, &before).unwrap();
        let mut seen = Vec::new();
        let request = ReplayRequest {
            segments: &[1],
            salts: &BTreeMap::new(),
            clean_end: None,
            live: false,
        };
        let replay = replay(&env, &request, |batch| {
            if seen.is_empty() {
                // The window with the half of the second was read already.
                fs.write_file(&path, repaired).unwrap();
            }
            seen.push(batch.first_sequence);
            Ok(())
        });
        replay.map(|replay| (seen, replay.last_end))
    };
    assert_eq!(
        read_while(&written).unwrap(),
        (vec![1, 2, 3, 4, 5], ends[4] as u64)
    );
    // One that is still broken then is damage as ever.
    let mut damaged = written.clone();
    damaged[ends[0] + HALF] ^= 1;
    let error = read_while(&damaged).unwrap_err();
    assert!(matches!(error, Error::Corruption { .. }), "{error}");
}
