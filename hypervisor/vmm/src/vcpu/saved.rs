//! What a vCPU is besides its hardware, as records and back.

use godwit_records::{Activity, VcpuLocal};

use super::entry::{PicLine, Running};
use super::forward::Forwarded;
use super::msr::Mtrrs;
use super::{Inbox, Message, Vcpu};
use crate::devices::lapic::Lapic;
use crate::devices::state::SavedVcpu;
use crate::devices::{BadState, TscRate};

impl Vcpu {
    /// Takes what others have posted, on a vCPU that does not run and is about to be saved. What needs its registers waits, and is
    /// saved as waiting.
    pub fn absorb(&mut self, inbox: &Inbox) {
        let mut flush = false;
        inbox.collect(|message| match message {
            Message::Interrupt(vector, trigger) => {
                let _dropped_or_accepted = self.lapic.accept(vector, trigger);
            }
            Message::Nmi => self.raise_nmi(),
            // Guests have no SMM.
            Message::Smi => {}
            Message::Init => self.init_pending = true,
            Message::Startup(page) if self.init_pending => self.startup_after_init = Some(page),
            Message::Startup(page) => self.note_startup(page),
            Message::PlatformChanged => self.platform_changed(),
            Message::FlushTranslations => flush = true,
        });
        if flush {
            // For the next entry here, should there be one.
            inbox.post(Message::FlushTranslations);
        }
    }

    /// What it does, for its `VcpuState`. `halted`: it waits, in HLT, for its start-up IPI, for its write quota, for a page, or for dom0 and
    /// then in the midst of an instruction that it executes again.
    pub fn activity(&self, halted: bool) -> Activity {
        let halted = halted && !self.awaits_answer() && !self.stalled && !self.starved;
        match self.running {
            Running::WaitForStartup | Running::Startup(_) => Activity::WaitForSipi,
            Running::Yes | Running::HaltedMasked if halted => Activity::Halted,
            Running::Yes | Running::HaltedMasked => Activity::Running,
        }
    }

    /// What is in no other record of vCPU `index`. Its messages have been absorbed.
    pub fn save(&self, index: u16) -> SavedVcpu {
        let Vcpu {
            lapic,
            // The domain's.
            access: _,
            tsc_offset,
            platform_offset,
            tsc_adjust,
            nmi_pending,
            init_pending,
            startup_after_init,
            // Asked of the back end anew.
            window_open: _,
            running,
            // Looked up anew.
            pic: _,
            platform_deadline: _,
            apic_due_host_tsc: _,
            platform_due_host_tsc: _,
            mtrr,
            // It stands before the instruction and makes its accesses again.
            forwarded: _,
            // The quota is the host's.
            paid_until: _,
            stalled: _,
            // It runs into the page again.
            starved: _,
            // dom0's, which is not saved.
            blocked_call: _,
        } = self;
        let startup_page = match (running, startup_after_init) {
            (_, Some(page)) => Some(*page),
            (Running::Startup(page), None) => Some(*page),
            // HLT with interrupts disabled shows in the flags.
            (Running::Yes | Running::HaltedMasked | Running::WaitForStartup, None) => None,
        };
        let Mtrrs {
            default_type,
            fixed,
        } = mtrr;
        SavedVcpu {
            local: VcpuLocal {
                vcpu: index,
                tsc_ahead: tsc_offset.wrapping_sub(*platform_offset),
                tsc_adjust: *tsc_adjust,
                nmi_pending: *nmi_pending,
                init_pending: *init_pending,
                startup_page,
                mtrr_default: *default_type,
                mtrr_fixed: *fixed,
            },
            lapic: lapic.save(),
        }
    }

    /// Takes on what was saved, in a domain with this rate and this platform time less host TSC. Its registers, and with them
    /// what it does, are set apart ([`Vcpu::set_activity`], afterwards). Nothing is changed when it is refused.
    pub fn restore(
        &mut self,
        saved: &SavedVcpu,
        rate: TscRate,
        platform_offset: u64,
    ) -> Result<(), BadState> {
        let SavedVcpu { local, lapic } = saved;
        let &VcpuLocal {
            vcpu: _,
            tsc_ahead,
            tsc_adjust,
            nmi_pending,
            init_pending,
            startup_page,
            mtrr_default,
            mtrr_fixed,
        } = local;
        let mtrr = Mtrrs::checked(mtrr_default, mtrr_fixed)?;
        let lapic = Lapic::restore(lapic, rate)?;
        let (running, startup_after_init) = match startup_page {
            Some(page) if init_pending => (Running::Yes, Some(page)),
            Some(page) => (Running::Startup(page), None),
            None => (Running::Yes, None),
        };
        *self = Vcpu {
            lapic,
            access: self.access,
            tsc_offset: platform_offset.wrapping_add(tsc_ahead),
            platform_offset,
            tsc_adjust,
            nmi_pending,
            init_pending,
            startup_after_init,
            window_open: false,
            running,
            pic: PicLine::Unknown,
            platform_deadline: u64::MAX,
            apic_due_host_tsc: u64::MAX,
            platform_due_host_tsc: u64::MAX,
            mtrr,
            forwarded: Forwarded::default(),
            paid_until: 0,
            stalled: false,
            starved: false,
            blocked_call: None,
        };
        Ok(())
    }

    /// A start-up IPI: one that runs ignores it; so does one that has had one (SDM 3A, 9.4.4.1).
    pub(super) fn note_startup(&mut self, page: u8) {
        if self.running == Running::WaitForStartup {
            self.running = Running::Startup(page);
        }
    }

    /// As after `Lapic::restore`, for a domain that is checked before anything of it changes.
    pub fn check(saved: &SavedVcpu, rate: TscRate) -> Result<(), BadState> {
        Mtrrs::checked(saved.local.mtrr_default, saved.local.mtrr_fixed)?;
        Lapic::restore(&saved.lapic, rate).map(|_| ())
    }
}
