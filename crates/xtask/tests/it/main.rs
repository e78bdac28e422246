//! The house as it stands.

use std::fs;
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

#[test]
fn every_crate_is_in_the_architecture_page_in_its_layer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/architecture.md")).expect("the page");
    let folders = ["crates", "services"].map(|folder| fs::read_dir(root.join(folder)).expect("a folder"));
    let members = folders.into_iter().flatten().map(|entry| entry.expect("an entry").path());
    for member in members.chain([root.join("loadtest")]) {
        let manifest = fs::read_to_string(member.join("Cargo.toml")).expect("a manifest");
        let layer = manifest.lines().find_map(|line| line.strip_prefix("layer = ")).expect("a layer").trim_matches('"');
        let row = page.lines().find(|line| line.starts_with(&format!("| {layer} |"))).expect("a row of the layer");
        let name = member.file_name().expect("a name").to_string_lossy();
        assert!(row.contains(&format!("`{name}`")), "{name} is not in the row of {layer}");
    }
}

#[test]
fn the_page_of_metrics_names_those_in_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let problems = nova_xtask::metrics::problems(&root).expect("the sources can be read");
    assert!(problems.is_empty(), "{problems:#?}");
}
