//! Sets `cfg(vectors)` where the public test vectors lie beside the project, so that tests which need them are shown
//! as ignored elsewhere instead of passing without having run.

const VECTORS: &str = "../shared/vectors/wycheproof";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(vectors)");
    println!("cargo::rerun-if-changed=build.rs");
    // Where the folder is missing it is not watched: cargo would run this script, and compile all, every time.
    if std::path::Path::new(VECTORS).is_dir() {
        println!("cargo::rerun-if-changed={VECTORS}");
        println!("cargo::rustc-cfg=vectors");
    }
}
