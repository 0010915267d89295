//! Iteration over a range, from either end.

use std::iter::FusedIterator;

use crate::engine::Cursor;
use crate::error::Result;
use crate::slice::Slice;

/// The entries of a range in ascending order ([`Iterator::next`]) or descending order
/// ([`DoubleEndedIterator::next_back`]), each exactly once however the two are mixed.
///
/// An error ends the scan. For speed beyond what owned pairs allow, use the
/// [`Cursor`] underneath.
pub struct Scan {
    front: Box<dyn Cursor>,
    back: Option<Box<dyn Cursor>>,
    front_begun: bool,
    back_begun: bool,
    done: bool,
}

impl Scan {
    /// Iterates over the range of an unpositioned cursor.
    #[must_use]
    pub fn new(cursor: Box<dyn Cursor>) -> Self {
        Self {
            front: cursor,
            back: None,
            front_begun: false,
            back_begun: false,
            done: false,
        }
    }

    /// Takes the entry that `which` end stands on, unless the two ends have met.
    fn take(&mut self, which: End) -> Option<Result<(Slice, Slice)>> {
        let back_key = self
            .back
            .as_ref()
            .and_then(|back| back.entry())
            .map(|(key, _)| key);
        let front_key = self.front.entry().map(|(key, _)| key);
        let met = match which {
            End::Front => self.back_begun && (front_key >= back_key || back_key.is_none()),
            End::Back => self.front_begun && (back_key <= front_key || front_key.is_none()),
        };
        let cursor = match which {
            End::Front => Some(&self.front),
            End::Back => self.back.as_ref(),
        };
        match cursor.and_then(|cursor| Some((cursor.entry()?.0, cursor))) {
            Some((key, cursor)) if !met => Some(Ok((Slice::from(key), cursor.value()))),
            _ => {
                self.done = true;
                None
            }
        }
    }

    fn fail(&mut self, error: crate::Error) -> Option<Result<(Slice, Slice)>> {
        self.done = true;
        Some(Err(error))
    }

    fn advance_front(&mut self) -> Result<()> {
        if self.front_begun {
            self.front.next()
        } else {
            self.front.first()
        }
    }

    fn advance_back(&mut self) -> Result<()> {
        let back = match &mut self.back {
            Some(back) => back,
            none => none.insert(self.front.fork()?),
        };
        if self.back_begun {
            back.prev()
        } else {
            back.last()
        }
    }
}

#[derive(Clone, Copy)]
enum End {
    Front,
    Back,
}

impl Iterator for Scan {
    type Item = Result<(Slice, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if let Err(error) = self.advance_front() {
            return self.fail(error);
        }
        self.front_begun = true;
        self.take(End::Front)
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if let Err(error) = self.advance_back() {
            return self.fail(error);
        }
        self.back_begun = true;
        self.take(End::Back)
    }
}

impl FusedIterator for Scan {}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan")
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}
