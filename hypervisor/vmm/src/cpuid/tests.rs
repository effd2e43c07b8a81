//! The policy over a host that has everything.

use super::*;
use crate::fake::everything;

const VIEWER: Viewer = Viewer {
    apic_id: 3,
    cr4: 0,
    xcr0: 1,
};

#[test]
fn virtualization_and_monitoring_are_hidden() {
    let policy = Policy::new(4, 1, everything);
    let one = policy.answer(1, 0, &VIEWER);
    assert_eq!(
        one.ecx & (1 << 5 | 1 << 6 | 1 << 3 | 1 << 15),
        0,
        "VMX, SMX, MONITOR, PDCM"
    );
    assert_eq!(
        policy.answer(0x8000_0001, 0, &VIEWER).ecx & 1 << 2,
        0,
        "SVM"
    );
    assert_eq!(policy.answer(0xa, 0, &VIEWER), Leaf::default(), "PMU");
    assert_eq!(
        policy.answer(0x14, 0, &VIEWER),
        Leaf::default(),
        "processor trace"
    );
    assert_eq!(
        policy.answer(0x8000_000a, 0, &VIEWER),
        Leaf::default(),
        "SVM features"
    );
}

#[test]
fn what_mirrors_cr4_follows_it() {
    let policy = Policy::new(1, 1, everything);
    assert_eq!(policy.answer(1, 0, &VIEWER).ecx & 1 << 27, 0);
    let viewer = Viewer {
        cr4: 1 << 18 | 1 << 22,
        ..VIEWER
    };
    assert_ne!(policy.answer(1, 0, &viewer).ecx & 1 << 27, 0);
    assert_ne!(policy.answer(7, 0, &viewer).ecx & 1 << 4, 0);
    assert_eq!(policy.answer(7, 0, &VIEWER).ecx & 1 << 4, 0);
}

#[test]
fn apic_id_and_topology_are_the_viewers() {
    let policy = Policy::new(4, 1, everything);
    assert_eq!(policy.answer(1, 0, &VIEWER).ebx >> 24, 3);
    assert_eq!(policy.answer(0xb, 0, &VIEWER).edx, 3);
    let core = policy.answer(0xb, 1, &VIEWER);
    assert_eq!((core.eax, core.ebx & 0xffff, core.ecx), (2, 4, 2 << 8 | 1));
    assert_eq!(policy.answer(0xb, 2, &VIEWER).ebx, 0);
}

#[test]
fn xsave_size_follows_xcr0() {
    let policy = Policy::new(1, 1, everything);
    assert_eq!(policy.answer(0xd, 0, &VIEWER).ebx, 576);
    let avx = Viewer { xcr0: 7, ..VIEWER };
    assert_eq!(policy.answer(0xd, 0, &avx).ebx, 832);
    assert_eq!(policy.answer(0xd, 0, &avx).ecx, 1000 + 64 * 9 + 64);
}

#[test]
fn compacted_size_leaves_no_gaps_but_for_alignment() {
    let policy = Policy::new(1, 1, |leaf, subleaf| match (leaf, subleaf) {
        (0xd, 5) => Leaf {
            eax: 8,
            ..everything(leaf, subleaf)
        },
        (0xd, 6) => Leaf {
            ecx: 1 << 1,
            ..everything(leaf, subleaf)
        },
        _ => everything(leaf, subleaf),
    });
    let size = |xcr0| policy.answer(0xd, 1, &Viewer { xcr0, ..VIEWER }).ebx;
    assert_eq!(size(1), 576);
    assert_eq!(size(7), 576 + 256);
    assert_eq!(
        size(0xe7),
        576 + 256 + 64 + 64 + 64,
        "8 bytes, then aligned"
    );
    let without = Policy::new(1, 1, |leaf, subleaf| match (leaf, subleaf) {
        (0xd, 1) => Leaf {
            eax: 1,
            ..Leaf::default()
        },
        _ => everything(leaf, subleaf),
    });
    assert_eq!(without.answer(0xd, 1, &VIEWER).ebx, 0, "XSAVEOPT only");
}

#[test]
fn xcr0_rules() {
    let policy = Policy::new(1, 1, everything);
    for good in [1, 3, 7, 0xe7, 0x2e7] {
        assert!(policy.xcr0_valid(good), "{good:#x}");
    }
    for bad in [0, 2, 5, 0x27, 0xe3, 0x9, 1 << 63 | 1] {
        assert!(!policy.xcr0_valid(bad), "{bad:#x}");
    }
}

#[test]
fn hypervisor_leaves_spell_the_name() {
    let leaf = Policy::new(1, 7, everything).answer(HYPERVISOR_FIRST, 0, &VIEWER);
    let bytes: Vec<u8> = [leaf.ebx, leaf.ecx, leaf.edx]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    assert_eq!(bytes, SIGNATURE);
    assert_eq!(
        Policy::new(1, 7, everything)
            .answer(HYPERVISOR_FIRST + 1, 0, &VIEWER)
            .eax,
        7
    );
}

#[test]
fn the_portable_policy_promises_nothing_that_the_other_vendor_lacks() {
    let portable = Policy::named(PolicyName::Portable, 2, 1, everything);
    let host = Policy::named(PolicyName::Host, 2, 1, everything);
    assert_eq!(
        (portable.name(), host.name()),
        (PolicyName::Portable, PolicyName::Host)
    );
    // Every feature of it is one of the host's policy.
    for leaf in [1, 7, 0xd, 0x8000_0001, 0x8000_0007] {
        for subleaf in 0..2 {
            let (less, more) = (
                portable.answer(leaf, subleaf, &VIEWER),
                host.answer(leaf, subleaf, &VIEWER),
            );
            assert_eq!(less.ecx & !more.ecx & !0xfff, 0, "{leaf:#x}.{subleaf}");
            assert_eq!(less.edx & !more.edx, 0, "{leaf:#x}.{subleaf}");
            assert_eq!(less.eax & !more.eax, 0, "{leaf:#x}.{subleaf}");
        }
    }
    assert_eq!(portable.xcr0_allowed(), 0b111);
    assert_eq!(
        portable.answer(0x8000_0007, 0, &VIEWER).edx,
        0,
        "invariant TSC"
    );
    assert_eq!(host.answer(0x8000_0007, 0, &VIEWER).edx, 1 << 8);
    assert_eq!(portable.answer(7, 0, &VIEWER).ebx & 1 << 16, 0, "AVX-512");
    assert_ne!(portable.answer(7, 0, &VIEWER).ebx & 1 << 5, 0, "AVX2");
    assert_eq!(portable.answer(7, 0, &VIEWER).ebx & 1 << 9, 0, "ERMS");
}

#[test]
fn immunities_are_told_by_the_hosts_policy_only() {
    let named = |name| Policy::named(name, 1, 1, everything).with_immunities(Some(1 << 62));
    let told = |policy: &Policy| policy.answer(7, 0, &VIEWER).edx & 1 << 29 != 0;
    let host = named(PolicyName::Host);
    assert_eq!(
        (told(&host), host.arch_capabilities()),
        (true, Some(1 << 62))
    );
    let portable = named(PolicyName::Portable);
    assert_eq!(
        (told(&portable), portable.arch_capabilities()),
        (false, None)
    );
    let without = Policy::new(1, 1, everything).with_immunities(None);
    assert_eq!((told(&without), without.arch_capabilities()), (false, None));
}

#[test]
fn smap_is_hidden_where_the_emulator_gets_it_wrong() {
    let smap = |policy: &Policy| policy.answer(7, 0, &VIEWER).ebx & 1 << 20 != 0;
    assert!(smap(&Policy::new(1, 1, everything)));
    let tcg = |leaf: u32, subleaf: u32| match leaf {
        0x4000_0000 => Leaf {
            eax: 0x4000_0001,
            ebx: 0x5447_4354,
            ecx: 0x4354_4743,
            edx: 0x4743_5447,
        },
        _ => everything(leaf, subleaf),
    };
    assert!(!smap(&Policy::new(1, 1, tcg)));
    assert!(!smap(&Policy::named(PolicyName::Portable, 1, 1, tcg)));
}

#[test]
fn extended_state_fits_where_its_components_are() {
    use godwit_records::Bytes;
    let policy = Policy::named(PolicyName::Portable, 1, 1, everything);
    let state = |xcr0: u64, bytes: usize| XsaveState {
        xcr0,
        area: Bytes::copy_of(&alloc::vec![0; bytes]).expect("fits"),
    };
    assert_eq!(policy.xsave_fits(&state(7, 832)), Ok(()));
    assert_eq!(policy.xsave_fits(&state(3, 576)), Ok(()));
    assert_eq!(policy.xsave_fits(&state(7, 0)), Ok(()), "the initial state");
    assert!(policy.xsave_fits(&state(0xe7, 832)).is_err(), "AVX-512");
    assert!(policy.xsave_fits(&state(7, 1024)).is_err(), "AVX elsewhere");
}
