//! CPUID by policy: what a guest is told, computed once when a domain is made.
//!
//! A guest is told of what the host's CPU has *and* the policy allows: a list of feature masks (`masks`), so
//! that a feature nobody has thought about is hidden, not passed on. Virtualization itself, power
//! management, performance monitoring, MPX, SGX and processor trace are hidden. Three things are
//! always there because Godwit makes them: x2APIC, the TSC-deadline timer, the hypervisor leaves.

mod immunity;
mod masks;
mod paravirtual;
mod record;

use alloc::vec::Vec;

use godwit_records::{Invalid, XSAVE_AREA_BYTES_MAX, XsaveState};

use immunity::ARCH_CAPABILITIES;
pub use immunity::{IA32_ARCH_CAPABILITIES, immunities};
use masks::Masks;
pub use masks::PolicyName;
pub use paravirtual::{
    HYPERVISOR_FIRST, HYPERVISOR_LAST, KVM_FIRST, KVM_SIGNATURE, SIGNATURE, is_tcg,
};
pub use record::BadPolicy;

/// The four output registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leaf {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// Basic leaves offered at most.
pub const BASIC_MAX: u32 = 0x16;
/// Extended leaves offered at most.
pub const EXTENDED_MAX: u32 = 0x8000_0008;
/// Subleaves kept of a leaf that has them.
const SUBLEAVES_MAX: u32 = 64;

/// Bytes of an XSAVE area before the first extended component.
const LEGACY_AND_HEADER: u32 = 576;

/// An entry of a leaf with subleaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sub {
    leaf: u32,
    subleaf: u32,
    value: Leaf,
}

/// What the CPUs of a domain answer. One per domain; what differs by vCPU is in [`Viewer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    basic: Vec<Leaf>,
    extended: Vec<Leaf>,
    subs: Vec<Sub>,
    abi_version: u32,
    xcr0_allowed: u64,
    arch_capabilities: u64,
    name: PolicyName,
}

/// What a leaf depends on besides the policy.
#[derive(Clone, Copy, Debug)]
pub struct Viewer {
    /// APIC id of the vCPU.
    pub apic_id: u32,
    /// Its CR4.
    pub cr4: u64,
    /// Its XCR0.
    pub xcr0: u64,
}

impl Policy {
    /// Everything of the host that its guests can use: [`Policy::named`] with [`PolicyName::Host`].
    pub fn new(vcpus: u32, abi_version: u32, host: impl Fn(u32, u32) -> Leaf) -> Self {
        Policy::named(PolicyName::Host, vcpus, abi_version, host)
    }

    /// From the host's own answers (`host(leaf, subleaf)`) and the interface version to announce.
    pub fn named(
        name: PolicyName,
        vcpus: u32,
        abi_version: u32,
        host: impl Fn(u32, u32) -> Leaf,
    ) -> Self {
        let mut masks = *name.masks();
        if paravirtual::is_tcg(host(1, 0), host(HYPERVISOR_FIRST, 0)) {
            // QEMU's emulator (7.2) checks the stack reads of IRET at CPL 3 with supervisor rights, so that SMAP
            // gives a page fault that no CPU would: guests die of it.
            masks.leaf7_ebx &= !masks::SMAP;
        }
        let basic_max = host(0, 0).eax.min(BASIC_MAX);
        let extended_max = host(0x8000_0000, 0).eax.clamp(0x8000_0000, EXTENDED_MAX);
        let host_xcr0 = {
            let leaf = host(0xd, 0);
            u64::from(leaf.edx) << 32 | u64::from(leaf.eax)
        };
        let has_xsave = host(1, 0).ecx & 1 << 26 != 0 && basic_max >= 0xd;
        let xcr0_allowed = if has_xsave { host_xcr0 & masks.xcr0 } else { 0 };
        let mut policy = Policy {
            basic: (0..=basic_max)
                .map(|leaf| basic(leaf, vcpus, basic_max, &masks, &host))
                .collect(),
            extended: (0x8000_0000..=extended_max)
                .map(|leaf| extended(leaf, extended_max, &masks, &host))
                .collect(),
            subs: Vec::new(),
            abi_version,
            xcr0_allowed,
            arch_capabilities: 0,
            name,
        };
        policy.add_caches(basic_max, &host);
        policy.add_topology(basic_max, vcpus);
        policy.add_extended_state(&masks, &host);
        assert!(
            policy.xsave_bytes(policy.xsave_components()) as usize <= XSAVE_AREA_BYTES_MAX,
            "an XSAVE area beyond a page"
        );
        policy
    }

    /// With what guests may know of the CPU's immunities ([`immunities`]). The portable policy promises none: a host that lacks
    /// one would have to refuse its domains.
    #[must_use]
    pub fn with_immunities(mut self, immunities: Option<u64>) -> Self {
        if let (PolicyName::Host, Some(told), Some(seven)) =
            (self.name, immunities, self.basic.get_mut(7))
        {
            seven.edx |= ARCH_CAPABILITIES;
            self.arch_capabilities = told;
        }
        self
    }

    /// IA32_ARCH_CAPABILITIES as guests read it. `None`: they do not have it.
    pub fn arch_capabilities(&self) -> Option<u64> {
        let seven = self.basic.get(7)?;
        (seven.edx & ARCH_CAPABILITIES != 0).then_some(self.arch_capabilities)
    }

    /// Whether guests have IA32_TSC_AUX: where they have RDTSCP.
    pub fn has_tsc_aux(&self) -> bool {
        self.extended
            .get(1)
            .is_some_and(|leaf| leaf.edx & masks::RDTSCP != 0)
    }

    /// Which features it was made for.
    pub fn name(&self) -> PolicyName {
        self.name
    }

    /// Whether string instructions are fast here (leaf 7 EBX: ERMS). Where not, guests had better
    /// copy by other instructions, and IA32_MISC_ENABLE tells them so.
    pub fn has_fast_strings(&self) -> bool {
        self.basic
            .get(7)
            .is_some_and(|leaf| leaf.ebx & masks::ERMS != 0)
    }

    /// Bits a guest may set in XCR0; 0 when it has no XSAVE.
    pub fn xcr0_allowed(&self) -> u64 {
        self.xcr0_allowed
    }

    /// Whether a guest may use this XCR0 (SDM 1, 13.3): x87 always, AVX needs SSE, AVX-512 is all
    /// three components or none and needs AVX.
    pub fn xcr0_valid(&self, value: u64) -> bool {
        const AVX512: u64 = 0b1110_0000;
        let avx512 = value & AVX512;
        value & 1 != 0
            && value & !self.xcr0_allowed == 0
            && (value & 4 == 0 || value & 2 != 0)
            && (avx512 == 0 || (avx512 == AVX512 && value & 4 != 0))
    }

    /// Components of the extended state: those of XCR0, or x87 and SSE where there is no XSAVE.
    pub fn xsave_components(&self) -> u64 {
        const LEGACY: u64 = 0b11;
        self.xcr0_allowed | LEGACY
    }

    /// Whether a vCPU with this policy can be in this state.
    pub fn xsave_fits(&self, state: &XsaveState) -> Result<(), Invalid> {
        state.check()?;
        let refuse = |why| Err(Invalid { field: "area", why });
        if state.xcr0 & !self.xsave_components() != 0 {
            return refuse("it holds components that the guest's CPU lacks");
        }
        let bytes = state.area.as_slice().len();
        if bytes != 0 && bytes != self.xsave_bytes(state.xcr0) as usize {
            return refuse("its components lie elsewhere than on this CPU");
        }
        Ok(())
    }

    /// What CPUID answers. A leaf beyond the last one answers as AMD's CPUs do: zeroes.
    #[inline]
    pub fn answer(&self, leaf: u32, subleaf: u32, viewer: &Viewer) -> Leaf {
        if leaf < 0x4000_0000 {
            match self.basic.get(leaf as usize) {
                None => Leaf::default(),
                Some(value) => match leaf {
                    1 => {
                        let osxsave = if viewer.cr4 & masks::CR4_OSXSAVE != 0 {
                            masks::LEAF1_ECX_OSXSAVE
                        } else {
                            0
                        };
                        Leaf {
                            ebx: value.ebx | viewer.apic_id << 24,
                            ecx: value.ecx | osxsave & value.ecx << 1,
                            ..*value
                        }
                    }
                    4 | 7 | 0xb | 0xd => self.with_subleaf(leaf, subleaf, value, viewer),
                    _ => *value,
                },
            }
        } else if leaf >= 0x8000_0000 {
            self.extended
                .get((leaf - 0x8000_0000) as usize)
                .copied()
                .unwrap_or_default()
        } else {
            paravirtual::answer(leaf, self.abi_version)
        }
    }

    fn with_subleaf(&self, leaf: u32, subleaf: u32, first: &Leaf, viewer: &Viewer) -> Leaf {
        let mut value = if subleaf == 0 {
            *first
        } else {
            self.sub(leaf, subleaf)
        };
        match (leaf, subleaf) {
            (7, 0) if viewer.cr4 & masks::CR4_PKE != 0 => {
                value.ecx |= value.ecx << 1 & masks::LEAF7_ECX_OSPKE
            }
            (0xb, _) => {
                value.ecx |= subleaf & 0xff;
                value.edx = viewer.apic_id;
            }
            (0xd, 0) if value.eax != 0 => value.ebx = self.xsave_bytes(viewer.xcr0),
            (0xd, 1) if value.eax & masks::XSAVEC != 0 => {
                value.ebx = self.xsavec_bytes(viewer.xcr0)
            }
            _ => {}
        }
        value
    }

    fn sub(&self, leaf: u32, subleaf: u32) -> Leaf {
        self.subs
            .iter()
            .find(|sub| sub.leaf == leaf && sub.subleaf == subleaf)
            .map(|sub| sub.value)
            .unwrap_or_default()
    }

    /// Bytes of an XSAVE area in standard form for these components: legacy area and header, then
    /// up to the end of the last one.
    pub fn xsave_bytes(&self, xcr0: u64) -> u32 {
        self.subs
            .iter()
            .filter(|sub| sub.leaf == 0xd && sub.subleaf >= 2 && xcr0 & 1 << sub.subleaf != 0)
            .map(|sub| sub.value.ebx + sub.value.eax)
            .fold(LEGACY_AND_HEADER, u32::max)
    }

    fn add_caches(&mut self, basic_max: u32, host: &impl Fn(u32, u32) -> Leaf) {
        if basic_max < 4 {
            return;
        }
        // Sharing fields (EAX 31:14) are cleared: every vCPU is a package of its own.
        let private = |leaf: Leaf| Leaf {
            eax: leaf.eax & 0x3fff,
            ..leaf
        };
        self.basic[4] = private(host(4, 0));
        for subleaf in 1..SUBLEAVES_MAX {
            let value = host(4, subleaf);
            if value.eax & 31 == 0 {
                break;
            }
            self.subs.push(Sub {
                leaf: 4,
                subleaf,
                value: private(value),
            });
        }
    }

    /// Leaf 0Bh: one thread a core, one package for all cores.
    fn add_topology(&mut self, basic_max: u32, vcpus: u32) {
        const SMT: u32 = 1 << 8;
        const CORE: u32 = 2 << 8;
        if basic_max < 0xb {
            return;
        }
        self.basic[0xb] = Leaf {
            eax: 0,
            ebx: 1,
            ecx: SMT,
            edx: 0,
        };
        let shift = vcpus.next_power_of_two().trailing_zeros();
        self.subs.push(Sub {
            leaf: 0xb,
            subleaf: 1,
            value: Leaf {
                eax: shift,
                ebx: vcpus,
                ecx: CORE,
                edx: 0,
            },
        });
    }

    /// Size of the compacted area for the components of `xcr0` (SDM 1, 13.4.3): one after the other,
    /// those that ask for it at multiples of 64.
    fn xsavec_bytes(&self, xcr0: u64) -> u32 {
        const ALIGNED: u32 = 1 << 1;
        self.subs
            .iter()
            .filter(|sub| sub.leaf == 0xd && sub.subleaf >= 2 && xcr0 & 1 << sub.subleaf != 0)
            .fold(LEGACY_AND_HEADER, |end, sub| {
                let start = match sub.value.ecx & ALIGNED {
                    0 => end,
                    _ => end.next_multiple_of(64),
                };
                start + sub.value.eax
            })
    }

    fn add_extended_state(&mut self, masks: &Masks, host: &impl Fn(u32, u32) -> Leaf) {
        if self.xcr0_allowed == 0 {
            return;
        }
        let one = host(0xd, 1);
        self.subs.push(Sub {
            leaf: 0xd,
            subleaf: 1,
            value: Leaf {
                eax: one.eax & masks.xsave_eax,
                ..Leaf::default()
            },
        });
        for subleaf in 2..SUBLEAVES_MAX {
            if self.xcr0_allowed & 1 << subleaf != 0 {
                let value = host(0xd, subleaf);
                self.subs.push(Sub {
                    leaf: 0xd,
                    subleaf,
                    value,
                });
            }
        }
        let allowed = self.xcr0_allowed;
        let bytes = self.xsave_bytes(allowed);
        self.basic[0xd] = Leaf {
            eax: allowed as u32,
            ebx: bytes,
            ecx: bytes,
            edx: (allowed >> 32) as u32,
        };
    }
}

fn basic(
    leaf: u32,
    vcpus: u32,
    basic_max: u32,
    masks: &Masks,
    host: &impl Fn(u32, u32) -> Leaf,
) -> Leaf {
    let value = host(leaf, 0);
    match leaf {
        0 => Leaf {
            eax: basic_max,
            ..value
        },
        1 => Leaf {
            eax: value.eax,
            // CLFLUSH line size stays; APIC id is the viewer's.
            ebx: value.ebx & 0xff00 | (vcpus & 0xff) << 16,
            ecx: value.ecx & masks.leaf1_ecx | masks::LEAF1_ECX_ALWAYS,
            edx: value.edx & masks::LEAF1_EDX,
        },
        2 => value,
        // ARAT: the APIC timer never stops in a guest.
        6 => Leaf {
            eax: 1 << 2,
            ..Leaf::default()
        },
        7 => Leaf {
            eax: 0,
            ebx: value.ebx & masks.leaf7_ebx,
            ecx: value.ecx & masks.leaf7_ecx,
            edx: value.edx & masks.leaf7_edx,
        },
        // 4, 0Bh and 0Dh are filled in by their own functions; the rest is hidden: PSN, MONITOR, PMU,
        // PT, SGX, and the TSC and bus frequencies, which an emulated host states wrongly.
        _ => Leaf::default(),
    }
}

fn extended(leaf: u32, extended_max: u32, masks: &Masks, host: &impl Fn(u32, u32) -> Leaf) -> Leaf {
    let value = host(leaf, 0);
    match leaf {
        0x8000_0000 => Leaf {
            eax: extended_max,
            ..value
        },
        0x8000_0001 => Leaf {
            ecx: value.ecx & masks.extended1_ecx,
            edx: value.edx & masks.extended1_edx,
            ..value
        },
        0x8000_0002..=0x8000_0006 => value,
        0x8000_0007 => Leaf {
            edx: value.edx & masks.extended7_edx,
            ..Leaf::default()
        },
        // Address sizes: 4-level paging only.
        0x8000_0008 => Leaf {
            eax: value.eax & 0xff | 48 << 8,
            ..Leaf::default()
        },
        _ => Leaf::default(),
    }
}

#[cfg(test)]
mod tests;
