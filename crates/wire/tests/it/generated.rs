//! The committed code is what `proto/` says. `NOVA_REGENERATE=1 cargo test -p nova-wire generated` writes it.

use std::fs;
use std::path::Path;

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = root.join("../../proto");
    let files = ["payload", "bus", "program", "log", "coordinator"].map(|name| format!("nova/v1/{name}.proto"));
    let descriptors = protox::compile(files, [&proto]).expect("proto/ compiles");
    let folder = tempfile::tempdir().expect("a temporary folder");
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(folder.path())
        .compile_fds(descriptors)
        .expect("code can be generated");
    let fresh = fs::read_to_string(folder.path().join("nova.v1.rs")).expect("one file per package");
    let committed = root.join("src/gen/nova.v1.rs");
    if std::env::var_os("NOVA_REGENERATE").is_some() {
        fs::write(&committed, fresh).expect("the generated file can be written");
        return;
    }
    let stale = fs::read_to_string(&committed).expect("the generated file is committed");
    assert!(fresh == stale, "src/gen/nova.v1.rs is stale: run NOVA_REGENERATE=1 cargo test -p nova-wire generated");
}
