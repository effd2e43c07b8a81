//! A policy as a record, and a domain's policy from the record of the host it comes from.

use alloc::vec::Vec;

use godwit_records::{CpuPolicyState, CpuidEntry, Invalid, Lack};

use super::{BASIC_MAX, EXTENDED_MAX, Leaf, Policy, Sub};

const EXTENDED_FIRST: u32 = 0x8000_0000;

/// Why a domain cannot have the CPU of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadPolicy {
    /// It is no record of a CPU.
    Invalid(Invalid),
    /// This host lacks something of it; the first of what it lacks.
    Lacks(Lack),
}

impl core::fmt::Display for BadPolicy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            BadPolicy::Invalid(invalid) => write!(f, "{invalid}"),
            BadPolicy::Lacks(lack) => write!(f, "this host lacks {lack}"),
        }
    }
}

fn entry(leaf: u32, subleaf: u32, value: &Leaf) -> CpuidEntry {
    CpuidEntry {
        leaf,
        subleaf,
        registers: [value.eax, value.ebx, value.ecx, value.edx],
    }
}

impl Policy {
    /// What guests are told, to go with them.
    pub fn record(&self) -> CpuPolicyState {
        let row = |first: u32, leaves: &[Leaf]| {
            let numbered = (first..).zip(leaves);
            numbered
                .map(|(leaf, value)| entry(leaf, 0, value))
                .collect::<Vec<_>>()
        };
        let mut entries = row(0, &self.basic);
        entries.extend(row(EXTENDED_FIRST, &self.extended));
        entries.extend(
            self.subs
                .iter()
                .map(|sub| entry(sub.leaf, sub.subleaf, &sub.value)),
        );
        entries.sort_by_key(|entry| (entry.leaf, entry.subleaf));
        let answers = CpuPolicyState::new(entries.into_iter());
        CpuPolicyState {
            arch_capabilities: self.arch_capabilities,
            ..answers.expect("leaves and subleaves are bounded")
        }
    }

    /// The policy of a record, if this one, which the domain would have had otherwise, has all of it.
    pub fn replaced_by(&self, record: &CpuPolicyState) -> Result<Policy, BadPolicy> {
        record.check().map_err(BadPolicy::Invalid)?;
        let mut first = None;
        record.compare(&self.record(), |lack| first = first.or(Some(lack)));
        if let Some(lack) = first {
            return Err(BadPolicy::Lacks(lack));
        }
        let invalid = |why| {
            Err(BadPolicy::Invalid(Invalid {
                field: "entries",
                why,
            }))
        };
        let mut policy = Policy {
            basic: Vec::new(),
            extended: Vec::new(),
            subs: Vec::new(),
            xcr0_allowed: record.xcr0(),
            arch_capabilities: record.arch_capabilities,
            ..self.clone()
        };
        for CpuidEntry {
            leaf,
            subleaf,
            registers: [eax, ebx, ecx, edx],
        } in record.answers()
        {
            let value = Leaf { eax, ebx, ecx, edx };
            let (row, first, last) = if leaf < EXTENDED_FIRST {
                (&mut policy.basic, 0, BASIC_MAX)
            } else {
                (&mut policy.extended, EXTENDED_FIRST, EXTENDED_MAX)
            };
            if subleaf > 0 {
                policy.subs.push(Sub {
                    leaf,
                    subleaf,
                    value,
                });
            } else if leaf == first + row.len() as u32 && leaf <= last {
                row.push(value);
            } else {
                return invalid("a leaf is left out or beyond the last");
            }
        }
        if policy.xcr0_allowed != 0 && !policy.xcr0_valid(policy.xcr0_allowed) {
            return invalid("its components of the extended state do not go together");
        }
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::super::PolicyName;
    use super::*;
    use crate::fake::everything;

    fn named(name: PolicyName) -> Policy {
        Policy::named(name, 2, 1, everything)
    }

    #[test]
    fn a_policy_survives_its_record() {
        for name in [PolicyName::Host, PolicyName::Portable] {
            let policy = named(name);
            assert_eq!(policy.replaced_by(&policy.record()), Ok(policy));
        }
    }

    #[test]
    fn a_host_that_has_more_answers_as_the_first_did() {
        let (portable, host) = (named(PolicyName::Portable), named(PolicyName::Host));
        let moved = host.replaced_by(&portable.record()).expect("it has all");
        assert_eq!(moved.record(), portable.record());
        assert_eq!(moved.xcr0_allowed(), portable.xcr0_allowed());
        let viewer = crate::cpuid::Viewer {
            apic_id: 1,
            cr4: 1 << 18,
            xcr0: 7,
        };
        for leaf in (0..=0x16).chain(0x8000_0000..=0x8000_0008) {
            for subleaf in 0..4 {
                assert_eq!(
                    moved.answer(leaf, subleaf, &viewer),
                    portable.answer(leaf, subleaf, &viewer),
                    "{leaf:#x} {subleaf}"
                );
            }
        }
    }

    #[test]
    fn a_host_that_has_less_refuses_by_name() {
        let (portable, host) = (named(PolicyName::Portable), named(PolicyName::Host));
        let refused = portable.replaced_by(&host.record()).expect_err("too much");
        assert_eq!(alloc::format!("{refused}"), "this host lacks pcid");
    }

    #[test]
    fn immunities_go_along_and_are_refused_where_they_are_missing() {
        const ITS_NO: u64 = 1 << 62;
        let host = || named(PolicyName::Host);
        let immune = host().with_immunities(Some(ITS_NO));
        assert_eq!(immune.replaced_by(&immune.record()), Ok(immune.clone()));
        let refused = host()
            .replaced_by(&immune.record())
            .expect_err("not immune");
        assert_eq!(alloc::format!("{refused}"), "this host lacks its_no");
        let before = immune
            .replaced_by(&host().record())
            .expect("it asks for nothing");
        assert_eq!(before.arch_capabilities(), None);
    }

    #[test]
    fn what_no_policy_makes_is_refused() {
        let policy = named(PolicyName::Portable);
        let record = policy.record();
        let without = |leaf: u32| {
            let left = record.answers().filter(move |entry| entry.leaf != leaf);
            CpuPolicyState::new(left).expect("fewer")
        };
        for leaf in [0, 2, 0x8000_0003] {
            assert!(
                matches!(
                    policy.replaced_by(&without(leaf)),
                    Err(BadPolicy::Invalid(_))
                ),
                "{leaf:#x}"
            );
        }
        let beyond = record.answers().chain([CpuidEntry {
            leaf: 0x8000_0009,
            ..CpuidEntry::default()
        }]);
        let beyond = CpuPolicyState::new(beyond).expect("one more");
        assert!(matches!(
            policy.replaced_by(&beyond),
            Err(BadPolicy::Invalid(_))
        ));
    }
}
