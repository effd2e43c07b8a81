//! How a world begins: hosts that know each other, and guests on them.

use super::World;
use crate::check::OFFLINE;
use crate::guest::fill;
use crate::host::name;
use godwit_toolstack::host::Hypervisor;
use std::cell::RefCell;
use std::rc::Rc;

impl World {
    /// Hosts that know each other, and guests on them.
    pub(super) fn begin(&mut self) -> Result<(), String> {
        for host in &self.hosts {
            host.power_on();
        }
        let up = |world: &Self| world.hosts.iter().all(|host| host.tools().is_some());
        self.go(10_000_000, up)?;
        for host in &self.hosts {
            let peer = &self.hosts[1 - host.index];
            let identity = peer.tools().ok_or("it does not start")?.identity();
            let print = identity
                .map_err(|error| error.to_string())?
                .public()
                .fingerprint();
            let line = format!("{} 10.0.0.{} {print}\n", name(peer.index), peer.index + 1);
            host.files
                .files
                .borrow_mut()
                .insert("hosts.conf".into(), line.into_bytes());
            let tools = host.tools().expect("it was just there");
            host.spawn(async move {
                tools.load_hosts().await;
            });
        }
        let offline = self.hosts[0].files.files.borrow_mut().insert(
            OFFLINE.into(),
            "name=\"off\"\nkernel=\"module:k\"\nmemory=2\ndisk=[\"nbd://10.0.0.9/off,raw,vda,rw\"]\n".into(),
        );
        assert!(offline.is_none(), "there was none");
        let made = Rc::new(RefCell::new(Vec::new()));
        for (nth, guest) in self.guests.iter().enumerate() {
            let host = &self.hosts[nth % 2];
            let settings = settings(&guest.name, nth);
            let (tools, made) = (host.tools().expect("it was just there"), Rc::clone(&made));
            let random = self.random.fork();
            host.spawn(async move {
                let created = tools.create("/dev/null", &settings, true).await;
                let domain = created.expect("it is in order").domain;
                let hypervisor = &tools.site.parts.hypervisor;
                let filled = hypervisor.with(domain, |domain| fill(domain, &random));
                filled.expect("it was just made");
                let unpaused = hypervisor.domain_unpause(domain);
                unpaused.expect("it was paused");
                made.borrow_mut().push(domain);
            });
        }
        let count = self.guests.len();
        let all =
            move |world: &Self| world.guests.iter().filter(|it| it.home.is_some()).count() == count;
        match self.go(10_000_000, all)? {
            true => {}
            false => return Err("the guests do not start".into()),
        }
        for host in &self.hosts {
            let parts = host.parts().expect("it is on");
            self.broken.apply(&parts.hypervisor);
        }
        self.watch.baseline(&self.hosts);
        Ok(())
    }
}

fn settings(guest: &str, nth: usize) -> Vec<String> {
    [
        format!("name={guest}"),
        "kernel=module:k".into(),
        "memory=2".into(),
        "maxmem=2".into(),
        "rng=1".into(),
        "balloon=1".into(),
        "on_reboot=restart".into(),
        format!("disk=[\"nbd://10.0.0.9/disk-{nth},raw,vda,rw\"]"),
        format!("vif=['type=nat,forward=tcp:{}:22']", 2200 + nth),
    ]
    .into()
}
