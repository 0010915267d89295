//! How many secrets are hashed at once. Each takes much memory and a whole processor, on purpose (64 MiB with
//! [`Kdf::ARGON2ID`](vault_crypto::Kdf::ARGON2ID)): whoever may knock as often as they like must not have all of both.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::database::lock;
use crate::error::{Error, Result};

/// Secrets that are hashed at once.
const AT_ONCE_MAX: usize = 4;
/// Callers that wait for their turn. At a tenth of a second for each four, the last one waits for some seconds.
const WAITING_MAX: usize = 128;

/// Hands out turns. One that panics gives its turn back.
#[derive(Default)]
pub(super) struct Hashing {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    at_work: usize,
    waiting: usize,
}

struct Turn<'a>(&'a Hashing);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).at_work -= 1;
        self.0.ended.notify_one();
    }
}

impl Hashing {
    /// Does this when it is its turn.
    pub(super) fn in_turn<R>(&self, hash: impl FnOnce() -> Result<R>) -> Result<R> {
        let _turn = self.turn()?;
        hash()
    }

    fn turn(&self) -> Result<Turn<'_>> {
        let mut state = lock(&self.state);
        if state.at_work >= AT_ONCE_MAX {
            if state.waiting >= WAITING_MAX {
                return Err(Error::TooManyLogIns {
                    max: AT_ONCE_MAX + WAITING_MAX,
                });
            }
            state.waiting += 1;
            while state.at_work >= AT_ONCE_MAX {
                state = self
                    .ended
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            state.waiting -= 1;
        }
        state.at_work += 1;
        Ok(Turn(self))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn so_many_at_once_and_the_others_wait() {
        let (hashing, at_once, most) =
            (Hashing::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    hashing
                        .in_turn(|| {
                            let now = at_once.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(now, Ordering::SeqCst);
                            thread::yield_now();
                            at_once.fetch_sub(1, Ordering::SeqCst);
                            Ok(())
                        })
                        .unwrap();
                });
            }
        });
        assert!((1..=AT_ONCE_MAX).contains(&most.into_inner()));
        let state = lock(&hashing.state);
        assert_eq!((state.at_work, state.waiting), (0, 0));
    }

    #[test]
    fn who_comes_when_too_many_wait_is_turned_away() {
        let hashing = Hashing::default();
        *lock(&hashing.state) = State {
            at_work: AT_ONCE_MAX,
            waiting: WAITING_MAX,
        };
        let refused = hashing.in_turn(|| Ok(()));
        assert!(
            matches!(refused, Err(Error::TooManyLogIns { max: 132 })),
            "{refused:?}"
        );
        lock(&hashing.state).at_work -= 1;
        hashing.in_turn(|| Ok(())).unwrap();
    }

    #[test]
    fn one_that_panics_or_fails_gives_its_turn_back() {
        let hashing = Hashing::default();
        for _ in 0..2 * AT_ONCE_MAX {
            let panicked = thread::scope(|scope| {
                let thread =
                    scope.spawn(|| hashing.in_turn(|| -> Result<()> { panic!("on purpose") }));
                thread.join()
            });
            assert!(panicked.is_err());
            assert!(hashing.in_turn(|| Err::<(), _>(Error::Cancelled)).is_err());
        }
        hashing.in_turn(|| Ok(())).unwrap();
    }
}
