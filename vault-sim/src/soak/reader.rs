//! Snapshots that are held for a while: what they show stays the same, and fits together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vault_core::random::SeededRandom;
use vault_core::{Clock as _, Engine, KeyRange, Reader, Snapshot};

use super::stage::{Ids, Opened, Stage, told};
use super::{banker, keeper, writer};

/// A snapshot is held no longer than this.
const HELD_MS_MAX: u64 = 2_000;

pub(super) fn work(stage: &Stage, thread: usize) -> Result<(), String> {
    let dice = stage.dice(thread);
    // The highest beat of each writer that this reader has seen.
    let mut beats = BTreeMap::new();
    while !stage.is_over() {
        stage.with_store(thread, "look at a snapshot", |opened| {
            let snapshot = opened.lsm.snapshot().map_err(told("take a snapshot"))?;
            look(stage, opened, &snapshot, &dice, &mut beats)
        })?;
        super::pause(stage, Duration::from_millis(dice.below(5)));
    }
    Ok(())
}

/// Looks at a snapshot, waits, and looks again. The store cannot be closed meanwhile.
fn look(
    stage: &Stage,
    opened: &Opened,
    snapshot: &Arc<dyn Snapshot>,
    dice: &SeededRandom,
    beats: &mut BTreeMap<usize, u64>,
) -> Result<(), String> {
    let ids = opened.ids;
    let keyspace =
        [ids.data, ids.wide, ids.counts, ids.feed, ids.bank, ids.bulk][dice.below(6) as usize];
    banker::check(&**snapshot, opened)?;
    keeper::check_bulk(&**snapshot, ids.bulk)?;
    check_feed(&**snapshot, &ids, stage.settings.threads)?;
    check_beats(stage, opened, &**snapshot, beats)?;
    let range = some_range(dice);
    let now = digest(&**snapshot, keyspace, &range, false)?;
    // Expiries move on while a snapshot stands still, and FIFO drops what is old for snapshots too, so only
    // the others can be compared over time.
    if [ids.data, ids.wide, ids.feed].contains(&keyspace) {
        return Ok(());
    }
    stage
        .clock
        .sleep(Duration::from_millis(if dice.percent(20) {
            dice.below(HELD_MS_MAX)
        } else {
            dice.below(20)
        }));
    for backwards in [true, false] {
        let later = digest(&**snapshot, keyspace, &range, backwards)?;
        if later != now {
            return Err(format!(
                "a snapshot at {} showed {now:?} and then {later:?} (entries, digest) of keyspace {}",
                snapshot.sequence(),
                keyspace.0
            ));
        }
    }
    Ok(())
}

fn some_range(dice: &SeededRandom) -> KeyRange {
    match dice.below(3) {
        0 => KeyRange::all(),
        1 => KeyRange::prefix(&writer::prefix(3 + dice.below(3) as usize)),
        _ => KeyRange::new(writer::key(3, dice.below(500))..),
    }
}

/// Counts and hashes entries, the same in either direction. Each is looked up as well, now and then.
fn digest(
    snapshot: &dyn Reader,
    keyspace: vault_core::KeyspaceId,
    range: &KeyRange,
    backwards: bool,
) -> Result<(u64, u64), String> {
    const LOOKED_UP_EVERY: u64 = 101;
    let scan = snapshot
        .scan(keyspace, range.clone())
        .map_err(told("scan"))?;
    let entries: Box<dyn Iterator<Item = _>> = if backwards {
        Box::new(scan.rev())
    } else {
        Box::new(scan)
    };
    let (mut count, mut sum) = (0, 0_u64);
    for entry in entries {
        let (key, value) = entry.map_err(told("scan"))?;
        let pair = [key.iter(), value.iter()];
        let hash = pair
            .into_iter()
            .flatten()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        sum = sum.wrapping_add(hash);
        count += 1;
        if count % LOOKED_UP_EVERY == 0 {
            // What the scan shows, a lookup shows too, unless it has just expired.
            let found = snapshot.get(keyspace, &key).map_err(told("look up"))?;
            if found.is_some_and(|found| found != value) {
                return Err(format!("{}: scan and lookup differ", key.escape_ascii()));
            }
        }
    }
    Ok((count, sum))
}

/// Each writer counts up, in a batch with what it writes. Nobody ever sees it go back.
fn check_beats(
    stage: &Stage,
    opened: &Opened,
    snapshot: &dyn Reader,
    beats: &mut BTreeMap<usize, u64>,
) -> Result<(), String> {
    for writer in 0..stage.settings.threads {
        let then = writer::beat(snapshot, opened.ids.counts, writer)?;
        let now = writer::beat(&opened.lsm, opened.ids.counts, writer)?;
        let seen = beats.entry(writer).or_insert(0);
        if then < *seen || now < then {
            return Err(format!(
                "the beat of writer {writer} went back: {seen} was seen before, {then} in a snapshot, \
                 {now} after it"
            ));
        }
        *seen = now;
    }
    Ok(())
}

/// What is left of a feed is the end of what each writer put in, without a gap.
fn check_feed(snapshot: &dyn Reader, ids: &Ids, threads: usize) -> Result<(), String> {
    for thread in 0..threads {
        let scan = snapshot
            .scan_prefix(ids.feed, &writer::prefix(thread))
            .map_err(told("scan the feed"))?;
        let mut previous = None;
        for entry in scan {
            let (key, _) = entry.map_err(told("scan the feed"))?;
            let number = writer::number_of(&key).ok_or("a key of nobody's in the feed")?;
            if previous.is_some_and(|previous| number != previous + 1) {
                return Err(format!(
                    "writer {thread} fed {number}, and before it there is {previous:?}"
                ));
            }
            previous = Some(number);
        }
        let last = writer::last_fed(snapshot, ids.counts, thread)?;
        // Of one who has fed nothing for long, nothing may be left.
        if previous.is_some_and(|previous| previous != last) {
            return Err(format!(
                "writer {thread} fed {last} entries, and the newest there is {previous:?}"
            ));
        }
    }
    Ok(())
}
