//! The OpenAPI document, from the code.

use utoipa::openapi::content::Content;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Required};
use utoipa::{Modify, OpenApi};

use crate::handlers::{cluster, executions, submit, watch, workflows};

#[derive(OpenApi)]
#[openapi(
    modifiers(&Everywhere),
    info(
        title = "NovaFlow",
        description = "Durable, event-streamed execution of workflows.",
        license(name = "Apache-2.0")
    ),
    paths(
        workflows::validate,
        workflows::apply,
        workflows::get,
        workflows::list,
        submit::submit,
        submit::batch,
        executions::get,
        executions::list,
        executions::events,
        executions::result,
        executions::cancel,
        watch::watch,
        cluster::workers,
        cluster::drain,
        cluster::put_trigger,
        cluster::triggers,
        cluster::delete_trigger
    )
)]
struct Document;

/// What any route may answer besides, as a problem.
const ANYWHERE: [(&str, &str); 7] = [
    ("400", "the request is not understood"),
    ("405", "the path is there, without this method"),
    ("408", "the body came too slowly"),
    ("413", "the body is too large"),
    ("415", "the body is compressed, or of a type that is not understood"),
    ("431", "the headers are too large"),
    ("503", "nothing was changed; try again"),
];

/// Routes that are the same for all namespaces.
const OF_THE_CLUSTER: [&str; 3] = ["workers", "drain", "validate"];

fn namespace() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(256));
    let pattern = schema.pattern(Some("^[!-~]+$")).default(Some("default".into()));
    let name = ParameterBuilder::new().name("Nova-Namespace").parameter_in(ParameterIn::Header);
    name.description(Some("the tenant")).required(Required::False).schema(Some(pattern)).build()
}

/// Said once here and not at each route: what any of them may answer, that problems have a media type of their own, and
/// which header says for whom it is asked.
struct Everywhere;

impl Modify for Everywhere {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for path in document.paths.paths.values_mut() {
            operations(path).for_each(complete);
        }
    }
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.post, &mut path.delete].into_iter().flatten()
}

fn complete(operation: &mut Operation) {
    let changes = operation.request_body.is_some() || operation.responses.responses.contains_key("204");
    let unknown = changes.then_some(("504", "it may or may not have been taken"));
    for (status, what) in ANYWHERE.into_iter().chain(unknown) {
        let problem = || RefOr::T(Response::new(what));
        operation.responses.responses.entry(status.into()).or_insert_with(problem);
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
        {
            let content = Content::new(Some(Ref::from_schema_name("Problem")));
            response.content = [("application/problem+json".to_owned(), RefOr::T(content))].into_iter().collect();
        }
    }
    if operation.operation_id.as_deref().is_some_and(|id| !OF_THE_CLUSTER.contains(&id)) {
        operation.parameters.get_or_insert_default().push(RefOr::T(namespace()));
    }
    // Who sends nothing means the defaults, no lines, or a document that is empty, of which validate says so.
    const MAY_BE_EMPTY: [&str; 4] = ["drain", "cancel", "batch", "validate"];
    if let Some(RefOr::T(body)) = &mut operation.request_body
        && operation.operation_id.as_deref().is_some_and(|id| MAY_BE_EMPTY.contains(&id))
    {
        body.required = Some(Required::False);
    }
}

/// The document as JSON.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    Document::openapi().to_pretty_json()
}
