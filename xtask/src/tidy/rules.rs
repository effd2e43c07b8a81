//! Sizes, banned words, and what the root of every crate must say.

use super::source::Source;
use super::unsafety;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// In tests: an interpreter of random operations is one match, and reads best in one place.
const TEST_FUNCTION_LINES_MAX: usize = 150;

/// Macros that mean "not finished".
const UNFINISHED: &[&str] = &["todo", "unimplemented", "dbg"];

/// Crates that run without an operating system and must say so.
const WITHOUT_STD: &[&str] = &[
    "hypervisor/abi/",
    "hypervisor/records/",
    "hypervisor/vmm/",
    "dom0-toolstack/toolstack/",
    "dom0-toolstack/migrate/",
    "dom0-toolstack/backends/",
];

/// Files of code are under 500 lines.
pub(super) fn sizes(sources: &[Source]) -> Vec<String> {
    let code = |path: &str| {
        [".rs", ".sh", ".py"]
            .iter()
            .any(|suffix| path.ends_with(suffix))
            || path == "x"
    };
    sources
        .iter()
        .filter(|source| code(&source.path))
        .map(|source| (source, source.text.lines().count()))
        .filter(|&(_, lines)| lines >= FILE_LINES_MAX)
        .map(|(source, lines)| {
            format!(
                "{}: {lines} lines, must be under {FILE_LINES_MAX}: split it",
                source.path
            )
        })
        .collect()
}

/// Functions are under 70 lines, those of test files under 150.
pub(super) fn functions(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        let in_tests = source
            .path
            .split('/')
            .any(|part| part == "tests" || part == "tests.rs");
        let limit = if in_tests {
            TEST_FUNCTION_LINES_MAX
        } else {
            FUNCTION_LINES_MAX
        };
        for function in source.functions() {
            if function.lines >= limit {
                findings.push(format!(
                    "{}:{}: fn {} has {} lines, must be under {limit}",
                    source.path, function.line, function.name, function.lines
                ));
            }
        }
    }
    findings
}

/// No path of somebody's machine anywhere; no unfinished code.
pub(super) fn banned(sources: &[Source]) -> Vec<String> {
    // Taken apart, so that this file does not contain them.
    let machine_paths = [
        ["/wo", "rk/"].concat(),
        ["/ro", "ot/"].concat(),
        ["/ho", "me/"].concat(),
    ];
    let mut findings = Vec::new();
    for source in sources {
        for (number, line) in source.text.lines().enumerate() {
            for word in machine_paths
                .iter()
                .filter(|word| line.contains(word.as_str()))
            {
                findings.push(format!("{}:{}: names {word}", source.path, number + 1));
            }
        }
        for word in UNFINISHED {
            for at in source.words(word) {
                if source.code[at + word.len()..].starts_with('!') {
                    let line = source.line_of(at);
                    findings.push(format!("{}:{line}: {word}! left in", source.path));
                }
            }
        }
    }
    findings
}

/// Crate roots forbid unsafe code, except where it lives, and say `no_std` where they must.
pub(super) fn roots(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        let is_root = source.path.ends_with("src/lib.rs") || source.path.ends_with("src/main.rs");
        if !is_root {
            continue;
        }
        if !unsafety::allowed(&source.path) && !source.code.contains("#![forbid(unsafe_code)]") {
            findings.push(format!("{}: lacks #![forbid(unsafe_code)]", source.path));
        }
        if WITHOUT_STD.iter().any(|dir| source.path.starts_with(dir))
            && !source.code.contains("no_std")
        {
            findings.push(format!("{}: lacks #![no_std]", source.path));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_and_functions_are_found_at_the_limit() {
        let lines = |n: usize| "x\n".repeat(n);
        let sources = [
            Source::new("a.rs", &lines(499)),
            Source::new("b.sh", &lines(500)),
        ];
        assert_eq!(sizes(&sources).len(), 1);
        let function = |n: usize| Source::new("a.rs", &format!("fn f() {{\n{}}}", lines(n - 2)));
        assert!(functions(&[function(69)]).is_empty());
        assert_eq!(functions(&[function(70)]).len(), 1);
        let test =
            |n: usize| Source::new("a/tests/b.rs", &format!("fn f() {{\n{}}}", lines(n - 2)));
        assert!(functions(&[test(149)]).is_empty());
        assert_eq!(functions(&[test(150)]).len(), 1);
    }

    #[test]
    fn machine_paths_and_unfinished_code_are_found() {
        let path = ["see /wo", "rk/x"].concat();
        let sources = [
            Source::new("README.md", &path),
            Source::new(
                "a.rs",
                "fn f() { todo!() } // todo! is fine here\nfn todo() {}",
            ),
        ];
        assert_eq!(banned(&sources).len(), 2);
    }

    #[test]
    fn roots_must_forbid_unsafe_code_and_say_no_std() {
        let sources = [
            Source::new("hypervisor/src/main.rs", "#![no_std]"),
            Source::new(
                "hypervisor/abi/src/lib.rs",
                "// #![forbid(unsafe_code)]\n#![no_std]",
            ),
            Source::new("hypervisor/vmm/src/lib.rs", "#![forbid(unsafe_code)]"),
            Source::new("xtask/src/main.rs", "#![forbid(unsafe_code)]"),
        ];
        let findings = roots(&sources);
        assert_eq!(findings.len(), 2, "{findings:?}");
    }
}
