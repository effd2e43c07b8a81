//! `./x docs`: documentation that is generated, so that it cannot disagree with the code.
//!
//! Each document is a function from the code to its text; `--check` compares instead of writing.

use crate::{shell, tidy};
use anyhow::{Context, Result, bail};
use godwit_harness::root;

/// What to do with the documents.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail when a document is out of date
    #[arg(long)]
    check: bool,
}

/// A generated document: its path in the repository and its whole text.
struct Document {
    path: &'static str,
    text: fn() -> Result<String>,
}

/// Every generated document.
const DOCUMENTS: &[Document] = &[Document {
    path: tidy::UNSAFE_TABLE,
    text: tidy::unsafe_document,
}];

pub(crate) fn run(args: Args) -> Result<()> {
    if args.check {
        return check();
    }
    DOCUMENTS
        .iter()
        .try_for_each(|document| write(document.path))
}

/// Writes one of the documents anew, by its path.
pub(crate) fn write(path: &str) -> Result<()> {
    let document = DOCUMENTS.iter().find(|document| document.path == path);
    let document = document.with_context(|| format!("{path} is not a generated document"))?;
    let file = root()?.join(path);
    std::fs::create_dir_all(file.parent().context("documents are in directories")?)?;
    std::fs::write(&file, (document.text)()?)?;
    shell::say(&format!("wrote {path}"));
    Ok(())
}

/// Fails, naming them, when documents are out of date.
pub(crate) fn check() -> Result<()> {
    let mut stale = Vec::new();
    for document in DOCUMENTS {
        let now = std::fs::read_to_string(root()?.join(document.path)).unwrap_or_default();
        if now != (document.text)()? {
            stale.push(document.path);
        }
    }
    if !stale.is_empty() {
        bail!("out of date: {}: run ./x docs", stale.join(", "));
    }
    Ok(())
}
