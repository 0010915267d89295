//! What must hold of a batch before any of it is applied.

use super::{Keyspace, Shared, State};
use crate::batch::{Operation, OperationKind, WriteBatch};
use crate::clock::Timestamp;
use crate::error::{Error, Result, printable};
use crate::limits::KEY_BYTES_MAX;
use crate::range::KeyRange;

impl Shared {
    /// Refuses a batch for anything that is wrong with any of its operations.
    pub(super) fn check_batch(&self, state: &State, batch: &WriteBatch) -> Result<()> {
        if batch.encoded().len() > self.limits.batch_bytes_max {
            return Err(Error::BatchTooLarge {
                len: batch.encoded().len(),
                max: self.limits.batch_bytes_max,
            });
        }
        let now = self.clock.now();
        batch.iter().try_for_each(|operation| {
            let keyspace = state.keyspace(operation.keyspace)?;
            self.check_operation(keyspace, &operation, now)
        })
    }

    fn check_operation(
        &self,
        keyspace: &Keyspace,
        operation: &Operation<'_>,
        now: Timestamp,
    ) -> Result<()> {
        self.limits.check_key(operation.key)?;
        if let Some(expiry) = operation.expiry {
            expiry.check_expiry(now)?;
        }
        match operation.kind {
            OperationKind::Put => self.limits.check_value(operation.value),
            OperationKind::Delete => Ok(()),
            OperationKind::RangeDelete => {
                let end = operation.value;
                if end.len() > KEY_BYTES_MAX {
                    return Err(Error::KeyTooLong {
                        len: end.len(),
                        max: KEY_BYTES_MAX,
                    });
                }
                KeyRange::from(operation.key..end).check_order()
            }
            OperationKind::Merge => {
                self.limits.check_value(operation.value)?;
                let Some(operator) = &keyspace.operator else {
                    return Err(Error::NoMergeOperator {
                        keyspace: keyspace.name.clone(),
                    });
                };
                operator
                    .check_operand(operation.value)
                    .map_err(|problem| Error::MergeFailed {
                        operator: operator.name().to_owned(),
                        key: printable(operation.key),
                        problem,
                    })
            }
        }
    }
}
