//! Limits of documents, each with its reason.

/// Size of a document in bytes: ten thousand nodes of a hundred bytes.
pub const DOCUMENT_BYTES: usize = 1 << 20;

/// Values in a document after aliases are followed: a few lines of aliases can stand for billions.
pub const VALUES: usize = 300_000;

/// Nesting of lists and maps in a document. Sixteen bodies with cases need about eighty.
pub const DOCUMENT_NESTING: usize = 100;

/// Nodes of a workflow: their states stand in one array of the replicated state.
pub const NODES: usize = 10_000;

/// Paths into a node, and out of it.
pub const PATHS: usize = 1_000;

/// Nesting of bodies.
pub const BODY_NESTING: usize = 16;

/// Cases of a node, `default` included: chosen ones are bits of one word.
pub const CASES: usize = 64;

/// Variables of one scope.
pub const VARS: usize = 64;

/// Attempts of a node.
pub const ATTEMPTS: u64 = 1_000;

/// Longest delay between attempts: 7 days.
pub const DELAY_MS: u64 = 7 * 86_400_000;

/// Longest timeout or wait: 10 years.
pub const TIMEOUT_MS: u64 = 3_650 * 86_400_000;

/// Largest constant that stands in the compiled form, in bytes: it is replicated with the version.
pub const CONSTANT_BYTES: usize = 16 * 1024;

/// Problems told at once; a longer list helps nobody.
pub const PROBLEMS: usize = 200;

/// Children of a scope at once.
pub const PARALLEL: u64 = 10_000;

/// Problems of an input told at once.
pub const INPUT_PROBLEMS: usize = 20;
