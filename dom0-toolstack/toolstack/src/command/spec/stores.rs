//! Commands about disks of the host, stores, volumes and files.

use super::*;
use crate::command::{DISK_READ_BLOCKS_MAX, size};
use crate::config::DiskTarget;
use alloc::format;
use alloc::string::String;

const STORE: Argument = argument("STORE", Kind::Store, Count::One);
const VOLUME: Argument = argument("STORE/VOLUME", Kind::Volume, Count::One);
const SIZE: Argument = argument("SIZE", Kind::Text, Count::One);
const FILE: Argument = argument("FILE", Kind::File, Count::One);

#[rustfmt::skip]
pub(super) static SPECS: &[Spec] = &[
    spec("xl disk-list", &[], &[], ["the host's own disks", ""], |_, _| Ok(Command::DiskList)),
    spec("xl disk-read",
        &[argument("DISK", Kind::Text, Count::One), argument("BLOCK", Kind::Text, Count::One)],
        &[option('c', "count", "BLOCKS", Kind::Text, "how many blocks, 1 to 65536 (1)")],
        ["read blocks of a disk: the first bytes, and the CRC-32 of all", ""],
        disk_read),
    spec("xl store-list", &[], &[], ["the stores, which are disks with volumes", ""], |_, _| Ok(Command::Store(StoreCommand::StoreList))),
    spec("xl store-create", &[argument("DISK", Kind::Text, Count::One), argument("NAME", Kind::Text, Count::One)], &[],
        ["make a store of a disk", "Everything on the disk is lost. xl disk-list shows the disks.\n"],
        |_, arguments| {
            let [disk, name] = arguments.all();
            Ok(Command::Store(StoreCommand::StoreCreate { disk, name }))
        }),
    spec("xl store-check", &[STORE], &[], ["look for what is wrong with a store", ""],
        |_, arguments| Ok(Command::Store(StoreCommand::StoreCheck { store: arguments.one() }))),
    spec("xl volume-list", &[argument("STORE", Kind::Store, Count::Optional)], &[],
        ["the volumes of one store or of all", ""],
        |_, arguments| Ok(Command::Store(StoreCommand::VolumeList { store: arguments.positional().pop() }))),
    spec("xl volume-create", &[VOLUME, SIZE], &[],
        ["make a volume", "SIZE is in MiB, or with b, k, m, g, t.\n"],
        |spec, arguments| sized(spec, arguments, |volume, bytes| StoreCommand::VolumeCreate { volume, bytes })),
    spec("xl volume-delete", &[VOLUME], &[], ["remove a volume with what is on it", ""],
        |spec, arguments| Ok(Command::Store(StoreCommand::VolumeDelete { volume: volume(spec, &arguments.one())? }))),
    spec("xl volume-resize", &[VOLUME, SIZE], &[],
        ["make a volume larger or smaller", "A smaller one loses its end. SIZE is as for xl volume-create.\n"],
        |spec, arguments| sized(spec, arguments, |volume, bytes| StoreCommand::VolumeResize { volume, bytes })),
    spec("xl volume-import", &[VOLUME, argument("SOURCE", Kind::Volume, Count::One)], &[],
        ["make a volume with the contents of another disk", "SOURCE is STORE/VOLUME or nbd://HOST[:PORT]/EXPORT.\n"],
        |spec, arguments| {
            let [to, from] = arguments.all();
            Ok(Command::Store(StoreCommand::VolumeImport { volume: volume(spec, &to)?, from: target(spec, &from)? }))
        }),
    spec("xl volume-export", &[VOLUME, argument("TARGET", Kind::Volume, Count::One)], &[],
        ["write a volume over another disk", "TARGET is STORE/VOLUME or nbd://HOST[:PORT]/EXPORT, at least as large.\n"],
        |spec, arguments| {
            let [from, to] = arguments.all();
            Ok(Command::Store(StoreCommand::VolumeExport { volume: volume(spec, &from)?, to: target(spec, &to)? }))
        }),
    spec("ls", &[argument("FOLDER", Kind::File, Count::Optional)], &[],
        ["files of the configuration partition", ""],
        |_, arguments| Ok(Command::Store(StoreCommand::Ls { path: arguments.positional().pop().unwrap_or_default() }))),
    spec("cat", &[FILE], &[], ["show a file of the configuration partition", ""],
        |_, arguments| Ok(Command::Store(StoreCommand::Cat { path: arguments.one() }))),
    spec("rm", &[FILE], &[], ["remove a file of the configuration partition", ""],
        |_, arguments| Ok(Command::Store(StoreCommand::Rm { path: arguments.one() }))),
];

fn disk_read(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let blocks = arguments.number('c', 1..=DISK_READ_BLOCKS_MAX)?;
    let [disk, block] = arguments.all();
    match block.parse() {
        Ok(block) => Ok(Command::DiskRead {
            disk,
            block,
            blocks: blocks.unwrap_or(1),
        }),
        Err(_) => Err(usage_error(spec, format!("'{block}' is no block number"))),
    }
}

fn volume(spec: &'static Spec, text: &str) -> Result<Volume, CommandError> {
    match target(spec, text)? {
        DiskTarget::Volume { store, volume } => Ok(Volume {
            store,
            name: volume,
        }),
        DiskTarget::Nbd { .. } => Err(usage_error(spec, format!("'{text}' is no STORE/VOLUME"))),
    }
}

fn sized(
    spec: &'static Spec,
    arguments: Arguments,
    command: fn(Volume, u64) -> StoreCommand,
) -> Result<Command, CommandError> {
    let [name, amount]: [String; 2] = arguments.all();
    let bytes = size::bytes(&amount).map_err(|what| usage_error(spec, what))?;
    Ok(Command::Store(command(volume(spec, &name)?, bytes)))
}
