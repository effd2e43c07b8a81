//! What a domain's CPUs answer to CPUID. A guest looks once, at its boot, and relies on it for ever: so
//! the answers travel with the domain, and a host that lacks a feature among them refuses it.

use crate::check::{Invalid, rule};
use crate::field::Bytes;
use crate::kind::Kind;
use crate::record;
use core::fmt;

/// Most answers in a record.
pub const CPUID_ENTRIES_MAX: usize = 128;
/// Bytes of an answer.
const ENTRY_BYTES: usize = 24;
const ENTRIES_BYTES_MAX: usize = CPUID_ENTRIES_MAX * ENTRY_BYTES;

record! {
    /// What a domain's CPUs answer to CPUID, besides what depends on the vCPU.
    pub struct CpuPolicyState = Kind::CPU_POLICY;
    version 1 {
        /// Leaf, subleaf, EAX, EBX, ECX, EDX, each 32 bits, ordered by leaf and subleaf.
        entries: Bytes<ENTRIES_BYTES_MAX> = Bytes::empty();
    }
    version 2 {
        /// IA32_ARCH_CAPABILITIES: which side channels the CPU is immune to. Guests of version 1 were told nothing.
        arch_capabilities: u64 = 0, before 0;
    }
}

/// Bits of IA32_ARCH_CAPABILITIES that promise a guest that it need not do something, with their names.
const IMMUNITY_NAMES: [(u32, &str); 13] = [
    (0, "rdcl_no"),
    (4, "ssb_no"),
    (5, "mds_no"),
    (6, "pschange_mc_no"),
    (13, "sbdr_ssdp_no"),
    (14, "fbsdp_no"),
    (15, "psdp_no"),
    (17, "fb_clear"),
    (20, "bhi_no"),
    (26, "gds_no"),
    (27, "rfds_no"),
    (28, "rfds_clear"),
    (62, "its_no"),
];

/// The same as a mask. What is not in it is no promise, or one about something that guests do not have.
pub const IMMUNITIES: u64 = {
    let (mut mask, mut index) = (0, 0);
    while index < IMMUNITY_NAMES.len() {
        mask |= 1 << IMMUNITY_NAMES[index].0;
        index += 1;
    }
    mask
};

/// Bits that warn a guest (RSBA, RRSBA), and promise nothing.
pub const WARNINGS: u64 = 1 << 2 | 1 << 19;

/// One answer of CPUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuidEntry {
    /// EAX of the question.
    pub leaf: u32,
    /// ECX of the question; 0 where there are no subleaves.
    pub subleaf: u32,
    /// EAX, EBX, ECX, EDX.
    pub registers: [u32; 4],
}

impl CpuidEntry {
    fn from_bytes(bytes: &[u8]) -> Self {
        let word = |at: usize| {
            bytes[at * 4..at * 4 + 4]
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u32::from(*byte))
        };
        Self {
            leaf: word(0),
            subleaf: word(1),
            registers: core::array::from_fn(|register| word(2 + register)),
        }
    }

    fn put(&self, out: &mut [u8]) {
        let [eax, ebx, ecx, edx] = self.registers;
        let words = [self.leaf, self.subleaf, eax, ebx, ecx, edx];
        for (bytes, word) in out.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }
}

const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// A register of CPUID each of whose bits says that a feature is there.
struct Features {
    leaf: u32,
    subleaf: u32,
    register: usize,
    /// Bits that are no promise: they mirror others or say that something need not be done.
    ignored: u32,
    /// Names of bits, in Linux' words, for whom is told that they are missing.
    names: &'static [(u32, &'static str)],
}

/// The bits of leaf 1 EDX that AMD's CPUs repeat in leaf 8000_0001 EDX, and Intel's do not.
const REPEATED: u32 = 0x0183_f3ff;

const FEATURES: &[Features] = &[
    Features {
        leaf: 1,
        subleaf: 0,
        register: ECX,
        ignored: 0,
        names: &[
            (0, "sse3"),
            (1, "pclmulqdq"),
            (9, "ssse3"),
            (12, "fma"),
            (13, "cx16"),
            (17, "pcid"),
            (19, "sse4_1"),
            (20, "sse4_2"),
            (22, "movbe"),
            (23, "popcnt"),
            (25, "aes"),
            (26, "xsave"),
            (28, "avx"),
            (29, "f16c"),
            (30, "rdrand"),
        ],
    },
    Features {
        leaf: 1,
        subleaf: 0,
        register: EDX,
        ignored: 0,
        names: &[(23, "mmx"), (24, "fxsr"), (25, "sse"), (26, "sse2")],
    },
    Features {
        leaf: 7,
        subleaf: 0,
        register: EBX,
        ignored: 0,
        names: &[
            (0, "fsgsbase"),
            (3, "bmi1"),
            (5, "avx2"),
            (7, "smep"),
            (8, "bmi2"),
            (9, "erms"),
            (10, "invpcid"),
            (16, "avx512f"),
            (17, "avx512dq"),
            (18, "rdseed"),
            (19, "adx"),
            (20, "smap"),
            (21, "avx512ifma"),
            (23, "clflushopt"),
            (24, "clwb"),
            (28, "avx512cd"),
            (29, "sha_ni"),
            (30, "avx512bw"),
            (31, "avx512vl"),
        ],
    },
    Features {
        leaf: 7,
        subleaf: 0,
        register: ECX,
        ignored: 0,
        names: &[
            (1, "avx512vbmi"),
            (2, "umip"),
            (3, "pku"),
            (6, "avx512_vbmi2"),
            (8, "gfni"),
            (9, "vaes"),
            (10, "vpclmulqdq"),
            (11, "avx512_vnni"),
            (12, "avx512_bitalg"),
            (14, "avx512_vpopcntdq"),
            (22, "rdpid"),
        ],
    },
    Features {
        leaf: 7,
        subleaf: 0,
        register: EDX,
        // MD_CLEAR: CPUs that need no such flush do not say so, and the instruction is on all. The register of immunities is
        // everywhere for guests that were told of it; its bits are compared.
        ignored: 1 << 10 | 1 << 29,
        names: &[(4, "fsrm")],
    },
    Features {
        leaf: 0xd,
        subleaf: 1,
        register: EAX,
        ignored: 0,
        names: &[(0, "xsaveopt"), (1, "xsavec"), (2, "xgetbv1")],
    },
    Features {
        leaf: 0x8000_0001,
        subleaf: 0,
        register: ECX,
        ignored: 0,
        names: &[
            (0, "lahf_lm"),
            (4, "cr8_legacy"),
            (5, "abm"),
            (6, "sse4a"),
            (7, "misalignsse"),
            (8, "3dnowprefetch"),
        ],
    },
    Features {
        leaf: 0x8000_0001,
        subleaf: 0,
        register: EDX,
        ignored: REPEATED,
        names: &[
            (11, "syscall"),
            (20, "nx"),
            (22, "mmxext"),
            (26, "pdpe1gb"),
            (27, "rdtscp"),
            (29, "lm"),
        ],
    },
    Features {
        leaf: 0x8000_0007,
        subleaf: 0,
        register: EDX,
        ignored: 0,
        names: &[(8, "constant_tsc")],
    },
];

/// What a host lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    /// A feature: its leaf, register (0 for EAX) and bit, and its name where it has one.
    Feature {
        /// Leaf of CPUID.
        leaf: u32,
        /// 0 for EAX to 3 for EDX.
        register: usize,
        /// Bit of the register.
        bit: u32,
        /// Its name, empty when it has none here.
        name: &'static str,
    },
    /// A component of the extended state, by its number in XCR0; or it lies elsewhere in the XSAVE area.
    Component(u32),
    /// An immunity, by its name: the guest would go on without the mitigation that it needs here.
    Immunity(&'static str),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Lack::Feature {
                leaf,
                register,
                bit,
                name: "",
            } => {
                let register = ["EAX", "EBX", "ECX", "EDX"].get(register).unwrap_or(&"?");
                write!(f, "CPUID {leaf:#x} {register} bit {bit}")
            }
            Lack::Feature { name, .. } => f.write_str(name),
            Lack::Component(2) => f.write_str("AVX state"),
            Lack::Component(5..=7) => f.write_str("AVX-512 state"),
            Lack::Component(9) => f.write_str("protection key state"),
            Lack::Immunity(name) => f.write_str(name),
            Lack::Component(other) => write!(f, "extended state {other}"),
        }
    }
}

impl CpuPolicyState {
    /// From answers in the order of their leaves, without immunities. `None`: more than [`CPUID_ENTRIES_MAX`].
    pub fn new(entries: impl Iterator<Item = CpuidEntry>) -> Option<Self> {
        let mut bytes = [0; ENTRIES_BYTES_MAX];
        let mut length = 0;
        for entry in entries {
            entry.put(bytes.get_mut(length..length + ENTRY_BYTES)?);
            length += ENTRY_BYTES;
        }
        let entries = Bytes::copy_of(&bytes[..length])?;
        Some(Self {
            entries,
            arch_capabilities: 0,
        })
    }

    /// The answers.
    pub fn answers(&self) -> impl Iterator<Item = CpuidEntry> {
        let whole = self.entries.as_slice().chunks_exact(ENTRY_BYTES);
        whole.map(CpuidEntry::from_bytes)
    }

    /// The four registers of an answer, zeroes where there is none.
    pub fn answer(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        self.answers()
            .find(|entry| (entry.leaf, entry.subleaf) == (leaf, subleaf))
            .map_or([0; 4], |entry| entry.registers)
    }

    /// Whole answers, each once, in order, leaf 0 first; of the immunities only those known here.
    pub fn check(&self) -> Result<(), Invalid> {
        let known = self.arch_capabilities & !(IMMUNITIES | WARNINGS) == 0;
        rule(known, "arch_capabilities", "it has bits that no policy has")?;
        let whole = self.entries.as_slice().len().is_multiple_of(ENTRY_BYTES);
        rule(whole, "entries", "its last answer is cut off")?;
        let first = self.answers().next();
        let begins = first.is_some_and(|entry| (entry.leaf, entry.subleaf) == (0, 0));
        rule(begins, "entries", "it does not begin with leaf 0")?;
        let place = |entry: CpuidEntry| (entry.leaf, entry.subleaf);
        let ordered = self.answers().map(place).is_sorted_by(|a, b| a < b);
        rule(ordered, "entries", "its leaves are out of order")
    }

    /// The components of the extended state that a guest may switch on.
    pub fn xcr0(&self) -> u64 {
        let [eax, _, _, edx] = self.answer(0xd, 0);
        u64::from(edx) << 32 | u64::from(eax)
    }

    /// Calls `lacking` with everything that was promised here and `host` does not have.
    pub fn compare(&self, host: &Self, mut lacking: impl FnMut(Lack)) {
        for feature in FEATURES {
            let promised = self.answer(feature.leaf, feature.subleaf)[feature.register];
            let there = host.answer(feature.leaf, feature.subleaf)[feature.register];
            let missing = promised & !there & !feature.ignored;
            for bit in (0..u32::BITS).filter(|bit| missing & 1 << bit != 0) {
                let name = feature.names.iter().find(|(named, _)| *named == bit);
                lacking(Lack::Feature {
                    leaf: feature.leaf,
                    register: feature.register,
                    bit,
                    name: name.map_or("", |(_, name)| name),
                });
            }
        }
        let (promised, there) = (self.xcr0(), host.xcr0());
        for component in (0..u64::BITS).filter(|bit| promised & 1 << bit != 0) {
            // Size and place of the first two are the same everywhere; the others' are in the guest's own areas.
            let same = component < 2 || self.answer(0xd, component) == host.answer(0xd, component);
            if there & 1 << component == 0 || !same {
                lacking(Lack::Component(component));
            }
        }
        let missing = self.arch_capabilities & !host.arch_capabilities;
        for (bit, name) in IMMUNITY_NAMES {
            if missing & 1 << bit != 0 {
                lacking(Lack::Immunity(name));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn policy(entries: &[(u32, u32, [u32; 4])]) -> CpuPolicyState {
        let entries = entries
            .iter()
            .map(|&(leaf, subleaf, registers)| CpuidEntry {
                leaf,
                subleaf,
                registers,
            });
        CpuPolicyState::new(entries).expect("fits")
    }

    fn lacks(guest: &CpuPolicyState, host: &CpuPolicyState) -> Vec<String> {
        let mut all = Vec::new();
        guest.compare(host, |lack| all.push(lack.to_string()));
        all
    }

    #[test]
    fn what_was_promised_and_is_not_there_is_named() {
        let guest = policy(&[
            (0, 0, [0xd, 1, 2, 3]),
            (1, 0, [0, 0, 1 << 28 | 1 << 2, 0]),
            (7, 0, [0, 1 << 20, 0, 1 << 10]),
            (0xd, 0, [7, 0, 0, 0]),
            (0xd, 2, [256, 576, 0, 0]),
            (0x8000_0001, 0, [0, 0, 0, 1 << 24 | 1 << 20]),
        ]);
        assert_eq!(lacks(&guest, &guest), [""; 0]);
        let host = policy(&[(0, 0, [0xd, 9, 9, 9]), (0xd, 0, [3, 0, 0, 0])]);
        let named = ["CPUID 0x1 ECX bit 2", "avx", "smap", "nx", "AVX state"];
        assert_eq!(lacks(&guest, &host), named);
        assert_eq!(lacks(&host, &guest), [""; 0]);
    }

    #[test]
    fn a_component_that_lies_elsewhere_is_missing() {
        let with = |offset| {
            policy(&[
                (0, 0, [0; 4]),
                (0xd, 0, [7, 0, 0, 0]),
                (0xd, 2, [256, offset, 0, 0]),
            ])
        };
        assert_eq!(lacks(&with(576), &with(576)), [""; 0]);
        assert_eq!(lacks(&with(576), &with(640)), ["AVX state"]);
    }

    #[test]
    fn an_immunity_that_the_host_does_not_have_is_named() {
        let with = |arch_capabilities| CpuPolicyState {
            arch_capabilities,
            ..policy(&[(0, 0, [0; 4])])
        };
        let told = with(1 << 62 | 1 << 5);
        assert_eq!(lacks(&told, &with(1 << 62)), ["mds_no"]);
        assert_eq!(lacks(&told, &with(0)), ["mds_no", "its_no"]);
        assert_eq!(lacks(&with(0), &told), [""; 0]);
        let warned = with(1 << 19);
        assert_eq!(lacks(&warned, &with(0)), [""; 0], "a warning is no promise");
    }

    #[test]
    fn only_whole_answers_in_order_are_taken() {
        assert_eq!(policy(&[(0, 0, [0; 4]), (1, 0, [0; 4])]).check(), Ok(()));
        for bad in [
            policy(&[]),
            policy(&[(1, 0, [0; 4])]),
            policy(&[(0, 0, [0; 4]), (2, 0, [0; 4]), (1, 0, [0; 4])]),
            policy(&[(0, 0, [0; 4]), (0, 0, [0; 4])]),
            CpuPolicyState {
                entries: Bytes::copy_of(&[0; 25]).expect("fits"),
                arch_capabilities: 0,
            },
            CpuPolicyState {
                arch_capabilities: 1 << 1,
                ..policy(&[(0, 0, [0; 4])])
            },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        let many = (0..CPUID_ENTRIES_MAX as u32 + 1).map(|leaf| CpuidEntry {
            leaf,
            ..CpuidEntry::default()
        });
        assert_eq!(CpuPolicyState::new(many), None);
    }
}
