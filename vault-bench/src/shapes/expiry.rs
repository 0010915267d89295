//! Entries that expire, written all the time: none may be seen once its time has come, and the space that they take must
//! follow what is alive, not what was written.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vault_core::clock::{Clock, SystemClock};

use super::states::States;
use super::{LOOK, Shape, Shaped};
use crate::data::{self, Entry, below, mix, random_at};
use crate::drive::drive;
use crate::error::{Error, Result};
use crate::target::Direction;

/// Seconds that it runs for unless something else is asked for.
pub const SECONDS: u64 = 120;
/// How often an entry's life fits into the run.
const LIVES: u32 = 20;
/// Longest life.
const LIFE_MAX: Duration = Duration::from_secs(5);
/// How often an entry is written that comes too late.
const TRIES: u32 = 20;
/// One operation in so many reads.
const READ_EVERY: u64 = 8;

/// Runs on an empty store.
pub(super) fn run(shape: &Shape<'_>) -> Result<Shaped> {
    let n = shape.settings.n;
    let clock = SystemClock::new();
    let duration = shape.settings.timed(SECONDS);
    let life = (duration / LIVES)
        .min(LIFE_MAX)
        .max(Duration::from_millis(1));
    // The moment at which each key's entry expires, in milliseconds; 0: never written.
    let expiries = States::new(n, 0);
    let stream = mix(shape.settings.seed ^ mix(shape.workload as u64));
    let mut how = shape.how(shape.workload.name(), u64::MAX / 2);
    how.duration_max = duration;
    let space = Space::default();
    let driven = std::thread::scope(|scope| {
        scope.spawn(|| space.watch(shape, duration));
        let driven = drive(&how, |hands, i| {
            let bits = random_at(stream, i);
            let (index, expiry) = expiries.claim(below(bits, n));
            let number = data::loaded(index);
            let mut left = expiry;
            if bits.is_multiple_of(READ_EVERY) {
                let before = clock.now().0;
                let found = shape.target.get(&data::key(number), &mut |_| ())?;
                hands.wrong += u64::from(found && expiry < before);
                hands.missing += u64::from(!found && expiry > clock.now().0);
            } else {
                hands.entry.fill(number, shape.generation);
                left = put_for(shape, &hands.entry, life, &clock)?;
            }
            expiries.release(index, left);
            Ok(1)
        });
        space.done.store(true, Ordering::Release);
        driven
    });
    let mut outcome = driven?;
    // That is how long it was to run.
    outcome.cut_short = false;
    let peaks = space.peaks()?;
    let begun = clock.now().0;
    let known: Vec<u64> = expiries.words().collect();
    shape
        .target
        .scan(None, Direction::Forward, u64::MAX, &mut |key, value| {
            let number = std::str::from_utf8(key)
                .ok()
                .and_then(|text| u64::from_str_radix(text, 16).ok());
            let expiry = number.and_then(|number| known.get((number / 4) as usize));
            let right = expiry.is_some_and(|&expiry| expiry >= begun);
            outcome.wrong += u64::from(!right || !data::is_value_of(key, value));
        })?;
    let alive = known.iter().filter(|&&expiry| expiry > begun).count() as u64;
    let live_bytes = alive * (data::KEY_BYTES + shape.settings.value_bytes) as u64;
    Ok(Shaped {
        details: vec![
            ("live_bytes", live_bytes as f64),
            ("disk_peak_first_half", peaks[0] as f64),
            ("disk_peak_second_half", peaks[1] as f64),
            (
                "written_bytes",
                (outcome.operations * (data::KEY_BYTES + shape.settings.value_bytes) as u64) as f64,
            ),
        ],
        outcome,
    })
}

/// Writes an entry that lives so long; gives the moment of its end in milliseconds. A thread may have to wait for a processor until that
/// moment is over, which an engine may refuse: then it tries again with a later one.
fn put_for(shape: &Shape<'_>, entry: &Entry, life: Duration, clock: &SystemClock) -> Result<u64> {
    let mut tries = TRIES;
    loop {
        let until = clock.now().after(life);
        let until = until.map_err(|e| Error::engine("this benchmark", &e))?;
        match shape.target.put_until(&entry.key, &entry.value, until) {
            Ok(()) => return Ok(until.0),
            Err(_) if clock.now() >= until && tries > 1 => tries -= 1,
            Err(error) => return Err(error),
        }
    }
}

/// The most bytes that the store took up, in the first half of the time and in the second.
#[derive(Default)]
struct Space {
    peaks: Mutex<[u64; 2]>,
    failure: Mutex<Option<Error>>,
    done: AtomicBool,
}

impl Space {
    fn watch(&self, shape: &Shape<'_>, duration: Duration) {
        let clock = SystemClock::new();
        while !self.done.load(Ordering::Acquire) {
            let half = usize::from(clock.monotonic() >= duration / 2);
            match (shape.disk_bytes(), self.peaks.lock()) {
                (Ok(bytes), Ok(mut peaks)) => peaks[half] = peaks[half].max(bytes),
                (Err(error), _) => {
                    if let Ok(mut failure) = self.failure.lock() {
                        *failure = Some(error);
                    }
                    return;
                }
                (Ok(_), Err(_)) => return,
            }
            clock.sleep(LOOK.min(duration / 20));
        }
    }

    fn peaks(self) -> Result<[u64; 2]> {
        let failure = self.failure.into_inner();
        if let Ok(Some(error)) = failure {
            return Err(error);
        }
        let poisoned = |_| {
            Error::engine(
                "this benchmark",
                &"the thread that looks at the directory panicked",
            )
        };
        self.peaks.into_inner().map_err(poisoned)
    }
}
