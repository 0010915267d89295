//! The standard library's, as they are.

pub(crate) use std::hint;
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, RwLock, atomic};
pub(crate) use std::thread;

pub(crate) use super::plain::{memory, thread_number};
