//! IA32_ARCH_CAPABILITIES for guests: against which side channels the processor is immune, so that a guest does not pay for
//! mitigations that it does not need.
//!
//! A bit is offered where the host's own register has it. One is also found out here: a Linux guest takes every Intel CPU for
//! affected by indirect target selection (ITS) unless a hypervisor says ITS_NO, and CPUs older than that bit do not have it. So
//! it is said of processors that are not among those that Intel lists as affected (INTEL-SA-01153), as KVM says it: by family,
//! model and stepping. Nothing is found out about a host that itself has a hypervisor beneath it, which may move it.

use godwit_records::{IMMUNITIES, WARNINGS};

use super::Leaf;

/// The register: IA32_ARCH_CAPABILITIES.
pub const IA32_ARCH_CAPABILITIES: u32 = 0x10a;
/// Leaf 7 EDX: the register is there.
pub(super) const ARCH_CAPABILITIES: u32 = 1 << 29;

/// Not affected by indirect target selection.
const ITS_NO: u64 = 1 << 62;
/// Leaf 1 ECX: a hypervisor is beneath.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 7, subleaf 2 EDX: BHI_CTRL, which no affected processor has.
const BHI_CONTROL: u32 = 1 << 4;

/// Models of family 6 that are affected, and the last stepping of each that is not.
const ITS_MODELS: [(u32, Option<u32>); 11] = [
    (0x55, Some(0x5)), // Skylake-X; Cascade Lake and later steppings are affected
    (0x6a, None),      // Ice Lake-X
    (0x6c, None),      // Ice Lake-D
    (0x7e, None),      // Ice Lake-L
    (0x8c, None),      // Tiger Lake-L
    (0x8d, None),      // Tiger Lake
    (0x8e, Some(0xb)), // Kaby Lake-L and its successors
    (0x9e, Some(0xc)), // Kaby Lake and its successors
    (0xa5, None),      // Comet Lake
    (0xa6, None),      // Comet Lake-L
    (0xa7, None),      // Rocket Lake
];

/// What the guests of a host are told, from its CPUID and, where it has the register, its value. `None`: the register is not
/// for them, because the CPU is no Intel CPU or there is nothing to say.
pub fn immunities(host: impl Fn(u32, u32) -> Leaf, register: Option<u64>) -> Option<u64> {
    const GENUINE_INTEL: [u32; 3] = [0x756e_6547, 0x4965_6e69, 0x6c65_746e];
    let zero = host(0, 0);
    if [zero.ebx, zero.edx, zero.ecx] != GENUINE_INTEL {
        return None;
    }
    let mut told = register.unwrap_or(0) & (IMMUNITIES | WARNINGS);
    let one = host(1, 0);
    let newer = zero.eax >= 7 && host(7, 0).eax >= 2 && host(7, 2).edx & BHI_CONTROL != 0;
    if one.ecx & HYPERVISOR == 0 && (newer || !is_its_model(one.eax)) {
        told |= ITS_NO;
    }
    (told != 0).then_some(told)
}

/// Whether the processor of this signature (leaf 1 EAX) is listed as affected.
fn is_its_model(signature: u32) -> bool {
    const FAMILY_6: u32 = 6;
    let (family, stepping) = (signature >> 8 & 0xf, signature & 0xf);
    let model = signature >> 12 & 0xf0 | signature >> 4 & 0xf;
    family == FAMILY_6
        && ITS_MODELS
            .iter()
            .any(|&(listed, last)| listed == model && last.is_none_or(|last| stepping > last))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RDCL_NO: u64 = 1;
    const IBRS_ALL: u64 = 1 << 1;
    const SKYLAKE_X: u32 = 0x0005_0654;
    const CASCADE_LAKE: u32 = 0x0005_0657;
    const SAPPHIRE_RAPIDS: u32 = 0x0008_06f8;

    fn intel(signature: u32, ecx: u32, bhi: u32) -> impl Fn(u32, u32) -> Leaf {
        move |leaf, subleaf| match (leaf, subleaf) {
            (0, _) => Leaf {
                eax: 0x16,
                ebx: 0x756e_6547,
                edx: 0x4965_6e69,
                ecx: 0x6c65_746e,
            },
            (1, _) => Leaf {
                eax: signature,
                ecx,
                ..Leaf::default()
            },
            (7, 0) => Leaf {
                eax: 2,
                ..Leaf::default()
            },
            (7, 2) => Leaf {
                edx: bhi,
                ..Leaf::default()
            },
            _nothing => Leaf::default(),
        }
    }

    #[test]
    fn what_the_register_says_is_passed_on_where_it_is_known() {
        let host = intel(CASCADE_LAKE, 0, 0);
        assert_eq!(immunities(&host, Some(RDCL_NO)), Some(RDCL_NO));
        assert_eq!(immunities(&host, Some(RDCL_NO | IBRS_ALL)), Some(RDCL_NO));
        assert_eq!(immunities(&host, Some(1 << 19)), Some(1 << 19), "a warning");
        assert_eq!(immunities(&host, Some(IBRS_ALL | 1 << 40)), None);
        assert_eq!(immunities(&host, None), None);
    }

    #[test]
    fn only_processors_that_are_not_listed_are_said_to_be_immune() {
        let said = |host: &dyn Fn(u32, u32) -> Leaf| immunities(host, None);
        assert_eq!(said(&intel(SKYLAKE_X, 0, 0)), Some(ITS_NO));
        assert_eq!(said(&intel(SAPPHIRE_RAPIDS, 0, 0)), Some(ITS_NO));
        assert_eq!(said(&intel(CASCADE_LAKE, 0, 0)), None);
        assert_eq!(said(&intel(0x0008_06ea, 0, 0)), Some(ITS_NO));
        for listed in [0x0008_06ec, 0x000a_0655, 0x000a_0660, 0x0006_06a6] {
            assert_eq!(said(&intel(listed, 0, 0)), None, "{listed:#x}");
        }
        assert_eq!(said(&intel(CASCADE_LAKE, 0, BHI_CONTROL)), Some(ITS_NO));
    }

    #[test]
    fn beneath_a_hypervisor_only_the_register_counts() {
        let host = intel(SKYLAKE_X, HYPERVISOR, 0);
        assert_eq!(immunities(&host, None), None);
        assert_eq!(immunities(&host, Some(ITS_NO)), Some(ITS_NO));
    }

    #[test]
    fn other_vendors_guests_have_no_such_register() {
        let amd = |leaf, subleaf| match leaf {
            0 => Leaf {
                eax: 0xd,
                ebx: 0x6874_7541,
                edx: 0x6974_6e65,
                ecx: 0x444d_4163,
            },
            _ => intel(SKYLAKE_X, 0, 0)(leaf, subleaf),
        };
        assert_eq!(immunities(amd, Some(RDCL_NO)), None);
    }
}
