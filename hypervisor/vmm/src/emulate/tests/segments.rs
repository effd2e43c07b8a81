//! Limits, types and widths of addresses outside what the oracle's flat segments show.

use godwit_records::Segment;

use super::vcpu;
use crate::emulate::{Access, Fault, Kind, MemoryOperation, Mode, decode};
use crate::hardware::{Control, Event, Gpr, SegmentName, VcpuHardware};

const PRESENT: u16 = Segment::PRESENT | Segment::CODE_OR_DATA;
/// `mov eax, [ebx]`, `mov [ebx], eax`, `xor [ebx], eax`.
const LOAD: &[u8] = &[0x8b, 0x03];
const STORE: &[u8] = &[0x89, 0x03];
const CHANGE: &[u8] = &[0x31, 0x03];

fn planned(
    code: &[u8],
    segment: Segment,
    offset: u64,
    protected: bool,
) -> Result<MemoryOperation, Fault> {
    let mut vcpu = vcpu(Mode::Code32);
    vcpu.set_control(Control::Cr0, if protected { 1 } else { 0 });
    vcpu.set_segment(SegmentName::Ds, segment);
    vcpu.gprs_mut()[Gpr::Rbx as usize] = offset;
    decode(code, Mode::Code32).expect("decodes").plan(&vcpu)
}

#[test]
fn limits() {
    let up = Segment::new(8, 0x1000, 0xfff, PRESENT | Segment::BIG | 3);
    let down = Segment::new(8, 0x1000, 0xfff, PRESENT | Segment::BIG | 7);
    let small_down = Segment::new(8, 0x1000, 0xfff, PRESENT | 7);
    for (segment, offset, fits) in [
        (up, 0, true),
        (up, 0xffc, true),
        (up, 0xffd, false),
        (up, 0xffff_fffc, false),
        (down, 0xffc, false),
        (down, 0xfff, false),
        (down, 0x1000, true),
        (down, 0xffff_fffc, true),
        (down, 0xffff_fffd, false),
        (small_down, 0xfffc, true),
        (small_down, 0xfffd, false),
        (small_down, 0x1_0000, false),
    ] {
        for protected in [false, true] {
            let plan = planned(LOAD, segment, offset, protected);
            assert_eq!(plan.is_ok(), fits, "{segment:?} {offset:#x}");
            if let Ok(plan) = plan {
                assert_eq!(
                    plan.reads[0].expect("a read").linear,
                    (0x1000 + offset) & 0xffff_ffff
                );
            }
        }
    }
}

#[test]
fn types() {
    let of = |kind: u16| Segment::new(8, 0, 0xffff_ffff, PRESENT | kind);
    // Data: read-only, writable. Code: execute-only, readable.
    for (segment, reads, writes) in [
        (of(1), true, false),
        (of(3), true, true),
        (of(9), false, false),
        (of(11), true, false),
        (Segment::new(0, 0, 0xffff_ffff, 3), false, false),
    ] {
        for (code, allowed) in [(LOAD, reads), (STORE, writes), (CHANGE, writes)] {
            let expected = if allowed {
                None
            } else {
                Some(Fault::GeneralProtection)
            };
            assert_eq!(
                planned(code, segment, 0, true).err(),
                expected,
                "{segment:?} {code:02x?}"
            );
            // Real mode knows no types.
            assert!(planned(code, segment, 0, false).is_ok());
        }
    }
}

#[test]
fn virtual_8086_mode_knows_no_types() {
    let mut vcpu = vcpu(Mode::Code16);
    vcpu.set_control(Control::Cr0, 1);
    vcpu.set_segment(SegmentName::Ds, Segment::new(8, 0x80, 0xffff, PRESENT | 1));
    // mov [1234h], al
    let store = decode(&[0xa2, 0x34, 0x12], Mode::Code16).expect("decodes");
    assert_eq!(store.plan(&vcpu), Err(Fault::GeneralProtection));
    vcpu.set_rflags(2 | 1 << 17);
    assert_eq!(
        store
            .plan(&vcpu)
            .expect("no fault")
            .write
            .expect("a write")
            .linear,
        0x12b4
    );
}

#[test]
fn stack_faults_are_stack_faults() {
    let mut vcpu = vcpu(Mode::Code64);
    vcpu.set_rsp(0x7fff_ffff_fffd);
    // mov eax, [rsp]; mov eax, fs:[rsp]
    let plain = decode(&[0x8b, 0x04, 0x24], Mode::Code64).expect("decodes");
    assert_eq!(plain.plan(&vcpu), Err(Fault::Stack));
    assert_eq!(Fault::Stack.event(), Event::Exception(12, Some(0)));
    let with_fs = decode(&[0x64, 0x8b, 0x04, 0x24], Mode::Code64).expect("decodes");
    assert_eq!(with_fs.plan(&vcpu), Err(Fault::GeneralProtection));
    assert_eq!(Fault::GeneralProtection.event(), Event::GENERAL_PROTECTION);
    vcpu.set_rsp(0x7fff_ffff_fffc);
    assert!(plain.plan(&vcpu).is_ok());
}

#[test]
fn five_levels_of_paging_widen_canonical_addresses() {
    let mut vcpu = vcpu(Mode::Code64);
    vcpu.gprs_mut()[Gpr::Rbx as usize] = 1 << 55;
    let load = decode(LOAD, Mode::Code64).expect("decodes");
    assert_eq!(load.plan(&vcpu), Err(Fault::GeneralProtection));
    vcpu.set_control(Control::Cr4, 1 << 12);
    assert!(load.plan(&vcpu).is_ok());
    vcpu.gprs_mut()[Gpr::Rbx as usize] = 1 << 56;
    assert_eq!(load.plan(&vcpu), Err(Fault::GeneralProtection));
}

#[test]
fn accesses_split_at_pages() {
    let access = |linear, bytes, wide| Access {
        linear,
        bytes,
        kind: Kind::Read,
        wide,
    };
    assert_eq!(access(0x1ffc, 4, true).parts(), (0x1ffc, 4, None));
    assert_eq!(
        access(0x1ffd, 4, true).parts(),
        (0x1ffd, 3, Some((0x2000, 1)))
    );
    assert_eq!(
        access(0xffff_ffff, 8, false).parts(),
        (0xffff_ffff, 1, Some((0, 7)))
    );
    assert_eq!(
        access(0xffff_ffff, 8, true).parts(),
        (0xffff_ffff, 1, Some((1 << 32, 7)))
    );
    assert_eq!(access(0x1fff, 1, true).parts(), (0x1fff, 1, None));
}
