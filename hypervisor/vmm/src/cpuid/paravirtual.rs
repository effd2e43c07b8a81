//! The hypervisor's own leaves: Godwit's at 4000_0000h, and behind them, at 4000_0100h, those by which guests find the part of
//! KVM's interface that is offered. Guests look for a signature at every 100h from 4000_0000h on, so both are found.

use super::Leaf;

/// Signature in the first hypervisor leaf: EBX, ECX, EDX spell it.
pub const SIGNATURE: [u8; 12] = *b"GodwitGodwit";
/// First hypervisor leaf.
pub const HYPERVISOR_FIRST: u32 = 0x4000_0000;
/// Last hypervisor leaf.
pub const HYPERVISOR_LAST: u32 = 0x4000_0001;
/// Signature of KVM's interface.
pub const KVM_SIGNATURE: [u8; 12] = *b"KVMKVMKVM\0\0\0";
/// First leaf of KVM's interface.
pub const KVM_FIRST: u32 = 0x4000_0100;
/// Its features.
const KVM_FEATURES: u32 = KVM_FIRST + 1;

/// No delays are needed after port accesses.
const NOP_IO_DELAY: u32 = 1 << 1;
/// kvmclock at the MSRs 4b56_4d00h and on.
const CLOCKSOURCE2: u32 = 1 << 3;
/// kvmclock says itself when it needs no ordering between vCPUs.
const CLOCKSOURCE_STABLE: u32 = 1 << 24;

/// Whether the host is QEMU's emulator, by leaf 1 and the first hypervisor leaf.
pub fn is_tcg(one: Leaf, first: Leaf) -> bool {
    const HYPERVISOR: u32 = 1 << 31;
    one.ecx & HYPERVISOR != 0 && [first.ebx, first.ecx, first.edx] == words(b"TCGTCGTCGTCG")
}

fn words(text: &[u8; 12]) -> [u32; 3] {
    [0, 4, 8].map(|at| u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]))
}

/// What a hypervisor leaf answers.
pub(super) fn answer(leaf: u32, abi_version: u32) -> Leaf {
    let first = |last, signature| {
        let [ebx, ecx, edx] = words(signature);
        Leaf {
            eax: last,
            ebx,
            ecx,
            edx,
        }
    };
    match leaf {
        HYPERVISOR_FIRST => first(HYPERVISOR_LAST, &SIGNATURE),
        HYPERVISOR_LAST => Leaf {
            eax: abi_version,
            ..Leaf::default()
        },
        KVM_FIRST => first(KVM_FEATURES, &KVM_SIGNATURE),
        KVM_FEATURES => Leaf {
            eax: NOP_IO_DELAY | CLOCKSOURCE2 | CLOCKSOURCE_STABLE,
            ..Leaf::default()
        },
        _nothing => Leaf::default(),
    }
}
