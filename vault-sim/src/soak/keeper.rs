//! The one who keeps the store: flushes, compacts, makes checkpoints, ingests, creates and drops keyspaces,
//! and now and then stops everybody, compares the directory with what the store names, closes it and opens
//! it again.

use std::ops::ControlFlow;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vault_core::random::SeededRandom;
use vault_core::{
    Clock as _, Engine, Error, KeyRange, KeyspaceId, KeyspaceOptions, Reader, WriteOptions,
};
use vault_lsm::check::{VerifyOptions, verify};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions};

use super::stage::{Opened, Stage, steady_names, told};
use super::{banker, directory, secrecy};

/// Entries of a load.
const LOAD_ENTRIES: u32 = 2_000;
/// The least work there is for compactions before the space is judged, in bytes.
const SPACE_SLACK_BYTES: u64 = 32 << 20;

pub(super) fn work(stage: &Stage, thread: usize) -> Result<(), String> {
    let dice = stage.dice(thread);
    let mut reopened = stage.clock.monotonic();
    while !stage.is_over() {
        let kinds = if stage.secrecy.is_encrypted() { 12 } else { 8 };
        match dice.below(kinds) {
            0 => stage.with_store(thread, "flush", |opened| flush(opened, &dice))?,
            1 => stage.with_store(thread, "compact", |opened| compact(opened, &dice))?,
            2 => stage.with_store(thread, "checkpoint", |opened| checkpoint(stage, opened))?,
            3 => stage.with_store(thread, "ingest", |opened| ingest(stage, opened))?,
            4 => stage.with_store(thread, "create and drop a keyspace", |opened| {
                come_and_go(opened, &dice)
            })?,
            5 => stage.with_store(thread, "explain space", |opened| {
                opened
                    .lsm
                    .explain_space()
                    .map(drop)
                    .map_err(told("explain space"))
            })?,
            6 => stage.with_store(thread, "sync", |opened| {
                opened.lsm.sync().map_err(told("sync"))
            })?,
            8 => stage.with_store(thread, "rotate", secrecy::rotate)?,
            9 => stage.with_store(thread, "finish a rotation", |opened| {
                secrecy::finish_rotation(&opened.lsm)
            })?,
            10 => stage.with_store(thread, "change the secret", |opened| {
                secrecy::change_secret(stage, opened)
            })?,
            11 => {
                secrecy::lock_and_unlock(stage, thread)?;
                None
            }
            _ => None,
        };
        let now = stage.clock.monotonic();
        if now.saturating_sub(reopened) >= stage.settings.reopen_every {
            reopen(stage, thread)?;
            reopened = stage.clock.monotonic();
        }
        super::pause(stage, Duration::from_millis(dice.below(200)));
    }
    Ok(())
}

fn some_keyspace(opened: &Opened, dice: &SeededRandom) -> KeyspaceId {
    let ids = opened.ids;
    [ids.data, ids.wide, ids.counts, ids.feed, ids.bank, ids.bulk][dice.below(6) as usize]
}

fn flush(opened: &Opened, dice: &SeededRandom) -> Result<(), String> {
    let which = dice.percent(70).then(|| some_keyspace(opened, dice));
    opened.lsm.flush(which).map_err(told("flush"))
}

/// Compacts a range, and sometimes changes its mind.
fn compact(opened: &Opened, dice: &SeededRandom) -> Result<(), String> {
    let range = if dice.percent(50) {
        KeyRange::all()
    } else {
        KeyRange::prefix(&super::writer::prefix(dice.below(8) as usize))
    };
    let patience = dice.below(20);
    let mut seen = 0;
    let outcome = opened
        .lsm
        .compact(some_keyspace(opened, dice), range, &mut |_| {
            seen += 1;
            if patience == 0 && seen > 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
    match outcome {
        Ok(_) => Ok(()),
        Err(Error::Cancelled) if patience == 0 => Ok(()),
        Err(error) => Err(told("compact")(error)),
    }
}

/// Makes a checkpoint, opens it, adds the money up, and removes it.
fn checkpoint(stage: &Stage, opened: &Opened) -> Result<(), String> {
    let target = stage.settings.directory.join("checkpoint");
    let outcome = opened
        .lsm
        .checkpoint(&target)
        .map_err(told("make a checkpoint"))?;
    // With nobody at work in it, what it holds stands still.
    let options = stage.secrecy.protect(LsmOptions::default());
    let options = options.background(BackgroundWork::Manual);
    let copy =
        Lsm::open(&target, options.cache_bytes(1 << 20)).map_err(told("open the checkpoint"))?;
    if copy.latest_sequence() != outcome.sequence {
        return Err(format!(
            "a checkpoint at {} opens at {}",
            outcome.sequence,
            copy.latest_sequence()
        ));
    }
    banker::check_in(&copy, opened.ids.bank)?;
    check_bulk(&copy, opened.ids.bulk)?;
    let stats = copy.stats().map_err(told("ask the checkpoint"))?;
    let encrypted = stage.secrecy.is_encrypted();
    directory::compare(&target, &stats, encrypted, "after a checkpoint")?;
    copy.close().map_err(told("close the checkpoint"))?;
    drop(copy);
    directory::remove_tree(&target).map_err(|e| format!("remove the checkpoint: {e}"))
}

/// Takes in a load: the same keys each time, each with the number of the load.
fn ingest(stage: &Stage, opened: &Opened) -> Result<(), String> {
    let load = stage.load.fetch_add(1, Ordering::AcqRel) + 1;
    let pairs = (0..LOAD_ENTRIES).map(|number| (number.to_be_bytes(), load.to_be_bytes()));
    let outcome = opened
        .lsm
        .ingest(opened.ids.bulk, pairs)
        .map_err(told("ingest"))?;
    if outcome.entries != u64::from(LOAD_ENTRIES) {
        return Err(format!(
            "{} entries of {LOAD_ENTRIES} were taken in",
            outcome.entries
        ));
    }
    check_bulk(&opened.lsm, opened.ids.bulk)
}

/// Checks that what a reader sees is one load, whole, or none.
pub(super) fn check_bulk(reader: &dyn Reader, bulk: KeyspaceId) -> Result<(), String> {
    let (mut loads, mut count) = (Vec::new(), 0);
    for entry in reader
        .scan(bulk, KeyRange::all())
        .map_err(told("scan the bulk"))?
    {
        let (_, value) = entry.map_err(told("scan the bulk"))?;
        if loads.last() != Some(&value) {
            loads.push(value);
        }
        count += 1;
    }
    if loads.len() > 1 || (count != 0 && count != LOAD_ENTRIES) {
        return Err(format!("{count} entries of {} loads", loads.len()));
    }
    Ok(())
}

/// A keyspace that comes, is written, and goes while it is flushed.
fn come_and_go(opened: &Opened, dice: &SeededRandom) -> Result<(), String> {
    let lsm = &opened.lsm;
    let options = KeyspaceOptions {
        write_buffer_bytes: 64 << 10,
        table_bytes: 64 << 10,
        large_value_bytes: Some(100),
        ..KeyspaceOptions::default()
    };
    let name = format!("passing-{}", dice.below(4));
    let id = lsm
        .create_keyspace(&name, &options)
        .map_err(told("create a keyspace"))?;
    let value = [b'v'; 200];
    for number in 0..dice.below(2_000) {
        lsm.put(id, &number.to_be_bytes(), &value, &WriteOptions::OS)
            .map_err(told("fill a passing keyspace"))?;
    }
    if dice.percent(30) {
        lsm.flush(Some(id))
            .map_err(told("flush a passing keyspace"))?;
    }
    if dice.percent(20) {
        // It stays until a next time, over reopenings too.
        return Ok(());
    }
    lsm.drop_keyspace(id).map_err(told("drop a keyspace"))?;
    match lsm.get(id, b"k") {
        Err(Error::UnknownKeyspace { .. }) => Ok(()),
        other => Err(format!("a dropped keyspace answers {other:?}")),
    }
}

/// Stops everybody, checks everything that can be checked while nothing moves, closes and opens again.
fn reopen(stage: &Stage, thread: usize) -> Result<(), String> {
    let waiting = stage.doing(thread, "wait until nobody is at work");
    let mut cell = stage.store.write().unwrap_or_else(PoisonError::into_inner);
    drop(waiting);
    let Some(opened) = cell.take() else {
        return Ok(());
    };
    let epoch = opened.epoch;
    close(stage, thread, opened)?;
    let _doing = stage.doing(thread, "open again");
    let opened = stage.open_again(epoch + 1)?;
    banker::check(&opened.lsm, &opened)?;
    check_bulk(&opened.lsm, opened.ids.bulk)?;
    *cell = Some(opened);
    Ok(())
}

fn close(stage: &Stage, thread: usize, opened: Opened) -> Result<(), String> {
    let lsm = &opened.lsm;
    let encrypted = stage.secrecy.is_encrypted();
    let doing = stage.doing(thread, "settle");
    if encrypted {
        // It would go on while files are compared.
        secrecy::finish_rotation(lsm)?;
    }
    lsm.settle().map_err(told("settle"))?;
    drop(doing);
    let doing = stage.doing(thread, "check what stands still");
    let stats = lsm.stats().map_err(told("ask for statistics"))?;
    directory::compare(&stage.directory, &stats, encrypted, "when nothing moves")?;
    if (
        stats.snapshots_open,
        stats.listener_panics,
        stats.background.failures,
    ) != (0, 0, 0)
    {
        return Err(format!(
            "{} snapshots are open, {} background jobs failed",
            stats.snapshots_open, stats.background.failures
        ));
    }
    check_space(lsm)?;
    read_everything(lsm)?;
    drop(doing);
    let _doing = stage.doing(thread, "close");
    lsm.close().map_err(told("close"))?;
    drop(opened);
    directory::compare(&stage.directory, &stats, encrypted, "after closing")?;
    verify_everything(stage)
}

/// Holds everything in the directory against everything else: blocks, filters, fences, counts, manifest, log.
fn verify_everything(stage: &Stage) -> Result<(), String> {
    let options = stage.secrecy.protect(LsmOptions::default());
    let all = VerifyOptions::default();
    let mut go_on = |_: &_| ControlFlow::Continue(());
    let report = verify(&stage.directory, &options, &all, &mut go_on).map_err(told("verify"))?;
    match report.findings.first() {
        None => Ok(()),
        Some(finding) => Err(format!(
            "verification found {} things wrong with the closed store, first: {finding}",
            report.findings.len()
        )),
    }
}

/// What is dead takes no more room than compactions are meant to leave it.
fn check_space(lsm: &Lsm) -> Result<(), String> {
    let space = lsm.explain_space().map_err(told("explain space"))?;
    let tables: u64 = space
        .keyspaces
        .iter()
        .map(|keyspace| keyspace.table_bytes + keyspace.blob_bytes)
        .sum();
    if tables > 4 * space.live_bytes + SPACE_SLACK_BYTES {
        return Err(format!(
            "{tables} bytes of tables and blob files hold {} that are alive",
            space.live_bytes
        ));
    }
    Ok(())
}

/// Reads every block of every table, both ways, so that each is checked.
fn read_everything(lsm: &Lsm) -> Result<(), String> {
    let keyspaces = lsm.keyspaces().map_err(told("list the keyspaces"))?;
    let names: Vec<_> = keyspaces.iter().map(|info| info.name.as_str()).collect();
    if let Some(missing) = steady_names().iter().find(|name| !names.contains(name)) {
        return Err(format!("keyspace {missing:?} is gone"));
    }
    for info in &keyspaces {
        let scan = || lsm.scan(info.id, KeyRange::all()).map_err(told("scan"));
        let (mut forwards, mut backwards) = (0_u64, 0_u64);
        for entry in scan()? {
            forwards += entry.map(|_| 1).map_err(told("read everything"))?;
        }
        for entry in scan()?.rev() {
            backwards += entry.map(|_| 1).map_err(told("read everything"))?;
        }
        // Something may expire in between.
        if backwards > forwards {
            return Err(format!(
                "{}: {forwards} entries, {backwards} backwards",
                info.name
            ));
        }
    }
    Ok(())
}

/// At the end: everything once more, and nothing is opened again.
pub(super) fn take_leave(stage: &Stage) -> Result<(), String> {
    let taken = {
        let mut cell = stage.store.write().unwrap_or_else(PoisonError::into_inner);
        let taken = cell.take();
        if let Some(opened) = &taken {
            stage.note_epoch(opened.epoch);
        }
        taken
    };
    match taken {
        Some(opened) => close(stage, stage.settings.threads, opened),
        None => Ok(()),
    }
}
