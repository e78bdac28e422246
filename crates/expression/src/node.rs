//! The tree of an expression.

use crate::functions::Function;
use crate::value::{Text, Value};

/// A part of an expression.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Byte offset in the source.
    pub at: u32,
    /// Levels below it.
    pub depth: u16,
    pub what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Constant(Value),
    /// A name that the scope knows.
    Root(Text),
    /// A variable of a loop around it: how many loops further out it was bound.
    Local(u8),
    Field(Box<Node>, Text),
    Index(Box<Node>, Box<Node>),
    Has(Box<Node>, Text),
    Not(Box<Node>),
    Negate(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    /// Flat, so that a long chain is not a deep tree.
    And(Vec<Node>),
    Or(Vec<Node>),
    Choice(Box<Node>, Box<Node>, Box<Node>),
    List(Vec<Node>),
    Object(Vec<(Node, Node)>),
    Call(Function, Vec<Node>),
    Loop(Box<Loop>),
    /// `matches` with a fixed pattern, compiled once.
    Matches(Box<Node>, regex::Regex),
}

/// `over.kind(variable, filter, body)`.
#[derive(Clone, Debug)]
pub(crate) struct Loop {
    pub kind: LoopKind,
    pub over: Node,
    /// Only for `map` with three arguments.
    pub filter: Option<Node>,
    pub body: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoopKind {
    Map,
    Filter,
    All,
    Exists,
    ExistsOne,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl Operator {
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
        }
    }
}

/// What kind of value an expression gives, as far as its form tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only an evaluation can tell.
    Unknown,
    /// True or false.
    Bool,
    /// An int or a double.
    Number,
    /// Text.
    Text,
    /// A list.
    List,
    /// An object.
    Object,
    /// Null.
    Null,
    /// A moment or a span of time.
    Time,
}

impl Node {
    pub(crate) fn kind(&self) -> Kind {
        match &self.what {
            What::Constant(value) => value.kind(),
            What::Root(_) | What::Local(_) | What::Field(..) | What::Index(..) => Kind::Unknown,
            What::Has(..) | What::Not(_) | What::And(_) | What::Or(_) | What::Matches(..) => Kind::Bool,
            // A span of time can be negated too.
            What::Negate(inner) => {
                if inner.kind() == Kind::Time {
                    Kind::Time
                } else {
                    Kind::Unknown
                }
            }
            What::Binary(operator, left, right) => match operator {
                Operator::Multiply | Operator::Divide | Operator::Remainder => Kind::Number,
                Operator::Add | Operator::Subtract => {
                    let (left, right) = (left.kind(), right.kind());
                    if left == right { left } else { Kind::Unknown }
                }
                _ => Kind::Bool,
            },
            What::Choice(_, yes, no) => {
                if yes.kind() == no.kind() {
                    yes.kind()
                } else {
                    Kind::Unknown
                }
            }
            What::List(_) => Kind::List,
            What::Object(_) => Kind::Object,
            What::Call(function, _) => function.kind(),
            What::Loop(it) => match it.kind {
                LoopKind::Map | LoopKind::Filter => Kind::List,
                LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => Kind::Bool,
            },
        }
    }

    /// Calls `visit` with each node directly below.
    pub(crate) fn for_each_child<'a>(&'a self, mut visit: impl FnMut(&'a Node)) {
        match &self.what {
            What::Constant(_) | What::Root(_) | What::Local(_) => {}
            What::Field(inner, _) | What::Has(inner, _) | What::Matches(inner, _) => visit(inner),
            What::Not(inner) | What::Negate(inner) => visit(inner),
            What::Index(left, right) | What::Binary(_, left, right) => {
                visit(left);
                visit(right);
            }
            What::And(all) | What::Or(all) | What::List(all) | What::Call(_, all) => all.iter().for_each(visit),
            What::Choice(test, yes, no) => {
                visit(test);
                visit(yes);
                visit(no);
            }
            What::Object(entries) => {
                for (key, value) in entries {
                    visit(key);
                    visit(value);
                }
            }
            What::Loop(it) => {
                visit(&it.over);
                if let Some(filter) = &it.filter {
                    visit(filter);
                }
                visit(&it.body);
            }
        }
    }
}
