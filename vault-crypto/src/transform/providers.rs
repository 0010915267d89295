//! Which implementation of each cipher is used.

use std::sync::Arc;

use crate::cipher::{self, Algorithm, Provider};

/// The best provider of each algorithm, unless another one was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Providers {
    chosen: Vec<Arc<dyn Provider>>,
}

impl Providers {
    /// Uses this provider for its algorithm.
    pub(crate) fn choose(&mut self, provider: Arc<dyn Provider>) {
        self.chosen.insert(0, provider);
    }

    /// The provider of an algorithm.
    pub(crate) fn of(&self, algorithm: Algorithm) -> &dyn Provider {
        let chosen = self.chosen.iter().find(|p| p.algorithm() == algorithm);
        chosen.map_or_else(|| cipher::provider(algorithm) as &dyn Provider, |p| &**p)
    }
}
