//! Holds the shape of the code: who may import whom, how long a file may be.
//!
//! A new edge in [`IMPORTS`] is a decision; docs/ARCHITECTURE.md explains it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Lines of a source file; its tests, at the end or in a file of their own, apart.
const FILE_LINES_MAX: usize = 500;

/// From each module to the modules that it may import.
const IMPORTS: &[(&str, &[&str])] = &[
    // Pure: no I/O, no async.
    ("mutant", &[]),
    ("database", &[]),
    ("clock", &["mutant"]),
    ("change", &["clock", "mutant"]),
    ("yaml", &[]),
    ("topology", &["change", "yaml"]),
    ("version", &["change", "clock", "mutant"]),
    ("resolve", &["change", "clock", "database", "mutant", "topology", "version"]),
    ("sim", &["change", "clock", "mutant", "resolve", "version"]),
    ("conf", &["yaml"]),
    ("compare", &["change"]),
    ("status", &[]),
    ("command", &["status"]),
    ("failpoint", &[]),
    ("metrics", &["status"]),
    // Shells: I/O without policy. They never import each other.
    ("capture", &["change", "clock", "failpoint"]),
    ("ship", &["change", "clock", "failpoint"]),
    ("apply", &["change", "clock", "database", "failpoint", "resolve", "version"]),
    ("doctor", &["change", "clock", "database", "topology"]),
    ("conflicts", &["change", "resolve", "topology"]),
    ("verify", &["change", "clock", "compare", "database", "resolve", "topology", "version"]),
    // The edges: what people and programs touch.
    ("admin", &["clock", "command", "metrics", "status", "topology"]),
    (
        "agent",
        &[
            "admin",
            "apply",
            "capture",
            "change",
            "clock",
            "command",
            "compare",
            "conflicts",
            "database",
            "doctor",
            "failpoint",
            "metrics",
            "resolve",
            "ship",
            "status",
            "topology",
            "verify",
            "version",
        ],
    ),
    (
        "cli",
        &[
            "admin",
            "agent",
            "apply",
            "change",
            "clock",
            "compare",
            "conf",
            "conflicts",
            "database",
            "doctor",
            "resolve",
            "ship",
            "status",
            "topology",
            "verify",
        ],
    ),
];

/// Modules in which nothing waits and nothing is read or written.
const PURE: [&str; 8] =
    ["change", "database", "topology", "version", "resolve", "conf", "compare", "yaml"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Every source file below `src`: its path from the root, and its code without
/// comments and without the tests at its end.
fn sources() -> Vec<(String, Vec<String>)> {
    let root = root();
    let mut paths = Vec::new();
    collect(&root.join("src"), &mut paths);
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(path).unwrap();
            let code = text
                .lines()
                .take_while(|line| !line.starts_with("#[cfg(test)]") || name.ends_with("tests.rs"))
                .map(|line| if line.trim_start().starts_with("//") { "" } else { line }.to_owned())
                .collect();
            (name, code)
        })
        .collect()
}

fn module(name: &str) -> &str {
    let inner = name.strip_prefix("src/").unwrap();
    inner.split(['/', '.']).next().unwrap()
}

/// The top-level modules that follow `crate::` in a line.
fn imported(line: &str) -> Vec<&str> {
    let word = |c: char| c.is_ascii_lowercase() || c == '_';
    line.split("crate::")
        .skip(1)
        .map(|rest| &rest[..rest.find(|c: char| !word(c)).unwrap_or(rest.len())])
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let table: BTreeMap<_, _> = IMPORTS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (name, code) in sources() {
        let from = module(&name);
        if matches!(from, "lib" | "main") || name.ends_with("/tests.rs") {
            continue;
        }
        let allowed = table.get(from).unwrap_or_else(|| panic!("{from} is not in the table"));
        for (number, line) in code.iter().enumerate() {
            for to in imported(line) {
                if to != from && !allowed.contains(&to) {
                    wrong.push(format!("{name}:{}: {from} imports {to}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_no_cycle_and_names_every_module() {
    let mut settled = BTreeSet::new();
    loop {
        let next: Vec<_> = IMPORTS
            .iter()
            .filter(|(from, to)| !settled.contains(from) && to.iter().all(|t| settled.contains(t)))
            .map(|(from, _)| *from)
            .collect();
        if next.is_empty() {
            break;
        }
        settled.extend(next);
    }
    assert_eq!(settled.len(), IMPORTS.len(), "a cycle among the rest");
    let text = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        assert!(settled.contains(line.trim_end_matches(';')), "{line} is not in the table");
    }
}

#[test]
fn pure_modules_neither_wait_nor_touch_the_world() {
    let banned = ["tokio::", "mysql_async::", "rdkafka::", "std::fs", "std::net", "async fn"];
    let mut wrong = Vec::new();
    for (name, code) in sources() {
        for line in code.iter().filter(|_| PURE.contains(&module(&name))) {
            if let Some(found) = banned.iter().find(|banned| line.contains(**banned)) {
                wrong.push(format!("{name}: {found}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_short_and_none_is_called_mod() {
    let mut wrong = Vec::new();
    for (name, code) in sources() {
        if code.len() > FILE_LINES_MAX {
            wrong.push(format!("{name}: {} lines, at most {FILE_LINES_MAX}", code.len()));
        }
        if name.ends_with("/mod.rs") {
            wrong.push(format!("{name}: write foo.rs beside foo/"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
