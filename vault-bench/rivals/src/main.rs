//! The benchmark's worker with Vault's rivals in it. The runner of `vault-bench` builds and starts it.

#[cfg(feature = "fjall")]
mod fjall;

use std::process::ExitCode;

use vault_bench::target::EngineKind;

fn main() -> ExitCode {
    let engines: Vec<EngineKind> = vec![
        #[cfg(feature = "fjall")]
        fjall::kind(),
    ];
    vault_bench::worker::main(&engines)
}

/// The version of a package as the lock file of this workspace has it: what was compiled in.
fn locked_version(package: &str) -> String {
    let lock = include_str!("../Cargo.lock");
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("version = "));
    version.map_or_else(|| "unknown".to_owned(), |v| v.trim_matches('"').to_owned())
}
