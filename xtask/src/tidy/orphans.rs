//! Files that no crate compiles: reachable from no crate root by `mod` or `include!`.

use super::source::Source;
use std::collections::HashSet;

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let rust: Vec<&Source> = sources.iter().filter(|source| source.is_rust()).collect();
    let packages: Vec<&str> = sources
        .iter()
        .filter_map(|source| source.path.strip_suffix("Cargo.toml"))
        .collect();
    let mut reached = HashSet::new();
    let mut to_visit: Vec<String> = rust
        .iter()
        .map(|source| source.path.clone())
        .filter(|path| packages.iter().any(|package| is_root(path, package)))
        .collect();
    while let Some(path) = to_visit.pop() {
        if !reached.insert(path.clone()) {
            continue;
        }
        if let Some(source) = rust.iter().find(|source| source.path == path) {
            to_visit.extend(children(source));
        }
    }
    rust.iter()
        .filter(|source| !reached.contains(&source.path))
        .map(|source| {
            format!(
                "{}: no crate compiles it (no `mod` leads to it)",
                source.path
            )
        })
        .collect()
}

/// Whether cargo itself takes the file as the root of a target of the package at `package`.
fn is_root(path: &str, package: &str) -> bool {
    let Some(inside) = path.strip_prefix(package) else {
        return false;
    };
    if matches!(inside, "build.rs" | "src/lib.rs" | "src/main.rs") {
        return true;
    }
    [
        "src/bin/",
        "tests/",
        "benches/",
        "examples/",
        "fuzz_targets/",
    ]
    .iter()
    .any(|dir| {
        inside
            .strip_prefix(dir)
            .is_some_and(|rest| !rest.contains('/') || rest.ends_with("/main.rs"))
    })
}

/// Paths that the file's `mod name;` and `include!("…")` may mean; not all of them exist.
fn children(source: &Source) -> Vec<String> {
    let (dir, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let stem = file.trim_end_matches(".rs");
    let mut found = Vec::new();
    let mut attribute: Option<&str> = None;
    for (line, code) in source.text.lines().zip(source.code.lines()) {
        let quoted = || line.split('"').nth(1);
        if code.trim_start().starts_with("#[path") {
            attribute = quoted();
        } else if let Some(name) = declared_module(code) {
            match attribute.take() {
                Some(path) => found.push(normal(&format!("{dir}/{path}"))),
                // Beside a root or mod.rs, or in the directory named after the file.
                None => {
                    for dir in [dir.to_owned(), format!("{dir}/{stem}")] {
                        found.push(format!("{dir}/{name}.rs"));
                        found.push(format!("{dir}/{name}/mod.rs"));
                    }
                }
            }
        } else if code.contains("include!(")
            && let Some(path) = quoted()
        {
            found.push(normal(&format!("{dir}/{path}")));
        }
    }
    found
}

/// The name in `mod name;`, with any visibility.
fn declared_module(code: &str) -> Option<&str> {
    let declaration = code.trim().strip_suffix(';')?;
    let (before, name) = declaration.rsplit_once("mod ").unwrap_or(("-", ""));
    let visible =
        before.is_empty() || before.trim_end().ends_with("pub") || before.trim_end().ends_with(')');
    (visible && name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.is_empty())
        .then_some(name)
}

/// Resolves `..`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_no_module_declares_are_orphans() {
        let files = [
            ("p/Cargo.toml", ""),
            (
                "p/src/main.rs",
                "mod a;\npub(crate) mod d;\n// mod ghost;\nconst S: &str = \"mod ghost;\";",
            ),
            (
                "p/src/a.rs",
                "#[cfg(test)]\n#[path = \"a_tests.rs\"]\nmod tests;\nmod b;",
            ),
            ("p/src/a/b.rs", "include!(\"../c.rs\");"),
            ("p/src/c.rs", ""),
            ("p/src/d/mod.rs", "pub mod e;"),
            ("p/src/d/e.rs", ""),
            ("p/src/a_tests.rs", ""),
            ("p/tests/t.rs", ""),
            ("p/src/ghost.rs", ""),
        ];
        let sources: Vec<Source> = files
            .iter()
            .map(|(path, text)| Source::new(path, text))
            .collect();
        let findings = check(&sources);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].starts_with("p/src/ghost.rs"));
    }
}
