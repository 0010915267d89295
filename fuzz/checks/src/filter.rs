//! Filter blocks.
//!
//! A filter has one form, and answers for any hash. One that is built of keys admits each of them, also after
//! it was encoded and decoded.

use std::fmt;

use arbitrary::Arbitrary;
use vault_lsm::fuzzing::FilterBlock;

use crate::memory;

/// A filter, and a key that is asked for.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// The hash of the key.
    pub hash: u64,
    /// Bits that a filter spends on each key when the bytes are taken for keys.
    pub bits_per_key: u8,
    /// The block.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "hash {:#x}, {} bits a key, ",
            self.hash, self.bits_per_key
        )?;
        let filter = FilterBlock::decode(self.bytes);
        crate::debug_bytes(f, self.bytes, filter.as_ref().map(|x| x as &dyn fmt::Debug))
    }
}

/// Decodes and asks it, and builds one.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    if let Some(filter) = memory::bounded(input.bytes.len(), || FilterBlock::decode(input.bytes)) {
        assert_eq!(filter.encode(), input.bytes, "another form");
        for turn in 0..64 {
            let _ = filter.may_contain(input.hash.rotate_left(turn));
        }
        let empty = input.bytes[..input.bytes.len() - 1]
            .iter()
            .all(|&byte| byte == 0);
        assert!(
            !empty || !filter.may_contain(input.hash),
            "an empty filter admits"
        );
    }
    let keys: Vec<&[u8]> = input.bytes.chunks(5).take(256).collect();
    let built = FilterBlock::of_keys(&keys, input.bits_per_key);
    let again = FilterBlock::decode(&built.encode()).expect("what was encoded decodes");
    assert_eq!(again, built);
    assert!(
        keys.iter().all(|key| again.admits(key)),
        "a key that was put in is not admitted"
    );
}
