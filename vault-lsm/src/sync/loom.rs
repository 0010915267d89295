//! Those of loom, which tries every schedule, and every value that a load may give under weak memory.
//!
//! Two things are added. Memory that is shared without atomics is watched ([`memory`]): a read that
//! nothing orders behind the write fails the model, as does a read of what was never written. And the
//! orderings and notifications of a source file can be broken on purpose ([`super::broken`]).
#![expect(
    dead_code,
    reason = "each atomic offers the same, whether or not the engine uses all of it"
)]

use std::panic::Location;
use std::sync::LockResult;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(crate) use ::loom::sync::{Mutex, MutexGuard, RwLock};
pub(crate) use ::loom::{hint, thread};

use super::broken::{Break, is_broken};

fn stored(order: Ordering, place: &Location<'_>) -> Ordering {
    if !is_broken(Break::RelaxStores, place) {
        return order;
    }
    match order {
        Ordering::Release => Ordering::Relaxed,
        Ordering::AcqRel => Ordering::Acquire,
        other => other,
    }
}

fn loaded(order: Ordering, place: &Location<'_>) -> Ordering {
    if !is_broken(Break::RelaxLoads, place) {
        return order;
    }
    match order {
        Ordering::Acquire => Ordering::Relaxed,
        Ordering::AcqRel => Ordering::Release,
        other => other,
    }
}

/// Atomics, each with its latest value beside it.
///
/// That value is what exclusive access gives: loom would demand that the last reference was dropped
/// behind all other uses, which `Arc` sees to, but it does not know `std`'s `Arc`.
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::Ordering;

    use std::panic::Location;
    use std::sync::atomic as latest;

    use super::{loaded, stored};

    macro_rules! atomic {
        ($name:ident, $value:ty $(, $parameter:ident)?) => {
            #[derive(Debug)]
            pub(crate) struct $name$(<$parameter>)? {
                modelled: ::loom::sync::atomic::$name$(<$parameter>)?,
                latest: latest::$name$(<$parameter>)?,
            }

            impl$(<$parameter>)? $name$(<$parameter>)? {
                pub(crate) fn new(value: $value) -> Self {
                    Self {
                        modelled: ::loom::sync::atomic::$name::new(value),
                        latest: latest::$name::new(value),
                    }
                }

                #[track_caller]
                pub(crate) fn load(&self, order: Ordering) -> $value {
                    self.modelled.load(loaded(order, Location::caller()))
                }

                #[track_caller]
                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    self.modelled.store(value, stored(order, Location::caller()));
                    self.latest.store(value, Ordering::Relaxed);
                }

                pub(crate) fn get_mut(&mut self) -> &mut $value {
                    self.latest.get_mut()
                }
            }
        };
    }

    macro_rules! modified {
        ($name:ident, $value:ty) => {
            impl Default for $name {
                fn default() -> Self {
                    Self::new(<$value>::default())
                }
            }

            impl $name {
                #[track_caller]
                pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                    let place = Location::caller();
                    let order = loaded(stored(order, place), place);
                    let before = self.modelled.swap(value, order);
                    self.latest.store(value, Ordering::Relaxed);
                    before
                }

                #[track_caller]
                pub(crate) fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    let place = Location::caller();
                    let success = loaded(stored(success, place), place);
                    let failure = loaded(failure, place);
                    let outcome = self
                        .modelled
                        .compare_exchange(current, new, success, failure);
                    if outcome.is_ok() {
                        self.latest.store(new, Ordering::Relaxed);
                    }
                    outcome
                }
            }
        };
    }

    /// Of single bits.
    macro_rules! masked {
        ($name:ident, $value:ty) => {
            impl $name {
                #[track_caller]
                pub(crate) fn fetch_or(&self, bits: $value, order: Ordering) -> $value {
                    let place = Location::caller();
                    let order = loaded(stored(order, place), place);
                    let before = self.modelled.fetch_or(bits, order);
                    self.latest.store(before | bits, Ordering::Relaxed);
                    before
                }

                #[track_caller]
                pub(crate) fn fetch_and(&self, bits: $value, order: Ordering) -> $value {
                    let place = Location::caller();
                    let order = loaded(stored(order, place), place);
                    let before = self.modelled.fetch_and(bits, order);
                    self.latest.store(before & bits, Ordering::Relaxed);
                    before
                }
            }
        };
    }

    macro_rules! counted {
        ($name:ident, $value:ty) => {
            impl $name {
                #[track_caller]
                pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    let place = Location::caller();
                    let order = loaded(stored(order, place), place);
                    let before = self.modelled.fetch_add(value, order);
                    self.latest
                        .store(before.wrapping_add(value), Ordering::Relaxed);
                    before
                }

                #[track_caller]
                pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                    let place = Location::caller();
                    let order = loaded(stored(order, place), place);
                    let before = self.modelled.fetch_sub(value, order);
                    self.latest
                        .store(before.wrapping_sub(value), Ordering::Relaxed);
                    before
                }

                #[track_caller]
                pub(crate) fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                    let place = Location::caller();
                    let order = loaded(stored(order, place), place);
                    let before = self.modelled.fetch_max(value, order);
                    self.latest.store(before.max(value), Ordering::Relaxed);
                    before
                }

                #[track_caller]
                pub(crate) fn fetch_min(&self, value: $value, order: Ordering) -> $value {
                    let place = Location::caller();
                    let order = loaded(stored(order, place), place);
                    let before = self.modelled.fetch_min(value, order);
                    self.latest.store(before.min(value), Ordering::Relaxed);
                    before
                }

                #[track_caller]
                pub(crate) fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    mut change: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    let mut before = self.load(fetch);
                    while let Some(next) = change(before) {
                        match self.compare_exchange(before, next, set, fetch) {
                            Ok(_) => return Ok(before),
                            Err(now) => before = now,
                        }
                    }
                    Err(before)
                }
            }
        };
    }

    atomic!(AtomicBool, bool);
    atomic!(AtomicU8, u8);
    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);
    atomic!(AtomicUsize, usize);
    atomic!(AtomicPtr, *mut T, T);
    modified!(AtomicBool, bool);
    modified!(AtomicU8, u8);
    modified!(AtomicU32, u32);
    modified!(AtomicU64, u64);
    modified!(AtomicUsize, usize);
    masked!(AtomicU8, u8);
    counted!(AtomicU32, u32);
    counted!(AtomicU64, u64);
    counted!(AtomicUsize, usize);
}

/// A condition variable whose notifications can be lost on purpose. Timed waits never time out: what a
/// timeout would mend shows as a deadlock.
#[derive(Debug, Default)]
pub(crate) struct Condvar(::loom::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.0.wait(guard)
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        at_most: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, ::loom::sync::WaitTimeoutResult)> {
        self.0.wait_timeout(guard, at_most)
    }

    #[track_caller]
    pub(crate) fn notify_one(&self) {
        if !is_broken(Break::LoseOne, Location::caller()) {
            self.0.notify_one();
        }
    }

    #[track_caller]
    pub(crate) fn notify_all(&self) {
        if !is_broken(Break::LoseAll, Location::caller()) {
            self.0.notify_all();
        }
    }
}

/// A cell that is set once.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    is_set: atomic::AtomicBool,
    value: std::sync::OnceLock<T>,
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self {
            is_set: atomic::AtomicBool::default(),
            value: std::sync::OnceLock::new(),
        }
    }
}

impl<T> OnceLock<T> {
    pub(crate) fn get(&self) -> Option<&T> {
        // The value follows the mark without a switch of threads in between.
        let is_set = self.is_set.load(Ordering::Acquire);
        is_set.then(|| self.value.get()).flatten()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        if self.is_set.swap(true, Ordering::AcqRel) {
            return Err(value);
        }
        self.value.set(value)
    }
}

/// A small number for the calling thread: the threads of one execution count from 0.
pub(crate) fn thread_number() -> usize {
    use std::sync::atomic::AtomicUsize;
    ::loom::lazy_static! {
        static ref NEXT: AtomicUsize = AtomicUsize::new(0);
    }
    ::loom::thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// Memory that is shared without atomics.
///
/// Each piece that is written at once is one cell of loom's, which knows what ordered the write before
/// the read, or that nothing did.
pub(crate) mod memory {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use ::loom::cell::UnsafeCell;

    struct Piece {
        bytes: usize,
        cell: Rc<UnsafeCell<()>>,
    }

    thread_local! {
        /// By address. All threads of a model are coroutines of one.
        static PIECES: RefCell<BTreeMap<usize, Piece>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Notes that a piece was just written.
    pub(crate) fn written(start: *const u8, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let cell = PIECES.with_borrow_mut(|pieces| {
            let piece = pieces.entry(start as usize).or_insert_with(|| Piece {
                bytes,
                cell: Rc::new(UnsafeCell::new(())),
            });
            assert_eq!(piece.bytes, bytes, "written before, at another length");
            Rc::clone(&piece.cell)
        });
        cell.with_mut(|_| ());
    }

    /// Checks that all of this was written before, as the reader must see it.
    pub(crate) fn read(start: *const u8, bytes: usize) {
        let (start, end) = (start as usize, start as usize + bytes);
        let cells: Vec<_> = PIECES.with_borrow(|pieces| {
            let first = pieces
                .range(..=start)
                .next_back()
                .map_or(start, |(&at, _)| at);
            let mut covered = start;
            let touched = pieces.range(first..end).filter(|&(&at, piece)| {
                let touched = at + piece.bytes > start;
                if touched {
                    assert!(at <= covered, "read of what nobody has written");
                    covered = at + piece.bytes;
                }
                touched
            });
            let cells = touched.map(|(_, piece)| Rc::clone(&piece.cell)).collect();
            assert!(covered >= end, "read of what nobody has written");
            cells
        });
        for cell in cells {
            cell.with(|_| ());
        }
    }

    /// Forgets what lay here.
    pub(crate) fn freed(start: *const u8, bytes: usize) {
        let span = start as usize..start as usize + bytes;
        PIECES.with_borrow_mut(|pieces| pieces.retain(|at, _| !span.contains(at)));
    }
}
