//! SHA-256 on a thread of its own, beside reading and writing.
//!
//! A chunk is read once and shared: this thread hashes it while the caller writes it. There are [`CHUNKS_MAX`] chunks,
//! used again and again, so that the memory this takes is the same for any length. What is handed over in order comes back
//! in order: one hash for each [`Hasher::end`].

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

use sha2::{Digest, Sha256};

use super::error::Result;
use super::hex::{Hex, Sha256Hash};

/// What is read and written at once, in bytes.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// How many chunks there are.
const CHUNKS_MAX: usize = 4;

/// A chunk that is being hashed and written at once.
pub(crate) type Chunk = Arc<Vec<u8>>;

enum Job {
    Bytes(Chunk, usize),
    End,
}

/// Hashes what it is given, in another thread.
pub(crate) struct Hasher {
    jobs: Option<SyncSender<Job>>,
    spare: Receiver<Chunk>,
    hashes: Receiver<Sha256Hash>,
    chunks: usize,
    thread: Option<JoinHandle<()>>,
}

impl Hasher {
    pub(crate) fn start() -> Result<Self> {
        let (jobs, work) = sync_channel(2 * CHUNKS_MAX);
        let (give_back, spare) = channel();
        let (tell, hashes) = channel();
        let run = move || {
            let mut state = Sha256::new();
            // Whoever waits for an answer may have given up: then the jobs end as well.
            while let Ok(job) = work.recv() {
                match job {
                    Job::Bytes(chunk, len) => {
                        state.update(&chunk[..len]);
                        drop(give_back.send(chunk));
                    }
                    Job::End => drop(tell.send(Hex(state.finalize_reset().into()))),
                }
            }
        };
        let thread = Builder::new().name("vault-sha256".into()).spawn(run);
        let thread = thread.map_err(|error| failed("start", error))?;
        Ok(Self {
            jobs: Some(jobs),
            spare,
            hashes,
            chunks: 0,
            thread: Some(thread),
        })
    }

    /// A chunk to fill, [`CHUNK_BYTES`] long; what is in it is left over.
    pub(crate) fn chunk(&mut self) -> Result<Vec<u8>> {
        loop {
            let chunk = match self.spare.try_recv() {
                Ok(chunk) => chunk,
                Err(_) if self.chunks < CHUNKS_MAX => {
                    self.chunks += 1;
                    return Ok(vec![0; CHUNK_BYTES]);
                }
                Err(_) => self.spare.recv().map_err(|_| gone())?,
            };
            // One that its reader still holds is dropped there, and another may be made.
            match Arc::try_unwrap(chunk) {
                Ok(bytes) => return Ok(bytes),
                Err(_) => self.chunks -= 1,
            }
        }
    }

    /// Hashes the first `len` bytes of a chunk, from [`chunk`](Self::chunk).
    pub(crate) fn update(&mut self, chunk: &Chunk, len: usize) -> Result<()> {
        self.send(Job::Bytes(Arc::clone(chunk), len))
    }

    /// Ends a text: its hash comes back, after those of the texts before.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.send(Job::End)
    }

    /// The hash of the next text that was ended, which is waited for.
    pub(crate) fn hash(&mut self) -> Result<Sha256Hash> {
        self.hashes.recv().map_err(|_| gone())
    }

    /// The hash of the next text that was ended, if it is there already.
    pub(crate) fn hash_at_hand(&mut self) -> Option<Sha256Hash> {
        self.hashes.try_recv().ok()
    }

    fn send(&mut self, job: Job) -> Result<()> {
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).map_err(|_| gone())
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn failed(operation: &'static str, error: io::Error) -> super::Error {
    vault_core::Error::io(operation, Path::new("the hashing thread"), error).into()
}

fn gone() -> super::Error {
    failed("wait for", io::Error::other("it has ended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_come_back_in_order_whatever_the_lengths() {
        let mut hasher = Hasher::start().unwrap();
        let texts = [0usize, 1, CHUNK_BYTES, 9 * CHUNK_BYTES + 5, 0];
        for &text in &texts {
            let mut left = text;
            while left > 0 {
                let mut bytes = hasher.chunk().unwrap();
                bytes.fill(7);
                let len = left.min(bytes.len());
                hasher.update(&Arc::new(bytes), len).unwrap();
                left -= len;
            }
            hasher.end().unwrap();
        }
        for &text in &texts {
            let right: [u8; 32] = Sha256::digest(vec![7; text]).into();
            assert_eq!(hasher.hash().unwrap(), Hex(right), "{text} bytes");
        }
        assert!(hasher.hash_at_hand().is_none());
        assert!(hasher.chunks <= CHUNKS_MAX);
    }
}
