//! Links the micro-VM image by its own script: PVH wants a static image at fixed physical addresses.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link.ld");
    let manifest_dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    println!("cargo:rustc-link-arg-bins=-T{manifest_dir}/link.ld");
    println!("cargo:rustc-link-arg-bins=--no-pie");
    // The symbols stay, for a debugger; line tables would be most of the image.
    println!("cargo:rustc-link-arg-bins=--strip-debug");
}
