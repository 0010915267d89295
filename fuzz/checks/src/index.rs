//! Index blocks: the fences between the data blocks of a partition, and where those lie.
//!
//! Blocks lie back to back and end where the level above says. Fences ascend, a search among them finds what
//! walking finds, and what is encoded again decodes to the same.

use std::cmp::Ordering;
use std::fmt;

use arbitrary::Arbitrary;
use vault_lsm::fuzzing::{IndexBlock, SEAL_BYTES};

use crate::memory;

/// An index block, and what the level above says of its partition.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// The trailer that is looked for.
    pub trailer: u64,
    /// Number of blocks.
    pub blocks: u32,
    /// Bytes of all of them, sealed.
    pub data_bytes: u64,
    /// The block.
    pub bytes: &'a [u8],
}

impl Input<'_> {
    fn decode(&self) -> Option<IndexBlock> {
        IndexBlock::decode(self.bytes, u64::from(self.blocks), self.data_bytes)
    }
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} blocks of {} bytes in all; ",
            self.blocks, self.data_bytes
        )?;
        let index = self.decode();
        crate::debug_bytes(f, self.bytes, index.as_ref().map(|i| i as &dyn fmt::Debug))
    }
}

/// Decodes and searches it.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let Some(index) = memory::bounded(input.bytes.len(), || input.decode()) else {
        return;
    };
    assert_eq!(index.len(), input.blocks as usize);
    let mut end = 0;
    for block in 0..index.len() {
        let (offset, stored) = index.place(block);
        assert_eq!(u64::from(offset), end, "blocks lie back to back");
        end += u64::from(stored) + SEAL_BYTES as u64;
    }
    assert_eq!(end, input.data_bytes);
    let fences: Vec<_> = (1..index.len())
        .map(|number| index.fence(number - 1))
        .collect();
    check_fences(&fences, input.trailer, |key, trailer| {
        index.find(key, trailer)
    });
    for (i, (key, trailer)) in fences.iter().enumerate() {
        assert!(index.starts_by(i + 1, key, *trailer));
    }
    let encoded = index.encode();
    let again = IndexBlock::decode(&encoded, u64::from(input.blocks), input.data_bytes);
    let again = again.expect("what was encoded decodes");
    assert_eq!(again.encode(), encoded);
    assert!((1..index.len()).all(|number| again.fence(number - 1) == fences[number - 1]));
}

/// Fences ascend, and are found as walking finds them.
pub(crate) fn check_fences(
    fences: &[(Vec<u8>, u64)],
    trailer: u64,
    find: impl Fn(&[u8], u64) -> usize,
) {
    let order = |a: &(Vec<u8>, u64), b: &(Vec<u8>, u64)| a.0.cmp(&b.0).then_with(|| b.1.cmp(&a.1));
    assert!(
        fences.is_sorted_by(|a, b| order(a, b).is_lt()),
        "fences go down"
    );
    let mut probes = vec![(Vec::new(), trailer), (vec![0xff; 9], trailer)];
    for (key, own) in fences.iter().take(PROBED_MAX) {
        probes.push((key.clone(), *own));
        probes.push((key.clone(), own.wrapping_add(1)));
        probes.push((key.clone(), trailer));
        probes.push(([key, &[0][..]].concat(), trailer));
        probes.push((key[..key.len() / 2].to_vec(), trailer));
    }
    for probe in &probes {
        let walked = fences.partition_point(|fence| order(fence, probe) != Ordering::Greater);
        assert_eq!(find(&probe.0, probe.1), walked, "{probe:?}");
    }
}

/// Fences that are looked for one by one: all of any index that a fuzzer makes.
const PROBED_MAX: usize = 512;
