//! Records of the log.
//!
//! A record that decodes comes back the same from the bytes that the writer would lay out for it, which are
//! never more; the operations of a batch lie within it.

use std::fmt;

use arbitrary::Arbitrary;
use vault_lsm::fuzzing::log_record;

use crate::{batch, memory};

/// The payload of a record.
#[derive(Arbitrary)]
pub struct Input<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = log_record(self.bytes);
        let operations = record.as_ref().and_then(|record| record.operations());
        let operations =
            operations.map(|(first, count, bytes)| (first, count, batch::Input { bytes }));
        match &operations {
            Some((first, count, operations)) => {
                write!(f, "batch of {count} from {first}: {operations:#?}")
            }
            None => {
                crate::debug_bytes(f, self.bytes, record.as_ref().map(|r| r as &dyn fmt::Debug))
            }
        }
    }
}

/// Decodes it, and the operations in it.
///
/// # Panics
/// Where something that must hold does not.
pub fn check(input: &Input<'_>) {
    let Some(record) = memory::bounded(input.bytes.len(), || log_record(input.bytes)) else {
        return;
    };
    let encoded = record.encode();
    assert!(
        encoded.len() <= input.bytes.len(),
        "a longer form than was decoded"
    );
    assert_eq!(log_record(&encoded).as_ref(), Some(&record));
    if let Some((_, _, operations)) = record.operations() {
        // The upper half of the first byte says how many zeros stand behind them.
        let padding = input.bytes.first().map_or(0, |first| first >> 4);
        let end = input.bytes.len() - usize::from(padding);
        let (unpadded, zeros) = input.bytes.split_at(end);
        assert!(unpadded.ends_with(operations) && zeros.iter().all(|&byte| byte == 0));
        batch::check(&batch::Input { bytes: operations });
    }
}
