//! A vCPU's extended state: x87, SSE, AVX and what else XCR0 switches on.

use crate::field::Bytes;
use crate::kind::Kind;
use crate::record;

/// The most bytes of an XSAVE area that a record takes. AVX-512 with protection keys has 2696
/// (SDM 1 13.5); AMX needs 11008 and is not offered to guests.
pub const XSAVE_AREA_BYTES_MAX: usize = 4096;

record! {
    /// The extended state of a vCPU.
    pub struct XsaveState = Kind::XSAVE_STATE;
    version 1 {
        /// The components the area has room for. A host that restores it has them all.
        xcr0: u64 = 1;
        /// The XSAVE area in the standard, not the compacted, form (SDM 1 13.4): legacy region,
        /// header, components at the offsets of CPUID leaf 0xd. Empty is the initial state.
        area: Bytes<XSAVE_AREA_BYTES_MAX> = Bytes::empty();
    }
}
