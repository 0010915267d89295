//! Each verb on the real disk.

use super::*;
use crate::vfs::read_exact_at;
use std::path::PathBuf;

fn scratch() -> (tempfile::TempDir, PathBuf, DiskFileSystem) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    (directory, path, DiskFileSystem::new())
}

fn kind_of_error<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().expect("an error was due").kind()
}

#[test]
fn what_is_written_is_read_up_to_the_end() {
    let (_guard, dir, disk) = scratch();
    let path = dir.join("a");
    let file = disk.create(&path).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_at(b"world", 6).unwrap();
    file.write_at(b"hello ", 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(&dir).unwrap();
    assert_eq!(file.len().unwrap(), 11);

    let reader = disk.open(&path).unwrap();
    let mut buffer = [0xff; 16];
    assert_eq!(reader.read_at(&mut buffer, 0).unwrap(), 11);
    assert_eq!(&buffer[..11], b"hello world");
    assert_eq!(reader.read_at(&mut buffer, 6).unwrap(), 5);
    assert_eq!(reader.read_at(&mut buffer, 11).unwrap(), 0);
    assert_eq!(reader.read_at(&mut buffer, 1 << 40).unwrap(), 0);
    assert_eq!(
        kind_of_error(read_exact_at(&*reader, &mut buffer, 0)),
        io::ErrorKind::UnexpectedEof
    );
    assert!(reader.write_at(b"x", 0).is_err(), "opened for reading only");

    let writer = disk.open_for_write(&path).unwrap();
    writer.write_at(b"J", 0).unwrap();
    writer.set_len(5).unwrap();
    assert_eq!(reader.read_at(&mut buffer, 0).unwrap(), 5);
    assert_eq!(&buffer[..5], b"Jello");
}

#[test]
fn a_taken_name_is_not_created_again() {
    let (_guard, dir, disk) = scratch();
    disk.create(&dir.join("a")).unwrap();
    assert_eq!(
        kind_of_error(disk.create(&dir.join("a"))),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(
        kind_of_error(disk.open_for_write(&dir.join("b"))),
        io::ErrorKind::NotFound
    );
}

#[test]
fn renaming_replaces_and_linking_does_not() {
    let (_guard, dir, disk) = scratch();
    let (a, b, c) = (dir.join("a"), dir.join("b"), dir.join("c"));
    disk.create(&a).unwrap().write_at(b"a", 0).unwrap();
    let old = disk.create(&b).unwrap();
    old.write_at(b"b", 0).unwrap();
    assert_eq!(
        kind_of_error(disk.hard_link(&a, &b)),
        io::ErrorKind::AlreadyExists
    );
    disk.hard_link(&a, &c).unwrap();
    disk.rename(&a, &b).unwrap();
    assert_eq!(disk.kind(&a).unwrap(), None);

    let mut byte = [0];
    read_exact_at(&*old, &mut byte, 0).unwrap();
    assert_eq!(&byte, b"b", "the replaced file stays readable where open");
    disk.open_for_write(&b).unwrap().write_at(b"z", 0).unwrap();
    read_exact_at(&*disk.open(&c).unwrap(), &mut byte, 0).unwrap();
    assert_eq!(&byte, b"z", "both names lead to one file");
    disk.remove(&b).unwrap();
    read_exact_at(&*disk.open(&c).unwrap(), &mut byte, 0).unwrap();
    assert_eq!(kind_of_error(disk.remove(&b)), io::ErrorKind::NotFound);
}

#[test]
fn directories_are_created_listed_and_removed() {
    let (_guard, dir, disk) = scratch();
    let deep = dir.join("x/y");
    disk.create_dir_all(&deep).unwrap();
    disk.create_dir_all(&deep).unwrap();
    disk.create(&deep.join("file")).unwrap();
    disk.create_dir(&deep.join("sub")).unwrap();
    for taken in ["", "sub", "file"] {
        let error = kind_of_error(disk.create_dir(&deep.join(taken)));
        assert_eq!(error, io::ErrorKind::AlreadyExists);
    }
    let below_nothing = disk.create_dir(&dir.join("z/sub"));
    assert_eq!(kind_of_error(below_nothing), io::ErrorKind::NotFound);
    std::os::unix::fs::symlink("file", deep.join("to_file")).unwrap();
    std::os::unix::fs::symlink("nowhere", deep.join("dangling")).unwrap();
    let mut entries: Vec<_> = disk
        .read_dir(&deep)
        .unwrap()
        .into_iter()
        .map(|e| (e.name.into_string().unwrap(), e.kind))
        .collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        entries,
        [
            ("dangling".to_owned(), EntryKind::Other),
            ("file".to_owned(), EntryKind::File),
            ("sub".to_owned(), EntryKind::Directory),
            ("to_file".to_owned(), EntryKind::File),
        ]
    );
    assert_eq!(
        kind_of_error(disk.remove_dir(&deep)),
        io::ErrorKind::DirectoryNotEmpty
    );
    disk.remove_dir(&deep.join("sub")).unwrap();
    assert_eq!(disk.kind(&deep.join("sub")).unwrap(), None);
}

#[test]
fn kinds_are_told_and_absence_is_no_error() {
    let (_guard, dir, disk) = scratch();
    disk.create(&dir.join("a")).unwrap();
    assert_eq!(disk.kind(&dir).unwrap(), Some(EntryKind::Directory));
    assert_eq!(disk.kind(&dir.join("a")).unwrap(), Some(EntryKind::File));
    assert_eq!(disk.kind(&dir.join("b")).unwrap(), None);
    assert_eq!(disk.kind(&dir.join("a/b")).unwrap(), None);
    assert_eq!(
        disk.kind("/dev/null".as_ref()).unwrap(),
        Some(EntryKind::Other)
    );
}

/// Errors that even the superuser gets; permission is only denied to others.
#[test]
fn real_errors_surface_with_their_kind() {
    let (_guard, dir, disk) = scratch();
    disk.create(&dir.join("file")).unwrap();
    assert_eq!(kind_of_error(disk.open(&dir)), io::ErrorKind::IsADirectory);
    assert_eq!(
        kind_of_error(disk.open_for_write(&dir)),
        io::ErrorKind::IsADirectory
    );
    for below_a_file in [
        disk.create(&dir.join("file/x")).map(drop),
        disk.create_dir_all(&dir.join("file/x")),
        disk.read_dir(&dir.join("file")).map(drop),
        disk.sync_dir(&dir.join("file")),
        disk.lock(&dir.join("file/x"), "me").map(drop),
    ] {
        assert_eq!(kind_of_error(below_a_file), io::ErrorKind::NotADirectory);
    }
    let long = dir.join("n".repeat(300));
    assert_eq!(
        kind_of_error(disk.create(&long)),
        io::ErrorKind::InvalidFilename
    );
    assert!(disk.kind(&long).is_err(), "not the same as absent");

    if !rustix::process::geteuid().is_root() {
        use std::os::unix::fs::PermissionsExt;
        let sealed = dir.join("sealed");
        disk.create_dir_all(&sealed).unwrap();
        fs::set_permissions(&sealed, fs::Permissions::from_mode(0o500)).unwrap();
        assert_eq!(
            kind_of_error(disk.create(&sealed.join("x"))),
            io::ErrorKind::PermissionDenied
        );
    }
}

#[test]
fn a_second_lock_is_refused_and_names_the_holder() {
    let (_guard, dir, disk) = scratch();
    let path = dir.join("LOCK");
    let LockOutcome::Acquired(guard) = disk.lock(&path, "process 17, a long text").unwrap() else {
        panic!("nobody else has it");
    };
    match disk.lock(&path, "somebody else").unwrap() {
        LockOutcome::Held(holder) => assert_eq!(holder, "process 17, a long text"),
        LockOutcome::Acquired(_) => panic!("two holders"),
    }
    drop(guard);
    assert_eq!(disk.kind(&path).unwrap(), Some(EntryKind::File));
    let again = disk.lock(&path, "process 18").unwrap();
    assert!(matches!(again, LockOutcome::Acquired(_)));
    match disk.lock(&path, "").unwrap() {
        LockOutcome::Held(holder) => assert_eq!(holder, "process 18", "the old text is gone"),
        LockOutcome::Acquired(_) => panic!("two holders"),
    }
}

#[test]
fn the_text_of_a_foreign_holder_is_bounded_and_need_not_be_utf8() {
    let (_guard, dir, disk) = scratch();
    let path = dir.join("LOCK");
    let file = disk.create(&path).unwrap();
    let _lock = disk.lock(&path, "").unwrap();
    file.write_at(&[0xff; 3 * HOLDER_BYTES_MAX], 0).unwrap();
    let LockOutcome::Held(holder) = disk.lock(&path, "me").unwrap() else {
        panic!("two holders");
    };
    assert_eq!(holder.chars().count(), HOLDER_BYTES_MAX);
}

#[test]
fn allocated_space_is_zero_mapped_written_and_read_back() {
    let (_guard, dir, disk) = scratch();
    let path = dir.join("a");
    let file = disk.create(&path).unwrap();
    file.allocate(0).unwrap();
    assert_eq!(file.len().unwrap(), 0);
    file.write_at(b"kept", 100).unwrap();
    file.allocate(10_000).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    file.allocate(50).unwrap();
    assert_eq!(file.len().unwrap(), 10_000, "allocating never shortens");

    let map = file.map(10_000).unwrap();
    assert_eq!(map.len(), 10_000);
    map.write(0, b"first").unwrap();
    map.write(9_996, b"last").unwrap();
    map.write(10_000, b"").unwrap();
    file.sync().unwrap();
    for (offset, len) in [(9_997, 4), (10_001, 0), (usize::MAX, 2)] {
        let beyond = map.write(offset, &vec![1; len]);
        assert_eq!(kind_of_error(beyond), io::ErrorKind::InvalidInput);
    }
    assert_eq!(
        kind_of_error(file.set_len(10)),
        io::ErrorKind::ResourceBusy,
        "a store into a page cut off would kill the process"
    );
    drop(map);
    let mut bytes = vec![0xff; 10_000];
    read_exact_at(&*disk.open(&path).unwrap(), &mut bytes, 0).unwrap();
    let mut expected = vec![0; 10_000];
    expected[..5].copy_from_slice(b"first");
    expected[100..104].copy_from_slice(b"kept");
    expected[9_996..].copy_from_slice(b"last");
    assert!(bytes == expected);
    file.set_len(10).unwrap();
}

#[test]
fn a_map_is_filled_alike_however_often_it_is_synced() {
    const LEN: usize = 4 << 20;
    let (_guard, dir, disk) = scratch();
    let file = disk.create(&dir.join("a")).unwrap();
    file.allocate(LEN as u64).unwrap();
    let map = file.map(LEN).unwrap();
    // Pieces that begin and end within pages, one way and the other, with earlier ones that are filled later.
    let mut expected = vec![0; LEN];
    let (mut at, mut late) = (0, Vec::new());
    for round in 0..300 {
        map.expect([Syncs::Few, Syncs::Many][round / 7 % 2]);
        let piece = vec![(round % 250) as u8 + 1; 1 + round * 37 % 9_000];
        expected[at..at + piece.len()].copy_from_slice(&piece);
        let claim = map.claim(at, piece.len()).unwrap();
        at += piece.len();
        if round % 3 == 0 {
            late.push((claim, piece));
            continue;
        }
        map.fill(claim, &piece).unwrap();
        assert!(map.write(at - 1, b"x").is_err(), "this place is taken");
        if round % 50 == 0 {
            file.sync().unwrap();
        }
        if let Some((claim, piece)) = late.pop() {
            map.fill(claim, &piece).unwrap();
        }
    }
    for (claim, piece) in late {
        map.fill(claim, &piece).unwrap();
    }
    assert!(at > LEN / 4);
    let mut found = vec![0; LEN];
    read_exact_at(&*file, &mut found, 0).unwrap();
    assert!(found == expected);
    assert_eq!(file.len().unwrap(), LEN as u64, "it never grows");
}

#[test]
fn a_map_beyond_the_file_is_refused_and_a_hole_is_filled() {
    use std::os::unix::fs::MetadataExt;
    let (_guard, dir, disk) = scratch();
    let file = disk.create(&dir.join("a")).unwrap();
    file.set_len(1 << 20).unwrap();
    assert_eq!(
        kind_of_error(file.map((1 << 20) + 1)),
        io::ErrorKind::InvalidInput
    );
    let map = file.map(1 << 20).unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "the space a file takes is not part of the trait"
    )]
    let blocks = fs::metadata(dir.join("a")).unwrap().blocks();
    assert!(blocks * 512 >= 1 << 20, "{blocks} blocks");
    map.write(1 << 19, b"x").unwrap();
    assert!(file.map(0).unwrap().is_empty());
    let reader = disk.open(&dir.join("a")).unwrap();
    assert!(reader.map(10).is_err(), "opened for reading only");
}

#[test]
fn space_is_reserved_by_writing_where_there_is_no_call_for_it() {
    use std::os::unix::fs::MetadataExt;
    let (_guard, dir, _) = scratch();
    #[expect(
        clippy::disallowed_methods,
        reason = "the fallback works on the bare file"
    )]
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(dir.join("a"))
        .unwrap();
    file.set_len(500_000).unwrap();
    file.write_all_at(b"kept", 70_000).unwrap();
    reserve_by_writing(&file, 1_000_001).unwrap();
    let metadata = file.metadata().unwrap();
    assert_eq!(metadata.len(), 1_000_001);
    assert!(metadata.blocks() * 512 >= 1_000_001);
    let mut bytes = vec![0xff; 1_000_001];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes[70_000..70_004], b"kept");
    assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 4);
    reserve_by_writing(&file, 10).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 1_000_001);
}

/// A pipe with the name of a file. Opening it waited for somebody to write into it.
#[test]
fn pipes_and_sockets_are_refused_without_waiting() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let (_guard, dir, disk) = scratch();
    let (pipe, socket) = (dir.join("pipe"), dir.join("socket"));
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    for path in [&pipe, &socket, &PathBuf::from("/dev/null")] {
        assert!(disk.open(path).is_err(), "{}", path.display());
        assert!(disk.open_for_write(path).is_err(), "{}", path.display());
        assert!(disk.lock(path, "me").is_err(), "{}", path.display());
    }
    assert_eq!(kind_of_error(disk.open(&pipe)), io::ErrorKind::InvalidInput);
}

/// The holder's name was written into whatever the link led to.
#[test]
fn a_lock_is_not_taken_through_a_link() {
    let (_guard, dir, disk) = scratch();
    let (thesis, lock) = (dir.join("thesis"), dir.join("LOCK"));
    let file = disk.create(&thesis).unwrap();
    file.write_at(b"chapter one", 0).unwrap();
    std::os::unix::fs::symlink("thesis", &lock).unwrap();
    assert!(disk.lock(&lock, "process 1").is_err());
    assert_eq!(file.len().unwrap(), 11);
}

/// A process that was forked while the lock was held shares the open file. The lock stayed, though its holder
/// had let go of it.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "what a fork shares is the open file itself"
)]
fn letting_go_of_a_lock_ends_it_for_those_who_share_the_file() {
    let (_guard, dir, _) = scratch();
    let path = dir.join("LOCK");
    let file = fs::File::create_new(&path).unwrap();
    file.try_lock().unwrap();
    let shared = file.try_clone().unwrap();
    drop(DiskLock {
        file,
        path: path.clone(),
    });
    fs::File::open(&path).unwrap().try_lock().unwrap();
    drop(shared);
}

#[test]
fn a_lock_tells_whether_it_is_in_place() {
    let (_guard, dir, disk) = scratch();
    let inner = dir.join("inner");
    disk.create_dir_all(&inner).unwrap();
    let path = inner.join("LOCK");
    let LockOutcome::Acquired(guard) = disk.lock(&path, "me").unwrap() else {
        panic!("nobody else has it");
    };
    assert!(guard.is_in_place().unwrap());
    disk.rename(&inner, &dir.join("moved")).unwrap();
    assert!(!guard.is_in_place().unwrap());
    disk.create_dir_all(&inner).unwrap();
    disk.create(&path).unwrap();
    assert!(!guard.is_in_place().unwrap(), "another file has its name");
    disk.create(&dir.join("file")).unwrap();
    disk.remove(&path).unwrap();
    disk.remove_dir(&inner).unwrap();
    disk.rename(&dir.join("moved"), &inner).unwrap();
    assert!(guard.is_in_place().unwrap(), "and back");
}

#[test]
fn paths_are_made_absolute_and_empty_ones_refused() {
    let (_guard, dir, disk) = scratch();
    assert_eq!(disk.absolute(&dir).unwrap(), dir);
    let here = std::env::current_dir().unwrap();
    assert_eq!(disk.absolute("a".as_ref()).unwrap(), here.join("a"));
    assert_eq!(
        kind_of_error(disk.absolute("".as_ref())),
        io::ErrorKind::InvalidInput
    );
}
