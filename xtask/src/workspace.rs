//! What cargo knows about the workspace, in plain data that tests can make up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::process::Command;

use crate::json::Json;

/// Which edges of the dependency graph are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DependencyKind {
    Normal,
    Build,
    Dev,
}

/// A package, ours or somebody else's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    /// The native library it links, as its manifest says.
    pub(crate) links: Option<String>,
    pub(crate) features: Vec<String>,
    /// The dependencies that a feature brings, each with the feature that names it: `("archive", "zip")`.
    pub(crate) brought: Vec<(String, String)>,
    /// Kind and name of each target.
    pub(crate) targets: Vec<(String, String)>,
    /// Whether it is a member of this workspace.
    pub(crate) ours: bool,
    /// Indices of the packages it depends on.
    pub(crate) dependencies: Vec<(DependencyKind, usize)>,
}

/// All packages that the workspace resolves to, on this platform.
#[derive(Debug, Clone, Default)]
pub(crate) struct Workspace {
    pub(crate) packages: Vec<Package>,
}

impl Workspace {
    /// Asks cargo. `--filter-platform` leaves out what other systems would compile, as `cargo tree` does.
    pub(crate) fn load(root: &Path) -> Result<Self, String> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let host = host_triple()?;
        let output = Command::new(cargo)
            .args([
                "metadata",
                "--format-version",
                "1",
                "--filter-platform",
                &host,
            ])
            .current_dir(root)
            .output()
            .map_err(|error| format!("cargo metadata: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "cargo metadata: {}",
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        Self::from_metadata(&String::from_utf8_lossy(&output.stdout))
    }

    /// Reads what `cargo metadata` wrote.
    pub(crate) fn from_metadata(text: &str) -> Result<Self, String> {
        let metadata = Json::parse(text)?;
        let members: BTreeSet<_> = texts(metadata.get("workspace_members")).collect();
        let mut index_of_id = BTreeMap::new();
        let mut packages = Vec::new();
        for package in metadata.get("packages").list() {
            let id = package.get("id").text().ok_or("a package without an id")?;
            index_of_id.insert(id, packages.len());
            packages.push(package_of(package, members.contains(id)));
        }
        for node in metadata.get("resolve").get("nodes").list() {
            let from = node.get("id").text().and_then(|id| index_of_id.get(id));
            let &from = from.ok_or("a resolved package that is not listed")?;
            for dependency in node.get("deps").list() {
                let to = dependency.get("pkg").text();
                let &to = to
                    .and_then(|id| index_of_id.get(id))
                    .ok_or("a dependency that is not listed")?;
                for kind in dependency.get("dep_kinds").list() {
                    let kind = match kind.get("kind").text() {
                        Some("dev") => DependencyKind::Dev,
                        Some("build") => DependencyKind::Build,
                        _ => DependencyKind::Normal,
                    };
                    packages[from].dependencies.push((kind, to));
                }
            }
        }
        if packages.is_empty() {
            return Err("cargo metadata lists no packages".to_owned());
        }
        Ok(Self { packages })
    }

    /// The members of the workspace.
    pub(crate) fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.ours)
    }

    /// The member of this name.
    pub(crate) fn member(&self, name: &str) -> Option<&Package> {
        self.ours().find(|package| package.name == name)
    }

    /// Everything that compiling `package` takes, itself left out: its own edges and, from there on, all
    /// edges of the given kinds, but for those that `left_out` says: from a package to another.
    pub(crate) fn closure(
        &self,
        package: &Package,
        kinds: &[DependencyKind],
        left_out: &dyn Fn(&Package, &Package) -> bool,
    ) -> Vec<&Package> {
        let mut seen = BTreeSet::new();
        let mut waiting = VecDeque::from([package]);
        while let Some(next) = waiting.pop_front() {
            for (kind, to) in &next.dependencies {
                let target = &self.packages[*to];
                if kinds.contains(kind) && !left_out(next, target) && seen.insert(*to) {
                    waiting.push_back(target);
                }
            }
        }
        seen.into_iter()
            .map(|index| &self.packages[index])
            .collect()
    }
}

fn package_of(package: &Json, ours: bool) -> Package {
    let text = |name: &str| package.get(name).text().map(str::to_owned);
    let targets = package.get("targets").list().iter().flat_map(|target| {
        let name = target.get("name").text().unwrap_or_default();
        texts(target.get("kind")).map(move |kind| (kind.to_owned(), name.to_owned()))
    });
    let features = package.get("features").members();
    let brought = features.iter().flat_map(|(feature, list)| {
        let dependencies = texts(list).filter_map(|entry| entry.strip_prefix("dep:"));
        dependencies.map(move |dependency| (feature.clone(), dependency.to_owned()))
    });
    Package {
        name: text("name").unwrap_or_default(),
        version: text("version").unwrap_or_default(),
        license: text("license"),
        links: text("links"),
        brought: brought.collect(),
        features: features.iter().map(|(name, _)| name.clone()).collect(),
        targets: targets.collect(),
        ours,
        dependencies: Vec::new(),
    }
}

fn texts(list: &Json) -> impl Iterator<Item = &str> {
    list.list().iter().filter_map(Json::text)
}

/// The platform that rustc builds for by default.
fn host_triple() -> Result<String, String> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(rustc)
        .arg("-vV")
        .output()
        .map_err(|error| format!("rustc -vV: {error}"))?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .ok_or_else(|| "rustc -vV names no host".to_owned())
}

#[cfg(test)]
pub(crate) mod made_up {
    //! Workspaces for tests.

    use super::*;

    /// Name, whether it is ours, and what it depends on.
    pub(crate) type MadeUp<'a> = (&'a str, bool, &'a [(DependencyKind, &'a str)]);

    /// Builds a workspace.
    pub(crate) fn workspace(packages: &[MadeUp<'_>]) -> Workspace {
        let index = |name: &str| {
            packages
                .iter()
                .position(|(other, ..)| *other == name)
                .unwrap()
        };
        let package = |(name, ours, dependencies): &MadeUp<'_>| Package {
            name: (*name).to_owned(),
            version: "1.0.0".to_owned(),
            license: Some("MIT".to_owned()),
            ours: *ours,
            dependencies: dependencies
                .iter()
                .map(|(kind, to)| (*kind, index(to)))
                .collect(),
            ..Package::default()
        };
        Workspace {
            packages: packages.iter().map(package).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_becomes_a_graph() {
        let text = r#"{
            "packages": [
                {"id": "a 1", "name": "a", "version": "1.0.0", "license": "MIT", "links": null,
                 "manifest_path": "a/Cargo.toml", "features": {"x": ["dep:b", "y"]},
                 "targets": [{"kind": ["lib"], "name": "a"}]},
                {"id": "b 1", "name": "b", "version": "2.0.0", "license": null, "links": "z"}
            ],
            "workspace_members": ["a 1"],
            "resolve": {"nodes": [
                {"id": "a 1", "deps": [{"pkg": "b 1", "dep_kinds": [{"kind": null}, {"kind": "dev"}]}]},
                {"id": "b 1", "deps": []}
            ]}
        }"#;
        let workspace = Workspace::from_metadata(text).unwrap();
        let a = workspace.member("a").unwrap();
        assert_eq!(a.features, ["x"]);
        assert_eq!(a.brought, [("x".to_owned(), "b".to_owned())]);
        assert_eq!(
            a.dependencies,
            [(DependencyKind::Normal, 1), (DependencyKind::Dev, 1)]
        );
        assert!(workspace.member("b").is_none());
        assert_eq!(workspace.packages[1].links.as_deref(), Some("z"));
        assert_eq!(
            workspace
                .closure(a, &[DependencyKind::Build], &|_, _| false)
                .len(),
            0
        );
    }

    #[test]
    fn metadata_that_makes_no_sense_is_refused() {
        assert!(Workspace::from_metadata("{}").is_err());
        let dangling = r#"{"packages": [{"id": "a"}],
            "resolve": {"nodes": [{"id": "a", "deps": [{"pkg": "b", "dep_kinds": []}]}]}}"#;
        assert!(Workspace::from_metadata(dangling).is_err());
    }
}
