//! GUIDs as GPT stores them (UEFI 2.10, appendix A): the first three fields little-endian.

use core::fmt;

/// Where GUIDs and other names that must not repeat come from.
pub trait Random {
    /// Fills `out` with random bytes.
    fn fill(&self, out: &mut [u8]);
}

/// A GUID, byte for byte as on disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// No GUID: the type of an unused entry.
    pub const ZERO: Guid = Guid([0; 16]);
    /// Partition type "Linux filesystem data", 0FC63DAF-8483-4772-8E79-3D69D8477DE4: volumes.
    pub const LINUX_DATA: Guid =
        Guid::from_fields(0x0fc6_3daf, 0x8483, 0x4772, 0x8e79_3d69_d847_7de4);
    /// Partition type "basic data", EBD0A0A2-B9E5-4433-87C0-68B6B72699C7: FAT.
    pub const BASIC_DATA: Guid =
        Guid::from_fields(0xebd0_a0a2, 0xb9e5, 0x4433, 0x87c0_68b6_b726_99c7);

    /// From the fields of its text form; `last` holds the last two groups.
    pub const fn from_fields(first: u32, second: u16, third: u16, last: u64) -> Guid {
        let (a, b, c, d) = (
            first.to_le_bytes(),
            second.to_le_bytes(),
            third.to_le_bytes(),
            last.to_be_bytes(),
        );
        Guid([
            a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5],
            d[6], d[7],
        ])
    }

    /// A new one, version 4 (RFC 9562 section 5.4).
    pub fn random(random: &dyn Random) -> Guid {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        bytes[7] = bytes[7] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Guid(bytes)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.0;
        let first = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        let (second, third) = ([b[4], b[5]], [b[6], b[7]]);
        let (second, third) = (u16::from_le_bytes(second), u16::from_le_bytes(third));
        write!(
            f,
            "{first:08X}-{second:04X}-{third:04X}-{:02X}{:02X}-",
            b[8], b[9]
        )?;
        b[10..].iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn text_form() {
        assert_eq!(
            Guid::LINUX_DATA.to_string(),
            "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
        );
        assert_eq!(Guid::LINUX_DATA.0[..4], [0xaf, 0x3d, 0xc6, 0x0f]);
    }
}
