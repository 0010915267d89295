//! What the operating system knows: costs of this process, the machine, the disk. And the only place
//! of this crate that touches files, the terminal and other processes' directories.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures the real machine, through no engine's file system"
)]

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The unit of `st_blocks`, whatever the file system's own block is.
const STAT_BLOCK_BYTES: u64 = 512;

/// What a process has cost so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// CPU time of all threads, in seconds.
    pub cpu_seconds: f64,
    /// Bytes of pages made dirty by writes or through mappings: what goes to the disk, metadata aside.
    pub write_bytes: u64,
    /// Of these, bytes of pages that were thrown away before they were written (truncated, deleted).
    pub cancelled_bytes: u64,
    /// Bytes passed to `write` and its kin; what goes through mappings doesn't show here.
    pub wchar_bytes: u64,
}

impl Cost {
    /// Looks at this process.
    #[must_use]
    pub fn now() -> Self {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let field = |name: &str| number_after(&io, name).unwrap_or(0);
        Self {
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            write_bytes: field("write_bytes:"),
            cancelled_bytes: field("cancelled_write_bytes:"),
            wchar_bytes: field("wchar:"),
        }
    }

    /// What was added since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - before.cpu_seconds,
            write_bytes: self.write_bytes - before.write_bytes,
            cancelled_bytes: self.cancelled_bytes - before.cancelled_bytes,
            wchar_bytes: self.wchar_bytes - before.wchar_bytes,
        }
    }
}

/// Makes the peak of this process's memory begin anew at what it holds now. Says whether that was
/// permitted; where not, peaks are those since the process began.
#[must_use]
pub fn reset_peak_memory() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The peak of this process's resident memory in bytes, file mappings included.
#[must_use]
pub fn peak_memory_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    number_after(&status, "VmHWM:").unwrap_or(0) * 1024
}

/// What this process holds in memory now, in bytes: all that is resident, and of this what no file stands
/// behind.
#[must_use]
pub fn memory_now_bytes() -> (u64, u64) {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = statm
        .split(' ')
        .skip(1)
        .map(|field| field.parse().unwrap_or(0));
    let (resident, shared): (u64, u64) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    let page_bytes = rustix::param::page_size() as u64;
    (
        resident * page_bytes,
        resident.saturating_sub(shared) * page_bytes,
    )
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes of all files below a directory: what they appear to have, and what they take up.
///
/// # Errors
/// [`Error::Io`]. Files that disappear meanwhile are not counted.
pub fn disk_usage(dir: &Path) -> Result<(u64, u64)> {
    let (mut apparent, mut allocated) = (0, 0);
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other.map_err(|e| Error::io("list", &dir, e))?,
        };
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("list", &dir, e))?;
            let meta = match entry.metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| Error::io("look at", entry.path(), e))?,
            };
            if meta.is_dir() {
                waiting.push(entry.path());
            } else {
                apparent += meta.len();
                allocated += meta.blocks() * STAT_BLOCK_BYTES;
            }
        }
    }
    Ok((apparent, allocated))
}

/// Refuses a directory whose file system has less room than is needed.
///
/// # Errors
/// [`Error::DiskTooSmall`], [`Error::Io`].
pub fn check_free_space(dir: &Path, needed_bytes: u64) -> Result<()> {
    let stat = rustix::fs::statvfs(dir).map_err(|e| Error::io("look at", dir, e.into()))?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(Error::DiskTooSmall {
        dir: dir.to_path_buf(),
        free_mib: free_bytes >> 20,
        needed_mib: needed_bytes >> 20,
    })
}

/// Writes out whatever waits in memory for the file system of `dir`. The journal of a file system is
/// shared: a durable write can have to wait for bytes that others have written before it.
///
/// # Errors
/// [`Error::Io`].
pub fn sync_file_system(dir: &Path) -> Result<()> {
    let opened = fs::File::open(dir).map_err(|e| Error::io("open", dir, e))?;
    rustix::fs::syncfs(&opened).map_err(|e| Error::io("sync the file system of", dir, e.into()))
}

/// The machine that figures were taken on. Figures from different ones can't be compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its processor.
    pub cpu: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Operating system and its release.
    pub kernel: String,
    /// Type of the file system that holds the stores.
    pub file_system: String,
}

impl Machine {
    /// Looks at this machine, and at the file system of `dir`.
    #[must_use]
    pub fn look(dir: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (cpuinfo, meminfo) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let uname = rustix::system::uname();
        let (system, release) = (
            uname.sysname().to_string_lossy(),
            uname.release().to_string_lossy(),
        );
        Self {
            cpu: model.and_then(|line| line.split_once(": ")).map_or_else(
                || std::env::consts::ARCH.to_owned(),
                |(_, name)| name.to_owned(),
            ),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: number_after(&meminfo, "MemTotal:").unwrap_or(0) >> 10,
            kernel: format!("{system} {release}"),
            file_system: file_system_of(dir, &read("/proc/self/mounts")),
        }
    }
}

/// The type of the mount with the longest path that `dir` is below.
fn file_system_of(dir: &Path, mounts: &str) -> String {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    let mounted = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let at = PathBuf::from(fields.next()?.replace("\\040", " "));
        let kind = fields.next()?.to_owned();
        dir.starts_with(&at).then(|| (at.as_os_str().len(), kind))
    };
    // Of equally long ones the last counts: it hides those before it.
    let deepest = mounts
        .lines()
        .filter_map(mounted)
        .max_by_key(|found| found.0);
    deepest.map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}

/// Makes a directory and all above it.
///
/// # Errors
/// [`Error::Io`].
pub fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))
}

/// Removes a directory with everything in it, if it is there.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", dir, e)),
        _ => Ok(()),
    }
}

/// Lets this process be ended when the one that started it ends. A worker whose engine hangs would
/// otherwise outlive an interrupted run, and disturb the next one.
pub fn end_with_parent() {
    use rustix::process::{Signal, set_parent_process_death_signal};
    // Where it is refused, such a worker has to be ended by hand; nothing else depends on it.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// Takes a directory for this run, until the returned file is dropped, and removes the stores that an
/// interrupted run left in it (those whose names begin with `prefix`).
///
/// # Errors
/// [`Error::DirectoryBusy`] where another run holds it, [`Error::Io`].
pub fn claim_dir(dir: &Path, prefix: &str) -> Result<fs::File> {
    create_dir(dir)?;
    let path = dir.join("run.lock");
    let lock = fs::File::create(&path).map_err(|e| Error::io("create", &path, e))?;
    match lock.try_lock() {
        Err(fs::TryLockError::WouldBlock) => {
            let dir = dir.to_path_buf();
            return Err(Error::DirectoryBusy { dir });
        }
        Err(fs::TryLockError::Error(e)) => return Err(Error::io("lock", &path, e)),
        Ok(()) => {}
    }
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
        let entry = entry.map_err(|e| Error::io("list", dir, e))?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            remove_dir(&entry.path())?;
        }
    }
    Ok(lock)
}

/// Opens a file of results to add to.
///
/// # Errors
/// [`Error::Io`].
pub fn open_results(path: &Path) -> Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    let opened = options.create(true).append(true).open(path);
    opened.map_err(|e| Error::io("open", path, e))
}

/// Reads a whole file.
///
/// # Errors
/// [`Error::Io`].
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Error::io("read", path, e))
}

/// Reads the bytes of a whole file.
///
/// # Errors
/// [`Error::Io`].
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| Error::io("read", path, e))
}

/// Whether a file ends within a line.
///
/// # Errors
/// [`Error::Io`].
pub fn lacks_line_end(path: &Path) -> Result<bool> {
    Ok(read_bytes(path)?.last().is_some_and(|&byte| byte != b'\n'))
}

/// Writes a file as a whole: whoever looks sees the old one or the new one.
///
/// # Errors
/// [`Error::Io`].
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, text).map_err(|e| Error::io("write", &beside, e))?;
    fs::rename(&beside, path).map_err(|e| Error::io("replace", path, e))
}

/// Whether there is a file or directory of this path.
#[must_use]
pub fn exists(path: &Path) -> bool {
    path.exists()
}

/// Gives a file another name.
///
/// # Errors
/// [`Error::Io`].
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("rename", from, e))
}

/// Copies a file.
///
/// # Errors
/// [`Error::Io`].
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map_err(|e| Error::io("copy", from, e))?;
    Ok(())
}

/// The load average of the last minute.
#[must_use]
pub fn load_average() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Tells about progress, on the standard error output. That nobody listens is no reason to stop.
pub fn say(message: &str) {
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// Prints to the standard output, and pushes it through.
///
/// # Errors
/// [`Error::Io`].
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| Error::io("write to", "the standard output", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_grow_with_work() {
        let before = Cost::now();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), vec![1; 1 << 20]).unwrap();
        let mut x = 0_u64;
        while Cost::now().since(before).cpu_seconds < 0.01 {
            x = std::hint::black_box(x + 1);
        }
        let cost = Cost::now().since(before);
        assert!(cost.wchar_bytes >= 1 << 20, "{cost:?}");
        assert!(peak_memory_bytes() > 1 << 20);
        let (apparent, allocated) = disk_usage(dir.path()).unwrap();
        assert_eq!(apparent, 1 << 20);
        assert!(allocated <= 2 << 20);
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused_in_numbers() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_free_space(dir.path(), 1).is_ok());
        let error = check_free_space(dir.path(), u64::MAX)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("MiB free") && error.contains("--n"),
            "{error}"
        );
    }

    #[test]
    fn the_deepest_mount_names_the_file_system() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /nowhere tmpfs rw 0 0\ntmpfs /nowhere/x\\040y xfs rw 0 0\n";
        assert_eq!(file_system_of(Path::new("/nowhere/z"), mounts), "tmpfs");
        assert_eq!(file_system_of(Path::new("/nowhere/x y/z"), mounts), "xfs");
        assert_eq!(file_system_of(Path::new("/nowhere2"), mounts), "ext4");
        assert_eq!(file_system_of(Path::new("/nowhere2"), ""), "unknown");
    }
}
