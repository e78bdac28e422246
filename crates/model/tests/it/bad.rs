//! What is told about documents with problems.

use crate::snapshots::check;

#[test]
fn fields_and_types() {
    check("fields.txt");
}
