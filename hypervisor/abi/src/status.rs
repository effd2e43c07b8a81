//! How a hypercall answers: a number that both sides can name.

use core::fmt;

macro_rules! statuses {
    ($( $(#[doc = $doc:literal])+ $value:literal $Name:ident; )+) => {
        /// The outcome of a hypercall, as returned in RAX. A newtype, so that a value of a later
        /// version survives and prints.
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct Status(pub u64);

        #[allow(non_upper_case_globals)]
        impl Status {
            $( $(#[doc = $doc])+ pub const $Name: Status = Status($value); )+

            /// Every status of this version: value, name, meaning.
            pub const ALL: &[(Status, &str, &str)] = &[
                $( (Status($value), stringify!($Name), concat!($($doc),+)), )+
            ];
        }
    };
}

statuses! {
    /// Done.
    0 Ok;
    /// No hypercall has this number.
    1 UnknownCall;
    /// Only the control domain may make this call.
    2 Denied;
    /// An argument is outside its range.
    3 BadArgument;
    /// A buffer is not wholly inside the caller's memory, or not accessible as asked.
    4 BadAddress;
    /// No such domain, or an id of an earlier generation.
    5 NoDomain;
    /// The domain has no such vCPU.
    6 NoVcpu;
    /// The domain is in a state that does not allow this.
    7 BadState;
    /// Not enough free host memory.
    8 NoMemory;
    /// A table of fixed size is full (domains, vCPUs, event ports).
    9 Full;
    /// Nothing (more) there: end of a list, or data overwritten meanwhile.
    10 NotFound;
    /// Exists already.
    11 Exists;
    /// In use by something else.
    12 Busy;
    /// The machine or this version cannot do it.
    13 NotSupported;
    /// A record or structure does not decode.
    14 BadRecord;
}

impl Status {
    /// The name of this status, or `None` for a number of another version.
    pub fn name(self) -> Option<&'static str> {
        Self::ALL
            .iter()
            .find(|(status, _, _)| *status == self)
            .map(|(_, name, _)| *name)
    }

    /// What this status means, as a sentence.
    pub fn meaning(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(status, _, _)| *status == self)
            .map_or("A status of another version.", |(_, _, meaning)| {
                meaning.trim()
            })
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Status({})", self.0),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}: {}", self.meaning())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_value_survives_and_prints() {
        extern crate std;
        assert_eq!(std::format!("{:?}", Status(99)), "Status(99)");
        assert_eq!(std::format!("{:?}", Status::Denied), "Denied");
    }

    #[test]
    fn values_are_dense_so_that_none_is_reused() {
        for (index, (status, _, _)) in Status::ALL.iter().enumerate() {
            assert_eq!(status.0, index as u64);
        }
    }
}
