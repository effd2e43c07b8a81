//! The world switch: VMLOAD, VMRUN, VMSAVE, with GIF clear around them so that no host interrupt
//! comes while half of the registers are the guest's (APM 2, 15.5 and 15.17).

use core::arch::global_asm;

use godwit_vmm::exit::{Exit, svm};
use godwit_vmm::hardware::Gpr;

use super::cpu::SvmCpu;
use super::vcpu::SvmVcpu;
use super::vmcb::{TLB_FLUSH_ALL, TLB_FLUSH_ASID, TLB_KEEP, event, intercept_1};
use crate::timer;
use x86_64::registers::control::Cr3;

global_asm!(
    r#"
    .text
    .balign 16
    // svm_switch(gprs: rdi, vmcb_physical: rsi, host_state_physical: rdx)
svm_switch:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdx
    push rdi
    mov rax, rsi
    mov rcx, [rdi + 8]
    mov rdx, [rdi + 16]
    mov rbx, [rdi + 24]
    mov rbp, [rdi + 40]
    mov rsi, [rdi + 48]
    mov r8, [rdi + 64]
    mov r9, [rdi + 72]
    mov r10, [rdi + 80]
    mov r11, [rdi + 88]
    mov r12, [rdi + 96]
    mov r13, [rdi + 104]
    mov r14, [rdi + 112]
    mov r15, [rdi + 120]
    mov rdi, [rdi + 56]
    clgi
    // With V_INTR_MASKING the host's IF decides whether host interrupts end VMRUN.
    sti
    vmload rax
    vmrun rax
svm_behind_vmrun:
    vmsave rax
    cli
    push rdi
    mov rdi, [rsp + 8]
    mov [rdi + 8], rcx
    mov [rdi + 16], rdx
    mov [rdi + 24], rbx
    mov [rdi + 40], rbp
    mov [rdi + 48], rsi
    mov [rdi + 64], r8
    mov [rdi + 72], r9
    mov [rdi + 80], r10
    mov [rdi + 88], r11
    mov [rdi + 96], r12
    mov [rdi + 104], r13
    mov [rdi + 112], r14
    mov [rdi + 120], r15
    pop rcx
    mov [rdi + 56], rcx
    mov rax, [rsp + 8]
    vmload rax
    stgi
    add rsp, 16
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
    "#
);

unsafe extern "C" {
    fn svm_switch(gprs: *mut [u64; 16], vmcb_physical: u64, host_state_physical: u64);
    /// Where VMRUN comes back to.
    static svm_behind_vmrun: u8;
}

/// Runs the guest until it exits.
#[inline]
pub(super) fn enter(cpu: &mut SvmCpu, vcpu: &mut SvmVcpu, deadline_tsc: u64) -> Exit {
    let shadow = super::shadow::before_entry(vcpu, cpu.is_tcg);
    timer::arm(shadow.deadline(deadline_tsc));
    let flush = core::mem::take(&mut vcpu.flush);
    let rax = vcpu.gprs[Gpr::Rax as usize];
    let vmcb = vcpu.vmcb_mut();
    vmcb.rax = rax;
    vmcb.tlb_control = match flush {
        false => TLB_KEEP,
        true if cpu.flush_by_asid => TLB_FLUSH_ASID,
        true => TLB_FLUSH_ALL,
    };
    let physical = vcpu.vmcb_physical();
    // SAFETY: the VMCB describes a guest confined by its nested tables; all general registers are
    // saved and restored by the switch, the rest of the host's state by VMRUN and VMLOAD.
    unsafe { svm_switch(&raw mut vcpu.gprs, physical, cpu.host_state()) };
    let next_rip = cpu.next_rip;
    let vmcb = vcpu.vmcb_mut();
    // What was injected has been delivered, or its delivery was interrupted and must be repeated.
    vmcb.event_injection = 0;
    if vmcb.exit_interrupt_info & event::VALID != 0 {
        vmcb.event_injection = vmcb.exit_interrupt_info;
    }
    let raw = svm::RawExit {
        code: vmcb.exit_code,
        info1: vmcb.exit_info_1,
        info2: vmcb.exit_info_2,
        rip: vmcb.rip,
        next_rip: if next_rip { vmcb.next_rip } else { 0 },
    };
    let rax = vmcb.rax;
    vcpu.gprs[Gpr::Rax as usize] = rax;
    if vcpu.nmi_blocked {
        after_nmi(vcpu);
    }
    shadow.after_exit(vcpu);
    if raw.rip == (&raw const svm_behind_vmrun).addr() as u64 {
        return host_registers(vcpu, &raw);
    }
    svm::decode(&raw)
}

/// The guest stands behind our own VMRUN. With the host's page tables in its CR3 the processor has saved
/// the host's registers over the guest's, which is lost: that must not look like a guest that misbehaves.
/// Without, a guest just happens to be at this address.
#[cold]
fn host_registers(vcpu: &SvmVcpu, raw: &svm::RawExit) -> Exit {
    let (root, _) = Cr3::read();
    if vcpu.vmcb().cr3 != root.start_address().as_u64() {
        return svm::decode(raw);
    }
    log::error!("the processor saved the host's registers as a guest's");
    Exit::EntryFailed {
        code: raw.code,
        detail: svm::HOST_REGISTERS,
    }
}

/// Follows a guest's NMI handler to the end of its IRET.
#[cold]
fn after_nmi(vcpu: &mut SvmVcpu) {
    if let Some(iret) = vcpu.iret_rip
        && vcpu.vmcb().rip != iret
    {
        vcpu.iret_rip = None;
        vcpu.nmi_blocked = false;
    } else if vcpu.iret_rip.is_none() {
        // The end of the handler must be seen even if no second NMI waits.
        vcpu.vmcb_mut().intercept_1 |= intercept_1::IRET;
    }
}
