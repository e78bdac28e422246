//! The OpenAPI document, from the code.

use utoipa::OpenApi;

use crate::handlers::{cluster, executions, submit, watch, workflows};

#[derive(OpenApi)]
#[openapi(
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

/// The document as JSON.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    Document::openapi().to_pretty_json()
}
