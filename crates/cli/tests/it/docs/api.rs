//! Routes, and the OpenAPI document.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{code, page, rows, section};
use crate::rig::root;

const PATH: &str = "docs/reference/openapi.json";

/// `NOVA_UPDATE=1` writes it anew.
#[test]
fn the_openapi_document_is_the_one_that_is_served() {
    let served = format!("{}\n", nova_api::openapi_json().unwrap());
    if std::env::var_os("NOVA_UPDATE").is_some() {
        std::fs::write(root().join(PATH), &served).unwrap();
    }
    let stale = super::file(PATH) != served;
    assert!(!stale, "{PATH} is stale: run NOVA_UPDATE=1 cargo test -p nova-cli --test it openapi");
}

#[test]
fn every_route_is_in_the_page_with_what_it_answers() {
    let document: Value = serde_json::from_str(&nova_api::openapi_json().unwrap()).unwrap();
    let mut routes = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let answers: Vec<String> = operation["responses"].as_object().unwrap().keys().cloned().collect();
            routes.insert(format!("{} {path}", method.to_uppercase()), answers);
        }
    }
    let page = page("api.md");
    // What each of them may answer is said once.
    let all = routes.values().next().unwrap().clone();
    let anywhere: Vec<_> = all.into_iter().filter(|it| routes.values().all(|answers| answers.contains(it))).collect();
    let (_, sentence) = section(&page, "Routes").split_once("Any route may also answer").expect("it says so");
    let sentence = sentence.split("\n\n").next().expect("there is a first part");
    for answer in anywhere.iter().map(String::as_str).chain(["504"]) {
        assert!(sentence.contains(answer), "any route: {answer} is not in the page");
    }
    let documented: BTreeMap<String, String> =
        rows(section(&page, "Routes")).into_iter().map(|row| (code(&row[0]).to_owned(), row[3].clone())).collect();
    let (wanted, found): (Vec<_>, Vec<_>) = (routes.keys().collect(), documented.keys().collect());
    assert_eq!(wanted, found, "routes of the document, routes of the page");
    for (route, answers) in &routes {
        for answer in answers.iter().filter(|it| !anywhere.contains(it) && *it != "504") {
            assert!(documented[route].contains(answer), "{route}: {answer} is not in the page");
        }
    }
}
