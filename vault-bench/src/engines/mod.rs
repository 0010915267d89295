//! The engines that this binary itself can run, and the names of those in the rivals' binary.

#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "vault")]
mod vault;

use crate::target::EngineKind;

/// Names and descriptions of the engines in the rivals' package.
pub const RIVALS: &[(&str, &str)] = &[("fjall", "log-structured merge engine in Rust, 3.1")];

/// The engines in this binary.
#[must_use]
pub fn own() -> Vec<EngineKind> {
    let kinds: Vec<Vec<EngineKind>> = vec![
        #[cfg(feature = "vault")]
        vault::kinds(),
        #[cfg(feature = "memory")]
        vec![memory::kind()],
    ];
    kinds.concat()
}

/// Whether an engine of this name is run by the rivals' binary.
#[must_use]
pub fn is_rival(name: &str) -> bool {
    RIVALS.iter().any(|&(rival, _)| rival == name)
}
