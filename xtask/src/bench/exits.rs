//! What exits and hypercalls cost: the micro-VM `bench` prints `EB <name> iters=N ticks=T`.
//!
//! A tick is an instruction here (counted time). The empty loop is subtracted from the loops.

use super::{Better, Row};
use anyhow::{Context, Result, ensure};
use godwit_harness::{Emulator, Host};
use std::time::Duration;

/// For the whole micro-VM, on QEMU.
const TIMEOUT: Duration = Duration::from_secs(90);
/// The loop that does nothing.
const EMPTY: &str = "empty";
/// A hypercall may cost this much of a CPUID exit.
const HYPERCALL_SHARE: f64 = 1.1;

/// What we want of a figure.
enum Goal {
    None,
    /// This many ticks, on QEMU and on Bochs.
    Ticks(Option<f64>, Option<f64>),
    /// No dearer than [`HYPERCALL_SHARE`] of the CPUID exit.
    NearCpuid,
}

/// One figure of the micro-VM.
struct Figure {
    /// Its name in the output.
    key: &'static str,
    /// Its row's name.
    name: &'static str,
    /// Whether it was measured in a loop whose own cost counts.
    looped: bool,
    goal: Goal,
    /// KVM on QEMU (SVM) and on Bochs (VT-x).
    peers: (Option<f64>, Option<f64>),
}

const fn figure(key: &'static str, name: &'static str) -> Figure {
    Figure {
        key,
        name,
        looped: true,
        goal: Goal::None,
        peers: (None, None),
    }
}

/// Every figure that must be in the output. Peers: KVM of Linux 6.1 on the same emulated machines,
/// CPUID from Linux user space, user-space devices for the ports without an in-kernel device.
const FIGURES: &[Figure] = &[
    Figure {
        goal: Goal::Ticks(Some(3067.0), Some(400.0)),
        peers: (Some(3067.0), Some(982.0)),
        ..figure("cpuid", "cpuid exit")
    },
    Figure {
        goal: Goal::NearCpuid,
        ..figure("hypercall-nop", "hypercall nop")
    },
    Figure {
        goal: Goal::Ticks(None, Some(800.0)),
        peers: (Some(1428.0), Some(1252.0)),
        ..figure("port-pic", "port exit, in-hypervisor PIC")
    },
    Figure {
        peers: (Some(4950.0), Some(4980.0)),
        ..figure("port-unused", "port exit, unused port")
    },
    figure("port-out-80", "port exit, write to 0x80"),
    figure("port-debug", "port exit, debug console"),
    figure("pm-timer", "port exit, PM timer"),
    Figure {
        goal: Goal::Ticks(Some(4950.0), Some(4984.0)),
        peers: (Some(4950.0), Some(4984.0)),
        ..figure("port-device", "port exit, device in dom0")
    },
    figure("rdmsr-apic-base", "rdmsr exit, APIC base"),
    figure("wrmsr-apic-base", "wrmsr exit, APIC base"),
    figure("rdmsr-tpr", "rdmsr, x2APIC TPR"),
    figure("wrmsr-tpr", "wrmsr, x2APIC TPR"),
    Figure {
        looped: false,
        ..figure("hlt-wake-latency", "hlt wake latency")
    },
    Figure {
        looped: false,
        ..figure("first-touch", "first touch of a page")
    },
];

/// Runs the micro-VM on a booted host and reads its figures.
pub(super) fn measure(host: &mut Host) -> Result<Vec<Row>> {
    host.command(
        "xl create /dev/null name=b kernel=module:micro memory=8 on_poweroff=preserve extra=bench",
    )?;
    let said = host.command_until("xl console -n b", "MICRO bench ", TIMEOUT)?;
    ensure!(
        said.contains("MICRO bench PASS"),
        "the bench guest failed:\n{said}"
    );
    host.command("xl destroy b")?;
    rows(&said, host.emulator())
}

fn rows(said: &str, emulator: Emulator) -> Result<Vec<Row>> {
    let empty = ticks(said, EMPTY)?;
    let cost = |figure: &Figure| -> Result<f64> {
        let own = if figure.looped { empty } else { 0.0 };
        Ok(ticks(said, figure.key)? - own)
    };
    let bochs = emulator == Emulator::Bochs;
    let here = |(qemu, on_bochs): (Option<f64>, Option<f64>)| if bochs { on_bochs } else { qemu };
    let cpuid = cost(&FIGURES[0])?;
    FIGURES
        .iter()
        .map(|figure| {
            Ok(Row {
                name: figure.name.to_owned(),
                emulator: emulator.name(),
                value: cost(figure)?,
                unit: "ticks",
                goal: match figure.goal {
                    Goal::None => None,
                    Goal::Ticks(qemu, on_bochs) => here((qemu, on_bochs)),
                    Goal::NearCpuid => Some(cpuid * HYPERCALL_SHARE),
                },
                better: Better::Less,
                peer: here(figure.peers),
            })
        })
        .collect()
}

/// Ticks for one of `name`, from its line `EB <name> iters=N ticks=T` (also in Linux guests).
pub(super) fn ticks(said: &str, name: &str) -> Result<f64> {
    let line = said
        .lines()
        .find(|line| {
            line.strip_prefix("EB ")
                .and_then(|rest| rest.split(' ').next())
                == Some(name)
        })
        .with_context(|| format!("the bench guest did not measure {name}:\n{said}"))?;
    let number = |key: &str| -> Result<f64> {
        line.split(' ')
            .find_map(|word| word.strip_prefix(key)?.parse().ok())
            .with_context(|| format!("no number {key} in {line:?}"))
    };
    Ok(number("ticks=")? / number("iters=")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> String {
        let mut text = "EB empty iters=1000 ticks=2000\n".to_owned();
        for (index, figure) in FIGURES.iter().enumerate() {
            let ticks = 100_000 * (index + 1) + 2000;
            text += &format!("EB {} iters=1000 ticks={ticks}\n", figure.key);
        }
        text
    }

    #[test]
    fn loops_cost_what_the_empty_loop_does_not() {
        let rows = rows(&said(), Emulator::Bochs).unwrap();
        assert_eq!((rows[0].value, rows[0].goal), (100.0, Some(400.0)));
        assert_eq!(rows[0].peer, Some(982.0));
        let nop = rows.iter().find(|row| row.name == "hypercall nop").unwrap();
        assert!((nop.goal.unwrap() - 110.0).abs() < 1e-9);
        let last = rows.last().unwrap();
        assert_eq!(last.value, 100.0 * FIGURES.len() as f64 + 2.0, "no loop");
    }

    #[test]
    fn a_figure_that_is_missing_is_named() {
        let without = said().replace("EB port-pic ", "skip: port-pic ");
        let error = rows(&without, Emulator::Qemu).unwrap_err().to_string();
        assert!(error.contains("did not measure port-pic"), "{error}");
    }
}
