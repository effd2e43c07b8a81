//! What a domain's CPUs answer to CPUID, as a peer says: decoding is canonical, and a policy that is taken over answers as the
//! record says and promises nothing that this host lacks.

use godwit_records::CpuPolicyState;
use godwit_records::laws::decodes_canonically;
use godwit_vmm::cpuid::{Policy, Viewer};
use godwit_vmm::fake::everything;

/// One input: a record. Returns whether a host that has everything took it over.
pub(crate) fn judge(input: &[u8]) -> bool {
    let host = Policy::new(2, 1, everything).with_immunities(Some(u64::MAX));
    let Some(record) = decodes_canonically::<CpuPolicyState>(input) else {
        return false;
    };
    match host.replaced_by(&record) {
        Ok(policy) => {
            assert_eq!(policy.record(), record);
            assert_eq!(policy.xcr0_allowed() & !host.xcr0_allowed(), 0);
            let viewer = Viewer {
                apic_id: 1,
                cr4: 0,
                xcr0: policy.xcr0_allowed(),
            };
            for entry in record.answers() {
                policy.answer(entry.leaf, entry.subleaf, &viewer);
            }
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}
