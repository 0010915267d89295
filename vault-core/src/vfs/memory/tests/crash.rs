//! What a loss of power leaves.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const HALF: CrashPolicy = CrashPolicy::Random { percent: 50 };

/// Every state that some of many seeds lead to, told by a look at it.
fn outcomes<T: Ord>(fs: &MemoryFileSystem, look: impl Fn(&MemoryFileSystem) -> T) -> BTreeSet<T> {
    (0..200).map(|seed| look(&fs.crash(seed, HALF))).collect()
}

fn sorted(names: &[&[&str]]) -> BTreeSet<Vec<String>> {
    let owned = |names: &&[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    names.iter().map(owned).collect()
}

#[test]
fn the_same_seed_leaves_the_same() {
    let fs = MemoryFileSystem::new();
    for number in 0..20 {
        let file = fs.create(path(&format!("/{number}"))).unwrap();
        file.write_at(&[1; 5_000], 0).unwrap();
    }
    let look = |fs: &MemoryFileSystem| {
        let files = fs.list().into_iter();
        files
            .map(|(path, _)| (fs.read_file(&path).unwrap(), path))
            .collect::<Vec<_>>()
    };
    assert_eq!(look(&fs.crash(3, HALF)), look(&fs.crash(3, HALF)));
    assert_ne!(look(&fs.crash(3, HALF)), look(&fs.crash(4, HALF)));
    let never = CrashPolicy::Random { percent: 0 };
    assert!(fs.crash(3, never).list().is_empty());
    let always = CrashPolicy::Random { percent: 100 };
    assert_eq!(look(&fs.crash(3, always)), look(&fs));
}

#[test]
fn sectors_survive_each_for_itself() {
    let fs = MemoryFileSystem::new();
    let file = durable(&fs, "/a", &[1; 1536]);
    file.write_at(&[2; 600], 500).unwrap();
    let left = outcomes(&fs, |fs| {
        let bytes = fs.read_file("/a").unwrap();
        assert_eq!(bytes.len(), 1536);
        (bytes[511], bytes[512], bytes[1023], bytes[1099])
    });
    let mut expected = BTreeSet::new();
    for (a, b, c) in (0..8).map(|bits| (1 + (bits & 1), 1 + ((bits >> 1) & 1), 1 + (bits >> 2))) {
        expected.insert((a, b, b, c));
    }
    assert_eq!(left, expected);
}

#[test]
fn a_file_may_be_longer_than_what_is_left_of_its_data() {
    let fs = MemoryFileSystem::new();
    let file = durable(&fs, "/a", &[1; 512]);
    file.write_at(&[2; 512], 512).unwrap();
    let left = outcomes(&fs, |fs| {
        let bytes = fs.read_file("/a").unwrap();
        assert_eq!(bytes[0], 1);
        (bytes.len(), bytes.last().copied())
    });
    let expected = [(512, Some(1)), (1024, Some(0)), (1024, Some(2))];
    assert_eq!(left, BTreeSet::from(expected));
}

#[test]
fn a_cut_may_not_have_happened() {
    let fs = MemoryFileSystem::new();
    let file = durable(&fs, "/a", &[1; 2048]);
    file.set_len(100).unwrap();
    file.set_len(600).unwrap();
    let lengths = outcomes(&fs, |fs| fs.read_file("/a").unwrap().len());
    assert_eq!(lengths, BTreeSet::from([100, 600, 2048]));
    file.sync().unwrap();
    let bytes = fs.crash(0, CrashPolicy::DropUnsynced).read_file("/a");
    let mut expected = vec![1; 100];
    expected.resize(600, 0);
    assert_eq!(bytes.unwrap(), expected);
}

#[test]
fn entries_survive_each_for_itself() {
    let fs = MemoryFileSystem::new();
    durable(&fs, "/a", b"");
    fs.create(path("/b")).unwrap();
    fs.remove(path("/a")).unwrap();
    let expected = sorted(&[&[], &["/a"], &["/b"], &["/a", "/b"]]);
    assert_eq!(outcomes(&fs, names), expected);
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(outcomes(&fs, names), sorted(&[&["/b"]]));
}

#[test]
fn a_rename_is_atomic() {
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(path("/d")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    durable(&fs, "/tmp", b"new");
    durable(&fs, "/d/current", b"old");
    fs.rename(path("/tmp"), path("/d/current")).unwrap();
    let left = outcomes(&fs, |fs| (names(fs), fs.read_file("/d/current").unwrap()));
    let expected = [
        (vec!["/d/current".to_owned()], b"new".to_vec()),
        (
            vec!["/d/current".to_owned(), "/tmp".to_owned()],
            b"old".to_vec(),
        ),
    ];
    assert_eq!(left, BTreeSet::from(expected));
    // Syncing either directory settles both halves.
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(outcomes(&fs, names), sorted(&[&["/d/current"]]));
}

#[test]
fn what_a_durable_rename_replaced_does_not_come_back() {
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(path("/d")).unwrap();
    durable(&fs, "/tmp", b"new");
    // Not synced in its own directory, and older than the rename that is, from the other one.
    fs.create(path("/d/current")).unwrap();
    fs.rename(path("/tmp"), path("/d/current")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    let left = outcomes(&fs, |fs| fs.read_file("/d/current").unwrap());
    assert_eq!(left, BTreeSet::from([b"new".to_vec()]));
}

#[test]
fn a_chain_of_renames_never_doubles_or_loses_a_file() {
    let fs = MemoryFileSystem::new();
    durable(&fs, "/a", b"");
    fs.rename(path("/a"), path("/b")).unwrap();
    fs.rename(path("/b"), path("/c")).unwrap();
    assert_eq!(outcomes(&fs, names), sorted(&[&["/a"], &["/b"], &["/c"]]));
    // A new file of the old name implies that the old one has been renamed.
    fs.create(path("/a")).unwrap();
    let expected = sorted(&[&["/a"], &["/b"], &["/c"], &["/a", "/b"], &["/a", "/c"]]);
    assert_eq!(outcomes(&fs, names), expected);
    fs.rename(path("/c"), path("/a")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(outcomes(&fs, names), sorted(&[&["/a"]]));
}

#[test]
fn replaced_files_may_leave_their_temporary_names() {
    let fs = MemoryFileSystem::new();
    for (tmp, bytes) in [("/current", b"0"), ("/tmp1", b"1"), ("/tmp2", b"2")] {
        durable(&fs, tmp, bytes);
    }
    fs.rename(path("/tmp1"), path("/current")).unwrap();
    fs.rename(path("/tmp2"), path("/current")).unwrap();
    let left = outcomes(&fs, |fs| {
        (names(fs).len(), fs.read_file("/current").unwrap()[0])
    });
    let expected = [(3, b'0'), (2, b'1'), (2, b'2'), (1, b'2')];
    assert_eq!(left, BTreeSet::from(expected));
}

#[test]
fn synced_bytes_are_lost_with_an_unsynced_entry() {
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(path("/d")).unwrap();
    let file = durable(&fs, "/d/a", b"synced, and its entry, but not that of /d");
    assert_eq!(outcomes(&fs, names), sorted(&[&[], &["/d/a"]]));
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(outcomes(&fs, names), sorted(&[&["/d/a"]]));
    // The other way round, an entry survives with whatever there is of the bytes.
    let empty = fs.create(path("/d/b")).unwrap();
    empty.write_at(&[1; 512], 0).unwrap();
    fs.sync_dir(path("/d")).unwrap();
    let left = outcomes(&fs, |fs| fs.read_file("/d/b").unwrap());
    let expected = [vec![], vec![0; 512], vec![1; 512]];
    assert_eq!(left, BTreeSet::from(expected));
    drop(file);
}

#[test]
fn a_second_name_can_outlive_the_first() {
    let fs = MemoryFileSystem::new();
    durable(&fs, "/a", b"bytes");
    fs.hard_link(path("/a"), path("/b")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    fs.remove(path("/a")).unwrap();
    assert_eq!(outcomes(&fs, names), sorted(&[&["/b"], &["/a", "/b"]]));
    let after = fs.crash(0, CrashPolicy::DropUnsynced);
    after.remove(path("/a")).unwrap();
    assert_eq!(after.read_file("/b").unwrap(), b"bytes");
    assert_eq!(after.bytes_used(), 4096);
}

#[test]
fn a_killed_process_leaves_all_it_wrote_at_the_mercy_of_a_crash() {
    let fs = MemoryFileSystem::new();
    let file = durable(&fs, "/a", b"old");
    file.allocate(4096).unwrap();
    let map = file.map(4096).unwrap();
    map.write(0, b"new").unwrap();
    fs.create(path("/b")).unwrap();
    let killed = fs.kill();
    map.write(3, b"not").unwrap();
    assert_eq!(
        &killed.read_file("/a").unwrap()[..6],
        b"new\0\0\0",
        "independent"
    );
    assert_eq!(names(&killed), ["/a", "/b"]);
    killed
        .open_for_write(path("/a"))
        .unwrap()
        .set_len(3)
        .unwrap();
    let after = killed.crash(0, CrashPolicy::DropUnsynced);
    assert_eq!(after.read_file("/a").unwrap(), b"old");
    assert_eq!(names(&after), ["/a"]);
    let file = killed.open_for_write(path("/a")).unwrap();
    file.sync().unwrap();
    let after = killed.crash(0, CrashPolicy::DropUnsynced);
    assert_eq!(after.read_file("/a").unwrap(), b"new");
}

#[test]
fn what_a_crash_left_is_durable_and_independent() {
    let fs = MemoryFileSystem::new();
    let file = durable(&fs, "/a", b"1");
    file.write_at(b"2", 0).unwrap();
    let after = fs.crash(0, CrashPolicy::KeepUnsynced);
    file.write_at(b"3", 0).unwrap();
    let again = after.crash(0, CrashPolicy::DropUnsynced);
    assert_eq!(again.read_file("/a").unwrap(), b"2");
    after.write_file("/a", b"4").unwrap();
    assert_eq!(fs.read_file("/a").unwrap(), b"3");
}

/// One step on a file.
#[derive(Debug, Clone)]
enum Step {
    Write { offset: usize, len: usize },
    MapWrite { offset: usize, len: usize },
    Allocate(usize),
    SetLen(usize),
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = 0..20_000_usize;
    let piece = 1..3_000_usize;
    let step = prop_oneof![
        4 => (size.clone(), piece.clone()).prop_map(|(offset, len)| Step::Write { offset, len }),
        2 => (size.clone(), piece).prop_map(|(offset, len)| Step::MapWrite { offset, len }),
        1 => size.clone().prop_map(Step::Allocate),
        1 => size.prop_map(Step::SetLen),
        2 => Just(Step::Sync),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What the file is to be, told by two plain vectors.
#[derive(Default)]
struct Model {
    now: Vec<u8>,
    synced: Vec<u8>,
    lengths: BTreeSet<usize>,
}

impl Model {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.now.resize(self.now.len().max(end), 0);
        self.now[offset..end].copy_from_slice(bytes);
    }

    fn step(&mut self, file: &dyn File, step: &Step, tag: u8) {
        match *step {
            Step::Write { offset, len } => {
                file.write_at(&vec![tag; len], offset as u64).unwrap();
                self.write(offset, &vec![tag; len]);
            }
            Step::MapWrite { offset, len } => {
                let len = len.min(self.now.len().saturating_sub(offset));
                let map = file.map(self.now.len()).unwrap();
                if len > 0 {
                    map.write(offset, &vec![tag; len]).unwrap();
                    self.write(offset, &vec![tag; len]);
                }
            }
            Step::Allocate(len) => {
                file.allocate(len as u64).unwrap();
                self.now.resize(self.now.len().max(len), 0);
            }
            Step::SetLen(len) => {
                file.set_len(len as u64).unwrap();
                self.now.resize(len, 0);
            }
            Step::Sync => {
                file.sync().unwrap();
                self.synced = self.now.clone();
                self.lengths.clear();
            }
        }
        self.lengths.insert(self.now.len());
    }

    /// Each sector is as it was synced or as it is now, and the length is one of those there were.
    fn check(&self, left: &[u8]) {
        let possible = self.lengths.contains(&left.len()) || left.len() == self.synced.len();
        assert!(possible, "a length of {}", left.len());
        let sector = |bytes: &[u8], start: usize, end: usize| {
            let mut sector = bytes[start.min(bytes.len())..end.min(bytes.len())].to_vec();
            sector.resize(end - start, 0);
            sector
        };
        for start in (0..left.len()).step_by(512) {
            let end = (start + 512).min(left.len());
            let found = &left[start..end];
            assert!(
                found == sector(&self.synced, start, end) || found == sector(&self.now, start, end),
                "the sector at byte {start} is neither old nor new"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sectors_are_old_or_new_and_never_anything_else(steps in steps(), seed: u64) {
        let fs = MemoryFileSystem::new();
        let file = durable(&fs, "/a", b"");
        let mut model = Model::default();
        for (number, step) in steps.iter().enumerate() {
            model.step(&*file, step, number as u8 + 1);
            prop_assert_eq!(&fs.read_file("/a").unwrap(), &model.now);
            let seed = seed.wrapping_add(number as u64);
            model.check(&fs.crash(seed, HALF).read_file("/a").unwrap());
            let dropped = fs.crash(seed, CrashPolicy::DropUnsynced);
            prop_assert_eq!(&dropped.read_file("/a").unwrap(), &model.synced);
            let kept = fs.crash(seed, CrashPolicy::KeepUnsynced);
            prop_assert_eq!(&kept.read_file("/a").unwrap(), &model.now);
        }
    }
}
