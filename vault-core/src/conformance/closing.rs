//! After closing, everything answers that it is closed.

use std::ops::ControlFlow;

use super::harness::{Fixture, Harness, assert_refused};
use crate::batch::WriteBatch;
use crate::engine::{Engine, Reader};
use crate::error::{Error, ErrorKind};
use crate::options::WriteOptions;
use crate::range::KeyRange;

/// Every verb of every handle, snapshot, cursor and scan answers `Closed`; closing again does nothing.
pub fn use_after_close<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    let last = f.set(ks, b"k", b"v");
    let snapshot = f.snapshot().unwrap();
    let mut cursor = f.cursor(ks, KeyRange::all()).unwrap();
    cursor.first().unwrap();
    let mut scan = f.scan(ks, KeyRange::all()).unwrap();
    let other = f.harness.engine(&f.store);
    f.close().unwrap();
    let options = WriteOptions::default();
    for engine in [&*f as &dyn Engine, &*other] {
        assert_refused!(engine.put(ks, b"k", b"", &options), Error::Closed);
        assert_refused!(engine.delete(ks, b"k", &options), Error::Closed);
        assert_refused!(engine.write(&WriteBatch::new(), &options), Error::Closed);
        let mut batch = WriteBatch::new();
        batch.put(ks, b"k", b"");
        assert_refused!(engine.write(&batch, &options), Error::Closed);
        assert_refused!(engine.try_write(&batch, &options), Error::Closed);
        let cas = engine.compare_and_set(ks, b"k", None, None, &options);
        assert_refused!(cas, Error::Closed);
        assert_refused!(
            engine.create_keyspace("k", &harness.options()),
            Error::Closed
        );
        assert_refused!(
            engine.create_keyspace("new", &harness.options()),
            Error::Closed
        );
        assert_refused!(engine.keyspace("k"), Error::Closed);
        assert_refused!(engine.keyspaces(), Error::Closed);
        assert_refused!(engine.drop_keyspace(ks), Error::Closed);
        assert_refused!(engine.snapshot(), Error::Closed);
        assert_refused!(engine.sync(), Error::Closed);
        assert_refused!(engine.flush(None), Error::Closed);
        assert_refused!(engine.flush(Some(ks)), Error::Closed);
        let compacted = engine.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
        assert_refused!(compacted, Error::Closed);
        assert_refused!(engine.stats(), Error::Closed);
        assert_eq!(
            engine.latest_sequence(),
            last,
            "it cannot fail, and still knows"
        );
        assert_eq!(engine.now(), super::START);
        engine.close().unwrap();
    }
    for reader in [&*f as &dyn Reader, &*snapshot as &dyn Reader] {
        assert_refused!(reader.get(ks, b"k"), Error::Closed);
        assert_refused!(reader.multi_get(ks, &[b"k"]), Error::Closed);
        assert_refused!(reader.cursor(ks, KeyRange::all()), Error::Closed);
        assert_refused!(reader.scan(ks, KeyRange::all()), Error::Closed);
        assert_refused!(reader.scan_prefix(ks, b""), Error::Closed);
    }
    assert_refused!(cursor.next(), Error::Closed);
    assert_refused!(cursor.first(), Error::Closed);
    assert!(cursor.entry().is_none(), "unpositioned after an error");
    assert_refused!(cursor.last(), Error::Closed);
    assert_refused!(cursor.seek(b""), Error::Closed);
    assert_refused!(cursor.seek_back(b"z"), Error::Closed);
    assert_refused!(cursor.fork(), Error::Closed);
    assert_refused!(scan.next().unwrap(), Error::Closed);
    assert_eq!(snapshot.sequence(), last);
    assert_eq!(Error::Closed.kind(), ErrorKind::Reopen);
}

/// Closing while others read and write ends in `Closed` for them, and in nothing else.
pub fn closing_under_load<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.plain("k");
    let engine: &dyn Engine = &*f;
    std::thread::scope(|scope| {
        let (begun, all_begun) = std::sync::mpsc::channel();
        for thread in 0..3_u8 {
            let begun = begun.clone();
            scope.spawn(move || {
                for i in 0_u64.. {
                    let key = [&[thread][..], &(i % 500).to_be_bytes()].concat();
                    let outcome = engine
                        .put(ks, &key, &[thread; 100], &WriteOptions::default())
                        .and_then(|_| engine.get(ks, &key))
                        .and_then(|_| engine.scan_prefix(ks, &key)?.try_for_each(|e| e.map(drop)));
                    match outcome {
                        Ok(()) if i == 100 => begun.send(()).unwrap(),
                        Ok(()) => {}
                        Err(Error::Closed) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        // A thread that fails drops its sender, which must not be waited for in vain.
        drop(begun);
        assert_eq!(all_begun.iter().take(3).count(), 3, "a thread failed");
        engine.close().unwrap();
    });
    assert_refused!(f.get(ks, b""), Error::Closed);
}
