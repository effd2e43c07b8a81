//! Frames and headers of any kind.

use super::*;
use proptest::prelude::*;

proptest! {
    /// Whatever frames come and whatever buffers there are, what arrives are those frames in order.
    #[test]
    fn merged_buffers_hold_the_frames(
        lengths in proptest::collection::vec(60usize..9000, 1..12),
        bytes in 64u32..2000,
        offers in proptest::collection::vec(1u64..20, 1..20),
    ) {
        let mut bench = bench(MRG_RXBUF | GUEST_CSUM | GUEST_TSO4);
        let frames: Vec<Frame> = lengths.iter().map(|length| long(length - 54, false)).collect();
        bench.cable.incoming.borrow_mut().extend(frames.clone());
        let (mut offered, mut next) = (0, 0);
        let mut arrived = vec![];
        let mut room = 0;
        for count in offers {
            let count = count.min(200 - offered.min(200));
            for _ in 0..count {
                let part = (RECEIVED + offered * u64::from(bytes), bytes);
                bench.drivers[RECEIVE].offer(&[], &[part]).unwrap();
                offered += 1;
            }
            room += count * u64::from(bytes);
            bench.run();
            arrived.extend(bench.reap(&mut next, bytes));
        }
        for ((header, found), frame) in arrived.iter().zip(&frames) {
            let buffers = (frame.bytes.len() + 12).div_ceil(bytes as usize) as u16;
            let expected = NetHeader {
                checksum: frame.checksum,
                segmentation: frame.segmentation,
                checked: false,
                buffers,
            };
            prop_assert_eq!(*header, expected.bytes());
            prop_assert_eq!(found, &frame.bytes);
            room -= u64::from(buffers) * u64::from(bytes);
        }
        if let Some(frame) = frames.get(arrived.len()) {
            prop_assert!(room < frame.bytes.len() as u64 + 12, "it would have fitted");
        }
    }

    /// A header means the same when it is read back.
    #[test]
    fn headers_are_read_as_written(
        checksum: Option<(u16, u16)>,
        segmentation: Option<(bool, u16, u16, bool)>,
        buffers: u16,
    ) {
        let checksum = checksum.map(|(start, offset)| PartialChecksum { start, offset });
        let segmentation = segmentation.filter(|s| checksum.is_some() && s.2 > 0);
        let header = NetHeader {
            checksum,
            segmentation: segmentation.map(|(six, header_bytes, payload_bytes, ecn)| Segmentation {
                kind: if six { SegmentKind::Tcp6 } else { SegmentKind::Tcp4 },
                header_bytes,
                payload_bytes,
                ecn,
            }),
            checked: false,
            buffers,
        };
        prop_assert_eq!(NetHeader::parse(&header.bytes(), u64::MAX), Ok(header));
    }
}
