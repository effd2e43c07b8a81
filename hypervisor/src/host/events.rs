//! dom0's event ports: small numbers that stand for sources, and which of them are pending.

use godwit_abi::{EventSource, Port, Refusal, SERVED_PORTS_MAX, Status};
use godwit_vmm::sched::VcpuKey;
use zerocopy::IntoBytes;

use super::caller::Caller;
use super::{Host, Hosted};
use crate::platform::clock;

/// Event ports there are.
pub(super) const PORTS_MAX: usize = 256;
/// Ports given by one `wait`: more are left for the next. Few, because every wake-up of dom0 goes through here.
const TAKEN_MAX: usize = SERVED_PORTS_MAX;
const WORDS: usize = PORTS_MAX / 64;

/// What a port stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Named(EventSource),
    /// An interrupt of a device, by its host vector.
    Interrupt(u8),
}

/// The ports and their pending bits.
pub(super) struct Events {
    sources: [Option<Source>; PORTS_MAX],
    pending: [u64; WORDS],
}

impl Events {
    pub(super) fn new() -> Self {
        Self {
            sources: [None; PORTS_MAX],
            pending: [0; WORDS],
        }
    }

    pub(super) fn bind(&mut self, source: Source) -> Result<Port, Status> {
        if self.sources.contains(&Some(source)) {
            return Err(Status::Exists);
        }
        let free = self
            .sources
            .iter()
            .position(Option::is_none)
            .ok_or(Status::Full)?;
        self.sources[free] = Some(source);
        // The source may have had something before anybody listened: the first look is for free.
        self.pending[free / 64] |= 1 << (free % 64);
        Ok(Port(free as u32))
    }

    pub(super) fn source(&self, port: Port) -> Option<Source> {
        *self.sources.get(port.0 as usize)?
    }

    pub(super) fn close(&mut self, port: Port) -> Option<Source> {
        let source = self.sources.get_mut(port.0 as usize)?.take();
        self.pending[port.0 as usize / 64] &= !(1 << (port.0 % 64));
        source
    }

    /// Marks a source's port pending. Returns whether anybody listens.
    fn raise(&mut self, source: Source) -> bool {
        match self.sources.iter().position(|bound| *bound == Some(source)) {
            Some(port) => {
                self.pending[port / 64] |= 1 << (port % 64);
                true
            }
            None => false,
        }
    }

    /// Takes one pending port.
    pub(super) fn take(&mut self) -> Option<Port> {
        let word = self.pending.iter().position(|word| *word != 0)?;
        let bit = self.pending[word].trailing_zeros();
        self.pending[word] &= self.pending[word] - 1;
        Some(Port(word as u32 * 64 + bit))
    }

    pub(super) fn any_pending(&self) -> bool {
        self.pending.iter().any(|word| *word != 0)
    }
}

impl<B: Hosted> Host<B> {
    /// Something dom0 may want to know has happened.
    pub(super) fn raise(&self, source: EventSource) {
        self.raise_source(Source::Named(source));
    }

    pub(super) fn raise_source(&self, source: Source) {
        if self.events.lock().raise(source)
            && let Some(dom0) = self.control_key()
        {
            self.wake(dom0);
        }
    }

    /// dom0's vCPU.
    #[inline]
    pub(super) fn control_key(&self) -> Option<VcpuKey> {
        let vcpu = self.control.get()?.vcpus().first()?;
        Some(vcpu.key)
    }
}

impl<B: Hosted> Caller<'_, B> {
    /// Takes pending ports, or sleeps.
    pub(super) fn take_ports(
        &mut self,
        deadline_tsc: u64,
        address: u64,
        capacity: u64,
    ) -> Result<u64, Refusal> {
        let capacity = capacity.min(TAKEN_MAX as u64) as usize;
        if capacity == 0 {
            return Err(Status::BadArgument.into());
        }
        if !self.host.events.lock().any_pending() {
            self.sleep_until(deadline_tsc)?;
        }
        self.put_ports(address, capacity)
    }

    /// The caller, who has found nothing, sleeps until then.
    pub(super) fn sleep_until(&mut self, deadline_tsc: u64) -> Result<(), Refusal> {
        if deadline_tsc <= clock::tsc() {
            return Ok(());
        }
        *self.wait_deadline = deadline_tsc;
        Err(Refusal::Block)
    }

    /// Gives the caller the ports that are pending, at most `capacity` (and [`TAKEN_MAX`]).
    pub(super) fn put_ports(&self, address: u64, capacity: usize) -> Result<u64, Refusal> {
        let (mut ports, mut count) = ([0u32; TAKEN_MAX], 0);
        {
            let mut events = self.host.events.lock();
            while count < capacity
                && let Some(port) = events.take()
            {
                ports[count] = port.0;
                count += 1;
            }
        }
        let bytes = ports[..count].as_bytes();
        self.put(address, bytes.len() as u64, bytes)?;
        Ok(count as u64)
    }
}
