//! Checking a batch before anything of it is written.

use vault_core::batch::OperationKind;
use vault_core::error::printable;
use vault_core::{Error, KeyspaceId, Operation, Result, WriteBatch};

use crate::keyspace::KeyspaceView;
use crate::read::visible::guarded;
use crate::store::{Store, unknown_keyspace};
use crate::view::View;

/// Checks every operation of a batch.
pub(crate) fn check(store: &Store, view: &View, batch: &WriteBatch) -> Result<()> {
    let len = batch.encoded().len();
    let max = store.settings.limits.batch_bytes_max;
    if len > max {
        return Err(Error::BatchTooLarge { len, max });
    }
    let mut last: Option<&KeyspaceView> = None;
    for operation in batch {
        let keyspace = match last {
            Some(keyspace) if keyspace.keyspace.id == operation.keyspace => keyspace,
            _ => find(view, operation.keyspace)?,
        };
        check_operation(store, keyspace, &operation).map_err(|error| store.env.discreet(error))?;
        last = Some(keyspace);
    }
    Ok(())
}

/// Checks that every keyspace of a batch is still there.
pub(crate) fn check_keyspaces(view: &View, batch: &WriteBatch) -> Result<()> {
    batch
        .iter()
        .try_for_each(|operation| find(view, operation.keyspace).map(drop))
}

fn find(view: &View, id: KeyspaceId) -> Result<&KeyspaceView> {
    view.keyspace(id)
        .map(|keyspace| &**keyspace)
        .ok_or_else(|| unknown_keyspace(id))
}

#[inline]
fn check_operation(store: &Store, view: &KeyspaceView, operation: &Operation<'_>) -> Result<()> {
    let limits = &store.settings.limits;
    limits.check_key(operation.key)?;
    if let Some(expiry) = operation.expiry {
        expiry.check_expiry(store.env.clock.now())?;
    }
    match operation.kind {
        OperationKind::Put => limits.check_value(operation.value),
        OperationKind::Delete => Ok(()),
        OperationKind::RangeDelete => {
            limits.check_range_end(operation.value)?;
            if operation.key > operation.value {
                let (start, end) = (printable(operation.key), printable(operation.value));
                return Err(Error::InvertedRange { start, end });
            }
            Ok(())
        }
        OperationKind::Merge => {
            limits.check_value(operation.value)?;
            let Some(operator) = &view.keyspace.operator else {
                return Err(Error::NoMergeOperator {
                    keyspace: view.keyspace.name.clone(),
                });
            };
            guarded(|| operator.check_operand(operation.value)).map_err(|problem| {
                Error::MergeFailed {
                    operator: operator.name().to_owned(),
                    key: printable(operation.key),
                    problem,
                }
            })
        }
    }
}
