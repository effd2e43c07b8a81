//! A Linux guest saved to a volume and restored from it goes on where it was, twice; a damaged save
//! is refused and leaves nothing behind.

use anyhow::{Result, ensure};
use godwit_boot_tests::served::{
    DATA, SAVED, SAVED_BLOCKS, SAVED_SEED, boot, check_blocks, saved_and_restored,
};
use godwit_harness::Emulator;

/// A place within the pages of the guest in the saved stream.
const DAMAGE_AT: usize = 8 << 20;

#[test]
fn guest_save_restore_qemu() -> Result<()> {
    let mut site = boot("guest-save-restore-qemu", Emulator::Qemu, "")?;
    site.create("")?;
    saved_and_restored(&mut site, 2)?;
    let guest = site.guest();
    guest.clear(&mut site.host)?;
    check_blocks(
        &site.into_store().read_volume(DATA)?,
        SAVED_BLOCKS,
        SAVED_SEED,
    )
}

#[test]
fn guest_save_damaged_qemu() -> Result<()> {
    let mut site = boot("guest-save-damaged-qemu", Emulator::Qemu, "")?;
    let before = site.free_mib()?;
    let (save, restore) = (
        format!("xl save lin main/{SAVED}"),
        format!("xl restore main/{SAVED}"),
    );
    site.says(&restore, "there is no saved domain here")?;
    site.create("")?;
    site.says_in_time(&save, "")?;
    // Behind the host's back: dom0 keeps no copy of a volume's contents.
    let mut contents = site.store.read_volume(SAVED)?;
    contents[DAMAGE_AT] ^= 1;
    site.store.write_volume(SAVED, &contents)?;
    let said = site.says_in_time(&restore, "the checksum of frame")?;
    ensure!(!said.contains("restored"), "{said}");
    site.is_gone()?;
    let after = site.free_mib()?;
    ensure!(before == after, "{after} MiB are free, not {before}");
    // What was saved is as it was, so it works again.
    contents[DAMAGE_AT] ^= 1;
    site.store.write_volume(SAVED, &contents)?;
    site.says_in_time(&restore, "restored domain 'lin'")?;
    site.shell_succeeds("true").map(drop)
}
