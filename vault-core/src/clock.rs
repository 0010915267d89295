//! Time, by trait.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A moment of wall-clock time: milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The latest moment accepted as an expiry: the end of the year 9999.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// The moment `time_to_live` after this one.
    ///
    /// # Errors
    /// [`Error::InvalidExpiry`] where the time to live is below one millisecond or reaches beyond
    /// [`Timestamp::MAX`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use vault_core::Timestamp;
    /// assert_eq!(Timestamp(1_000).after(Duration::from_secs(2)).unwrap(), Timestamp(3_000));
    /// assert!(Timestamp(1_000).after(Duration::ZERO).is_err());
    /// assert!(Timestamp(1_000).after(Duration::MAX).is_err());
    /// ```
    pub fn after(self, time_to_live: Duration) -> Result<Self> {
        let invalid = |problem: String| Error::InvalidExpiry { problem };
        if time_to_live.as_millis() == 0 {
            return Err(invalid(format!(
                "{time_to_live:?} from now, below one millisecond"
            )));
        }
        u64::try_from(time_to_live.as_millis())
            .ok()
            .and_then(|millis| self.0.checked_add(millis))
            .map(Self)
            .filter(|&moment| moment <= Self::MAX)
            .ok_or_else(|| invalid(format!("{time_to_live:?} from now, beyond the year 9999")))
    }

    /// Refuses an expiry that is zero, not after `now`, or beyond [`Timestamp::MAX`].
    ///
    /// # Errors
    /// [`Error::InvalidExpiry`].
    pub fn check_expiry(self, now: Self) -> Result<()> {
        let problem = if self.0 == 0 {
            "zero".to_owned()
        } else if self > Self::MAX {
            format!("{} ms, beyond the year 9999", self.0)
        } else if self <= now {
            format!("{} ms, not after now ({} ms)", self.0, now.0)
        } else {
            return Ok(());
        };
        Err(Error::InvalidExpiry { problem })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// Where time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Wall-clock time. May jump, forwards and backwards.
    fn now(&self) -> Timestamp;

    /// Time since an arbitrary origin. Never goes backwards.
    fn monotonic(&self) -> Duration;

    /// Waits. A simulated clock moves on instead.
    fn sleep(&self, duration: Duration);
}

/// The operating system's clock.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// Starts the monotonic count.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one real implementation of the clock"
    )]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one real implementation of the clock"
    )]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one real implementation of the clock"
    )]
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A clock that stands still until it is told to move.
///
/// ```
/// use vault_core::clock::{Clock, ManualClock};
/// use vault_core::Timestamp;
/// let clock = ManualClock::new(Timestamp(1_000));
/// clock.advance(std::time::Duration::from_secs(1));
/// assert_eq!(clock.now(), Timestamp(2_000));
/// clock.set(Timestamp(500)); // wall-clock time may jump back
/// assert_eq!(clock.now(), Timestamp(500));
/// ```
#[derive(Debug)]
pub struct ManualClock {
    wall_ms: std::sync::atomic::AtomicU64,
    monotonic_ns: std::sync::atomic::AtomicU64,
}

impl ManualClock {
    /// Starts at the given moment.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        use std::sync::atomic::AtomicU64;
        Self {
            wall_ms: AtomicU64::new(now.0),
            monotonic_ns: AtomicU64::new(0),
        }
    }

    /// Moves both wall-clock and monotonic time on.
    pub fn advance(&self, duration: Duration) {
        use std::sync::atomic::Ordering::SeqCst;
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let before = self.monotonic_ns.fetch_add(ns, SeqCst);
        // Whole milliseconds that passed, so that many short steps add up.
        self.wall_ms
            .fetch_add((before + ns) / 1_000_000 - before / 1_000_000, SeqCst);
    }

    /// Sets wall-clock time, also backwards. Monotonic time is not touched.
    pub fn set(&self, now: Timestamp) {
        self.wall_ms
            .store(now.0, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall_ms.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.monotonic_ns.load(std::sync::atomic::Ordering::SeqCst))
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_that_cannot_be_are_refused() {
        let now = Timestamp(5_000);
        assert!(Timestamp(5_001).check_expiry(now).is_ok());
        for bad in [Timestamp(0), Timestamp(4_999), now, Timestamp(u64::MAX)] {
            assert!(
                matches!(bad.check_expiry(now), Err(Error::InvalidExpiry { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn short_steps_of_a_manual_clock_add_up() {
        let clock = ManualClock::new(Timestamp(0));
        for _ in 0..10 {
            clock.sleep(Duration::from_micros(500));
        }
        assert_eq!(clock.now(), Timestamp(5));
    }

    #[test]
    fn the_system_clock_moves_forward() {
        let clock = SystemClock::new();
        let before = clock.monotonic();
        clock.sleep(Duration::from_millis(1));
        assert!(clock.monotonic() > before);
        assert!(clock.now() > Timestamp(1_700_000_000_000));
    }
}
