//! The process and the directory, measured every few seconds, and whether anything has grown.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use vault_core::vfs::{DiskFileSystem, FileSystem as _};
use vault_core::{Clock as _, Engine};

use super::directory;
use super::stage::{LOG_BYTES_MAX, LOG_SEGMENT_BYTES, Stage, told};

/// A run that is shorter says nothing about growth: caches fill, and levels take shape.
const JUDGED_AFTER: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

/// One measurement.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    at: Duration,
    operations: u64,
    /// Bytes of memory that are resident, in all.
    resident: u64,
    /// Of these, what is neither a file's nor shared: heap and stacks.
    heap: u64,
    descriptors: u64,
    threads: u64,
    files: u64,
    named: u64,
    disk: u64,
    tables: u64,
    log: u64,
    memtables: u64,
}

pub(super) struct Samples {
    every: Duration,
    taken: Vec<Sample>,
}

impl Samples {
    pub(super) const fn new(every: Duration) -> Self {
        Self {
            every,
            taken: Vec::new(),
        }
    }

    /// Takes samples until the time is over, or something is wrong.
    pub(super) fn take_until(
        &mut self,
        stage: &Stage,
        duration: Duration,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        /// How soon the end of the run is noticed.
        const LOOK_EVERY: Duration = Duration::from_millis(50);
        writeln!(out, "{HEADINGS}")?;
        let began = stage.clock.monotonic();
        let mut next = self.every;
        while !stage.is_over() {
            let at = stage.clock.monotonic().saturating_sub(began);
            if at >= duration {
                break;
            }
            if at >= next {
                next += self.every;
                match take(stage, at) {
                    Ok(Some(sample)) => {
                        self.print(&sample, out)?;
                        self.taken.push(sample);
                    }
                    Ok(None) => {}
                    Err(problem) => stage.problem(problem),
                }
            }
            stage.clock.sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn print(&self, sample: &Sample, out: &mut dyn Write) -> io::Result<()> {
        let before = self.taken.last().copied().unwrap_or_default();
        let seconds = sample.at.saturating_sub(before.at).as_secs_f64().max(0.001);
        let rate = (sample.operations - before.operations) as f64 / seconds;
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        writeln!(
            out,
            "{:>7.0} {:>8.0} {:>8.1} {:>8.1} {:>5} {:>7} {:>6} {:>6} {:>8.1} {:>8.1} {:>7.1} {:>8.1}",
            sample.at.as_secs_f64(),
            rate,
            mib(sample.resident),
            mib(sample.heap),
            sample.descriptors,
            sample.threads,
            sample.files,
            sample.named,
            mib(sample.disk),
            mib(sample.tables),
            mib(sample.log),
            mib(sample.memtables),
        )?;
        out.flush()
    }

    /// Compares the medians of the second quarter and of the last.
    pub(super) fn judge(
        &self,
        duration: Duration,
        problems: &mut Vec<String>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        if duration < JUDGED_AFTER || self.taken.len() < 8 || !problems.is_empty() {
            return writeln!(out, "growth: not judged, the run was too short for it");
        }
        type Measure = (&'static str, fn(&Sample) -> u64, u64);
        const MEASURES: [Measure; 6] = [
            ("heap, in bytes", |sample| sample.heap, 16 * MIB),
            ("file descriptors", |sample| sample.descriptors, 24),
            ("threads", |sample| sample.threads, 3),
            ("files in the directory", |sample| sample.files, 24),
            ("bytes in the directory", |sample| sample.disk, 16 * MIB),
            ("bytes of tables", |sample| sample.tables, 8 * MIB),
        ];
        for (what, measure, slack) in MEASURES {
            let quarter = self.taken.len() / 4;
            let second = median(self.taken[quarter..2 * quarter].iter().map(measure));
            let last = median(self.taken[self.taken.len() - quarter..].iter().map(measure));
            writeln!(
                out,
                "growth: {what}: {second} in the second quarter, {last} in the last"
            )?;
            if has_grown(second, last, slack) {
                problems.push(format!("{what} grew from {second} to {last}"));
            }
        }
        Ok(())
    }
}

const HEADINGS: &str = "seconds    ops/s  rss MiB heap MiB   fds threads  files  named disk MiB tabs MiB log MiB memt MiB";

/// A fifth more, beyond what a few seconds make of a difference.
const fn has_grown(second: u64, last: u64, slack: u64) -> bool {
    last > second + second / 5 + slack
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// `None`: the store is gone, because the run is over.
fn take(stage: &Stage, at: Duration) -> Result<Option<Sample>, String> {
    let measuring = stage.settings.threads;
    let asked = stage.with_store(measuring, "measure", |opened| {
        let stats = opened.lsm.stats().map_err(told("ask for statistics"))?;
        let found = directory::look_at(&stage.directory)?;
        Ok((stats, found))
    })?;
    let Some((stats, found)) = asked else {
        return Ok(None);
    };
    // The bound is kept to by flushing, which takes a moment; segments are whole.
    if stats.log.bytes > 2 * LOG_BYTES_MAX + 4 * LOG_SEGMENT_BYTES {
        return Err(format!(
            "the log has {} bytes, its bound is {LOG_BYTES_MAX}",
            stats.log.bytes
        ));
    }
    let levels = stats.keyspaces.iter().flat_map(|keyspace| &keyspace.levels);
    Ok(Some(Sample {
        at,
        operations: stage.operations(),
        resident: status("VmRSS:").map_or(0, |kib| kib << 10),
        heap: status("RssAnon:").map_or(0, |kib| kib << 10),
        descriptors: descriptors(),
        threads: status("Threads:").unwrap_or(0),
        files: found.files(),
        named: directory::named(&stats, stage.secrecy.is_encrypted()).files(),
        disk: found.bytes,
        tables: levels.map(|level| level.bytes).sum(),
        log: stats.log.bytes,
        memtables: stats.memory.memtables,
    }))
}

/// A number that the operating system tells of this process; `None` where it tells none.
fn status(field: &str) -> Option<u64> {
    let file = DiskFileSystem::new()
        .open(Path::new("/proc/self/status"))
        .ok()?;
    let mut text = vec![0; 16 << 10];
    let read = file.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..read]).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

fn descriptors() -> u64 {
    let listed = DiskFileSystem::new().read_dir(Path::new("/proc/self/fd"));
    listed.map_or(0, |entries| entries.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(of: impl Fn(u64) -> Sample) -> Samples {
        let mut samples = Samples::new(Duration::from_secs(1));
        samples.taken = (0..40).map(of).collect();
        samples
    }

    fn judged(samples: &Samples) -> Vec<String> {
        let mut problems = Vec::new();
        samples
            .judge(Duration::from_secs(1_000), &mut problems, &mut Vec::new())
            .unwrap();
        problems
    }

    #[test]
    fn what_grows_is_told_and_what_swings_is_not() {
        let steady = samples(|n| Sample {
            heap: 100 * MIB + (n % 7) * MIB,
            descriptors: 50 + n % 9,
            ..Sample::default()
        });
        assert!(judged(&steady).is_empty());
        let leak = samples(|n| Sample {
            heap: 100 * MIB + n * 3 * MIB,
            descriptors: 50 + 4 * n,
            ..Sample::default()
        });
        let problems = judged(&leak);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("heap") && problems[1].contains("descriptors"));
    }

    #[test]
    fn the_process_is_measured() {
        assert!(descriptors() > 0);
        assert!(status("VmRSS:").unwrap() > 0);
        assert!(status("RssAnon:").unwrap() > 0);
        assert_eq!(status("NoSuchField:"), None);
    }
}
