//! A document, from its source to its compiled form.

use nova_program::Program;

use crate::input::{InputProblem, InputSchema};
use crate::plan::Plan;
use crate::problem::{Problem, Problems, codes};
use crate::report::Report;
use crate::source::{self, Format};
use crate::tree::{Kind, Tree};
use crate::{build, low_code, reader};

/// A document that is YAML or JSON; what it says is not known yet.
#[derive(Clone, Debug)]
pub struct Document {
    file: String,
    tree: Tree,
    report: Report,
}

/// A workflow version in all its forms.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Tenant, if the document names one.
    pub namespace: Option<String>,
    /// Name of the workflow.
    pub name: String,
    /// Labels, sorted.
    pub labels: Vec<(String, String)>,
    /// What the engine walks.
    pub program: Program,
    /// What the scheduler evaluates.
    pub plan: Plan,
    /// The schema of the input, if there is one, as JSON.
    pub input_schema: Option<serde_json::Value>,
    /// What is allowed, but worth a look.
    pub warnings: Vec<Problem>,
    /// blake3 of `canonical`.
    pub hash: [u8; 32],
    /// The document as JSON with sorted keys: what is stored, and from which the same is compiled anywhere.
    pub canonical: Vec<u8>,
    schema: Option<InputSchema>,
}

/// Reads a document.
///
/// # Errors
/// With the one problem that made it unreadable: not YAML, not JSON, too large, too deep.
pub fn parse(source: &[u8], file_name: &str, format: Format) -> Result<Document, Problems> {
    let mut report = Report::default();
    match source::read(source, file_name, format, &mut report) {
        Some(tree) => Ok(Document { file: file_name.to_owned(), tree, report }),
        None => Err(Problems::new(report.finish(file_name, None).0)),
    }
}

/// Compiles a document.
///
/// # Errors
/// With all its problems at once, in order of place.
pub fn compile(document: &Document) -> Result<Compiled, Problems> {
    let mut report = document.report.clone();
    let standard = low_code::is_low_code(&document.tree).then(|| low_code::convert(&document.tree, &mut report));
    let (tree, low_code) = match &standard {
        None => (&document.tree, false),
        // A low-code document that cannot be converted has told why.
        Some(None) => return Err(refused(report, document)),
        Some(Some(tree)) => (tree, true),
    };
    let workflow = reader::read(tree, low_code, &mut report);
    let mut schema = None;
    let mut input_schema = None;
    if let Some(input) = workflow.as_ref().and_then(|workflow| workflow.input) {
        schema = compile_schema(input, &mut report);
        input_schema = Some(input.to_json());
    }
    let compiled = workflow.map(|workflow| {
        let (program, plan) = build::build(&workflow, &mut report);
        let namespace = workflow.namespace.as_ref().map(|word| word.text.to_owned());
        (namespace, workflow.name.text.to_owned(), workflow.labels.clone(), program, plan)
    });
    let Some((namespace, name, labels, program, plan)) = compiled.filter(|_| !report.has_errors()) else {
        return Err(refused(report, document));
    };
    // Keys are sorted, since the JSON library keeps objects in a tree.
    let canonical = document.tree.to_json().to_string().into_bytes();
    let hash = *blake3::hash(&canonical).as_bytes();
    let (_, warnings) = report.finish(&document.file, Some(&document.tree));
    Ok(Compiled { namespace, name, labels, program, plan, input_schema, warnings, hash, canonical, schema })
}

fn refused(report: Report, document: &Document) -> Problems {
    let (mut errors, _) = report.finish(&document.file, Some(&document.tree));
    if errors.is_empty() {
        // Every way here tells a problem; should one not, silence would be worse.
        errors.push(Problem {
            code: codes::WRONG_TYPE,
            severity: crate::Severity::Error,
            message: "this is not a workflow".to_owned(),
            help: None,
            file: document.file.clone(),
            line: 1,
            column: 1,
            path: String::new(),
        });
    }
    Problems::new(errors)
}

fn compile_schema(input: &Tree, report: &mut Report) -> Option<InputSchema> {
    match input.kind {
        Kind::Map(_) | Kind::Bool(_) => {}
        _ => {
            report.error(
                codes::WRONG_TYPE,
                input.at,
                format!("input must be a JSON Schema, not {}", input.kind_name()),
            );
            return None;
        }
    }
    match InputSchema::compile(&input.to_json()) {
        Ok(schema) => Some(schema),
        Err(problem) => {
            let mut at = input;
            for step in problem.pointer.split('/').skip(1) {
                let inner = match &at.kind {
                    Kind::List(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
                    _ => at.get(&step.replace("~1", "/").replace("~0", "~")),
                };
                at = inner.unwrap_or(at);
            }
            report.error(codes::WRONG_TYPE, at.at, format!("input is no JSON Schema: {}", problem.message));
            None
        }
    }
}

impl Document {
    /// Name of its file.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.file
    }
}

impl Compiled {
    /// Compiles a stored document again, wherever it is needed.
    ///
    /// # Errors
    /// When the bytes are no [`Compiled::canonical`], or of a version that knows more than this one.
    pub fn from_canonical(canonical: &[u8]) -> Result<Self, Problems> {
        compile(&parse(canonical, "stored", Format::Json)?)
    }

    /// Checks the input of an execution.
    ///
    /// # Errors
    /// With what does not fit; at most [`crate::limits::INPUT_PROBLEMS`].
    pub fn check_input(&self, input: &[u8]) -> Result<(), Vec<InputProblem>> {
        let value: serde_json::Value = serde_json::from_slice(input).map_err(|error| {
            vec![InputProblem { pointer: String::new(), message: format!("the input is not JSON: {error}") }]
        })?;
        self.schema.as_ref().map_or(Ok(()), |schema| schema.check(&value))
    }
}
