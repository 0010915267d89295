//! Repositories in stores of objects: without locks, with calls that fail at any time, and with several writers at once.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod support;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use vault_core::ErrorKind;
use vault_core::clock::ManualClock;
use vault_core::vfs::MemoryFileSystem;
use vault_snapshot::archive::{Error, Kind};
use vault_snapshot::destination::{Destination, Found, ObjectStoreDestination, ObjectStoreOptions};
use vault_snapshot::repository::{CreateOptions, Parent, Repository, RepositoryOptions};
use vault_snapshot::retention::Retention;

use support::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Shared by the handles of one [`Cut`].
#[derive(Debug, Default)]
struct Calls {
    made: AtomicU64,
    /// The call that fails, from zero; `u64::MAX` for none.
    fails: AtomicU64,
    /// Whether all behind it fail as well.
    for_good: AtomicBool,
    /// Whether what fails is done all the same: an answer that gets lost.
    answer_only: AtomicBool,
    meanwhile: Once,
}

/// What happens once, before a call of this number, from zero.
#[derive(Default)]
struct Once(Mutex<Option<(u64, Act)>>);

type Act = Box<dyn FnOnce() + Send>;

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

impl Calls {
    /// Whether this call fails.
    fn fails(&self) -> bool {
        let call = self.made.fetch_add(1, Ordering::SeqCst);
        let due = |(before, _): &mut (u64, _)| *before == call;
        let meanwhile = self.meanwhile.0.lock().unwrap().take_if(due);
        if let Some((_, act)) = meanwhile {
            act();
        }
        let fails = self.fails.load(Ordering::SeqCst);
        call == fails || call > fails && self.for_good.load(Ordering::SeqCst)
    }

    fn answer<T>(&self, fails: bool, answer: Result<T>) -> Result<T> {
        if fails { Err(cut()) } else { answer }
    }

    fn acts(&self, fails: bool) -> bool {
        !fails || self.answer_only.load(Ordering::SeqCst)
    }
}

fn cut() -> object_store::Error {
    object_store::Error::Generic {
        store: "Cut",
        source: "the line was cut".into(),
    }
}

/// A store of objects in memory whose calls fail on demand.
#[derive(Debug, Clone)]
struct Cut {
    inner: Arc<InMemory>,
    calls: Arc<Calls>,
}

impl Cut {
    fn new() -> Self {
        let calls = Arc::new(Calls::default());
        calls.fails.store(u64::MAX, Ordering::SeqCst);
        Self {
            inner: Arc::new(InMemory::new()),
            calls,
        }
    }

    fn fail(&self, call: u64, for_good: bool, answer_only: bool) {
        self.calls.made.store(0, Ordering::SeqCst);
        self.calls.for_good.store(for_good, Ordering::SeqCst);
        self.calls.answer_only.store(answer_only, Ordering::SeqCst);
        self.calls.fails.store(call, Ordering::SeqCst);
    }

    fn meanwhile(&self, before: u64, act: impl FnOnce() + Send + 'static) {
        *self.calls.meanwhile.0.lock().unwrap() = Some((before, Box::new(act)));
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

#[async_trait]
impl ObjectStore for Cut {
    async fn put_opts(&self, at: &Path, bytes: PutPayload, how: PutOptions) -> Result<PutResult> {
        let fails = self.calls.fails();
        if !self.calls.acts(fails) {
            return Err(cut());
        }
        let answer = self.inner.put_opts(at, bytes, how).await;
        self.calls.answer(fails, answer)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if self.calls.fails() {
            return Err(cut());
        }
        let upload = self.inner.put_multipart_opts(at, how).await?;
        let calls = Arc::clone(&self.calls);
        Ok(Box::new(CutUpload { upload, calls }))
    }

    async fn get_opts(&self, at: &Path, how: GetOptions) -> Result<GetResult> {
        if self.calls.fails() {
            return Err(cut());
        }
        self.inner.get_opts(at, how).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, calls) = (Arc::clone(&self.inner), Arc::clone(&self.calls));
        let delete = move |path: Result<Path>| {
            let (inner, calls) = (Arc::clone(&inner), Arc::clone(&calls));
            async move {
                let path = path?;
                let fails = calls.fails();
                if !calls.acts(fails) {
                    return Err(cut());
                }
                let answer = inner.delete(&path).await;
                calls.answer(fails, answer.map(|()| path))
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.calls.fails() {
            return futures_util::stream::once(async { Err(cut()) }).boxed();
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}

#[derive(Debug)]
struct CutUpload {
    upload: Box<dyn MultipartUpload>,
    calls: Arc<Calls>,
}

#[async_trait]
impl MultipartUpload for CutUpload {
    fn put_part(&mut self, bytes: PutPayload) -> UploadPart {
        if self.calls.fails() {
            return Box::pin(async { Err(cut()) });
        }
        self.upload.put_part(bytes)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fails = self.calls.fails();
        if !self.calls.acts(fails) {
            return Err(cut());
        }
        let answer = self.upload.complete().await;
        self.calls.answer(fails, answer)
    }

    async fn abort(&mut self) -> Result<()> {
        if self.calls.fails() {
            return Err(cut());
        }
        self.upload.abort().await
    }
}

struct Bucket {
    store: Cut,
    clock: Arc<ManualClock>,
    repository: Repository,
}

impl Bucket {
    fn new() -> Self {
        let store = Cut::new();
        let clock = Arc::new(ManualClock::new(NOW));
        Self {
            repository: repository(&store, &clock),
            store,
            clock,
        }
    }

    /// The same, for somebody whose calls do not fail.
    fn undisturbed(&self) -> Repository {
        let store = Cut {
            inner: Arc::clone(&self.store.inner),
            ..Cut::new()
        };
        repository(&store, &self.clock)
    }

    fn create(
        &self,
        files: &Files,
    ) -> std::result::Result<vault_snapshot::archive::Manifest, Error> {
        let options = CreateOptions {
            parent: Parent::Newest,
            ..CreateOptions::default()
        };
        let made = self.repository.create(source_of(files), &options, &());
        self.clock.advance(Duration::from_secs(60));
        made
    }

    fn restored(&self, name: vault_snapshot::archive::SnapshotName) -> Files {
        let fs = MemoryFileSystem::new();
        let all = |_: &_| true;
        let target = TARGET.as_ref();
        self.repository
            .extract(name, &fs, target, &all, |_| Ok(()), &())
            .unwrap();
        files_in(&fs, TARGET)
    }

    fn objects(&self) -> Vec<String> {
        let listed = self
            .store
            .inner
            .list(None)
            .map(|object| object.unwrap().location.to_string());
        let mut listed: Vec<_> = wait(listed.collect());
        listed.sort_unstable();
        listed
    }
}

fn repository(store: &Cut, clock: &Arc<ManualClock>) -> Repository {
    let options = ObjectStoreOptions {
        part_bytes: 5 << 20,
        ..ObjectStoreOptions::default()
    };
    let place = ObjectStoreDestination::new(Arc::new(store.clone()), "backups/orders", options);
    let options = RepositoryOptions {
        clock: clock.clone(),
        ..RepositoryOptions::default()
    };
    Repository::open(Arc::new(place.unwrap()), options).unwrap()
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build();
    runtime.unwrap().block_on(work)
}

#[test]
fn a_bucket_holds_snapshots() {
    let bucket = Bucket::new();
    let mut files = some_files(1);
    // Over some parts.
    files.insert(
        "000020.table".into(),
        (0..12_000_000u32).map(|n| (n >> 3) as u8).collect(),
    );
    let full = bucket.create(&files).unwrap();
    files.insert("000021.table".into(), vec![3; 1000]);
    let next = bucket.create(&files).unwrap();
    assert_eq!((full.kind, next.kind), (Kind::Full, Kind::Incremental));
    assert_eq!(
        bucket.repository.list().unwrap(),
        [full.clone(), next.clone()]
    );
    bucket.repository.verify(next.name, &()).unwrap();
    assert_eq!(bucket.restored(next.name), files);
    assert!(
        bucket
            .objects()
            .iter()
            .all(|object| !object.ends_with("writing"))
    );

    let merged = bucket.repository.consolidate(next.name, &()).unwrap();
    let plan = bucket
        .repository
        .prune(&Retention::default(), false)
        .unwrap();
    assert_eq!(plan.remove, [full.name, next.name]);
    assert_eq!(bucket.restored(merged.name), files);
    let left = ["manifest.json", "snapshot.zip"]
        .map(|file| format!("backups/orders/{}/{file}", merged.name));
    assert_eq!(bucket.objects(), left);
}

/// Lengths stand behind the bytes there, because what is uploaded is not changed any more.
#[test]
fn an_archive_of_a_bucket_is_a_zip_as_well() {
    let bucket = Bucket::new();
    let files = some_files(1);
    let made = bucket.create(&files).unwrap();
    let path = Path::from(format!("backups/orders/{}/snapshot.zip", made.name));
    let bytes = wait(async {
        bucket
            .store
            .inner
            .get(&path)
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap()
    });
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(&bytes[..])).unwrap();
    assert_eq!(zip.len(), files.len() + 1);
    for (name, content) in &files {
        let mut entry = zip.by_name(&format!("store/{name}")).unwrap();
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut read).unwrap();
        assert_eq!(read, *content);
    }
}

/// Each call of a snapshot fails: once, or from then on, or its answer alone is lost.
#[test]
fn a_line_that_is_cut_leaves_only_whole_snapshots() {
    let mut files = some_files(1);
    files.insert("000020.table".into(), vec![5; 11 << 20]);
    for (for_good, answer_only) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut failed = 0;
        for call in 0.. {
            let context = format!("call {call}, for good: {for_good}, answer only: {answer_only}");
            let bucket = Bucket::new();
            let first = bucket.create(&some_files(2)).unwrap();
            bucket.store.fail(call, for_good, answer_only);
            let made = bucket.create(&files);
            let hit = bucket.store.calls.made.load(Ordering::SeqCst) > call;
            bucket.store.fail(u64::MAX, false, false);
            let names = bucket.repository.names().unwrap();
            match &made {
                Ok(made) => assert_eq!(names, [first.name, made.name], "{context}"),
                Err(error) => {
                    failed += 1;
                    assert_eq!(error.kind(), ErrorKind::Retry, "{context}: {error}");
                    assert!(
                        matches!(error, Error::Remote { .. } | Error::Busy { .. }),
                        "{context}: {error:?}"
                    );
                }
            }
            for name in &names {
                bucket.repository.verify(*name, &()).unwrap();
            }
            // Nothing young is touched; a day later nothing is left of it.
            assert_eq!(bucket.repository.clean().unwrap().removed, [], "{context}");
            bucket.clock.advance(DAY);
            bucket.repository.clean().unwrap();
            let mut objects = bucket.objects();
            objects.retain(|object| !object.ends_with("writing"));
            assert_eq!(objects.len(), 2 * names.len(), "{context}: {objects:?}");
            let again = bucket.create(&files).unwrap();
            assert_eq!(bucket.restored(again.name), files, "{context}");
            if !hit {
                break;
            }
        }
        assert!(failed >= 5, "{failed} calls were cut off");
    }
}

#[test]
fn two_writers_at_once_do_not_meet() {
    let bucket = Bucket::new();
    let other = repository(&bucket.store, &bucket.clock);
    let names: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|seed| {
                let repository = if seed % 2 == 0 {
                    &bucket.repository
                } else {
                    &other
                };
                scope.spawn(move || {
                    let source = source_of(&some_files(seed));
                    let made = repository.create(source, &CreateOptions::default(), &());
                    (made.unwrap().name, seed)
                })
            })
            .collect();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    assert_eq!(other.names().unwrap().len(), 4);
    for (name, seed) in names {
        assert_eq!(bucket.restored(name), some_files(seed));
    }
}

#[test]
fn a_name_that_is_taken_stays_its_owners() {
    let bucket = Bucket::new();
    let made = bucket.create(&some_files(1)).unwrap();
    let place = bucket.repository.destination();
    let error = place.publish(made.name, b"{}").unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    // A request that was sent twice is its own.
    place.publish(made.name, &made.to_json()).unwrap();
    // Whoever chose the name before it was published, and comes only now, gets another: its archive stays what it is.
    assert!(matches!(place.begin(made.name), Err(Error::Busy { .. })));
    assert_eq!(bucket.restored(made.name), some_files(1));
    let taken = made.name.next().unwrap();
    let mut upload = place.begin(taken).unwrap();
    assert!(matches!(place.begin(taken), Err(Error::Busy { .. })));
    assert_eq!(
        place.list().unwrap()[1],
        Found {
            name: taken,
            manifest: false
        }
    );
    upload.abort();
    bucket.clock.set(NOW);
    let next = bucket.create(&some_files(2)).unwrap();
    assert_eq!(next.name, taken.next().unwrap());
}

#[test]
fn other_objects_are_passed_over_and_left_alone() {
    let bucket = Bucket::new();
    let others = [
        "backups/orders/readme.txt",
        "backups/orders/2026-11-22T153000Z/deeper/manifest.json",
        "backups/orders2/2026-11-22T153000Z/manifest.json",
        "backups/orders/latest/manifest.json",
    ];
    for other in others {
        wait(
            bucket
                .store
                .inner
                .put(&Path::from(other), "precious".into()),
        )
        .unwrap();
    }
    assert_eq!(bucket.repository.names().unwrap(), []);
    let made = bucket.create(&some_files(1)).unwrap();
    bucket.clock.advance(DAY * 2);
    bucket.repository.clean().unwrap();
    bucket.repository.remove(made.name).unwrap();
    let objects = bucket.objects();
    assert!(
        others
            .iter()
            .all(|other| objects.iter().any(|object| object == other))
    );
}

/// Whoever calls from a task of a runtime of their own is made to wait, not killed.
#[test]
fn calls_come_from_anywhere() {
    let made = wait(async {
        let bucket = Bucket::new();
        let made = bucket.create(&some_files(1)).unwrap();
        bucket.repository.verify(made.name, &()).unwrap();
        drop(bucket);
        made
    });
    assert_eq!(made.kind, Kind::Full);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let store = || Arc::new(InMemory::new());
    let small = ObjectStoreOptions {
        part_bytes: 1 << 20,
        ..ObjectStoreOptions::default()
    };
    assert!(matches!(
        ObjectStoreDestination::new(store(), "a", small),
        Err(Error::InvalidRequest { .. })
    ));
    let options = ObjectStoreOptions::default();
    let odd = ObjectStoreDestination::new(store(), "a/../b", options.clone());
    assert!(matches!(odd, Err(Error::InvalidRequest { .. })));
    let root = ObjectStoreDestination::new(store(), "", options).unwrap();
    assert_eq!(root.list().unwrap(), []);
}

/// There are no locks: what an incremental snapshot builds on may be pruned while it is made.
#[test]
fn nothing_is_published_on_what_was_pruned_meanwhile() {
    let bucket = Bucket::new();
    let first = bucket.create(&some_files(1)).unwrap();
    let mut files = some_files(1);
    files.insert("000020.table".into(), vec![5; 1000]);
    let (store, clock) = (bucket.store.clone(), Arc::clone(&bucket.clock));
    // The watcher is asked after the parent was chosen, and before the archive is finished.
    let watcher = move |done: u64, _: u64| {
        let other = repository(&store, &clock);
        if done == 0 && other.names().unwrap() == [first.name] {
            other.remove(first.name).unwrap();
        }
        ControlFlow::Continue(())
    };
    let options = CreateOptions {
        parent: Parent::Newest,
        ..CreateOptions::default()
    };
    let made = bucket
        .repository
        .create(source_of(&files), &options, &watcher);
    match made {
        Err(Error::Parent {
            parent, problem, ..
        }) => {
            assert_eq!(parent, first.name.to_string());
            assert!(problem.contains("was removed while"), "{problem}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bucket.repository.names().unwrap(), []);
    let left = bucket.objects();
    assert!(left.iter().all(|at| at.ends_with("writing")), "{left:?}");
    // Once more, and it is a full one.
    bucket.clock.advance(Duration::from_secs(60));
    let again = bucket.create(&files).unwrap();
    assert_eq!(bucket.restored(again.name), files);
}

/// Whatever the order in which a snapshot and pruning come, what is listed can be restored.
#[test]
fn pruning_and_making_at_once_leave_whole_chains() {
    for round in 0..24_u64 {
        let bucket = Bucket::new();
        bucket.create(&some_files(1)).unwrap();
        bucket.create(&some_files(1)).unwrap();
        let mut files = some_files(1);
        files.insert("000020.table".into(), vec![round as u8; 1000]);
        std::thread::scope(|scope| {
            scope.spawn(|| drop(bucket.create(&files)));
            scope.spawn(|| {
                std::thread::park_timeout(Duration::from_micros(200 * round));
                let other = repository(&bucket.store, &bucket.clock);
                for name in other.names().unwrap().into_iter().rev() {
                    drop(other.remove(name));
                }
            });
        });
        for name in bucket.repository.names().unwrap() {
            bucket.repository.verify(name, &()).unwrap();
        }
    }
}

/// Who could not take a name, or not see that it is free, does not know whose it is: what another one has put there stays.
#[test]
fn a_name_that_could_not_be_taken_is_not_cleared() {
    for (call, answer_only) in [2, 3, 4].into_iter().flat_map(|n| [(n, false), (n, true)]) {
        let context = format!("call {call}, answer only: {answer_only}");
        let bucket = Bucket::new();
        // The other one begins after this one has listed the names, and ends before this one takes its own.
        let other = bucket.undisturbed();
        let make = move || {
            let source = source_of(&some_files(1));
            let made = other.create(source, &CreateOptions::default(), &());
            made.map(drop).unwrap();
        };
        bucket.store.fail(call, false, answer_only);
        bucket.store.meanwhile(2, make);
        let source = source_of(&some_files(2));
        let made = bucket
            .repository
            .create(source, &CreateOptions::default(), &());
        bucket.store.fail(u64::MAX, false, false);
        let names = bucket.repository.names().unwrap();
        assert_eq!(names.len(), 1 + usize::from(made.is_ok()), "{context}");
        assert_eq!(bucket.restored(names[0]), some_files(1), "{context}");
    }
}

/// A call fails while a snapshot is removed on which another one is being made: that one is whole, or not there.
#[test]
fn a_line_that_is_cut_while_removing_leaves_only_whole_snapshots() {
    let mut files = some_files(1);
    files.insert("000020.table".into(), vec![5; 1000]);
    let (mut failed, mut not_put_back) = (0, 0);
    for (made_before, call) in (0..9).flat_map(|n| (0..12).map(move |call| (n, call))) {
        let context = format!("made before call {made_before}, call {call} fails");
        let bucket = Bucket::new();
        let first = bucket.create(&some_files(1)).unwrap();
        let (other, source) = (bucket.undisturbed(), source_of(&files));
        bucket.store.fail(call, false, false);
        bucket.store.meanwhile(made_before, move || {
            let options = CreateOptions {
                parent: Parent::Newest,
                ..CreateOptions::default()
            };
            drop(other.create(source, &options, &()));
        });
        failed += u32::from(bucket.repository.remove(first.name).is_err());
        bucket.store.fail(u64::MAX, false, false);
        for name in bucket.repository.names().unwrap() {
            if let Err(error) = bucket.repository.verify(name, &()) {
                // Putting the manifest back failed as well: its bytes are there, and stay.
                assert!(matches!(error, Error::Parent { .. }), "{context}: {error}");
                bucket.clock.advance(DAY);
                let kept = bucket.repository.clean().unwrap().kept_for;
                assert_eq!(kept, [(first.name, vec![name])], "{context}");
                not_put_back += 1;
            }
        }
    }
    assert!(failed > 20 && not_put_back < 6, "{failed}, {not_put_back}");
}
