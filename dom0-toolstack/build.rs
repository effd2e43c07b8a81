//! Link settings of the dom0 image: every loadable segment begins on a page of its own, so that the
//! hypervisor can map text, constants and data with different rights.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-zseparate-loadable-segments");
}
