//! The one rule of which versions stay when runs are merged.
//!
//! # What a reader sees
//! A reader stands at a sequence number `s` and a moment `τ`. Of one key it sees the versions and the
//! covering range tombstones with a sequence of at most `s`, and walks the versions newest first:
//!
//! - a put ends the walk with its value, unless its expiry is at or before `τ`: then with nothing;
//! - a delete ends it with nothing;
//! - a merge adds its operand and goes on, unless expired: then it ends the walk with nothing;
//! - a range tombstone newer than the version that is next ends it with nothing, and so does the end.
//!
//! The answer is the operands, oldest first, merged over what ended the walk; without operands and
//! over nothing the key is absent. Time only moves forward: what has expired at [`Rules::now`] stays
//! expired. (A reader whose clock was set back behind that of a merge finds some entries gone before
//! their time, but never an older value in their place: `docs/adr/0012-wall-clock.md`.)
//!
//! # Who reads
//! The snapshots in [`Rules::snapshots`], and everyone who comes later: those see every version of
//! the merge. **Contract:** if a reader may yet be opened at a sequence below the newest version of
//! the inputs (a write that is not published yet has been flushed), that sequence is among the
//! snapshots. Newer versions may lie above the merge, and older ones below it unless it is
//! `bottommost`, but per key nothing in between: all above is newer, all below is older than any
//! version and any covering range tombstone of the inputs.
//!
//! # The rule and why it holds
//! Snapshots cut the sequence numbers into *stripes*: two versions share one if no snapshot sees the
//! older and not the newer.
//!
//! 1. **Hidden versions go.** Call a version an *end* if it ends every walk from now on: a put
//!    (whatever its expiry), a delete, an expired merge. A live merge isn't one: it may expire later,
//!    but until then what lies below it is needed. A version goes if a newer end, or a covering range
//!    tombstone, shares its stripe. Proof: whoever sees the version sees what shares its stripe and is
//!    newer, so no walk arrives. Nothing else is hidden: the oldest reader who sees the version sees
//!    nothing of newer stripes, walks through live merges only, and arrives.
//! 2. **The value of an expired version goes.** What must still end walks stays as a delete with its
//!    sequence ([`Fate::KeepAsTombstone`]).
//! 3. **A delete over nothing goes.** If every walk that passes the place of a delete would end with
//!    nothing anyway, the delete adds nothing. That is so if the next older thing that stays is a
//!    delete or a covering range tombstone (older, thus seen by all who see the delete), or if there is
//!    nothing older in the merge and the merge is bottommost. No snapshot can tell: it is not about
//!    who sees it, but about what they find behind it.
//! 4. **Merges fold.** Live merges without expiry that stand next to each other in one stripe are seen
//!    together or not at all, so they may become one version with the sequence of the newest: a put
//!    if what is below them ends every walk in a known way that never changes, else a combined
//!    operand. A put or delete below them *in their stripe* is swallowed by the put that they
//!    become, bottommost or not: the put ends each walk that the swallowed version would have ended.
//!    A delete in an older stripe, a range tombstone, or the bottom serve as "nothing" as well, and
//!    stay what they are. Operators must make `merge(merge(b, x), y)` equal `merge(b, x ++ y)`.
//! 5. **What carries a live expiry is left alone.** Folding a live expiring operand or put with others
//!    would need a version that changes into another value rather than vanishing.
//!
//! Each step leaves the answer of every reader, at every later moment, over any older and under any
//! newer versions as it was, so the steps compose, over any number of merges.
//!
//! ```
//! use vault_core::Timestamp;
//! use vault_snapshot::visibility::{Decision, DropReason, Fate, Rules, Version, VersionKind};
//! let rules = Rules { snapshots: vec![], bottommost: false, now: Timestamp(0) };
//! let put = |sequence| Version { sequence, kind: VersionKind::Put, expiry: None };
//! let mut decision = Decision::default();
//! rules.decide(&[put(9), put(4)], &[], &mut decision);
//! assert_eq!(decision.fates, [Fate::Keep, Fate::Drop(DropReason::Obsolete)]);
//! ```

use vault_core::Timestamp;

/// What a version does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VersionKind {
    /// Sets the value.
    Put,
    /// Removes the key.
    Delete,
    /// Adds an operand for the merge operator.
    Merge,
}

/// One version of a key, without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// Its place in the order of all writes.
    pub sequence: u64,
    /// What it does.
    pub kind: VersionKind,
    /// From when on it reads as a delete. Ignored on deletes.
    pub expiry: Option<Timestamp>,
}

impl Version {
    fn is_expired(&self, now: Timestamp) -> bool {
        self.kind != VersionKind::Delete && self.expiry.is_some_and(|expiry| expiry <= now)
    }

    /// Whether every walk ends here with nothing, now and ever after.
    fn is_absence(&self, now: Timestamp) -> bool {
        self.kind == VersionKind::Delete || self.is_expired(now)
    }

    /// Whether every walk ends here, with a value or with nothing, now and ever after.
    fn is_end(&self, now: Timestamp) -> bool {
        self.kind != VersionKind::Merge || self.is_expired(now)
    }
}

/// Why a version does not go into the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// A newer version hides it from everyone.
    Obsolete,
    /// It is a delete with nothing left to delete.
    Tombstone,
    /// It has expired and hides nothing.
    Expired,
    /// A range tombstone hides it from everyone.
    RangeDeleted,
}

/// What becomes of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It goes into the output as it is.
    Keep,
    /// It has expired but must go on hiding older versions: a delete with its sequence and neither
    /// value nor expiry goes into the output.
    KeepAsTombstone,
    /// It does not go into the output.
    Drop(DropReason),
    /// It is part of one of [`Decision::folds`].
    Fold,
}

/// What the operands of a [`Fold`] are merged over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FoldBase {
    /// The put at [`Fold::oldest`]. The outcome is a put.
    Value,
    /// Nothing. The outcome is a put. `versions[oldest]` may itself be the delete (or expired version)
    /// below the operands: it is used up, and gives no operand. See [`Fold::operand_oldest`].
    Nothing,
    /// It is not known or can change: the outcome is one merge with the combined operand. If the
    /// operator can't combine them, each member goes into the output as it is.
    Unknown,
}

/// Versions that become one, with the sequence of the newest of them and no expiry.
///
/// If the operator fails or can't combine, writing every member as it is (an expired one may be
/// written as a delete) is always right too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fold {
    /// Index of the newest member: always an operand.
    pub newest: usize,
    /// Index of the oldest member: an operand, or what the operands are merged over.
    pub oldest: usize,
    /// Index of the oldest member that is an operand.
    pub operand_oldest: usize,
    /// What the operands are merged over.
    pub base: FoldBase,
}

/// The fates of the versions of one key. Reused from key to key, so that deciding allocates nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// One for each version, in their order.
    pub fates: Vec<Fate>,
    /// The groups of the versions whose fate is [`Fate::Fold`], newest first, disjoint.
    pub folds: Vec<Fold>,
}

/// What a merge knows when it decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The sequences at which readers stand or may yet be opened below the newest version of the
    /// inputs: ascending, without duplicates. See [`Rules::new`].
    pub snapshots: Vec<u64>,
    /// Whether nothing older than the inputs overlaps them outside the merge.
    pub bottommost: bool,
    /// The smallest time that any later reader goes by.
    pub now: Timestamp,
}

impl Rules {
    /// Takes snapshots in any order, duplicates and all.
    #[must_use]
    pub fn new(mut snapshots: Vec<u64>, bottommost: bool, now: Timestamp) -> Self {
        snapshots.sort_unstable();
        snapshots.dedup();
        Self {
            snapshots,
            bottommost,
            now,
        }
    }

    /// Decides the fate of each of `versions` (of one key, newest first). `covering` are the
    /// sequences of the range tombstones of the inputs that cover the key, descending. `out` is
    /// overwritten.
    pub fn decide(&self, versions: &[Version], covering: &[u64], out: &mut Decision) {
        debug_assert!(self.snapshots.is_sorted_by(|a, b| a < b));
        debug_assert!(versions.is_sorted_by(|a, b| a.sequence > b.sequence));
        debug_assert!(covering.is_sorted_by(|a, b| a >= b));
        out.fates.clear();
        out.folds.clear();
        // By far the most common key has one version that nothing hides.
        if let ([version], []) = (versions, covering)
            && version.kind == VersionKind::Put
            && !version.is_expired(self.now)
        {
            out.fates.push(Fate::Keep);
            return;
        }
        self.drop_hidden(versions, covering, &mut out.fates);
        self.simplify(versions, covering, out);
    }

    /// Whether a range tombstone with this sequence must go into the output.
    ///
    /// At the bottom, one that no snapshot is older than has nothing left to hide: every version it
    /// covers is older, shares its stripe, and was dropped.
    #[must_use]
    pub fn range_tombstone_stays(&self, sequence: u64) -> bool {
        !self.bottommost || self.snapshots.first().is_some_and(|&s| s < sequence)
    }

    /// Whether, where both cover the same keys and are inputs of the merge, the range tombstone
    /// `older` adds nothing to `newer`: nobody sees the one without the other.
    #[must_use]
    pub fn range_tombstone_adds_nothing(&self, older: u64, newer: u64) -> bool {
        older <= newer && self.stripe(older) == self.stripe(newer)
    }

    /// Whether a version that goes into the output may be written with sequence 0, which compresses
    /// to nothing.
    ///
    /// Safe for puts (kept, or the outcome of a fold to a put) at the bottom that no snapshot is older
    /// than: everyone sees them with either sequence. The order of the key's versions holds, because
    /// at most one put of the oldest stripe stays and nothing older than it. No range tombstone hits
    /// it that did not before: one that is newer hides it with either sequence from the same readers,
    /// and none that is older exists any more: such a one lay in the inputs (the merge is
    /// bottommost), and [`Rules::range_tombstone_stays`] denies it, as no snapshot is older than it.
    #[must_use]
    pub fn can_zero_sequence(&self, version: &Version) -> bool {
        self.bottommost
            && version.kind == VersionKind::Put
            && self
                .snapshots
                .first()
                .is_none_or(|&s| s >= version.sequence)
    }

    /// The number of snapshots that don't see `sequence`. Equal numbers share a stripe.
    fn stripe(&self, sequence: u64) -> usize {
        self.snapshots.partition_point(|&s| s < sequence)
    }

    /// Step 1 and 2: walks newest to oldest, and notes for each stripe whether a walk has ended.
    fn drop_hidden(&self, versions: &[Version], covering: &[u64], fates: &mut Vec<Fate>) {
        let mut stripe_before = usize::MAX;
        let mut ended = false;
        for version in versions {
            let stripe = self.stripe(version.sequence);
            if stripe != stripe_before {
                ended = false;
                stripe_before = stripe;
            }
            // The oldest tombstone that is newer than the version is the likeliest to share its stripe.
            let newer = covering.partition_point(|&t| t > version.sequence);
            let hidden = newer > 0 && self.stripe(covering[newer - 1]) == stripe;
            fates.push(if ended {
                Fate::Drop(DropReason::Obsolete)
            } else if hidden {
                Fate::Drop(DropReason::RangeDeleted)
            } else if version.is_expired(self.now) {
                Fate::KeepAsTombstone
            } else {
                Fate::Keep
            });
            ended |= version.is_end(self.now);
        }
    }

    /// Steps 3 and 4: walks oldest to newest, and knows at each version what lies below it.
    fn simplify(&self, versions: &[Version], covering: &[u64], out: &mut Decision) {
        let mut below = if self.bottommost {
            Below::Nothing
        } else {
            Below::Unknown
        };
        // The next older version that stays, and the fold that it belongs to.
        let mut older: Option<usize> = None;
        let mut open: Option<Fold> = None;
        for index in (0..versions.len()).rev() {
            if matches!(out.fates[index], Fate::Drop(_)) {
                continue;
            }
            let version = &versions[index];
            if tombstone_between(covering, version, older.map(|older| &versions[older])) {
                below = Below::Nothing;
            }
            // What is older but in another stripe is not seen by the same readers: no part of a fold.
            let neighbour = older.filter(|&older| {
                self.stripe(versions[older].sequence) == self.stripe(version.sequence)
            });
            if neighbour.is_none() {
                close(&mut open, out);
            }
            if version.is_absence(self.now) {
                // Nothing older in its stripe is left, so that it can't stand above an open fold.
                debug_assert!(open.is_none());
                if below == Below::Nothing {
                    out.fates[index] = Fate::Drop(match version.kind {
                        VersionKind::Delete => DropReason::Tombstone,
                        VersionKind::Put | VersionKind::Merge => DropReason::Expired,
                    });
                    continue;
                }
                below = Below::Nothing;
            } else if version.kind == VersionKind::Merge && version.expiry.is_none() {
                match &mut open {
                    Some(fold) => fold.newest = index,
                    None => open = Some(self.begin_fold(versions, index, neighbour, below)),
                }
                below = Below::Unknown;
            } else {
                close(&mut open, out);
                below = Below::Unknown;
            }
            older = Some(index);
        }
        close(&mut open, out);
        out.folds.reverse();
    }

    /// A fold with the operand at `index` alone and whatever it can be merged over for good.
    fn begin_fold(
        &self,
        versions: &[Version],
        index: usize,
        neighbour: Option<usize>,
        below: Below,
    ) -> Fold {
        let (oldest, base) = match neighbour.map(|older| (older, &versions[older])) {
            Some((older, end)) if end.is_absence(self.now) => (older, FoldBase::Nothing),
            Some((older, end)) if end.kind == VersionKind::Put && end.expiry.is_none() => {
                (older, FoldBase::Value)
            }
            _ if below == Below::Nothing => (index, FoldBase::Nothing),
            _ => (index, FoldBase::Unknown),
        };
        Fold {
            newest: index,
            oldest,
            operand_oldest: index,
            base,
        }
    }
}

/// What a walk finds that goes on below the current place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    /// Every walk ends with nothing, whoever walks and whenever.
    Nothing,
    /// Anything else.
    Unknown,
}

/// Whether a range tombstone lies between a version and the next older one that stays (or, without
/// one, between it and all that may lie below the merge).
fn tombstone_between(covering: &[u64], version: &Version, older: Option<&Version>) -> bool {
    let first_older = covering.partition_point(|&t| t >= version.sequence);
    covering
        .get(first_older)
        .is_some_and(|&t| older.is_none_or(|older| t > older.sequence))
}

/// Records a fold, unless it holds a single operand that has to stay one.
fn close(open: &mut Option<Fold>, out: &mut Decision) {
    if let Some(fold) = open.take()
        && (fold.newest < fold.oldest || fold.base != FoldBase::Unknown)
    {
        out.fates[fold.newest..=fold.oldest].fill(Fate::Fold);
        out.folds.push(fold);
    }
}
