//! Keys and known hosts on the fake.

mod link;

use super::*;
use crate::command::parse_line;
use crate::operate::Toolstack;
use crate::run::{self, Effect};
use crate::site::fake::{FakeSite, block_on};
use godwit_migrate::channel::Hosts as _;
use proptest::prelude::*;
use std::format;
use std::string::ToString;
use std::vec::Vec;

const B: &str = "aaaa-bbbb-cccc-dddd-eeee-ffff-gggg-hhhh";
const C: &str = "2222-3333-4444-5555-6666-7777-aaaa-bbbb";

fn host() -> Toolstack<FakeSite> {
    Toolstack::new(FakeSite::default(), Vec::new())
}

fn loaded() -> Toolstack<FakeSite> {
    let host = host();
    assert_eq!(block_on(host.load_hosts()), [""; 0]);
    host
}

fn enter(host: &Toolstack<FakeSite>, line: &str) -> Result<String, String> {
    let mut commands = parse_line(line).map_err(|error| error.to_string())?;
    match block_on(run::run(host, "host-a", commands.remove(0))) {
        Effect::Print(text) => Ok(text),
        Effect::Fail(text) => Err(text),
        other => panic!("{line}: {other:?}"),
    }
}

fn file(host: &Toolstack<FakeSite>, path: &str) -> String {
    let files = host.site.files.files.borrow();
    String::from_utf8(files[path].clone()).unwrap()
}

#[test]
fn the_key_is_made_once_and_kept() {
    let host = loaded();
    let shown = enter(&host, "xl host-key").unwrap();
    let fingerprint = host.identity().unwrap().public().fingerprint();
    assert!(shown.contains(&format!("xl host-add host-a ADDRESS {fingerprint}\n")));
    assert!(shown.contains(": keys/host.key\n"), "{shown}");
    assert!(!shown.contains(&file(&host, KEY_PATH)[25..60]), "no secret");
    assert_eq!(block_on(host.load_hosts()), [""; 0]);
    assert_eq!(enter(&host, "xl host-key").unwrap(), shown);
    let other = enter(&host, "xl host-key --new").unwrap();
    assert_ne!(other, shown);
    assert_eq!(block_on(host.load_hosts()), [""; 0]);
    assert_eq!(enter(&host, "xl host-key").unwrap(), other);
    let error = enter(&host, "cat KEYS/host.key").unwrap_err();
    assert!(error.contains("secret"), "{error}");
}

#[test]
fn without_a_partition_the_key_is_for_this_boot() {
    let host = host();
    host.site.files.absent.set(true);
    assert_eq!(block_on(host.load_hosts()), [""; 0]);
    assert!(
        enter(&host, "xl host-key")
            .unwrap()
            .contains("this boot only")
    );
    let said = enter(&host, &format!("xl host-add b 10.0.0.2 {B}")).unwrap();
    assert!(said.contains("this boot only"));
    assert_eq!(host.known_host("b").unwrap().endpoint.port, MIGRATION_PORT);
    // The host goes on with both when its dom0 is started again.
    let print = |host: &Toolstack<FakeSite>| host.identity().unwrap().public().fingerprint();
    let before = print(&host);
    let host = Toolstack::new(host.site, Vec::new());
    assert_eq!(block_on(host.load_hosts()), [""; 0]);
    assert_eq!(print(&host), before);
    assert_eq!(host.known_host("b").unwrap().endpoint.port, MIGRATION_PORT);
    enter(&host, "xl host-key --new").unwrap();
    let newer = print(&host);
    assert_ne!(newer, before);
    let host = Toolstack::new(host.site, Vec::new());
    block_on(host.load_hosts());
    assert_eq!(print(&host), newer);
    assert!(enter(&host, "xl host-remove b").is_ok());
    assert!(host.known_host("b").is_err());
}

#[test]
fn without_entropy_there_is_no_key_and_no_file() {
    let host = host();
    host.site.no_entropy.set(true);
    let told = block_on(host.load_hosts());
    assert!(told[0].contains("no random numbers"), "{told:?}");
    assert!(host.site.files.files.borrow().is_empty());
    assert!(enter(&host, "xl host-key").unwrap_err().contains("no key"));
}

#[test]
fn a_damaged_key_is_neither_used_nor_replaced() {
    let host = loaded();
    let text = file(&host, KEY_PATH);
    let public = host.identity().unwrap().public();
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
        if at == 0 {
            let files = &host.site.files.files;
            files.borrow_mut().insert(KEY_PATH.into(), bytes.clone());
            let told = block_on(host.load_hosts());
            assert!(told[0].contains("xl host-key --new"), "{told:?}");
            assert_eq!(files.borrow()[KEY_PATH], bytes);
            assert!(host.identity().is_err());
        }
        // Bits of a secret that the curve does not look at are the same key.
        if let Ok(identity) = key::decode(&bytes) {
            assert_eq!(identity.public(), public, "{at}");
        }
    }
    assert!(key::decode(&text.as_bytes()[..text.len() - 4]).is_err());
}

#[test]
fn hosts_are_added_listed_and_removed() {
    let host = loaded();
    let add = |rest: &str| enter(&host, &format!("xl host-add {rest}"));
    assert_eq!(add(&format!("host-b 10.0.0.2:9000 {B}")), Ok(String::new()));
    assert_eq!(add(&format!("host-c fe80::1 {C}")), Ok(String::new()));
    let text = format!("host-b 10.0.0.2:9000 {B}\nhost-c [fe80::1]:8002 {C}\n");
    assert_eq!(file(&host, KNOWN_PATH), text);
    let list = enter(&host, "xl host-list").unwrap();
    assert!(
        list.contains(&format!("host-c           [fe80::1]:8002        {C}\n")),
        "{list}"
    );
    let refused = |rest: &str, why: &str| {
        let error = add(rest).unwrap_err();
        assert!(error.contains(why), "{rest}: {error}");
    };
    let d = B.replace('a', "z");
    refused(&format!("host-b 10.0.0.9 {d}"), "'host-b' already");
    refused(
        &format!("host-x 10.0.0.9 {B}"),
        "'host-b' has this fingerprint",
    );
    refused(&format!("-x 10.0.0.9 {d}"), "unknown option");
    refused(
        &format!("x_y 10.0.0.9 {d}"),
        "letters, digits and inner hyphens",
    );
    refused(&format!("x 10.0.0.900 {d}"), "no IPv4 address");
    refused(&format!("x [::1:80 {d}"), "']' is missing");
    refused(&format!("x h:0 {d}"), "no port");
    refused("x 10.0.0.9", "FINGERPRINT is missing");
    refused("x 10.0.0.9 abcd", "32 letters and digits, this has 4");
    let own = host.identity().unwrap().public().fingerprint();
    refused(&format!("x 10.0.0.9 {own}"), "this host itself");
    let error = enter(&host, "xl host-remove host-d").unwrap_err();
    assert!(error.contains("did you mean 'host-b'?"), "{error}");
    assert_eq!(enter(&host, "xl host-remove host-b"), Ok(String::new()));
    assert_eq!(
        file(&host, KNOWN_PATH),
        format!("host-c [fe80::1]:8002 {C}\n")
    );
    let names = |before: &str| {
        let candidates = run::complete(&host, before).candidates;
        candidates.into_iter().map(|c| c.text).collect::<Vec<_>>()
    };
    assert_eq!(names("xl host-remove "), ["host-c"]);
}

#[test]
fn wrong_lines_are_named_and_kept() {
    let host = host();
    let text = format!(
        "# ours\nb 10.0.0.2 {B} # rack 1\nb 10.0.0.3 {C}\nc nowhere\nd d.example:1 {C}\r\n"
    );
    let files = &host.site.files.files;
    files.borrow_mut().insert(KNOWN_PATH.into(), text.into());
    let told = block_on(host.load_hosts());
    assert_eq!(
        told,
        [
            "hosts.conf: line 3: there is a host 'b' already",
            "hosts.conf: line 4: write NAME ADDRESS[:PORT] FINGERPRINT"
        ]
    );
    let names: Vec<_> = host
        .known_hosts()
        .iter()
        .map(|host| host.name.clone())
        .collect();
    assert_eq!(names, ["b", "d"]);
    assert!(
        enter(&host, "xl host-list")
            .unwrap()
            .contains("hosts.conf: line 4: ")
    );
    enter(&host, "xl host-remove d").unwrap();
    let left = format!("# ours\nb 10.0.0.2 {B} # rack 1\nb 10.0.0.3 {C}\nc nowhere\n");
    assert_eq!(file(&host, KNOWN_PATH), left);
}

#[test]
fn there_is_a_limit() {
    let mut text = String::new();
    for number in 0..HOSTS_MAX + 30 {
        let letters: String = (0..4)
            .map(|digit| char::from(b'a' + (number >> (2 * digit) & 3) as u8))
            .collect();
        text += &format!(
            "h{number} h{number}.example {letters}{}\n",
            "z".repeat(27) + "q"
        );
    }
    let known = KnownHosts::parse(text.as_bytes());
    assert_eq!(known.iter().count(), HOSTS_MAX);
    assert!(
        known
            .problems()
            .last()
            .unwrap()
            .contains("wrong lines more")
    );
    let long = KnownHosts::parse(&[b'#'; 70_000]);
    assert_eq!(long.problems().len(), 1);
}

proptest! {
    #[test]
    fn what_is_read_is_written_and_read_the_same(text in "[ab1 .:#\\[\\]\n-]{0,80}") {
        let line = format!("{text}\nb 10.0.0.2 {B}\n");
        let known = KnownHosts::parse(line.as_bytes());
        let again = KnownHosts::parse(known.render().as_bytes());
        prop_assert_eq!(known.problems(), again.problems());
        prop_assert!(known.iter().eq(again.iter()));
        for host in known.iter() {
            let name = known.name_of(&host.fingerprint);
            prop_assert_eq!(name.as_ref(), Some(&host.name));
        }
    }
}
