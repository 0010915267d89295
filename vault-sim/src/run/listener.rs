//! Counts what the engine tells of its own work, so that it is visible what a run has covered, and looks whether that says
//! anything that must stay secret.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vault_core::{Event, EventListener};

use super::Step;
use super::secrecy::canary::find_in_text;
use crate::report::Counts;

/// Counts events.
#[derive(Debug)]
pub(super) struct Listener {
    /// Whether nothing of what the store holds may be told.
    confidential: bool,
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    counts: Counts,
    /// The first event that told something of what the store holds.
    telling: Option<String>,
}

impl Listener {
    pub(super) fn new(confidential: bool) -> Self {
        Self {
            confidential,
            heard: Mutex::default(),
        }
    }

    /// What was counted.
    pub(super) fn counts(&self) -> Counts {
        self.heard().counts.clone()
    }

    /// What was told that must not be.
    pub(super) fn leak(&self) -> Option<String> {
        let telling = self.heard().telling.clone().filter(|_| self.confidential);
        telling.map(|event| format!("an event tells what an encrypted store holds: {event}"))
    }

    /// Events of a plain store name its keyspaces: that it is heard shows that the search works.
    pub(super) fn check(&self) -> Step {
        let heard = self.heard();
        let named = self.confidential || heard.telling.is_some();
        if named || heard.counts.of("keyspace created") == 0 {
            return Ok(());
        }
        Err("the events of a plain store were searched, and nothing found".to_owned())
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
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
            Event::Locked { .. } => "locked".to_owned(),
            Event::Resumed => "resumed".to_owned(),
            Event::KeysRotated { .. } => "keys rotated".to_owned(),
            Event::EpochsRetired { .. } => "epochs retired".to_owned(),
            _ => "other".to_owned(),
        };
        let mut heard = self.heard();
        heard.counts.add(name);
        if heard.telling.is_none() {
            heard.telling = find_in_text(event);
        }
    }
}
