//! Configurations: what is accepted, what is refused, and how it is said.

use super::*;
use alloc::string::ToString;
use proptest::prelude::*;

const GOOD: &str = "\
# a comment
name = \"web\"            # another
memory = 0x40; maxmem = 128
vcpus=2
uuid = '01234567-89ab-cdef-0123-456789ABCDEF'
kernel = \"module:linux\"
ramdisk = \"module:initrd\"
root = \"/dev/vda\"
extra = \"quiet \\\"x\\\"\"
cpu_weight = 512
cap = 150
type = \"pvh\"
cpus = \"0-1\"
cpu_policy = \"host\"
disk = [ 'vdev=vdb,target=nbd://h/e,access=ro', # the second
         'main/web,raw,xvda' ]
vif = ['type=nat']
serial = \"pty\"; console = 1; rng = 0; balloon = 1; autostart = 1
on_crash = 'preserve'
";

fn settings(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| String::from(*text)).collect()
}

fn refused(text: &str, overrides: &[&str]) -> String {
    parse("f.cfg", text, &settings(overrides))
        .unwrap_err()
        .to_string()
}

#[test]
fn everything_set() {
    let config = parse("f.cfg", GOOD, &[]).unwrap();
    let uuid = 0x01234567_89ab_cdef_0123_456789abcdefu128.to_be_bytes();
    let want = Config {
        name: "web".into(),
        uuid: Some(uuid),
        memory_mib: 64,
        memory_max_mib: 128,
        vcpus: 2,
        kernel: Image::Module("linux".into()),
        ramdisk: Some(Image::Module("initrd".into())),
        cmdline: "root=/dev/vda quiet \"x\"".into(),
        weight: 512,
        cap_percent: 150,
        cpus: std::vec![0b11],
        cpu_policy: CpuPolicy::Host,
        disks: std::vec![
            Disk::parse("main/web,raw,xvda").unwrap(),
            Disk::parse("vdev=vdb,target=nbd://h/e,access=ro").unwrap(),
        ],
        vifs: std::vec![Vif::parse("type=nat").unwrap()],
        console: true,
        rng: false,
        balloon: true,
        autostart: true,
        end: EndActions {
            on_crash: EndAction::Preserve,
            ..EndActions::default()
        },
    };
    assert_eq!(config, want);
}

#[test]
fn arguments_override_and_may_be_bare() {
    let all = settings(&[
        "name=t 1",
        "memory=8",
        "extra=\"hello\"",
        "root=",
        "vcpus='x'",
        "vcpus=1",
    ]);
    let config = parse("f.cfg", GOOD, &all).unwrap();
    assert_eq!((config.name.as_str(), config.vcpus), ("t 1", 1));
    assert_eq!((config.memory_mib, config.memory_max_mib), (8, 128));
    assert_eq!(config.cmdline, "root= hello");
    let all = settings(&[
        "name=123abc",
        "memory=8",
        "extra=0x10",
        "kernel=module:micro",
    ]);
    let config = parse("/dev/null", "", &all).unwrap();
    assert_eq!((config.name.as_str(), config.memory_mib), ("123abc", 8));
    assert_eq!(
        (config.cmdline.as_str(), config.memory_max_mib),
        ("0x10", 8)
    );
    assert_eq!(
        (config.vcpus, config.weight, config.cap_percent),
        (1, 256, 0)
    );
    assert_eq!(config.cpu_policy, CpuPolicy::Portable);
    assert!(config.rng && config.balloon && !config.console);
}

#[test]
fn all_problems_at_once_each_with_its_caret() {
    let text = "name = \"a\"\nmemroy = 3\nvcpus = 99\n  memory 5\nkernel = \"module:k\n";
    let want = "\
f.cfg:2:1: unknown key 'memroy': did you mean 'memory'?
    memroy = 3
    ^
f.cfg:3:9: 'vcpus' is a number from 1 to 32
    vcpus = 99
            ^
f.cfg:4:10: '=' is expected after 'memory'
      memory 5
             ^
f.cfg:5:10: the quote \" is not closed
    kernel = \"module:k
             ^";
    let error = refused(text, &[]);
    assert!(error.ends_with(want), "{error}");
    assert!(error.contains("'kernel' is missing"), "{error}");
}

#[test]
fn each_refusal_names_its_reason() {
    for (setting, part) in [
        ("name=", "'name' is empty"),
        ("name=42", "taken for a domain's id"),
        ("name=\"a\\tb\"", "control character"),
        ("uuid=12", "'uuid' has the form"),
        ("memory=0", "from 1 to 16777216"),
        ("memory=lots", "from 1 to 16777216"),
        ("memory=[1]", "from 1 to 16777216"),
        ("memory=0x10000000000000000", "from 1 to 16777216"),
        ("maxmem=1", "'maxmem' (1) is less than 'memory' (8)"),
        ("kernel=", "'kernel' is empty"),
        ("kernel=module:", "names no module"),
        ("type=hvm", "not implemented: type=\"hvm\""),
        ("type=x", "'type' cannot be 'x'"),
        (
            "on_reboot=rename-restart",
            "not implemented: on_reboot=\"rename-restart\"",
        ),
        ("serial=none", "not implemented: serial=\"none\""),
        ("cpu_policy=best", "'cpu_policy' cannot be 'best'"),
        ("cpus=9-8", "'9-8' is no CPU"),
        ("cpus=['0','1']", "2 entries for 1 vCPUs"),
        ("balloon=2", "from 0 to 1"),
        ("disk=a/b", "'vdev' is missing"),
        ("disk=[7]", "'disk' is a [\"text\", ...]"),
        ("disk=['a/b,,vda','a/c,,xvda']", "two disks vda"),
        ("disk=['a/b,,vda','a/b,,vdb,r']", "'a/b' is a disk already"),
        ("vif=type=tap", "neither 'nat' nor 'routed' nor 'bridge'"),
        (
            "vif=['mac=02:00:00:00:00:01','mac=02:00:00:00:00:01']",
            "two vifs with this mac",
        ),
        ("on_crash=explode", "'on_crash' cannot be 'explode'"),
        ("pci=[]", "not implemented: the key 'pci'"),
        ("cap=6401", "from 0 to 6400"),
        ("extra=\"a\" b", "'b' after the value"),
        ("extra=\"\\q\"", "have a meaning"),
        ("nonsense", "KEY=VALUE"),
    ] {
        let good = ["name=n", "memory=8", "kernel=module:m"];
        let key = setting.split('=').next().unwrap();
        let kept = good.into_iter().filter(|other| !other.starts_with(key));
        let all: Vec<&str> = kept.chain([setting]).collect();
        let error = refused("", &all);
        assert!(error.contains(part), "{setting}: {error}");
    }
    assert!(refused(GOOD, &["cmdline=a"]).contains("cannot be joined"));
    assert!(refused("memory=1\nmemory=2", &[]).contains("'memory' is set twice"));
    assert!(refused("a=[[[[[1]]]]]", &[]).contains("nested deeper"));
    assert!(refused("a=[1\n,'x'\n", &[]).contains("',' or ']' is expected"));
    assert!(refused("a=-1", &[]).contains("negative"));
    assert!(refused("a=1x", &[]).contains("'1x' is no number"));
}

#[test]
fn what_the_host_finds_is_shown_where_it_is_set() {
    let all = settings(&["memory=8", "disk=['a/b,,vdb', 'a/c,,vda']"]);
    let text = "name = \"n\"\nkernel = \"k\"\n";
    let document = read("f.cfg", text, &all).unwrap();
    let error = document.refuse(std::vec![
        (Spot::Disk(0), "no volume c".into()),
        (Spot::Key("kernel"), "no file k".into()),
        (Spot::Key("maxmem"), "too much".into()),
    ]);
    let error = error.to_string();
    let lines: Vec<&str> = error
        .lines()
        .filter(|line| !line.starts_with(' '))
        .collect();
    let want = [
        "f.cfg:1:1: too much",
        "f.cfg:2:10: no file k",
        "setting 2:1:19: no volume c",
    ];
    assert_eq!(lines, want);
}

#[test]
fn a_configuration_reads_back_as_it_is_rendered() {
    let mut config = parse("f.cfg", GOOD, &[]).unwrap();
    assert_eq!(parse("again", &config.render(), &[]), Ok(config.clone()));
    config.cmdline = "a\\b \"c\" #".into();
    config.kernel = Image::File("boot/vmlinuz".into());
    config.cpus = std::vec![1, 6];
    config.cpu_policy = CpuPolicy::Portable;
    config.end.on_crash = EndAction::Restart;
    assert_eq!(parse("again", &config.render(), &[]), Ok(config));
}

#[test]
fn limits_hold() {
    let many = "x\n".repeat(PROBLEMS_MAX * 2);
    let error = parse("f", &many, &[]).unwrap_err();
    assert_eq!(error.findings.len(), PROBLEMS_MAX);
    assert!(refused(&" ".repeat(CONFIG_BYTES_MAX + 1), &[]).contains("longer than"));
    let many = format!("a=[{}]", "1,".repeat(LIST_ENTRIES_MAX + 1));
    assert!(refused(&many, &[]).contains("more than 256 entries"));
    let long = format!("extra={}", "x".repeat(CMDLINE_BYTES_MAX + 1));
    assert!(refused("", &[&long]).contains("longer than 4095 bytes"));
}

#[test]
fn numbers_in_three_bases() {
    for (word, want) in [
        ("0", Some(0)),
        ("010", Some(8)),
        ("0xFf", Some(255)),
        ("18446744073709551615", Some(u64::MAX)),
    ] {
        assert_eq!(text::number(word), want, "{word}");
    }
    for word in ["", "0x", "08", "18446744073709551616", "+1", "1_0"] {
        assert_eq!(text::number(word), None, "{word}");
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,80}", argument in "\\PC{0,30}") {
        if let Err(error) = parse("f", &text, &[argument]) {
            prop_assert!(!error.findings.is_empty());
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn text_like_a_configuration_is_parsed_or_refused(
        parts in prop::collection::vec(prop::sample::select(std::vec![
            "name", "=", "\"", "'", "a", "1", "0x", "[", "]", ",", ";", "\n", "#", "\\", " ", "é",
            "memory=5\n", "kernel=\"module:x\"\n", "name=\"n\"\n", "\r\n",
        ]), 0..40)
    ) {
        let text = parts.concat();
        if let Err(error) = parse("f", &text, &[]) {
            prop_assert!(error.findings.len() <= PROBLEMS_MAX);
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
