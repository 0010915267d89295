//! Runs one part for `cargo xtask instructions`, which counts what [`counted_operations`] executes.
//!
//! ```text
//! instructions --list            the names of the parts, a line each
//! instructions NAME DIRECTORY    sets the part up in the empty directory, runs it once to warm up and once to be
//!                                counted; prints `operations N` and `processor FEATURE...`
//! ```

#![expect(clippy::print_stdout, reason = "what it prints is read by a program")]

#[path = "../benches/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;

use vault_lsm::benching::{Bench, Part};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => {
            for part in support::all() {
                println!("{}", part.name);
            }
            ExitCode::SUCCESS
        }
        [name, directory] => match support::all().iter().find(|part| part.name == name) {
            Some(part) => {
                run(part, Path::new(directory));
                ExitCode::SUCCESS
            }
            None => {
                println!("there is no part `{name}`; `--list` gives their names");
                ExitCode::from(2)
            }
        },
        _ => {
            println!("call it with `--list`, or with the name of a part and an empty directory");
            ExitCode::from(2)
        }
    }
}

fn run(part: &Part, directory: &Path) {
    stay_on_one_processor();
    let mut bench = part.begin(directory);
    let warm_up = part.operations.div_ceil(10);
    bench.prepare(warm_up);
    bench.run(warm_up);
    bench.prepare(part.operations);
    counted_operations(&mut *bench, part.operations);
    println!("operations {}", part.operations);
    println!("processor {}", processor());
}

/// Nothing but this is counted, with all that it calls: callgrind knows it by its name.
#[inline(never)]
fn counted_operations(bench: &mut dyn Bench, operations: u64) {
    bench.run(operations);
    // Not by a jump, which would leave this function.
    black_box(());
}

/// The cache has shards by the number of processors that it may use: so that every machine counts alike, it is one.
fn stay_on_one_processor() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None).expect("a thread knows where it may run");
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&i| allowed.is_set(i))
        .collect();
    // Not the same one for several that run at once. Asking where this runs would lead through code of the kernel that
    // valgrind hides.
    let mut one = CpuSet::new();
    one.set(allowed[std::process::id() as usize % allowed.len()]);
    sched_setaffinity(None, &one).expect("a thread may stay where it runs");
}

/// What code looks for that has several ways of doing the same, as ciphers, checksums and copies have.
fn processor() -> String {
    let mut features = vec![std::env::consts::ARCH];
    #[cfg(target_arch = "x86_64")]
    {
        let x86 = [
            ("aes", is_x86_feature_detected!("aes")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("bmi2", is_x86_feature_detected!("bmi2")),
            ("ermsb", is_x86_feature_detected!("ermsb")),
            ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
            ("sse4.1", is_x86_feature_detected!("sse4.1")),
            ("vaes", is_x86_feature_detected!("vaes")),
        ];
        let there = x86.into_iter().filter(|(_, there)| *there);
        features.extend(there.map(|(name, _)| name));
    }
    features.join(" ")
}
