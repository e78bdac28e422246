//! A document as values with places, before anyone knows what they mean.

use std::collections::BTreeMap;

/// Where something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// Number of the value in its document; what is told about it can name its path.
    pub node: u32,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub at: Spot,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Text),
    List(Vec<Tree>),
    Map(Vec<(Key, Tree)>),
}

#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub value: String,
    /// How its letters stand in the source.
    pub written: Written,
}

/// How the letters of a text stand in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// One by one on one line, so many columns after the text's own place.
    Line(u32),
    /// One by one on lines that all begin at the text's own column.
    Block,
    /// Otherwise: folded, or with escapes.
    Otherwise,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub name: String,
    pub at: Spot,
}

impl Tree {
    pub(crate) fn text(value: impl Into<String>, at: Spot) -> Self {
        Self { at, kind: Kind::Text(Text { value: value.into(), written: Written::Otherwise }) }
    }

    pub(crate) fn list(items: Vec<Tree>, at: Spot) -> Self {
        Self { at, kind: Kind::List(items) }
    }

    pub(crate) fn map(entries: Vec<(&str, Tree)>, at: Spot) -> Self {
        let entries = entries.into_iter().map(|(name, value)| (Key { name: name.to_owned(), at: value.at }, value));
        Self { at, kind: Kind::Map(entries.collect()) }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Tree> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(key, _)| key.name == name).map(|(_, value)| value),
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(&text.value),
            _ => None,
        }
    }

    /// In a word, for people.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "a bool",
            Kind::Int(_) | Kind::Double(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// The place of a byte inside a text; the text's own place when its letters do not stand one by one.
    pub(crate) fn spot_at(&self, offset: usize) -> Spot {
        let Kind::Text(text) = &self.kind else { return self.at };
        let before = text.value.get(..offset).unwrap_or(&text.value);
        match text.written {
            Written::Line(lead) => Spot { column: self.at.column + lead + before.chars().count() as u32, ..self.at },
            Written::Block => {
                let line = self.at.line + before.matches('\n').count() as u32;
                let in_line = before.rsplit('\n').next().unwrap_or_default();
                Spot { line, column: self.at.column + in_line.chars().count() as u32, ..self.at }
            }
            Written::Otherwise => self.at,
        }
    }

    /// As JSON; keys sorted.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.kind {
            Kind::Null => serde_json::Value::Null,
            Kind::Bool(it) => (*it).into(),
            Kind::Int(it) => (*it).into(),
            Kind::Double(it) => (*it).into(),
            Kind::Text(it) => it.value.clone().into(),
            Kind::List(items) => items.iter().map(Self::to_json).collect::<Vec<_>>().into(),
            Kind::Map(entries) => {
                let map = entries.iter().map(|(key, value)| (key.name.clone(), value.to_json()));
                serde_json::Value::Object(map.collect())
            }
        }
    }

    /// JSON pointers by number of value.
    pub(crate) fn pointers(&self) -> BTreeMap<u32, String> {
        let mut pointers = BTreeMap::new();
        self.point(String::new(), &mut pointers);
        pointers
    }

    fn point(&self, pointer: String, pointers: &mut BTreeMap<u32, String>) {
        match &self.kind {
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.point(format!("{pointer}/{index}"), pointers);
                }
            }
            Kind::Map(entries) => {
                for (key, value) in entries {
                    let name = key.name.replace('~', "~0").replace('/', "~1");
                    value.point(format!("{pointer}/{name}"), pointers);
                }
            }
            _ => {}
        }
        pointers.entry(self.at.node).or_insert(pointer);
    }
}
