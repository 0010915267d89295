//! Who may have how much of the memory budget.
//!
//! The cache and the tables' metadata have what the settings say, or a quarter and an eighth of the
//! budget. Of the *rest*, memtables have two fifths, cursors one, flushes and compactions one, and one
//! is kept for what is not counted: batches on their way, the allocator's own losses, the small things.

use vault_core::{Error, Limits, Result};

use crate::options::{BackgroundWork, Settings};

/// The smallest budget a store works with.
pub(crate) const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// What must be left for everything but cache and table metadata.
const REST_BYTES_MIN: u64 = 8 << 20;
/// The longest log segment that is chosen where none is set.
const LOG_SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// The longest log that is chosen where none is set.
const LOG_BYTES_MAX: u64 = 512 << 20;
/// What a compaction needs to get on at all: its output, and small windows over its inputs.
const COMPACTION_BYTES_MIN: u64 = 2 << 20;
/// Bytes that a table's writer gathers before it writes, at most and at least.
const WRITE_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=256 << 10;

/// The parts of the budget, in bytes, and the sizes that follow from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    pub(crate) budget: u64,
    pub(crate) memtables: u64,
    pub(crate) cache: u64,
    pub(crate) tables: u64,
    pub(crate) cursors: u64,
    pub(crate) background: u64,
    /// A memtable is sealed when it has this much, whatever its keyspace allows.
    pub(crate) memtable_max: u64,
    /// When all memtables that take writes have this much together, the largest is sealed.
    pub(crate) active_max: u64,
    /// Compactions that may run at once.
    pub(crate) compactions_max: u64,
    /// What one of them may use.
    pub(crate) compaction: u64,
    /// What a table's writer gathers before it writes.
    pub(crate) write_bytes: usize,
    pub(crate) log_segment_bytes: u64,
    pub(crate) log_bytes_max: u64,
    /// What callers are held to: the limits that were set, as far as they fit.
    pub(crate) limits: Limits,
}

impl Shares {
    /// Divides the budget that the settings name.
    pub(crate) fn of(settings: &Settings) -> Result<Self> {
        let budget = settings.memory_bytes;
        if budget < MEMORY_BYTES_MIN {
            let problem = format!("{budget} is less than {MEMORY_BYTES_MIN}, which a store needs");
            return Err(invalid("memory_bytes", problem));
        }
        let cache = settings.cache_bytes.unwrap_or(budget / 4);
        let tables = settings.table_metadata_bytes.unwrap_or(budget / 8);
        let rest_min = REST_BYTES_MIN.max(budget / 8);
        let rest = cache
            .checked_add(tables)
            .and_then(|set| budget.checked_sub(set))
            .filter(|&rest| rest >= rest_min)
            .ok_or_else(|| too_much(settings, cache, tables, budget - rest_min))?;
        let (log_segment_bytes, log_bytes_max) = log(settings)?;
        let fifth = rest / 5;
        let threads = match settings.background {
            BackgroundWork::Threads { compaction } => u64::from(compaction),
            // As many as there are callers that do the work.
            BackgroundWork::Manual => 64,
        };
        let compactions_max = (fifth / (2 * COMPACTION_BYTES_MIN)).clamp(1, threads.max(1));
        Ok(Self {
            budget,
            memtables: 2 * fifth,
            cache,
            tables,
            cursors: fifth,
            background: fifth,
            memtable_max: fifth / 2,
            active_max: fifth,
            compactions_max,
            // One part of them is the flush's.
            compaction: fifth / (compactions_max + 1),
            write_bytes: (fifth / 64).clamp(*WRITE_BYTES.start(), *WRITE_BYTES.end()) as usize,
            log_segment_bytes,
            log_bytes_max,
            limits: limits(&settings.limits, rest)?,
        })
    }
}

fn invalid(setting: &'static str, problem: String) -> Error {
    Error::InvalidSetting { setting, problem }
}

/// The error for a cache or metadata that leave too little; names the one that was set, and what fits.
fn too_much(settings: &Settings, cache: u64, tables: u64, available: u64) -> Error {
    let (setting, size, other) = match (settings.cache_bytes, settings.table_metadata_bytes) {
        (None, Some(_)) => ("table_metadata_bytes", tables, cache),
        _ => ("cache_bytes", cache, tables),
    };
    let fits = available.saturating_sub(other);
    let budget = settings.memory_bytes;
    let problem = format!(
        "{size} does not fit into `memory_bytes`, {budget}: at most {fits} does; lower it, or raise `memory_bytes`"
    );
    invalid(setting, problem)
}

/// The sizes of the log. Its segments are mapped: their pages are the file's, but they are in memory.
fn log(settings: &Settings) -> Result<(u64, u64)> {
    let budget = settings.memory_bytes;
    let most = budget / 4;
    if let Some(segment) = settings.log_segment_bytes
        && segment > most
    {
        let problem = format!(
            "{segment} is more than a quarter of `memory_bytes`, {budget}: at most {most} fits"
        );
        return Err(invalid("log_segment_bytes", problem));
    }
    let segment = settings
        .log_segment_bytes
        .unwrap_or((budget / 16).min(LOG_SEGMENT_BYTES_MAX));
    let all = settings
        .log_bytes_max
        .unwrap_or((budget / 2).min(LOG_BYTES_MAX).max(segment));
    Ok((segment, all))
}

/// What callers are held to. A batch is in memory several times while it is written, and a value while
/// it is compacted: limits nobody has raised are lowered to what fits.
fn limits(set: &Limits, rest: u64) -> Result<Limits> {
    let fit = |setting, set: usize, usual: usize, fits: u64| {
        let fits = usize::try_from(fits).unwrap_or(usize::MAX);
        if set > fits && set > usual {
            let problem = format!(
                "{set} does not fit into `memory_bytes`: at most {fits} does; lower it, or raise `memory_bytes`"
            );
            return Err(invalid(setting, problem));
        }
        Ok(set.min(fits))
    };
    let usual = Limits::default();
    Ok(Limits {
        key_bytes_max: set.key_bytes_max,
        value_bytes_max: fit(
            "limits.value_bytes_max",
            set.value_bytes_max,
            usual.value_bytes_max,
            rest / 20,
        )?,
        batch_bytes_max: fit(
            "limits.batch_bytes_max",
            set.batch_bytes_max,
            usual.batch_bytes_max,
            rest / 10,
        )?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn shares(change: impl FnOnce(&mut Settings)) -> Result<Shares> {
        let mut settings = Settings::default();
        change(&mut settings);
        Shares::of(&settings)
    }

    fn refused(change: impl FnOnce(&mut Settings)) -> (&'static str, String) {
        match shares(change) {
            Err(Error::InvalidSetting { setting, problem }) => (setting, problem),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_parts_of_any_budget_add_up_to_less_than_it() {
        for mib in [16, 17, 64, 128, 512, 1024, 1 << 20] {
            let s = shares(|s| s.memory_bytes = mib * MIB).unwrap();
            let parts = s.memtables + s.cache + s.tables + s.cursors + s.background;
            assert!(parts <= s.budget - s.budget / 9, "{mib}: {s:?}");
            assert!(4 * s.memtable_max <= s.memtables && 2 * s.active_max <= s.memtables);
            assert!((s.compactions_max + 1) * s.compaction <= s.background);
            assert!(s.limits.batch_bytes_max as u64 <= s.budget / 16);
            assert!(s.log_segment_bytes <= s.log_bytes_max);
        }
    }

    #[test]
    fn the_usual_budget_gives_the_usual_sizes() {
        let s = shares(|_| ()).unwrap();
        assert_eq!((s.cache, s.tables), (256 * MIB, 128 * MIB));
        assert_eq!((s.memtables, s.memtable_max), (256 * MIB, 64 * MIB));
        assert_eq!(
            (s.log_segment_bytes, s.log_bytes_max),
            (64 * MIB, 512 * MIB)
        );
        assert_eq!(s.limits, Limits::default());
    }

    #[test]
    fn what_is_set_is_kept_and_what_does_not_fit_is_refused_with_what_would() {
        let s = shares(|s| (s.memory_bytes, s.cache_bytes) = (64 * MIB, Some(0))).unwrap();
        assert!(s.cache == 0 && s.memtables > 16 * MIB);
        let (setting, problem) =
            refused(|s| (s.memory_bytes, s.cache_bytes) = (64 * MIB, Some(60 * MIB)));
        assert_eq!(setting, "cache_bytes");
        assert!(
            problem.contains(&(48 * MIB).to_string()),
            "64 less 8 for metadata less 8 for the rest: {problem}"
        );
        assert!(shares(|s| (s.memory_bytes, s.cache_bytes) = (64 * MIB, Some(48 * MIB))).is_ok());
        let (setting, _) = refused(|s| s.table_metadata_bytes = Some(u64::MAX));
        assert_eq!(setting, "table_metadata_bytes");
        assert_eq!(refused(|s| s.memory_bytes = 1).0, "memory_bytes");
        let segment = |s: &mut Settings| {
            (s.memory_bytes, s.log_segment_bytes) = (64 * MIB, Some(17 * MIB));
        };
        assert_eq!(refused(segment).0, "log_segment_bytes");
        let batch = |s: &mut Settings| s.limits.batch_bytes_max = 100 << 20;
        assert_eq!(refused(batch).0, "limits.batch_bytes_max");
    }
}
