//! Letting writes in, or holding them up.
//!
//! Three things can be behind: memtables wait to be flushed, level 0 has many runs, or much is waiting to
//! be compacted. Each keyspace's policy turns the latter two into a *pressure* (0 at rest, 1 slow down, 2
//! stop). Between 1 and 2 writers are held to a rate that falls steadily, so that they settle at what the
//! background can keep up with instead of running into a wall; each writer waits a little, none for long.
//! Memtables are memory, and that is a promise. The more of what they may take up is used while some of them wait for their
//! flush, the slower writers get, by the same law. Should the last one get full all the same, writers of that keyspace stand
//! still until one is flushed; and when all of them together have used up their share of the budget, all writers do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vault_core::{Error, Event, KeyspaceId, Result, WriteBatch};

use crate::memory::Class;
use crate::options::BackgroundWork;
use crate::store::Store;
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::view::{Pinned, View};
use crate::write::commit::{is_full, keyspaces_of};

/// Rate at pressure 1, in bytes a second.
const RATE_MAX: f64 = 256.0 * 1024.0 * 1024.0;
/// Rate just below pressure 2, in bytes a second.
const RATE_MIN: f64 = 1024.0 * 1024.0;
/// Longest a single write is delayed (not: stopped).
const DELAY_MAX: Duration = Duration::from_millis(20);
/// Shortest delay worth a sleep; smaller ones add up first.
const DELAY_MIN: Duration = Duration::from_millis(1);
/// How long a stopped writer waits before it looks again, should it miss a notification.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// Longest that a writer of a large batch stands still because compactions are far behind.
const STOP_MAX: Duration = Duration::from_secs(1);
/// The part of what memtables may take up that is left to them before writers are slowed down.
const FILL_FREE: f64 = 0.5;

/// Whether a writer may be made to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    Refuse,
}

/// The rate that writers are held to.
#[derive(Default)]
pub(crate) struct Pacer {
    /// Pressure in thousandths.
    pressure_milli: AtomicU64,
    /// The monotonic moment, in ns, up to which the rate has been used.
    used_until_ns: AtomicU64,
    announced: AtomicBool,
}

impl Pacer {
    /// Sets the pressure.
    pub(crate) fn set_pressure(&self, pressure: f64) {
        self.pressure_milli
            .store((pressure.max(0.0) * 1000.0) as u64, Ordering::Relaxed);
        if pressure < 1.0 {
            self.announced.store(false, Ordering::Relaxed);
        }
    }

    fn pressure(&self) -> f64 {
        self.pressure_milli.load(Ordering::Relaxed) as f64 / 1000.0
    }

    /// Bytes a second at this pressure.
    fn rate(pressure: f64) -> f64 {
        RATE_MAX * (RATE_MIN / RATE_MAX).powf((pressure - 1.0).clamp(0.0, 1.0))
    }

    /// Books `bytes` at `rate` and gives how long their writer has to wait.
    fn book(&self, now: Duration, bytes: usize, rate: f64) -> Duration {
        let now_ns = nanoseconds(now);
        let mut until = 0;
        let _ = self
            .used_until_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                until = Self::until(used, now_ns, bytes, rate);
                Some(until)
            });
        Duration::from_nanos(until.saturating_sub(now_ns))
    }

    /// How long a writer of `bytes` would have to wait, without booking them.
    fn estimate(&self, now: Duration, bytes: usize, rate: f64) -> Duration {
        let now_ns = nanoseconds(now);
        let until = Self::until(
            self.used_until_ns.load(Ordering::Relaxed),
            now_ns,
            bytes,
            rate,
        );
        Duration::from_nanos(until.saturating_sub(now_ns))
    }

    fn until(used: u64, now_ns: u64, bytes: usize, rate: f64) -> u64 {
        // Unused time is lost, and debt is bounded: a rate that has since risen is felt soon.
        let horizon = now_ns.saturating_add(nanoseconds(DELAY_MAX) * 5);
        used.clamp(now_ns, horizon)
            .saturating_add((bytes as f64 / rate * 1e9) as u64)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What a memtable takes for an entry beside its key and value, about.
const ENTRY_BYTES: u64 = 48;

/// A batch that was let in.
pub(crate) struct Admitted {
    /// The view that the batch was checked against; `None` where its writer had to wait, lest it keep
    /// from being freed what it waits for.
    pub(crate) checked: Option<Pinned>,
    /// Whether the memtables are over their share and nothing can be done about it.
    overdrawn: bool,
}

impl Admitted {
    /// Whether the memtables have used up their share meanwhile.
    #[inline]
    pub(crate) fn is_outdated(&self, store: &Store, batch: &WriteBatch) -> bool {
        !self.overdrawn && store.memory.memtables_full(memory_of(batch))
    }
}

/// About what the memtables grow by with this batch.
fn memory_of(batch: &WriteBatch) -> u64 {
    batch.encoded().len() as u64 + batch.len() as u64 * ENTRY_BYTES
}

/// Lets a batch in that was checked against `view`, after waiting where that is needed.
pub(crate) fn admit(
    store: &Arc<Store>,
    view: Pinned,
    batch: &WriteBatch,
    patience: Patience,
) -> Result<Admitted> {
    let mut admitted = Admitted {
        checked: None,
        overdrawn: false,
    };
    let full = memtables_full(store, &view, batch).is_some();
    let mut wait = Behind::Compactions(store.pacer.pressure());
    if full || store.memory.memtables_full(memory_of(batch)) {
        drop(view);
        admitted.overdrawn = wait_for_memtables(store, batch, patience)?;
    } else {
        if store.memory.memtables_wait() {
            let flushes = behind_flushes(store, &view, batch);
            if flushes.pressure() > wait.pressure() {
                wait = flushes;
            }
        }
        admitted.checked = Some(view);
    }
    if wait.pressure() >= 1.0 {
        delay(store, batch.encoded().len(), wait, patience, &mut admitted)?;
    }
    Ok(admitted)
}

/// What writers are faster than, and how much that presses.
#[derive(Clone, Copy)]
enum Behind {
    Compactions(f64),
    Flushes(f64, KeyspaceId),
}

impl Behind {
    const fn pressure(self) -> f64 {
        let (Self::Compactions(pressure) | Self::Flushes(pressure, _)) = self;
        pressure
    }

    fn keyspace(self, store: &Store) -> KeyspaceId {
        match self {
            Self::Compactions(_) => store.background.most_behind(),
            Self::Flushes(_, keyspace) => keyspace,
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::Compactions(_) => "compaction is behind",
            Self::Flushes(..) => "flushes are behind",
        }
    }
}

/// How much the memtables press that wait: from 1 where half of what they may take up is used, to 2 where all is.
fn behind_flushes(store: &Store, view: &View, batch: &WriteBatch) -> Behind {
    let max = store.memtables_waiting_max();
    let memtable_max = store.memory.shares().memtable_max;
    let fills = keyspaces_of(batch).filter_map(|id| {
        let keyspace = view.keyspace(id)?;
        let wanted = keyspace.options.write_buffer_bytes.min(memtable_max);
        let active = keyspace.active.memtable.bytes() as f64 / wanted as f64;
        let waiting = keyspace.sealed.len();
        let fill = (waiting as f64 + active.min(1.0)) / (max + 1) as f64;
        (waiting > 0).then_some((fill, id))
    });
    let first = keyspaces_of(batch).next().unwrap_or(KeyspaceId(0));
    let all = (store.memory.memtables_fill(), first);
    let (fill, keyspace) = fills.fold(all, |most, one| if one.0 > most.0 { one } else { most });
    let pressure = match fill {
        ..FILL_FREE => 0.0,
        _ => 1.0 + ((fill - FILL_FREE) / (1.0 - FILL_FREE)).min(1.0),
    };
    Behind::Flushes(pressure, keyspace)
}

/// The first keyspace of the batch whose memtable is full while too many wait already.
fn memtables_full(store: &Store, view: &View, batch: &WriteBatch) -> Option<KeyspaceId> {
    if !store.memory.memtables_wait() {
        return None;
    }
    let max = store.memtables_waiting_max();
    let memtable_max = store.memory.shares().memtable_max;
    keyspaces_of(batch).find(|&id| {
        view.keyspace(id)
            .is_some_and(|keyspace| keyspace.sealed.len() >= max && is_full(keyspace, memtable_max))
    })
}

/// Which keyspace's memtables, if any, have to be flushed before the batch may be written: one of its own
/// where too many wait, or any where all memtables together have used up their share. `Err` where that
/// is so and no flush would help: readers hold what has been flushed already.
fn in_the_way(store: &Store, batch: &WriteBatch) -> Result<Option<KeyspaceId>, HeldByReaders> {
    let view = store.views.pin();
    if let Some(id) = memtables_full(store, &view, batch) {
        return Ok(Some(id));
    }
    if !store.memory.memtables_full(memory_of(batch)) {
        return Ok(None);
    }
    let waiting = view.keyspaces.iter().find(|view| !view.sealed.is_empty());
    waiting.map_or(Err(HeldByReaders), |view| Ok(Some(view.keyspace.id)))
}

struct HeldByReaders;

/// Waits until the memtables have room for the batch. Gives whether they have not, and never will have.
fn wait_for_memtables(store: &Arc<Store>, batch: &WriteBatch, patience: Patience) -> Result<bool> {
    let began = store.env.clock.monotonic();
    let (mut announced, mut overdrawn) = (false, false);
    loop {
        let ticket = store.background.ticket();
        let id = match in_the_way(store, batch) {
            Ok(Some(id)) => id,
            Ok(None) => break,
            Err(HeldByReaders) => {
                let commit = store.commit()?;
                // Not for a few entries: each would make a table of its own.
                if store.memory.active_is_worth_sealing()
                    && store.seal_largest(commit.last_sequence).is_some()
                {
                    continue;
                }
                drop(commit);
                // The cache gives way, as far as it goes.
                let bytes = memory_of(batch);
                store
                    .memory
                    .check_room(Class::Memtables, bytes, "this write")?;
                store.memory.rebalance();
                overdrawn = true;
                break;
            }
        };
        store.check_writable()?;
        if patience == Patience::Refuse {
            return Err(Error::Busy {
                retry_after: store.counters.flush_estimate(),
            });
        }
        let manual = store.settings.background == BackgroundWork::Manual;
        // Threads try again by themselves. Where there are none, the step below is the next try.
        if let Some(error) = store.background.flush_failure().filter(|_| !manual) {
            return Err(error);
        }
        if !announced {
            announced = true;
            let reason = "memtables wait to be flushed";
            store.env.emit(&Event::WritesStopped {
                keyspace: id,
                reason,
            });
        }
        if manual {
            crate::background::step(store)?;
        } else {
            store.background.wait_for_progress(ticket, STOP_CHECK);
        }
    }
    if announced {
        store
            .counters
            .waited(true, store.env.clock.monotonic().saturating_sub(began));
    }
    Ok(overdrawn)
}

fn delay(
    store: &Arc<Store>,
    bytes: usize,
    behind: Behind,
    patience: Patience,
    admitted: &mut Admitted,
) -> Result<()> {
    let pressure = behind.pressure();
    let clock = &store.env.clock;
    if store.settings.background == BackgroundWork::Manual {
        // Nobody else would relieve the pressure.
        if patience == Patience::Refuse && pressure >= 2.0 {
            return Err(Error::Busy {
                retry_after: DELAY_MAX,
            });
        }
        while store.pacer.pressure() >= 2.0 && crate::background::step(store)? {}
        return Ok(());
    }
    let rate = Pacer::rate(pressure);
    if patience == Patience::Refuse {
        let wait = store.pacer.estimate(clock.monotonic(), bytes, rate);
        if wait >= DELAY_MIN {
            return Err(Error::Busy { retry_after: wait });
        }
    }
    let due = Duration::from_secs_f64(bytes as f64 / rate);
    if let Behind::Compactions(2.0..) = behind
        && due > DELAY_MAX
    {
        admitted.checked = None;
        stop(store, due.min(STOP_MAX))?;
    }
    let wait = store.pacer.book(clock.monotonic(), bytes, rate);
    if wait < DELAY_MIN {
        return Ok(());
    }
    admitted.checked = None;
    if !store.pacer.announced.swap(true, Ordering::Relaxed) {
        store.env.emit(&Event::WritesDelayed {
            keyspace: behind.keyspace(store),
            bytes_per_second: rate as u64,
            reason: behind.reason(),
        });
    }
    let began = clock.monotonic();
    clock.sleep(wait.min(DELAY_MAX));
    store
        .counters
        .waited(false, clock.monotonic().saturating_sub(began));
    Ok(())
}

/// Waits until compactions have caught up a little, for as long as a large batch would be due: the longest delay would not
/// hold up its writer. Not for ever: should compactions fail, writes go on slowly.
fn stop(store: &Arc<Store>, longest: Duration) -> Result<()> {
    let clock = &store.env.clock;
    let began = clock.monotonic();
    let reason = "compaction is far behind";
    store.env.emit(&Event::WritesStopped {
        keyspace: store.background.most_behind(),
        reason,
    });
    loop {
        let ticket = store.background.ticket();
        store.check_writable()?;
        let left = longest.saturating_sub(clock.monotonic().saturating_sub(began));
        if store.pacer.pressure() < 2.0 || left.is_zero() {
            break;
        }
        store
            .background
            .wait_for_progress(ticket, STOP_CHECK.min(left));
    }
    store
        .counters
        .waited(true, clock.monotonic().saturating_sub(began));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_falls_steadily() {
        assert!((Pacer::rate(1.0) - RATE_MAX).abs() < 1.0);
        assert!((Pacer::rate(2.0) - RATE_MIN).abs() < 1.0);
        assert!(Pacer::rate(1.3) > Pacer::rate(1.6));
    }

    #[test]
    fn writers_share_the_rate_and_debt_is_bounded() {
        let pacer = Pacer::default();
        let now = Duration::from_secs(10);
        let mib = 1 << 20;
        assert_eq!(
            pacer.book(now, mib, mib as f64 * 100.0),
            Duration::from_millis(10)
        );
        assert_eq!(
            pacer.book(now, mib, mib as f64 * 100.0),
            Duration::from_millis(20)
        );
        // Time passes: what was booked is used up.
        let later = Duration::from_secs(11);
        assert_eq!(
            pacer.book(later, mib, mib as f64 * 100.0),
            Duration::from_millis(10)
        );
        for _ in 0..1000 {
            pacer.book(later, mib, mib as f64);
        }
        assert!(pacer.book(later, 1, mib as f64) <= DELAY_MAX * 5 + Duration::from_secs(2));
    }
}
