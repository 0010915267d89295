//! Shipments of the log: decoding their files, and replaying them on a restored copy.
//!
//! A file is decoded or refused, and comes back the same. Of shipments that were changed, left out, repeated or put elsewhere, a replay
//! is an error that says so, or the copy holds what had been written up to some write: a whole state of the original. With their
//! checksums mended, whatever they say is carried out or refused, and what is left opens.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use vault_core::clock::ManualClock;
use vault_core::random::SeededRandom;
use vault_core::vfs::{FileSystem, MemoryFileSystem, read_whole};
use vault_core::{
    Engine, Error, ErrorKind, KeyspaceId, KeyspaceOptions, Reader, Result, Timestamp, WriteBatch,
    WriteOptions,
};
use vault_db::fuzzing::{sealed_shipment, shipment, shipment_file};
use vault_lsm::fuzzing::{Fixed, Seals, mend_shipment};
use vault_lsm::shipping::{Replayed, ShipOptions, Shipment, Until, replay_shipped};
use vault_lsm::{BackgroundWork, Lsm, LsmOptions, Settings};

use crate::memory;

const DIRECTORY: &str = "/store";
const COPY: &str = "/copy";
/// Most changes that are made.
const CHANGES_MAX: usize = 16;
/// Most shipments that are replayed.
const ORDER_MAX: usize = 6;
/// Bytes of the magic, version and hash of a file.
const HEADER_BYTES: usize = 42;

/// Shipments, and what is done to them.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Whether all checksums are mended afterwards.
    pub mend: bool,
    /// Up to which write is replayed; 255: to the end.
    pub until: u8,
    /// Which shipments are replayed, in which order. Empty: all, as they were made.
    pub order: Vec<u8>,
    /// A shipment, a place in its file behind the header, and what is added to the byte there.
    pub changes: Vec<(u8, u16, u8)>,
    /// The file of a shipment, or, if it does not begin like one, what stands in it behind the header.
    pub file: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replayed = replay(self, &mut |_| {});
        f.debug_struct("Shipments")
            .field("mend", &self.mend)
            .field("until", &until(self.until))
            .field("order", &order(&self.order))
            .field("changes", &self.changes)
            .field("file", &shipment(self.file))
            .field("replayed", &replayed)
            .finish()
    }
}

type Contents = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

/// A small store: the base of which a copy is restored, what was shipped behind it, and what there was at each write.
struct World {
    base: Vec<(String, Vec<u8>)>,
    /// Bodies of files.
    shipments: Vec<Vec<u8>>,
    states: Vec<(u64, Contents)>,
}

/// Decodes the file, and replays what was changed.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    check_file(input.file);
    let mut found = Contents::new();
    let replayed = replay(input, &mut |contents| found = contents);
    match replayed {
        Ok(replayed) if !input.mend => {
            let same = |(at, then): &(u64, Contents)| *at == replayed.sequence && *then == found;
            assert!(
                world().states.iter().any(same),
                "no prefix of what was written: {replayed:?} {found:?}"
            );
        }
        Ok(_) => {}
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let kind = error.kind();
            assert!(
                matches!(
                    kind,
                    ErrorKind::Restore | ErrorKind::Input | ErrorKind::Unavailable
                ),
                "an error of another kind: {kind:?} {error:?}"
            );
        }
    }
}

fn check_file(bytes: &[u8]) {
    let sealed = sealed_shipment(bytes);
    for file in [bytes, &sealed] {
        match memory::bounded(file.len(), || shipment(file)) {
            Ok(found) => assert_eq!(shipment(&shipment_file(&found)), Ok(found)),
            Err(problem) => assert!(!problem.is_empty()),
        }
    }
}

/// Replays on a restored copy; tells what it holds then.
fn replay(input: &Input<'_>, tell: &mut dyn FnMut(Contents)) -> Result<Replayed> {
    let world = world();
    let mut bodies = world.shipments.clone();
    for (which, at, add) in input.changes.iter().take(CHANGES_MAX) {
        let which = usize::from(*which) % bodies.len();
        if let Some(byte) = bodies[which].get_mut(usize::from(*at)) {
            *byte = byte.wrapping_add(*add);
        }
    }
    let seals = match input.mend {
        true => Seals::Mended,
        false => Seals::Kept,
    };
    let read = |which: &usize| {
        let mut found = shipment(&sealed_shipment(&bodies[*which])).map_err(|problem| {
            Error::corruption(Path::new("a file"), HEADER_BYTES as u64, problem)
        })?;
        if input.mend {
            mend_shipment(&mut found);
        }
        Ok(found)
    };
    let order = order(&input.order);
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(Path::new(COPY))
        .expect("a directory in memory");
    for (name, bytes) in &world.base {
        let path = Path::new(COPY).join(name);
        fs.write_file(path, bytes).expect("a file in memory");
    }
    let options = options(&fs, seals);
    let replayed = replay_shipped(COPY, &options, order.iter().map(read), until(input.until));
    // Whatever became of it, it opens.
    let copy = Lsm::open(COPY, options)?;
    tell(contents(&copy)?);
    copy.close()?;
    replayed
}

fn until(until: u8) -> Until {
    match until {
        u8::MAX => Until::End,
        until => Until::Sequence(until.into()),
    }
}

fn order(order: &[u8]) -> Vec<usize> {
    let all = world().shipments.len();
    match order {
        [] => (0..all).collect(),
        order => {
            let chosen = order.iter().take(ORDER_MAX);
            chosen.map(|which| usize::from(*which) % all).collect()
        }
    }
}

fn options(fs: &MemoryFileSystem, seals: Seals) -> LsmOptions {
    let settings = Settings {
        background: BackgroundWork::Manual,
        cache_bytes: Some(64 << 10),
        table_metadata_bytes: Some(64 << 10),
        log_segment_bytes: Some(64 << 10),
        log_bytes_max: Some(256 << 10),
        ..Settings::default()
    };
    LsmOptions::new(settings)
        .file_system(Arc::new(fs.clone()))
        .clock(Arc::new(ManualClock::new(Timestamp(1_700_000_005_000))))
        .random(Arc::new(SeededRandom::new(3)))
        .protection(Arc::new(Fixed(seals.transform())))
}

fn contents(store: &Lsm) -> Result<Contents> {
    let mut contents = Contents::new();
    for keyspace in store.keyspaces()? {
        let entries = store.scan(keyspace.id, vault_core::KeyRange::all())?;
        let entries = entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
        contents.insert(keyspace.name, entries.collect::<Result<_>>()?);
    }
    Ok(contents)
}

/// The store that is shipped, made once.
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| make().expect("a store in memory"))
}

fn make() -> Result<World> {
    let fs = MemoryFileSystem::new();
    let store = Lsm::open(DIRECTORY, options(&fs, Seals::Kept))?;
    let first = store.create_keyspace("first", &KeyspaceOptions::default())?;
    let put = |keyspace: KeyspaceId, key: &[u8], value: &[u8]| {
        store.put(keyspace, key, value, &WriteOptions::default())
    };
    put(first, b"before", b"1")?;
    let mut shipper = store.ship_log(&ShipOptions::default())?;
    put(first, b"base", b"2")?;
    let capture = store.capture()?;
    let mut base = Vec::new();
    for file in &capture.files {
        let bytes =
            read_whole(&*file.content).map_err(|e| Error::io("read", Path::new(&file.name), e))?;
        base.push((file.name.clone(), bytes));
    }
    let mut states = Vec::new();
    let mut note = || -> Result<()> {
        states.push((store.latest_sequence(), contents(&store)?));
        Ok(())
    };
    let mut shipped = vec![shipper.ship()?];
    note()?;
    put(first, b"a", b"3")?;
    note()?;
    let second = store.create_keyspace("second", &KeyspaceOptions::default())?;
    note()?;
    let mut batch = WriteBatch::new();
    batch.put(second, b"b", b"4").put(first, b"c", b"5");
    batch.delete(first, b"before");
    store.write(&batch, &WriteOptions::default())?;
    note()?;
    shipped.push(shipper.ship()?);
    let mut batch = WriteBatch::new();
    batch.delete_range(first, b"a", b"b");
    batch.put_until(second, b"until", b"6", Timestamp(1_800_000_000_000));
    store.write(&batch, &WriteOptions::default())?;
    note()?;
    shipped.push(shipper.ship()?);
    store.drop_keyspace(second)?;
    note()?;
    put(first, b"last", b"7")?;
    note()?;
    shipped.push(shipper.ship()?);
    let shipments = shipped.iter().map(body).collect();
    Ok(World {
        base,
        shipments,
        states,
    })
}

fn body(shipment: &Shipment) -> Vec<u8> {
    shipment_file(shipment).split_off(HEADER_BYTES)
}

/// Inputs to begin with: each shipment, all in a row, and some that were changed.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds: Vec<(String, Vec<u8>)> = vec![
        ("in-a-row".to_owned(), vec![0, u8::MAX, 0, 0]),
        ("half-way".to_owned(), vec![1, 3, 0, 0]),
        ("one-missing".to_owned(), vec![0, u8::MAX, 1, 0, 1, 2, 0, 0]),
        ("changed".to_owned(), vec![1, u8::MAX, 0, 1, 1, 40, 0, 1, 0]),
    ];
    for (n, body) in world().shipments.iter().enumerate() {
        let input = [&[1, u8::MAX, 0, 0][..], body].concat();
        seeds.push((format!("body-{n}"), input));
    }
    let file = sealed_shipment(&world().shipments[1]);
    seeds.push(("file".to_owned(), [&[0, u8::MAX, 0, 0][..], &file].concat()));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(mend: bool, until: u8, order: &[u8], changes: &[(u8, u16, u8)]) -> Input<'static> {
        Input {
            mend,
            until,
            order: order.to_vec(),
            changes: changes.to_vec(),
            file: &[],
        }
    }

    /// What was not changed is replayed: the target reaches what stands behind the checks, mended or not.
    #[test]
    fn what_was_shipped_is_replayed() {
        let last = world().states.last().expect("it has states");
        for mend in [false, true] {
            let mut found = Contents::new();
            let all = input(mend, u8::MAX, &[], &[]);
            let replayed = replay(&all, &mut |contents| found = contents).expect("it fits");
            assert_eq!((replayed.sequence, &found), (last.0, &last.1));
            let half = input(mend, 3, &[], &[]);
            assert_eq!(replay(&half, &mut |_| {}).expect("it fits").sequence, 3);
        }
    }

    #[test]
    fn what_was_left_out_or_changed_is_refused() {
        assert!(replay(&input(false, u8::MAX, &[0, 2], &[]), &mut |_| {}).is_err());
        assert!(replay(&input(false, u8::MAX, &[1, 0], &[]), &mut |_| {}).is_err());
        let bytes = world().shipments[1].len() as u16;
        let refused = (0..bytes).filter(|at| {
            let changed = input(false, u8::MAX, &[], &[(1, *at, 1)]);
            check(&changed);
            replay(&changed, &mut |_| {}).is_err()
        });
        assert!(refused.count() > usize::from(bytes) * 3 / 4);
    }
}
