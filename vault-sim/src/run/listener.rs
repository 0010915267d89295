//! Counts what the engine tells of its own work, so that it is visible what a run has covered.

use std::sync::{Mutex, PoisonError};

use vault_core::{Event, EventListener};

use crate::report::Counts;

/// Counts events.
#[derive(Debug, Default)]
pub(super) struct Listener(Mutex<Counts>);

impl Listener {
    /// What was counted.
    pub(super) fn counts(&self) -> Counts {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl EventListener for Listener {
    fn on_event(&self, event: &Event) {
        let name = match event {
            Event::Recovered { torn_bytes: 0, .. } => "recovered".to_owned(),
            Event::Recovered { .. } => "recovered, torn tail cut".to_owned(),
            Event::KeyspaceCreated { .. } => "keyspace created".to_owned(),
            Event::KeyspaceDropped { .. } => "keyspace dropped".to_owned(),
            Event::Flushed { bytes: 0, .. } => "flushed to nothing".to_owned(),
            Event::Flushed { .. } => "flushed".to_owned(),
            Event::Compacted { reason, .. } => format!("compacted: {reason}"),
            Event::TablesDropped { reason, .. } => format!("tables dropped: {reason}"),
            Event::Ingested { .. } => "ingested".to_owned(),
            Event::Checkpointed { .. } => "checkpointed".to_owned(),
            Event::WritesDelayed { .. } => "writes delayed".to_owned(),
            Event::WritesStopped { .. } => "writes stopped".to_owned(),
            Event::BackgroundFailed { job, .. } => format!("background failed: {job}"),
            Event::Poisoned { .. } => "poisoned".to_owned(),
            Event::ForeignFile { .. } => "foreign file".to_owned(),
            _ => "other".to_owned(),
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(name);
    }
}
