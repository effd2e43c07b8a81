//! A vCPU of the fake back end.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;

use godwit_records::{Activity, EventKind, PendingEvent, Segment, Shadow, VcpuState};

use super::bits::{self, Bits};
use super::state;
use crate::hardware::{Control, Event, SegmentName, SwitchedMsr, VcpuHardware};

const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_IF: u64 = 1 << 9;
/// What the slot of RSP holds: whoever takes it for RSP gets this.
pub(super) const NOT_RSP: u64 = 0xbad0_bad0_bad0_bad0;

macro_rules! words {
    ($($Name:ident)+) => {
        /// 64-bit registers that are not general ones. Their order is of no CPU.
        #[derive(Clone, Copy, Debug)]
        pub(super) enum Word { $($Name),+ }

        const WORDS: &[Word] = &[$(Word::$Name),+];
    };
}

words! {
    Dr7 Cr4 Rip Star Cr2 GdtrBase Rsp Efer Dr1 Cr0
    Lstar IdtrLimit Rflags Pat Dr6 SysenterEsp Cr3 Cstar IdtrBase Dr0
    KernelGsBase Dr3 Sfmask SysenterEip GdtrLimit TscAux Dr2 SysenterCs
}

/// A segment: attributes turned around above the limit, base inverted, selector beside it.
#[derive(Clone, Copy, Debug)]
struct Packed {
    attributes_and_limit: u64,
    not_base: u64,
    selector_rotated: u16,
}

impl Packed {
    fn new(segment: Segment) -> Self {
        let attributes = u64::from(segment.attributes.reverse_bits());
        Self {
            attributes_and_limit: attributes << 48 | u64::from(segment.limit) << 3,
            not_base: !segment.base,
            selector_rotated: segment.selector.rotate_left(5),
        }
    }

    fn unpack(self) -> Segment {
        Segment {
            selector: self.selector_rotated.rotate_right(5),
            base: !self.not_base,
            limit: (self.attributes_and_limit >> 3) as u32,
            attributes: ((self.attributes_and_limit >> 48) as u16).reverse_bits(),
        }
    }
}

/// A vCPU.
#[derive(Debug)]
pub struct FakeVcpu {
    pub(super) gprs: [u64; 16],
    words: [u64; WORDS.len()],
    segments: Vec<Packed>,
    pub(super) event: Bits,
    pub(super) shadow: Shadow,
    pub(super) nmi_blocked: bool,
    pub(super) activity: Activity,
    interrupt_window: bool,
    nmi_window: bool,
    pub(super) virtual_tpr: Option<u8>,
    held: bool,
    /// Single-step traps made pending by stepping over instructions.
    pub step_traps: u32,
    /// What was set last.
    pub tsc_offset: u64,
    /// Flushes asked for.
    pub flushes: u32,
    /// Guest-physical page addresses in the processor's log.
    pub dirty_log: Vec<u64>,
    /// Room that it was left with.
    pub dirty_log_room: u16,
}

fn key(index: usize) -> u64 {
    0x9e37_79b9_7f4a_7c15u64.rotate_left(index as u32 * 5 + 1)
}

impl FakeVcpu {
    /// After power-up. `keeps_tpr`: CR8 is in the hardware, as on SVM; otherwise accesses to it exit.
    pub fn new(keeps_tpr: bool) -> Self {
        let mut vcpu = Self {
            gprs: [0; 16],
            words: [0; WORDS.len()],
            segments: vec![Packed::new(VcpuState::reset().cs); 8],
            event: Bits::new(),
            shadow: Shadow::None,
            nmi_blocked: false,
            activity: Activity::Running,
            interrupt_window: false,
            nmi_window: false,
            virtual_tpr: keeps_tpr.then_some(0),
            held: false,
            step_traps: 0,
            tsc_offset: 0,
            flushes: 0,
            dirty_log: Vec::new(),
            dirty_log_room: 0,
        };
        vcpu.load(&VcpuState::reset());
        vcpu
    }

    pub(super) fn word(&self, word: Word) -> u64 {
        let index = word as usize;
        self.words[index] ^ key(index)
    }

    pub(super) fn set_word(&mut self, word: Word, value: u64) {
        let index = word as usize;
        self.words[index] = value ^ key(index);
    }

    /// Sets RSP, as the guest does.
    pub fn set_rsp(&mut self, rsp: u64) {
        self.set_word(Word::Rsp, rsp);
    }

    /// Sets a segment register, as the guest does.
    pub fn set_segment(&mut self, name: SegmentName, segment: Segment) {
        self.segments[7 - name as usize] = Packed::new(segment);
    }

    /// Begins or ends an STI or MOV SS shadow, as the guest's instructions do.
    pub fn set_shadow(&mut self, shadow: Shadow) {
        self.shadow = shadow;
    }

    /// Whether there is a shadow.
    pub fn in_shadow(&self) -> bool {
        self.shadow != Shadow::None
    }

    /// An NMI handler runs.
    pub fn nmi_blocked(&self) -> bool {
        self.nmi_blocked
    }

    /// The guest's IRET: ends an NMI handler.
    pub fn iret(&mut self) {
        self.nmi_blocked = false;
    }

    /// The guest writes CR8, where that does not exit. False where it does.
    pub fn write_virtual_tpr(&mut self, priority: u8) -> bool {
        let kept = self.virtual_tpr.is_some() && !self.held;
        if kept {
            self.virtual_tpr = Some(priority);
        }
        kept
    }

    /// Is an interrupt window asked for?
    pub fn interrupt_window(&self) -> bool {
        self.interrupt_window
    }

    /// Is an NMI window asked for?
    pub fn nmi_window(&self) -> bool {
        self.nmi_window
    }

    /// The event that the next entry delivers.
    pub fn event(&self) -> Option<PendingEvent> {
        bits::decode(&self.event)
    }

    /// The CPU delivers it.
    pub fn take_event(&mut self) -> Option<PendingEvent> {
        let event = self.event();
        self.event.clear();
        event
    }

    /// The delivery of an event was interrupted by an exit: it waits for the next entry.
    pub fn delivery_interrupted(&mut self, event: PendingEvent) {
        assert!(self.event.is_empty());
        self.event = bits::encode(&event);
    }
}

fn msr_word(msr: SwitchedMsr) -> Option<Word> {
    Some(match msr {
        SwitchedMsr::Efer => Word::Efer,
        SwitchedMsr::Star => Word::Star,
        SwitchedMsr::Lstar => Word::Lstar,
        SwitchedMsr::Cstar => Word::Cstar,
        SwitchedMsr::Sfmask => Word::Sfmask,
        SwitchedMsr::FsBase | SwitchedMsr::GsBase => return None,
        SwitchedMsr::KernelGsBase => Word::KernelGsBase,
        SwitchedMsr::SysenterCs => Word::SysenterCs,
        SwitchedMsr::SysenterEsp => Word::SysenterEsp,
        SwitchedMsr::SysenterEip => Word::SysenterEip,
        SwitchedMsr::Pat => Word::Pat,
        SwitchedMsr::TscAux => Word::TscAux,
    })
}

fn base_of(msr: SwitchedMsr) -> SegmentName {
    if msr == SwitchedMsr::FsBase {
        SegmentName::Fs
    } else {
        SegmentName::Gs
    }
}

fn control_word(register: Control) -> Word {
    match register {
        Control::Cr0 => Word::Cr0,
        Control::Cr2 => Word::Cr2,
        Control::Cr3 => Word::Cr3,
        Control::Cr4 => Word::Cr4,
    }
}

impl VcpuHardware for FakeVcpu {
    fn gprs(&self) -> &[u64; 16] {
        &self.gprs
    }

    fn gprs_mut(&mut self) -> &mut [u64; 16] {
        &mut self.gprs
    }

    fn rip(&self) -> u64 {
        self.word(Word::Rip)
    }

    fn set_rip(&mut self, rip: u64) {
        self.set_word(Word::Rip, rip);
    }

    fn rsp(&self) -> u64 {
        self.word(Word::Rsp)
    }

    fn rflags(&self) -> u64 {
        self.word(Word::Rflags)
    }

    fn set_rflags(&mut self, rflags: u64) {
        self.set_word(Word::Rflags, rflags);
    }

    fn control(&self, register: Control) -> u64 {
        self.word(control_word(register))
    }

    fn set_control(&mut self, register: Control, value: u64) {
        self.set_word(control_word(register), value);
    }

    fn segment(&self, name: SegmentName) -> Segment {
        self.segments[7 - name as usize].unpack()
    }

    fn msr(&self, msr: SwitchedMsr) -> u64 {
        match msr_word(msr) {
            Some(word) => self.word(word),
            None => self.segment(base_of(msr)).base,
        }
    }

    fn set_msr(&mut self, msr: SwitchedMsr, value: u64) {
        match msr_word(msr) {
            Some(word) => self.set_word(word, value),
            None => {
                let segment = self.segment(base_of(msr));
                self.set_segment(
                    base_of(msr),
                    Segment {
                        base: value,
                        ..segment
                    },
                );
            }
        }
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.tsc_offset = offset;
    }

    fn event_pending(&self) -> bool {
        !self.event.is_empty()
    }

    fn inject(&mut self, event: Event) {
        assert!(
            !self.event_pending(),
            "{event:?} overwrites {:?}",
            self.event()
        );
        let (kind, vector, error_code) = match event {
            Event::External(vector) => {
                assert!(
                    self.interrupt_allowed(),
                    "interrupt {vector:#x} with IF 0 or in a shadow"
                );
                (EventKind::External, vector, None)
            }
            Event::Nmi => {
                assert!(self.nmi_allowed(), "NMI while blocked or in a shadow");
                self.nmi_blocked = true;
                (EventKind::Nmi, 2, None)
            }
            Event::Exception(vector, code) => (EventKind::Exception, vector, code),
        };
        self.event = bits::encode(&PendingEvent {
            kind,
            vector,
            error_code,
            instruction_length: 0,
        });
    }

    fn interrupt_allowed(&self) -> bool {
        self.rflags() & RFLAGS_IF != 0 && !self.in_shadow() && !self.event_pending()
    }

    fn nmi_allowed(&self) -> bool {
        !self.nmi_blocked && !self.in_shadow() && !self.event_pending()
    }

    fn set_interrupt_window(&mut self, wanted: bool) {
        self.interrupt_window = wanted;
    }

    fn set_nmi_window(&mut self, wanted: bool) {
        self.nmi_window = wanted;
    }

    fn clear_interrupt_shadow(&mut self) {
        self.shadow = Shadow::None;
    }

    fn step_trap(&mut self) {
        assert!(
            self.rflags() & RFLAGS_TF != 0,
            "a single-step trap without TF"
        );
        self.step_traps += 1;
    }

    fn virtual_tpr(&self) -> Option<u8> {
        self.virtual_tpr
    }

    fn set_virtual_tpr(&mut self, priority: u8, held: bool) {
        if self.virtual_tpr.is_some() {
            self.virtual_tpr = Some(priority);
            self.held = held;
        }
    }

    fn save(&self) -> VcpuState {
        state::save(self)
    }

    fn load(&mut self, new: &VcpuState) {
        state::load(self, new);
    }

    fn drain_dirty_log(&mut self, room: u16, report: impl FnMut(u64)) {
        self.dirty_log_room = room;
        self.dirty_log.drain(..).for_each(report);
    }

    fn flush_translations(&mut self) {
        self.flushes += 1;
    }

    fn dump(&self, out: &mut dyn Write) -> core::fmt::Result {
        for &word in WORDS {
            writeln!(out, "  {word:?} {:#x}", self.word(word))?;
        }
        writeln!(out, "  event {:?}", self.event())
    }
}
