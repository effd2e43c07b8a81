//! `./x store`: a store image for `./x host --disk`.

use anyhow::{Context, Result};
use godwit_harness::{StoreImage, VolumeContents};
use std::path::PathBuf;

/// The store to make.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image file, which is made anew
    image: PathBuf,
    /// The store's name [default: its device's]
    #[arg(long)]
    label: Option<String>,
    /// Put a file into the configuration partition, NAME=FILE, such as guests/web.cfg=web.cfg
    #[arg(long, value_name = "NAME=FILE")]
    file: Vec<String>,
    /// Make a volume, NAME=FILE or NAME=MiB
    #[arg(long, value_name = "NAME=FILE|MIB")]
    volume: Vec<String>,
    /// Space that is left free, in MiB
    #[arg(long, default_value_t = 256)]
    free: u64,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let mut image = StoreImage::new(&args.image).free_mib(args.free);
    if let Some(label) = &args.label {
        image = image.label(label);
    }
    for text in &args.file {
        let (name, file) = text.split_once('=').context("--file is NAME=FILE")?;
        let contents = std::fs::read(file).with_context(|| file.to_owned())?;
        image = image.file(name, &contents);
    }
    for text in &args.volume {
        let (name, what) = text
            .split_once('=')
            .context("--volume is NAME=FILE or NAME=MiB")?;
        let contents = match what.parse::<u64>() {
            Ok(mib) => VolumeContents::Zeroes(mib << 20),
            Err(_) => VolumeContents::File(what.into()),
        };
        image = image.volume(name, contents);
    }
    let store = image.write()?;
    for name in store.partitions()? {
        println!("{name}");
    }
    Ok(())
}
