//! What boots Godwit on the build machine: images, emulators, serial consoles and the frame link
//! that joins emulated hosts.
//!
//! Used by `xtask` (`./x host`, `./x demo`, `./x bench`) and by the boot tests, so that both start
//! an emulator in exactly one way. Nothing here needs root, a TAP device or a network beyond
//! loopback: hosts are joined by UDP datagrams on 127.0.0.1, one Ethernet frame each, the one
//! format that QEMU and Bochs both speak.

#![forbid(unsafe_code)]

mod bochs;
mod config;
mod console;
mod control;
mod disk;
mod frame;
mod gateway;
mod guest;
mod host;
mod image;
mod link;
mod move_site;
mod nbd_server;
mod paths;
mod pcap;
mod peer;
mod process;
mod qemu;
mod shaper;
mod store;
mod text;
mod watch;

pub use config::{Emulator, Firmware, HostConfig, Network, Nic};
pub use console::Console;
pub use control::{Control, request};
pub use disk::{DiskConfig, DiskInterface};
pub use frame::{Frame, Mac};
pub use gateway::{Doors, Gateway};
pub use guest::{Debian, Flavour, GuestKernel, Ramdisk, debian, guest_fact, root_disk};
pub use host::Host;
pub use image::{Image, Menu};
pub use link::{Link, LinkPort, PortKind, PortReport};
pub use move_site::{GuestLoad, MoveSite, Moved, SiteOptions, Work};
pub use nbd_server::{NbdServer, free_port};
pub use paths::{Artefact, root};
pub use pcap::captured;
pub use peer::Peer;
pub use shaper::{Settings, Statistics};
pub use store::{Store, StoreImage, VolumeContents};
pub use watch::Watch;
