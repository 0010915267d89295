//! Running a closure as a transaction, again where it collided.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::{Mode, Transaction, TransactionOptions};
use crate::commit::Outcome;
use crate::database::Shared;
use crate::error::{Error, Result};

/// Longest wait after the first collision.
const BACKOFF_FIRST: Duration = Duration::from_micros(20);
/// Longest wait after any.
const BACKOFF_MAX: Duration = Duration::from_millis(20);

thread_local! {
    /// The databases that this thread runs a closure's transaction on.
    static OPEN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Marks that this thread runs a closure's transaction on a database.
struct Open(usize);

impl Open {
    fn mark(shared: &Arc<Shared>) -> Result<Self> {
        let database = Arc::as_ptr(shared) as usize;
        OPEN.with_borrow_mut(|open| {
            if open.contains(&database) {
                return Err(Error::NestedTransaction);
            }
            open.push(database);
            Ok(Self(database))
        })
    }
}

/// Refuses where this thread runs a closure's transaction on a database: another one beside it could only collide with it.
pub(crate) fn check_not_nested(shared: &Arc<Shared>) -> Result<()> {
    Open::mark(shared).map(drop)
}

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.with_borrow_mut(|open| open.retain(|&database| database != self.0));
    }
}

/// Runs a closure as a transaction that only reads.
pub(crate) fn read<R, E: From<Error>>(
    shared: &Arc<Shared>,
    tenant: u32,
    f: impl FnOnce(&Transaction) -> Result<R, E>,
) -> Result<R, E> {
    let _open = Open::mark(shared)?;
    let transaction =
        Transaction::begin(shared, tenant, TransactionOptions::default(), Mode::Read)?;
    f(&transaction)
}

/// Runs a closure as a transaction, until it commits or has tried often enough.
pub(crate) fn write<R, E: From<Error>>(
    shared: &Arc<Shared>,
    tenant: u32,
    options: TransactionOptions,
    mut f: impl FnMut(&Transaction) -> Result<R, E>,
) -> Result<R, E> {
    let _open = Open::mark(shared)?;
    let began = shared.clock.monotonic();
    let mut attempts = 0;
    loop {
        let transaction = Transaction::begin(shared, tenant, options, Mode::Write)?;
        let committed = match f(&transaction) {
            Ok(result) => match transaction.try_commit()? {
                Outcome::Committed => Some(result),
                Outcome::Conflict => None,
            },
            Err(_) if transaction.is_doomed() => None,
            Err(error) => return Err(error),
        };
        // Before any wait: what it kept alive is free.
        drop(transaction);
        attempts += 1;
        match committed {
            Some(result) => return Ok(result),
            None if attempts >= options.attempts_max => {
                let elapsed = shared.clock.monotonic().saturating_sub(began);
                return Err(Error::Conflict { attempts, elapsed }.into());
            }
            None => shared.clock.sleep(backoff(shared, attempts)),
        }
    }
}

/// How long to wait after so many collisions: any time up to a bound that doubles, so that those who collided do not do so
/// again. (Metcalfe and Boggs: "Ethernet", 1976; with full jitter.)
fn backoff(shared: &Shared, attempts: u32) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << attempts.min(16));
    let bound = doubled.min(BACKOFF_MAX).as_nanos() as u64;
    Duration::from_nanos(shared.jitter.below(bound + 1))
}
