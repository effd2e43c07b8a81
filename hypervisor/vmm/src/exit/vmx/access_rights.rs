//! Segment attributes against VMCS access rights (SDM 3C table 25-2).
//!
//! The two agree in bits 7:0 and 15:12. VT-x says with bit 16, not with P, that a segment cannot be used, leaves most other
//! bits of such a segment undefined, and is stricter than other processors about the bits of one that can.

use godwit_records::Segment;

use crate::hardware::SegmentName;

/// Bit 16: the segment is unusable.
pub const UNUSABLE: u32 = 1 << 16;
const ACCESSED: u16 = 1;
const BUSY: u16 = 2;
const DPL: u16 = 3 << 5;
const RIGHTS: u16 = !Segment::RESERVED;

/// Access rights of a segment.
///
/// A usable code or data segment is accessed (entries insist; the processor set the flag when it loaded the segment, but
/// not every processor keeps it in the hidden part), and a task register is busy.
pub fn of_segment(name: SegmentName, segment: Segment) -> u32 {
    let rights = segment.attributes & RIGHTS;
    if !segment.usable() {
        return UNUSABLE | u32::from(rights);
    }
    u32::from(match name {
        SegmentName::Tr => rights | BUSY,
        SegmentName::Ldtr => rights,
        SegmentName::Es
        | SegmentName::Cs
        | SegmentName::Ss
        | SegmentName::Ds
        | SegmentName::Fs
        | SegmentName::Gs => rights | ACCESSED,
    })
}

/// The segment a VMCS describes. Of an unusable one only the DPL is kept: that of SS is the CPL (SDM 3C 28.3.2).
pub fn to_segment(selector: u16, base: u64, limit: u32, rights: u32) -> Segment {
    let attributes = if rights & UNUSABLE != 0 {
        rights as u16 & DPL
    } else {
        rights as u16 & RIGHTS
    };
    Segment::new(selector, base, limit, attributes)
}
