//! House rules that no compiler checks. Each rule is a function from the sources to findings, so
//! that it can be tested on made-up sources; `check` runs them all on the repository.

mod crates;
mod orphans;
mod rules;
mod source;
mod unsafety;

use anyhow::{Context, Result, bail};
use godwit_harness::root;
use source::Source;
use std::path::Path;

/// Where the table of unsafe counts is.
pub(crate) const UNSAFE_TABLE: &str = "docs/unsafe.md";

/// Not ours, or not source.
const SKIPPED: &[&str] = &["target", "out", ".git", "corpus", "artifacts"];
/// What is looked at, besides the launchers `x` and `.ci/run`.
const SUFFIXES: &[&str] = &["rs", "sh", "py", "md", "toml", "yml", "ld", "s", "S"];

/// Fails with every finding at once.
pub(crate) fn check() -> Result<()> {
    let sources = sources()?;
    let mut findings = rules::sizes(&sources);
    findings.extend(rules::functions(&sources));
    findings.extend(rules::banned(&sources));
    findings.extend(rules::roots(&sources));
    findings.extend(crates::check(&sources));
    findings.extend(orphans::check(&sources));
    findings.extend(unsafety::misplaced(&sources));
    if !findings.is_empty() {
        bail!("{} findings:\n  {}", findings.len(), findings.join("\n  "));
    }
    Ok(())
}

/// The document of unsafe counts as it should be now.
pub(crate) fn unsafe_document() -> Result<String> {
    let now = std::fs::read_to_string(root()?.join(UNSAFE_TABLE)).unwrap_or_default();
    Ok(unsafety::document(&now, &sources()?))
}

fn sources() -> Result<Vec<Source>> {
    let root = root()?;
    let mut found = Vec::new();
    collect(&root, &root, &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn collect(root: &Path, dir: &Path, found: &mut Vec<Source>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                collect(root, &path, found)?;
            }
            continue;
        }
        let suffix = path.extension().unwrap_or_default().to_string_lossy();
        if SUFFIXES.contains(&suffix.as_ref()) || ["x", "run"].contains(&name.as_str()) {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("{} is not UTF-8 text", path.display()))?;
            let relative = path.strip_prefix(root)?.to_string_lossy().into_owned();
            found.push(Source::new(&relative, &text));
        }
    }
    Ok(())
}
