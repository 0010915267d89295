//! What is kept for a shipper: log segments that are not shipped yet, open, and what has become of keyspaces and keys meanwhile.
//!
//! A segment that the store lets go of loses its name at once, as without a shipper: so a dropped keyspace is erased from the directory
//! whoever ships. The shipper reads on through the open file, whose space comes back when it has been shipped, or when more is
//! held so than the options allow.

use std::collections::BTreeMap;
use std::sync::Arc;

use vault_core::transform::{HEADER_BYTES, Keys};
use vault_core::vfs::File;
use vault_core::{Error, Result, SequenceNumber};

use super::ShipPosition;
use crate::log::{Segment, Start};
use crate::manifest::{Edit, Manifest, State};
use crate::store::{Store, lock};
use crate::sync::Mutex;

/// What is kept for the one shipper that there may be. Its lock is taken after all others.
#[derive(Default)]
pub(crate) struct Shipping {
    kept: Mutex<Option<Kept>>,
}

/// What is kept while there is a shipper.
pub(super) struct Kept {
    pub(super) segments: BTreeMap<u64, KeptSegment>,
    /// What became of keyspaces behind which write, with the checksum over all keyspaces afterwards.
    pub(super) changes: Vec<(SequenceNumber, Edit, u32)>,
    /// The keyring as it was before and after it changed.
    pub(super) keyrings: Vec<Vec<u8>>,
    /// The version of the keyring that was shipped last, or is to be.
    pub(super) keyring_version: u64,
    /// Up to where everything is shipped.
    pub(super) shipped: ShipPosition,
    /// Why a part of the log is missing behind that.
    pub(super) lost: Option<&'static str>,
    retained_bytes_max: u64,
}

/// A log segment that is to be shipped.
#[derive(Clone)]
pub(super) struct KeptSegment {
    pub(super) file: Arc<dyn File>,
    /// The log position at which its records begin.
    pub(super) base: u64,
    /// The log position at which they end, where another segment has followed.
    pub(super) end: Option<u64>,
    /// The last write before it, where that is known.
    pub(super) before: SequenceNumber,
    /// Whether the store needs it no more.
    pub(super) let_go: bool,
}

impl KeptSegment {
    /// Notes that it ends at this byte offset.
    fn ends_at(&mut self, offset: u64) {
        let records = offset.saturating_sub(HEADER_BYTES as u64);
        self.end = Some(self.base + records);
    }
}

impl Kept {
    pub(super) fn new(shipped: ShipPosition, retained_bytes_max: u64) -> Self {
        Self {
            segments: BTreeMap::new(),
            changes: Vec::new(),
            keyrings: Vec::new(),
            keyring_version: 0,
            shipped,
            lost: None,
            retained_bytes_max,
        }
    }

    /// Adds a segment, behind those that are there.
    pub(super) fn add(&mut self, number: u64, segment: KeptSegment, start: &Start) {
        if let Some(previous) = self.segments.get_mut(&start.previous) {
            previous.ends_at(start.previous_end);
        }
        self.segments.insert(number, segment);
    }

    /// Lets go of what was shipped, and of the oldest where too much is held.
    pub(super) fn trim(&mut self) {
        let shipped = self.shipped.log;
        self.segments
            .retain(|_, segment| segment.end.is_none_or(|end| end > shipped));
        let held = |segment: &KeptSegment| match segment.end {
            Some(end) if segment.let_go => end - segment.base,
            _ => 0,
        };
        let mut bytes: u64 = self.segments.values().map(held).sum();
        while bytes > self.retained_bytes_max
            && let Some((_, oldest)) = self.segments.pop_first()
        {
            bytes -= held(&oldest);
            self.lost = Some("more was written than is kept for a shipper that falls behind");
        }
    }

    /// Keeps the keyring as it is now, if it is not shipped yet in this state.
    pub(super) fn keep_keyring(&mut self, keys: &dyn Keys) -> Result<()> {
        if self.keyring_version != keys.version() {
            let version = keys.version();
            self.keyrings.push(keys.copied()?);
            self.keyring_version = version;
        }
        Ok(())
    }
}

impl Shipping {
    /// Begins to keep. One shipper at a time.
    pub(super) fn begin(&self, kept: Kept) -> Result<()> {
        let mut place = lock(&self.kept);
        if place.is_some() {
            return Err(Error::InvalidSetting {
                setting: "log shipper",
                problem: "the store has one already; drop it first".to_owned(),
            });
        }
        *place = Some(kept);
        Ok(())
    }

    /// Keeps nothing any more.
    pub(super) fn end(&self) {
        let kept = lock(&self.kept).take();
        // Closing long files takes a while.
        drop(kept);
    }

    /// Whether anybody ships.
    pub(crate) fn is_under_way(&self) -> bool {
        lock(&self.kept).is_some()
    }

    /// Runs `act` on what is kept; `None` where there is no shipper.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> Option<T> {
        lock(&self.kept).as_mut().map(act)
    }

    /// Hears that a segment takes records from now on, behind the write `before`.
    pub(crate) fn segment_begun(&self, segment: &Segment, start: &Start, before: SequenceNumber) {
        self.with(|kept| {
            let place = KeptSegment {
                file: Arc::clone(&segment.file),
                base: start.base,
                end: None,
                before,
                let_go: false,
            };
            kept.add(segment.number, place, start);
        });
    }

    /// Hears that the store needs no segment below this one any more.
    pub(crate) fn let_go_below(&self, floor: u64) {
        self.with(|kept| {
            for (_, segment) in kept.segments.range_mut(..floor) {
                segment.let_go = true;
            }
            kept.trim();
        });
    }

    /// Hears that a keyspace has come, changed or gone, as the manifest says by now, and before anybody writes to a new one.
    pub(crate) fn changed(&self, store: &Store, manifest: &Manifest, edit: Edit) {
        let sequence = store.visible.load(std::sync::atomic::Ordering::Acquire);
        self.with(|kept| {
            let keyspaces = checksum(manifest.state());
            kept.changes.push((sequence, edit, keyspaces));
        });
    }

    /// Hears that the keys are about to be replaced: what they seal may not have been shipped yet.
    pub(crate) fn keys_change(&self, keys: &dyn Keys) -> Result<()> {
        self.with(|kept| kept.keep_keyring(keys)).unwrap_or(Ok(()))
    }
}

/// Tells whether there are the same keyspaces. Their names are left out: who keeps shipments of an encrypted store is not to
/// be able to guess them.
pub(super) fn checksum(state: &State) -> u32 {
    let mut bytes = Vec::new();
    for (&id, keyspace) in &state.keyspaces {
        let options = keyspace.options.clone();
        Edit::AlterKeyspace { id, options }.encode(&mut bytes);
    }
    crc32fast::hash(&bytes)
}
