//! The `hypercalls!` macro: from one table come the call enum, the checks, the client, the
//! handler trait, the dispatcher and the documentation.
//!
//! Registers (chosen so that one convention serves VMCALL and VMMCALL): number in RAX, arguments
//! in RDI, RSI, RDX, R10, R8; status back in RAX, value in RDX; every other register is kept. The
//! control domain's instruction has no prefixes.

use crate::ids::{
    Answered, DomainId, EventSource, InterruptKind, PciAddress, Port, PowerAction, VcpuIndex,
};
use crate::status::Status;

/// The most arguments a hypercall takes.
pub const MAX_ARGUMENTS: usize = 5;

/// Who may make a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Every domain.
    Any,
    /// The control domain only.
    Control,
}

/// One row of the documentation table.
pub struct CallDoc {
    /// The number in RAX.
    pub number: u64,
    /// The name, as the client's method.
    pub name: &'static str,
    /// Who may call.
    pub access: Access,
    /// Argument names and types, in register order.
    pub arguments: &'static [(&'static str, &'static str)],
    /// Type of the value in RDX.
    pub returns: &'static str,
    /// What it does, its units and its errors.
    pub doc: &'static str,
}

/// What a handler says when it does not complete a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The call fails with this status.
    Status(Status),
    /// The caller sleeps until it is woken, then makes the same call again.
    Block,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Refusal::Status(status)
    }
}

/// What the dispatcher tells the run loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Write status and value to the caller's registers and step over the instruction.
    Return(Status, u64),
    /// Leave the registers alone and put the vCPU to sleep; it repeats the instruction.
    Block,
}

/// How a client reaches the hypervisor: the one instruction that is not portable.
pub trait Trap {
    /// Makes the call; returns status and value.
    fn trap(&self, number: u64, arguments: [u64; MAX_ARGUMENTS]) -> (Status, u64);
}

/// A type that travels in one register.
pub(crate) trait Argument: Sized {
    /// From the register, or `None` if no value of the type is written so.
    fn decode(raw: u64) -> Option<Self>;
    /// To the register.
    fn encode(self) -> u64;
}

impl Argument for () {
    fn decode(_: u64) -> Option<Self> {
        Some(())
    }
    fn encode(self) -> u64 {
        0
    }
}

impl Argument for u64 {
    fn decode(raw: u64) -> Option<Self> {
        Some(raw)
    }
    fn encode(self) -> u64 {
        self
    }
}

macro_rules! narrow {
    ($($ty:ty),*) => { $(
        impl Argument for $ty {
            fn decode(raw: u64) -> Option<Self> {
                raw.try_into().ok()
            }
            fn encode(self) -> u64 {
                self.into()
            }
        }
    )* };
}
narrow!(u8, u16, u32);

macro_rules! wrapped {
    ($($Ty:ident($make:expr, $take:expr, $raw:ty);)*) => { $(
        impl Argument for $Ty {
            fn decode(raw: u64) -> Option<Self> {
                <$raw>::try_from(raw).ok().map($make)
            }
            fn encode(self) -> u64 {
                u64::from($take(self))
            }
        }
    )* };
}
wrapped! {
    DomainId(DomainId::from_raw, DomainId::raw, u32);
    VcpuIndex(VcpuIndex, |v: VcpuIndex| v.0, u16);
    Port(Port, |p: Port| p.0, u32);
    PciAddress(PciAddress, |a: PciAddress| a.0, u32);
}

/// Raw form: domain in bits 31:0, vCPU in bits 47:32; all ones for none.
impl Argument for Answered {
    fn decode(raw: u64) -> Option<Self> {
        if raw == u64::MAX {
            return Some(Answered(None));
        }
        let vcpu = u16::try_from(raw >> 32).ok()?;
        let domain = DomainId::from_raw(raw as u32);
        Some(Answered(Some((domain, VcpuIndex(vcpu)))))
    }
    fn encode(self) -> u64 {
        match self.0 {
            None => u64::MAX,
            Some((domain, vcpu)) => u64::from(vcpu.0) << 32 | u64::from(domain.raw()),
        }
    }
}

impl Argument for PowerAction {
    fn decode(raw: u64) -> Option<Self> {
        match raw {
            0 => Some(PowerAction::Reboot),
            1 => Some(PowerAction::PowerOff),
            _ => None,
        }
    }
    fn encode(self) -> u64 {
        match self {
            PowerAction::Reboot => 0,
            PowerAction::PowerOff => 1,
        }
    }
}

impl Argument for EventSource {
    fn decode(raw: u64) -> Option<Self> {
        match raw {
            0 => Some(EventSource::ConsoleInput),
            1 => Some(EventSource::DomainState),
            2 => Some(EventSource::GuestConsole),
            3 => Some(EventSource::Doorbell),
            _ => None,
        }
    }
    fn encode(self) -> u64 {
        match self {
            EventSource::ConsoleInput => 0,
            EventSource::DomainState => 1,
            EventSource::GuestConsole => 2,
            EventSource::Doorbell => 3,
        }
    }
}

/// Raw form: kind in bits 31:16 (0 line, 1 MSI, 2 MSI-X, 3 channel of an old IDE controller), table
/// entry or channel in bits 15:0.
impl Argument for InterruptKind {
    fn decode(raw: u64) -> Option<Self> {
        match (raw >> 16, raw as u16) {
            (0, 0) => Some(InterruptKind::Line),
            (1, 0) => Some(InterruptKind::Msi),
            (2, entry) => Some(InterruptKind::MsiX(entry)),
            (3, channel @ 0..=1) => Some(InterruptKind::LegacyIde(channel as u8)),
            _ => None,
        }
    }
    fn encode(self) -> u64 {
        match self {
            InterruptKind::Line => 0,
            InterruptKind::Msi => 1 << 16,
            InterruptKind::MsiX(entry) => 2 << 16 | u64::from(entry),
            InterruptKind::LegacyIde(channel) => 3 << 16 | u64::from(channel),
        }
    }
}

/// See the module head. A row: doc comments, number, access, enum name, method and arguments,
/// type of the value.
macro_rules! hypercalls {
    ($(
        $(#[doc = $doc:literal])+
        $number:literal $access:ident $Name:ident = $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;
    )+) => {
        /// A hypercall whose arguments have been checked one by one (not yet against the state
        /// of the machine: that is the handler's part).
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Call {
            $( $(#[doc = $doc])+ $Name { $(
                #[doc = concat!("`", stringify!($ty), "`")]
                $arg: $ty
            ),* }, )+
        }

        impl Call {
            /// Checks number and arguments. Registers beyond the last argument are ignored.
            pub fn decode(number: u64, arguments: [u64; MAX_ARGUMENTS]) -> Result<Call, Status> {
                let mut _rest = arguments.into_iter();
                match number {
                    $( $number => Ok(Call::$Name { $(
                        $arg: take::<$ty>(&mut _rest)?
                    ),* }), )+
                    _ => Err(Status::UnknownCall),
                }
            }

            /// The registers that make this call.
            pub fn encode(self) -> (u64, [u64; MAX_ARGUMENTS]) {
                match self {
                    $( Call::$Name { $($arg),* } => {
                        let given = [$( Argument::encode($arg) ),*];
                        let mut all = [0; MAX_ARGUMENTS];
                        all[..given.len()].copy_from_slice(&given);
                        ($number, all)
                    } )+
                }
            }

            /// The name behind a number, for messages about calls that were refused.
            pub fn name_of(number: u64) -> Option<&'static str> {
                match number {
                    $( $number => Some(stringify!($name)), )+
                    _ => None,
                }
            }
        }

        /// Every hypercall, for the generated documentation.
        pub const TABLE: &[CallDoc] = &[$( CallDoc {
            number: $number,
            name: stringify!($name),
            access: Access::$access,
            arguments: &[$( (stringify!($arg), stringify!($ty)) ),*],
            returns: stringify!($ret),
            doc: concat!($($doc, "\n"),+),
        } ),+];

        /// The caller's side: one method a call.
        pub struct Client<T: Trap>(pub T);

        impl<T: Trap> Client<T> {
            $( $(#[doc = $doc])+
            pub fn $name(&self, $($arg: $ty),*) -> Result<$ret, Status> {
                let (number, arguments) = Call::$Name { $($arg),* }.encode();
                let (status, value) = self.0.trap(number, arguments);
                if status != Status::Ok {
                    return Err(status);
                }
                <$ret as Argument>::decode(value).ok_or(Status::BadArgument)
            } )+
        }

        /// The hypervisor's side: one method a call, made after number, access and arguments
        /// have been checked.
        pub trait Handler {
            $( $(#[doc = $doc])+
            fn $name(&mut self, $($arg: $ty),*) -> Result<$ret, Refusal>; )+
        }

        /// Checks and makes one call on behalf of a domain that has `granted` access.
        #[inline]
        pub fn dispatch<H: Handler>(
            handler: &mut H,
            granted: Access,
            number: u64,
            arguments: [u64; MAX_ARGUMENTS],
        ) -> Answer {
            let mut _rest = arguments.into_iter();
            let result = match number {
                $( $number => {
                    if Access::$access == Access::Control && granted != Access::Control {
                        return Answer::Return(Status::Denied, 0);
                    }
                    $( let Ok($arg) = take::<$ty>(&mut _rest) else {
                        return Answer::Return(Status::BadArgument, 0);
                    }; )*
                    handler.$name($($arg),*).map(Argument::encode)
                } )+
                _ => return Answer::Return(Status::UnknownCall, 0),
            };
            match result {
                Ok(value) => Answer::Return(Status::Ok, value),
                Err(Refusal::Status(status)) => Answer::Return(status, 0),
                Err(Refusal::Block) => Answer::Block,
            }
        }
    };
}

pub(crate) use hypercalls;
