//! Whether firmware has switched virtualization off: from the register it leaves behind to what the
//! operator is told.

/// IA32_FEATURE_CONTROL: nothing in it can be changed until the next reset (SDM 3C 24.7).
pub const FEATURE_CONTROL_LOCKED: u64 = 1 << 0;
/// IA32_FEATURE_CONTROL: VMXON works outside SMX.
pub const FEATURE_CONTROL_VMX: u64 = 1 << 2;
/// VM_CR: nothing in it can be changed until the next reset (APM 2 15.30.1).
pub const VM_CR_LOCK: u64 = 1 << 3;
/// VM_CR: EFER.SVME cannot be set.
pub const VM_CR_SVMDIS: u64 = 1 << 4;

/// Why VT-x cannot be used with this IA32_FEATURE_CONTROL, if it cannot. Unlocked is usable: the
/// hypervisor sets the bits itself.
pub const fn vmx_refusal(feature_control: u64) -> Option<&'static str> {
    if feature_control & FEATURE_CONTROL_LOCKED == 0 || feature_control & FEATURE_CONTROL_VMX != 0 {
        return None;
    }
    Some(
        "VT-x is disabled and locked by firmware: switch on \"Intel Virtualization Technology\" (VT-x, VMX) in the \
         firmware setup, then power the machine off and on",
    )
}

/// Why SVM cannot be used with this VM_CR, if it cannot.
pub const fn svm_refusal(vm_cr: u64) -> Option<&'static str> {
    match (vm_cr & VM_CR_SVMDIS != 0, vm_cr & VM_CR_LOCK != 0) {
        (false, _) => None,
        (true, true) => Some(
            "SVM is disabled and locked by firmware: switch on \"SVM\" (AMD-V) in the firmware setup, then power the \
             machine off and on",
        ),
        (true, false) => Some(
            "SVM is disabled by firmware: switch on \"SVM\" (AMD-V) in the firmware setup, then restart the machine",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vt_x_is_refused_only_when_locked_without_it() {
        const SMX_ONLY: u64 = 1 << 1;
        for usable in [
            0,
            SMX_ONLY,
            FEATURE_CONTROL_VMX,
            FEATURE_CONTROL_LOCKED | FEATURE_CONTROL_VMX,
            0x1_0007,
        ] {
            assert_eq!(vmx_refusal(usable), None, "{usable:#x}");
        }
        for locked in [
            FEATURE_CONTROL_LOCKED,
            FEATURE_CONTROL_LOCKED | SMX_ONLY,
            0xff01,
        ] {
            let text = vmx_refusal(locked).expect("locked without VMX");
            assert!(
                text.contains("VT-x") && text.contains("locked by firmware"),
                "{text}"
            );
        }
    }

    #[test]
    fn svm_is_refused_when_disabled_and_the_lock_is_named() {
        for usable in [0, VM_CR_LOCK, 1, 1 << 1] {
            assert_eq!(svm_refusal(usable), None, "{usable:#x}");
        }
        let locked = svm_refusal(VM_CR_SVMDIS | VM_CR_LOCK).expect("disabled");
        assert!(locked.contains("SVM") && locked.contains("locked by firmware"));
        let open = svm_refusal(VM_CR_SVMDIS).expect("disabled");
        assert!(open.contains("disabled by firmware") && !open.contains("locked"));
    }
}
