//! From what a point in time is restored: which snapshot, and which shipments behind it. And when it must be refused, because
//! somebody knows of more than would come back.
//!
//! # Groups
//! What was written up to a moment is one shipment, or several where it is much: all but the last of such a *group* say that there is
//! [more](vault_lsm::shipping::Shipment::more), and only the last one tells how far the group goes. A group is of use whole, from its first shipment on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use vault_core::{SequenceNumber, Timestamp};
use vault_lsm::shipping::{ShipPosition, Until};

use super::{LogArchive, is_base};
use crate::error::{Error, Result};
use crate::snapshot::{Form, Manifest, Survey};

/// A piece of a chain in which no shipment is missing, from the beginning of a group on.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) shipments: BTreeMap<u64, PathBuf>,
    pub(super) from: ShipPosition,
    pub(super) to: ShipPosition,
    /// When the last shipment was made.
    pub(super) time: Timestamp,
    /// Whether the last group has no end: how far it goes, nobody tells.
    is_open: bool,
    store: [u8; 16],
}

/// From what a point is restored.
pub(super) struct Choice {
    pub(super) base: Manifest,
    /// What comes behind the snapshot; nothing, where the snapshot itself is the last that is known.
    pub(super) shipments: BTreeMap<u64, PathBuf>,
    /// How far that goes, and what had been written by when.
    reach: SequenceNumber,
    time: Timestamp,
}

impl LogArchive {
    /// The newest snapshot before a point that leads there, and what was shipped behind it. Refused where a snapshot or another
    /// chain proves that by then more had been written than would come back.
    pub(super) fn choose(&self, until: Until) -> Result<Choice> {
        let Survey {
            snapshots: mut bases,
            unreadable: unreadable_bases,
            ..
        } = self.snapshots.repository.survey()?;
        bases.retain(|base| base.form == Form::Physical);
        sort(&mut bases);
        let (mut runs, mut unreadable) = (Vec::new(), None);
        for shipments in self.stored()?.into_values().flat_map(unbroken) {
            match self.run(shipments) {
                Ok(run) => runs.extend(run),
                // Others may do; where none does, this is why.
                Err(error) => unreadable = Some(error),
            }
        }
        let before = bases.iter().rev().filter(|base| match until {
            Until::End => true,
            Until::Sequence(sequence) => base.sequence <= sequence,
            Until::Time(time) => moment_of(base) <= time,
        });
        let chosen = before
            .filter_map(|base| leads_on(base, &runs, until))
            .next();
        let Some(choice) = chosen else {
            return Err(unreadable.unwrap_or_else(|| Error::NoBase {
                wanted: shown(until),
            }));
        };
        let covered = match until {
            Until::End => false,
            Until::Sequence(sequence) => sequence <= choice.reach,
            Until::Time(time) => time <= choice.time,
        };
        if covered {
            return Ok(choice);
        }
        let beyond =
            matches!(until, Until::Sequence(_)) || is_surpassed(&choice, &bases, &runs, until);
        if beyond {
            return Err(Error::BeyondLog {
                wanted: shown(until),
                until: choice.reach,
            });
        }
        // One that cannot be read may be such a proof.
        if let Some((_, error)) = unreadable_bases.into_iter().next() {
            return Err(error.into());
        }
        unreadable.map_or(Ok(choice), Err)
    }

    /// What of shipments in a row can be replayed: all from the beginning of a group on.
    fn run(&self, mut shipments: BTreeMap<u64, PathBuf>) -> Result<Option<Run>> {
        let mut begins_group = false;
        let first = loop {
            let Some((&number, path)) = shipments.first_key_value() else {
                return Ok(None);
            };
            let shipment = self.read(path)?;
            if number == 0 || begins_group {
                break shipment;
            }
            // Whether this one begins a group, the one before it would tell.
            begins_group = !shipment.more;
            shipments.pop_first();
        };
        let Some(last) = shipments.values().next_back() else {
            return Ok(None);
        };
        let last = self.read(last)?;
        Ok(Some(Run {
            from: first.position,
            to: last.next,
            time: last.time,
            is_open: last.more,
            store: first.store,
            shipments,
        }))
    }
}

/// Sorts snapshots by what they show: those of the instance that was seen last come last, and of one instance those with more. Names
/// don't tell: a consolidated one has a new name and shows what is old, and within a second names run ahead of the clock.
fn sort(bases: &mut [Manifest]) {
    let mut seen: BTreeMap<Option<[u8; 16]>, Timestamp> = BTreeMap::new();
    let instance = |base: &Manifest| base.instance.as_ref().map(|of| of.0);
    for base in bases.iter() {
        let last = seen.entry(instance(base)).or_default();
        *last = moment_of(base).max(*last);
    }
    bases.sort_by_key(|base| {
        let instance = instance(base);
        (seen.get(&instance).copied(), instance, base.sequence)
    });
}

/// From what the point is restored if this is the snapshot.
fn leads_on(base: &Manifest, runs: &[Run], until: Until) -> Option<Choice> {
    let reaching = runs.iter().filter(|run| reaches(&run.from, &run.to, base));
    if let Some(run) = reaching.max_by_key(|run| run.to.sequence) {
        return Some(Choice {
            base: base.clone(),
            shipments: run.shipments.clone(),
            reach: run.to.sequence,
            time: run.time,
        });
    }
    let mut of_instance = runs
        .iter()
        .filter(|run| is_base(base, run.from.instance))
        .peekable();
    // The log has not come so far: the snapshot itself is what there was last.
    let is_ahead =
        of_instance.peek().is_some() && of_instance.all(|run| run.to.sequence < base.sequence);
    let is_the_point = match until {
        Until::End | Until::Time(_) => true,
        Until::Sequence(sequence) => sequence == base.sequence,
    };
    // A group without its end may hold what comes behind it all the same.
    let open = runs.iter().filter(|run| {
        run.is_open && is_base(base, run.from.instance) && begins_before(&run.from, base)
    });
    let open = open.max_by_key(|run| run.to.sequence);
    (is_ahead && is_the_point).then(|| Choice {
        base: base.clone(),
        shipments: open.map_or_else(BTreeMap::new, |run| run.shipments.clone()),
        reach: base.sequence,
        time: moment_of(base),
    })
}

/// Whether somebody knows of more than what would come back: of this instance of the store, or of one that went on from it.
fn is_surpassed(choice: &Choice, bases: &[Manifest], runs: &[Run], until: Until) -> bool {
    let in_time = |of: Timestamp| match until {
        Until::Time(time) => of <= time,
        Until::End | Until::Sequence(_) => true,
    };
    let base = &choice.base;
    let by_snapshot = bases.iter().any(|other| {
        if other.instance == base.instance {
            return other.sequence > choice.reach;
        }
        let moment = moment_of(other);
        other.store == base.store && moment > choice.time && in_time(moment)
    });
    let by_chain = runs.iter().any(|run| {
        if is_base(base, run.from.instance) {
            return run.to.sequence > choice.reach;
        }
        run.store == base.store.0 && run.time > choice.time && in_time(run.time)
    });
    by_snapshot || by_chain
}

/// When there was what a snapshot shows, or a little later.
pub(super) fn moment_of(base: &Manifest) -> Timestamp {
    // A consolidated one is younger than what it shows, and knows the second of that.
    base.content_of.map_or(base.time, |of| {
        Timestamp(of.timestamp().0.saturating_add(999))
    })
}

/// The pieces of a chain in which no shipment is missing. Where one is, what lies behind it still goes on from a later snapshot; so it is
/// after a loss of power amid [`LogArchive::prune`], which may have brought some of what was removed back.
fn unbroken(shipments: BTreeMap<u64, PathBuf>) -> Vec<BTreeMap<u64, PathBuf>> {
    let mut pieces: Vec<BTreeMap<u64, PathBuf>> = Vec::new();
    let mut next = None;
    for (number, path) in shipments {
        match pieces.last_mut() {
            Some(piece) if next == Some(number) => drop(piece.insert(number, path)),
            _ => pieces.push(BTreeMap::from([(number, path)])),
        }
        next = number.checked_add(1);
    }
    pieces
}

/// Whether a chain holds what was written behind a snapshot: from before it, or from where the chain begins, up to it at least.
fn reaches(from: &ShipPosition, to: &ShipPosition, base: &Manifest) -> bool {
    begins_before(from, base) && to.sequence >= base.sequence && is_base(base, from.instance)
}

fn begins_before(from: &ShipPosition, base: &Manifest) -> bool {
    from.sequence < base.sequence || (from.sequence == base.sequence && from.shipment == 0)
}

fn shown(until: Until) -> String {
    match until {
        Until::End => "the end".to_owned(),
        Until::Sequence(sequence) => format!("write {sequence}"),
        Until::Time(time) => format!("{} ms after 1970", time.0),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use vault_core::Engine;
    use vault_core::clock::ManualClock;
    use vault_core::vfs::{DiskFileSystem, FileSystem};
    use vault_lsm::shipping::{LogShipper, ShipOptions};
    use vault_snapshot::repository::{CreateOptions, Source};

    use crate::database::Database;
    use crate::snapshot::create::source_files;
    use crate::snapshot::{LogArchive, Snapshots};

    use super::*;

    /// A database with a clock, whose log is shipped on demand.
    struct World {
        directory: tempfile::TempDir,
        clock: Arc<ManualClock>,
        db: Database,
        snapshots: Snapshots,
        archive: LogArchive,
        shipper: LogShipper,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let clock = Arc::new(ManualClock::new(Timestamp(1_800_000_000_000)));
            let db = Database::builder().clock(clock.clone()).temp().unwrap();
            let snapshots = db.snapshots(directory.path().join("snapshots")).unwrap();
            let archive = snapshots.log_archive(directory.path().join("log"));
            let options = ShipOptions {
                shipment_bytes_max: 4096,
                ..ShipOptions::default()
            };
            let mut shipper = db.lsm().unwrap().ship_log(&options).unwrap();
            archive.write(&shipper.ship().unwrap()).unwrap();
            Self {
                directory,
                clock,
                db,
                snapshots,
                archive,
                shipper,
            }
        }

        /// Ships once. Gives whether there is more.
        fn ship(&mut self) -> bool {
            let shipment = self.shipper.ship().unwrap();
            self.archive.write(&shipment).unwrap();
            shipment.more
        }

        fn write(&self, range: std::ops::Range<i64>) {
            let vault = self.db.vault("v").unwrap();
            for n in range {
                vault.put(n, &"a value of some length".repeat(10)).unwrap();
            }
        }

        fn a_minute_later(&self) -> Timestamp {
            self.clock.advance(Duration::from_secs(60));
            self.db.shared().clock.now()
        }

        /// Restores, and gives from which snapshot and how many entries.
        fn restored(&self, until: Until, name: &str) -> (crate::snapshot::SnapshotName, u64) {
            let target = self.directory.path().join(name);
            let restored = self.archive.restore_to(until, &target).unwrap();
            let then = Database::open(&target).unwrap();
            (restored.base, then.vault("v").unwrap().len().unwrap())
        }
    }

    /// What the snapshot holds was shipped only after the time that is asked for: the snapshot is what there was then.
    #[test]
    fn a_time_right_behind_a_snapshot_is_the_snapshot() {
        let mut world = World::new();
        world.snapshots.create().unwrap();
        world.write(0..3);
        while world.ship() {}
        world.a_minute_later();
        world.write(3..6);
        let base = world.snapshots.create().unwrap();
        let wanted = world.a_minute_later();
        world.a_minute_later();
        world.write(6..9);
        while world.ship() {}
        let then = world.restored(Until::Time(wanted), "then");
        assert_eq!(then, (base.name, 6));
        assert_eq!(world.restored(Until::End, "end"), (base.name, 9));
    }

    /// The machine is lost amid a group of shipments, and amid it a snapshot was made: what was shipped behind that counts.
    #[test]
    fn what_is_there_of_the_last_group_is_not_passed_over() {
        let mut world = World::new();
        world.snapshots.create().unwrap();
        world.write(0..20);
        let base = world.snapshots.create().unwrap();
        world.write(20..100);
        for _ in 0..4 {
            assert!(world.ship());
        }
        let (from, entries) = world.restored(Until::End, "end");
        assert_eq!(from, base.name);
        assert!(entries > 30 && entries < 100, "{entries}");
        let exactly = world.restored(Until::Sequence(base.sequence), "base");
        assert_eq!(exactly, (base.name, 20));
    }

    /// Somebody who can write to the repository says of an old snapshot that it holds more than the log: it would be the end.
    #[test]
    fn a_snapshot_that_says_it_holds_more_than_it_does_is_refused() {
        let mut world = World::new();
        world.snapshots.create().unwrap();
        world.write(0..3);
        let lsm = world.db.lsm().unwrap();
        let capture = lsm.capture().unwrap();
        world.write(3..9);
        let mut forged = Source::new(capture.store, Form::Physical);
        forged.instance = lsm.instance();
        forged.generation = capture.generation;
        forged.sequence = lsm.latest_sequence() + 1;
        forged.files = source_files(capture);
        let good = lsm.latest_sequence();
        while world.ship() {}
        let repository = world.snapshots.repository();
        repository
            .create(forged, &CreateOptions::default(), &())
            .unwrap();
        let target = world.directory.path().join("never");
        let refused = world.archive.restore_to(Until::End, &target).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("its manifest says"), "{said}");
        assert_eq!(DiskFileSystem.kind(&target).unwrap(), None);
        let then = world.restored(Until::Sequence(good), "then");
        assert_eq!(then.1, 9);
    }
}
