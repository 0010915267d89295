//! Checks on manifests: licence, description, lints, examples.

use crate::Findings;
use crate::source::{Tree, numbered};

/// Files that the repository must carry.
const REQUIRED: [&str; 7] = [
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "deny.toml",
];

/// What every package says of itself, here or by inheriting it from the workspace.
const FIELDS: [&str; 3] = ["description", "license", "rust-version"];

/// Runs every check of this module.
pub(crate) fn check(tree: &Tree) -> Findings {
    let mut findings = Findings::default();
    for file in REQUIRED {
        if tree.text(file).is_none_or(|text| text.trim().is_empty()) {
            findings.problem(format!("{file}: missing or empty; write it"));
        }
    }
    let mut packages = 0;
    for (path, text) in tree.ending("Cargo.toml") {
        if text.lines().any(|line| line.trim() == "[package]") {
            packages += 1;
            package(path, text, tree, &mut findings);
        }
    }
    examples(tree, &mut findings);
    findings.note(format!("{packages} packages"));
    findings
}

fn package(path: &str, text: &str, tree: &Tree, findings: &mut Findings) {
    let directory = path.trim_end_matches("Cargo.toml");
    let fields = section(text, "[package]");
    for field in FIELDS {
        let given = |line: &&str| {
            let rest = line.strip_prefix(field).unwrap_or_default().trim_start();
            rest.starts_with('=') || rest.starts_with(".workspace")
        };
        // `license-file` would do as well, but all of Vault is under the same two licences.
        if !fields.iter().any(given) {
            findings.problem(format!(
                "{path}:1: no `{field}`; give one, or `{field}.workspace = true`"
            ));
        }
    }
    let roots = ["src/lib.rs", "src/main.rs"];
    let root = roots.iter().map(|root| format!("{directory}{root}"));
    let has_targets = text.contains("path = ");
    if !has_targets && !root.clone().any(|root| tree.has(&root)) {
        findings.problem(format!(
            "{path}:1: neither src/lib.rs nor src/main.rs; remove the package"
        ));
    }
    // Packages outside the workspace cannot inherit its lints.
    let own_workspace = !section(text, "[workspace]").is_empty() || text.contains("[workspace]");
    if !own_workspace && !section(text, "[lints]").contains(&"workspace = true") {
        findings.problem(format!("{path}:1: no `[lints] workspace = true`; add it"));
    }
}

/// The lines of a section that say something.
fn section<'a>(text: &'a str, header: &str) -> Vec<&'a str> {
    let lines = text.lines().map(str::trim);
    let inside = lines.skip_while(|line| *line != header).skip(1);
    let inside = inside.take_while(|line| !line.starts_with('['));
    inside
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// An example that no manifest declares is never compiled.
fn examples(tree: &Tree, findings: &mut Findings) {
    let declared: Vec<&str> = tree
        .ending("Cargo.toml")
        .flat_map(|(_, text)| numbered(text))
        .filter_map(|(_, line)| line.trim().strip_prefix("path = \"")?.strip_suffix('"'))
        .collect();
    for (path, _) in tree.ending(".rs") {
        let Some(name) = path.strip_prefix("examples/") else {
            continue;
        };
        let ending = format!("examples/{name}");
        if !name.contains('/') && !declared.iter().any(|path| path.ends_with(&ending)) {
            findings.problem(format!(
                "{path}:1: no Cargo.toml declares this example; add an `[[example]]` with its path"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"a\"\ndescription = \"x\"\nlicense.workspace = true\n\
        rust-version.workspace = true\n\n[lints]\nworkspace = true\n";

    fn complete() -> Tree {
        REQUIRED
            .iter()
            .fold(Tree::default(), |tree, file| tree.with(file, "text"))
            .with("a/Cargo.toml", MANIFEST)
            .with("a/src/lib.rs", "//! What this is for.\n")
    }

    #[test]
    fn a_complete_tree_passes() {
        assert_eq!(check(&complete()).problems, Vec::<String>::new());
    }

    #[test]
    fn missing_files_and_fields_are_found() {
        assert_eq!(check(&Tree::default()).problems.len(), REQUIRED.len());
        assert_eq!(
            check(&complete().with("LICENSE-MIT", " \n")).problems.len(),
            1
        );
        for field in ["description", "license", "rust-version", "workspace = true"] {
            let without: Vec<&str> = MANIFEST
                .lines()
                .filter(|line| !line.starts_with(field))
                .collect();
            let tree = complete().with("a/Cargo.toml", &without.join("\n"));
            assert_eq!(check(&tree).problems.len(), 1, "{field}");
        }
        let hollow = complete().with("b/Cargo.toml", MANIFEST);
        assert!(check(&hollow).problems[0].starts_with("b/Cargo.toml:1: neither"));
    }

    #[test]
    fn undeclared_examples_are_found() {
        let tree = complete().with("examples/tour.rs", "//! A tour of it.\n");
        assert!(check(&tree).problems[0].starts_with("examples/tour.rs:1: no Cargo.toml"));
        let declared =
            format!("{MANIFEST}\n[[example]]\nname = \"tour\"\npath = \"../examples/tour.rs\"\n");
        let tree = tree.with("a/Cargo.toml", &declared);
        assert_eq!(check(&tree).problems, Vec::<String>::new());
    }
}
