//! Who may depend on whom. The direction of these arrows is the architecture.

use super::source::Source;

/// Package, our packages it may depend on, and whether it runs without std.
struct Rule {
    package: &'static str,
    may_use: &'static [&'static str],
    bare: bool,
}

const fn bare(package: &'static str, may_use: &'static [&'static str]) -> Rule {
    Rule {
        package,
        may_use,
        bare: true,
    }
}

const fn host(package: &'static str, may_use: &'static [&'static str]) -> Rule {
    Rule {
        package,
        may_use,
        bare: false,
    }
}

const RULES: &[Rule] = &[
    bare("godwit-abi", &[]),
    bare("godwit-records", &[]),
    bare("godwit-vmm", &["godwit-abi", "godwit-records"]),
    bare(
        "godwit-toolstack",
        &[
            "godwit-abi",
            "godwit-records",
            "godwit-migrate",
            "godwit-backends",
        ],
    ),
    bare("godwit-migrate", &["godwit-abi", "godwit-records"]),
    bare("godwit-backends", &["godwit-abi", "godwit-records"]),
    bare(
        "godwit-hypervisor",
        &["godwit-abi", "godwit-records", "godwit-vmm"],
    ),
    bare(
        "godwit-dom0",
        &[
            "godwit-abi",
            "godwit-records",
            "godwit-toolstack",
            "godwit-migrate",
            "godwit-backends",
        ],
    ),
    bare("godwit-micro", &["godwit-abi"]),
    host("godwit-guest", &[]),
    host("godwit-harness", &[]),
    host("godwit-boot-tests", &["godwit-harness", "godwit-abi"]),
    host("xtask", &["godwit-harness", "godwit-abi"]),
    host(
        "godwit-model",
        &[
            "godwit-abi",
            "godwit-records",
            "godwit-vmm",
            "godwit-toolstack",
            "godwit-migrate",
        ],
    ),
    host(
        "godwit-sim",
        &[
            "godwit-abi",
            "godwit-records",
            "godwit-vmm",
            "godwit-toolstack",
            "godwit-migrate",
            "godwit-backends",
        ],
    ),
    host(
        "godwit-fuzz",
        &[
            "godwit-abi",
            "godwit-records",
            "godwit-vmm",
            "godwit-toolstack",
            "godwit-migrate",
            "godwit-backends",
        ],
    ),
];

/// Libraries that need an operating system; fine as dev-dependencies anywhere.
const NEEDS_STD: &[&str] = &[
    "anyhow",
    "clap",
    "clap_complete",
    "duct",
    "object",
    "proptest",
    "rustix",
    "stateright",
    "tempfile",
];

pub(super) fn check(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for manifest in sources
        .iter()
        .filter(|source| source.path.ends_with("Cargo.toml"))
    {
        let Some(package) = package_name(&manifest.text) else {
            continue;
        };
        let Some(rule) = RULES.iter().find(|rule| rule.package == package) else {
            findings.push(format!(
                "{}: package {package} has no rule in xtask/src/tidy/crates.rs",
                manifest.path
            ));
            continue;
        };
        for dependency in dependencies(&manifest.text) {
            let ours = RULES.iter().any(|rule| rule.package == dependency);
            if ours && !rule.may_use.contains(&dependency) {
                findings.push(format!(
                    "{}: {package} must not use {dependency}",
                    manifest.path
                ));
            }
            if rule.bare && NEEDS_STD.contains(&dependency) {
                findings.push(format!(
                    "{}: {package} runs without std, {dependency} does not",
                    manifest.path
                ));
            }
        }
    }
    findings
}

fn package_name(manifest: &str) -> Option<&str> {
    section(manifest, "[package]")
        .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
}

fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    section(manifest, "[dependencies]")
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split([' ', '.', '=']).next())
        .filter(|name| !name.is_empty())
}

/// Lines of one section.
fn section<'a>(manifest: &'a str, header: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(move |line| *line != header);
    lines.skip(1).take_while(|line| !line.starts_with('['))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(manifest: &str) -> Vec<String> {
        check(&[Source::new("a/Cargo.toml", manifest)])
    }

    #[test]
    fn arrows_that_point_the_wrong_way_are_found() {
        let manifest = "[package]\nname = \"godwit-abi\"\n[dependencies]\n\
                        godwit-vmm.workspace = true\nanyhow = \"1\"\nlog.workspace = true\n\
                        [dev-dependencies]\nproptest.workspace = true\n";
        assert_eq!(findings(manifest).len(), 2, "{:?}", findings(manifest));
        let fine =
            "[package]\nname = \"godwit-vmm\"\n[dependencies]\ngodwit-abi.workspace = true\n";
        assert!(findings(fine).is_empty());
    }

    #[test]
    fn an_unknown_crate_must_be_given_a_rule() {
        assert_eq!(findings("[package]\nname = \"godwit-surprise\"\n").len(), 1);
        assert!(findings("[workspace]\nmembers = []\n").is_empty());
    }
}
