//! A merge operator that shows the order of its operands, and that operands are not combined.

use vault_core::MergeOperator;

/// Bytes of a value that are kept: the newest.
const BYTES_MAX: usize = 256;

/// Appends each operand behind a bar, and keeps the end. Unlike the built-in operators it cannot combine
/// operands without their base, so that compactions keep whole chains of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Journal;

impl Journal {
    /// Its name.
    pub const NAME: &'static str = "sim.journal";
}

impl MergeOperator for Journal {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn merge(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>, String> {
        let mut value = base.map_or_else(Vec::new, <[u8]>::to_vec);
        for operand in operands {
            value.push(b'|');
            value.extend_from_slice(operand);
        }
        let surplus = value.len().saturating_sub(BYTES_MAX);
        // A base on its own is left as it is: merging nothing must change nothing.
        if !operands.is_empty() {
            value.drain(..surplus);
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_in_steps_is_merging_at_once() {
        let (a, b) = ([b'a'; 200], [b'b'; 200]);
        let once = Journal.merge(b"", Some(b"base"), &[&a, &b]).unwrap();
        let first = Journal.merge(b"", Some(b"base"), &[&a]).unwrap();
        assert_eq!(Journal.merge(b"", Some(&first), &[&b]).unwrap(), once);
        assert_eq!(once.len(), BYTES_MAX);
        assert!(once.ends_with(&b));
    }
}
