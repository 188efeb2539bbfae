//! Builds the eBPF object with cargo's own build; it is never committed.
fn main() {}
