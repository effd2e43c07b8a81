//! Shared storage: an NBD server on the build machine, which hosts reach through a gateway.

use anyhow::{Context, Result};
use std::net::{SocketAddrV4, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A TCP port of loopback that nobody listens on now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// An NBD server on the build machine's loopback (`qemu-nbd` of the package qemu-utils).
pub struct NbdServer {
    child: Child,
    file: PathBuf,
    seen_as: SocketAddrV4,
}

impl NbdServer {
    /// Serves `file`, made of `bytes` zeroes, as the export `disk` on a port of loopback; dom0 sees it elsewhere.
    pub fn start(file: PathBuf, bytes: u64, port: u16, seen_as: SocketAddrV4) -> Result<NbdServer> {
        std::fs::File::create(&file)?.set_len(bytes)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "qemu-nbd", "--format=raw"])
            .args(["--persistent", "--shared=16", "--bind=127.0.0.1"])
            .args(["--export-name=disk", &format!("--port={port}")])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start qemu-nbd: install the package qemu-utils")?;
        Ok(NbdServer {
            child,
            file,
            seen_as,
        })
    }

    /// As dom0 reaches it.
    pub fn target(&self) -> String {
        format!("nbd://{}/disk", self.seen_as)
    }

    /// Ends it; what it holds.
    pub fn into_contents(mut self) -> Result<Vec<u8>> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(std::fs::read(&self.file)?)
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        // Either it is gone already or this works.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
