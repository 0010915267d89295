//! Copying a vault.

use std::ops::ControlFlow;
use std::sync::Arc;

use vault_core::KeyRange;

use super::callbacks::Callbacks;
use super::fill::CopyProgress;
use super::registry::VaultState;
use super::shared::Shared;
use crate::error::Result;
use crate::name::check_vault_name;

impl Shared {
    /// Copies a vault under another name. The copy appears when a single batch puts it into the catalog.
    pub(crate) fn copy(
        &self,
        vault: &Arc<VaultState>,
        name: &str,
        mut progress: impl FnMut(CopyProgress) -> ControlFlow<()>,
    ) -> Result<Arc<VaultState>> {
        check_vault_name(name)?;
        self.check_free(vault.tenant, name)?;
        self.check_vault_room(vault.tenant)?;
        let begun = self.begin_vault(&mut self.structure())?;
        let mut callbacks = Callbacks::default();
        let mut ask = |done| callbacks.ask(|| progress(done));
        let copied = self.copy_entries(vault, &begun, &mut ask);
        let published = copied.and_then(|tally| {
            let publish = || self.publish_copy(vault, name, &begun, &tally);
            self.with_quota(vault.tenant, publish)
        });
        if published.is_err() {
            self.abandon(&begun);
        }
        callbacks.end();
        let copy = published?;
        self.make_durable()?;
        Ok(copy)
    }

    /// Has a copy appear, that was filled.
    fn publish_copy(
        &self,
        vault: &Arc<VaultState>,
        name: &str,
        begun: &super::fill::Begun,
        tally: &crate::catalog::Tally,
    ) -> Result<Arc<VaultState>> {
        // Held only now: others create and delete vaults while entries are copied.
        let _structure = self.structure();
        self.check_free(vault.tenant, name)?;
        self.check_vault_room(vault.tenant)?;
        let mut record = vault.latest().live().record.clone();
        record.id = begun.id;
        record.created = self.now().0;
        self.publish_vault(vault.tenant, name, begun, record, tally)
    }

    fn copy_entries(
        &self,
        vault: &Arc<VaultState>,
        begun: &super::fill::Begun,
        progress: &mut dyn FnMut(CopyProgress) -> ControlFlow<()>,
    ) -> Result<crate::catalog::Tally> {
        let (snapshot, vault) = self.snapshot_of(vault)?;
        vault.check()?;
        let total = vault.counts.entries();
        let scan = snapshot
            .scan(vault.keyspace, KeyRange::all())
            .map_err(|error| vault.told(error))?;
        self.fill(begun, scan, total, progress)
    }
}
