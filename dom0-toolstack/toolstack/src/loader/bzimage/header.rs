//! The setup header of a bzImage, from 0x1f1 of the file on, read without trust.

use super::super::LinuxError;
use super::super::bytes::{half, long, range, word};

/// Where the header begins, in the file and in `boot_params`.
pub(super) const START: usize = 0x1f1;
/// Where it ends at most: `boot_params` has something else there.
const END_MAX: usize = 0x290;
/// The first version whose headers have `pref_address` and `init_size`.
const VERSION_LEAST: u16 = 0x020a;
/// The first version whose headers have `xloadflags`.
const VERSION_FLAGS: u16 = 0x020c;
/// Least length that holds `init_size`.
const END_LEAST: usize = 0x264;

const MAGIC: &[u8; 4] = b"HdrS";
const BOOT_FLAG: u16 = 0xaa55;
const SECTOR_BYTES: u64 = 512;
/// Sectors of setup code when the header says 0.
const SETUP_SECTORS_DEFAULT: u8 = 4;
/// `syssize` counts these.
const PARAGRAPH_BYTES: u64 = 16;
/// `loadflags`: the kernel proper goes to 1 MiB or above.
const LOADED_HIGH: u8 = 1 << 0;
/// `xloadflags`: there is a 64-bit entry.
const KERNEL_64: u16 = 1 << 0;

/// What the loader needs of the header.
#[derive(Debug)]
pub(super) struct SetupHeader<'a> {
    /// The header itself, as it goes into `boot_params` at [`START`].
    pub(super) bytes: &'a [u8],
    setup_sectors: u8,
    kernel_paragraphs: u32,
    /// The last byte a ramdisk may have.
    pub(super) ramdisk_address_max: u32,
    /// What the load address has to be a multiple of; a power of two.
    pub(super) alignment_bytes: u64,
    pub(super) relocatable: bool,
    pub(super) is_64_bit: bool,
    /// Longest command line, without the zero byte.
    pub(super) cmdline_bytes_max: u32,
    pub(super) preferred_address: u64,
    /// Memory that the kernel needs from its load address on until it can read the memory map.
    pub(super) init_size_bytes: u32,
}

/// Whether a file is a bzImage.
pub(in super::super) fn recognises(file: &[u8]) -> bool {
    file.get(0x202..0x206) == Some(MAGIC) && half(file, 0x1fe) == Some(BOOT_FLAG)
}

impl<'a> SetupHeader<'a> {
    /// Reads the header of a file that is [recognised](recognises).
    pub(super) fn parse(file: &'a [u8]) -> Result<Self, LinuxError> {
        let cut_off = LinuxError::SetupCutOff;
        let version = half(file, 0x206).ok_or(cut_off)?;
        if version < VERSION_LEAST {
            return Err(LinuxError::Protocol(version));
        }
        // The operand of the jump at 0x200, which leaps over the header.
        let end = 0x202 + usize::from(*file.get(0x201).ok_or(cut_off)?);
        if end < END_LEAST {
            return Err(cut_off);
        }
        let bytes = file.get(START..end.min(END_MAX)).ok_or(cut_off)?;
        let header = Self::fields(file, version, bytes).ok_or(cut_off)?;
        if file[0x211] & LOADED_HIGH == 0 {
            return Err(LinuxError::LoadedLow);
        }
        if !header.alignment_bytes.is_power_of_two() {
            return Err(LinuxError::Alignment(header.alignment_bytes as u32));
        }
        Ok(header)
    }

    fn fields(file: &[u8], version: u16, bytes: &'a [u8]) -> Option<Self> {
        Some(Self {
            bytes,
            setup_sectors: match *file.get(START)? {
                0 => SETUP_SECTORS_DEFAULT,
                sectors => sectors,
            },
            kernel_paragraphs: word(file, 0x1f4)?,
            ramdisk_address_max: word(file, 0x22c)?,
            alignment_bytes: word(file, 0x230)?.into(),
            relocatable: *file.get(0x234)? != 0,
            is_64_bit: version >= VERSION_FLAGS && half(file, 0x236)? & KERNEL_64 != 0,
            cmdline_bytes_max: word(file, 0x238)?,
            preferred_address: long(file, 0x258)?,
            init_size_bytes: word(file, 0x260)?,
        })
    }

    /// The kernel proper. What follows it in the file (a signature) is not loaded.
    pub(super) fn kernel(&self, file: &'a [u8]) -> Result<&'a [u8], LinuxError> {
        let start = (u64::from(self.setup_sectors) + 1) * SECTOR_BYTES;
        let expected = u64::from(self.kernel_paragraphs) * PARAGRAPH_BYTES;
        let present = (file.len() as u64).saturating_sub(start);
        // The length is rounded up to whole paragraphs, so the last one need not be whole.
        let bytes = expected.min(present);
        let kernel = range(file, start, bytes).unwrap_or(&[]);
        if expected == 0 || present + PARAGRAPH_BYTES <= expected || kernel.len() <= ENTRY_BYTES {
            return Err(LinuxError::KernelCutOff { expected, present });
        }
        Ok(kernel)
    }
}

/// A kernel proper is longer than what lies before its 64-bit entry.
const ENTRY_BYTES: usize = super::ENTRY_64_OFFSET as usize;
