//! What an expression reads, told from its form.

use crate::functions::Function;
use crate::node::{Node, What};

/// One thing that is read: a name of the scope and the fields that follow it as far as they are fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The name: `nodes` in `nodes.a.output[0].b`.
    pub root: Box<str>,
    /// The fields: `a`, `output`.
    pub path: Vec<Box<str>>,
    /// Byte offset of the name in the source.
    pub offset: usize,
    /// Byte offsets of the fields.
    pub offsets: Vec<usize>,
}

/// All that an expression reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    all: Vec<Reference>,
    varies: bool,
}

impl References {
    pub(crate) fn of(root: &Node) -> Self {
        let mut references = Self::default();
        references.walk(root);
        references
    }

    fn walk(&mut self, node: &Node) {
        if let Some(reference) = fixed(node) {
            self.all.push(reference);
            return;
        }
        if let What::Call(Function::Now | Function::Random | Function::Uuid, _) = node.what {
            self.varies = true;
        }
        node.for_each_child(|child| self.walk(child));
    }

    /// In order of the source.
    pub fn iter(&self) -> impl Iterator<Item = &Reference> {
        self.all.iter()
    }

    /// Whether the expression has the same value each time.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.all.is_empty() && !self.varies
    }
}

/// The reference that `node` is, if it is a name with fixed fields.
fn fixed(node: &Node) -> Option<Reference> {
    let mut fields = Vec::new();
    let mut node = node;
    loop {
        match &node.what {
            What::Root(root) => {
                fields.reverse();
                let (path, offsets) = fields.into_iter().unzip();
                return Some(Reference { root: root.as_ref().into(), path, offset: node.at as usize, offsets });
            }
            // has(a.b) reads a.b as far as the reader is concerned.
            What::Field(inner, name) | What::Has(inner, name) => {
                fields.push((Box::from(name.as_ref()), node.at as usize));
                node = inner;
            }
            _ => return None,
        }
    }
}
