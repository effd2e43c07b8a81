//! One entry of the frame table.

use super::{DomainId, Owner};

/// What an entry says about the block it heads. Zero, as in fresh memory, is "heads no block".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Kind {
    #[default]
    NoHead = 0,
    Free = 1,
    Hypervisor = 2,
    Domain = 3,
}

/// One entry of the frame table: 16 bytes for each 4 KiB frame. Fresh entries are zero ([`FrameInfo::RESERVED`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FrameInfo {
    pub(super) kind: Kind,
    /// Order of the block, on heads.
    pub(super) order: u8,
    /// Given up while mapped, on heads.
    pub(super) dying: bool,
    pub(super) spare: u8,
    /// Raw domain, on heads of kind Domain.
    pub(super) domain: u32,
    /// Free head: next in its list. Otherwise: foreign mappings of this very frame.
    pub(super) next_or_maps: u32,
    /// Free head: previous in its list. Otherwise: foreign mappings in the aligned run that starts here.
    pub(super) previous_or_sum: u32,
}

const _: () = assert!(size_of::<FrameInfo>() == 16);

impl FrameInfo {
    /// The state of an entry before its memory is added; all bytes zero.
    pub const RESERVED: FrameInfo = FrameInfo {
        kind: Kind::NoHead,
        order: 0,
        dying: false,
        spare: 0,
        domain: 0,
        next_or_maps: 0,
        previous_or_sum: 0,
    };

    /// The owner this head states.
    pub(super) fn owner(&self) -> Owner {
        match (self.kind, self.dying) {
            (Kind::NoHead, _) => Owner::Reserved,
            (Kind::Free, _) => Owner::Free,
            (Kind::Hypervisor, false) => Owner::Hypervisor,
            (Kind::Hypervisor, true) => Owner::DyingHypervisor,
            (Kind::Domain, false) => Owner::Domain(DomainId::from_raw(self.domain)),
            (Kind::Domain, true) => Owner::Dying(DomainId::from_raw(self.domain)),
        }
    }

    /// Makes this the head of an allocated block. Counts are left alone. `None`: not an owner that can hold memory.
    pub(super) fn set_owner(&mut self, owner: Owner, order: u8) -> Option<()> {
        let (kind, domain) = match owner {
            Owner::Hypervisor => (Kind::Hypervisor, 0),
            Owner::Domain(id) => (Kind::Domain, id.raw()),
            Owner::Reserved | Owner::Free | Owner::Dying(_) | Owner::DyingHypervisor => {
                return None;
            }
        };
        *self = FrameInfo {
            kind,
            order,
            dying: false,
            spare: 0,
            domain,
            ..*self
        };
        Some(())
    }

    /// Makes this entry head no block, keeping its counts.
    pub(super) fn clear_head(&mut self) {
        *self = FrameInfo {
            next_or_maps: self.next_or_maps,
            previous_or_sum: self.previous_or_sum,
            ..FrameInfo::RESERVED
        };
    }
}
