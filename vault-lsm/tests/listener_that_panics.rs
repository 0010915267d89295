//! A listener that panics, at every event: on the engine's threads and on the caller's. It is counted, called
//! again for the next event, and nothing else comes of it.
//!
//! The threads that flush and compact died of it, and nobody did their work any more: writers stood still,
//! without an error, for ever.

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use support::{
    DIRECTORY, assert_contents, expected, manual, put_all, small_keyspace, threaded, wait_until,
};
use vault_core::vfs::MemoryFileSystem;
use vault_core::{Engine, Event, EventListener, KeyRange};
use vault_lsm::{Lsm, LsmOptions};

#[derive(Default)]
struct Panicking(AtomicU64);

impl EventListener for Panicking {
    fn on_event(&self, event: &Event) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("a listener that cannot bear {event:?}");
    }
}

#[test]
fn it_harms_nobody() {
    // What the listener says is of no interest; what the tests say is.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let payload = info.payload().downcast_ref::<String>();
        if payload.is_none_or(|text| !text.contains("cannot bear")) {
            report(info);
        }
    }));
    for options in [manual, threaded] as [fn(&MemoryFileSystem) -> LsmOptions; 2] {
        let fs = MemoryFileSystem::new();
        let listener = Arc::new(Panicking::default());
        let told = || listener.0.load(Ordering::Relaxed);
        let open = || Lsm::open(DIRECTORY, options(&fs).listener(Arc::clone(&listener) as _));
        let store = open().unwrap();
        let ks = store.create_keyspace("k", &small_keyspace()).unwrap();
        put_all(&store, ks, 0..3_000, 1);
        wait_until("an event", || {
            store.settle().unwrap();
            told() > 5
        });
        let compacted = store.compact(ks, KeyRange::all(), &mut |_| ControlFlow::Continue(()));
        compacted.unwrap();
        store
            .ingest(ks, [(support::key(3_000), support::value(3_000, 1))])
            .unwrap();
        store.checkpoint("/copy").unwrap();
        assert_contents(&store, ks, &expected(0..3_001, 1));
        wait_until("every panic to be counted", || {
            store.stats().unwrap().listener_panics == told()
        });
        store.close().unwrap();
        drop(store);
        let store = open().unwrap();
        assert_contents(&store, ks, &expected(0..3_001, 1));
        assert!(
            store.stats().unwrap().listener_panics > 0,
            "recovery was told of"
        );
    }
}
