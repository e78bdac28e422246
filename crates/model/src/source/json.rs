//! JSON with places. Strict, and bounded in nesting before anything recurses.

use super::Broken;
use crate::limits;
use crate::problem::codes;
use crate::tree::{Key, Kind, Spot, Text, Tree, Written};

pub(super) fn read(text: &str) -> Result<Tree, Broken> {
    let mut reader = Reader { text, at: 0, line: 1, line_start: 0, node: 0, depth: 0 };
    reader.blank();
    let tree = reader.value()?;
    reader.blank();
    if reader.at < text.len() {
        return Err(reader.broken("nothing may follow the document"));
    }
    Ok(tree)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    line_start: usize,
    node: u32,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn place(&self) -> (u32, u32) {
        let column = self.text.get(self.line_start..self.at).map_or(0, |line| line.chars().count());
        (self.line, column as u32 + 1)
    }

    fn spot(&mut self) -> Spot {
        self.node += 1;
        let (line, column) = self.place();
        Spot { line, column, node: self.node - 1 }
    }

    fn broken(&self, message: &str) -> Broken {
        Broken::new(codes::YAML, self.place(), format!("not JSON: {message}"))
    }

    fn blank(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' => {}
                b'\n' => {
                    self.line += 1;
                    self.line_start = self.at + 1;
                }
                _ => return,
            }
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, wanted: &str) -> Result<(), Broken> {
        if self.peek() != Some(byte) {
            return Err(self.broken(wanted));
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self) -> Result<Tree, Broken> {
        let at = self.spot();
        let kind = match self.peek() {
            None => return Err(self.broken("a value is missing at the end")),
            Some(b'{' | b'[') => {
                self.depth += 1;
                if self.depth > limits::DOCUMENT_NESTING {
                    let message = format!("nested deeper than {}", limits::DOCUMENT_NESTING);
                    return Err(Broken::new(codes::DEPTH, self.place(), message));
                }
                let kind = if self.peek() == Some(b'{') { self.map()? } else { self.list()? };
                self.depth -= 1;
                kind
            }
            Some(b'"') => {
                let start = self.at;
                let value = self.string()?;
                // As long in the source as it is: no escapes in it.
                let plain = self.at - start == value.len() + 2;
                let written = if plain { Written::Line(1) } else { Written::Otherwise };
                Kind::Text(Text { value, written })
            }
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(_) => self.word()?,
        };
        Ok(Tree { at, kind })
    }

    fn word(&mut self) -> Result<Kind, Broken> {
        for (word, kind) in [("null", Kind::Null), ("true", Kind::Bool(true)), ("false", Kind::Bool(false))] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(kind);
            }
        }
        Err(self.broken("a value is wanted here"))
    }

    fn list(&mut self) -> Result<Kind, Broken> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.blank();
            if items.is_empty() && self.peek() == Some(b']') {
                break;
            }
            items.push(self.value()?);
            self.blank();
            if self.peek() == Some(b']') {
                break;
            }
            self.expect(b',', "',' or ']' is wanted here")?;
        }
        self.at += 1;
        Ok(Kind::List(items))
    }

    fn map(&mut self) -> Result<Kind, Broken> {
        self.at += 1;
        let mut entries: Vec<(Key, Tree)> = Vec::new();
        let mut names = std::collections::BTreeSet::new();
        loop {
            self.blank();
            if entries.is_empty() && self.peek() == Some(b'}') {
                break;
            }
            let (line, column) = self.place();
            if self.peek() != Some(b'"') {
                return Err(self.broken("a key in double quotes is wanted here"));
            }
            let name = self.string()?;
            if !names.insert(name.clone()) {
                return Err(Broken::new(
                    codes::DUPLICATE_ID,
                    (line, column),
                    format!("the key '{name}' is there twice"),
                ));
            }
            self.blank();
            self.expect(b':', "':' is wanted here")?;
            self.blank();
            let value = self.value()?;
            entries.push((Key { name, at: Spot { line, column, node: value.at.node } }, value));
            self.blank();
            if self.peek() == Some(b'}') {
                break;
            }
            self.expect(b',', "',' or '}' is wanted here")?;
        }
        self.at += 1;
        Ok(Kind::Map(entries))
    }

    /// The bounds are found here; what is between them is read by the JSON library.
    fn string(&mut self) -> Result<String, Broken> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        loop {
            match self.peek() {
                None | Some(b'\n') => {
                    self.at = start;
                    return Err(self.broken("the text has no closing quote"));
                }
                Some(b'\\') => self.at += 2,
                Some(b'"') => break,
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        let literal = &bytes[start..self.at.min(bytes.len())];
        serde_json::from_slice(literal).map_err(|_| {
            self.at = start;
            self.broken("the text has an unknown escape or a control character")
        })
    }

    fn number(&mut self) -> Result<Kind, Broken> {
        let rest = &self.text[self.at..];
        let len = rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(rest.len());
        let number: serde_json::Number =
            serde_json::from_str(&rest[..len]).map_err(|_| self.broken("this is not a number"))?;
        self.at += len;
        Ok(match number.as_i64() {
            Some(int) => Kind::Int(int),
            None => Kind::Double(number.as_f64().unwrap_or_default()),
        })
    }
}
