//! PVH guests: an ELF64 image with a `XEN_ELFNOTE_PHYS32_ENTRY` note, entered in 32-bit protected
//! mode without paging (Xen, "PVH boot ABI", `docs/misc/pvh.pandoc`).
//!
//! The image lies where its program headers say; behind it, page by page, the start information
//! and the ramdisk.

use super::elf::Image;
use super::memory::Room;
use super::start_info::StartInfo;
use super::{Ground, LoadError, Loaded, Piece, state};

/// Plans an image whose note gives `entry`.
pub(super) fn load<'a>(
    ground: &Ground<'a, '_>,
    image: &Image<'a>,
    entry: u64,
) -> Result<Loaded<'a>, LoadError> {
    let guest = ground.guest;
    let entry = image.loaded_entry(entry)?;
    let mut pieces = image.pieces();
    let mut room = Room::behind(image.end(), ground.map);
    let info = StartInfo {
        guest,
        map: ground.map,
        rsdp: ground.rsdp,
    };
    let address = room.take("start information", info.bytes())?;
    let ramdisk = match guest.ramdisk {
        Some(bytes) => Some(room.take("ramdisk", bytes.len() as u64)?),
        None => None,
    };
    pieces.push(Piece::made(address, info.make(address, ramdisk)));
    if let (Some(bytes), Some(address)) = (guest.ramdisk, ramdisk) {
        pieces.push(Piece::image(address, bytes));
    }
    let mut state = state::protected_mode(entry);
    state.gprs[state::RBX] = address;
    Ok(Loaded { pieces, state })
}
