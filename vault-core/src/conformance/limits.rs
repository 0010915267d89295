//! Keys, values and batches at and over their limits.

use super::harness::{Fixture, Harness, assert_refused, got, keys};
use crate::batch::WriteBatch;
use crate::error::Error;
use crate::limits::{KEY_BYTES_MAX, Limits};
use crate::merge::APPEND;
use crate::options::WriteOptions;
use crate::range::KeyRange;

/// Keys from empty to 64 KiB are keys as any other; one byte more is refused by every verb.
pub fn keys_from_empty_to_the_limit<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.merging("k", APPEND);
    let longest = vec![7; KEY_BYTES_MAX];
    let mut neighbour = longest.clone();
    *neighbour.last_mut().unwrap() = 8;
    f.set(ks, b"", b"empty");
    f.set(ks, &longest, b"longest");
    f.set(ks, &neighbour, b"neighbour");
    for _ in 0..2 {
        assert_eq!(got(&*f, ks, b"").unwrap(), b"empty");
        assert_eq!(got(&*f, ks, &longest).unwrap(), b"longest");
        assert_eq!(got(&*f, ks, &neighbour).unwrap(), b"neighbour");
        let all = [Vec::new(), longest.clone(), neighbour.clone()];
        assert!(keys(&*f, ks) == all, "the keys in order");
        f.settle();
    }
    f.batch(|b| {
        b.merge(ks, b"", b"!")
            .delete_range(ks, &longest, &neighbour);
    });
    f.settle();
    assert_eq!(got(&*f, ks, b"").unwrap(), b"empty!");
    assert_eq!(got(&*f, ks, &longest), None);
    f.remove(ks, b"");
    assert_eq!(keys(&*f, ks).len(), 1);

    let over = vec![7; KEY_BYTES_MAX + 1];
    let before = f.latest_sequence();
    let options = WriteOptions::default();
    assert_refused!(f.put(ks, &over, b"", &options), Error::KeyTooLong { .. });
    assert_refused!(f.delete(ks, &over, &options), Error::KeyTooLong { .. });
    assert_refused!(f.get(ks, &over), Error::KeyTooLong { .. });
    assert_refused!(f.multi_get(ks, &[b"", &over]), Error::KeyTooLong { .. });
    let cas = f.compare_and_set(ks, &over, None, Some(b""), &options);
    assert_refused!(cas, Error::KeyTooLong { .. });
    let snapshot = f.snapshot().unwrap();
    assert_refused!(snapshot.get(ks, &over), Error::KeyTooLong { .. });
    for bad in 0..3 {
        let refused = f.try_batch(|b| {
            b.put(ks, b"x", b"");
            match bad {
                0 => b.merge(ks, &over, b""),
                1 => b.delete_range(ks, &over, &over),
                _ => b.delete_range(ks, b"", &over),
            };
        });
        assert_refused!(refused, Error::KeyTooLong { .. });
    }
    assert_eq!(f.latest_sequence(), before);
    assert_eq!(keys(&*f, ks).len(), 1, "nothing may be written");
    // As a bound or a target, a longer key is only a place between others.
    assert_eq!(
        super::harness::forward(&*f, ks, KeyRange::from(&over[..]..)).len(),
        1
    );
    let mut cursor = f.cursor(ks, KeyRange::all()).unwrap();
    cursor.seek(&over).unwrap();
    assert!(cursor.entry().unwrap().0 == neighbour);
}

/// Values from empty to the limit; one byte more is refused by every verb that writes one.
pub fn values_from_empty_to_the_limit<H: Harness>(harness: &H) {
    let limits = Limits {
        value_bytes_max: 3 << 20,
        ..Limits::default()
    };
    let f = Fixture::with(harness, Vec::new(), limits);
    let ks = f.merging("k", APPEND);
    let sizes = [
        0,
        1,
        22,
        23,
        511,
        512,
        513,
        4096,
        65_535,
        65_536,
        1 << 20,
        3 << 20,
    ];
    let value = |len: usize| -> Vec<u8> { (0..len).map(|i| (i * 7 + len) as u8).collect() };
    for len in sizes {
        f.set(ks, &(len as u32).to_be_bytes(), &value(len));
    }
    for _ in 0..2 {
        for len in sizes {
            let found = got(&*f, ks, &(len as u32).to_be_bytes()).unwrap();
            assert!(found == value(len), "value of {len} bytes");
        }
        for entry in f.scan(ks, KeyRange::all()).unwrap().rev() {
            let (key, found) = entry.unwrap();
            let len = u32::from_be_bytes(key[..].try_into().unwrap()) as usize;
            assert!(found[..] == value(len)[..], "value of {len} bytes");
        }
        f.settle();
    }
    let over = value((3 << 20) + 1);
    let before = f.latest_sequence();
    let options = WriteOptions::default();
    assert_refused!(f.put(ks, b"k", &over, &options), Error::ValueTooLong { .. });
    let cas = f.compare_and_set(ks, b"k", None, Some(&over), &options);
    assert_refused!(cas, Error::ValueTooLong { .. });
    let merge = f.try_batch(|b| {
        b.put(ks, b"x", b"").merge(ks, b"k", &over);
    });
    assert_refused!(merge, Error::ValueTooLong { .. });
    assert_eq!(f.latest_sequence(), before);
    assert_eq!(keys(&*f, ks).len(), sizes.len(), "nothing may be written");
    // What is expected may be anything.
    let cas = f.compare_and_set(ks, b"k", Some(&over), None, &options);
    assert!(matches!(cas.unwrap(), crate::CasOutcome::Mismatch(None)));
}

/// A batch may be exactly as long as the limit and not a byte longer.
pub fn batches_up_to_the_limit<H: Harness>(harness: &H) {
    let limits = Limits {
        batch_bytes_max: 64 << 10,
        ..Limits::default()
    };
    let f = Fixture::with(harness, Vec::new(), limits);
    let ks = f.plain("k");
    let batch_of = |bytes: usize| {
        let mut batch = WriteBatch::new();
        for i in 0..40_u8 {
            batch.put(ks, &[i], &[i; 1_000]);
        }
        let mut exact = batch.clone();
        // The lengths in front of a key and a value take some bytes too: find the value that fits.
        exact.put(ks, b"rest", &[]);
        let mut len = bytes - exact.encoded().len();
        loop {
            let mut exact = batch.clone();
            exact.put(ks, b"rest", &vec![1; len]);
            if exact.encoded().len() <= bytes {
                assert_eq!(exact.encoded().len(), bytes);
                return exact;
            }
            len -= 1;
        }
    };
    let refused = f.write(&batch_of((64 << 10) + 1), &WriteOptions::default());
    assert_refused!(refused, Error::BatchTooLarge { .. });
    let refused = f.try_write(&batch_of((64 << 10) + 1), &WriteOptions::default());
    assert_refused!(refused, Error::BatchTooLarge { .. });
    assert!(keys(&*f, ks).is_empty(), "nothing may be written");
    let batch = batch_of(64 << 10);
    let sequence = f.write(&batch, &WriteOptions::default()).unwrap();
    assert_eq!(sequence, f.latest_sequence());
    f.settle();
    assert_eq!(keys(&*f, ks).len(), 41);
}

/// The engine holds to the limits it was opened with; deleting by prefix works under each.
pub fn limits_are_those_given<H: Harness>(harness: &H) {
    let limits = Limits {
        key_bytes_max: 10,
        value_bytes_max: 100,
        ..Limits::default()
    };
    let f = Fixture::with(harness, Vec::new(), limits);
    let ks = f.plain("k");
    f.set(ks, &[1; 10], &[1; 100]);
    f.set(ks, &[0xff; 10], b"");
    let options = WriteOptions::default();
    let refused = f.put(ks, &[1; 11], b"", &options);
    assert_refused!(refused, Error::KeyTooLong { len: 11, max: 10 });
    let refused = f.put(ks, b"", &[1; 101], &options);
    assert_refused!(refused, Error::ValueTooLong { len: 101, max: 100 });
    assert_eq!(keys(&*f, ks).len(), 2);
    // The end of such a range is longer than any key may be, which is what makes it the end.
    f.batch(|b| {
        b.delete_prefix(ks, b"\xff");
    });
    assert_eq!(keys(&*f, ks), [vec![1; 10]]);
    f.batch(|b| {
        b.delete_prefix(ks, b"");
    });
    assert!(keys(&*f, ks).is_empty());
}
