//! The laws and the shipped bytes of virtio records.

use godwit_records::laws::{
    bits_from, encoded, every_change_is_canonical, hold_for, version_is_as_shipped,
};
use godwit_records::{
    Record, VirtioBalloonState, VirtioBlockState, VirtioNetState, VirtioQueueState, VirtioState,
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn virtio_states_obey(seed: u64) {
        let mut bits = bits_from(seed);
        hold_for(&VirtioState::sample(&mut bits));
        hold_for(&VirtioBlockState::sample(&mut bits));
        hold_for(&VirtioNetState::sample(&mut bits));
        hold_for(&VirtioBalloonState::sample(&mut bits));
    }
}

#[test]
fn reset_values_obey() {
    hold_for(&VirtioState::reset());
    let bytes = encoded(&VirtioState::reset(), 1).expect("newest");
    every_change_is_canonical::<VirtioState>(&bytes);
}

/// Values in which no two fields are alike, so that a swap shows.
fn distinctive() -> VirtioState {
    VirtioState {
        device_id: 2,
        driver_features: 0x11,
        status: 0x12,
        isr: 0x13,
        config_generation: 0x14,
        config_vector: 0x15,
        device_feature_select: 0x16,
        driver_feature_select: 0x17,
        queue_select: 0x18,
        queues: std::array::from_fn(|n| VirtioQueueState {
            size: 0x20 + n as u16,
            vector: 0x30 + n as u16,
            enabled: n % 2 == 1,
            descriptors: 0x40 + n as u64,
            available: 0x50 + n as u64,
            used: 0x60 + n as u64,
        }),
    }
}

const NET: VirtioNetState = VirtioNetState {
    mac: [1, 2, 3, 4, 5, 6],
    promiscuous: true,
    more_addresses: false,
    announce: true,
};
const BALLOON: VirtioBalloonState = VirtioBalloonState {
    target_pages: 0x71,
    actual_pages: 0x72,
};

#[test]
fn shipped_versions_are_as_they_were() {
    let state: VirtioState = version_is_as_shipped(
        1,
        0x4272_9c19_84c3_c960,
        include_str!("../golden/virtio.v1.hex"),
    );
    assert_eq!(state, distinctive());
    let block: VirtioBlockState =
        version_is_as_shipped(1, 0x2e4c_5210_ee2d_343d, "41000100 01000000 00");
    assert!(!block.write_back);
    let net: VirtioNetState = version_is_as_shipped(
        1,
        0x0c13_a634_2452_86a8,
        "42000100 09000000 010203040506 01 00 01",
    );
    assert_eq!(net, NET);
    let balloon: VirtioBalloonState = version_is_as_shipped(
        1,
        0x7371_2abd_670b_212e,
        "43000100 08000000 71000000 72000000",
    );
    assert_eq!(balloon, BALLOON);
}

/// Prints the golden bytes of the longest, for a version about to ship.
#[test]
#[ignore = "writes what a new version's golden file will hold"]
fn print_golden_bytes() {
    let bytes = encoded(&distinctive(), VirtioState::NEWEST).expect("newest");
    for line in bytes.chunks(32) {
        let digits = line.iter().map(|byte| format!("{byte:02x}"));
        println!("{}", digits.collect::<String>());
    }
}
