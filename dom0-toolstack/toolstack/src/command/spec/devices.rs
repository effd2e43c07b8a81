//! Commands about the devices of domains.

use super::*;
use crate::config::{Disk, Vif, vdev};

#[rustfmt::skip]
pub(super) static SPECS: &[Spec] = &[
    spec("xl block-list", &[DOMAIN], &[], ["the disks of a domain", ""],
        |_, arguments| Ok(on(Action::BlockList, arguments))),
    spec("xl block-attach", &[DOMAIN, argument("DISK", Kind::Volume, Count::Any)], &[],
        ["give a domain a disk",
         "DISK is as in a configuration: TARGET,raw,VDEV,rw or vdev=VDEV,access=ro,target=TARGET;\n\
          TARGET is STORE/VOLUME or nbd://HOST[:PORT]/EXPORT.\n"],
        block_attach),
    spec("xl block-detach", &[DOMAIN, argument("VDEV", Kind::Text, Count::One)], &[],
        ["take a disk from a domain", ""],
        |spec, arguments| {
            let [domain, name] = arguments.all();
            let index = vdev(&name).map_err(|what| usage_error(spec, what))?;
            Ok(Command::Domain { domain, action: Action::BlockDetach { index } })
        }),
    spec("xl network-list", &[DOMAIN], &[], ["the network devices of a domain", ""],
        |_, arguments| Ok(on(Action::NetworkList, arguments))),
    spec("xl network-attach", &[DOMAIN, argument("KEY=VALUE", Kind::Text, Count::Any)], &[],
        ["give a domain a network device",
         "Keys are those of vif in a configuration: mac type bridge rate ip forward.\n"],
        |spec, arguments| {
            let mut words = arguments.positional();
            let domain = words.remove(0);
            let vif = Vif::parse(&words.join(",")).map_err(|what| usage_error(spec, what))?;
            Ok(Command::Domain { domain, action: Action::NetworkAttach(vif) })
        }),
    spec("xl network-detach", &[DOMAIN, argument("DEVICE", Kind::Text, Count::One)], &[],
        ["take a network device from a domain", "DEVICE is its number in xl network-list or its address.\n"],
        |_, arguments| {
            let [domain, device] = arguments.all();
            Ok(Command::Domain { domain, action: Action::NetworkDetach { device } })
        }),
];

fn block_attach(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let mut words = arguments.positional();
    let domain = words.remove(0);
    let disk = Disk::parse(&words.join(",")).map_err(|what| usage_error(spec, what))?;
    let action = Action::BlockAttach(disk);
    Ok(Command::Domain { domain, action })
}
