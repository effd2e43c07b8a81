//! `hello`: the image starts, and says where it is.

use crate::command_line::Arguments;
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::{check, cpu, say};

pub(crate) fn run(info: &StartInfo, _: &Arguments) -> Verdict {
    say!(
        "godwit-micro {} started by {} version {}",
        env!("CARGO_PKG_VERSION"),
        info.protocol,
        info.version
    );
    say!("command line: {}", info.command_line());
    let leaf = cpu::cpuid(0, 0);
    let vendor = cpu::signature([leaf.ebx, leaf.edx, leaf.ecx]);
    say!(
        "vendor {} host {:?}",
        core::str::from_utf8(&vendor).unwrap_or("not ASCII"),
        cpu::host()
    );
    for region in info.ram() {
        say!("ram {:#x}-{:#x}", region.start, region.end);
    }
    let (first, second) = (cpu::tsc(), cpu::tsc());
    say!("tsc {first}");
    check!(
        first < second,
        "the TSC stands still or runs backwards: {first} then {second}"
    );
    check!(
        info.command_line().starts_with("hello"),
        "the command line has changed under way"
    );
    Ok(())
}
