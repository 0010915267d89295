//! The deleted keys that a cursor steps over on its way, and the word that it leaves of them ([`crate::gaps`]).

use std::sync::Arc;

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
        (store, own, sequence): (&Store, &KeyspaceView, SequenceNumber),
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
        let gaps = &own.keyspace.gaps;
        let watched = store.if_nobody_commits(|last_sequence| {
            // Not for readers at `sequence`: of those between there and now nothing is known. A value may have been written and deleted
            // in between, and merged away with its tombstone, while a cursor still has the tables in which it lives.
            let watched = gaps.watch(first, end, last_sequence)?;
            Some((watched, last_sequence))
        });
        let Some((watched, last_sequence)) = watched else {
            return;
        };
        // Only now: what was written before is in what this shows.
        let pinned = store.views.pin();
        let view = pinned.keyspace(own.keyspace.id);
        let is_clean = last_sequence == sequence
            || view.is_some_and(|view| {
                Arc::ptr_eq(&view.version, &own.version)
                    && matches!(nothing_since(view, sequence, &watched), Ok(true))
            });
        if is_clean {
            gaps.confirm(&watched);
        } else {
            gaps.abandon(&watched);
        }
    }
}

/// Whether no value was written into what is watched since `sequence`. Those that the cursor's own view lacks are in memtables, if
/// the tables are still those of that view: their numbers alone say nothing, as what nobody older can ask for is written with
/// number 0. What a snapshot from before that view lacks may be in its tables, and has its number there.
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

#[cfg(all(test, not(vault_model)))]
mod tests {
    use vault_core::vfs::{FileSystem, MemoryFileSystem};
    use vault_core::{Cursor, Engine, KeyRange, KeyspaceId, KeyspaceOptions, Reader, WriteOptions};

    use super::*;
    use crate::{BackgroundWork, Lsm, LsmOptions};

    fn key(number: u64) -> [u8; 8] {
        number.to_be_bytes()
    }

    fn filled(entries: u64) -> (Lsm, KeyspaceId) {
        let fs: Arc<dyn FileSystem> = Arc::new(MemoryFileSystem::new());
        let options = LsmOptions::default().background(BackgroundWork::Manual);
        let store = Lsm::open("/store", options.file_system(fs)).expect("nothing hinders this");
        let options = KeyspaceOptions::default();
        let ks = store
            .create_keyspace("k", &options)
            .expect("nothing hinders this");
        for number in 0..entries {
            store
                .put(ks, &key(number), b"value", &WriteOptions::OS)
                .expect("nothing hinders this");
        }
        (store, ks)
    }

    fn delete(store: &Lsm, ks: KeyspaceId, numbers: std::ops::Range<u64>) {
        for number in numbers {
            store
                .delete(ks, &key(number), &WriteOptions::OS)
                .expect("nothing hinders this");
        }
    }

    fn cursor(store: &Lsm, ks: KeyspaceId) -> Box<dyn Cursor> {
        store
            .cursor(ks, KeyRange::all())
            .expect("nothing hinders this")
    }

    /// How far a reader of this moment passes from a key, in one step.
    fn passed_from(store: &Lsm, ks: KeyspaceId, number: u64) -> Option<Vec<u8>> {
        let view = store.store().views.pin();
        let mut end = Vec::new();
        let gaps = &view
            .keyspace(ks)
            .expect("nothing hinders this")
            .keyspace
            .gaps;
        let snapshot = store.latest_sequence();
        gaps.end_of(&key(number), snapshot, &mut end).then_some(end)
    }

    fn behind(number: u64) -> Vec<u8> {
        [&key(number)[..], &[0]].concat()
    }

    #[test]
    fn the_first_cursor_leaves_word_for_the_others_going_either_way() {
        let (store, ks) = filled(1000);
        delete(&store, ks, 200..800);
        assert_eq!(passed_from(&store, ks, 200), None);
        let mut forward = cursor(&store, ks);
        forward.seek(&key(300)).unwrap();
        assert_eq!(forward.entry().unwrap().0, key(800));
        assert_eq!(passed_from(&store, ks, 300).unwrap(), behind(799));
        assert_eq!(passed_from(&store, ks, 299), None, "nobody was there yet");
        let mut backward = cursor(&store, ks);
        backward.seek_back(&key(500)).unwrap();
        assert_eq!(backward.entry().unwrap().0, key(199));
        assert_eq!(
            passed_from(&store, ks, 200).unwrap(),
            behind(799),
            "one gap"
        );
    }

    /// A queue: however many were popped, what lies before the head is known but for a few.
    #[test]
    fn what_was_popped_off_a_queue_is_not_stepped_over_again() {
        let (store, ks) = filled(2000);
        for head in 0..1500 {
            let mut queue = cursor(&store, ks);
            queue.first().unwrap();
            assert_eq!(queue.entry().unwrap().0, key(head));
            drop(queue);
            store.delete(ks, &key(head), &WriteOptions::OS).unwrap();
            store
                .put(ks, &key(10_000 + head), b"value", &WriteOptions::OS)
                .unwrap();
            if head > WORTH_LEAVING {
                let end = passed_from(&store, ks, 0).unwrap();
                let left = head - u64::from_be_bytes(end[..8].try_into().unwrap());
                assert!(left <= WORTH_LEAVING + 1, "{left} before {head}");
            }
        }
    }

    /// Somebody wrote between the reader's moment and the one at which it leaves word. By its number alone the write could not be
    /// told where it was flushed meanwhile: with nothing below it is written with number 0, and the gap hid it from everybody.
    #[test]
    fn a_reader_that_missed_a_write_leaves_no_word_over_it() {
        let (store, ks) = filled(1000);
        delete(&store, ks, 200..800);
        let mut early = cursor(&store, ks);
        store.put(ks, &key(500), b"new", &WriteOptions::OS).unwrap();
        early.seek(&key(200)).unwrap();
        assert_eq!(early.entry().unwrap().0, key(800), "it is from before");
        assert_eq!(passed_from(&store, ks, 200), None);
        let mut late = cursor(&store, ks);
        late.seek(&key(200)).unwrap();
        assert_eq!(late.entry().unwrap().0, key(500));
        // Also where that write is in a table by then; and deletes don't matter.
        delete(&store, ks, 500..501);
        let mut early = cursor(&store, ks);
        store.put(ks, &key(600), b"new", &WriteOptions::OS).unwrap();
        store.flush(None).unwrap();
        early.seek(&key(550)).unwrap();
        assert_eq!(early.entry().unwrap().0, key(800));
        assert_eq!(passed_from(&store, ks, 560), None);
        let mut late = cursor(&store, ks);
        late.seek(&key(550)).unwrap();
        assert_eq!(late.entry().unwrap().0, key(600));
    }

    /// A snapshot left word at its own number, after a value that it does not see had come, gone, and been merged away; and a cursor from
    /// between, which still had the tables with that value, was sent across it.
    #[test]
    fn a_snapshot_leaves_no_word_for_readers_between_its_moment_and_now() {
        let (store, ks) = filled(50);
        // Keeps the tombstones that follow.
        let _kept = store.snapshot().unwrap();
        delete(&store, ks, 0..50);
        let old = store.snapshot().unwrap();
        let compact = || {
            store.flush(None).unwrap();
            let go_on = &mut |_| std::ops::ControlFlow::Continue(());
            store.compact(ks, KeyRange::all(), go_on).unwrap();
        };
        compact();
        let middle = [&key(25)[..], b"-and-a-half"].concat();
        store.put(ks, &middle, b"value", &WriteOptions::OS).unwrap();
        let (mut forward, mut backward) = (cursor(&store, ks), cursor(&store, ks));
        store.delete(ks, &middle, &WriteOptions::OS).unwrap();
        compact();
        let mut through_old = old.cursor(ks, KeyRange::all()).unwrap();
        through_old.first().unwrap();
        assert_eq!(through_old.entry(), None);
        assert_eq!(
            passed_from(&store, ks, 0).unwrap(),
            behind(49),
            "word was left"
        );
        forward.first().unwrap();
        assert_eq!(forward.entry().unwrap().0, middle);
        backward.last().unwrap();
        assert_eq!(backward.entry().unwrap().0, middle);
    }

    #[test]
    fn what_has_expired_is_nothing_to_leave_word_of() {
        let (store, ks) = filled(10);
        let mut batch = vault_core::WriteBatch::new();
        let expiry = store
            .now()
            .after(std::time::Duration::from_millis(1))
            .unwrap();
        for number in 100..300 {
            batch.put_until(ks, &key(number), b"soon gone", expiry);
        }
        store.write(&batch, &WriteOptions::OS).unwrap();
        while store.now() <= expiry {
            std::thread::yield_now();
        }
        let mut forward = cursor(&store, ks);
        forward.seek(&key(100)).unwrap();
        assert_eq!(forward.entry(), None);
        assert_eq!(passed_from(&store, ks, 150), None);
    }
}
