//! What the compiler does not see.
//!
//! Every check looks at a [`Tree`] and says `file:line: what is wrong; what to do`. [`rust`] looks at
//! sources, [`manifests`] at `Cargo.toml` and licence files, [`docs`] at Markdown, [`bench_report`] at the figures in the README.

mod docs;
mod manifests;
mod rust;

use std::path::Path;

use crate::Findings;
use crate::bench_report;
use crate::source::Tree;

/// Runs every check on the repository.
pub(crate) fn run(root: &Path) -> Result<Findings, String> {
    let tree = Tree::read(root)?;
    let mut findings = rust::check(&tree);
    findings.merge(manifests::check(&tree));
    findings.merge(docs::check(&tree));
    findings.merge(bench_report::check(&tree));
    Ok(findings)
}

/// Paths that exist on one machine only.
const MACHINE_PATHS: [&str; 4] = ["/work/", "/home/", "/root/", "/tmp/"];

/// The first path in `line` that exists on one machine only. `https://host/home/` is none.
fn machine_path(line: &str) -> Option<&'static str> {
    let inside = |c: char| c.is_alphanumeric() || "._-/".contains(c);
    MACHINE_PATHS.into_iter().find(|path| {
        line.match_indices(path)
            .any(|(at, _)| !line[..at].ends_with(inside))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_paths_are_absolute() {
        assert_eq!(machine_path("see `/home/ann/x`"), Some("/home/"));
        assert_eq!(machine_path("docs/work/x and https://a.b/home/x"), None);
    }
}
