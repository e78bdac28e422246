//! Expressions and templates as their users see them.

mod corpus;
mod hostile;
mod oracle;
mod templates;
