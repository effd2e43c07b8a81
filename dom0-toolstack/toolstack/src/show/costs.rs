//! `xl migrate-costs`.

use alloc::format;
use alloc::string::String;
use godwit_migrate::encode::costs::StepCost;

/// What it prints: a line a step, in nanoseconds a page.
pub fn costs(steps: &[StepCost]) -> String {
    let line = |step: &StepCost| format!("{:<12}{:>8} ns a page\n", step.name, step.ns_per_page);
    steps.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_step() {
        let step = |name, ns_per_page| StepCost { name, ns_per_page };
        let said = costs(&[step("scan", 500), step("delta alone", 12_345)]);
        let wanted = "scan             500 ns a page\ndelta alone    12345 ns a page\n";
        assert_eq!(said, wanted);
    }
}
