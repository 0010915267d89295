//! Buffers for encoded keys and values that live no longer than a call.
//!
//! Each thread keeps a few, so that a verb makes no allocation of its own. (A `get` of a key in memory takes some 700 ns; an
//! allocation and its end about 40 of them.)

use std::cell::RefCell;
use std::ops::Deref;

/// Buffers that a thread keeps.
const KEPT_MAX: usize = 4;
/// Larger ones are given back.
const KEPT_BYTES_MAX: usize = 64 << 10;

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that goes back to its thread.
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    /// Has a buffer filled.
    #[inline]
    pub(crate) fn filled<E>(fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Self, E> {
        let kept = KEPT.try_with(|kept| kept.try_borrow_mut().ok()?.pop());
        let mut scratch = Self(kept.ok().flatten().unwrap_or_default());
        fill(&mut scratch.0)?;
        Ok(scratch)
    }
}

impl Deref for Scratch {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        if buffer.capacity() > KEPT_BYTES_MAX {
            return;
        }
        buffer.clear();
        let _ = KEPT.try_with(|kept| {
            if let Ok(mut kept) = kept.try_borrow_mut()
                && kept.len() < KEPT_MAX
            {
                kept.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(bytes: &[u8]) -> Scratch {
        let filled: Result<_, ()> = Scratch::filled(|out| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        filled.unwrap()
    }

    #[test]
    fn buffers_come_back_empty_and_few() {
        let many: Vec<Scratch> = (0..10).map(|n| filled(&[n; 100])).collect();
        assert!(
            many.iter()
                .enumerate()
                .all(|(n, one)| one[..] == [n as u8; 100])
        );
        drop(many);
        drop(filled(&vec![7; KEPT_BYTES_MAX * 2]));
        KEPT.with_borrow(|kept| {
            // The large one was made of one of these.
            assert_eq!(kept.len(), KEPT_MAX - 1);
            assert!(
                kept.iter()
                    .all(|buffer| buffer.is_empty() && buffer.capacity() <= KEPT_BYTES_MAX)
            );
        });
        assert_eq!(&filled(b"again")[..], b"again");
    }
}
