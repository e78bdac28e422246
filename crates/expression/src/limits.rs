//! Limits of expressions, each with its reason.

/// Longest source of one expression, in bytes: a page of text is more than anyone reads in one go.
pub const SOURCE_BYTES: usize = 4 * 1024;

/// Most parts of one expression.
pub const NODES: usize = 500;

/// Deepest nesting of parts. The evaluator walks the tree on the stack of its caller.
pub const DEPTH: usize = 100;

/// Deepest nesting of `map`, `filter`, `all`, `exists`, `exists_one`: each level multiplies the work.
pub const LOOP_DEPTH: usize = 2;

/// Longest list that an expression may build or walk.
pub const LIST_ITEMS: usize = 10_000;

/// Steps of one evaluation, which is about 10 ms of a slow core. Counted and not timed, so that every scheduler comes
/// to the same result.
pub const STEPS: u32 = 200_000;

/// Largest single payload that an evaluation may read, in bytes.
pub const PAYLOAD_BYTES: usize = 1 << 20;

/// All payloads that one evaluation may read, in bytes.
pub const PAYLOADS_BYTES: usize = 4 << 20;

/// Largest text or JSON that an evaluation may make, in bytes.
pub const RESULT_BYTES: usize = 8 << 20;

/// Deepest nesting of a value, as deep as the JSON reader goes.
pub const VALUE_DEPTH: usize = 120;
