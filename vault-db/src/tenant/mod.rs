//! Tenants: each in a namespace of its own, with its own keys and its own quota.
//!
//! A [`Tenant`] is a handle bound to one. Whatever is asked of it is about that tenant's vaults: there is no name that could
//! mean another's. In an encrypted database each of its vaults has a key of its own; dropping the tenant destroys them all.

mod handle;
mod manage;
mod quota;

pub use handle::Tenant;
pub use quota::{Quota, TenantInfo};
pub(crate) use quota::{QuotaRoom, TenantRecord, TenantState};
