//! Topics and what is in them.

use super::{code, file, page, rows, section};

#[test]
fn every_topic_is_in_the_page_with_its_partitions_and_retention() {
    let page = page("topics.md");
    let rows: Vec<_> = rows(&page).into_iter().filter(|row| row[0].starts_with("`nova.")).collect();
    let layout = nova_bus::Layout { shards: 3, events: 4, inboxes: 5, apis: 7 };
    let specs = layout.topics();
    assert_eq!(rows.len(), specs.len());
    for (row, spec) in rows.iter().zip(&specs) {
        let days = spec.retention_ms / 86_400_000;
        let partitions = match spec.partitions {
            3 => "shards",
            4 => "events",
            5 => "inboxes",
            7 => "apis",
            1 => "1",
            other => panic!("{}: {other} partitions", spec.topic),
        };
        let days = format!("{days} day{}", if days == 1 { "" } else { "s" });
        let expected = [format!("`{}`", spec.topic), partitions.into(), days, "delete".into(), "none".into()];
        assert_eq!(row[..5], expected);
    }
    let bus = file("proto/nova/v1/bus.proto");
    for row in &rows {
        message(&bus, code(&row[5]));
    }
}

fn message<'a>(proto: &'a str, name: &str) -> &'a str {
    let (_, rest) = proto.split_once(&format!("message {name} {{")).unwrap_or_else(|| panic!("no message {name}"));
    rest.split_once('}').expect("a message ends").0
}

#[test]
fn every_field_of_a_record_is_in_the_page() {
    let (page, bus) = (page("topics.md"), file("proto/nova/v1/bus.proto"));
    // `  uint32 version = 1; // why`
    let fields =
        message(&bus, "Envelope").lines().filter_map(|line| line.split_once(" = ")?.0.split_whitespace().last());
    let documented: Vec<String> = rows(section(&page, "The record")).iter().map(|row| code(&row[0]).into()).collect();
    assert_eq!(documented, fields.collect::<Vec<_>>());
}

#[test]
fn every_setting_of_a_kafka_topic_is_in_the_page() {
    let (page, source) = (page("topics.md"), file("crates/bus-kafka/src/topics.rs"));
    let names: Vec<&str> =
        source.lines().filter_map(|line| line.trim().strip_prefix("set(\"")?.split('"').next()).collect();
    assert!(names.len() >= 5 && source.contains("set(\"cleanup.policy\", \"delete\""), "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}")), "{name} is not in the page");
    }
}
