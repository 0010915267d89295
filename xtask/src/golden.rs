//! Makes golden stores: small stores of the format as it is now, which all later versions must open.
//!
//! What is in them stands in `vault-lsm/tests/golden_support/mod.rs`; this only calls the maker, which refuses to
//! write over one that is there.

use std::path::Path;
use std::process::{Command, ExitCode};

/// Where golden stores are kept, from the root of the repository.
const DIRECTORY: &str = "vault-lsm/tests/golden";

/// Makes the golden store `name`, or all of them.
pub(crate) fn make(root: &Path, name: &str) -> ExitCode {
    let maker = ["run", "--quiet", "--package", "vault-lsm", "--example"];
    let mut command = Command::new("cargo");
    command.current_dir(root).args(maker);
    command.args(["golden_make", "--", DIRECTORY, name]);
    match command.status() {
        Ok(status) => match status.code() {
            Some(0) => ExitCode::SUCCESS,
            Some(2) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        },
        Err(error) => {
            eprintln!("cannot start cargo: {error}");
            ExitCode::FAILURE
        }
    }
}
