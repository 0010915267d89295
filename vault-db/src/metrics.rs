//! Metrics in the text format that Prometheus reads (OpenMetrics 1.0), in base units: seconds and bytes.
//!
//! | metric | |
//! | --- | --- |
//! | `vault_vaults`, `vault_keys`, `vault_logical_bytes` | how much there is, tenants included |
//! | `vault_accesses_total{verb}` | reads, writes, deletes, scans since the database was opened, also of vaults that are gone |
//! | `vault_access_duration_seconds{verb}` | how long sampled ones took, as histograms |
//! | `vault_transactions_total{outcome}` | committed, collided, given up (or refused when they were to commit) |
//! | `vault_engine_operations_total{operation}`, `vault_engine_written_bytes_total{purpose}` | what the engine was asked, and what it wrote |
//! | `vault_engine_memory_bytes{holder}`, `vault_engine_memory_budget_bytes` | memory by the engine's account, and what it may hold |
//! | `vault_engine_cache_lookups_total{outcome}`, `vault_engine_snapshots` | the block cache; what is open |
//! | `vault_engine_background_jobs_total{job}` | flushes, compactions, collections, and those that failed |
//! | `vault_engine_writes_held_up_total{how}`, `vault_engine_writes_held_up_seconds_total{how}` | writes that waited for the background, how long |
//!
//! The names are fixed; new ones may come.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use vault_core::stats::EngineStats;

use crate::access::AccessVerb;
use crate::database::{Database, Shared};
use crate::error::Result;

/// Upper bounds of the histograms' buckets, in microseconds: from one to a second, each about three times the one before.
const BOUNDS_US: [u64; 13] = [
    1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000,
];

impl Database {
    /// Everything that is counted, as text for Prometheus: to be served as `application/openmetrics-text; version=1.0.0`.
    ///
    /// ```
    /// # fn main() -> vault_db::Result<()> {
    /// # let db = vault_db::Database::temp()?;
    /// db.vault("users")?.put("alice", "admin")?;
    /// let text = db.metrics()?;
    /// assert!(text.contains("vault_keys 1\n"));
    /// assert!(text.contains("vault_accesses_total{verb=\"write\"} 1\n"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Engine`](crate::Error::Engine).
    pub fn metrics(&self) -> Result<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Counted::gather(self.shared())?));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &registry);
        Ok(text)
    }
}

/// Everything that is counted, at one moment.
#[derive(Debug)]
struct Counted {
    vaults: u64,
    keys: u64,
    bytes: u64,
    accesses: [u64; 4],
    durations: [Durations; 4],
    transactions: [(&'static str, u64); 3],
    engine: EngineStats,
}

#[derive(Debug)]
struct Durations {
    sum: Duration,
    /// How many took at most as long as the bound, and longer than the one before; then how many took longer than all.
    counts: Vec<u64>,
}

impl Counted {
    fn gather(shared: &Shared) -> Result<Self> {
        let engine = shared.engine.stats()?;
        let (mut keys, mut bytes) = (0, 0);
        let registry = shared.registry();
        for vault in registry.all() {
            let tally = vault.counts.tally();
            keys += tally.entries;
            bytes += tally.bytes();
        }
        let vaults = registry.count();
        drop(registry);
        let bounds = BOUNDS_US.map(Duration::from_micros);
        let durations = std::array::from_fn(|verb| {
            let (counts, sum) = shared.latencies[verb].counts_within(&bounds);
            Durations { sum, counts }
        });
        Ok(Self {
            vaults,
            keys,
            bytes,
            accesses: shared.accesses_of_process(),
            durations,
            transactions: shared.transactions.outcomes(),
            engine,
        })
    }
}

impl Collector for Counted {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        out.gauge("vault_vaults", "Vaults, of all tenants", None, self.vaults)?;
        out.gauge("vault_keys", "Keys of all vaults", None, self.keys)?;
        let help = "Bytes of all keys and values, before compression";
        out.gauge("vault_logical", help, Some(&Unit::Bytes), self.bytes)?;
        self.encode_accesses(&mut out)?;
        let help = "Transactions that may write, by how they ended";
        let by_outcome = self
            .transactions
            .map(|(outcome, count)| ([("outcome", outcome)], count));
        out.counters("vault_transactions", help, None, &by_outcome)?;
        self.encode_engine(&mut out)
    }
}

impl Counted {
    fn encode_accesses(&self, out: &mut Out<'_>) -> fmt::Result {
        let verbs = AccessVerb::ALL.map(AccessVerb::name);
        let by_verb: Vec<_> = verbs
            .into_iter()
            .zip(self.accesses)
            .map(|(verb, count)| ([("verb", verb)], count))
            .collect();
        out.counters(
            "vault_accesses",
            "Accesses to vaults since the database was opened",
            None,
            &by_verb,
        )?;
        let help = "How long sampled accesses took";
        let mut family = out.0.encode_descriptor(
            "vault_access_duration",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (verb, durations) in verbs.iter().zip(&self.durations) {
            let bounds = BOUNDS_US
                .iter()
                .map(|&us| us as f64 / 1e6)
                .chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(durations.counts.iter().copied()).collect();
            let labels = [("verb", *verb)];
            family
                .encode_family(&labels)?
                .encode_histogram::<[(&str, &str); 1]>(
                    durations.sum.as_secs_f64(),
                    durations.counts.iter().sum(),
                    &buckets,
                    None,
                )?;
        }
        Ok(())
    }

    fn encode_engine(&self, out: &mut Out<'_>) -> fmt::Result {
        let engine = &self.engine;
        let by_name: Vec<_> = engine
            .operations
            .iter()
            .map(|operation| ([("operation", operation.name)], operation.count))
            .collect();
        out.counters(
            "vault_engine_operations",
            "Operations of the engine since it was opened",
            None,
            &by_name,
        )?;
        let written = &engine.written;
        let by_purpose = [
            ([("purpose", "user")], written.user_bytes),
            ([("purpose", "log")], written.log_bytes),
            ([("purpose", "flush")], written.flush_bytes),
            ([("purpose", "compaction")], written.compaction_bytes),
        ];
        out.counters(
            "vault_engine_written",
            "Bytes written since the engine was opened",
            Some(&Unit::Bytes),
            &by_purpose,
        )?;
        let cache = &engine.cache;
        let by_outcome = [
            ([("outcome", "hit")], cache.hits),
            ([("outcome", "miss")], cache.misses),
        ];
        out.counters(
            "vault_engine_cache_lookups",
            "Lookups in the block cache",
            None,
            &by_outcome,
        )?;
        let help = "Snapshots and cursors that are open";
        out.gauge("vault_engine_snapshots", help, None, engine.snapshots_open)?;
        self.encode_engine_state(out)
    }

    /// What an operator looks at when writes are slow or memory is short.
    fn encode_engine_state(&self, out: &mut Out<'_>) -> fmt::Result {
        let memory = &self.engine.memory;
        let held = [
            ([("holder", "memtables")], memory.memtables),
            ([("holder", "cache")], memory.cache),
            ([("holder", "table metadata")], memory.table_metadata),
            ([("holder", "cursors")], memory.cursors),
            ([("holder", "background")], memory.background),
        ];
        let help = "Memory that the engine holds, by its own account";
        out.gauges("vault_engine_memory", help, Some(&Unit::Bytes), &held)?;
        let help = "Memory that the engine may hold";
        out.gauge(
            "vault_engine_memory_budget",
            help,
            Some(&Unit::Bytes),
            memory.budget,
        )?;
        let background = &self.engine.background;
        let jobs = [
            ([("job", "flush")], background.flushes),
            ([("job", "compaction")], background.compactions),
            ([("job", "collection")], background.collections),
            ([("job", "failed")], background.failures),
        ];
        let help = "What the engine's background has done since it was opened";
        out.counters("vault_engine_background_jobs", help, None, &jobs)?;
        let held_up = &self.engine.backpressure;
        let writes = [
            ([("how", "delayed")], held_up.delayed),
            ([("how", "stopped")], held_up.stopped),
        ];
        let help = "Writes that had to wait for the background";
        out.counters("vault_engine_writes_held_up", help, None, &writes)?;
        let waited = [
            ([("how", "delayed")], held_up.delayed_for.as_secs_f64()),
            ([("how", "stopped")], held_up.stopped_for.as_secs_f64()),
        ];
        let help = "Time for which writes had to wait for the background";
        out.counters(
            "vault_engine_writes_held_up",
            help,
            Some(&Unit::Seconds),
            &waited,
        )
    }
}

/// Where metrics go.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        gauge.encode(
            self.0
                .encode_descriptor(name, help, unit, MetricType::Gauge)?,
        )
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: &[([(&str, &str); 1], u64)],
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            let gauge = ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn counters<N: Copy>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: &[([(&str, &str); 1], N)],
    ) -> fmt::Result
    where
        ConstCounter<N>: EncodeMetric,
    {
        let mut family = self
            .0
            .encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(*value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}
