//! Merges: built-in and custom operators, what lies below the operands, what is refused.

use std::sync::Arc;

use super::harness::{Fixture, Harness, assert_refused, backward, forward, got, keys};
use crate::error::Error;
use crate::limits::Limits;
use crate::merge::{APPEND, COUNTER, MergeOperator};
use crate::range::KeyRange;

/// Keeps the bytewise largest of value and operands. Refuses operands that begin with `!`; fails when
/// read over a value that is `poison`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Largest;

impl Largest {
    /// The operator's name.
    pub const NAME: &'static str = "conformance.largest";
}

impl MergeOperator for Largest {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn merge(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>, String> {
        if base == Some(b"poison") {
            return Err("the value is poison".to_owned());
        }
        let all = base.into_iter().chain(operands.iter().copied());
        Ok(all.max().unwrap_or_default().to_vec())
    }

    fn combine(&self, _: &[u8], older: &[u8], newer: &[u8]) -> Option<Vec<u8>> {
        Some(older.max(newer).to_vec())
    }

    fn check_operand(&self, operand: &[u8]) -> Result<(), String> {
        match operand.first() {
            Some(b'!') => Err("it begins with !".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Writes down its whole input, and can combine nothing: shows the order and the base of each fold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Witness;

impl Witness {
    /// The operator's name.
    pub const NAME: &'static str = "conformance.witness";
}

impl MergeOperator for Witness {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn merge(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
    ) -> Result<Vec<u8>, String> {
        // Folding some of the operands first gives the same as folding all at once.
        let mut out = base.map_or_else(|| [b"<", key, b">"].concat(), <[u8]>::to_vec);
        for operand in operands {
            out.push(b',');
            out.extend_from_slice(operand);
        }
        Ok(out)
    }
}

fn custom<H: Harness>(harness: &H) -> Fixture<'_, H> {
    let operators: Vec<Arc<dyn MergeOperator>> = vec![Arc::new(Largest), Arc::new(Witness)];
    Fixture::with(harness, operators, Limits::default())
}

/// Counters add up from nothing, over a put, and wrap around.
pub fn counters_add_up<H: Harness>(harness: &H) {
    let f = Fixture::new(harness);
    let ks = f.merging("k", COUNTER);
    let add = |key: &[u8], n: i64| {
        f.batch(|b| {
            b.merge(ks, key, &n.to_le_bytes());
        })
    };
    let read = |key: &[u8]| i64::from_le_bytes(got(&*f, ks, key).unwrap().try_into().unwrap());
    for i in 1..=100 {
        add(b"a", i);
        if i % 30 == 0 {
            f.settle();
        }
    }
    assert_eq!(read(b"a"), 5_050);
    f.set(ks, b"b", &1_000_i64.to_le_bytes());
    add(b"b", -1_001);
    assert_eq!(read(b"b"), -1);
    add(b"c", i64::MAX);
    add(b"c", 1);
    assert_eq!(read(b"c"), i64::MIN);
    f.compact_all(ks);
    assert_eq!((read(b"a"), read(b"b"), read(b"c")), (5_050, -1, i64::MIN));
    add(b"a", -50);
    assert_eq!(read(b"a"), 5_000);
    assert_eq!(forward(&*f, ks, KeyRange::all()).len(), 3);
}

/// Operands apply oldest first, over what lies below: put, delete, range delete, nothing.
pub fn what_lies_below_operands<H: Harness>(harness: &H) {
    for settled in [false, true] {
        let f = custom(harness);
        let ks = f.merging("k", Witness::NAME);
        let settle = || {
            if settled {
                f.settle();
            }
        };
        let merge = |key: &[u8], operand: &[u8]| {
            settle();
            f.batch(|b| {
                b.merge(ks, key, operand);
            });
        };
        for key in [b"nothing", b"put  ..", b"delete.", b"range.."] {
            if key != b"nothing" {
                f.set(ks, key, b"base");
            }
            merge(key, b"1");
            settle();
            match &key[..] {
                b"delete." => drop(f.remove(ks, key)),
                b"range.." => drop(f.batch(|b| {
                    b.delete_range(ks, b"range", b"s");
                })),
                _ => {}
            }
            merge(key, b"2");
            merge(key, b"");
        }
        let expected: [(&[u8], &[u8]); 4] = [
            (b"delete.", b"<delete.>,2,"),
            (b"nothing", b"<nothing>,1,2,"),
            (b"put  ..", b"base,1,2,"),
            (b"range..", b"<range..>,2,"),
        ];
        for _ in 0..2 {
            let found = forward(&*f, ks, KeyRange::all());
            let found: Vec<_> = found.iter().map(|(k, v)| (&k[..], &v[..])).collect();
            assert_eq!(found, expected);
            for (key, value) in expected {
                assert_eq!(got(&*f, ks, key).unwrap(), value);
            }
            let mut found = backward(&*f, ks, KeyRange::all());
            found.reverse();
            assert_eq!(found, forward(&*f, ks, KeyRange::all()));
            f.compact_all(ks);
        }
        f.set(ks, b"nothing", b"put over operands");
        assert_eq!(got(&*f, ks, b"nothing").unwrap(), b"put over operands");
    }
}

/// Each snapshot sees the operands of its moment, also after they have been folded.
pub fn merges_and_snapshots<H: Harness>(harness: &H) {
    let f = custom(harness);
    let ks = f.merging("k", APPEND);
    let mut moments = Vec::new();
    let mut value = Vec::new();
    for i in 0..20_u8 {
        f.batch(|b| {
            b.merge(ks, b"k", &[i]);
        });
        value.push(i);
        if i == 10 {
            f.set(ks, b"k", b"reset");
            value = b"reset".to_vec();
        }
        moments.push((f.snapshot().unwrap(), value.clone()));
        if i % 6 == 5 {
            f.settle();
        }
    }
    for _ in 0..2 {
        for (snapshot, value) in &moments {
            assert_eq!(got(&**snapshot, ks, b"k").as_ref(), Some(value));
            assert_eq!(forward(&**snapshot, ks, KeyRange::all())[0].1, *value);
        }
        f.compact_all(ks);
    }
    moments.truncate(12);
    f.compact_all(ks);
    assert_eq!(got(&*moments[11].0, ks, b"k"), Some(moments[11].1.clone()));
    assert_eq!(got(&*f, ks, b"k"), Some(value));
}

/// An operand that the operator refuses is not written, nor is anything else of its batch.
pub fn bad_operands_are_refused<H: Harness>(harness: &H) {
    let f = custom(harness);
    let (counter, largest) = (f.merging("c", COUNTER), f.merging("l", Largest::NAME));
    let plain = f.plain("plain");
    let before = f.latest_sequence();
    let refused = f.try_batch(|b| {
        b.put(plain, b"k", b"").merge(counter, b"k", b"seven..");
    });
    assert_refused!(refused, Error::MergeFailed { .. });
    let refused = f.try_batch(|b| {
        b.put(plain, b"k", b"").merge(largest, b"k", b"!");
    });
    assert_refused!(refused, Error::MergeFailed { .. });
    let refused = f.try_batch(|b| {
        b.put(counter, b"k", b"").merge(plain, b"k", b"12345678");
    });
    assert_refused!(refused, Error::NoMergeOperator { .. });
    assert_eq!(f.latest_sequence(), before);
    for ks in [counter, largest, plain] {
        assert!(keys(&*f, ks).is_empty(), "nothing may be written");
    }
}

/// An operator that fails when read is an error there, and nowhere else; it stays one through
/// compactions, and ends with the next put.
pub fn operators_that_fail_when_read<H: Harness>(harness: &H) {
    let f = custom(harness);
    let ks = f.merging("k", Largest::NAME);
    f.set(ks, b"a", b"fine");
    f.set(ks, b"b", b"poison");
    f.set(ks, b"c", b"fine");
    f.settle();
    f.batch(|b| {
        b.merge(ks, b"a", b"z").merge(ks, b"b", b"z");
    });
    for _ in 0..2 {
        assert_refused!(f.get(ks, b"b"), Error::MergeFailed { .. });
        assert_refused!(f.multi_get(ks, &[b"a", b"b"]), Error::MergeFailed { .. });
        let cas = f.compare_and_set(ks, b"b", None, None, &crate::WriteOptions::default());
        assert_refused!(cas, Error::MergeFailed { .. });
        assert_eq!(got(&*f, ks, b"a").unwrap(), b"z");
        assert_eq!(got(&*f, ks, b"c").unwrap(), b"fine");
        let mut scan = f.scan(ks, KeyRange::all()).unwrap();
        assert_eq!(scan.next().unwrap().unwrap().0, b"a");
        assert_refused!(scan.next().unwrap(), Error::MergeFailed { .. });
        assert!(scan.next().is_none(), "an error ends a scan");
        let mut cursor = f.cursor(ks, KeyRange::all()).unwrap();
        assert_refused!(cursor.seek(b"b"), Error::MergeFailed { .. });
        assert!(cursor.entry().is_none(), "unpositioned after an error");
        cursor.seek(b"c").unwrap();
        assert_eq!(cursor.entry().unwrap().0, b"c");
        assert_refused!(cursor.prev(), Error::MergeFailed { .. });
        f.settle();
        f.compact_all(ks);
    }
    f.set(ks, b"b", b"healed");
    assert_eq!(forward(&*f, ks, KeyRange::all()).len(), 3);
}

/// A long chain of operands, across many flushes.
pub fn long_chains_of_operands<H: Harness>(harness: &H) {
    let f = custom(harness);
    let (append, largest) = (f.merging("a", APPEND), f.merging("l", Largest::NAME));
    let mut expected = Vec::new();
    for i in 0..1_000_u16 {
        f.batch(|b| {
            b.merge(append, b"k", &i.to_be_bytes());
            b.merge(largest, b"k", &(i * 7 % 1_000).to_be_bytes());
        });
        expected.extend(i.to_be_bytes());
        if i % 300 == 299 {
            f.settle();
        }
    }
    assert_eq!(got(&*f, append, b"k"), Some(expected.clone()));
    assert_eq!(got(&*f, largest, b"k").unwrap(), 999_u16.to_be_bytes());
    f.compact_all(append);
    f.compact_all(largest);
    assert_eq!(got(&*f, append, b"k"), Some(expected));
    assert_eq!(got(&*f, largest, b"k").unwrap(), 999_u16.to_be_bytes());
}
