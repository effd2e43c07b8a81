//! `./x iso`: one hybrid image for CD and USB stick, BIOS and UEFI.

use crate::{shell, task_image};
use anyhow::Result;
use godwit_harness::{Image, Menu};
use std::path::PathBuf;

/// What goes into the image.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Host name; the prompt is "NAME# "
    #[arg(long, default_value = "host-a")]
    name: String,
    /// dom0's address: A.B.C.D/len, or dhcp
    #[arg(long, default_value = "dhcp")]
    ip: String,
    /// The file to write [default: out/godwit.iso]
    #[arg(long)]
    output: Option<PathBuf>,
    /// Words for the hypervisor, e.g. "loglvl=debug cpus=2"
    #[arg(long, default_value = "")]
    hypervisor_options: String,
    /// More words for dom0, e.g. "gw=10.0.0.1"
    #[arg(long, default_value = "")]
    dom0_options: String,
}

pub(crate) fn run(args: Args) -> Result<()> {
    task_image::build_checked()?;
    let output = match args.output {
        Some(path) => std::path::absolute(path)?,
        None => shell::out_dir()?.join("godwit.iso"),
    };
    shell::say("making the ISO");
    Image::at(&output, &args.name)?
        .address(&args.ip)
        .hypervisor_options(&args.hypervisor_options)
        .dom0_options(&args.dom0_options)
        .menu(Menu::Shown)
        .write()?;
    let size_kib = std::fs::metadata(&output)?.len().div_ceil(1024);
    println!("{} ({size_kib} KiB)", output.display());
    println!("Write it to a USB stick with dd, or burn it; it boots by BIOS and by UEFI.");
    Ok(())
}
