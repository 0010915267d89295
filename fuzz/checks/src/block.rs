//! Data blocks.
//!
//! A block that parses can be asked for every entry. The two ways to its keys agree, values lie within the
//! block, and where the entries are in order, a search finds the place that walking finds.

use std::cmp::Ordering;
use std::fmt;

use arbitrary::Arbitrary;
use vault_lsm::fuzzing::DataBlock;

use crate::memory;

/// A block, and what is looked for.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// The trailer that is looked for.
    pub trailer: u64,
    /// The block, before it is compressed.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parsed = DataBlock::parse(self.bytes);
        write!(f, "looking for trailer {:#x} in ", self.trailer)?;
        crate::debug_bytes(f, self.bytes, Some(&parsed))
    }
}

/// Parses and searches it.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    if let Ok(block) = memory::bounded(input.bytes.len(), || DataBlock::parse(input.bytes)) {
        check_block(&block, input.bytes.len(), input.trailer);
    }
}

/// What must hold of a block that parsed.
pub(crate) fn check_block(block: &DataBlock, bytes: usize, trailer: u64) {
    let entries: Vec<(Vec<u8>, u64, &[u8])> = (0..block.len()).map(|i| block.entry(i)).collect();
    let mut buffer = Vec::new();
    let mut value_bytes = 0;
    for (i, (key, _, value)) in entries.iter().enumerate() {
        assert_eq!(&block.key_of_cursor(i, &mut buffer), key, "entry {i}");
        assert!(block.has_key(i, key), "entry {i}");
        assert!(!block.has_key(i, &[key, &b"x"[..]].concat()), "entry {i}");
        assert_eq!(&block.value_slice(i)[..], *value, "entry {i}");
        value_bytes += value.len();
    }
    assert!(value_bytes <= bytes, "values of more bytes than the block");

    let sorted = entries.is_sorted_by(|a, b| order((&a.0, a.1), (&b.0, b.1)).is_lt());
    let mut probes: Vec<(Vec<u8>, u64)> = vec![(Vec::new(), u64::MAX), (vec![0xff; 9], 0)];
    for (key, own, _) in entries.iter().take(PROBED_MAX) {
        probes.push((key.clone(), *own));
        probes.push((key.clone(), trailer));
        probes.push(([key, &[0][..]].concat(), trailer));
        probes.push((key[..key.len() / 2].to_vec(), trailer));
    }
    for (key, trailer) in &probes {
        let found = block.lower_bound(key, *trailer);
        assert!(found <= block.len());
        if sorted {
            let walked = entries.partition_point(|e| order((&e.0, e.1), (key, *trailer)).is_lt());
            assert_eq!(found, walked, "{key:?} {trailer}");
        }
    }
}

/// Entries that are looked for one by one: all of any block that a fuzzer makes.
const PROBED_MAX: usize = 512;

fn order(a: (&[u8], u64), b: (&[u8], u64)) -> Ordering {
    a.0.cmp(b.0).then_with(|| b.1.cmp(&a.1))
}
