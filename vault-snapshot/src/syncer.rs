//! Syncing large files on a thread of its own, while the next bytes are being written.
//!
//! Without it the disk rests while bytes are hashed and copied, and then everything waits for the disk. Small files are synced where
//! they are written: a thread would cost more than it saves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

use vault_core::vfs::File;
use vault_core::{Error, Result};

/// From this length on a file is synced beside, and within a file each time so much was written.
pub(crate) const SYNC_BESIDE_BYTES: u64 = 32 << 20;
/// How many files wait to be synced.
const WAITING_MAX: usize = 2;

struct Job {
    file: Arc<dyn File>,
    path: PathBuf,
}

/// Syncs files in another thread, which is started when there is one.
#[derive(Default)]
pub(crate) struct Syncer {
    running: Option<(SyncSender<Job>, JoinHandle<Result<()>>)>,
}

impl Syncer {
    /// Syncs a file some time before [`finish`](Self::finish) returns.
    pub(crate) fn sync(&mut self, file: &Arc<dyn File>, path: &Path) -> Result<()> {
        let job = Job {
            file: Arc::clone(file),
            path: path.to_path_buf(),
        };
        if self.jobs()?.send(job).is_err() {
            // It has ended, because it failed.
            return self.finish();
        }
        Ok(())
    }

    /// Lets a file be synced if nothing else is just being, to have less to sync at its end.
    pub(crate) fn hint(&mut self, file: &Arc<dyn File>, path: &Path) -> Result<()> {
        let job = Job {
            file: Arc::clone(file),
            path: path.to_path_buf(),
        };
        match self.jobs()?.try_send(job) {
            Ok(()) | Err(TrySendError::Full(_)) => Ok(()),
            Err(TrySendError::Disconnected(_)) => self.finish(),
        }
    }

    /// Waits until everything is synced.
    ///
    /// # Errors
    /// The first failure. Nothing is known then about what was to be synced.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let Some((jobs, thread)) = self.running.take() else {
            return Ok(());
        };
        drop(jobs);
        let place = Path::new("the syncing thread");
        let ended = |_| Error::io("wait for", place, std::io::Error::other("it panicked"));
        thread.join().map_err(ended)?
    }

    fn jobs(&mut self) -> Result<&SyncSender<Job>> {
        let running = match self.running.take() {
            Some(running) => running,
            None => {
                let (jobs, waiting) = sync_channel(WAITING_MAX);
                let spawned = Builder::new()
                    .name("vault-sync".into())
                    .spawn(move || run(&waiting));
                let place = Path::new("the syncing thread");
                (jobs, spawned.map_err(|e| Error::io("start", place, e))?)
            }
        };
        Ok(&self.running.insert(running).0)
    }
}

fn run(waiting: &Receiver<Job>) -> Result<()> {
    while let Ok(Job { file, path }) = waiting.recv() {
        file.sync().map_err(|e| Error::io("sync", &path, e))?;
    }
    Ok(())
}

impl Drop for Syncer {
    /// Whoever has not waited for the answer has given up.
    fn drop(&mut self) {
        drop(self.finish());
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use vault_core::vfs::{
        CrashPolicy, Fault, FaultKind, FileSystem, MemoryFileSystem, OperationClass,
    };

    use super::*;

    #[test]
    fn what_was_handed_over_is_durable_at_the_end() {
        let fs = MemoryFileSystem::new();
        let mut syncer = Syncer::default();
        for number in 0..9 {
            let path = PathBuf::from(format!("/{number}"));
            let file = fs.create(&path).unwrap();
            file.write_at(&[number; 900], 0).unwrap();
            syncer.hint(&file, &path).unwrap();
            syncer.sync(&file, &path).unwrap();
        }
        syncer.finish().unwrap();
        fs.sync_dir("/".as_ref()).unwrap();
        let left = fs.crash(1, CrashPolicy::DropUnsynced);
        for number in 0..9 {
            assert_eq!(left.read_file(format!("/{number}")).unwrap(), [number; 900]);
        }
        syncer.finish().unwrap();
    }

    #[test]
    fn a_sync_that_failed_is_told() {
        let fs = MemoryFileSystem::new();
        fs.inject(
            Fault::new(
                OperationClass::Sync,
                FaultKind::Error(ErrorKind::StorageFull),
            )
            .after(1),
        );
        let path = Path::new("/a");
        let file = fs.create(path).unwrap();
        let mut syncer = Syncer::default();
        let told = (0..5)
            .map(|_| syncer.sync(&file, path))
            .find(Result::is_err);
        let error = told.unwrap_or_else(|| syncer.finish()).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    }
}
