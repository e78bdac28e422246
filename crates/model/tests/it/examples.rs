//! The examples and the schema that the project carries.

use std::path::PathBuf;

use nova_model::Format;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn examples() -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(root().join("examples")).expect("the folder of examples");
    let mut examples: Vec<_> = files
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml" || ending == "json"))
        .map(|path| {
            (path.file_name().expect("a name").to_string_lossy().into_owned(), std::fs::read(&path).expect("text"))
        })
        .collect();
    examples.sort();
    examples
}

#[test]
fn every_example_compiles_without_a_warning_and_fits_the_schema() {
    let validator = jsonschema::draft202012::new(&nova_model::schema()).expect("a schema");
    let examples = examples();
    assert!(examples.len() >= 3);
    for (name, source) in examples {
        let document = nova_model::parse(&source, &name, Format::Detect).unwrap_or_else(|e| panic!("{e}"));
        let compiled = nova_model::compile(&document).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(compiled.warnings, [], "{name}");
        let json: serde_json::Value = serde_json::from_slice(&compiled.canonical).expect("JSON");
        let told: Vec<String> = validator.iter_errors(&json).map(|e| format!("{} {e}", e.instance_path())).collect();
        assert!(told.is_empty(), "{name}: {told:?}");
    }
}

#[test]
fn the_schema_refuses_what_the_compiler_refuses() {
    let validator = jsonschema::draft202012::new(&nova_model::schema()).expect("a schema");
    let with = |node: serde_json::Value| serde_json::json!({"apiVersion": "nova/v1", "kind": "Workflow", "metadata": {"name": "x"}, "spec": {"do": [node]}});
    assert!(validator.is_valid(&with(serde_json::json!({"id": "a", "type": "task", "kind": "noop", "retry": 3}))));
    for wrong in [
        serde_json::json!({"id": "a", "type": "task", "kind": "noop", "retires": 3}),
        serde_json::json!({"id": "a", "type": "banana"}),
        serde_json::json!({"id": "a", "type": "task"}),
        serde_json::json!({"id": "a b", "type": "task", "kind": "noop"}),
        serde_json::json!({"id": "a", "type": "task", "kind": "noop", "timeout": "5 minutes"}),
        serde_json::json!({"id": "a", "do": []}),
    ] {
        assert!(!validator.is_valid(&with(wrong.clone())), "{wrong}");
    }
}

/// `NOVA_UPDATE=1` writes it anew.
#[test]
fn the_schema_in_the_docs_is_fresh() {
    let path = root().join("docs/reference/workflow.schema.json");
    let now = format!("{}\n", serde_json::to_string_pretty(&nova_model::schema()).expect("JSON"));
    if std::env::var_os("NOVA_UPDATE").is_some() {
        std::fs::write(&path, &now).expect("the file is written");
    }
    assert_eq!(std::fs::read_to_string(&path).expect("the schema in the docs"), now);
}

#[test]
fn every_code_has_a_heading_in_the_docs() {
    let page = std::fs::read_to_string(root().join("docs/reference/errors.md")).expect("the page of errors");
    let missing: Vec<&str> =
        nova_model::codes::ALL.iter().copied().filter(|code| !page.contains(&format!("### `{code}`\n"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
