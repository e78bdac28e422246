//! The words of the language: what is supported, and what later versions bring.

/// Node types.
pub(crate) const TYPES: [&str; 9] = ["group", "if", "switch", "set", "merge", "transform", "wait", "http", "task"];

/// Node types of later versions.
#[rustfmt::skip]
pub(crate) const TYPES_LATER: [&str; 19] = [
    "foreach", "repeat", "race", "workflow", "receive", "send", "approval", "break", "continue", "end", "stop",
    "raise", "process", "sql", "kafka", "email", "llm", "wasm", "container",
];

/// Fields that every node may have.
#[rustfmt::skip]
pub(crate) const NODE: [&str; 13] = [
    "id", "type", "name", "description", "labels", "needs", "join", "next", "when", "output", "set", "timeout",
    "fallback",
];

/// Fields of nodes that only some types give a meaning.
#[rustfmt::skip]
pub(crate) const NODE_SOME: [&str; 20] = [
    "with", "retry", "pool", "kind", "engine", "test", "then", "else", "mode", "cases", "default", "for", "at",
    "zone", "do", "nodes", "edges", "vars", "parallel", "slots",
];

/// Fields of nodes that later versions bring.
#[rustfmt::skip]
pub(crate) const NODE_LATER: [&str; 45] = [
    "catch", "finally", "compensate", "circuit", "concurrency", "rate", "cache", "budget", "slots", "priority",
    "background", "finish", "rest", "maxSteps", "maxFailures", "minSuccess", "collect", "items", "from", "batch",
    "while", "until", "times", "delay", "max", "workflow", "version", "signal", "topic", "key", "where", "count",
    "to", "keep", "broadcast", "groups", "users", "approvers", "notBy", "form", "allow", "migrate", "maxDowntime",
    "engine", "undo",
];

/// Fields of the spec.
pub(crate) const SPEC: [&str; 11] =
    ["input", "vars", "do", "nodes", "edges", "output", "parallel", "timeout", "priority", "defaults", "requires"];

/// Fields of the spec that later versions bring.
#[rustfmt::skip]
pub(crate) const SPEC_LATER: [&str; 15] = [
    "triggers", "concurrency", "undo", "cleanupTimeout", "catch", "finally", "compensate", "retry", "fallback",
    "finish", "rest", "maxSteps", "budget", "rate", "circuit",
];

/// What the type of a node adds to [`NODE`].
pub(crate) fn fields_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "http" => &["with", "retry", "pool"],
        "task" => &["kind", "with", "retry", "pool"],
        "transform" => &["with"],
        "if" => &["test", "then", "else", "vars", "retry"],
        "switch" => &["mode", "cases", "default", "else", "vars", "retry"],
        "wait" => &["for", "at", "zone"],
        "group" => &["do", "nodes", "edges", "vars", "parallel", "retry"],
        ADAPTER => &["with"],
        _ => &[],
    }
}

/// The `DATA_ADAPTER` of a low-code document; no word of the language itself.
pub(crate) const ADAPTER: &str = "data-adapter";

/// Ports that every node has.
pub(crate) const PORTS: [&str; 4] = ["ok", "error", "timeout", "ended"];

/// Names that no id or case may have: ports, values, and the words that CEL keeps for itself. All but `loop`, which
/// the patterns of the language use as an id; a field may be called so.
#[rustfmt::skip]
pub(crate) const NOT_IDS: [&str; 28] = [
    "ok", "error", "timeout", "ended", "true", "false", "default", "approved", "rejected", "end", "as", "break", "const",
    "continue", "else", "for", "function", "if", "import", "in", "let", "package", "namespace", "null", "return", "var",
    "void", "while",
];

/// Names that an expression may use.
pub(crate) const ROOTS: [&str; 6] = ["input", "nodes", "vars", "output", "error", "execution"];

/// Names that an expression may use in later versions.
pub(crate) const ROOTS_LATER: [&str; 9] =
    ["item", "index", "round", "last", "acc", "outcome", "event", "cursor", "trigger"];

/// What may be read of a node.
pub(crate) const VIEW: [&str; 6] = ["output", "state", "error", "attempts", "startedAt", "endedAt"];

/// What may be read of a node in later versions.
pub(crate) const VIEW_LATER: [&str; 4] = ["errors", "item", "index", "round"];

/// What may be read of the execution.
pub(crate) const EXECUTION: [&str; 6] = ["id", "workflow", "version", "namespace", "startedAt", "startedBy"];

/// What may be read of the execution in later versions.
pub(crate) const EXECUTION_LATER: [&str; 3] = ["labels", "parent", "depth"];

/// Fields of the argument of `http`.
pub(crate) const HTTP_WITH: [&str; 11] =
    ["url", "method", "headers", "query", "json", "body", "form", "auth", "timeout", "expect", "redirects"];
