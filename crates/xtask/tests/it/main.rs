//! The house as it stands.

use std::path::Path;

#[test]
fn arrows_between_crates_point_one_way() {
    let problems = nova_xtask::layers::problems(env!("CARGO_MANIFEST_DIR")).expect("cargo metadata answers");
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let broken = nova_xtask::links::broken(&root).expect("the documents can be read");
    assert!(broken.is_empty(), "{broken:#?}");
}
