//! A guest with a disk on an NBD server, a card on the bridge and two virtual CPUs is moved there and
//! back, twice, on hosts of one CPU, encrypted: what it writes is checked by itself, its TCP connection and
//! its address survive, and the link sees it announced where it arrives.

use anyhow::{Result, ensure};
use godwit_harness::{Emulator, GuestLoad, MoveSite, SiteOptions, captured, root};

const MOVES: usize = 4;
const OPTIONS: SiteOptions = SiteOptions {
    emulators: [Emulator::Qemu; 2],
    encrypted: true,
    stores: false,
    memory_mib: 96,
};
const LOAD: GuestLoad = GuestLoad {
    kind: "light",
    vcpus: 2,
};

#[test]
fn migrate_loaded_qemu() -> Result<()> {
    let mut site = MoveSite::boot("migrate-loaded", OPTIONS)?;
    site.create(&OPTIONS, LOAD)?;
    for number in 0..MOVES {
        let file = root()?.join(format!("out/logs/migrate-loaded-{number}.pcap"));
        site.link.capture(Some(&file))?;
        // Long, because what a stop takes on a busy machine is not what is looked at here.
        let moved = site.migrate("--max-downtime=9000")?;
        site.link.capture(None)?;
        eprintln!(
            "move {number}: downtime {:?}, inside {:?}, TCP {:?}, ping {:?}",
            moved.downtime, moved.inside, moved.outside_tcp, moved.outside_ping
        );
        let frames = captured(&file)?;
        let announced = frames
            .iter()
            .filter(|frame| MoveSite::is_announcement(frame));
        let announced = announced.count();
        ensure!(
            announced >= 3,
            "announced {announced} times: {}",
            file.display()
        );
        std::fs::remove_file(file)?;
    }
    site.destroy()
}
