//! Scripts are embedded by a macro, which Cargo does not see when a file is added.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=lua-scripts");
}
