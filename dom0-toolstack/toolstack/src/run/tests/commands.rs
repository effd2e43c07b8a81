//! Commands about devices, volumes and files, as an operator types them.

use super::*;
use crate::command::ConsoleKind;
use crate::operate::tests::toolstack;

const CREATE: &str = "xl create /dev/null name=n memory=4 maxmem=5 kernel=module:k balloon=1 vcpus=2 \
    disk=main/web,raw,vda,ro vif=type=nat,mac=02:00:00:00:00:01";

fn ready() -> Fake {
    let host = toolstack();
    assert_eq!(printed(&host, CREATE), "created domain 'n' (id 1)\n");
    host
}

#[test]
fn devices_are_listed_and_changed() {
    let host = ready();
    let want = "Vdev PCI Access Target                           State\n\
                vda   04 ro     main/web                         slot 4\n";
    assert_eq!(printed(&host, "xl block-list n"), want);
    let list = printed(&host, "xl network-list 1");
    assert!(
        list.contains("  0 02:00:00:00:00:01  05 nat    -                slot 5\n"),
        "{list}"
    );
    assert_eq!(printed(&host, "xl block-attach n main/db,raw,vdb,rw"), "");
    assert!(printed(&host, "xl block-list n").contains("vdb   08 rw     main/db"));
    assert!(failed(&host, "xl block-attach n main/db,raw,vdc").contains("in use by domain 'n'"));
    assert_eq!(printed(&host, "xl block-detach n vdb"), "");
    assert!(failed(&host, "xl block-detach n vdb").contains("no such device"));
    assert!(printed(&host, "xl network-attach n").starts_with("00:16:3e:"));
    assert_eq!(printed(&host, "xl network-detach n 1"), "");
    assert!(failed(&host, "xl network-detach n 1").contains("no network device '1'"));
    let long = printed(&host, "xl list -l n");
    assert!(
        long.contains("pci_04                 : vdev=vda,access=ro,target=main/web\n"),
        "{long}"
    );
}

#[test]
fn memory_vcpus_and_weights_are_set_and_noted() {
    let host = ready();
    let id = DomainId::new(1, 0);
    assert_eq!(enter(&host, "xl mem-set n 3"), Effect::AwaitMemory(id));
    assert!(failed(&host, "xl mem-set n 6").contains("its maximum, 5 MiB"));
    assert_eq!(printed(&host, "xl mem-max n 4"), "");
    assert_eq!(printed(&host, "xl vcpu-pin n 1 0"), "");
    assert!(failed(&host, "xl vcpu-pin n 7 0").contains("NoVcpu"));
    assert!(failed(&host, "xl vcpu-pin n all 40").contains("BadArgument"));
    assert_eq!(printed(&host, "xl sched-credit2 -d n -w 77"), "");
    let config = printed(&host, "xl config-list n");
    for line in [
        "memory = 3\n",
        "maxmem = 5\n",
        "cpus = [\"all\", \"0\"]\n",
        "cpu_weight = 77\n",
    ] {
        assert!(config.contains(line), "{line}: {config}");
    }
    assert!(
        config.contains("vif = [\"type=nat,mac=02:00:00:00:00:01\"]\n"),
        "{config}"
    );
}

#[test]
fn a_domain_is_asked_named_and_timed() {
    let host = ready();
    let id = DomainId::new(1, 0);
    assert_eq!(enter(&host, "xl shutdown -w n"), Effect::AwaitEnd(id));
    assert_eq!(printed(&host, "xl reboot n"), "");
    assert_eq!(
        host.site.hypervisor.with(id, |domain| domain.buttons),
        Ok(2)
    );
    assert_eq!(printed(&host, "xl domid n"), "1\n");
    assert_eq!(printed(&host, "xl domname 1"), "n\n");
    let later = 1_700_000_000_000_000_000 + (86_400 + 3_661) * 1_000_000_000;
    host.site.hypervisor.state.borrow_mut().wall_clock = Ok(later);
    assert!(printed(&host, "xl uptime n").ends_with("    1 1 days, 1:01:01\n"));
    assert!(printed(&host, "xl uptime 0").ends_with("    0 unknown\n"));
    let console = "xl create -c /dev/null name=c memory=5 kernel=module:k";
    let text = String::from("created domain 'c' (id 2)\n");
    let domain = DomainId::new(2, 0);
    let console = (enter(&host, console), ConsoleKind::Serial);
    let want = Effect::Follow {
        domain,
        console: console.1,
        text,
    };
    assert_eq!(console.0, want);
    let foreign = host.site.hypervisor.add_domain("x", 8);
    assert!(failed(&host, "xl config-list x").contains(&format!("domain {foreign} was made from")));
}

#[test]
fn a_virtio_console_is_read_and_followed() {
    let host = ready();
    assert!(failed(&host, "xl console -n -t pv n").contains("no virtio console: set console=1"));
    assert!(parse_line("xl console -t vga n").is_err());
    let create = "xl create /dev/null name=c memory=5 kernel=module:k console=1";
    assert_eq!(printed(&host, create), "created domain 'c' (id 2)\n");
    host.site.devices.console.borrow_mut().extend(b"login:\x1b");
    assert_eq!(printed(&host, "xl console -n -t pv c"), "login:\\x1b\n");
    let want = Effect::Follow {
        domain: DomainId::new(2, 0),
        console: ConsoleKind::Virtio,
        text: String::new(),
    };
    assert_eq!(enter(&host, "xl console -t pv c"), want);
}

#[test]
fn volumes_and_files() {
    let host = ready();
    assert_eq!(printed(&host, "xl volume-create main/a 4k"), "");
    assert!(failed(&host, "xl volume-create main/a 4k").contains("a volume 'a' already"));
    assert_eq!(
        printed(&host, "xl volume-import main/b main/a"),
        "4 KiB copied\n"
    );
    assert_eq!(
        printed(&host, "xl volume-export main/b main/a"),
        "4 KiB copied\n"
    );
    assert!(failed(&host, "xl volume-delete main/web").contains("in use by domain 'n'"));
    assert!(failed(&host, "xl volume-export main/b main/web").contains("in use by domain 'n'"));
    let list = printed(&host, "xl volume-list main");
    assert!(
        list.contains("main/a                                      4 -\n"),
        "{list}"
    );
    assert_eq!(printed(&host, "xl volume-delete main/b"), "");
    assert_eq!(
        printed(&host, "xl store-check main"),
        "store 'main' is in order\n"
    );
    assert!(printed(&host, "xl store-list").contains("main             nvme0"));
    assert!(failed(&host, "xl store-create nvme0 x").contains("has a store already"));
    let files = &host.site.files.files;
    files
        .borrow_mut()
        .insert("a.cfg".into(), b"name='a'\x1b".to_vec());
    assert!(printed(&host, "ls").ends_with("           9 a.cfg\n"));
    assert_eq!(printed(&host, "cat a.cfg"), "name='a'\\x1b\n");
    assert_eq!(printed(&host, "rm a.cfg"), "");
    assert_eq!(failed(&host, "cat a.cfg"), "a.cfg: there is no such file\n");
    block_on(host.look());
    let texts = |before: &str| {
        let candidates = complete(&host, before).candidates;
        candidates.into_iter().map(|c| c.text).collect::<Vec<_>>()
    };
    assert_eq!(texts("xl volume-delete m"), ["main/a"]);
    assert_eq!(texts("cat b"), ["boot/k"]);
}

#[test]
fn saved_and_restored_by_command() {
    let host = ready();
    assert_eq!(printed(&host, "xl volume-create main/s 8m"), "");
    let saved = printed(&host, "xl save n main/s");
    assert!(
        saved.starts_with("saved domain 'n' to 'main/s': "),
        "{saved}"
    );
    let digest = saved.split("memory digest ").nth(1).unwrap();
    assert_eq!(
        printed(&host, "xl restore main/s"),
        format!("restored domain 'n' (id 1025), memory digest {digest}")
    );
}
