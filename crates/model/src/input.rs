//! The input of an execution against the schema of its workflow.

use jsonschema::{PatternOptions, Retrieve, Uri, Validator};
use serde_json::Value;

use crate::limits;

/// What does not fit the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputProblem {
    /// JSON pointer into the input; empty for the whole.
    pub pointer: String,
    /// What is wrong, for people.
    pub message: String,
}

/// A compiled schema.
#[derive(Clone, Debug)]
pub(crate) struct InputSchema(Validator);

impl InputSchema {
    /// JSON Schema 2020-12 without references to elsewhere; patterns run in linear time.
    pub(crate) fn compile(schema: &Value) -> Result<Self, InputProblem> {
        let built = jsonschema::draft202012::options()
            .with_pattern_options(PatternOptions::regex().size_limit(256 * 1024).dfa_size_limit(256 * 1024))
            .should_validate_formats(true)
            .with_retriever(Nowhere)
            .build(schema);
        built.map(Self).map_err(|error| InputProblem {
            // The schema was the instance of its own check.
            pointer: error.instance_path().to_string(),
            message: shorten(&error.to_string()),
        })
    }

    pub(crate) fn check(&self, input: &Value) -> Result<(), Vec<InputProblem>> {
        let problems: Vec<InputProblem> = self
            .0
            .iter_errors(input)
            .take(limits::INPUT_PROBLEMS)
            .map(|error| InputProblem {
                pointer: error.instance_path().to_string(),
                message: shorten(&error.to_string()),
            })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

/// Nothing is fetched: a schema stands in its document.
struct Nowhere;

impl Retrieve for Nowhere {
    fn retrieve(&self, _: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err("references out of the document are not followed".into())
    }
}

/// Messages quote the value; a large one would drown what is wrong with it.
fn shorten(message: &str) -> String {
    if message.chars().count() <= 300 {
        return message.to_owned();
    }
    let (head, tail): (String, String) =
        (message.chars().take(180).collect(), message.chars().skip(message.chars().count() - 110).collect());
    format!("{head} … {tail}")
}
