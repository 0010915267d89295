//! The deleted keys that a cursor steps over on its way, and the word that it leaves of them ([`crate::gaps`]).

use vault_core::batch::OperationKind;
use vault_core::{Result, SequenceNumber};

use crate::cursor::InternalCursor;
use crate::gaps::Watched;
use crate::internal_key::{kind_of, sequence_of};
use crate::keyspace::KeyspaceView;
use crate::store::Store;

/// Fewer are stepped over as fast as they are looked up.
const WORTH_LEAVING: u64 = 24;
/// Each time so many were stepped over, it is asked whether more is known.
const ASK_EVERY: u64 = 16;

/// Deleted keys side by side, as one cursor meets them in one direction.
#[derive(Default)]
pub(super) struct Deleted {
    count: u64,
    /// Where they begin, in the direction of the cursor.
    begin: Vec<u8>,
    /// The one that was met last; or how far a known gap reaches.
    last: Vec<u8>,
    /// Whether `last` is the end of a gap, and so not part of it.
    last_is_end: bool,
}

impl Deleted {
    /// The cursor stands on an entry, or goes on from what was gone for other reasons.
    #[inline]
    pub(super) const fn begin_anew(&mut self) {
        self.count = 0;
    }

    pub(super) fn add(&mut self, key: &[u8]) {
        if self.count == 0 {
            self.begin.clear();
            self.begin.extend_from_slice(key);
        }
        self.count += 1;
        self.last.clear();
        self.last.extend_from_slice(key);
        self.last_is_end = false;
    }

    /// Whether it is time to ask what is known of the way ahead.
    pub(super) const fn may_pass(&self) -> bool {
        self.count % ASK_EVERY == 1
    }

    /// Where to put how far a known gap reaches. Kept only if there is one.
    pub(super) const fn passed_to(&mut self) -> &mut Vec<u8> {
        &mut self.last
    }

    /// The end of a known gap was put there.
    pub(super) const fn passed_to_end(&mut self) {
        self.last_is_end = true;
    }

    /// The last one, or how far was passed.
    pub(super) fn last(&self) -> &[u8] {
        &self.last
    }

    #[inline]
    pub(super) const fn is_worth_leaving(&self) -> bool {
        self.count >= WORTH_LEAVING
    }

    /// Leaves word of what was stepped over, for readers of this keyspace from this moment on, if nobody is in the way.
    pub(super) fn leave_word(
        &mut self,
        (store, view, sequence): (&Store, &KeyspaceView, SequenceNumber),
        forward: bool,
    ) {
        let (first, end) = if forward {
            if !self.last_is_end {
                self.last.push(0);
            }
            (&self.begin, &self.last)
        } else {
            self.begin.push(0);
            (&self.last, &self.begin)
        };
        let gaps = &view.keyspace.gaps;
        let watched = store.if_nobody_commits(|last_sequence| {
            let watched = gaps.watch(first, end, sequence)?;
            Some((watched, last_sequence))
        });
        let Some((watched, last_sequence)) = watched else {
            return;
        };
        // Only now: what was written before is in what this shows.
        let pinned = store.views.pin();
        let view = pinned.keyspace(view.keyspace.id);
        let is_clean = last_sequence == sequence
            || view.is_some_and(|view| matches!(nothing_since(view, sequence, &watched), Ok(true)));
        if is_clean {
            gaps.confirm(&watched);
        } else {
            gaps.abandon(&watched);
        }
    }
}

/// Whether no value was written into what is watched since `sequence`: those would be in memtables, unless there are newer tables.
fn nothing_since(view: &KeyspaceView, sequence: SequenceNumber, watched: &Watched) -> Result<bool> {
    let mut tables = view.version.tables();
    if tables.any(|(_, _, file)| file.meta().sequence_max > sequence) {
        return Ok(false);
    }
    for buffer in view.buffers().filter(|buffer| !buffer.is_empty()) {
        let mut entries = buffer.memtable.cursor();
        entries.seek(&watched.from, u64::MAX)?;
        while entries.valid() && entries.key() < watched.to.as_slice() {
            let trailer = entries.trailer();
            let is_delete = kind_of(trailer) == Some(OperationKind::Delete);
            if sequence_of(trailer) > sequence && !is_delete {
                return Ok(false);
            }
            entries.next()?;
        }
    }
    Ok(true)
}
