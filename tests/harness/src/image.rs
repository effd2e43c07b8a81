//! Bootable images: GRUB, the hypervisor and its modules in one hybrid ISO (BIOS and UEFI).
//!
//! Only the GRUB modules that are needed go in: an emulated CD reads slowly.

use crate::paths::{self, Artefact};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// GRUB modules: the command, what its configuration file uses, what reads the CD or a USB stick
/// that carries the ISO, and the partition maps that grub-mkrescue's own start-up script asks for.
const GRUB_MODULES: &str = "multiboot2 normal configfile serial terminal echo test sleep iso9660 \
                            part_msdos part_gpt part_acorn part_amiga part_apple part_bsd \
                            part_dfly part_dvh part_plan part_sun part_sunpc fat search \
                            search_label wrmsr";

/// Whether GRUB waits for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Menu {
    /// Boots at once, GRUB's output on the serial line only: emulators.
    Hidden,
    /// A menu for three seconds, on screen and serial line: real machines.
    Shown,
}

/// What an image carries; [`Image::write`] makes the file.
#[derive(Clone, Debug)]
pub struct Image {
    iso: PathBuf,
    name: String,
    address: Option<String>,
    hypervisor_options: String,
    dom0_options: String,
    dom0_file: Option<PathBuf>,
    /// Name and file of further modules.
    modules: Vec<(String, PathBuf)>,
    menu: Menu,
    /// GRUB commands instead of booting anything.
    script: Option<String>,
    /// A model-specific register and what GRUB writes there before it boots.
    register: Option<(u32, u64)>,
}

impl Image {
    /// An image for host `name` with all modules, to be written to `out/images/<file>.iso`.
    pub fn new(file: &str, name: &str) -> Result<Image> {
        let iso = paths::root()?
            .join("out/images")
            .join(format!("{file}.iso"));
        Image::at(&iso, name)
    }

    /// The same at a path of the caller's choice.
    pub fn at(iso: &Path, name: &str) -> Result<Image> {
        ensure!(
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
            "{name:?} is no host name: letters, digits and hyphens only"
        );
        Ok(Image {
            iso: iso.to_owned(),
            name: name.to_owned(),
            address: None,
            hypervisor_options: String::new(),
            dom0_options: String::new(),
            dom0_file: Some(Artefact::Dom0.path()?),
            modules: Vec::new(),
            menu: Menu::Hidden,
            script: None,
            register: None,
        })
    }

    /// An image with nothing but GRUB that runs `script`: proves an emulator and its serial line
    /// without any code of ours.
    pub fn grub_alone(file: &str, script: &str) -> Result<Image> {
        let mut image = Image::new(file, "grub")?;
        image.script = Some(script.to_owned());
        Ok(image)
    }

    /// dom0's address: `A.B.C.D/len` or `dhcp`.
    pub fn address(mut self, address: &str) -> Image {
        self.address = Some(address.to_owned());
        self
    }

    /// Words for the hypervisor's command line.
    pub fn hypervisor_options(mut self, options: &str) -> Image {
        self.hypervisor_options = options.to_owned();
        self
    }

    /// More words for dom0, after `name=` and `ip=`.
    pub fn dom0_options(mut self, options: &str) -> Image {
        self.dom0_options = options.to_owned();
        self
    }

    /// Puts another file in dom0's place; `None` leaves the module out. For refusal tests.
    pub fn dom0_file(mut self, file: Option<&Path>) -> Image {
        self.dom0_file = file.map(Path::to_owned);
        self
    }

    /// One more boot module: a guest's kernel or ramdisk, `module:<name>` in its configuration.
    pub fn module(mut self, name: &str, file: &Path) -> Image {
        self.modules.push((name.to_owned(), file.to_owned()));
        self
    }

    /// Lets GRUB write a model-specific register before it boots, as firmware would have.
    pub fn register(mut self, number: u32, value: u64) -> Image {
        self.register = Some((number, value));
        self
    }

    /// Whether GRUB waits.
    pub fn menu(mut self, menu: Menu) -> Image {
        self.menu = menu;
        self
    }

    /// The ISO's path.
    pub fn iso(&self) -> &Path {
        &self.iso
    }

    /// The host name dom0 will have.
    pub fn host_name(&self) -> &str {
        &self.name
    }

    /// Makes the ISO from the artefacts in `out/`.
    pub fn write(self) -> Result<Image> {
        let tree = tempfile::tempdir()?;
        let boot = tree.path().join("boot");
        std::fs::create_dir_all(boot.join("grub"))?;
        std::fs::write(boot.join("grub/grub.cfg"), self.grub_config())?;
        if self.script.is_none() {
            self.copy_modules(&boot)?;
        }
        mkrescue(&self.iso, tree.path())?;
        Ok(self)
    }

    fn copy_modules(&self, boot: &Path) -> Result<()> {
        for artefact in [Artefact::Hypervisor, Artefact::Micro] {
            copy(&artefact.built()?, &boot.join(artefact.file_name()))?;
        }
        if let Some(file) = &self.dom0_file {
            ensure!(
                file.is_file(),
                "{} does not exist: run ./x build",
                file.display()
            );
            copy(file, &boot.join(Artefact::Dom0.file_name()))?;
        }
        for (name, file) in &self.modules {
            copy(file, &boot.join(name))?;
        }
        Ok(())
    }

    /// The configuration file GRUB reads.
    fn grub_config(&self) -> String {
        let (outputs, timeout) = match self.menu {
            Menu::Hidden => ("serial", 0),
            Menu::Shown => ("serial console", 3),
        };
        let head = format!(
            "serial --unit=0 --speed=115200\n\
             terminal_input serial console\n\
             terminal_output {outputs}\n\
             set gfxpayload=text\n\
             set timeout={timeout}\n\
             set default=0\n"
        );
        match &self.script {
            Some(script) => head + script + "\n",
            None => head + &self.register_command() + &self.menu_entry(),
        }
    }

    fn register_command(&self) -> String {
        self.register.map_or(String::new(), |(number, value)| {
            format!("insmod wrmsr\nwrmsr {number:#x} {value:#x}\n")
        })
    }

    fn menu_entry(&self) -> String {
        let hypervisor = join(&["multiboot2 /boot/godwit.elf", &self.hypervisor_options]);
        let dom0 = match &self.dom0_file {
            None => String::new(),
            Some(_) => format!("\n    module2 /boot/dom0.elf {}", self.dom0_command_line()),
        };
        let more: String = self
            .modules
            .iter()
            .map(|(name, _)| format!("    module2 /boot/{name} {name}\n"))
            .collect();
        format!(
            "menuentry \"Godwit, host {}\" {{\n    {hypervisor}{dom0}\n    \
             module2 /boot/micro.elf micro\n{more}}}\n",
            self.name
        )
    }

    fn dom0_command_line(&self) -> String {
        let address = self
            .address
            .as_ref()
            .map_or(String::new(), |a| format!("ip={a}"));
        join(&[
            "dom0",
            &format!("name={}", self.name),
            &address,
            &self.dom0_options,
        ])
    }
}

fn join(words: &[&str]) -> String {
    let words: Vec<&str> = words.iter().copied().filter(|w| !w.is_empty()).collect();
    words.join(" ")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Runs `grub-mkrescue` on a directory tree. Its chatter is shown only when it fails.
pub(crate) fn mkrescue(iso: &Path, tree: &Path) -> Result<()> {
    if let Some(dir) = iso.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // Beside its place first, so that an interrupted run leaves no half image behind.
    let unfinished = iso.with_extension(format!("unfinished-{}", std::process::id()));
    let output = Command::new("grub-mkrescue")
        .args(["--locales=", "--themes=", "--fonts="])
        .arg(format!("--install-modules={GRUB_MODULES}"))
        .arg("-o")
        .args([&unfinished, tree])
        .args(["--", "-volid", "GODWIT"])
        .output()
        .context("cannot run grub-mkrescue: install grub-common, xorriso and mtools")?;
    ensure!(
        output.status.success() && unfinished.is_file(),
        "grub-mkrescue failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::rename(&unfinished, iso)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_passes_every_option_on() {
        let image = Image::new("t", "host-a")
            .unwrap()
            .address("10.77.0.1/24")
            .hypervisor_options("loglvl=debug")
            .dom0_options("gw=10.77.0.254")
            .module("linux", Path::new("vmlinuz"));
        let config = image.grub_config();
        for line in [
            "    multiboot2 /boot/godwit.elf loglvl=debug\n",
            "    module2 /boot/dom0.elf dom0 name=host-a ip=10.77.0.1/24 gw=10.77.0.254\n",
            "    module2 /boot/micro.elf micro\n",
            "    module2 /boot/linux linux\n",
            "set timeout=0\n",
        ] {
            assert!(config.contains(line), "{line:?} not in:\n{config}");
        }
        assert!(!image.dom0_file(None).grub_config().contains("dom0"));
    }

    #[test]
    fn a_name_that_would_break_the_configuration_is_refused() {
        assert!(Image::new("t", "a b").is_err());
        assert!(Image::new("t", "").is_err());
    }
}
