//! Each verb, without crashes or faults.

use super::*;

#[test]
fn what_is_written_is_read_up_to_the_end() {
    let fs = MemoryFileSystem::new();
    let file = fs.create(path("/a")).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_at(b"world", 10_006).unwrap();
    file.write_at(b"hello ", 10_000).unwrap();
    let reader = fs.open(path("a")).unwrap();
    let mut buffer = [0xff; 16];
    assert_eq!(reader.read_at(&mut buffer, 10_000).unwrap(), 11);
    assert_eq!(&buffer[..11], b"hello world");
    assert_eq!(reader.read_at(&mut buffer, 5_000).unwrap(), 16);
    assert_eq!(buffer, [0; 16], "a hole reads as zeros");
    assert_eq!(reader.read_at(&mut buffer, 10_011).unwrap(), 0);
    assert_eq!(reader.read_at(&mut buffer, u64::MAX).unwrap(), 0);
    assert!(reader.write_at(b"x", 0).is_err(), "opened for reading only");
    assert!(reader.set_len(0).is_err());
    assert!(reader.allocate(1).is_err());
    assert_eq!(
        kind_of_error(file.write_at(b"x", u64::MAX)),
        io::ErrorKind::FileTooLarge
    );
}

#[test]
fn a_cut_file_reads_zeros_when_extended_again() {
    let fs = MemoryFileSystem::new();
    let file = fs.create(path("/a")).unwrap();
    file.write_at(&[7; 10_000], 0).unwrap();
    file.set_len(5_000).unwrap();
    file.set_len(10_000).unwrap();
    let bytes = fs.read_file("/a").unwrap();
    assert!(bytes[..5_000].iter().all(|b| *b == 7));
    assert!(bytes[5_000..].iter().all(|b| *b == 0));
}

#[test]
fn a_removed_or_replaced_file_stays_readable_where_open() {
    let fs = MemoryFileSystem::new();
    let removed = durable(&fs, "/a", b"removed");
    let replaced = durable(&fs, "/b", b"replaced");
    durable(&fs, "/c", b"new");
    fs.remove(path("/a")).unwrap();
    fs.rename(path("/c"), path("/b")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    let mut bytes = [0; 7];
    read_exact_at(&*removed, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"removed");
    removed.write_at(b"still writable", 0).unwrap();
    let mut bytes = [0; 8];
    read_exact_at(&*replaced, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"replaced");
    assert_eq!(fs.list(), [(PathBuf::from("/b"), 3)]);
}

#[test]
fn both_names_of_a_linked_file_lead_to_it() {
    let fs = MemoryFileSystem::new();
    let file = durable(&fs, "/a", b"one");
    fs.hard_link(path("/a"), path("/b")).unwrap();
    file.write_at(b"two", 0).unwrap();
    assert_eq!(fs.read_file("/b").unwrap(), b"two");
    fs.rename(path("/a"), path("/b")).unwrap();
    assert_eq!(names(&fs), ["/a", "/b"], "as POSIX has it");
    fs.remove(path("/a")).unwrap();
    assert_eq!(fs.read_file("/b").unwrap(), b"two");
}

#[test]
fn parents_must_exist_unless_created_along() {
    let fs = MemoryFileSystem::new();
    let missing = kind_of_error(fs.create(path("/x/y/a")));
    assert_eq!(missing, io::ErrorKind::NotFound);
    let missing = kind_of_error(fs.create_dir(path("/x/y")));
    assert_eq!(missing, io::ErrorKind::NotFound);
    fs.create_dir_all(path("/x/y")).unwrap();
    fs.create_dir_all(path("/x/y")).unwrap();
    let taken = kind_of_error(fs.create_dir(path("/x/y")));
    assert_eq!(taken, io::ErrorKind::AlreadyExists);
    fs.create(path("/x/y/a")).unwrap();
    let taken = kind_of_error(fs.create(path("/x/y/a")));
    assert_eq!(taken, io::ErrorKind::AlreadyExists);
    let entries = fs.read_dir(path("/x")).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].name, "y");
    assert_eq!(entries[0].kind, EntryKind::Directory);
    assert_eq!(fs.kind(path("/x/y/a")).unwrap(), Some(EntryKind::File));
    assert_eq!(fs.kind(path("/x/y/a/b")).unwrap(), None);
    assert_eq!(fs.kind(path("/z")).unwrap(), None);
    assert_eq!(fs.kind(path(".")).unwrap(), Some(EntryKind::Directory));
}

#[test]
fn a_second_lock_is_refused_and_names_the_holder() {
    let fs = MemoryFileSystem::new();
    let LockOutcome::Acquired(guard) = fs.lock(path("/LOCK"), "process 17").unwrap() else {
        panic!("nobody else has it");
    };
    match fs.clone().lock(path("/LOCK"), "me").unwrap() {
        LockOutcome::Held(holder) => assert_eq!(holder, "process 17"),
        LockOutcome::Acquired(_) => panic!("two holders"),
    }
    let killed = fs.kill();
    assert!(matches!(
        killed.lock(path("/LOCK"), "the next process").unwrap(),
        LockOutcome::Acquired(_)
    ));
    drop(guard);
    assert_eq!(fs.read_file("/LOCK").unwrap(), b"process 17");
    let again = fs.lock(path("/LOCK"), "18").unwrap();
    assert!(matches!(again, LockOutcome::Acquired(_)));
    assert_eq!(fs.read_file("/LOCK").unwrap(), b"18");
}

#[test]
fn a_map_writes_the_file_and_keeps_its_space() {
    let fs = MemoryFileSystem::new();
    let file = fs.create(path("/a")).unwrap();
    file.allocate(10_000).unwrap();
    file.write_at(b"kept", 100).unwrap();
    assert_eq!(kind_of_error(file.map(10_001)), io::ErrorKind::InvalidInput);
    let map = file.map(10_000).unwrap();
    assert_eq!(map.len(), 10_000);
    map.write(9_996, b"last").unwrap();
    for (offset, len) in [(9_997, 4), (10_001, 0), (usize::MAX, 2)] {
        let beyond = map.write(offset, &vec![1; len]);
        assert_eq!(kind_of_error(beyond), io::ErrorKind::InvalidInput);
    }
    let bytes = fs.read_file("/a").unwrap();
    assert_eq!(
        (&bytes[100..104], &bytes[9_996..]),
        (&b"kept"[..], &b"last"[..])
    );
    assert_eq!(kind_of_error(file.set_len(1)), io::ErrorKind::ResourceBusy);
    assert_eq!(
        kind_of_error(fs.write_file("/a", b"")),
        io::ErrorKind::ResourceBusy
    );
    drop(map);
    file.set_len(1).unwrap();
    assert!(fs.open(path("/a")).unwrap().map(1).is_err());
}

#[test]
fn space_runs_out_and_comes_back() {
    let fs = MemoryFileSystem::new();
    fs.set_capacity(Some(10 * 4096));
    let a = fs.create(path("/a")).unwrap();
    a.allocate(4 * 4096).unwrap();
    assert_eq!(fs.bytes_used(), 4 * 4096);
    let b = fs.create(path("/b")).unwrap();
    b.set_len(1 << 30).unwrap();
    assert_eq!(fs.bytes_used(), 4 * 4096, "a hole takes no space");
    assert_eq!(
        kind_of_error(b.allocate(7 * 4096)),
        io::ErrorKind::StorageFull
    );
    assert_eq!(kind_of_error(b.map(7 * 4096)), io::ErrorKind::StorageFull);
    b.set_len(0).unwrap();
    let full = kind_of_error(b.write_at(&[1; 7 * 4096], 0));
    assert_eq!(full, io::ErrorKind::StorageFull);
    assert_eq!(b.len().unwrap(), 6 * 4096, "as much as fits is written");
    assert_eq!(fs.bytes_used(), 10 * 4096);
    a.write_at(&[2; 4 * 4096], 0).unwrap();

    fs.hard_link(path("/a"), path("/a2")).unwrap();
    fs.remove(path("/a")).unwrap();
    fs.remove(path("/a2")).unwrap();
    assert_eq!(fs.bytes_used(), 10 * 4096, "still open");
    assert_eq!(fs.kill().bytes_used(), 6 * 4096);
    drop(a);
    assert_eq!(fs.bytes_used(), 6 * 4096);
    b.set_len(4097).unwrap();
    assert_eq!(fs.bytes_used(), 2 * 4096);
    b.allocate(10 * 4096).unwrap();
    let crashed = fs.crash(0, CrashPolicy::KeepUnsynced);
    assert_eq!(crashed.bytes_used(), 10 * 4096);
    let c = crashed.create(path("/c")).unwrap();
    assert_eq!(
        kind_of_error(c.write_at(b"x", 0)),
        io::ErrorKind::StorageFull
    );
}

#[test]
fn files_can_be_tampered_with_behind_the_scenes() {
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(path("/d")).unwrap();
    fs.write_file("/d/a", b"one").unwrap();
    let file = fs.open(path("/d/a")).unwrap();
    fs.remove(path("/d/a")).unwrap();
    fs.write_file("/d/a", b"two").unwrap();
    for policy in [CrashPolicy::DropUnsynced, CrashPolicy::KeepUnsynced] {
        let after = fs.crash(0, policy);
        assert_eq!(after.read_file("/d/a").unwrap(), b"two");
    }
    let mut bytes = [0; 3];
    read_exact_at(&*file, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"one");
    assert_eq!(
        kind_of_error(fs.write_file("/e/a", b"")),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        kind_of_error(fs.read_file("/d")),
        io::ErrorKind::IsADirectory
    );
}

/// Gigabytes of space, and many copies of them, cost no memory until written.
#[test]
fn large_allocations_are_cheap() {
    let fs = MemoryFileSystem::new();
    for number in 0..1_000 {
        let file = fs.create(path(&format!("/{number}"))).unwrap();
        file.allocate(64 << 20).unwrap();
        file.write_at(b"x", (64 << 20) - 1).unwrap();
        file.sync().unwrap();
    }
    assert_eq!(fs.bytes_used(), 1_000 * (64 << 20));
    for seed in 0..10 {
        let after = fs.crash(seed, CrashPolicy::KeepUnsynced);
        assert_eq!(after.bytes_used(), 1_000 * (64 << 20));
    }
}

#[test]
fn removed_files_are_forgotten_once_nothing_can_bring_them_back() {
    let fs = MemoryFileSystem::new();
    fs.create_dir_all(path("/d/e")).unwrap();
    let open = fs.create(path("/d/e/a")).unwrap();
    fs.create(path("/d/e/b")).unwrap();
    fs.sync_dir(path("/d/e")).unwrap();
    fs.remove(path("/d/e/a")).unwrap();
    fs.remove(path("/d/e/b")).unwrap();
    fs.remove_dir(path("/d/e")).unwrap();
    fs.remove_dir(path("/d")).unwrap();
    assert!(fs.state().tree.inodes() > 2);
    fs.sync_dir(path("/")).unwrap();
    assert_eq!(fs.state().tree.inodes(), 2, "the root and the open file");
    drop(open);
    assert_eq!(fs.state().tree.inodes(), 1);
}
