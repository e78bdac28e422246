//! From source to tree: precedence climbing, bounded in size and depth before anything recurses.

use crate::error::{CompileError, CompileErrorKind};
use crate::functions::{self, Function};
use crate::lexer::{Token, bounds, words};
use crate::limits;
use crate::node::{Loop, LoopKind, Node, Operator, What};
use crate::value::{Text, Value};

/// Words that are no names: those of the grammar and those that CEL keeps for itself.
pub(crate) const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

pub(crate) fn parse(source: &str) -> Result<Node, CompileError> {
    if source.len() > limits::SOURCE_BYTES {
        let message =
            format!("the expression has {} bytes, at most {} are allowed", source.len(), limits::SOURCE_BYTES);
        return Err(bounds(0, message));
    }
    let mut parser = Parser { words: words(source)?, next: 0, nodes: 0, nesting: 0, locals: Vec::new() };
    if parser.words.len() == 1 {
        return Err(CompileError::syntax(0, "the expression is empty"));
    }
    let node = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(node),
        _ => Err(parser.unexpected("an operator or the end")),
    }
}

struct Parser {
    words: Vec<(Token, u32)>,
    next: usize,
    nodes: usize,
    nesting: usize,
    /// Variables of the loops around, outermost first.
    locals: Vec<String>,
}

type Parsed = Result<Node, CompileError>;

impl Parser {
    fn peek(&self) -> &Token {
        // The last word is the end, and nothing steps over it.
        &self.words[self.next.min(self.words.len() - 1)].0
    }

    fn at(&self) -> u32 {
        self.words[self.next.min(self.words.len() - 1)].1
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(it) if *it == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let is = self.is(sign);
        self.next += usize::from(is);
        is
    }

    fn expect(&mut self, sign: &str) -> Result<(), CompileError> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected(&format!("'{sign}'"))) }
    }

    fn unexpected(&self, wanted: &str) -> CompileError {
        let found = match self.peek() {
            Token::Int(n) => format!("'{n}'"),
            Token::Double(n) => format!("'{n}'"),
            Token::Text(_) => "text".to_owned(),
            Token::Word(word) => format!("'{word}'"),
            Token::Sign(sign) => format!("'{sign}'"),
            Token::End => "the end".to_owned(),
        };
        CompileError::syntax(self.at() as usize, format!("found {found} where {wanted} is wanted"))
    }

    fn node(&mut self, at: u32, what: What) -> Parsed {
        self.nodes += 1;
        if self.nodes > limits::NODES {
            return Err(bounds(at as usize, format!("the expression has more than {} parts", limits::NODES)));
        }
        let mut node = Node { at, depth: 1, what };
        let mut below = 0;
        node.for_each_child(|child| below = below.max(child.depth));
        node.depth = below + 1;
        if usize::from(node.depth) > limits::DEPTH {
            return Err(bounds(
                at as usize,
                format!("the expression is nested or chained deeper than {}", limits::DEPTH),
            ));
        }
        Ok(node)
    }

    fn expression(&mut self) -> Parsed {
        self.nesting += 1;
        if self.nesting > limits::DEPTH / 2 {
            let message = format!("brackets are nested deeper than {}", limits::DEPTH / 2);
            return Err(bounds(self.at() as usize, message));
        }
        let test = self.or()?;
        let node = if self.is("?") {
            let at = self.at();
            self.next += 1;
            let yes = self.or()?;
            self.expect(":")?;
            let no = self.expression()?;
            self.node(at, What::Choice(Box::new(test), Box::new(yes), Box::new(no)))
        } else {
            Ok(test)
        };
        self.nesting -= 1;
        node
    }

    fn or(&mut self) -> Parsed {
        self.chain("||", Self::and, What::Or)
    }

    fn and(&mut self) -> Parsed {
        self.chain("&&", Self::relation, What::And)
    }

    fn chain(&mut self, sign: &str, part: fn(&mut Self) -> Parsed, make: fn(Vec<Node>) -> What) -> Parsed {
        let first = part(self)?;
        if !self.is(sign) {
            return Ok(first);
        }
        let at = self.at();
        let mut parts = vec![first];
        while self.take(sign) {
            parts.push(part(self)?);
        }
        self.node(at, make(parts))
    }

    fn relation(&mut self) -> Parsed {
        let mut left = self.sum()?;
        loop {
            let operator = match self.peek() {
                Token::Sign("==") => Operator::Equal,
                Token::Sign("!=") => Operator::Unequal,
                Token::Sign("<") => Operator::Less,
                Token::Sign("<=") => Operator::LessOrEqual,
                Token::Sign(">") => Operator::Greater,
                Token::Sign(">=") => Operator::GreaterOrEqual,
                Token::Word(word) if word == "in" => Operator::In,
                _ => return Ok(left),
            };
            left = self.binary(operator, left, Self::sum)?;
        }
    }

    fn sum(&mut self) -> Parsed {
        let mut left = self.product()?;
        loop {
            let operator = match self.peek() {
                Token::Sign("+") => Operator::Add,
                Token::Sign("-") => Operator::Subtract,
                _ => return Ok(left),
            };
            left = self.binary(operator, left, Self::product)?;
        }
    }

    fn product(&mut self) -> Parsed {
        let mut left = self.unary()?;
        loop {
            let operator = match self.peek() {
                Token::Sign("*") => Operator::Multiply,
                Token::Sign("/") => Operator::Divide,
                Token::Sign("%") => Operator::Remainder,
                _ => return Ok(left),
            };
            left = self.binary(operator, left, Self::unary)?;
        }
    }

    fn binary(&mut self, operator: Operator, left: Node, part: fn(&mut Self) -> Parsed) -> Parsed {
        let at = self.at();
        self.next += 1;
        let right = part(self)?;
        self.node(at, What::Binary(operator, Box::new(left), Box::new(right)))
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        let sign = match self.peek() {
            Token::Sign(sign @ ("!" | "-")) => *sign,
            _ => return self.member(),
        };
        // Signs are counted and not nested: a thousand of them is one node or none.
        let mut count = 0usize;
        while self.take(sign) {
            count += 1;
        }
        if matches!(self.peek(), Token::Sign("!" | "-")) {
            return Err(self.unexpected("a value"));
        }
        if sign == "-"
            && let Token::Int(number) = *self.peek()
        {
            return self.negative(at, number, count);
        }
        let inner = self.member()?;
        match (count % 2, sign) {
            (1, "!") => self.node(at, What::Not(Box::new(inner))),
            (1, _) => self.node(at, What::Negate(Box::new(inner))),
            (_, "!") => {
                // Two of them still ask for true or false.
                let not = self.node(at, What::Not(Box::new(inner)))?;
                self.node(at, What::Not(Box::new(not)))
            }
            _ => {
                let negated = self.node(at, What::Negate(Box::new(inner)))?;
                self.node(at, What::Negate(Box::new(negated)))
            }
        }
    }

    /// The smallest int has no positive twin, so sign and digits are read together.
    fn negative(&mut self, at: u32, number: u64, count: usize) -> Parsed {
        self.next += 1;
        let signed = if count % 2 == 1 { 0i64.checked_sub_unsigned(number) } else { i64::try_from(number).ok() };
        let value = signed.ok_or_else(|| CompileError::syntax(at as usize, "not a whole number of 64 bits"))?;
        let node = self.node(at, What::Constant(Value::Int(value)))?;
        self.suffixes(node)
    }

    fn member(&mut self) -> Parsed {
        let node = self.primary()?;
        self.suffixes(node)
    }

    fn suffixes(&mut self, mut node: Node) -> Parsed {
        loop {
            let at = self.at();
            if self.take(".") {
                let name_at = self.at();
                let Token::Word(name) = self.peek().clone() else {
                    return Err(self.unexpected("a name"));
                };
                self.next += 1;
                node = if self.take("(") {
                    self.method(node, &name, name_at)?
                } else {
                    self.node(name_at, What::Field(Box::new(node), Text::from(name)))?
                };
            } else if self.take("[") {
                let index = self.expression()?;
                self.expect("]")?;
                // A constant key is a field: that is how a name with a hyphen is written.
                node = match index.what {
                    What::Constant(Value::Text(name)) => self.node(index.at, What::Field(Box::new(node), name))?,
                    _ => self.node(at, What::Index(Box::new(node), Box::new(index)))?,
                };
            } else {
                return Ok(node);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let token = self.peek().clone();
        match token {
            Token::Int(number) => {
                self.next += 1;
                let value = i64::try_from(number)
                    .map_err(|_| CompileError::syntax(at as usize, "not a whole number of 64 bits"))?;
                self.node(at, What::Constant(Value::Int(value)))
            }
            Token::Double(number) => {
                self.next += 1;
                self.node(at, What::Constant(Value::Double(number)))
            }
            Token::Text(text) => {
                self.next += 1;
                self.node(at, What::Constant(Value::Text(text.into())))
            }
            Token::Word(word) => {
                self.next += 1;
                self.word(at, word)
            }
            Token::Sign("(") => {
                self.next += 1;
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                self.next += 1;
                let items = self.items("]", Self::expression)?;
                self.node(at, What::List(items))
            }
            Token::Sign("{") => {
                self.next += 1;
                let entries = self.items("}", |parser| {
                    let key = parser.expression()?;
                    parser.expect(":")?;
                    Ok((key, parser.expression()?))
                })?;
                self.node(at, What::Object(entries))
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    fn items<T>(
        &mut self,
        close: &str,
        item: impl Fn(&mut Self) -> Result<T, CompileError>,
    ) -> Result<Vec<T>, CompileError> {
        let mut items = Vec::new();
        while !self.take(close) {
            items.push(item(self)?);
            if !self.take(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(items)
    }

    fn word(&mut self, at: u32, word: String) -> Parsed {
        match word.as_str() {
            "true" => return self.node(at, What::Constant(Value::Bool(true))),
            "false" => return self.node(at, What::Constant(Value::Bool(false))),
            "null" => return self.node(at, What::Constant(Value::Null)),
            reserved if RESERVED.contains(&reserved) => {
                return Err(CompileError::syntax(at as usize, format!("'{reserved}' is a reserved word")));
            }
            _ => {}
        }
        if self.take("(") {
            let args = self.items(")", Self::expression)?;
            return if word == "has" { self.has(at, args) } else { self.call(at, &word, args) };
        }
        match self.locals.iter().rev().position(|local| *local == word) {
            Some(further_out) => self.node(at, What::Local(further_out as u8)),
            None => self.node(at, What::Root(word.into())),
        }
    }

    fn has(&mut self, at: u32, mut args: Vec<Node>) -> Parsed {
        match (args.pop(), args.is_empty()) {
            (Some(Node { what: What::Field(of, name), .. }), true) => self.node(at, What::Has(of, name)),
            _ => Err(CompileError::syntax(at as usize, "has() takes one field")
                .with_help("write has(a.b), or get(a, 'b', other) for a value that may be missing")),
        }
    }

    fn method(&mut self, target: Node, name: &str, at: u32) -> Parsed {
        let kind = match name {
            "map" => LoopKind::Map,
            "filter" => LoopKind::Filter,
            "all" => LoopKind::All,
            "exists" => LoopKind::Exists,
            "exists_one" | "existsOne" => LoopKind::ExistsOne,
            _ => {
                let mut args = vec![target];
                args.extend(self.items(")", Self::expression)?);
                return self.call(at, name, args);
            }
        };
        self.walk(kind, target, at)
    }

    fn walk(&mut self, kind: LoopKind, over: Node, at: u32) -> Parsed {
        let Token::Word(variable) = self.peek().clone() else {
            return Err(self.unexpected("the name of a variable"));
        };
        if RESERVED.contains(&variable.as_str()) {
            return Err(self.unexpected("the name of a variable"));
        }
        self.next += 1;
        self.expect(",")?;
        if self.locals.len() >= limits::LOOP_DEPTH {
            let message = format!("loops are nested deeper than {}", limits::LOOP_DEPTH);
            return Err(bounds(at as usize, message));
        }
        self.locals.push(variable);
        let mut body = self.expression()?;
        let mut filter = None;
        if kind == LoopKind::Map && self.take(",") {
            filter = Some(std::mem::replace(&mut body, self.expression()?));
        }
        self.locals.pop();
        self.expect(")")?;
        self.node(at, What::Loop(Box::new(Loop { kind, over, filter, body })))
    }

    fn call(&mut self, at: u32, name: &str, mut args: Vec<Node>) -> Parsed {
        let offset = at as usize;
        let Some(function) = Function::named(name) else {
            if functions::LATER.contains(&name) {
                let message = format!("'{name}' is not yet supported here");
                return Err(CompileError::new(CompileErrorKind::NotYet, offset, message));
            }
            let error = CompileError::new(CompileErrorKind::Function, offset, format!("unknown function '{name}'"));
            return Err(match functions::similar(name) {
                Some(similar) => error.with_help(format!("did you mean '{similar}'?")),
                None => error,
            });
        };
        let arity = function.arity();
        if !arity.contains(&args.len()) {
            let wanted = if arity.start() == arity.end() {
                format!("{}", arity.start())
            } else {
                format!("{} to {}", arity.start(), arity.end())
            };
            let message = format!("'{name}' takes {wanted} arguments, not {}", args.len());
            return Err(CompileError::new(CompileErrorKind::Function, offset, message));
        }
        if let (Function::Matches, [_, Node { at: pattern_at, what: What::Constant(Value::Text(pattern)), .. }]) =
            (function, args.as_slice())
        {
            let pattern =
                functions::pattern(pattern).map_err(|error| CompileError::syntax(*pattern_at as usize, error))?;
            let text = args.swap_remove(0);
            return self.node(at, What::Matches(Box::new(text), pattern));
        }
        self.node(at, What::Call(function, args))
    }
}
