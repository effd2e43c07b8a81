//! Lines typed, on the fake.

mod commands;

use super::*;
use crate::command::parse_line;
use crate::modules::BootModule;
use crate::site::fake::{FakeSite, block_on};

type Fake = Toolstack<FakeSite>;

fn fake() -> Fake {
    let modules = std::vec![BootModule::new("micro", b"not an ELF")];
    Toolstack::new(FakeSite::default(), modules)
}

fn enter(host: &Fake, line: &str) -> Effect {
    let mut commands = parse_line(line).unwrap();
    assert_eq!(commands.len(), 1);
    block_on(run(host, "host-a", commands.remove(0)))
}

#[track_caller]
fn printed(host: &Fake, line: &str) -> String {
    match enter(host, line) {
        Effect::Print(text) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn failed(host: &Fake, line: &str) -> String {
    match enter(host, line) {
        Effect::Fail(text) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn life_of_a_domain() {
    let host = fake();
    let id = host.site.hypervisor.add_domain("web", 8);
    assert_eq!(printed(&host, "xl pause web"), "");
    assert!(printed(&host, "xl list web").contains("--p---"));
    assert_eq!(printed(&host, "xl unpause 1"), "");
    assert!(failed(&host, "xl unpause 1").contains("BadState"));
    assert_eq!(printed(&host, "xl sched-credit2 -d web -c 50"), "");
    assert!(printed(&host, "xl sched-credit2").contains("1    256   50"));
    host.site
        .hypervisor
        .with(id, |domain| domain.console = b"hello\r\n".to_vec())
        .unwrap();
    assert_eq!(printed(&host, "xl console -n web"), "hello\n");
    assert_eq!(
        enter(&host, "xl console web"),
        Effect::Follow {
            domain: id,
            console: ConsoleKind::Serial,
            text: String::new()
        }
    );
    assert_eq!(printed(&host, "xl vcpu-list").lines().count(), 3);
    assert_eq!(printed(&host, "xl destroy web"), "");
    assert!(failed(&host, "xl list web").contains("no domain 'web'"));
    assert!(failed(&host, "xl destroy Domain-0").contains("Denied"));
}

#[test]
fn creating_checks_names_and_says_why_not() {
    let host = fake();
    host.site.hypervisor.add_domain("web", 8);
    let error = failed(&host, "xl create /dev/null name=web kernel=module:micro");
    assert!(
        error.starts_with("setting 1:1:6: there is a domain 'web' already (id 1)\n"),
        "{error}"
    );
    let error = failed(
        &host,
        "xl create /dev/null name=x kernel=module:micro uuid=00000000-0000-0000-0000-000000000000",
    );
    assert!(error.contains("has this uuid already"), "{error}");
    let error = failed(&host, "xl create /dev/null name=x kernel=module:micro");
    assert!(error.contains("no ELF image"), "{error}");
    let error = failed(&host, "xl create /dev/null nmae=x");
    assert!(
        error.contains("setting 1:1:1: unknown key 'nmae': did you mean 'name'?"),
        "{error}"
    );
    assert!(matches!(
        enter(&host, "xl migrate --dry-run web b"),
        Effect::PlanMove { .. }
    ));
    assert_eq!(printed(&host, "xl migrate-limit"), "2\n");
    assert_eq!(printed(&host, "xl migrate-limit 3"), "3\n");
    assert_eq!(printed(&host, "xl migrate-history"), "no move is over\n");
    assert_eq!(printed(&host, "xl migrate-status --json"), "");
    let problems = failed(&host, "xl migrate web nobody Domain-0 b");
    assert!(problems.contains("'nobody'") && problems.contains("does not move"));
    assert!(failed(&host, "xl migrate Domain-0 b").contains("does not move"));
    assert!(failed(&host, "xl migrate-cancel web").contains("not on the move"));
    assert_eq!(printed(&host, "xl migrate-status"), "no domain has moved\n");
}

#[test]
fn completion_knows_the_host() {
    let host = fake();
    host.site.hypervisor.add_domain("web", 8);
    let texts = |before: &str| {
        let candidates = complete(&host, before).candidates;
        candidates.into_iter().map(|c| c.text).collect::<Vec<_>>()
    };
    assert_eq!(texts("xl pause w"), ["web"]);
    assert_eq!(
        texts("xl create /dev/null kernel="),
        ["kernel=module:micro"]
    );
    assert_eq!(
        texts("xl create /dev/null cp"),
        ["cpu_policy=", "cpu_weight=", "cpus="]
    );
    host.site.hypervisor.fail_call(0, Status::Denied);
    assert!(texts("xl pause w").is_empty());
}

#[test]
fn the_rest_is_handed_back_or_answered() {
    let host = fake();
    assert!(printed(&host, "xl info").contains("virt_vendor"));
    assert!(printed(&host, "uptime").starts_with("up "));
    assert!(printed(&host, "modules").contains("micro"));
    assert_eq!(printed(&host, "echo a  b"), "a b\n");
    host.site.hypervisor.state.borrow_mut().log = b"(godwit) up\n".to_vec();
    assert_eq!(printed(&host, "xl dmesg"), "(godwit) up\n");
    assert_eq!(printed(&host, "xl debug-keys dq"), "");
    assert_eq!(host.site.hypervisor.state.borrow().keys, b"dq");
    host.site.hypervisor.fail_call(0, Status::BadArgument);
    assert!(failed(&host, "xl debug-keys Z").contains("no debug key 'Z'"));
    host.site.hypervisor.fail_call(0, Status::Denied);
    assert!(failed(&host, "xl info").contains("Denied"));
    assert_eq!(enter(&host, "reboot"), Effect::Power(PowerAction::Reboot));
    let top = Effect::Top {
        delay_s: 1,
        iterations: Some(2),
        batch: true,
    };
    assert_eq!(enter(&host, "xl top -b -d 1 -i 2"), top);
}
