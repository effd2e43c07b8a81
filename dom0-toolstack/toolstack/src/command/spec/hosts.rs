//! Commands about this host's key and the hosts it knows.

use super::*;
use crate::hosts::KnownHost;

#[rustfmt::skip]
pub(super) static SPECS: &[Spec] = &[
    spec("xl host-key", &[], &[flag('n', "new", "make a new key; every other host has to add this one again")],
        ["this host's name and the fingerprint of its key", "The fingerprint is what xl host-add wants on other hosts.\n"],
        |_, arguments| Ok(Command::Host(HostCommand::Key { new: arguments.has('n') }))),
    spec("xl host-add",
        &[argument("NAME", Kind::Text, Count::One), argument("ADDRESS[:PORT]", Kind::Text, Count::One),
          argument("FINGERPRINT", Kind::Text, Count::One)], &[],
        ["know another host, to migrate to it and from it",
         "xl host-key there shows its fingerprint. Do it on both hosts. The port is 8002 unless given.\n"],
        |spec, arguments| {
            let [name, endpoint, fingerprint] = arguments.all();
            let host = KnownHost::parse(&name, &endpoint, &fingerprint);
            Ok(Command::Host(HostCommand::Add(host.map_err(|what| usage_error(spec, what))?)))
        }),
    spec("xl host-list", &[], &[], ["the hosts that this one knows", ""], |_, _| Ok(Command::Host(HostCommand::List))),
    spec("xl host-remove", &[argument("HOST", Kind::Host, Count::One)], &[],
        ["forget a host", "Nothing is sent to it or taken from it any more.\n"],
        |_, arguments| Ok(Command::Host(HostCommand::Remove { name: arguments.one() }))),
];
