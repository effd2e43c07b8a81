//! A domain saved and restored is the same; whatever fails, nothing changes or remains.

use super::*;
use crate::command::{AfterSave, Volume};
use crate::config::DiskTarget;
use crate::host::fake::cpu_with;
use crate::names;
use crate::site::{Site, Stores};
use godwit_backends::disk::Disk;
use godwit_migrate::stream::{Frame, FrameKind, Reader, Sink, Source, SourceError, Writer};
use std::collections::BTreeMap;

const VOLUME_BYTES: u64 = 1 << 20;

fn target() -> DiskTarget {
    DiskTarget::parse("main/saved").unwrap()
}

/// A domain with something in its memory, a hole in it, and a volume to save it to.
fn ready() -> (Toolstack<FakeSite>, DomainId) {
    let toolstack = toolstack();
    let stores = toolstack.site.stores();
    block_on(stores.create_volume("main", "saved", VOLUME_BYTES)).unwrap();
    let small = |setting: &&str| {
        !["memory=", "maxmem=", "kernel="]
            .iter()
            .any(|key| setting.starts_with(key))
    };
    let kept = SETTINGS.into_iter().filter(small);
    let settings: Vec<&str> = kept
        .chain(["kernel=module:s", "memory=2", "maxmem=2"])
        .collect();
    let id = make(&toolstack, &settings).unwrap();
    let host = host(&toolstack);
    host.memory_write(id, 0x3000, b"what the guest wrote")
        .unwrap();
    host.with(id, |domain| {
        (400..410).for_each(|page| assert!(domain.pages.remove(&page).is_some()));
        domain.info.memory_pages -= 10;
        domain.platform = b"devices".to_vec();
    })
    .unwrap();
    (toolstack, id)
}

type Memory = BTreeMap<u64, Vec<u8>>;

/// What makes a domain: memory, vCPU, devices of the platform.
fn essence(toolstack: &Toolstack<FakeSite>, id: DomainId) -> (Memory, Vec<u8>, Vec<u8>) {
    let essence = host(toolstack).with(id, |domain| {
        (
            domain.pages.clone(),
            domain.vcpu_states[&0].clone(),
            domain.platform.clone(),
        )
    });
    essence.unwrap()
}

fn only(toolstack: &Toolstack<FakeSite>) -> DomainId {
    let all = names::all(host(toolstack)).unwrap();
    assert_eq!(all.len(), 2);
    names::id_of(&all[1])
}

#[test]
fn what_is_restored_is_what_was_saved() {
    let (toolstack, old) = ready();
    let before = essence(&toolstack, old);
    let entry = toolstack.registry.entry(old).unwrap();
    let told = block_on(toolstack.save(old, &target(), AfterSave::Destroy)).unwrap();
    assert!(
        told.starts_with("saved domain 'n' to 'main/saved': "),
        "{told}"
    );
    assert_eq!(host(&toolstack).domains().count(), 1);
    assert!(toolstack.site.devices.attached.borrow().is_empty());
    let (made, digest) = block_on(toolstack.restore(&target(), false)).unwrap();
    assert!(told.ends_with(&format!("memory digest {digest}")), "{told}");
    assert_eq!((made.name.as_str(), only(&toolstack)), ("n", made.domain));
    assert_eq!(essence(&toolstack, made.domain), before);
    assert_eq!(toolstack.registry.entry(made.domain), Some(entry));
    let info = host(&toolstack).domain_info(made.domain).unwrap();
    assert_eq!((info.pauses, info.memory_pages), (0, 2 * 256 - 10));
    let attached = toolstack.site.devices.attached.borrow();
    let (_, state) = &attached[&(made.domain, 4)];
    assert_eq!(state.as_deref(), Some(&b"state of disk vda"[..]));
    assert_eq!(attached.len(), 5);
}

#[test]
fn a_checkpoint_leaves_the_domain_running_and_a_copy_of_it_is_refused() {
    let (toolstack, id) = ready();
    block_on(toolstack.save(id, &target(), AfterSave::Pause)).unwrap();
    assert_eq!(host(&toolstack).domain_info(id).unwrap().pauses, 1);
    host(&toolstack).domain_unpause(id).unwrap();
    block_on(toolstack.save(id, &target(), AfterSave::Run)).unwrap();
    assert_eq!(host(&toolstack).domain_info(id).unwrap().pauses, 0);
    assert!(toolstack.site.devices.quiesced.borrow().is_empty());
    let error = block_on(toolstack.restore(&target(), false))
        .unwrap_err()
        .to_string();
    assert!(error.contains("has this uuid already"), "{error}");
    assert_eq!(only(&toolstack), id);
}

#[test]
fn whatever_fails_in_saving_the_domain_goes_on() {
    let calls = {
        let (toolstack, id) = ready();
        let before = host(&toolstack).state.borrow().calls;
        block_on(toolstack.save(id, &target(), AfterSave::Run)).unwrap();
        host(&toolstack).state.borrow().calls - before
    };
    for nth in 0..calls {
        let (toolstack, id) = ready();
        host(&toolstack).fail_call(nth, Status::NoMemory);
        let saved = block_on(toolstack.save(id, &target(), AfterSave::Destroy));
        match saved {
            Ok(_) => {
                assert_eq!(host(&toolstack).domains().count(), 1, "after call {nth}");
                continue;
            }
            Err(OperateError::Other(what)) if what.contains("cannot be destroyed") => {
                assert_eq!(host(&toolstack).domain_info(id).unwrap().pauses, 1);
                continue;
            }
            Err(_) => {}
        }
        assert_eq!(
            host(&toolstack).domain_info(id).unwrap().pauses,
            0,
            "after call {nth}"
        );
        assert!(toolstack.site.devices.quiesced.borrow().is_empty());
        assert_eq!(toolstack.site.devices.of(id).len(), 5);
        assert_eq!(toolstack.registry.entry(id).unwrap().phase, Phase::Live);
    }
    for nth in 0..6 {
        let (toolstack, id) = ready();
        let now = toolstack.site.devices.calls.get();
        toolstack.site.devices.fail.set(Some(now + nth));
        block_on(toolstack.save(id, &target(), AfterSave::Destroy)).unwrap_err();
        assert_eq!(host(&toolstack).domain_info(id).unwrap().pauses, 0);
        assert!(toolstack.site.devices.quiesced.borrow().is_empty());
    }
}

#[test]
fn whatever_fails_in_restoring_nothing_remains() {
    let (toolstack, id) = ready();
    block_on(toolstack.save(id, &target(), AfterSave::Destroy)).unwrap();
    let restore = || block_on(toolstack.restore(&target(), false));
    let fake = host(&toolstack);
    let free = fake.state.borrow().host.free_bytes;
    let now = fake.state.borrow().calls;
    let id = restore().unwrap().0.domain;
    let calls = fake.state.borrow().calls - now;
    block_on(toolstack.destroy(id)).unwrap();
    let nothing = |what: &str, nth: usize| {
        assert_eq!(fake.domains().count(), 1, "after {what} {nth}");
        assert_eq!(fake.state.borrow().host.free_bytes, free);
        assert!(toolstack.site.devices.attached.borrow().is_empty());
        assert!(toolstack.registry.all().is_empty());
    };
    for nth in 0..calls {
        fake.fail_call(nth, Status::NoMemory);
        restore().unwrap_err();
        nothing("call", nth);
    }
    for nth in 0..11 {
        let now = toolstack.site.devices.calls.get();
        toolstack.site.devices.fail.set(Some(now + nth));
        restore().unwrap_err();
        nothing("device", nth);
    }
    restore().unwrap();
}

#[test]
fn a_damaged_volume_is_refused_by_name_and_nothing_remains() {
    let (toolstack, id) = ready();
    block_on(toolstack.save(id, &target(), AfterSave::Destroy)).unwrap();
    let key = ("main".into(), "saved".into());
    let good = toolstack.site.stores.volumes.borrow()[&key].contents();
    let end = good.iter().rposition(|byte| *byte != 0).unwrap();
    for at in [0, 9, 25, 40, 60, 300, 5000, 60_000, end - 40, end - 20] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let memory = toolstack.site.stores.memory();
        let disk = godwit_backends::fake::RamDisk::with_contents(memory, bad, 512);
        toolstack
            .site
            .stores
            .volumes
            .borrow_mut()
            .insert(key.clone(), disk.into());
        let error = block_on(toolstack.restore(&target(), false))
            .unwrap_err()
            .to_string();
        let named = [
            "no saved domain",
            "version",
            "beginning",
            "checksum",
            "longer",
            "frame",
            "ends in",
        ];
        assert!(
            named.iter().any(|part| error.contains(part)),
            "octet {at}: {error}"
        );
        assert_eq!(host(&toolstack).domains().count(), 1, "octet {at}");
        assert!(toolstack.registry.all().is_empty());
    }
}

/// A stream in memory.
#[derive(Default)]
struct Octets(Vec<u8>);

impl Source for &mut Octets {
    async fn read(&mut self, out: &mut [u8]) -> Result<(), SourceError> {
        let rest = self.0.split_off(out.len().min(self.0.len()));
        out.copy_from_slice(&core::mem::replace(&mut self.0, rest));
        Ok(())
    }
}

impl Sink for &mut Octets {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// The frames of a stream, with one more behind the first, as another stream.
fn with_frame(stream: Vec<u8>, more: (FrameKind, &[u8])) -> Vec<u8> {
    let (mut from, mut to) = (Octets(stream), Octets::default());
    block_on(async {
        let mut reader = Reader::begin(&mut from).await.unwrap();
        let mut writer = Writer::begin(&mut to, 7).await.unwrap();
        let mut more = Some(more);
        while let Some(Frame {
            kind,
            version,
            body,
        }) = reader.next().await.unwrap()
        {
            writer.frame(kind, version, &[&body]).await.unwrap();
            if let Some((kind, body)) = more.take() {
                writer.frame(kind, version, &[body]).await.unwrap();
            }
        }
        writer.finish().await.unwrap();
    });
    to.0
}

#[test]
fn a_hostile_stream_gets_neither_memory_nor_places_that_are_not_its_own() {
    let (toolstack, id) = ready();
    block_on(toolstack.save(id, &target(), AfterSave::Destroy)).unwrap();
    let key = ("main".into(), "saved".into());
    let good = toolstack.site.stores.volumes.borrow()[&key].contents();
    let numbers =
        |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|one| one.to_le_bytes()).collect() };
    let mut page = numbers(&[0xfee00]);
    page.resize(8 + 4096, 1);
    let long = std::vec![0; 256 << 10];
    for (kind, body, says) in [
        (FrameKind::PAGES, page, "has no memory"),
        // The domain has 512 pages.
        (FrameKind::ZEROES, numbers(&[511, 2]), "has no memory"),
        (FrameKind::ZEROES, numbers(&[1 << 39, 1]), "has no memory"),
        (FrameKind::CPU, numbers(&[1]), "the domain's CPU: "),
        (FrameKind::VCPU, long.clone(), "too long"),
        (FrameKind::XSAVE, long.clone(), "too long"),
        (FrameKind::PLATFORM, long.clone(), "too long"),
        (FrameKind::DEVICE, long, "too long"),
    ] {
        let mut bad = with_frame(good.clone(), (kind, &body));
        bad.resize(bad.len().next_multiple_of(512), 0);
        let memory = toolstack.site.stores.memory();
        let disk = godwit_backends::fake::RamDisk::with_contents(memory, bad, 512);
        let volumes = &toolstack.site.stores.volumes;
        volumes.borrow_mut().insert(key.clone(), disk.into());
        let error = block_on(toolstack.restore(&target(), false));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(says), "{kind}: {error}");
        assert_eq!(host(&toolstack).domains().count(), 1, "{kind}");
    }
}

#[test]
fn a_host_with_a_lesser_cpu_refuses_and_one_with_a_better_tells_what_was_told_before() {
    const AVX: u32 = 1 << 28;
    const AES: u32 = 1 << 25;
    const FMA: u32 = 1 << 12;
    let (toolstack, id) = ready();
    host(&toolstack)
        .with(id, |domain| domain.cpu_policy = cpu_with(AVX | AES))
        .unwrap();
    block_on(toolstack.save(id, &target(), AfterSave::Destroy)).unwrap();
    let error = block_on(toolstack.restore(&target(), false)).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("this host lacks aes, avx ("), "{error}");
    assert_eq!(host(&toolstack).domains().count(), 1);
    host(&toolstack).state.borrow_mut().cpu = cpu_with(AVX | AES | FMA);
    let back = block_on(toolstack.restore(&target(), false)).unwrap();
    let told = host(&toolstack).with(back.0.domain, |domain| domain.cpu_policy.clone());
    assert_eq!(told, Ok(cpu_with(AVX | AES)));
}

#[test]
fn a_volume_that_is_too_small_or_in_use_or_empty() {
    let (toolstack, id) = ready();
    let stores = toolstack.site.stores();
    block_on(stores.create_volume("main", "small", 32 << 10)).unwrap();
    let save = |name: &str| {
        let target = DiskTarget::parse(name).unwrap();
        block_on(toolstack.save(id, &target, AfterSave::Destroy))
            .unwrap_err()
            .to_string()
    };
    assert!(save("main/small").contains("does not fit into 32 KiB"));
    assert!(save("main/web").contains("in use by domain 'n'"));
    assert!(save("main/none").contains("there is no volume"));
    assert_eq!(host(&toolstack).domain_info(id).unwrap().pauses, 0);
    let error = block_on(toolstack.restore(&target(), false))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "main/saved: there is no saved domain here");
    host(&toolstack).end(id, ShutdownReason::PowerOff);
    assert_eq!(save("main/saved"), "it has ended");
}

#[test]
fn volumes_are_copied_by_name() {
    let (toolstack, _) = ready();
    let volume = |name: &str| Volume {
        store: "main".into(),
        name: name.into(),
    };
    let stores = &toolstack.site.stores;
    block_on(stores.create_volume("main", "a", 1 << 20)).unwrap();
    let key = |name: &str| ("main".into(), String::from(name));
    let written = std::vec![7; 512];
    let disk = godwit_backends::fake::RamDisk::with_contents(stores.memory(), written, 512);
    stores.volumes.borrow_mut().insert(key("a"), disk.into());
    let copied = block_on(toolstack.import(&volume("b"), &volume("a").target()));
    assert_eq!(copied, Ok(512));
    assert_eq!(stores.volumes.borrow()[&key("b")].contents(), [7; 512]);
    let again = block_on(toolstack.import(&volume("b"), &volume("a").target()));
    assert!(
        again
            .unwrap_err()
            .to_string()
            .contains("there is a volume 'b' already")
    );
    block_on(toolstack.export(&volume("b"), &target())).unwrap();
    assert_eq!(
        stores.volumes.borrow()[&key("saved")].contents()[..512],
        [7; 512]
    );
    let larger = block_on(toolstack.export(&volume("saved"), &volume("a").target()));
    assert!(larger.unwrap_err().to_string().contains("no space"));
    assert_eq!(stores.volumes.borrow()[&key("a")].geometry().blocks, 1);
}
