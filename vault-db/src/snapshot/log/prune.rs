//! Removing shipments that no snapshot goes on from any more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use vault_core::{Error as CoreError, SequenceNumber};
use vault_lsm::shipping::Shipment;

use super::points::moment_of;
use super::{LogArchive, is_base};
use crate::error::{Error, Result};
use crate::snapshot::create::store_of;
use crate::snapshot::{Form, Manifest, Survey};

/// How long the first snapshot of a chain may take: a chain is written to before there is any.
const FIRST_SNAPSHOT_MAX: Duration = Duration::from_secs(24 * 3600);

impl LogArchive {
    /// Removes what no snapshot needs any more: of each chain what was written before the oldest snapshot that it goes on from, and
    /// chains that go on from none, a day after they ended. What another store has shipped stays. Gives how many shipments that were.
    ///
    /// # Errors
    /// As [`LogArchive::chains`] and [`StoredSnapshots::list`](crate::snapshot::StoredSnapshots::list); [`Snapshot`](Error::Snapshot) where
    /// a manifest cannot be used: it cannot be told what that snapshot needs, and nothing is removed.
    pub fn prune(&self) -> Result<u64> {
        let Survey {
            snapshots: bases,
            mut unreadable,
            ..
        } = self.snapshots.repository.survey()?;
        if !unreadable.is_empty() {
            return Err(unreadable.swap_remove(0).1.into());
        }
        // Without the database, those that there are snapshots of.
        let ours: BTreeSet<[u8; 16]> = match &self.database {
            Some(database) => BTreeSet::from([store_of(database)]),
            None => bases.iter().map(|base| base.store.0).collect(),
        };
        let mut chains = Vec::new();
        for shipments in self.stored()?.into_values() {
            let Some(last) = shipments.values().next_back() else {
                continue;
            };
            let last = match self.read(last) {
                Ok(last) => last,
                // Nobody can tell what one is good for that makes no sense.
                Err(Error::Malformed { .. }) => continue,
                Err(error) => return Err(error),
            };
            // Its snapshots lie elsewhere.
            if ours.contains(&last.store) {
                chains.push((shipments, without_content(&last)));
            }
        }
        let mut removed = 0;
        for (shipments, last) in &chains {
            let unneeded = match oldest_base(&bases, last) {
                Some(oldest) => self.before(shipments, oldest)?,
                None if self.may_get_its_base(&bases, last) => Vec::new(),
                None if may_go_on(&bases, last, chains.iter().map(|(_, last)| last)) => {
                    self.before(shipments, SequenceNumber::MAX)?
                }
                None => shipments.values().collect(),
            };
            let fs = &self.snapshots.file_system;
            for path in unneeded {
                fs.remove(path)
                    .map_err(|error| CoreError::io("remove", path, error))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The shipments, in their order, that a snapshot with everything up to `oldest` does not need. The group before the one that it
    /// goes on from stays: that one's beginning shows only behind another's end.
    fn before<'a>(
        &self,
        shipments: &'a BTreeMap<u64, PathBuf>,
        oldest: SequenceNumber,
    ) -> Result<Vec<&'a PathBuf>> {
        let (mut unneeded, mut ended, mut group) = (Vec::new(), Vec::new(), Vec::new());
        for path in shipments.values() {
            let shipment = match self.read(path) {
                Ok(shipment) => shipment,
                Err(Error::Malformed { .. }) => break,
                Err(error) => return Err(error),
            };
            group.push(path);
            if shipment.more {
                continue;
            }
            if shipment.next.sequence >= oldest {
                break;
            }
            unneeded.append(&mut ended);
            ended.append(&mut group);
        }
        Ok(unneeded)
    }

    /// Whether an archiver may be at the snapshot that a chain goes on from.
    fn may_get_its_base(&self, bases: &[Manifest], last: &Shipment) -> bool {
        let age = self.snapshots.clock.now().0.saturating_sub(last.time.0);
        let is_young = u128::from(age) < FIRST_SNAPSHOT_MAX.as_millis();
        let is_followed = bases.iter().any(|base| {
            base.form == Form::Physical && base.store.0 == last.store && moment_of(base) > last.time
        });
        is_young || !is_followed
    }
}

/// How far a shipment goes, without what it holds, of which there may be much.
fn without_content(shipment: &Shipment) -> Shipment {
    Shipment {
        pieces: Vec::new(),
        notes: Vec::new(),
        keyrings: Vec::new(),
        ..*shipment
    }
}

/// Whether what a snapshot shows may still be shipped: it was made when the archiver was behind. Then the last group stays, behind which
/// the next one shows.
fn may_go_on<'a>(
    bases: &[Manifest],
    last: &Shipment,
    mut all: impl Iterator<Item = &'a Shipment>,
) -> bool {
    let instance = last.position.instance;
    let is_ahead = bases.iter().any(|base| is_base(base, instance));
    let further = |other: &Shipment| {
        other.position.instance == instance && other.next.sequence > last.next.sequence
    };
    is_ahead && !all.any(further)
}

/// Where the oldest snapshot stands that a chain goes on from.
fn oldest_base(bases: &[Manifest], last: &Shipment) -> Option<SequenceNumber> {
    // Only the end of a group tells how far it goes.
    let of_chain = bases.iter().filter(|base| {
        let reached = last.more || base.sequence <= last.next.sequence;
        reached && is_base(base, last.position.instance)
    });
    of_chain.map(|base| base.sequence).min()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vault_core::Timestamp;
    use vault_core::clock::ManualClock;
    use vault_lsm::shipping::{LogShipper, ShipOptions, Until};

    use super::*;
    use crate::database::Database;
    use crate::snapshot::{Parent, SnapshotOptions};

    fn ship_all(archive: &LogArchive, shipper: &mut LogShipper) -> u64 {
        for shipped in 1.. {
            let shipment = shipper.ship().unwrap();
            archive.write(&shipment).unwrap();
            if !shipment.more {
                return shipped;
            }
        }
        0
    }

    /// What is much is shipped as a group of shipments, of which only the last one tells how far it goes. A snapshot that was made in the
    /// middle needs all of the group.
    #[test]
    fn a_group_stays_whole_for_a_snapshot_in_its_midst() {
        let directory = tempfile::tempdir().unwrap();
        let db = Database::temp().unwrap();
        let snapshots = db.snapshots(directory.path().join("snapshots")).unwrap();
        let archive = snapshots.log_archive(directory.path().join("log"));
        let options = ShipOptions {
            shipment_bytes_max: 4096,
            ..ShipOptions::default()
        };
        let mut shipper = db.lsm().unwrap().ship_log(&options).unwrap();
        let vault = db.vault("v").unwrap();
        let write = |range: std::ops::Range<i64>| {
            for n in range {
                vault.put(n, &"a value of some length".repeat(10)).unwrap();
            }
        };
        archive.write(&shipper.ship().unwrap()).unwrap();
        write(0..100);
        let base = snapshots.create().unwrap();
        write(100..200);
        // A part of the group: nothing tells yet how far it goes.
        let first = shipper.ship().unwrap();
        assert!(first.more);
        archive.write(&first).unwrap();
        assert_eq!(archive.prune().unwrap(), 0);
        assert!(ship_all(&archive, &mut shipper) > 5);
        write(200..300);
        assert!(ship_all(&archive, &mut shipper) > 5);
        assert_eq!(archive.prune().unwrap(), 0);
        let entries = |name: &str| {
            let target = directory.path().join(name);
            let restored = archive.restore_to(Until::End, &target).unwrap();
            let then = Database::open(&target).unwrap();
            (restored.base, then.vault("v").unwrap().len().unwrap())
        };
        assert_eq!(entries("first"), (base.name, 300));

        // Two groups later the first ones go, and the rest goes on from its own beginning.
        let last = snapshots.create().unwrap();
        for round in 3..6 {
            write(round * 100..round * 100 + 100);
            assert!(ship_all(&archive, &mut shipper) > 5);
        }
        snapshots.repository().consolidate(last.name, &()).unwrap();
        for old in [last.name, base.name] {
            snapshots.repository().remove(old).unwrap();
        }
        assert!(archive.prune().unwrap() > 5);
        assert_eq!(archive.prune().unwrap(), 0);
        assert_eq!(entries("second").1, 600);
    }

    /// The only snapshot there is was made before what it holds was shipped: the chain goes on, and the snapshot with it.
    #[test]
    fn a_chain_that_is_behind_its_only_snapshot_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(1_800_000_000_000)));
        let db = Database::builder().clock(clock.clone()).temp().unwrap();
        let snapshots = db.snapshots(directory.path().join("snapshots")).unwrap();
        let archive = snapshots.log_archive(directory.path().join("log"));
        let begin = || {
            let options = ShipOptions::default();
            let mut shipper = db.lsm().unwrap().ship_log(&options).unwrap();
            archive.write(&shipper.ship().unwrap()).unwrap();
            shipper
        };
        let only = || {
            let full = SnapshotOptions {
                parent: Parent::None,
                ..SnapshotOptions::default()
            };
            let made = snapshots.create_with(&full, &()).unwrap();
            for other in snapshots.list().unwrap() {
                if other.name != made.name {
                    snapshots.repository().remove(other.name).unwrap();
                }
            }
            made
        };
        let (mut shipper, vault) = (begin(), db.vault("v").unwrap());
        for n in 0..3_i64 {
            vault.put(n, &n).unwrap();
            ship_all(&archive, &mut shipper);
        }
        // Nothing is written for two days, then something, and the next snapshot is faster than the archiver.
        clock.advance(2 * FIRST_SNAPSHOT_MAX);
        vault.put(3, &3).unwrap();
        let base = only();
        assert!(archive.prune().unwrap() > 0);
        ship_all(&archive, &mut shipper);
        vault.put(4, &4).unwrap();
        ship_all(&archive, &mut shipper);
        let target = directory.path().join("then");
        let restored = archive.restore_to(Until::End, &target).unwrap();
        assert_eq!((restored.base, restored.batches), (base.name, 1));
        let then = Database::open(&target).unwrap();
        assert_eq!(then.vault("v").unwrap().len().unwrap(), 5);

        // Another chain goes further: nothing goes on from the first one any more.
        drop(shipper);
        clock.advance(2 * FIRST_SNAPSHOT_MAX);
        let mut shipper = begin();
        only();
        vault.put(5, &5).unwrap();
        ship_all(&archive, &mut shipper);
        assert!(archive.prune().unwrap() > 0);
        assert_eq!(archive.chains().unwrap().len(), 1);
    }

    /// A chain is begun before the snapshot is made that it goes on from.
    #[test]
    fn a_chain_without_a_snapshot_may_still_get_one() {
        let directory = tempfile::tempdir().unwrap();
        let db = Database::temp().unwrap();
        let snapshots = db.snapshots(directory.path().join("snapshots")).unwrap();
        let archive = snapshots.log_archive(directory.path().join("log"));
        let mut shipper = db.lsm().unwrap().ship_log(&ShipOptions::default()).unwrap();
        archive.write(&shipper.ship().unwrap()).unwrap();
        assert_eq!(archive.prune().unwrap(), 0);
        snapshots.create().unwrap();
        db.vault("v").unwrap().put(1, &1).unwrap();
        ship_all(&archive, &mut shipper);
        let target = directory.path().join("then");
        archive.restore_to(Until::End, &target).unwrap();
        assert!(Database::open(&target).unwrap().existing_vault("v").is_ok());
    }
}
