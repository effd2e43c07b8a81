//! Events in VT-x's form: what an entry injects (SDM 3C 25.8.3) and what an exit has interrupted (SDM 3C 25.9.3).
//!
//! Both use one layout: vector in bits 7:0, type in bits 10:8, "deliver error code" in bit 11, "NMI unblocking due to
//! IRET" in bit 12 (exits only), valid in bit 31.

use godwit_records::{EventKind, PendingEvent};

use crate::hardware::Event;

const KIND_SHIFT: u32 = 8;
const ERROR_CODE: u32 = 1 << 11;
const NMI_UNBLOCKED: u32 = 1 << 12;
const VALID: u32 = 1 << 31;
const NMI_VECTOR: u32 = 2;

/// Interruption types (SDM 3C table 25-17).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Kind {
    External = 0,
    Nmi = 2,
    HardwareException = 3,
    SoftwareInterrupt = 4,
    PrivilegedSoftwareException = 5,
    SoftwareException = 6,
}

impl Kind {
    const fn of(code: u32) -> Option<Kind> {
        Some(match code {
            0 => Kind::External,
            2 => Kind::Nmi,
            3 => Kind::HardwareException,
            4 => Kind::SoftwareInterrupt,
            5 => Kind::PrivilegedSoftwareException,
            6 => Kind::SoftwareException,
            _ => return None,
        })
    }

    /// Raised by an instruction that is over once the event is delivered: RIP is pushed past it.
    const fn is_software(self) -> bool {
        match self {
            Kind::SoftwareInterrupt
            | Kind::PrivilegedSoftwareException
            | Kind::SoftwareException => true,
            Kind::External | Kind::Nmi | Kind::HardwareException => false,
        }
    }
}

/// An interruption-information or IDT-vectoring-information field as an exit left it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interruption(pub u32);

impl Interruption {
    /// Whether the field says anything.
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// The vector.
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// How the event came about. `None`: the field is not valid, or its type is one the manual reserves.
    pub const fn kind(self) -> Option<Kind> {
        if !self.is_valid() {
            return None;
        }
        Kind::of(self.0 >> KIND_SHIFT & 7)
    }

    /// Whether an error code goes with it.
    pub const fn has_error_code(self) -> bool {
        self.0 & ERROR_CODE != 0
    }

    /// Bit 12, of exit interruption information only.
    pub const fn nmi_unblocked_by_iret(self) -> bool {
        self.is_valid() && self.0 & NMI_UNBLOCKED != 0
    }
}

/// The three VM-entry fields that deliver an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injection {
    /// VM-entry interruption information.
    pub information: u32,
    /// VM-entry exception error code; 0 without one.
    pub error_code: u32,
    /// VM-entry instruction length, of software events; 0 otherwise.
    pub instruction_length: u32,
}

impl Injection {
    fn new(
        kind: Kind,
        vector: u32,
        error_code: Option<u32>,
        length: u32,
        protected: bool,
    ) -> Injection {
        // Only exceptions have error codes, and none in real mode (SDM 3C 27.2.1.3: bit 11 must be 0 with CR0.PE = 0).
        let error_code = error_code.filter(|_| kind == Kind::HardwareException && protected);
        let flag = if error_code.is_some() { ERROR_CODE } else { 0 };
        Injection {
            information: VALID | flag | (kind as u32) << KIND_SHIFT | vector,
            error_code: error_code.unwrap_or(0),
            instruction_length: if kind.is_software() { length } else { 0 },
        }
    }

    /// An event of the hypervisor's. `protected`: the guest's CR0.PE.
    pub fn of_event(event: Event, protected: bool) -> Injection {
        match event {
            Event::External(vector) => {
                Self::new(Kind::External, u32::from(vector), None, 0, protected)
            }
            Event::Nmi => Self::new(Kind::Nmi, NMI_VECTOR, None, 0, protected),
            Event::Exception(vector, error_code) => Self::new(
                Kind::HardwareException,
                u32::from(vector),
                error_code,
                0,
                protected,
            ),
        }
    }

    /// An event as an exit reported it, to be delivered (again): one whose delivery the exit interrupted, or an
    /// exception that was intercepted. `None` if there is none.
    pub fn of_exit(
        interruption: Interruption,
        error_code: u32,
        length: u32,
        protected: bool,
    ) -> Option<Injection> {
        let kind = interruption.kind()?;
        let error_code = interruption.has_error_code().then_some(error_code);
        let vector = u32::from(interruption.vector());
        Some(Self::new(kind, vector, error_code, length, protected))
    }

    /// The event of a state record.
    pub fn of_record(event: &PendingEvent, protected: bool) -> Injection {
        let kind = match event.kind {
            EventKind::External => Kind::External,
            EventKind::Nmi => Kind::Nmi,
            EventKind::Exception => Kind::HardwareException,
            EventKind::SoftwareInterrupt => Kind::SoftwareInterrupt,
            EventKind::PrivilegedSoftwareException => Kind::PrivilegedSoftwareException,
            EventKind::SoftwareException => Kind::SoftwareException,
        };
        let vector = if kind == Kind::Nmi {
            NMI_VECTOR
        } else {
            u32::from(event.vector)
        };
        Self::new(
            kind,
            vector,
            event.error_code,
            u32::from(event.instruction_length),
            protected,
        )
    }

    /// The event for a state record. `None` if nothing is injected.
    pub fn to_record(self) -> Option<PendingEvent> {
        let interruption = Interruption(self.information);
        let kind = match interruption.kind()? {
            Kind::External => EventKind::External,
            Kind::Nmi => EventKind::Nmi,
            Kind::HardwareException => EventKind::Exception,
            Kind::SoftwareInterrupt => EventKind::SoftwareInterrupt,
            Kind::PrivilegedSoftwareException => EventKind::PrivilegedSoftwareException,
            Kind::SoftwareException => EventKind::SoftwareException,
        };
        Some(PendingEvent {
            kind,
            vector: interruption.vector(),
            error_code: interruption.has_error_code().then_some(self.error_code),
            instruction_length: self.instruction_length as u8,
        })
    }

    /// Whether an NMI is delivered: blocking by NMI must then be clear at entry (SDM 3C 27.3.1.5).
    pub fn is_nmi(self) -> bool {
        Interruption(self.information).kind() == Some(Kind::Nmi)
    }
}
