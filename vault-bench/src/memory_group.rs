//! A limit on what a worker may have of memory, page cache included: a memory cgroup of its own.
//!
//! A store that is larger than memory can only be measured where memory really is short. A limit on the heap would leave the
//! page cache, in which everything would still be found. So the worker's process is put into a new control group before it is
//! told its job: everything that it allocates, and every page of a file that it reads or writes first, counts.
//!
//! Version 2 of cgroups is used where the memory controller is there, else version 1. Both need the right to make a group
//! below the one that this process is in, mostly that of root; where that is missing, [`Error::NoMemoryLimit`] says so.

#![expect(
    clippy::disallowed_methods,
    reason = "control groups are files of the real system, through no engine's file system"
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::settings::Settings;

/// Where control groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// A memory cgroup with a limit, removed when this is dropped.
#[derive(Debug)]
pub struct MemoryGroup {
    dir: PathBuf,
}

impl MemoryGroup {
    /// A group with the limit of these settings; `None` where they have none.
    ///
    /// # Errors
    /// [`Error::NoMemoryLimit`] where the system doesn't let this process make one.
    pub fn for_settings(settings: &Settings) -> Result<Option<Self>> {
        if settings.memory_limit_mib == 0 {
            return Ok(None);
        }
        Self::new(
            Path::new(ROOT),
            &own_groups(),
            settings.memory_limit_mib << 20,
        )
        .map(Some)
    }

    /// Makes a group in the hierarchies below `root`; `own` is what `/proc/self/cgroup` says.
    fn new(root: &Path, own: &str, bytes: u64) -> Result<Self> {
        let mut tried = Vec::new();
        for (parent, files) in hierarchies(root, own) {
            match Self::below(&parent, files, bytes) {
                Ok(group) => return Ok(group),
                Err(why) => tried.push(format!("{}: {why}", parent.display())),
            }
        }
        if tried.is_empty() {
            tried.push(format!("no memory controller below {}", root.display()));
        }
        Err(Error::NoMemoryLimit {
            why: tried.join("; "),
        })
    }

    fn below(parent: &Path, files: &Files, bytes: u64) -> std::io::Result<Self> {
        if !parent.join(files.procs).exists() {
            let why = "no such control group, or no memory controller in it";
            return Err(std::io::Error::other(why));
        }
        if files.controllers {
            // Already on, mostly. Where it can't be turned on, the limit's file is missing below.
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
        }
        let group = (0..1000)
            .map(|i| parent.join(format!("vault-bench-{}-{i}", std::process::id())))
            .find(|dir| !dir.exists())
            .ok_or_else(|| std::io::Error::other("too many groups of this process"))?;
        fs::create_dir(&group)?;
        let group = Self { dir: group };
        if !group.dir.join(files.limit).exists() {
            let why = "the memory controller is not passed on to groups in it";
            return Err(std::io::Error::other(why));
        }
        fs::write(group.dir.join(files.limit), bytes.to_string())?;
        // Where there is swap it must not make up for what memory lacks. The file is missing where swap isn't counted.
        let swap = group.dir.join(files.swap);
        if swap.exists() {
            let most = if files.controllers { 0 } else { bytes };
            fs::write(swap, most.to_string())?;
        }
        Ok(group)
    }

    /// Moves a process into the group.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&self, process: u32) -> Result<()> {
        let path = self.dir.join("cgroup.procs");
        fs::write(&path, process.to_string()).map_err(|e| Error::io("add a process to", &path, e))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Version 1 keeps the pages of files charged to a group until they are dropped or taken over.
        let _ = fs::OpenOptions::new()
            .write(true)
            .open(self.dir.join("memory.force_empty"))
            .and_then(|mut file| file.write_all(b"0"));
        // An empty directory is all that stays where this fails.
        let _ = fs::remove_dir(&self.dir);
    }
}

/// The files of a hierarchy's version.
struct Files {
    procs: &'static str,
    limit: &'static str,
    swap: &'static str,
    /// Whether controllers have to be passed on to groups below.
    controllers: bool,
}

const VERSION_1: Files = Files {
    procs: "cgroup.procs",
    limit: "memory.limit_in_bytes",
    swap: "memory.memsw.limit_in_bytes",
    controllers: false,
};

const VERSION_2: Files = Files {
    procs: "cgroup.procs",
    limit: "memory.max",
    swap: "memory.swap.max",
    controllers: true,
};

fn own_groups() -> String {
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// Where groups may be made, the best place first: at the root, where nobody else's limits count too; beside this process's
/// own group (in version 2 a group with processes in it has no groups with controllers); in it.
fn hierarchies(root: &Path, own: &str) -> Vec<(PathBuf, &'static Files)> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (base, files) = if controllers.is_empty() && root.join("cgroup.controllers").exists() {
            (root.to_path_buf(), &VERSION_2)
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), &VERSION_1)
        } else {
            continue;
        };
        let own = base.join(path.trim_start_matches('/'));
        let beside = own.parent().filter(|parent| parent.starts_with(&base));
        let beside = beside.map(Path::to_path_buf);
        let places = std::iter::once(base)
            .chain(beside)
            .chain(std::iter::once(own));
        found.extend(places.map(|place| (place, files)));
    }
    found.dedup_by(|a, b| a.0 == b.0);
    found
}

/// Reads a size such as `1GiB`, `512MiB` or `512M`, in MiB.
///
/// # Errors
/// [`Error::Setting`] that says how sizes are written.
pub fn parse_mib(text: &str) -> Result<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "M" | "MiB" => Some(1),
        "G" | "GiB" => Some(1024),
        _ => None,
    };
    number
        .parse::<u64>()
        .ok()
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .filter(|&mib| mib > 0)
        .ok_or_else(|| {
            let problem = format!("`{text}` is no size of memory; write 512MiB or 1GiB");
            Error::Setting(problem)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!(parse_mib("1GiB").unwrap(), 1024);
        assert_eq!(parse_mib("128M").unwrap(), 128);
        for wrong in [
            "",
            "1",
            "GiB",
            "1GB",
            "0MiB",
            "-1MiB",
            "99999999999999999999G",
        ] {
            let error = parse_mib(wrong).unwrap_err().to_string();
            assert!(error.contains("512MiB"), "{wrong}: {error}");
        }
    }

    /// A directory that looks like a mounted hierarchy, but has none of its life.
    fn pretend(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    #[test]
    fn the_version_that_has_the_controller_is_used_beside_our_own_group() {
        let root = pretend(&["cgroup.controllers", "memory/a/b/cgroup.procs"]);
        let own = "5:cpu:/x\n4:memory:/a/b\n0::/user/c\n";
        let found: Vec<String> = hierarchies(root.path(), own)
            .iter()
            .map(|(path, _)| {
                path.strip_prefix(root.path())
                    .unwrap()
                    .display()
                    .to_string()
            })
            .collect();
        assert_eq!(
            found,
            ["memory", "memory/a", "memory/a/b", "", "user", "user/c"]
        );
    }

    #[test]
    fn where_no_group_can_be_made_the_reasons_are_told() {
        let root = pretend(&[]);
        let error = MemoryGroup::new(root.path(), "3:cpu:/\n", 1 << 30).unwrap_err();
        assert!(
            error.to_string().contains("no memory controller"),
            "{error}"
        );
        let root = pretend(&["memory/cgroup.procs"]);
        let error = MemoryGroup::new(root.path(), "3:memory:/\n", 1 << 30).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("not passed on") && text.contains("--memory-limit"),
            "{text}"
        );
        let left = fs::read_dir(root.path().join("memory")).unwrap();
        assert_eq!(left.count(), 1, "the group that was of no use is gone");
    }
}
