//! YAML 1.2 with places, from the parser's events.

use std::collections::{BTreeMap, BTreeSet};

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use super::Broken;
use crate::limits;
use crate::problem::codes;
use crate::report::Report;
use crate::tree::{Key, Kind, Spot, Text, Tree, Written};

pub(super) fn read(text: &str, report: &mut Report) -> Result<Tree, Broken> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: limits::DOCUMENT_NESTING,
        block_nesting_limit: limits::DOCUMENT_NESTING,
    };
    let mut builder = Builder {
        source: text,
        open: Vec::new(),
        anchors: BTreeMap::new(),
        root: None,
        values: 0,
        anchored: 0,
        report,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| broken(&error))?;
        builder.event(event, span)?;
    }
    builder.root.ok_or_else(|| Broken::new(codes::YAML, (1, 1), "the document is empty"))
}

fn broken(error: &ScanError) -> Broken {
    let code = match error.kind() {
        ErrorKind::RecursionLimitExceeded => codes::DEPTH,
        _ => codes::YAML,
    };
    let message = match error.kind() {
        ErrorKind::RecursionLimitExceeded => format!("nested deeper than {}", limits::DOCUMENT_NESTING),
        kind => format!("not YAML: {kind}"),
    };
    let mut broken = Broken::new(code, place(error.marker()), message);
    if code == codes::YAML {
        broken.help =
            Some("put text with ':', '#', '{', '!' or '${ }' in double quotes, and CEL strings in single ones");
    }
    broken
}

fn place(marker: &Marker) -> (u32, u32) {
    (marker.line() as u32, marker.col() as u32 + 1)
}

struct Builder<'a, 'r> {
    source: &'a str,
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Tree, usize)>,
    root: Option<Tree>,
    values: usize,
    /// Values held for aliases: anchors inside of anchors hold theirs again.
    anchored: usize,
    report: &'r mut Report,
}

/// A list or map that is not closed yet.
struct Open {
    at: Spot,
    anchor: usize,
    /// Values made before it: what it holds is counted by the difference.
    before: usize,
    what: What,
}

enum What {
    List(Vec<Tree>),
    Map { entries: Vec<(Key, Tree)>, names: BTreeSet<String>, key: Option<Key> },
}

impl Builder<'_, '_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Broken> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                let message = "a second document; one file holds one workflow";
                return Err(Broken::new(codes::YAML, place(&span.start), message));
            }
            Event::Scalar(value, style, anchor, tag) => {
                let at = self.spot(&span)?;
                let kind = self.scalar(&value, style, tag.as_deref(), at, &span)?;
                self.add(Tree { at, kind }, anchor, 1)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open_one(anchor, tag.as_deref(), "seq", &span, What::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                let what = What::Map { entries: Vec::new(), names: BTreeSet::new(), key: None };
                self.open_one(anchor, tag.as_deref(), "map", &span, what)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                // The parser closes only what it has opened.
                let Some(open) = self.open.pop() else { return Ok(()) };
                let kind = match open.what {
                    What::List(items) => Kind::List(items),
                    What::Map { entries, .. } => Kind::Map(entries),
                };
                let size = self.values - open.before;
                self.add(Tree { at: open.at, kind }, open.anchor, size)?;
            }
            Event::Alias(anchor) => {
                let Some((tree, size)) = self.anchors.get(&anchor) else {
                    let message = "an alias inside of what it stands for";
                    return Err(Broken::new(codes::YAML, place(&span.start), message));
                };
                // Counted before it is copied: this is where a bomb would go off.
                if self.values + size > limits::VALUES {
                    return Err(self.too_many(&span));
                }
                let (mut tree, size) = (tree.clone(), *size);
                self.values += size;
                let (line, column) = place(&span.start);
                tree.at = Spot { line, column, node: tree.at.node };
                self.add(tree, 0, size)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn too_many(&self, span: &Span) -> Broken {
        let message = format!("the document has more than {} values, aliases followed", limits::VALUES);
        Broken::new(codes::LIMIT, place(&span.start), message)
    }

    fn spot(&mut self, span: &Span) -> Result<Spot, Broken> {
        if self.values >= limits::VALUES {
            return Err(self.too_many(span));
        }
        self.values += 1;
        let (line, column) = place(&span.start);
        Ok(Spot { line, column, node: self.values as u32 - 1 })
    }

    fn open_one(&mut self, anchor: usize, tag: Option<&Tag>, own: &str, span: &Span, what: What) -> Result<(), Broken> {
        if let Some(tag) = tag
            && !tag.is_yaml_core_schema_tag(own)
        {
            return Err(unknown_tag(tag, span));
        }
        let before = self.values;
        let at = self.spot(span)?;
        if self.open.len() >= limits::DOCUMENT_NESTING {
            let message = format!("nested deeper than {}", limits::DOCUMENT_NESTING);
            return Err(Broken::new(codes::DEPTH, place(&span.start), message));
        }
        self.open.push(Open { at, anchor, before, what });
        Ok(())
    }

    fn add(&mut self, tree: Tree, anchor: usize, size: usize) -> Result<(), Broken> {
        if anchor != 0 {
            self.anchored += size;
            if self.anchored > limits::VALUES {
                let message = format!("anchors stand for more than {} values", limits::VALUES);
                return Err(Broken::new(codes::LIMIT, (tree.at.line, tree.at.column), message));
            }
            self.anchors.insert(anchor, (tree.clone(), size));
        }
        match self.open.last_mut().map(|open| &mut open.what) {
            None => self.root = Some(tree),
            Some(What::List(items)) => items.push(tree),
            Some(What::Map { entries, names, key }) => match key.take() {
                Some(mut key) => {
                    key.at.node = tree.at.node;
                    entries.push((key, tree));
                }
                None => {
                    let place = (tree.at.line, tree.at.column);
                    let name = match tree.kind {
                        Kind::Text(text) => text.value,
                        Kind::Bool(it) => it.to_string(),
                        Kind::Int(it) => it.to_string(),
                        _ => return Err(Broken::new(codes::YAML, place, "a key must be text")),
                    };
                    if !names.insert(name.clone()) {
                        let message = format!("the key '{name}' is there twice");
                        return Err(Broken::new(codes::DUPLICATE_ID, place, message));
                    }
                    *key = Some(Key { name, at: tree.at });
                }
            },
        }
        Ok(())
    }

    fn scalar(
        &mut self,
        value: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        at: Spot,
        span: &Span,
    ) -> Result<Kind, Broken> {
        let source = span.slice(self.source).unwrap_or_default();
        let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
        let written = match style {
            ScalarStyle::Literal => Written::Block,
            _ if value.contains('\n') => Written::Otherwise,
            ScalarStyle::Plain if source == value => Written::Line(0),
            _ if quoted && source.len() == value.len() + 2 && source.get(1..source.len() - 1) == Some(value) => {
                Written::Line(1)
            }
            _ => Written::Otherwise,
        };
        let text = Kind::Text(Text { value: value.to_owned(), written });
        match tag {
            Some(tag) if tag.is_yaml_core_schema_tag("str") || tag.parts() == ("!", "") => return Ok(text),
            Some(tag) if !tag.is_yaml_core_schema() => return Err(unknown_tag(tag, span)),
            _ => {}
        }
        if style != ScalarStyle::Plain {
            return Ok(text);
        }
        if is_other_in_yaml_1_1(value) && !self.expects_key() {
            let message = format!("'{value}' is text here; other YAML readers take it for something else");
            self.report.warning(codes::IMPLICIT_TEXT, at, message, Some("put it in quotes".to_owned()));
        }
        match resolve(value) {
            Some(Kind::Double(number)) if !number.is_finite() => {
                Err(Broken::new(codes::YAML, (at.line, at.column), "JSON has no such number"))
            }
            resolved => Ok(resolved.unwrap_or(text)),
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { what: What::Map { key: None, .. }, .. }))
    }
}

fn unknown_tag(tag: &Tag, span: &Span) -> Broken {
    let message = format!("the tag '{}' has no meaning here", tag.original());
    let mut broken = Broken::new(codes::YAML, place(&span.start), message);
    broken.help = Some("an expression that begins with '!' belongs in double quotes");
    broken
}

/// The core schema of YAML 1.2; anything else is text.
fn resolve(value: &str) -> Option<Kind> {
    match value {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Kind::Null),
        "true" | "True" | "TRUE" => return Some(Kind::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Kind::Bool(false)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN" | ".NAN" => {
            return Some(Kind::Double(f64::NAN));
        }
        _ => {}
    }
    let digits = value.strip_prefix(['+', '-']).unwrap_or(value);
    if let Some(hex) = value.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with(['+', '-'])).map(Kind::Int);
    }
    if let Some(octal) = value.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok().filter(|_| !octal.starts_with(['+', '-'])).map(Kind::Int);
    }
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(match value.parse() {
            Ok(int) => Kind::Int(int),
            Err(_) => Kind::Double(value.parse().ok()?),
        });
    }
    // A point or an exponent makes a double, if there is a digit and nothing else.
    let form = digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    if form
        && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.contains(|c: char| c.is_ascii_digit())
    {
        return value.parse().ok().map(Kind::Double);
    }
    None
}

/// What YAML 1.1 takes for a bool or for a number to the base of 60.
fn is_other_in_yaml_1_1(value: &str) -> bool {
    let word = matches!(value.to_ascii_lowercase().as_str(), "on" | "off" | "yes" | "no" | "y" | "n");
    let sixty = value.split_once(':').is_some_and(|(left, right)| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits(left) && right.split(':').all(digits)
    });
    word || sixty
}

#[cfg(test)]
mod tests {
    use super::{Kind, resolve};

    #[test]
    fn scalars_follow_the_core_schema_of_1_2() {
        for text in ["on", "yes", "12:30", "1.2.3", "+", "-", ".", "1e", "e3", "0x", "0xg", "1_000", "nova/v1", "-a"] {
            assert!(resolve(text).is_none(), "{text}");
        }
        for (text, number) in
            [("1.5", 1.5), ("-1e3", -1000.0), (".5", 0.5), ("1.", 1.0), ("99999999999999999999", 1e20)]
        {
            assert!(matches!(resolve(text), Some(Kind::Double(n)) if n == number), "{text}");
        }
        for (text, number) in [("10", 10), ("-3", -3), ("+3", 3), ("0x1f", 31), ("0o17", 15), ("010", 10)] {
            assert!(matches!(resolve(text), Some(Kind::Int(n)) if n == number), "{text}");
        }
    }
}
