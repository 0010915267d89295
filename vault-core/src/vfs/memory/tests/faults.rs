//! Errors on demand.

use super::*;

const EIO: i32 = 5;

fn error(class: OperationClass) -> Fault {
    Fault::new(class, FaultKind::Errno(EIO))
}

fn is_injected<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|e| e.raw_os_error() == Some(EIO))
}

#[test]
fn each_class_fails_its_own_operations_and_no_others() {
    use OperationClass as Class;
    type Verb = fn(&MemoryFileSystem, &dyn File) -> io::Result<()>;
    let verbs: [(Class, Verb); 20] = [
        (Class::Open, |fs, _| fs.open(path("/a")).map(drop)),
        (Class::Open, |fs, _| fs.open_for_write(path("/a")).map(drop)),
        (Class::Read, |_, file| {
            file.read_at(&mut [0; 2], 0).map(drop)
        }),
        (Class::Write, |_, file| file.write_at(b"x", 0)),
        (Class::Write, |_, file| file.set_len(100)),
        (Class::Sync, |_, file| file.sync()),
        (Class::Create, |fs, _| fs.create(path("/b")).map(drop)),
        (Class::Create, |fs, _| fs.create_dir_all(path("/d"))),
        (Class::Create, |fs, _| fs.create_dir(path("/f"))),
        (Class::Rename, |fs, _| fs.rename(path("/b"), path("/c"))),
        (Class::Link, |fs, _| fs.hard_link(path("/c"), path("/e"))),
        (Class::Remove, |fs, _| fs.remove(path("/c"))),
        (Class::Remove, |fs, _| fs.remove_dir(path("/d"))),
        (Class::SyncDir, |fs, _| fs.sync_dir(path("/"))),
        (Class::Allocate, |_, file| file.allocate(1_000)),
        (Class::Map, |_, file| file.map(1_000).map(drop)),
        (Class::List, |fs, _| fs.read_dir(path("/")).map(drop)),
        (Class::Metadata, |fs, _| fs.kind(path("/a")).map(drop)),
        (Class::Metadata, |_, file| file.len().map(drop)),
        (Class::Lock, |fs, _| fs.lock(path("/LOCK"), "me").map(drop)),
    ];
    for (failing, _) in verbs {
        let fs = MemoryFileSystem::new();
        let file = durable(&fs, "/a", b"bytes");
        for (class, verb) in verbs {
            let before = fs.operations();
            fs.inject(error(failing));
            assert_eq!(is_injected(verb(&fs, &*file)), class == failing);
            fs.clear_faults();
            if class == failing {
                verb(&fs, &*file).unwrap();
            }
            assert!(fs.operations() > before, "{class:?} counts");
        }
    }
}

#[test]
fn a_fault_waits_strikes_once_or_stays_and_keeps_to_its_path() {
    let fs = MemoryFileSystem::new();
    let (a, b) = (durable(&fs, "/a.log", b"a"), durable(&fs, "/b.log", b"b"));
    fs.inject(error(OperationClass::Write).after(2).on_path("a.l"));
    for _ in 0..2 {
        a.write_at(b"x", 0).unwrap();
        b.write_at(b"x", 0).unwrap();
    }
    b.write_at(b"y", 0).unwrap();
    assert!(is_injected(a.write_at(b"y", 0)));
    assert_eq!(fs.read_file("/a.log").unwrap(), b"x", "without effect");
    a.write_at(b"y", 0).unwrap();

    fs.inject(Fault {
        after: 1,
        class: OperationClass::Any,
        kind: FaultKind::Error(io::ErrorKind::StorageFull),
        sticky: true,
        path: None,
    });
    a.sync().unwrap();
    for _ in 0..3 {
        assert_eq!(
            kind_of_error(fs.kind(path("/"))),
            io::ErrorKind::StorageFull
        );
        assert_eq!(kind_of_error(a.len()), io::ErrorKind::StorageFull);
    }
    fs.clear_faults();
    a.sync().unwrap();
    // A rename can be hit by either of its paths.
    fs.inject(error(OperationClass::Rename).on_path("new"));
    assert!(is_injected(fs.rename(path("/a.log"), path("/new"))));
}

#[test]
fn two_faults_strike_one_after_the_other() {
    let fs = MemoryFileSystem::new();
    fs.inject(error(OperationClass::Any));
    fs.inject(error(OperationClass::Any));
    assert!(is_injected(fs.kind(path("/"))));
    assert!(is_injected(fs.kind(path("/"))));
    fs.kind(path("/")).unwrap();
}

#[test]
fn short_writes_leave_half_and_short_reads_give_half() {
    let fs = MemoryFileSystem::new();
    let file = durable(&fs, "/a", b"........");
    fs.inject(Fault::new(OperationClass::Any, FaultKind::ShortWrite));
    file.len().unwrap();
    let short = kind_of_error(file.write_at(b"12345678", 0));
    assert_eq!(short, io::ErrorKind::WriteZero);
    assert_eq!(fs.read_file("/a").unwrap(), b"1234....");
    let map = file.map(8).unwrap();
    fs.inject(Fault::new(OperationClass::Write, FaultKind::ShortWrite));
    assert!(map.write(0, b"abcd").is_err());
    assert_eq!(fs.read_file("/a").unwrap(), b"ab34....");

    fs.inject(Fault::new(OperationClass::Any, FaultKind::ShortRead));
    file.write_at(b"", 0).unwrap();
    let mut buffer = [0; 100];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 4);
    assert_eq!(&buffer[..5], b"ab34\0");
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 8);
}

#[test]
fn a_failed_sync_loses_what_later_syncs_do_not_bring_back() {
    let fs = MemoryFileSystem::new();
    let file = durable(&fs, "/a", &[1; 2048]);
    file.write_at(&[2; 1024], 0).unwrap();
    file.write_at(&[2; 512], 2048).unwrap();
    fs.inject(error(OperationClass::Sync));
    assert!(is_injected(file.sync()));
    file.write_at(&[3; 512], 512).unwrap();
    file.sync().unwrap();
    let now = fs.read_file("/a").unwrap();
    assert_eq!((now[0], now[512], now[2048]), (2, 3, 2), "reads as before");

    let dropped = fs.crash(0, CrashPolicy::DropUnsynced);
    let bytes = dropped.read_file("/a").unwrap();
    assert_eq!(bytes.len(), 2048, "the lost length is not brought back");
    assert!(bytes[..512].iter().all(|b| *b == 1), "lost");
    assert!(bytes[512..1024].iter().all(|b| *b == 3), "written anew");
    let kept = fs.crash(0, CrashPolicy::KeepUnsynced);
    assert_eq!(kept.read_file("/a").unwrap(), now, "it may have been there");

    // What is written beyond the durable end after the failure is found once synced.
    file.write_at(&[4; 512], 2048).unwrap();
    file.sync().unwrap();
    let bytes = fs.crash(0, CrashPolicy::DropUnsynced).read_file("/a");
    assert_eq!(bytes.unwrap()[2048..], [4; 512]);
}

#[test]
fn a_failed_directory_sync_loses_entries() {
    let fs = MemoryFileSystem::new();
    durable(&fs, "/old", b"");
    fs.create(path("/lost")).unwrap();
    fs.inject(error(OperationClass::SyncDir));
    assert!(is_injected(fs.sync_dir(path("/"))));
    fs.create(path("/found")).unwrap();
    fs.sync_dir(path("/")).unwrap();
    let dropped = fs.crash(0, CrashPolicy::DropUnsynced);
    assert_eq!(names(&dropped), ["/found", "/old"]);
    let kept = fs.crash(0, CrashPolicy::KeepUnsynced);
    assert_eq!(names(&kept), ["/found", "/lost", "/old"]);
}

#[test]
fn the_crash_point_freezes_the_state() {
    let workload = |fs: &MemoryFileSystem| -> io::Result<()> {
        let file = fs.create(path("/a"))?;
        file.write_at(b"bytes", 0)?;
        file.sync()?;
        fs.sync_dir(path("/"))
    };
    let fs = MemoryFileSystem::new();
    workload(&fs).unwrap();
    let total = fs.operations();
    assert_eq!(total, 4);
    for point in 0..=total {
        let fs = MemoryFileSystem::new();
        fs.set_crash_point(Some(point));
        assert_eq!(workload(&fs).is_ok(), point == total);
        assert_eq!(kind_of_error(fs.kind(path("/"))), io::ErrorKind::Other);
        assert_eq!(kind_of_error(fs.sync_dir(path("/"))), io::ErrorKind::Other);
        let after = fs.crash(0, CrashPolicy::DropUnsynced);
        assert_eq!(after.list().len(), usize::from(point == total));
        let kept = fs.crash(0, CrashPolicy::KeepUnsynced);
        assert_eq!(kept.list().len(), usize::from(point > 0));
        assert_eq!(after.operations(), 0);
        after.create(path("/works again")).unwrap();
        fs.set_crash_point(None);
        fs.kind(path("/")).unwrap();
    }
}

#[test]
fn a_sync_refused_at_the_crash_point_loses_nothing() {
    let fs = MemoryFileSystem::new();
    let file = durable(&fs, "/a", b"old");
    file.write_at(b"new", 0).unwrap();
    fs.create(path("/b")).unwrap();
    fs.set_crash_point(Some(fs.operations()));
    file.sync().unwrap_err();
    fs.sync_dir(path("/")).unwrap_err();
    fs.set_crash_point(None);
    file.sync().unwrap();
    fs.sync_dir(path("/")).unwrap();
    let after = fs.crash(0, CrashPolicy::DropUnsynced);
    assert_eq!(after.read_file("/a").unwrap(), b"new");
    assert_eq!(names(&after), ["/a", "/b"]);
}
