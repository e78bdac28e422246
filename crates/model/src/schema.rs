//! The shape of documents as Rust types, from which the JSON Schema for editors is generated.
//!
//! The schema tells fields and forms; what needs the whole document – names, cycles, expressions – only the compiler
//! tells. A test keeps these types and the words of the reader together.
#![expect(dead_code, reason = "only their shape is read")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::Value;

/// The JSON Schema (2020-12) of a document.
#[must_use]
pub fn schema() -> Value {
    let mut schema = SchemaGenerator::from(SchemaSettings::draft2020_12()).into_root_schema_for::<Document>();
    schema.insert("$id".to_owned(), "urn:novaflow:schema:nova-v1:workflow".into());
    let mut schema = schema.to_value();
    without_null(&mut schema);
    schema
}

/// A field may be left out, which is not the same as null: the reader refuses null where it wants something else.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(forms)) = object.get_mut("anyOf") {
                forms.retain(|form| form.get("type").is_none_or(|name| name != "null"));
                if let [Value::Object(only)] = forms.as_slice() {
                    let only = only.clone();
                    object.remove("anyOf");
                    object.extend(only);
                }
            }
            object.values_mut().for_each(without_null);
        }
        _ => {}
    }
}

/// A NovaFlow workflow.
#[derive(JsonSchema)]
#[schemars(untagged, title = "NovaFlow workflow")]
enum Document {
    /// A document of the language.
    Workflow(Box<Workflow>),
    /// A low-code document.
    LowCode(LowCode),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Workflow {
    /// Version of the language.
    api_version: ApiVersion,
    /// What the document describes.
    kind: WorkflowKind,
    metadata: Metadata,
    spec: Spec,
}

#[derive(JsonSchema)]
enum ApiVersion {
    #[schemars(rename = "nova/v1")]
    V1,
}

#[derive(JsonSchema)]
enum WorkflowKind {
    Workflow,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Metadata {
    /// Tenant; `default` when it is left out.
    namespace: Option<Name>,
    /// Name of the workflow.
    name: Name,
    /// For search.
    labels: Option<Labels>,
    /// For people.
    annotations: Option<Labels>,
}

/// The root scope.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    /// JSON Schema (2020-12) of the input.
    input: Option<Value>,
    /// Variables with their start values.
    vars: Option<Vars>,
    /// Steps, in order.
    r#do: Option<Nodes>,
    /// Nodes of a graph.
    nodes: Option<Nodes>,
    /// Paths of the graph, beside `needs`.
    edges: Option<Vec<Edge>>,
    /// Output of the execution.
    output: Option<Value>,
    /// Children at once; only with `nodes`.
    parallel: Option<Parallel>,
    /// Limit in time of the whole execution.
    timeout: Option<TotalTimeout>,
    /// From 0 (last) to 9 (first).
    #[schemars(range(min = 0, max = 9))]
    priority: Option<u8>,
    /// Fields that nodes of a type have when they leave them out.
    defaults: Option<BTreeMap<NodeType, Defaults>>,
    /// Features that a cluster must have.
    requires: Option<Vec<String>>,
}

#[derive(JsonSchema, PartialEq, Eq, PartialOrd, Ord)]
#[schemars(rename_all = "lowercase")]
enum NodeType {
    Group,
    If,
    Switch,
    Set,
    Merge,
    Transform,
    Wait,
    Http,
    Task,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Defaults {
    retry: Option<RetryForm>,
    timeout: Option<WorkTimeout>,
    fallback: Option<Value>,
    pool: Option<Name>,
    with: Option<Value>,
    output: Option<Value>,
    labels: Option<Labels>,
}

/// Nodes of a body.
#[derive(JsonSchema)]
#[schemars(transparent)]
struct Nodes(#[schemars(length(min = 1))] Vec<Node>);

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Edge {
    /// Id of the node where it starts.
    source: Id,
    /// `ok` (the default), `error`, `timeout`, `ended`, or a case.
    port: Option<PortName>,
    /// Id of the node where it leads.
    target: Id,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum PortName {
    Name(String),
    Case(bool),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Node {
    Typed(Box<Typed>),
    /// A node with a body and without a type is a group.
    Group(Box<Untyped>),
}

#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "lowercase")]
enum Typed {
    /// Calls an HTTP server.
    Http(Http),
    /// Runs a kind of work that workers offer.
    Task(Task),
    /// Its `with` is its output.
    Transform(Transform),
    /// Chooses by one condition.
    If(If),
    /// Chooses among cases.
    Switch(Switch),
    /// Writes variables.
    Set(Plain),
    /// An object of the outputs that arrived.
    Merge(Plain),
    /// Lets time pass.
    Wait(Wait),
    /// Nodes that belong together.
    Group(Untyped),
}

/// Fields that every node may have.
#[derive(JsonSchema)]
struct Common {
    /// Unique in the document.
    id: Id,
    /// For people.
    name: Option<String>,
    /// For people.
    description: Option<String>,
    /// For search.
    labels: Option<Labels>,
    /// In a graph: ids of the nodes before, perhaps with a port: `a`, `b.error`.
    needs: Option<Vec<String>>,
    /// In a graph: which of the paths must arrive.
    join: Option<Join>,
    /// In a list: id of the next step of the same list, or `end`.
    next: Option<String>,
    /// Tested when its turn comes; when false the node is skipped.
    when: Option<Condition>,
    /// What is kept as output; sees `output`.
    output: Option<Value>,
    /// Variables to write after success; sees `output`.
    set: Option<Vars>,
    /// Limit in time.
    timeout: Option<WorkTimeout>,
    /// The output when it failed for good; sees `error`.
    fallback: Option<Value>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Http {
    #[schemars(flatten)]
    common: Common,
    with: HttpWith,
    retry: Option<RetryForm>,
    /// Pool of workers that may run it.
    pool: Option<Name>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum HttpWith {
    Fields(Box<HttpFields>),
    Expression(String),
}

#[derive(JsonSchema)]
struct HttpFields {
    url: String,
    /// `GET` when it is left out.
    method: Option<String>,
    headers: Option<Value>,
    query: Option<Value>,
    /// Sent as JSON.
    json: Option<Value>,
    /// Sent as it is.
    body: Option<Value>,
    /// Sent as a form.
    form: Option<Value>,
    auth: Option<Value>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Task {
    #[schemars(flatten)]
    common: Common,
    /// What the worker must offer: `noop`, `echo`, `sleep`, `fail`, or a kind of your own.
    kind: Name,
    /// Its argument.
    with: Option<Value>,
    retry: Option<RetryForm>,
    /// Pool of workers that may run it.
    pool: Option<Name>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Transform {
    #[schemars(flatten)]
    common: Common,
    /// Its output.
    with: Value,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct If {
    #[schemars(flatten)]
    common: Common,
    test: Condition,
    then: Option<Nodes>,
    r#else: Option<Nodes>,
    vars: Option<Vars>,
    retry: Option<RetryForm>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Switch {
    #[schemars(flatten)]
    common: Common,
    /// `first` (the default): the first case that is true; `all`: each that is.
    mode: Option<SwitchMode>,
    #[schemars(length(min = 1, max = 63))]
    cases: Vec<Case>,
    /// Name of the port when no case is true.
    default: Option<Id>,
    r#else: Option<Nodes>,
    vars: Option<Vars>,
    retry: Option<RetryForm>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum SwitchMode {
    First,
    All,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Case {
    /// Its port.
    name: Id,
    when: Condition,
    r#do: Option<Nodes>,
    nodes: Option<Nodes>,
    edges: Option<Vec<Edge>>,
    vars: Option<Vars>,
    output: Option<Value>,
    parallel: Option<Parallel>,
    /// In a list: where it goes on.
    next: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Plain {
    #[schemars(flatten)]
    common: Common,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Wait {
    #[schemars(flatten)]
    common: Common,
    /// How long: `10m`.
    r#for: Option<String>,
    /// Until when: RFC 3339, or local time with `zone`.
    at: Option<String>,
    /// IANA time zone.
    zone: Option<String>,
}

// The form of a group that does say so too: `Typed` adds the field `type` to it.
/// A group that does not say so.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Untyped {
    #[schemars(flatten)]
    common: Common,
    r#do: Option<Nodes>,
    nodes: Option<Nodes>,
    edges: Option<Vec<Edge>>,
    vars: Option<Vars>,
    /// Children at once; only with `nodes`.
    parallel: Option<Parallel>,
    retry: Option<RetryForm>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Join {
    Word(JoinWord),
    Count(JoinCount),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum JoinWord {
    /// All paths decided, at least one arrived.
    All,
    /// All paths arrived.
    Every,
    /// At the first arrival.
    Any,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct JoinCount {
    /// At the n-th arrival.
    #[schemars(range(min = 1, max = 1000))]
    count: u16,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum RetryForm {
    /// Attempts in all.
    Attempts(#[schemars(range(min = 1, max = 1000))] u32),
    Policy(Retry),
}

/// Repeats of failed attempts.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Retry {
    /// Attempts in all, the first included; 3 when it is left out.
    #[schemars(range(min = 1, max = 1000))]
    max_attempts: Option<u32>,
    /// Delay before the second attempt; `1s` when it is left out.
    initial: Option<Duration>,
    /// Growth per attempt; 2 when it is left out.
    #[schemars(range(min = 1, max = 100))]
    factor: Option<f64>,
    /// Longest delay; `30s` when it is left out.
    max_delay: Option<Duration>,
    /// How delays are spread; `full` when it is left out.
    jitter: Option<Jitter>,
    /// Error codes that are repeated; else those marked retryable.
    only: Option<Vec<String>>,
    /// Error codes that are never repeated.
    never: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Jitter {
    None,
    Full,
    Equal,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum WorkTimeout {
    /// `total`.
    Total(Duration),
    Parts(WorkTimeoutParts),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct WorkTimeoutParts {
    /// From queued to the beginning of an attempt.
    queue: Option<Duration>,
    /// Of one attempt.
    attempt: Option<Duration>,
    /// Over all attempts and delays.
    total: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum TotalTimeout {
    /// `total`.
    Total(Duration),
    Parts(TotalTimeoutParts),
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TotalTimeoutParts {
    total: Option<Duration>,
}

/// A span of time: `500ms`, `10s`, `1h30m`, `7d`.
#[derive(JsonSchema)]
#[schemars(transparent)]
struct Duration(#[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"))] String);

/// A CEL expression that gives true or false, bare or in one `${ }`.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Condition {
    Expression(String),
    Fixed(bool),
}

/// Id of a node, name of a case.
#[derive(JsonSchema)]
#[schemars(transparent)]
struct Id(#[schemars(regex(pattern = r"^[A-Za-z][A-Za-z0-9_-]{0,62}$"))] String);

/// A name in lower case.
#[derive(JsonSchema)]
#[schemars(transparent)]
struct Name(#[schemars(regex(pattern = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"))] String);

#[derive(JsonSchema)]
#[schemars(transparent)]
struct Parallel(#[schemars(range(min = 1, max = 10000))] u32);

type Labels = BTreeMap<String, Label>;
type Vars = BTreeMap<String, Value>;

#[derive(JsonSchema)]
#[schemars(untagged)]
enum Label {
    Text(String),
    Number(i64),
    Bool(bool),
}

/// A low-code document.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct LowCode {
    workflow: LowCodeWorkflow,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct LowCodeWorkflow {
    id: Option<String>,
    name: Option<String>,
    description: Option<String>,
    #[schemars(length(min = 1))]
    nodes: Vec<LowCodeNode>,
    edges: Option<Vec<LowCodeEdge>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct LowCodeNode {
    id: String,
    name: Option<String>,
    r#type: LowCodeType,
    config: Option<BTreeMap<String, Value>>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
enum LowCodeType {
    Http,
    DataAdapter,
    Conditional,
    Merge,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct LowCodeEdge {
    id: Option<String>,
    source: String,
    target: String,
    r#type: Option<LowCodeEdgeType>,
    port: Option<PortName>,
    label: Option<PortName>,
    condition: Option<PortName>,
    source_handle: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "SCREAMING_SNAKE_CASE")]
enum LowCodeEdgeType {
    Direct,
    Conditional,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use crate::words;

    /// The names of the fields of a form.
    fn properties(schema: &Value) -> BTreeSet<&str> {
        let own = schema["properties"].as_object().into_iter().flatten();
        own.map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn types_and_words_agree() {
        let schema = super::schema();
        let with =
            |own: &[&'static str]| -> BTreeSet<&str> { words::NODE.into_iter().chain(own.iter().copied()).collect() };
        let typed = schema["$defs"]["Typed"]["oneOf"].as_array().expect("the types of nodes");
        let names: BTreeSet<&str> =
            typed.iter().filter_map(|form| form["properties"]["type"]["const"].as_str()).collect();
        assert_eq!(names, words::TYPES.into_iter().collect());
        for form in typed {
            let kind = form["properties"]["type"]["const"].as_str().expect("a type");
            assert_eq!(properties(form), with(words::fields_of(kind)), "{kind}");
        }
        let mut untyped = with(words::fields_of("group"));
        untyped.remove("type");
        assert_eq!(properties(&schema["$defs"]["Untyped"]), untyped);
        assert_eq!(properties(&schema["$defs"]["Spec"]), words::SPEC.into_iter().collect());
    }
}
