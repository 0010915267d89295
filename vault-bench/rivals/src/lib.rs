//! What the workers of Vault's rivals share. Each rival is a binary of its own (`src/bin`), so that one that cannot be built
//! stands in nobody's way. The runner of `vault-bench` builds and starts them.

use std::process::ExitCode;

use vault_bench::target::EngineKind;

/// Runs a worker with one engine.
#[must_use]
pub fn worker(engine: EngineKind) -> ExitCode {
    vault_bench::worker::main(&[engine])
}

/// The version of a package as the lock file of this workspace has it: what was compiled in.
#[must_use]
pub fn locked_version(package: &str) -> String {
    let lock = include_str!("../Cargo.lock");
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("version = "));
    version.map_or_else(|| "unknown".to_owned(), |v| v.trim_matches('"').to_owned())
}
