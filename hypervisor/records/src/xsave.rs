//! A vCPU's extended state: x87, SSE, AVX and what else XCR0 switches on.

use crate::check::{Invalid, rule};
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

/// Offsets in the legacy region and the header (SDM 1, 10.5.1 and 13.4.2).
const MXCSR: usize = 24;
const XSTATE_BV: usize = 512;
const XCOMP_BV: usize = 520;
const HEADER_END: usize = 576;

impl XsaveState {
    /// Says that these components are in use, and none is compacted: for an area that FXSAVE has written.
    pub fn set_components(&mut self, components: u64) {
        if let Some(header) = self.area.as_mut_slice().get_mut(XSTATE_BV..HEADER_END) {
            header.fill(0);
            header[..8].copy_from_slice(&components.to_le_bytes());
        }
    }

    /// Would XRSTOR take it, on a CPU with these components? What is not empty has the legacy region and the header.
    pub fn check(&self) -> Result<(), Invalid> {
        let area = self.area.as_slice();
        if area.is_empty() {
            return Ok(());
        }
        rule(area.len() >= HEADER_END, "area", "it has no header")?;
        let word = |at: usize| {
            area[at..at + 8]
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        rule(
            word(MXCSR) as u32 >> 16 == 0,
            "area",
            "MXCSR has reserved bits",
        )?;
        rule(
            word(XSTATE_BV) & !self.xcr0 == 0,
            "area",
            "it holds a component that XCR0 lacks",
        )?;
        let plain = area[XCOMP_BV..HEADER_END].iter().all(|byte| *byte == 0);
        rule(
            plain,
            "area",
            "it is compacted, or the header has reserved bits",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn with(at: usize, byte: u8) -> XsaveState {
        let mut area = vec![0; 832];
        area[XSTATE_BV] = 7;
        area[at] = byte;
        XsaveState {
            xcr0: 7,
            area: Bytes::copy_of(&area).expect("fits"),
        }
    }

    #[test]
    fn what_xrstor_refuses_is_refused() {
        assert_eq!(XsaveState::reset().check(), Ok(()));
        for (at, byte, valid) in [
            (0, 0xff, true),
            (MXCSR + 1, 0xff, true),
            (MXCSR + 2, 1, false),
            (XSTATE_BV, 3, true),
            (XSTATE_BV, 0xf, false),
            (XSTATE_BV + 7, 0x80, false),
            (XCOMP_BV + 7, 0x80, false),
            (HEADER_END - 1, 1, false),
            (HEADER_END, 1, true),
        ] {
            assert_eq!(
                with(at, byte).check().is_ok(),
                valid,
                "byte {at} is {byte:#x}"
            );
        }
        let short = Bytes::copy_of(&[0; 512]).expect("fits");
        assert!(
            XsaveState {
                xcr0: 3,
                area: short
            }
            .check()
            .is_err()
        );
    }
}
