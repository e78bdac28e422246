//! The committed code is what `proto/` says. `NOVA_REGENERATE=1 cargo test -p nova-wire generated` writes it.

use std::fs;
use std::path::Path;

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = root.join("../../proto");
    let files = ["v1/payload", "v1/bus", "v1/program", "v1/log", "v1/coordinator", "v1/snapshot", "raft/v1/raft"]
        .map(|name| format!("nova/{name}.proto"));
    let descriptors = protox::compile(files, [&proto]).expect("proto/ compiles");
    let folder = tempfile::tempdir().expect("a temporary folder");
    tonic_prost_build::configure()
        .bytes(".")
        // A fake in a test names only the calls it answers. The services deny clippy's
        // missing_trait_methods, so that none of their calls can be forgotten.
        .generate_default_stubs(true)
        .out_dir(folder.path())
        .compile_fds(descriptors)
        .expect("code can be generated");
    for name in ["nova.v1.rs", "nova.raft.v1.rs"] {
        let fresh = fs::read_to_string(folder.path().join(name)).expect("one file per package");
        let committed = root.join("src/gen").join(name);
        if std::env::var_os("NOVA_REGENERATE").is_some() {
            fs::write(&committed, fresh).expect("the generated file can be written");
            continue;
        }
        let stale = fs::read_to_string(&committed).expect("the generated file is committed");
        assert!(fresh == stale, "src/gen/{name} is stale: run NOVA_REGENERATE=1 cargo test -p nova-wire generated");
    }
}
