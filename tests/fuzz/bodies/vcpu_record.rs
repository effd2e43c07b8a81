//! A vCPU's registers as a peer or dom0 sends them: decoding is total and canonical, and judging
//! whether a CPU could be so, starting it up and resetting it are total too.

use godwit_records::VcpuState;
use godwit_records::laws::decodes_canonically;

/// One input: a record. Returns whether it was one.
pub(crate) fn judge(input: &[u8]) -> bool {
    let Some(state) = decodes_canonically::<VcpuState>(input) else {
        return false;
    };
    let width = input.last().copied().unwrap_or(0);
    for physical_address_bits in [width, 36, 52] {
        if let Err(invalid) = state.check(physical_address_bits) {
            assert!(!invalid.to_string().is_empty());
        }
    }
    if state.check(52).is_ok() {
        // A CPU that is possible stays possible through INIT and start-up.
        let mut started = state.after_init();
        assert_eq!(started.check(52), Ok(()));
        started.start_at(width);
        assert_eq!(started.check(52), Ok(()));
    }
    true
}
