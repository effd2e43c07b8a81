//! A vCPU's extended state as a peer sends it: decoding is total, bounded and canonical.

use godwit_records::laws::decodes_canonically;
use godwit_records::{XSAVE_AREA_BYTES_MAX, XsaveState};

/// One input: a record. Returns whether it was one.
pub(crate) fn judge(input: &[u8]) -> bool {
    let state = decodes_canonically::<XsaveState>(input);
    if let Some(state) = &state {
        assert!(state.area.as_slice().len() <= XSAVE_AREA_BYTES_MAX);
    }
    state.is_some()
}
