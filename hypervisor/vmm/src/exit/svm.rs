//! SVM exit codes to [`Exit`] (APM 2, appendix C).

use core::num::NonZeroU8;

use super::{ControlAccess, Exit, Length, NestedFault, PortAccess, Width};

/// What the VMCB says about an exit.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawExit {
    /// EXITCODE.
    pub code: u64,
    /// EXITINFO1.
    pub info1: u64,
    /// EXITINFO2.
    pub info2: u64,
    /// RIP at the exit.
    pub rip: u64,
    /// NRIP, 0 where it is not saved.
    pub next_rip: u64,
}

/// Detail of [`Exit::EntryFailed`]: the processor saved the host's registers as the guest's.
pub const HOST_REGISTERS: u64 = 1 << 63;

/// Exit codes.
#[allow(missing_docs)]
pub mod code {
    pub const EXCEPTION_FIRST: u64 = 0x40;
    pub const EXCEPTION_LAST: u64 = 0x5f;
    pub const CR4_WRITE: u64 = 0x14;
    pub const CR8_WRITE: u64 = 0x18;
    pub const INTR: u64 = 0x60;
    pub const NMI: u64 = 0x61;
    pub const SMI: u64 = 0x62;
    pub const INIT: u64 = 0x63;
    pub const VINTR: u64 = 0x64;
    pub const RDPMC: u64 = 0x6f;
    pub const CPUID: u64 = 0x72;
    pub const IRET: u64 = 0x74;
    pub const INVD: u64 = 0x76;
    pub const PAUSE: u64 = 0x77;
    pub const HLT: u64 = 0x78;
    pub const INVLPGA: u64 = 0x7a;
    pub const IOIO: u64 = 0x7b;
    pub const MSR: u64 = 0x7c;
    pub const TASK_SWITCH: u64 = 0x7d;
    pub const SHUTDOWN: u64 = 0x7f;
    pub const VMRUN: u64 = 0x80;
    pub const VMMCALL: u64 = 0x81;
    pub const VMLOAD: u64 = 0x82;
    pub const VMSAVE: u64 = 0x83;
    pub const STGI: u64 = 0x84;
    pub const CLGI: u64 = 0x85;
    pub const SKINIT: u64 = 0x86;
    pub const WBINVD: u64 = 0x89;
    pub const MONITOR: u64 = 0x8a;
    pub const MWAIT: u64 = 0x8b;
    pub const MWAIT_ARMED: u64 = 0x8c;
    pub const XSETBV: u64 = 0x8d;
    pub const NPF: u64 = 0x400;
    pub const INVALID: u64 = u64::MAX;
}

/// EXITINFO1 of IOIO (APM 2, 15.10.2).
mod ioio {
    pub(super) const IN: u64 = 1;
    pub(super) const STRING: u64 = 1 << 2;
    pub(super) const REPEAT: u64 = 1 << 3;
    pub(super) const BYTE: u64 = 1 << 4;
    pub(super) const WORD: u64 = 1 << 5;
}

/// EXITINFO1 of NPF: a page fault error code (APM 2, 15.25.6).
mod npf {
    pub(super) const PRESENT: u64 = 1;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const RESERVED: u64 = 1 << 3;
    pub(super) const FETCH: u64 = 1 << 4;
}

fn length(from: u64, to: u64) -> Length {
    let bytes = to.wrapping_sub(from);
    if to == 0 || bytes > 15 {
        None
    } else {
        NonZeroU8::new(bytes as u8)
    }
}

/// Decodes an exit.
#[inline]
pub fn decode(raw: &RawExit) -> Exit {
    let next = || length(raw.rip, raw.next_rip);
    match raw.code {
        code::CPUID => Exit::Cpuid(next()),
        code::VMMCALL => Exit::Hypercall(next()),
        code::IOIO => Exit::Port(port(raw)),
        code::MSR => match raw.info1 {
            0 => Exit::Rdmsr(next()),
            _ => Exit::Wrmsr(next()),
        },
        code::HLT => Exit::Hlt(next()),
        code::INTR => Exit::HostInterrupt,
        code::VINTR => Exit::InterruptWindow,
        code::NPF => nested(raw),
        code::NMI => Exit::HostNmi,
        code::IRET => Exit::NmiWindow,
        code::INVD | code::WBINVD => Exit::CacheFlush(next()),
        code::PAUSE => Exit::Pause(next()),
        code::XSETBV => Exit::Xsetbv(next()),
        // Decode assists set bit 63 and name the register in bits 3:0 (APM 2, 15.8.1).
        code::CR8_WRITE if raw.info1 >> 63 != 0 && next().is_some() => {
            Exit::Control(ControlAccess::WriteCr8(raw.info1 as u8 & 15), next())
        }
        code::CR4_WRITE if raw.info1 >> 63 != 0 && next().is_some() => {
            Exit::Control(ControlAccess::WriteCr4(raw.info1 as u8 & 15), next())
        }
        code::CR4_WRITE | code::CR8_WRITE => Exit::Control(ControlAccess::WriteUndecoded, None),
        code::RDPMC
        | code::INVLPGA
        | code::VMRUN
        | code::VMLOAD
        | code::VMSAVE
        | code::STGI
        | code::CLGI
        | code::SKINIT
        | code::MONITOR
        | code::MWAIT
        | code::MWAIT_ARMED => Exit::Forbidden,
        code::SHUTDOWN => Exit::TripleFault,
        code::INIT | code::SMI => Exit::Startup,
        code::TASK_SWITCH => Exit::TaskSwitch,
        code::EXCEPTION_FIRST..=code::EXCEPTION_LAST => exception(raw),
        code::INVALID => Exit::EntryFailed {
            code: raw.code,
            detail: raw.info1,
        },
        other => Exit::Unknown {
            code: other,
            detail: raw.info1,
        },
    }
}

fn exception(raw: &RawExit) -> Exit {
    let vector = (raw.code - code::EXCEPTION_FIRST) as u8;
    let has_error = matches!(vector, 8 | 10..=14 | 17 | 21);
    Exit::Exception(vector, has_error.then_some(raw.info1 as u32))
}

fn port(raw: &RawExit) -> PortAccess {
    let width = if raw.info1 & ioio::BYTE != 0 {
        Width::Byte
    } else if raw.info1 & ioio::WORD != 0 {
        Width::Word
    } else {
        Width::Dword
    };
    PortAccess {
        port: (raw.info1 >> 16) as u16,
        width,
        input: raw.info1 & ioio::IN != 0,
        string: raw.info1 & ioio::STRING != 0,
        repeat: raw.info1 & ioio::REPEAT != 0,
        // EXITINFO2 is the RIP of the next instruction, whatever else the CPU lacks.
        length: length(raw.rip, raw.info2),
    }
}

fn nested(raw: &RawExit) -> Exit {
    if raw.info1 & npf::RESERVED != 0 {
        return Exit::NestedMisconfigured { gpa: raw.info2 };
    }
    let write = raw.info1 & npf::WRITE != 0;
    let fetch = raw.info1 & npf::FETCH != 0;
    Exit::Nested(NestedFault {
        gpa: raw.info2,
        read: !write && !fetch,
        write,
        fetch,
        mapped: raw.info1 & npf::PRESENT != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_gives_its_own_length() {
        let raw = RawExit {
            code: code::IOIO,
            info1: 0x03f8 << 16 | 1 | 1 << 4,
            info2: 0x1002,
            rip: 0x1000,
            next_rip: 0,
        };
        let expected = PortAccess {
            port: 0x3f8,
            width: Width::Byte,
            input: true,
            string: false,
            repeat: false,
            length: NonZeroU8::new(2),
        };
        assert_eq!(decode(&raw), Exit::Port(expected));
    }

    #[test]
    fn without_next_rip_the_length_is_unknown() {
        let raw = RawExit {
            code: code::CPUID,
            rip: 0x1000,
            ..RawExit::default()
        };
        assert_eq!(decode(&raw), Exit::Cpuid(None));
        assert_eq!(
            decode(&RawExit {
                next_rip: 0x1002,
                ..raw
            }),
            Exit::Cpuid(NonZeroU8::new(2))
        );
    }

    #[test]
    fn nested_faults_say_what_was_tried() {
        let raw = RawExit {
            code: code::NPF,
            info1: 0x1_0000_0002 | 4,
            info2: 0xdead_b000,
            ..RawExit::default()
        };
        let Exit::Nested(fault) = decode(&raw) else {
            panic!("not a nested fault")
        };
        assert!(fault.write && !fault.read && !fault.fetch && !fault.mapped);
        assert_eq!(fault.gpa, 0xdead_b000);
        let broken = RawExit {
            info1: 1 << 3 | 1,
            ..raw
        };
        assert_eq!(
            decode(&broken),
            Exit::NestedMisconfigured { gpa: 0xdead_b000 }
        );
    }

    #[test]
    fn unknown_codes_keep_their_number() {
        let raw = RawExit {
            code: 0x123,
            info1: 7,
            ..RawExit::default()
        };
        assert_eq!(
            decode(&raw),
            Exit::Unknown {
                code: 0x123,
                detail: 7
            }
        );
        assert_eq!(
            decode(&RawExit {
                code: 0x4d,
                info1: 0x10,
                ..raw
            }),
            Exit::Exception(13, Some(0x10))
        );
        assert_eq!(
            decode(&RawExit { code: 0x46, ..raw }),
            Exit::Exception(6, None)
        );
    }
}
