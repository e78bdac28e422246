//! Words of the grammar.

use crate::error::{CompileError, CompileErrorKind};

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Int(u64),
    Double(f64),
    Text(String),
    Word(String),
    /// One of the signs of the grammar.
    Sign(&'static str),
    End,
}

/// Longer signs stand before their prefixes.
const SIGNS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];

/// The words of a source with their offsets, the end included.
pub(crate) fn words(source: &str) -> Result<Vec<(Token, u32)>, CompileError> {
    let mut lexer = Lexer { source, at: 0 };
    let mut words = Vec::new();
    loop {
        lexer.skip_blank();
        let start = lexer.at as u32;
        let token = lexer.next()?;
        let end = token == Token::End;
        words.push((token, start));
        if end {
            return Ok(words);
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']).len();
            self.at += blank;
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn next(&mut self) -> Result<Token, CompileError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        let second = rest[first.len_utf8()..].chars().next();
        match first {
            '\'' | '"' => self.text(false),
            'r' | 'R' if matches!(second, Some('\'' | '"')) => {
                self.at += 1;
                self.text(true)
            }
            'b' | 'B' if matches!(second, Some('\'' | '"')) => {
                Err(CompileError::syntax(self.at, "there are no bytes here: JSON has none"))
            }
            '0'..='9' => self.number(),
            '.' if second.is_some_and(|c| c.is_ascii_digit()) => self.number(),
            'A'..='Z' | 'a'..='z' | '_' => {
                let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                let word = rest[..len].to_owned();
                self.at += len;
                Ok(Token::Word(word))
            }
            _ => self.sign(first),
        }
    }

    fn sign(&mut self, first: char) -> Result<Token, CompileError> {
        if let Some(sign) = SIGNS.iter().find(|sign| self.rest().starts_with(**sign)) {
            self.at += sign.len();
            return Ok(Token::Sign(sign));
        }
        let error = CompileError::syntax(self.at, format!("unexpected '{}'", first.escape_debug()));
        Err(match first {
            '=' => error.with_help("to compare write '=='"),
            '&' => error.with_help("write '&&'"),
            '|' => error.with_help("write '||'"),
            '$' => error.with_help("there is no '${ }' inside an expression"),
            '`' | '“' | '”' | '‘' | '’' => error.with_help("put text in single quotes"),
            _ => error,
        })
    }

    fn number(&mut self) -> Result<Token, CompileError> {
        let start = self.at;
        let rest = self.rest();
        let bytes = rest.as_bytes();
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let len = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
            let value = u64::from_str_radix(&hex[..len], 16)
                .map_err(|_| CompileError::syntax(start, "not a whole number of 64 bits"))?;
            self.at += 2 + len;
            return self.after_number(start, Token::Int(value));
        }
        let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut len = digits(0);
        let mut double = false;
        // `1.size()` is not a double: a point needs a digit behind it.
        if bytes.get(len) == Some(&b'.') && digits(len + 1) > 0 {
            double = true;
            len += 1 + digits(len + 1);
        }
        if matches!(bytes.get(len), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(len + 1), Some(b'+' | b'-')));
            let exponent = digits((len + 1 + sign).min(bytes.len()));
            if exponent > 0 {
                double = true;
                len += 1 + sign + exponent;
            }
        }
        let text = &rest[..len];
        let token = if double {
            let value: f64 = text.parse().map_err(|_| CompileError::syntax(start, "not a number"))?;
            if !value.is_finite() {
                return Err(CompileError::syntax(start, "the number is too large"));
            }
            Token::Double(value)
        } else {
            let value = text.parse().map_err(|_| CompileError::syntax(start, "not a whole number of 64 bits"))?;
            Token::Int(value)
        };
        self.at += len;
        self.after_number(start, token)
    }

    fn after_number(&self, start: usize, token: Token) -> Result<Token, CompileError> {
        match self.rest().chars().next() {
            Some('u' | 'U') => Err(CompileError::syntax(start, "there are no unsigned numbers")
                .with_help("leave the 'u' away: whole numbers are signed")),
            Some(c) if c.is_ascii_alphanumeric() || c == '_' => {
                Err(CompileError::syntax(start, "a number must not run into a word"))
            }
            _ => Ok(token),
        }
    }

    fn text(&mut self, raw: bool) -> Result<Token, CompileError> {
        let start = self.at;
        let quote = &self.rest()[..1];
        let triple = quote.repeat(3);
        let quote = if self.rest().starts_with(&triple) { triple } else { quote.to_owned() };
        self.at += quote.len();
        let mut text = String::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(&quote) {
                self.at += quote.len();
                return Ok(Token::Text(text));
            }
            match rest.chars().next() {
                None => return Err(CompileError::syntax(start, "the text has no closing quote")),
                Some('\n') if quote.len() == 1 => {
                    return Err(CompileError::syntax(start, "the text has no closing quote on its line"));
                }
                Some('\\') if !raw => self.escape(&mut text)?,
                Some(c) => {
                    text.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Result<(), CompileError> {
        let start = self.at;
        let wrong = || CompileError::syntax(start, "unknown escape").with_help("a backslash is written '\\\\'");
        let mut rest = self.rest().chars().skip(1);
        let kind = rest.next().ok_or_else(wrong)?;
        let (len, radix) = match kind {
            'x' | 'X' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='3' => (3, 8),
            _ => {
                let c = match kind {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'a' => '\x07',
                    'b' => '\x08',
                    'f' => '\x0c',
                    'v' => '\x0b',
                    '\\' | '\'' | '"' | '`' | '?' => kind,
                    _ => return Err(wrong()),
                };
                text.push(c);
                self.at += 2;
                return Ok(());
            }
        };
        // An octal escape has no letter before its digits.
        let from = self.at + if radix == 8 { 1 } else { 2 };
        let digits = self.source.get(from..from + len).ok_or_else(wrong)?;
        if !digits.bytes().all(|b| char::from(b).is_digit(radix)) {
            return Err(wrong());
        }
        let number = u32::from_str_radix(digits, radix).map_err(|_| wrong())?;
        text.push(char::from_u32(number).ok_or_else(wrong)?);
        self.at = from + len;
        Ok(())
    }
}

/// An error about the size of an expression.
pub(crate) fn bounds(offset: usize, message: impl Into<String>) -> CompileError {
    CompileError::new(CompileErrorKind::Bounds, offset, message)
}
