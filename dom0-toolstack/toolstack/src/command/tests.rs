//! Lines into commands, errors and completions.

use super::*;
use crate::config::{Disk, Vif};
use alloc::string::ToString;
use proptest::prelude::*;

fn one_command(line: &str) -> Command {
    let mut all = parse_line(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert_eq!(all.len(), 1, "{line}");
    all.remove(0)
}

fn refused(line: &str) -> String {
    parse_line(line).expect_err(line).to_string()
}

#[test]
fn lines_of_the_manual() {
    assert_eq!(one_command("xl info"), Command::Info);
    let list = Command::List {
        long: true,
        domain: Some("web server".into()),
    };
    assert_eq!(one_command("xl list --long 'web server'"), list);
    assert_eq!(one_command("xl list \"web server\" -l"), list);
    let create = Command::Create {
        config: "/dev/null".into(),
        console: false,
        settings: ["name=t1", "memory=8", "extra=a b"]
            .map(String::from)
            .into(),
        paused: true,
    };
    let line = r#"xl create -p /dev/null name="t1" memory=8 extra="a b""#;
    assert_eq!(one_command(line), create);
    let ping = Command::Ping {
        host: "10.0.0.2".into(),
        count: Some(3),
        interval_ms: 200,
    };
    assert_eq!(one_command("ping 10.0.0.2 -c3 --interval=200"), ping);
    let set = Command::SchedCredit2(SchedulerSet {
        domain: Some("a".into()),
        weight: Some(512),
        cap_percent: Some(50),
    });
    assert_eq!(one_command("xl sched-credit2 -d a -w 512 -c 50"), set);
    assert_eq!(one_command("echo -n x  y"), Command::Echo("-n x y".into()));
}

#[test]
fn commands_about_domains_volumes_and_files() {
    let on = |domain: &str, action| Command::Domain {
        domain: domain.into(),
        action,
    };
    let web = DiskTarget::parse("main/web").unwrap();
    let volume = Volume {
        store: "main".into(),
        name: "web".into(),
    };
    for (line, want) in [
        (
            "xl reboot -w a",
            on(
                "a",
                Action::Shutdown {
                    again: true,
                    wait: true,
                },
            ),
        ),
        (
            "xl save -c a main/web",
            on(
                "a",
                Action::Save {
                    target: web.clone(),
                    after: AfterSave::Run,
                },
            ),
        ),
        (
            "xl vcpu-pin a all 0-1",
            on(
                "a",
                Action::VcpuPin {
                    vcpu: None,
                    cpus: 3,
                },
            ),
        ),
        (
            "xl vcpu-pin a 2 all",
            on(
                "a",
                Action::VcpuPin {
                    vcpu: Some(2),
                    cpus: !0,
                },
            ),
        ),
        ("xl mem-set a 2g", on("a", Action::MemSet { mib: 2048 })),
        (
            "xl block-attach a main/web,raw,vdb",
            on(
                "a",
                Action::BlockAttach(Disk::parse("main/web,raw,vdb").unwrap()),
            ),
        ),
        (
            "xl block-attach a target=main/web vdev=vdb",
            on(
                "a",
                Action::BlockAttach(Disk::parse("main/web,raw,vdb").unwrap()),
            ),
        ),
        (
            "xl block-detach a xvdb",
            on("a", Action::BlockDetach { index: 1 }),
        ),
        (
            "xl network-attach a type=nat rate=1MB/s",
            on(
                "a",
                Action::NetworkAttach(Vif::parse("type=nat,rate=1MB/s").unwrap()),
            ),
        ),
        (
            "xl volume-create main/web 4k",
            Command::Store(StoreCommand::VolumeCreate {
                volume: volume.clone(),
                bytes: 4096,
            }),
        ),
        (
            "xl volume-import main/web nbd://h/e",
            Command::Store(StoreCommand::VolumeImport {
                volume,
                from: DiskTarget::parse("nbd://h/e").unwrap(),
            }),
        ),
        (
            "xl restore -p main/web",
            Command::Restore {
                target: web,
                paused: true,
                console: false,
            },
        ),
        (
            "ls",
            Command::Store(StoreCommand::Ls {
                path: String::new(),
            }),
        ),
        (
            "xl config-update a b.cfg memory=3",
            on(
                "a",
                Action::ConfigUpdate {
                    config: "b.cfg".into(),
                    settings: std::vec!["memory=3".into()],
                },
            ),
        ),
    ] {
        assert_eq!(one_command(line), want, "{line}");
    }
    for (line, part) in [
        ("xl save -c -p a main/web", "exclude each other"),
        ("xl save a web", "is no target"),
        ("xl vcpu-pin a x 0", "no vCPU"),
        ("xl vcpu-pin a 0 99", "is no CPU"),
        ("xl mem-set a lots", "is no amount"),
        ("xl block-attach a", "'vdev' is missing"),
        ("xl volume-create nbd://h/e 4k", "is no STORE/VOLUME"),
        ("xl create a.cfg b", "'b' is no KEY=VALUE"),
    ] {
        let error = refused(line);
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn semicolons_separate_and_one_error_stops_all() {
    let all = parse_line(" ; uptime;; echo a ;# nothing").unwrap();
    assert_eq!(all, [Command::Uptime, Command::Echo("a".into())]);
    assert!(parse_line("poweroff; xl lst").is_err());
    assert!(parse_line("").unwrap().is_empty());
}

#[test]
fn errors_name_what_is_wrong_and_show_usage() {
    assert_eq!(
        refused("xl lst"),
        "unknown command 'lst': did you mean 'list'?"
    );
    assert_eq!(
        refused("list"),
        "unknown command 'list': did you mean 'xl list'?"
    );
    assert_eq!(
        refused("zzzzz"),
        "unknown command 'zzzzz': help lists the commands"
    );
    assert_eq!(
        refused("xl destroy"),
        "xl destroy: DOMAIN is missing\nusage: xl destroy DOMAIN"
    );
    for (line, part) in [
        ("xl pause a b", "'b' is one argument too many"),
        ("xl list -x", "unknown option '-x'"),
        ("xl list --long=3", "option '--long' takes no value"),
        ("xl list -l -l", "option '-l' is given twice"),
        ("ping h -c", "option '-c' needs COUNT"),
        ("ping h -c 0", "'-c 0' is no number from 1 to 1000000"),
        ("ping h -i 99999999999999", "is no number from 10 to 60000"),
        ("xl create name=t1", "CONFIG comes before 'name=t1'"),
        ("xl create /dev/null name", "'name' is no KEY=VALUE"),
        ("xl sched-credit2 -w 3", "need -d DOMAIN"),
        ("xl debug-keys é", "no debug keys"),
        ("echo 'a", "the quote ' is not closed"),
        ("echo \\", "ends after a backslash"),
    ] {
        let error = refused(line);
        assert!(error.contains(part), "{line}: {error}");
    }
    assert!(matches!(
        parse_line(&"x".repeat(LINE_BYTES_MAX + 1)),
        Err(CommandError::TooLong)
    ));
    assert!(matches!(
        parse_line(&"ip;".repeat(COMMANDS_MAX + 1)),
        Err(CommandError::TooLong)
    ));
}

#[test]
fn what_comes_later_answers_by_name() {
    for verb in LATER {
        let want = Command::NotImplemented(format!("xl {verb}"));
        assert_eq!(one_command(&format!("xl {verb} --live a b")), want);
        assert!(Spec::find(&format!("xl {verb}")).is_none(), "{verb} exists");
    }
}

#[test]
fn every_command_has_help_and_fits_its_row() {
    let Command::Help(overview) = one_command("help") else {
        panic!("help is help");
    };
    for spec in specs() {
        assert!(
            overview.contains(&format!("  {} ", spec.name)),
            "{}",
            spec.name
        );
        let help = one_command(&format!("help {}", spec.name));
        let full = format!("{XL}{}", spec.short_name());
        if spec.name == full || Spec::find(&full).is_none() {
            assert_eq!(help, one_command(&format!("xl help {}", spec.short_name())));
        }
        let Command::Help(text) = help else {
            panic!("{} has no help", spec.name);
        };
        assert!(text.contains(&format!("usage: {}", spec.name)));
        assert!(
            text.lines()
                .chain(overview.lines())
                .all(|line| line.len() <= 100),
            "{text}"
        );
        assert!(spec.details.is_empty() || spec.details.ends_with('\n'));
    }
}

fn completions(before: &str) -> (usize, Vec<String>) {
    let domains = ["web server".into(), "web2".into(), String::from("db")];
    let known = Known {
        domains: &domains,
        modules: &["micro", "linux"],
        keys: &["name", "memory", "maxmem"],
        files: &["web.cfg".into(), "boot/vmlinuz".into()],
        hosts: &["host-b".into()],
        stores: &["main".into()],
        volumes: &["main/web".into()],
    };
    let completion = complete(before, known);
    let texts = completion
        .candidates
        .into_iter()
        .map(|candidate| candidate.text);
    (completion.start, texts.collect())
}

#[test]
fn completes_commands_domains_options_and_settings() {
    let expect = |before: &str, start, want: &[&str]| {
        assert_eq!(
            completions(before),
            (start, want.iter().map(|w| (*w).into()).collect()),
            "{before}"
        );
    };
    expect("po", 0, &["poweroff"]);
    expect("ip; xl vc", 7, &["vcpu-list", "vcpu-pin"]);
    expect("xl pause ", 9, &["db", "\"web server\"", "web2"]);
    expect("xl pause \"we", 9, &["\"web server\"", "web2"]);
    expect("xl pause db ", 12, &[]);
    expect("xl list --", 8, &["--long"]);
    expect("xl sched-credit2 -d d", 20, &["db"]);
    expect("xl create ", 10, &["/dev/null", "boot/vmlinuz", "web.cfg"]);
    expect("xl volume-list ", 15, &["main"]);
    expect("xl save db ", 11, &["main/web"]);
    expect("xl create web.cfg disk=", 18, &["disk=main/web,raw,"]);
    expect("xl create web.cfg kernel=b", 18, &["kernel=boot/vmlinuz"]);
    expect("xl create /dev/null m", 20, &["maxmem=", "memory="]);
    expect(
        "xl create /dev/null kernel=module:l",
        20,
        &["kernel=module:linux"],
    );
    expect("xl create /dev/null on_crash=p", 20, &["on_crash=preserve"]);
    expect("nothing ", 8, &[]);
}

#[test]
fn disks_and_where_they_go() {
    let line = "xl block-migrate web slow --disk vda=fast:root -d xvdb=nbd://h/e --disk=vdc=fast/c -b 3 -D";
    let Command::Move(MoveCommand::Disks { domain, wanted, .. }) = one_command(line) else {
        panic!("another command");
    };
    assert_eq!(
        (domain.as_str(), wanted.rest.as_deref()),
        ("web", Some("slow"))
    );
    assert_eq!(wanted.to(), "fast,nbd://h:10809/e,slow");
    assert_eq!(
        (wanted.bandwidth_bytes, wanted.delete_source),
        (Some(3 << 20), true)
    );
    let index: Vec<u8> = wanted.disks.iter().map(|disk| disk.index).collect();
    assert_eq!(index, [0, 1, 2]);
    for (line, part) in [
        ("xl block-migrate web", "name a STORE"),
        ("xl block-migrate web -d vda", "no VDEV=TO"),
        ("xl block-migrate web -d sda=x", "none of vda"),
        ("xl block-migrate web -d vda=x -d xvda=y", "named twice"),
        ("xl block-migrate web -d vda=x: ", "no target"),
        ("xl block-migrate web x -b 1 -b 2", "given twice"),
    ] {
        assert!(refused(line).contains(part), "{line}: {}", refused(line));
    }
}

proptest! {
    #[test]
    fn any_line_parses_or_is_refused(line in "\\PC{0,60}") {
        if let Err(error) = parse_line(&line) {
            prop_assert!(!error.to_string().is_empty());
        }
        let completion = complete(&line, Known::default());
        prop_assert!(line.is_char_boundary(completion.start));
    }

    #[test]
    fn words_of_the_language_never_panic(
        words in prop::collection::vec(prop::sample::select(std::vec![
            "xl", "list", "help", "create", "/dev/null", "-", "--", "-l", "-d", "--domain=", "a=b",
            ";", "'", "\\", "ping", "-c", "1", "sched-credit2", "-é", "echo", "migrate", "xl list",
        ]), 0..8)
    ) {
        let line = words.join(" ");
        let _ = parse_line(&line);
        let _ = complete(&line, Known::default());
    }
}
