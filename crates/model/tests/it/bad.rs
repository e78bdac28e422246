//! What is told about documents with problems.

use crate::snapshots::check;

#[test]
fn fields_and_types() {
    check("fields.txt");
}

#[test]
fn graphs_and_lists() {
    check("graphs.txt");
}

#[test]
fn expressions() {
    check("expressions.txt");
}

#[test]
fn bounds() {
    check("bounds.txt");
}

#[test]
fn low_code() {
    check("low_code.txt");
}
