//! Who may depend on whom, and what dependencies may cost.
//!
//! The list in [`LAYERS`] is the architecture. It is held against what cargo resolved, not against what
//! manifests say, so that a dependency that comes in by a detour is found too. A crate that the list
//! doesn't know is an error: whoever adds one decides where it stands.

use std::path::Path;

use crate::Findings;
use crate::source::{Source, Tree, has_word, numbered};
use crate::supply;
use crate::workspace::{DependencyKind, Package, Workspace};

use DependencyKind::{Build, Dev, Normal};

/// What a crate may use of ours.
enum Below {
    These(&'static [&'static str]),
    Anything,
}

/// A crate and its place. Tests of a crate may also use crates of its own height or lower ones.
struct Layer {
    name: &'static str,
    height: u8,
    below: Below,
}

const fn layer(name: &'static str, height: u8, below: Below) -> Layer {
    Layer {
        name,
        height,
        below,
    }
}

const LAYERS: [Layer; 10] = [
    layer("xtask", 0, Below::These(&[])),
    layer("vault-core", 1, Below::These(&[])),
    layer("vault-crypto", 2, Below::These(&["vault-core"])),
    layer("vault-snapshot", 2, Below::These(&["vault-core"])),
    layer(
        "vault-lsm",
        3,
        Below::These(&["vault-core", "vault-snapshot"]),
    ),
    layer(
        "vault-db",
        4,
        Below::These(&["vault-core", "vault-snapshot", "vault-lsm", "vault-crypto"]),
    ),
    layer(
        "vault-cli",
        5,
        Below::These(&[
            "vault-core",
            "vault-snapshot",
            "vault-lsm",
            "vault-crypto",
            "vault-db",
        ]),
    ),
    layer("vault-bench", 6, Below::Anything),
    layer("vault-sim", 6, Below::Anything),
    layer("vault-fuzz-checks", 7, Below::Anything),
];

/// The crates that stay synchronous, whatever is built above them.
const SYNCHRONOUS: [&str; 5] = [
    "vault-core",
    "vault-crypto",
    "vault-snapshot",
    "vault-lsm",
    "vault-db",
];

const ASYNC_RUNTIMES: [&str; 12] = [
    "tokio",
    "async-std",
    "smol",
    "async-executor",
    "async-global-executor",
    "async-io",
    "futures-executor",
    "glommio",
    "monoio",
    "compio",
    "tokio-uring",
    "actix-rt",
];

/// Crates that compile or bind C when they appear among build dependencies.
const C_TOOLS: [&str; 7] = [
    "cc",
    "cmake",
    "bindgen",
    "autotools",
    "nasm-rs",
    "pkg-config",
    "vcpkg",
];

/// Everybody who embeds the engine pays for each of these.
const LSM_CRATES_MAX: usize = 29;

/// Features of ours that bring dependencies, and whom these are no cost of. Cargo resolves a workspace as a whole: what one
/// member asks for looks as if all had.
const OPT_IN: [OptIn; 2] = [
    // The engine plans with vault-snapshot; archives are what vault-db asks it for.
    OptIn {
        package: "vault-snapshot",
        feature: "archive",
        spares: &["vault-core", "vault-crypto", "vault-lsm"],
    },
    // Stores of objects are asynchronous: whoever asks for them by name has a runtime already, or wants one.
    OptIn {
        package: "vault-snapshot",
        feature: "object-store",
        spares: &SYNCHRONOUS,
    },
];

struct OptIn {
    package: &'static str,
    feature: &'static str,
    spares: &'static [&'static str],
}

/// Whether `to` comes to `from` by a feature that `payer` does not ask for.
fn is_spared(payer: &str, from: &Package, to: &Package) -> bool {
    let mut by = from.brought.iter().filter(|(_, name)| *name == to.name);
    let spared = |feature: &str| {
        OPT_IN.iter().any(|opt_in| {
            opt_in.package == from.name
                && opt_in.feature == feature
                && opt_in.spares.contains(&payer)
        })
    };
    // Every feature that brings it has to be one of these.
    from.ours && by.clone().next().is_some() && by.all(|(feature, _)| spared(feature))
}

/// Words that the sources of a crate must not use outside its tests, and why.
const FOREIGN_WORDS: [(&str, &[&str], &str); 2] = [
    (
        "vault-lsm",
        &[
            "aes",
            "gcm",
            "chacha",
            "chacha20",
            "poly1305",
            "argon2",
            "pbkdf2",
            "hkdf",
            "cipher",
            "vault_crypto",
        ],
        "the engine never names a cipher; go through vault_core::transform",
    ),
    (
        "vault-crypto",
        &[
            "memtable",
            "sstable",
            "wal",
            "manifest",
            "footer",
            "compaction",
            "vault_lsm",
            "Table",
            "Manifest",
        ],
        "encryption never names a file format; go through vault_core::transform",
    ),
];

/// Runs every check of this module and of [`supply`].
pub(crate) fn run(root: &Path) -> Result<Findings, String> {
    let workspace = Workspace::load(root)?;
    let tree = Tree::read(root)?;
    let mut findings = directions(&workspace);
    findings.merge(costs(&workspace));
    findings.merge(foreign_words(&tree));
    let text = |path: &str| tree.text(path).ok_or_else(|| format!("{path} is missing"));
    findings.merge(supply::check(
        &workspace,
        text("Cargo.lock")?,
        text("deny.toml")?,
    ));
    Ok(findings)
}

fn find(name: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.name == name)
}

/// Holds each crate's dependencies on our own crates against the list.
fn directions(workspace: &Workspace) -> Findings {
    let mut findings = Findings::default();
    let mut edges = 0;
    for package in workspace.ours() {
        let Some(layer) = find(&package.name) else {
            findings.problem(format!(
                "{}: not in the list of layers; decide in xtask/src/layers.rs whom it may use",
                package.name
            ));
            continue;
        };
        for (kind, to) in &package.dependencies {
            let to = &workspace.packages[*to];
            if to.ours {
                edges += 1;
                if let Some(problem) = direction(layer, *kind, to) {
                    findings.problem(problem);
                }
            }
        }
    }
    let crates = workspace.ours().count();
    findings.note(format!(
        "{crates} crates of ours, {edges} edges between them"
    ));
    findings
}

fn direction(layer: &Layer, kind: DependencyKind, to: &Package) -> Option<String> {
    let Below::These(allowed) = layer.below else {
        return None;
    };
    let (name, target) = (layer.name, &to.name);
    if allowed.contains(&target.as_str()) || (kind == Dev && name == target) {
        return None;
    }
    let lower = find(target).is_some_and(|other| other.height <= layer.height && other.height > 0);
    match kind {
        Dev if lower && layer.height > 0 => None,
        Dev => Some(format!(
            "{name}: its tests use {target}, which stands above it; move the test up to {target}"
        )),
        Normal | Build => Some(format!(
            "{name} depends on {target}; it may use {}: move the code, or meet in a trait of \
             vault-core",
            if allowed.is_empty() {
                "none of ours".to_owned()
            } else {
                allowed.join(", ")
            }
        )),
    }
}

/// No async runtime up to vault-db; few crates and no C below the engine.
fn costs(workspace: &Workspace) -> Findings {
    let mut findings = Findings::default();
    for name in SYNCHRONOUS {
        let Some(package) = workspace.member(name) else {
            continue;
        };
        let below = |kinds: &[DependencyKind]| {
            workspace.closure(package, kinds, &|from, to| is_spared(name, from, to))
        };
        let normal = below(&[Normal]);
        findings.note(format!("{name}: {} crates below it", normal.len()));
        let all = below(&[Normal, Build]);
        for dependency in &all {
            if ASYNC_RUNTIMES.contains(&dependency.name.as_str()) {
                findings.problem(format!(
                    "{name} pulls in the async runtime {}; everything up to vault-db is \
                     synchronous, put the async part above",
                    dependency.name
                ));
            }
        }
        if name == "vault-lsm" {
            if normal.len() > LSM_CRATES_MAX {
                findings.problem(format!(
                    "vault-lsm pulls in {} crates, at most {LSM_CRATES_MAX} are allowed: {}",
                    normal.len(),
                    names(&normal)
                ));
            }
            for dependency in all {
                let compiles_c = C_TOOLS.contains(&dependency.name.as_str());
                if let Some(library) = &dependency.links {
                    findings.problem(format!(
                        "vault-lsm pulls in {}, which links the native library {library}; the \
                         engine is C-free",
                        dependency.name
                    ));
                } else if compiles_c {
                    findings.problem(format!(
                        "vault-lsm pulls in {}, which compiles or binds C; the engine is C-free",
                        dependency.name
                    ));
                }
            }
        }
    }
    findings
}

fn names(packages: &[&Package]) -> String {
    let names: Vec<_> = packages.iter().map(|package| &package.name[..]).collect();
    names.join(", ")
}

/// The engine names no cipher, encryption names no file format. Comments may: they explain.
fn foreign_words(tree: &Tree) -> Findings {
    let mut findings = Findings::default();
    for (name, words, why) in FOREIGN_WORDS {
        let prefix = format!("{name}/src/");
        for (path, text) in tree.ending(".rs") {
            if !path.starts_with(&prefix) || path.ends_with("/tests.rs") {
                continue;
            }
            let source = Source::new(text);
            for (number, line) in numbered(&source.literal) {
                if source.test_lines[number - 1] {
                    continue;
                }
                for word in words.iter().filter(|word| has_part(line, word)) {
                    findings.problem(format!("{path}:{number}: names `{word}`; {why}"));
                }
            }
        }
    }
    findings
}

/// Whether `word` stands in `line`, as a word or as a part of a `snake_case` name.
fn has_part(line: &str, word: &str) -> bool {
    has_word(line, word) || has_word(&line.replace('_', " "), word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::made_up::{MadeUp, workspace};

    fn problems(findings: &Findings) -> String {
        findings.problems.join("\n")
    }

    #[test]
    fn the_architecture_as_it_is_meant_passes() {
        let workspace = workspace(&[
            ("vault-core", true, &[(Normal, "serde")]),
            ("vault-snapshot", true, &[(Normal, "vault-core")]),
            (
                "vault-lsm",
                true,
                &[(Normal, "vault-core"), (Normal, "vault-snapshot")],
            ),
            (
                "vault-db",
                true,
                &[(Normal, "vault-lsm"), (Dev, "vault-snapshot")],
            ),
            ("vault-bench", true, &[(Normal, "vault-db")]),
            ("xtask", true, &[]),
            ("serde", false, &[]),
        ]);
        let mut findings = directions(&workspace);
        findings.merge(costs(&workspace));
        assert_eq!(problems(&findings), "");
        assert!(
            findings
                .notes
                .contains(&"vault-lsm: 3 crates below it".to_owned())
        );
    }

    #[test]
    fn a_dependency_upwards_is_found() {
        let up = workspace(&[
            ("vault-core", true, &[(Normal, "vault-lsm")]),
            ("vault-lsm", true, &[(Normal, "vault-crypto")]),
            ("vault-crypto", true, &[]),
        ]);
        let found = directions(&up);
        assert_eq!(found.problems.len(), 2, "{found:?}");
        assert!(problems(&found).contains("vault-lsm depends on vault-crypto"));
        let build = workspace(&[
            ("xtask", true, &[(Build, "vault-core")]),
            ("vault-core", true, &[]),
        ]);
        assert!(problems(&directions(&build)).contains("xtask depends on vault-core"));
    }

    #[test]
    fn tests_may_look_down_but_not_up() {
        let down = workspace(&[
            (
                "vault-lsm",
                true,
                &[(Dev, "vault-crypto"), (Dev, "vault-lsm")],
            ),
            ("vault-crypto", true, &[(Dev, "vault-snapshot")]),
            ("vault-snapshot", true, &[]),
        ]);
        assert_eq!(problems(&directions(&down)), "");
        let up = workspace(&[
            ("vault-core", true, &[(Dev, "vault-db")]),
            ("vault-db", true, &[]),
            ("xtask", true, &[(Dev, "vault-core")]),
        ]);
        assert_eq!(directions(&up).problems.len(), 2);
    }

    #[test]
    fn an_unknown_crate_must_be_placed() {
        let unknown = workspace(&[("vault-misc", true, &[])]);
        assert!(problems(&directions(&unknown)).contains("not in the list of layers"));
    }

    #[test]
    fn async_runtimes_and_c_are_found_by_a_detour() {
        let detour = workspace(&[
            ("vault-lsm", true, &[(Normal, "helper")]),
            ("helper", false, &[(Normal, "tokio"), (Build, "cc")]),
            ("tokio", false, &[]),
            ("cc", false, &[]),
        ]);
        let found = problems(&costs(&detour));
        assert!(
            found.contains("async runtime tokio") && found.contains("pulls in cc"),
            "{found}"
        );
        let mut linked = workspace(&[
            ("vault-lsm", true, &[(Normal, "zstd-sys")]),
            ("zstd-sys", false, &[]),
        ]);
        linked.packages[1].links = Some("zstd".to_owned());
        assert!(problems(&costs(&linked)).contains("native library zstd"));
        let tests_only = workspace(&[
            ("vault-lsm", true, &[(Dev, "tokio")]),
            ("tokio", false, &[]),
        ]);
        assert_eq!(problems(&costs(&tests_only)), "");
    }

    #[test]
    fn a_feature_is_paid_for_by_who_asks_for_it() {
        let mut asked = workspace(&[
            ("vault-db", true, &[(Normal, "vault-snapshot")]),
            ("vault-lsm", true, &[(Normal, "vault-snapshot")]),
            (
                "vault-snapshot",
                true,
                &[(Normal, "zip"), (Normal, "tokio")],
            ),
            ("zip", false, &[(Normal, "flate2")]),
            ("flate2", false, &[]),
            ("tokio", false, &[]),
        ]);
        let brings = |feature: &str, name: &str| (feature.to_owned(), name.to_owned());
        asked.packages[2].brought = vec![brings("archive", "zip"), brings("object-store", "tokio")];
        let found = costs(&asked);
        assert_eq!(problems(&found), "");
        for note in [
            "vault-db: 3 crates below it",
            "vault-snapshot: 2 crates below it",
            "vault-lsm: 1 crates below it",
        ] {
            assert!(found.notes.contains(&note.to_owned()), "{found:?}");
        }
        // The synchronous part must not bring it by a side door.
        asked.packages[2].brought.push(brings("archive", "tokio"));
        let found = problems(&costs(&asked));
        assert!(
            found.contains("vault-db pulls in the async runtime"),
            "{found}"
        );
        assert!(
            found.contains("vault-snapshot pulls in the async runtime"),
            "{found}"
        );
        asked.packages[2].brought.clear();
        assert!(problems(&costs(&asked)).contains("vault-lsm pulls in the async runtime"));
    }

    #[test]
    fn too_many_crates_are_too_many() {
        for (count, fails) in [(29, false), (30, true)] {
            let names: Vec<String> = (0..count).map(|i| format!("crate{i}")).collect();
            let edges: Vec<_> = names.iter().map(|name| (Normal, name.as_str())).collect();
            let mut packages: Vec<MadeUp<'_>> = vec![("vault-lsm", true, &edges)];
            packages.extend(names.iter().map(|name| (name.as_str(), false, &[][..])));
            assert_eq!(
                !costs(&workspace(&packages)).problems.is_empty(),
                fails,
                "{count}"
            );
        }
    }

    #[test]
    fn foreign_words_count_in_code_but_not_in_comments_and_tests() {
        let tree = Tree::default()
            .with(
                "vault-lsm/src/a.rs",
                "// AES is named here.\nfn seal_aes() {}\n",
            )
            .with(
                "vault-lsm/src/b.rs",
                "#[cfg(test)]\nmod tests { use aes; }\n",
            )
            .with("vault-crypto/src/lib.rs", "let x = FileKind::Manifest;\n");
        let found = foreign_words(&tree).problems;
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found
                .iter()
                .any(|p| p.starts_with("vault-lsm/src/a.rs:2: names `aes`"))
        );
        assert!(
            found
                .iter()
                .any(|p| p.starts_with("vault-crypto/src/lib.rs:1: names `Manifest`"))
        );
    }
}
