//! Settings, and the files of the example cluster.

use std::collections::BTreeSet;

use nova_service_kit::bus::BusSettings;
use nova_service_kit::config::load;
use nova_telemetry::TraceSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{code, page, rows, section};
use crate::rig::{nova, root, text};

/// All fields of a config: it tells them to who asks for another one.
fn fields<C: DeserializeOwned>() -> BTreeSet<String> {
    let told = toml::from_str::<C>("no_such_field = 1").err().expect("unknown fields are errors").to_string();
    let (_, expected) = told.split_once("expected one of").expect("serde names the fields");
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn check<C: Serialize + DeserializeOwned + Default>(heading: &str, service: &str, table: &str) {
    let config = page("config.md");
    let defaults = toml::Table::try_from(C::default()).expect("a config is a table");
    let mut documented = BTreeSet::new();
    for row in rows(section(&config, heading)) {
        let [field, kind, default, _, environment, meaning] = &row[..] else { panic!("{heading}: {row:?}") };
        let path = code(field);
        let name = path.strip_prefix(table).unwrap_or_else(|| panic!("{heading}: {path} is not in '{table}'"));
        assert!(documented.insert(name.to_owned()), "{heading}: {path} is there twice");
        assert!(!kind.is_empty() && meaning.len() > 3, "{heading}: {path} says nothing");
        let variable = format!("NOVA_{service}_{}", path.to_uppercase().replace('.', "__"));
        let expected = match defaults.get(name) {
            Some(toml::Value::Table(_)) if ["bus", "trace"].contains(&name) => {
                assert_eq!(code(environment), format!("{variable}__…"), "{heading}: {path}");
                continue;
            }
            // An empty table, or nothing: neither is written.
            None if default == "none" => "none".to_owned(),
            None => "{}".to_owned(),
            Some(value) => value.to_string(),
        };
        assert_eq!(code(default), expected, "{heading}: the default of {path}");
        assert_eq!(code(environment), variable, "{heading}: the variable of {path}");
    }
    assert_eq!(documented, fields::<C>(), "{heading}: fields in the page, fields in the code");
}

#[test]
fn every_setting_is_in_the_page_with_its_default() {
    check::<nova_coordinator::Config>("Coordinator", "COORDINATOR", "");
    check::<nova_scheduler::Config>("Scheduler", "SCHEDULER", "");
    check::<nova_worker::Config>("Worker", "WORKER", "");
    check::<nova_api::Config>("Api", "API", "");
    check::<nova_trigger::Config>("Trigger", "TRIGGER", "");
    check::<BusSettings>("Bus", "<SERVICE>", "bus.");
    check::<TraceSettings>("Traces", "<SERVICE>", "trace.");
    let config = page("config.md");
    for property in nova_bus_kafka::ALLOWED_PROPERTIES {
        assert!(config.contains(&format!("`{property}`")), "property {property} is not in the page");
    }
}

/// Paths of all values of a table.
fn keys(table: &toml::Table, above: &str, into: &mut BTreeSet<String>) {
    for (name, value) in table {
        let path = format!("{above}{name}");
        match value {
            toml::Value::Table(inner) if !inner.is_empty() => keys(inner, &format!("{path}."), into),
            _ => drop(into.insert(path)),
        }
    }
}

fn printed(arguments: &[&str]) -> Result<String, String> {
    let output = nova().arg("serve").args(arguments).arg("--print-config").output().unwrap();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn what_is_printed_is_what_is_in_the_page() {
    let page = page("config.md");
    for heading in ["Coordinator", "Scheduler", "Worker", "Api", "Trigger"] {
        let service = heading.to_lowercase();
        let mut shown = BTreeSet::new();
        keys(&toml::from_str(&printed(&[&service]).unwrap()).unwrap(), "", &mut shown);
        let mut documented = BTreeSet::new();
        for row in rows(section(&page, heading)) {
            match code(&row[0]) {
                "bus" => documented.extend(
                    // Nothing is printed where nothing is set.
                    rows(section(&page, "Bus")).iter().filter(|row| row[2] != "`{}`").map(|row| code(&row[0]).into()),
                ),
                "trace" => documented.extend(rows(section(&page, "Traces")).iter().map(|row| code(&row[0]).into())),
                _ if row[2] == "none" => {}
                field => drop(documented.insert(field.to_owned())),
            }
        }
        assert_eq!(shown, documented, "{service}: what is printed, what is in the page");
    }
}

#[test]
fn every_file_of_the_example_cluster_is_taken_by_its_service() {
    let folder = root().join("examples/cluster");
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "toml") {
            continue;
        }
        files += 1;
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let service = name.split('-').next().unwrap();
        let taken =
            printed(&[service, "--config", path.to_str().unwrap()]).unwrap_or_else(|why| panic!("{name}: {why}"));
        let (taken, written): (toml::Table, toml::Table) =
            (toml::from_str(&taken).unwrap(), toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap());
        for (field, value) in written {
            if field != "bus" {
                assert_eq!(taken.get(&field), Some(&value), "{name}: {field}");
            }
        }
    }
    assert!(files >= 7, "{files}");
}

fn example<C: DeserializeOwned>(name: &str, prefix: &str, set: &[(&str, &str)], problems: fn(&C) -> Vec<String>) -> C {
    let file = root().join("examples/cluster").join(name);
    let environment = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(Some(&file), prefix, environment, &[], problems).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_files_of_the_example_cluster_fit_each_other_and_take_their_numbers_from_the_environment() {
    let scheduler = example("scheduler.toml", "NOVA_SCHEDULER_", &[], nova_scheduler::Config::problems);
    let worker = example(
        "worker.toml",
        "NOVA_WORKER_",
        &[("NOVA_WORKER_NAME", "worker-7"), ("NOVA_WORKER_LABELS", "{ zone = \"b\", disk = \"fast\" }")],
        nova_worker::Config::problems,
    );
    assert_eq!((&*worker.name, &*worker.labels["zone"], worker.labels.len()), ("worker-7", "b", 2));
    let trigger = example("trigger.toml", "NOVA_TRIGGER_", &[], nova_trigger::Config::problems);
    let tls = "{ \"security.protocol\" = \"SASL_SSL\", \"sasl.password\" = \"hush\" }";
    let environment = [
        ("NOVA_API_INSTANCE", "1"),
        ("NOVA_API_BUS__PREFIX", "blue."),
        ("NOVA_API_BUS__PROPERTIES", tls),
        ("NOVA_API_CLUSTER", "\"nova\""),
    ];
    let api = example("api.toml", "NOVA_API_", &environment, nova_api::Config::problems);
    assert_eq!((api.instance, &*api.bus.prefix), (1, "blue."));
    assert_eq!(api.bus.properties["security.protocol"], "SASL_SSL");
    let printed = nova_service_kit::config::print(&api).unwrap();
    assert!(!printed.contains("hush") && printed.contains("sasl.password"), "{printed}");
    let members: Vec<nova_coordinator::Config> = (1..=3)
        .map(|n| {
            example(&format!("coordinator-{n}.toml"), "NOVA_COORDINATOR_", &[], nova_coordinator::Config::problems)
        })
        .collect();
    for (member, id) in members.iter().zip(1..) {
        assert_eq!(member.member, id);
        assert_eq!(member.members, members[0].members);
        let own = member.members.iter().find_map(|it| it.strip_prefix(&format!("{id}@")));
        let own = own.expect("a member is among the members");
        for service in [&scheduler.coordinators, &worker.coordinators, &api.coordinators, &trigger.coordinators] {
            assert!(service.iter().any(|address| address == own), "{own} is missing in {service:?}");
        }
        assert_eq!((&member.cluster, member.shards), (&scheduler.cluster, members[0].shards));
    }
    assert_eq!((&worker.cluster, &api.cluster), (&scheduler.cluster, &scheduler.cluster));
    assert_eq!((&trigger.cluster, &trigger.bus.bootstrap), (&scheduler.cluster, &scheduler.bus.bootstrap));
    assert_eq!((&worker.bus.bootstrap, &api.bus.bootstrap), (&scheduler.bus.bootstrap, &scheduler.bus.bootstrap));
}
