//! `xl info` and `uptime`.

use crate::table::{duration, pair, ticks_to_ns};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use godwit_abi::{HostFeatures, HostInfo, PAGE_SIZE_BYTES, VENDOR_AMD, VENDOR_INTEL, text};

/// What `xl info` prints: `key : value`, the keys as `xl` names them where it has them. `host` is
/// the host's name, `now_tsc` the time it is read.
pub fn info(host: &str, info: &HostInfo, now_tsc: u64) -> String {
    let mut out = String::new();
    let mut say = |key: &str, value: &str| pair(&mut out, key, value);
    let vendor = match info.vendor {
        VENDOR_INTEL => "VT-x".into(),
        VENDOR_AMD => "SVM".into(),
        other => format!("unknown ({other})"),
    };
    let (family, model, stepping) = signature(info.cpu_signature);
    let up = ticks_to_ns(now_tsc.saturating_sub(info.boot_tsc), info.tsc_hz);
    say("host", host);
    say("release", text(&info.version));
    say("machine", "x86_64");
    say("nr_cpus", &format!("{}", info.cpus));
    say("cpus_present", &format!("{}", info.cpus_present));
    say("cpu_mhz", &mhz(info.tsc_hz));
    say("cpu_model", text(&info.cpu_name).trim());
    say(
        "cpu_signature",
        &format!("family {family} model {model} stepping {stepping}"),
    );
    say("virt_vendor", &vendor);
    say("virt_caps", "pvh");
    say("hw_caps", &features(info.features));
    say("total_memory", &format!("{}", info.memory_bytes >> 20));
    say("free_memory", &format!("{}", info.free_bytes >> 20));
    say("free_memory_kib", &kib(info.free_bytes));
    say("hypervisor_memory_kib", &kib(info.hypervisor_bytes));
    say("hypervisor_image_kib", &kib(info.image_bytes));
    say("domains", &format!("{}", info.domains));
    say("godwit_version", text(&info.version));
    say("godwit_abi", &format!("{}", info.abi_version));
    say("godwit_pagesize", &format!("{PAGE_SIZE_BYTES}"));
    say("godwit_commandline", text(&info.cmdline));
    say("tsc_hz", &format!("{}", info.tsc_hz));
    let boot = info.dom0_entry_tsc.saturating_sub(info.boot_tsc);
    say("dom0_entry_ticks", &format!("{boot}"));
    say("uptime", &duration(up / 1_000_000_000));
    say("unhandled_exits", &format!("{}", info.unhandled));
    out
}

/// What `uptime` prints.
pub fn uptime(info: &HostInfo, now_tsc: u64) -> String {
    let up = ticks_to_ns(now_tsc.saturating_sub(info.boot_tsc), info.tsc_hz);
    let plural = if info.domains == 1 { "" } else { "s" };
    let up = duration(up / 1_000_000_000);
    format!("up {up}, {} domain{plural}\n", info.domains)
}

fn kib(bytes: u64) -> String {
    format!("{}", bytes.div_ceil(1024))
}

fn mhz(hz: u64) -> String {
    let khz = hz / 1000;
    format!("{}.{:03}", khz / 1000, khz % 1000)
}

/// Family, model and stepping of CPUID leaf 1 EAX (SDM 2A, CPUID, figure 3-6).
fn signature(eax: u32) -> (u32, u32, u32) {
    let family = eax >> 8 & 0xf;
    let model = eax >> 4 & 0xf;
    let extended = eax >> 16 & 0xf;
    let whole_family = if family == 0xf {
        family + (eax >> 20 & 0xff)
    } else {
        family
    };
    let extends = family == 0xf || family == 6;
    let whole_model = if extends {
        extended << 4 | model
    } else {
        model
    };
    (whole_family, whole_model, eax & 0xf)
}

/// Names of the feature bits; a bit of a later version by its number.
fn features(bits: u64) -> String {
    let known = HostFeatures::from_bits_retain(bits);
    let mut names: Vec<String> = known
        .iter_names()
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    let unknown = bits & !HostFeatures::all().bits();
    let numbers = (0..64).filter(|bit| unknown >> bit & 1 != 0);
    names.extend(numbers.map(|bit| format!("bit{bit}")));
    if names.is_empty() {
        return "none".into();
    }
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Hypervisor;
    use crate::host::fake::FakeHypervisor;

    #[test]
    fn every_line_is_key_colon_value() {
        let host = FakeHypervisor::new();
        let mut facts = host.host_info().unwrap();
        facts.features |= 1 << 60;
        let text = info("host-a", &facts, host.now_tsc());
        for line in [
            "host                   : host-a",
            "nr_cpus                : 2",
            "cpu_mhz                : 1000.000",
            "cpu_signature          : family 23 model 1 stepping 2",
            "virt_vendor            : SVM",
            "hw_caps                : nested_paging tagged_tlb bit60",
            "total_memory           : 512",
            "free_memory            : 300",
            "dom0_entry_ticks       : 150000000",
            "uptime                 : 00:00:02",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(
            text.lines().all(|line| line.find(" : ") == Some(22)),
            "{text}"
        );
        assert_eq!(uptime(&facts, host.now_tsc()), "up 00:00:02, 1 domain\n");
    }

    #[test]
    fn intel_signatures() {
        assert_eq!(signature(0x0009_06ea), (6, 158, 10));
    }
}
