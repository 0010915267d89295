//! The files that are open, so that locking finds their keys.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::file_seal::FileSeal;

/// Fewer than this are never looked through for those that are gone.
const SWEEP_MIN: usize = 64;

/// A list of open files that keeps none of them open.
#[derive(Default)]
pub(crate) struct OpenFiles {
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    files: Vec<Weak<FileSeal>>,
    /// At which length those that are gone are taken out: twice what was left the last time.
    sweep_at: usize,
}

impl OpenFiles {
    /// Adds a file.
    pub(crate) fn add(&self, file: &Arc<FileSeal>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.files.len() >= list.sweep_at.max(SWEEP_MIN) {
            list.files.retain(|file| file.strong_count() > 0);
            list.sweep_at = 2 * list.files.len();
        }
        list.files.push(Arc::downgrade(file));
    }

    /// All files that are open. The list is not held while they are looked at.
    pub(crate) fn all(&self) -> Vec<Arc<FileSeal>> {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.files.iter().filter_map(Weak::upgrade).collect()
    }

    #[cfg(test)]
    pub(crate) fn listed(&self) -> usize {
        self.list.lock().unwrap().files.len()
    }
}
