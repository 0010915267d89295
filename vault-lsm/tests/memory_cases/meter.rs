//! Measuring: an allocator that counts, what the operating system says, and the child processes in which
//! each case runs alone, so that it has a peak of its own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Names the case that the child runs.
const CASE_VARIABLE: &str = "VAULT_MEMORY_CASE";
/// Begins the line in which the child says what it came to.
const MEASURED: &str = "MEASURED ";

/// The system's allocator, with an account of what is in use.
struct Counting;

static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

fn grew(bytes: usize) {
    let live = LIVE.fetch_add(bytes as u64, Relaxed) + bytes as u64;
    if live > PEAK.load(Relaxed) {
        PEAK.fetch_max(live, Relaxed);
    }
}

fn shrank(bytes: usize) {
    LIVE.fetch_sub(bytes as u64, Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrank(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // While it is moved, both are there.
        grew(new_size);
        shrank(layout.size());
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a case came to, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// The most that was allocated at once, by the engine and by the case itself.
    pub(crate) heap: u64,
    /// The most anonymous memory that was resident, sampled.
    pub(crate) anonymous: u64,
    /// The most memory that was resident: with the program itself and pages of mapped files.
    pub(crate) resident: u64,
    /// What the engine says its own peak was.
    pub(crate) counted: u64,
}

impl Measured {
    fn line(&self) -> String {
        let Self {
            heap,
            anonymous,
            resident,
            counted,
        } = self;
        format!("{MEASURED}{heap} {anonymous} {resident} {counted}")
    }

    fn read(line: &str) -> Option<Self> {
        let mut numbers = line.strip_prefix(MEASURED)?.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self {
            heap: next()?,
            anonymous: next()?,
            resident: next()?,
            counted: next()?,
        })
    }
}

/// Samples the resident anonymous memory until told to stop.
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Sampler {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            while !told.load(Relaxed) {
                peak = peak.max(status("RssAnon:"));
                std::thread::park_timeout(Duration::from_millis(10));
            }
            peak.max(status("RssAnon:"))
        });
        Self { stop, thread }
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.thread.thread().unpark();
        self.thread.join().unwrap()
    }
}

/// A figure of this process, in bytes; 0 where the system does not tell.
#[expect(
    clippy::disallowed_methods,
    reason = "the process itself is measured, not a store"
)]
fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    kib.and_then(|kib| kib.trim().parse().ok()).unwrap_or(0_u64) << 10
}

/// The case that this process is to run, if it was started for one.
pub(crate) fn case_of_this_process() -> Option<String> {
    std::env::var(CASE_VARIABLE).ok()
}

/// Forgets the peak so far: what came before belongs to the setting of the story.
pub(crate) fn begin_again() {
    PEAK.store(LIVE.load(Relaxed), Relaxed);
}

/// Runs a case here and says what it came to. `case` gives the engine's own peak.
pub(crate) fn measure(case: impl FnOnce() -> u64) {
    let sampler = Sampler::start();
    let counted = case();
    let measured = Measured {
        heap: PEAK.load(Relaxed),
        anonymous: sampler.finish(),
        resident: status("VmHWM:"),
        counted,
    };
    println!("\n{}", measured.line());
}

/// Runs a case in a process of its own, which may end by being killed once it has said what it measured.
pub(crate) fn in_child(case: &str, directory: &Path) -> Measured {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_the_measured_process", "--nocapture"])
        .args(["--test-threads", "1"])
        .env(CASE_VARIABLE, case)
        .env("VAULT_MEMORY_DIRECTORY", directory)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    out.lines().find_map(Measured::read).unwrap_or_else(|| {
        let err = String::from_utf8_lossy(&output.stderr);
        panic!(
            "{case} did not get to its end: {}\n{out}\n{err}",
            output.status
        )
    })
}
