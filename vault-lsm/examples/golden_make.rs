//! Makes golden stores: `golden_make DIRECTORY NAME|all`, called by `cargo xtask golden make`.
//!
//! Refuses to write over one that is there: golden stores stay as they were made.
#![expect(clippy::print_stdout, reason = "a developer's tool says what it made")]

#[path = "../tests/golden_support/mod.rs"]
mod golden_support;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use vault_core::vfs::{DiskFileSystem, FileSystem};

use golden_support::{ALL, FORMAT, make};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, name] = &arguments[..] else {
        println!("golden_make DIRECTORY NAME|all");
        return ExitCode::from(2);
    };
    let wanted: Vec<_> = ALL
        .into_iter()
        .filter(|(own, _)| name == "all" || name == own)
        .collect();
    if wanted.is_empty() {
        let names = ALL.map(|(name, _)| name).join(", ");
        println!("there is no golden store {name:?}; there are: {names}, or all");
        return ExitCode::from(2);
    }
    let directory = Path::new(root).join(FORMAT);
    for (name, _) in &wanted {
        let taken = DiskFileSystem.kind(&directory.join(name));
        if !matches!(taken, Ok(None)) {
            println!(
                "{FORMAT}/{name} is there already and stays as it is: a golden store is never changed. After a change \
                 of format raise FORMAT in tests/golden_support/mod.rs"
            );
            return ExitCode::FAILURE;
        }
    }
    for (name, build) in wanted {
        let golden = make(build);
        let files = golden.files.len();
        let bytes: usize = golden.files.values().map(Vec::len).sum();
        let written = (|| {
            let own = directory.join(name);
            DiskFileSystem.create_dir_all(&own)?;
            for (file, bytes) in &golden.files {
                write(&own.join(file), bytes)?;
            }
            write(
                &directory.join(format!("{name}.txt")),
                golden.transcript.as_bytes(),
            )
        })();
        if let Err(error) = written {
            println!("cannot write {FORMAT}/{name}: {error}");
            return ExitCode::FAILURE;
        }
        println!("{FORMAT}/{name}: {files} files of {bytes} bytes");
    }
    ExitCode::SUCCESS
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = DiskFileSystem.create(path)?;
    file.write_at(bytes, 0)?;
    file.sync()
}
