//! Interrupts into and out of a local APIC: acceptance, priority, acknowledgement, local sources, errors (SDM 3A 11.5, 11.8).

use super::{Address, ApicMode, Destination, Ipi, IpiMode, LVT_MASKED, Lapic, SVR_ENABLE};

/// Trigger mode of an accepted interrupt; a level-triggered one is reported at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Edge.
    Edge,
    /// Level.
    Level,
}

/// Sources of interrupts inside the CPU, each with an entry in the local vector table (in register order).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalSource {
    /// APIC timer.
    Timer = 0,
    /// Thermal sensor.
    Thermal = 1,
    /// Performance counter overflow.
    Performance = 2,
    /// Pin LINT0, to which the PIC is wired.
    Lint0 = 3,
    /// Pin LINT1, to which NMI is wired.
    Lint1 = 4,
    /// Error detected by the APIC itself.
    Error = 5,
}

/// What came of an interrupt message or a local source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// Masked, or not for an APIC in this state: gone.
    Dropped,
    /// In the IRR.
    Accepted {
        /// False if the vector was pending already.
        newly_pending: bool,
    },
    /// Non-maskable interrupt for the vCPU.
    Nmi,
    /// System-management interrupt for the vCPU; guests have no SMM.
    Smi,
    /// INIT for the vCPU. Call [`Lapic::init`] as part of it.
    Init,
    /// Start-up IPI: a vCPU that waits for one begins at `page << 12`; otherwise it is ignored.
    Startup {
        /// Page number.
        page: u8,
    },
    /// External interrupt: the vector comes from the PIC.
    ExtInt,
}

/// ESR bits (SDM figure 11-9).
pub(super) const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
pub(super) const ESR_RECEIVED_ILLEGAL_VECTOR: u32 = 1 << 6;
pub(super) const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

impl Lapic {
    /// Takes a fixed interrupt into the IRR. Dropped when the APIC is off (either way) or the vector is below 16.
    #[inline]
    pub fn accept(&mut self, vector: u8, trigger: Trigger) -> Delivery {
        if self.mode == ApicMode::Disabled || self.svr & SVR_ENABLE == 0 {
            return Delivery::Dropped;
        }
        if vector < 16 {
            self.note_error(ESR_RECEIVED_ILLEGAL_VECTOR);
            return Delivery::Dropped;
        }
        let newly_pending = !self.irr.contains(vector);
        self.irr.insert(vector);
        match trigger {
            Trigger::Edge => self.tmr.remove(vector),
            Trigger::Level => self.tmr.insert(vector),
        }
        Delivery::Accepted { newly_pending }
    }

    /// Takes an IPI that [`Lapic::is_addressed`] says is for this APIC.
    pub fn receive(&mut self, ipi: Ipi) -> Delivery {
        if self.mode == ApicMode::Disabled {
            // The CPU still has its INIT and NMI pins.
            return match ipi.mode {
                IpiMode::Init => Delivery::Init,
                IpiMode::Nmi => Delivery::Nmi,
                IpiMode::Fixed | IpiMode::LowestPriority | IpiMode::Smi | IpiMode::Startup => {
                    Delivery::Dropped
                }
            };
        }
        match ipi.mode {
            IpiMode::Fixed | IpiMode::LowestPriority => self.accept(ipi.vector, Trigger::Edge),
            IpiMode::Smi => Delivery::Smi,
            IpiMode::Nmi => Delivery::Nmi,
            IpiMode::Init => Delivery::Init,
            IpiMode::Startup => Delivery::Startup { page: ipi.vector },
        }
    }

    /// Is this APIC among the destinations of a message that APIC `sender` sent?
    pub fn is_addressed(&self, destination: Destination, sender: u32) -> bool {
        self.address().is_addressed(destination, sender)
    }

    /// What decides whether a message is for this APIC.
    pub fn address(&self) -> Address {
        Address {
            id: self.id,
            mode: self.mode,
            logical: (self.ldr >> 24) as u8,
            flat: self.dfr >> 28 == 0xF,
        }
    }

    /// Logical ID of x2APIC mode.
    pub(super) fn x2apic_logical_id(&self) -> u32 {
        self.address().x2apic_logical_id()
    }

    /// A local source fires (for the LINT pins: is asserted): does what its LVT entry says.
    pub fn signal(&mut self, source: LocalSource) -> Delivery {
        let entry = self.lvt[source as usize];
        if entry & LVT_MASKED != 0 || self.mode == ApicMode::Disabled {
            return Delivery::Dropped;
        }
        if source == LocalSource::Performance {
            // The counter must be re-armed by software (SDM 3A 11.5.1).
            self.lvt[source as usize] |= LVT_MASKED;
        }
        let vector = entry as u8;
        match entry >> 8 & 7 {
            0 => {
                // Only LINT0 can be level-triggered (SDM 3A 11.5.1, "Trigger Mode").
                let level = source == LocalSource::Lint0 && entry & 1 << 15 != 0;
                self.accept(vector, if level { Trigger::Level } else { Trigger::Edge })
            }
            2 => Delivery::Smi,
            4 => Delivery::Nmi,
            5 => Delivery::Init,
            7 => Delivery::ExtInt,
            _reserved => Delivery::Dropped,
        }
    }

    /// Does the PIC's output reach this CPU: through LINT0 in ExtINT mode, or past an APIC that is off?
    #[inline]
    pub fn passes_pic(&self) -> bool {
        match self.mode {
            ApicMode::Disabled => self.bootstrap,
            ApicMode::XApic | ApicMode::X2Apic => self.lvt[3] & (LVT_MASKED | 0x700) == 0x700,
        }
    }

    /// Highest pending vector that may interrupt now, by processor priority (SDM 3A 11.8.3).
    #[inline]
    pub fn pending(&self) -> Option<u8> {
        let vector = self.irr.highest()?;
        (u32::from(vector) >> 4 > self.ppr() >> 4).then_some(vector)
    }

    /// Highest pending vector where only the task priority holds it back: lowering CR8 would release it. (What an interrupt in
    /// service holds back is released by the end of that one, which exits.)
    #[inline]
    pub fn held_by_priority(&self) -> Option<u8> {
        let vector = self.irr.highest()?;
        let class = u32::from(vector) >> 4;
        (class <= self.tpr >> 4 && class > u32::from(self.isr_highest) >> 4).then_some(vector)
    }

    /// Highest pending vector whatever the priority: the run loop asks for a TPR-threshold exit with it.
    #[inline]
    pub fn highest_requested(&self) -> Option<u8> {
        self.irr.highest()
    }

    /// The CPU takes the interrupt: moves [`Lapic::pending`] from IRR to ISR. The spurious vector if nothing is deliverable
    /// any more (SDM 3A 11.9).
    #[inline]
    pub fn acknowledge(&mut self) -> u8 {
        let Some(vector) = self.pending() else {
            return self.svr as u8;
        };
        self.irr.remove(vector);
        self.isr.insert(vector);
        self.isr_highest = vector;
        vector
    }

    /// End of interrupt: clears the highest vector in service. Returns it if it was level-triggered.
    #[inline]
    pub(super) fn end_of_interrupt(&mut self) -> Option<u8> {
        let vector = self.isr_highest;
        if vector == 0 {
            return None;
        }
        self.isr.remove(vector);
        self.isr_highest = self.isr.highest().unwrap_or(0);
        self.tmr.contains(vector).then_some(vector)
    }

    /// Logs an error; the first since the last ESR write interrupts.
    pub(super) fn note_error(&mut self, bit: u32) {
        let armed = self.esr_gathering == 0;
        self.esr_gathering |= bit;
        if armed {
            let _whether_masked = self.signal(LocalSource::Error);
        }
    }
}
