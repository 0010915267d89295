//! The file system in memory against the real one: the same calls give the same results, down to the
//! error numbers, and leave the same files.

use super::*;
use crate::vfs::DiskFileSystem;

const NAMES: [&str; 8] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "a/x"];

/// What a call gave, to be compared.
fn told(result: io::Result<String>) -> String {
    match result {
        Ok(text) => text,
        Err(error) => format!("{:?} {:?}", error.kind(), error.raw_os_error()),
    }
}

/// Makes one call that the numbers choose.
fn call(fs: &dyn FileSystem, root: &Path, [verb, name, other, size]: [u64; 4]) -> String {
    let [path, other] = [name, other].map(|n| root.join(NAMES[n as usize % NAMES.len()]));
    let unit = |()| String::new();
    let write = |file: Arc<dyn File>| {
        file.write_at(&vec![size as u8; size as usize % 3_000], size)?;
        Ok(format!("{}", file.len()?))
    };
    told(match verb % 16 {
        0 | 1 => fs.create(&path).and_then(write),
        2 | 3 => fs.open_for_write(&path).and_then(write),
        4 => fs.open(&path).and_then(|file| {
            let mut bytes = vec![0; 700];
            let read = file.read_at(&mut bytes, size)?;
            Ok(format!("{:?}", &bytes[..read]))
        }),
        5 | 6 => fs.rename(&path, &other).map(unit),
        7 => fs.hard_link(&path, &other).map(unit),
        8 => fs.remove(&path).map(unit),
        9 => fs.create_dir(&path).map(unit),
        10 => fs.create_dir_all(&path).map(unit),
        11 => fs.remove_dir(&path).map(unit),
        12 => fs.read_dir(&path).map(|mut entries| {
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            format!("{entries:?}")
        }),
        13 => fs.kind(&path).map(|kind| format!("{kind:?}")),
        14 => fs.open_for_write(&path).and_then(|file| {
            file.set_len(size / 2)?;
            file.allocate(size / 3 * 2)?;
            let map = file.map(size as usize / 2)?;
            let len = map.len();
            map.write(len / 2, b"")?;
            map.write(len.saturating_sub(5), b"xyz")?;
            Ok(format!("{}", file.len()?))
        }),
        _ => fs.open(&path).map(|file| {
            let write = told(file.write_at(b"x", 0).map(unit));
            format!("{write} {}", told(file.sync().map(unit)))
        }),
    })
}

#[test]
fn the_same_calls_give_the_same_results() {
    let mut refused = 0;
    for seed in 0..20 {
        let scratch = tempfile::tempdir().unwrap();
        let (disk, memory) = (DiskFileSystem::new(), MemoryFileSystem::new());
        let random = SeededRandom::new(seed);
        for step in 0..500 {
            let size = random.below(10_000);
            let choice = [random.below(16), random.below(8), random.below(8), size];
            let on_disk = call(&disk, scratch.path(), choice);
            let in_memory = call(&memory, path("/"), choice);
            assert_eq!(in_memory, on_disk, "seed {seed}, step {step}: {choice:?}");
            refused += usize::from(on_disk.contains("Some("));
        }
        for (name, len) in memory.list() {
            let real = scratch.path().join(name.strip_prefix("/").unwrap());
            let file = disk.open(&real).unwrap();
            let mut bytes = vec![0; len as usize + 1];
            let read = file.read_at(&mut bytes, 0).unwrap();
            assert!(bytes[..read] == memory.read_file(&name).unwrap());
        }
    }
    assert!(refused > 1_000, "only {refused} calls were refused");
}
