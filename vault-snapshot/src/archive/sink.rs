//! What lies between the zip writer and an [`Upload`]: it gathers small writes, lets what it still holds be written
//! over, and keeps the first error as it was.
//!
//! The zip writer finishes its archive when it is dropped. An archive that was given up must not be finished, so a sink
//! that was [given up](SinkHandle::give_up) takes everything and passes on nothing.

use std::cell::RefCell;
use std::io::{self, Seek, SeekFrom, Write};
use std::rc::Rc;

use super::error::{Error, Result};
use crate::destination::Upload;

/// How much is gathered, in bytes.
const GATHERED_BYTES: usize = 256 * 1024;

struct State {
    upload: Box<dyn Upload>,
    /// What is not handed on yet; it begins at `gathered_at`.
    gathered: Vec<u8>,
    gathered_at: u64,
    position: u64,
    /// How far was ever written.
    end: u64,
    failed: Option<Error>,
    given_up: bool,
}

/// Where the zip writer writes.
pub(super) struct Sink(Rc<RefCell<State>>);

/// The other end of a [`Sink`].
pub(super) struct SinkHandle(Rc<RefCell<State>>);

/// A sink over an upload, and its handle.
pub(super) fn sink(upload: Box<dyn Upload>) -> (Sink, SinkHandle) {
    let state = Rc::new(RefCell::new(State {
        upload,
        gathered: Vec::with_capacity(GATHERED_BYTES),
        gathered_at: 0,
        position: 0,
        end: 0,
        failed: None,
        given_up: false,
    }));
    (Sink(Rc::clone(&state)), SinkHandle(state))
}

impl SinkHandle {
    /// Hands on what is left and makes it durable.
    pub(super) fn finish(&self) -> Result<()> {
        let mut state = self.0.borrow_mut();
        state.hand_on()?;
        state.upload.finish()
    }

    /// From now on nothing is handed on any more.
    pub(super) fn give_up(&self) {
        let mut state = self.0.borrow_mut();
        if !state.given_up {
            state.given_up = true;
            state.upload.abort();
        }
    }

    /// What went wrong first, if anything did.
    pub(super) fn failure(&self) -> Option<Error> {
        self.0.borrow_mut().failed.take()
    }
}

impl State {
    fn hand_on(&mut self) -> Result<()> {
        if !self.gathered.is_empty() {
            self.upload.write(&self.gathered, self.gathered_at)?;
            self.gathered_at += self.gathered.len() as u64;
            self.gathered.clear();
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let gathered_end = self.gathered_at + self.gathered.len() as u64;
        if self.position < self.gathered_at {
            // A header, written again where it was handed on already: all of it, or its beginning.
            let before = self.gathered_at - self.position;
            let before = usize::try_from(before).map_or(bytes.len(), |n| n.min(bytes.len()));
            self.upload.write(&bytes[..before], self.position)?;
            let behind = &bytes[before..];
            let inside = behind.len().min(self.gathered.len());
            self.gathered[..inside].copy_from_slice(&behind[..inside]);
            self.gathered.extend_from_slice(&behind[inside..]);
            Ok(())
        } else if self.position < gathered_end {
            // Within what is gathered, and perhaps beyond its end.
            let at = usize::try_from(self.position - self.gathered_at).unwrap_or(usize::MAX);
            let inside = bytes.len().min(self.gathered.len() - at);
            self.gathered[at..at + inside].copy_from_slice(&bytes[..inside]);
            self.gathered.extend_from_slice(&bytes[inside..]);
            Ok(())
        } else if bytes.len() >= GATHERED_BYTES {
            self.hand_on()?;
            self.gathered_at = self.position + bytes.len() as u64;
            self.upload.write(bytes, self.position)
        } else {
            if self.gathered.len() + bytes.len() > GATHERED_BYTES {
                self.hand_on()?;
            }
            if self.gathered.is_empty() {
                self.gathered_at = self.position;
            }
            self.gathered.extend_from_slice(bytes);
            Ok(())
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        if !state.given_up
            && let Err(error) = state.write(bytes)
        {
            state.failed.get_or_insert(error);
            return Err(io::Error::other("the destination failed"));
        }
        state.position += bytes.len() as u64;
        state.end = state.end.max(state.position);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Sink {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut state = self.0.borrow_mut();
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => state.position.checked_add_signed(by),
            SeekFrom::End(by) => state.end.checked_add_signed(by),
        };
        // Beyond the end there is nothing to write over.
        let inside = position.filter(|position| *position <= state.end);
        state.position = inside.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(state.position)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use vault_core::random::SeededRandom;

    use super::*;

    #[derive(Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Upload for Memory {
        fn rewrites(&self) -> bool {
            true
        }

        fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
            let mut all = self.0.lock().unwrap();
            let end = offset as usize + bytes.len();
            assert!(offset as usize <= all.len(), "a gap before {offset}");
            if all.len() < end {
                all.resize(end, 0);
            }
            all[offset as usize..end].copy_from_slice(bytes);
            Ok(())
        }

        fn finish(&mut self) -> Result<()> {
            Ok(())
        }

        fn abort(&mut self) {}
    }

    #[test]
    fn whatever_is_written_where_ends_up_there() {
        let random = SeededRandom::new(11);
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let (mut sink, handle) = sink(Box::new(Memory(Arc::clone(&written))));
        let mut model = io::Cursor::new(Vec::new());
        for step in 0..400u64 {
            let len = match random.next_u64() % 8 {
                0 => GATHERED_BYTES + 3,
                1 => GATHERED_BYTES / 2,
                _ => (random.next_u64() % 90) as usize,
            };
            let bytes = vec![step as u8; len];
            sink.write_all(&bytes).unwrap();
            model.write_all(&bytes).unwrap();
            if step % 3 == 0 {
                // A header: it never reaches beyond what is there.
                let end = model.get_ref().len() as u64;
                let room = random.next_u64() % 30.min(end + 1);
                let near = [end - room, random.next_u64() % (end - room + 1)];
                let back = SeekFrom::Start(near[(step % 2) as usize]);
                let header = vec![255; room as usize];
                assert_eq!(sink.seek(back).unwrap(), model.seek(back).unwrap());
                sink.write_all(&header).unwrap();
                model.write_all(&header).unwrap();
                let ends = [sink.seek(SeekFrom::End(0)), model.seek(SeekFrom::End(0))];
                let [one, other] = ends.map(Result::unwrap);
                assert_eq!(one, other);
            }
        }
        handle.finish().unwrap();
        assert!(*written.lock().unwrap() == *model.get_ref());
    }
}
