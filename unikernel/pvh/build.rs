//! Hands the linker its script.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../boot/pvh.lds");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rustc-link-arg-bins=--script={script}");
    println!("cargo::rustc-link-arg-bins=--no-dynamic-linker");
}
