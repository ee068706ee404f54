//! YAML text → nodes with the exact place of every key and value.
//!
//! The only file that names the YAML library. It is used through its parser's events and not through serde:
//! these carry the first and the last byte of each scalar and how it was quoted, which deserialising loses
//! (`403` as a role name, the place of a word inside a condition), and every duplicate and `<<` arrives.
//!
//! The schema is YAML 1.2's core schema with strict Booleans: `true` and `false` alone; `yes`, `on` and `True`
//! are texts. Budgets make a hostile file an error in well under a second: 4 MiB, 32 levels, 1,000 alias
//! expansions, 262,144 values.

use std::collections::HashMap;
use std::ops::Range;

use serde_yaml::granit_parser::{self, Event, Parser, ScalarStyle, StructureStyle, Tag};

use crate::diagnostic::{Code, Diagnostic, FileId, Span};

/// The most bytes that a file may have.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;
/// The most collections that may stand in one another.
pub const MAX_DEPTH: usize = 32;
/// The most aliases that a file may expand, those inside of expanded values included.
pub const MAX_ALIASES: usize = 1000;
/// The most values that a file may hold, aliases expanded.
pub const MAX_NODES: usize = 262_144;
/// The most documents in one file.
const MAX_DOCUMENTS: usize = 1000;
/// The most mistakes that are kept of one file.
const MAX_FINDINGS: usize = 100;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Its first byte and the byte after its last; quotes and brackets included, tags and anchors not.
    pub span: Span,
    /// How it is written.
    pub style: Style,
    /// The text of a scalar, quotes and escapes resolved; of a plain one as it was written, so that `007` and
    /// `1.50` can be names. Empty for lists and maps.
    pub text: String,
}

/// What a node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~`, or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number that fits.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    String(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in file order, each key once.
    Map(Vec<(Key, Node)>),
}

impl PartialEq for Node {
    /// Equal values, wherever they stand.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// The key of a mapping's entry.
#[derive(Clone, Debug)]
pub struct Key {
    /// The text, quotes and escapes resolved.
    pub text: String,
    /// Where it stands.
    pub span: Span,
    /// How it is written.
    pub style: Style,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// How a node is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes, or a list or map by indentation.
    Plain,
    /// `'…'`.
    SingleQuoted,
    /// `"…"`.
    DoubleQuoted,
    /// `|` or `>`; the place is that of the content.
    Block,
    /// `[…]` or `{…}`.
    Flow,
    /// `*alias`; the span is the alias's, the children's are where they were written.
    Alias,
}

impl Node {
    /// The words for what this is: `a list`, `a number`, …
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a Boolean",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::String(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// Whether this is neither list nor map nor null.
    pub fn is_scalar(&self) -> bool {
        !matches!(self.value, Value::Null | Value::List(_) | Value::Map(_))
    }
}

/// A text in a file, with the way back from each of its bytes to the place in the file.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// The text, quotes and escapes resolved.
    pub value: &'a str,
    /// Where it stands, quotes included.
    pub span: Span,
    /// How it is written.
    pub style: Style,
    /// The file's text.
    pub source: &'a str,
}

impl Text<'_> {
    /// The place of a stretch of the text's bytes.
    pub fn at(&self, range: Range<usize>) -> Span {
        let written = self.source.get(self.span.start as usize..self.span.end as usize).unwrap_or("");
        let (skip, inner) = match self.style {
            Style::SingleQuoted | Style::DoubleQuoted => {
                (1, written.get(1..written.len().saturating_sub(1)).unwrap_or(""))
            }
            Style::Plain => (0, written),
            Style::Block | Style::Flow | Style::Alias => return self.span,
        };
        let (start, end) = if inner == self.value {
            (range.start, range.end)
        } else {
            let positions = Positions { inner, value: self.value, style: self.style };
            match (positions.find(range.start), positions.find(range.end)) {
                (Some(start), Some(end)) => (start, end.max(start)),
                _ => return self.span,
            }
        };
        let place = |at: usize| self.span.start.saturating_add(offset(at.saturating_add(skip))).min(self.span.end);
        Span { start: place(start), end: place(end), ..self.span }
    }

    /// The place of all of the text, without the quotes.
    pub fn all(&self) -> Span {
        self.at(0..self.value.len())
    }
}

/// Walks a quoted or folded scalar and its value side by side.
struct Positions<'a> {
    inner: &'a str,
    value: &'a str,
    style: Style,
}

impl Positions<'_> {
    /// The byte of `inner` that gave byte `wanted` of `value`.
    fn find(&self, wanted: usize) -> Option<usize> {
        let mut at = 0;
        for (index, expected) in self.value.char_indices() {
            if index >= wanted {
                return Some(at);
            }
            at += self.step(at, expected)?;
        }
        Some(at)
    }

    /// How many bytes were written for `expected`.
    fn step(&self, at: usize, expected: char) -> Option<usize> {
        let rest = self.inner.get(at..)?;
        let first = rest.chars().next()?;
        if self.style == Style::SingleQuoted && rest.starts_with("''") {
            return Some(2);
        }
        if self.style == Style::DoubleQuoted && first == '\\' {
            let escape = rest.chars().nth(1)?;
            return match escape {
                'x' => Some(4),
                'u' => Some(6),
                'U' => Some(10),
                '\r' | '\n' => None,
                other => Some(1 + other.len_utf8()),
            };
        }
        if first == expected && !matches!(first, ' ' | '\t' | '\n') {
            return Some(first.len_utf8());
        }
        // Blanks stand for themselves, unless a line was folded: then all blanks around the break gave one.
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        let folded = rest.get(..blanks)?.contains('\n');
        match expected {
            ' ' | '\t' | '\n' if folded => Some(blanks),
            ' ' | '\t' if first == expected => Some(1),
            _ => None,
        }
    }
}

/// Reads a file: its documents, and every mistake of form. A document that cannot be read to its end is left
/// out, those before it are kept.
pub fn parse(file: FileId, text: &str, diagnostics: &mut Vec<Diagnostic>) -> Vec<Node> {
    let mut builder = Builder {
        file,
        text,
        diagnostics: Vec::new(),
        documents: Vec::new(),
        stack: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        aliases: 0,
        alias_bytes: 0,
    };
    if let Err(stop) = builder.run() {
        builder.diagnostics.push(stop);
    }
    diagnostics.append(&mut builder.diagnostics);
    builder.documents
}

struct Builder<'t> {
    file: FileId,
    text: &'t str,
    diagnostics: Vec<Diagnostic>,
    documents: Vec<Node>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Anchor>,
    nodes: usize,
    aliases: usize,
    alias_bytes: usize,
}

/// A list or map that is being read.
struct Frame {
    content: Content,
    start: u32,
    end: u32,
    flow: bool,
    anchor: usize,
    tag: Option<Tagged>,
    /// Number of aliases expanded when it began.
    aliases: usize,
    nodes: usize,
    /// The deepest level below it, itself included.
    height: usize,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, pending: Pending },
}

/// What a mapping waits for.
enum Pending {
    Key,
    Value(Key),
    /// The value of a key that was refused.
    Refused(Span),
}

#[derive(Clone)]
struct Anchor {
    node: Node,
    aliases: usize,
    nodes: usize,
    bytes: usize,
    height: usize,
}

/// A tag of YAML's core schema.
#[derive(Clone)]
struct Tagged {
    core: Option<String>,
    span: Span,
}

impl<'t> Builder<'t> {
    fn run(&mut self) -> Result<(), Diagnostic> {
        self.check_text()?;
        let text: &'t str = self.text;
        let options = granit_parser::options! {
            flow_nesting_limit: MAX_DEPTH + 8,
            block_nesting_limit: MAX_DEPTH + 8,
            max_directive_bytes: 256,
        };
        for event in Parser::new_from_str_with_options(text, options) {
            match event {
                Ok((event, span)) => self.event(event, span)?,
                Err(error) => return Err(self.syntax_error(&error)),
            }
            if self.diagnostics.len() >= MAX_FINDINGS {
                self.diagnostics.truncate(MAX_FINDINGS);
                if let Some(last) = self.diagnostics.pop() {
                    return Err(last.note("the file holds more mistakes of this kind, which are not shown"));
                }
            }
        }
        Ok(())
    }

    /// What YAML does not admit anywhere, and the size.
    fn check_text(&self) -> Result<(), Diagnostic> {
        if self.text.len() > MAX_FILE_BYTES {
            let message = format!("file of {} bytes, more than 4 MiB", self.text.len());
            return Err(Diagnostic::new(Code::P006, message, self.span(0, 0), "split it"));
        }
        // The byte-order mark is allowed at the very start only, where the parser skips it.
        let bad = self.text.char_indices().find(|(_, c)| {
            matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{80}'..='\u{84}'
                | '\u{86}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}')
        });
        match bad {
            None => Ok(()),
            Some((at, c)) => {
                let message = format!("control character U+{:04X}", u32::from(c));
                let span = self.span(offset(at), offset(at + c.len_utf8()));
                Err(Diagnostic::new(Code::P001, message, span, "not allowed in YAML"))
            }
        }
    }

    fn syntax_error(&self, error: &granit_parser::ScanError) -> Diagnostic {
        use granit_parser::ErrorKind;
        let at = error.marker().byte_offset().unwrap_or(0).min(self.text.len());
        let at = (0..=at).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        let rest = self.text.get(at..).unwrap_or("");
        let end = at + rest.chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
        let span = self.span(offset(at), offset(end));
        match error.kind() {
            ErrorKind::RecursionLimitExceeded => self.too_deep(span),
            _ => {
                let info = error.info();
                let info = info.lines().next().unwrap_or("").trim_end_matches('.');
                let mut found = Diagnostic::new(Code::P001, format!("bad YAML: {info}"), span, "here");
                if rest.starts_with('\t') || self.text.get(..at).is_some_and(|before| before.ends_with('\t')) {
                    found = found.help("indent with blanks, not with tabs");
                } else if rest.starts_with(['{', '}', '[', ']', '*', '&', '!', '|', '>', '%', '@', '`']) {
                    found =
                        found.help("a text that begins with this character, or holds it inside `{ … }`, needs quotes");
                }
                found
            }
        }
    }

    fn span(&self, start: u32, end: u32) -> Span {
        Span { file: self.file, start, end }
    }

    fn place(&self, span: &granit_parser::Span) -> Span {
        let byte = |marker: &granit_parser::Marker| offset(marker.byte_offset().unwrap_or(0).min(self.text.len()));
        let start = byte(&span.start);
        self.span(start, byte(&span.end).max(start))
    }

    fn event(&mut self, event: Event<'t>, span: granit_parser::Span) -> Result<(), Diagnostic> {
        let place = self.place(&span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = self.tag(tag.as_deref(), &span, place);
                let node = self.scalar(text.into_owned(), style, place, tag);
                self.count(1, place)?;
                let bytes = node.text.len() + 16;
                self.anchor(anchor, &node, Anchor { node: null(place), aliases: 0, nodes: 1, bytes, height: 0 });
                self.finish(node, 0)
            }
            Event::SequenceStart(style, anchor, tag) => {
                let tag = self.tag(tag.as_deref(), &span, place);
                self.open(Content::List(Vec::new()), style, anchor, tag, place)
            }
            Event::MappingStart(style, anchor, tag) => {
                let tag = self.tag(tag.as_deref(), &span, place);
                self.open(Content::Map { entries: Vec::new(), pending: Pending::Key }, style, anchor, tag, place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(place),
            Event::Alias(id) => self.alias(id, place),
            Event::DocumentEnd => {
                self.anchors.clear();
                if self.documents.len() > MAX_DOCUMENTS {
                    let message = format!("more than {MAX_DOCUMENTS} documents in a file");
                    return Err(Diagnostic::new(Code::P006, message, place, "split it"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn tag(&mut self, tag: Option<&Tag>, span: &granit_parser::Span, place: Span) -> Option<Tagged> {
        let tag = tag?;
        let place = span.tag_span().map_or(place, |span| self.place(&span));
        let core =
            tag.core_suffix().filter(|core| matches!(*core, "str" | "int" | "float" | "bool" | "null" | "seq" | "map"));
        if core.is_none() {
            let message = format!("tag `{}` is not supported", shorten(&tag.original()));
            self.diagnostics.push(Diagnostic::new(Code::P011, message, place, "leave it out"));
        }
        core.map(|core| Tagged { core: Some(core.to_owned()), span: place })
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, place: Span, tag: Option<Tagged>) -> Node {
        // The parser writes `~` for nothing at all.
        let text = if style == ScalarStyle::Plain && place.start == place.end { String::new() } else { text };
        let (style, place) = match style {
            ScalarStyle::Plain => (Style::Plain, self.plain_place(place)),
            ScalarStyle::SingleQuoted => (Style::SingleQuoted, place),
            ScalarStyle::DoubleQuoted => (Style::DoubleQuoted, place),
            _ => (Style::Block, self.trimmed(place)),
        };
        let value = if style == Style::Plain { resolve(&text) } else { Value::String(text.clone()) };
        let value = match &tag {
            Some(Tagged { core: Some(core), .. }) if core == "str" => Value::String(text.clone()),
            _ => value,
        };
        let node = Node { value, span: place, style, text };
        self.check_tag(tag.as_ref(), &node);
        node
    }

    /// A tag says what the value is anyway, or it is refused: it never converts (but `!!str`).
    fn check_tag(&mut self, tag: Option<&Tagged>, node: &Node) {
        let Some(Tagged { core: Some(core), span }) = tag else { return };
        let fits = match &node.value {
            Value::Null => core == "null",
            Value::Bool(_) => core == "bool",
            Value::Integer(_) => core == "int" || core == "float",
            Value::Float(_) => core == "float",
            Value::String(_) => core == "str",
            Value::List(_) => core == "seq",
            Value::Map(_) => core == "map",
        };
        if !fits {
            let message = format!("tag `!!{core}` on {}", node.kind());
            self.diagnostics.push(Diagnostic::new(Code::P011, message, *span, "does not fit"));
        }
    }

    /// A plain scalar's place; that of nothing is just behind the colon of its key.
    fn plain_place(&self, place: Span) -> Span {
        if place.start < place.end {
            return self.trimmed(place);
        }
        let key_end = match self.stack.last().map(|frame| &frame.content) {
            Some(Content::Map { pending: Pending::Value(key), .. }) => Some(key.span.end),
            Some(Content::Map { pending: Pending::Refused(span), .. }) => Some(span.end),
            _ => None,
        };
        let colon = key_end.and_then(|end| {
            let rest = self.text.get(end as usize..)?;
            let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
            rest.get(blanks..)?.starts_with(':').then(|| end + offset(blanks) + 1)
        });
        let at = colon.unwrap_or(place.start);
        self.span(at, at)
    }

    /// The place without blanks and line ends behind.
    fn trimmed(&self, place: Span) -> Span {
        let written = self.text.get(place.start as usize..place.end as usize).unwrap_or("");
        let trimmed = written.trim_end_matches([' ', '\t', '\r', '\n']);
        self.span(place.start, place.start + offset(trimmed.len()))
    }

    fn count(&mut self, nodes: usize, place: Span) -> Result<(), Diagnostic> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(Diagnostic::new(Code::P006, format!("more than {MAX_NODES} values in a file"), place, "here"));
        }
        Ok(())
    }

    fn too_deep(&self, place: Span) -> Diagnostic {
        Diagnostic::new(Code::P006, format!("more than {MAX_DEPTH} levels of nesting"), place, "here")
    }

    fn open(
        &mut self,
        content: Content,
        style: StructureStyle,
        anchor: usize,
        tag: Option<Tagged>,
        place: Span,
    ) -> Result<(), Diagnostic> {
        self.count(1, place)?;
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.too_deep(place));
        }
        self.stack.push(Frame {
            content,
            start: place.start,
            end: place.end,
            flow: style == StructureStyle::Flow,
            anchor,
            tag,
            aliases: self.aliases,
            nodes: self.nodes - 1,
            height: 1,
        });
        Ok(())
    }

    fn close(&mut self, place: Span) -> Result<(), Diagnostic> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        let end = if frame.flow { place.end } else { frame.end };
        let span = self.span(frame.start, end.max(frame.start));
        let value = match frame.content {
            Content::List(items) => Value::List(items),
            Content::Map { entries, .. } => Value::Map(self.without_duplicates(entries)),
        };
        let style = if frame.flow { Style::Flow } else { Style::Plain };
        let node = Node { value, span, style, text: String::new() };
        self.check_tag(frame.tag.as_ref(), &node);
        let nodes = self.nodes - frame.nodes;
        let measures = Anchor {
            node: null(span),
            aliases: self.aliases - frame.aliases,
            nodes,
            bytes: (end.saturating_sub(frame.start) as usize).saturating_add(nodes * 16),
            height: frame.height,
        };
        self.anchor(frame.anchor, &node, measures);
        self.finish(node, frame.height)
    }

    fn without_duplicates(&mut self, entries: Vec<(Key, Node)>) -> Vec<(Key, Node)> {
        let mut first: HashMap<String, Span> = HashMap::with_capacity(entries.len());
        let mut kept = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            if let Some(earlier) = first.get(&key.text) {
                if self.diagnostics.len() < MAX_FINDINGS {
                    let message = format!("duplicate key `{}`", shorten(&key.text));
                    self.diagnostics.push(
                        Diagnostic::new(Code::P002, message, key.span, "stands here again")
                            .also(*earlier, "first written here"),
                    );
                }
                continue;
            }
            first.insert(key.text.clone(), key.span);
            kept.push((key, node));
        }
        kept
    }

    fn anchor(&mut self, id: usize, node: &Node, measures: Anchor) {
        if id != 0 {
            self.anchors.insert(id, Anchor { node: node.clone(), ..measures });
        }
    }

    fn alias(&mut self, id: usize, place: Span) -> Result<(), Diagnostic> {
        let Some(anchor) = self.anchors.get(&id) else {
            return Err(Diagnostic::new(Code::P001, "bad YAML: alias inside its own anchor", place, "here"));
        };
        self.aliases = self.aliases.saturating_add(1).saturating_add(anchor.aliases);
        self.alias_bytes = self.alias_bytes.saturating_add(anchor.bytes);
        let (nodes, height) = (anchor.nodes, anchor.height);
        if self.aliases > MAX_ALIASES {
            let message = format!("more than {MAX_ALIASES} alias expansions in a file");
            return Err(Diagnostic::new(Code::P006, message, place, "here"));
        }
        if self.alias_bytes > MAX_FILE_BYTES {
            let message = "aliases expand to more than 4 MiB in a file";
            return Err(Diagnostic::new(Code::P006, message, place, "here"));
        }
        if self.stack.len() + height > MAX_DEPTH {
            return Err(self.too_deep(place));
        }
        let mut node = anchor.node.clone();
        node.span = place;
        node.style = Style::Alias;
        self.count(nodes, place)?;
        self.finish(node, height)
    }

    /// Hands a finished node to what it stands in.
    fn finish(&mut self, node: Node, height: usize) -> Result<(), Diagnostic> {
        let Some(frame) = self.stack.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        frame.end = frame.end.max(node.span.end);
        frame.height = frame.height.max(height + 1);
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, pending } => match std::mem::replace(pending, Pending::Key) {
                Pending::Value(key) => entries.push((key, node)),
                Pending::Refused(_) => {}
                Pending::Key => {
                    let (next, finding) = key_of(node);
                    *pending = next;
                    self.diagnostics.extend(finding);
                }
            },
        }
        Ok(())
    }
}

/// Takes a node as the key of an entry, or says why it cannot be one.
fn key_of(node: Node) -> (Pending, Option<Diagnostic>) {
    let span = node.span;
    match &node.value {
        Value::String(text) if text == "<<" && node.style == Style::Plain => {
            let found = Diagnostic::new(Code::P005, "merge key `<<`", span, "not supported")
                .note("overriding security settings silently is the wrong kind of reuse; YAML 1.2 dropped merge keys")
                .help("name what is shared, under `access`, `conditions` or `limits`, and use the name");
            (Pending::Refused(span), Some(found))
        }
        Value::String(_) => (Pending::Value(Key { text: node.text, span, style: node.style }), None),
        Value::Null if node.text.is_empty() => {
            (Pending::Refused(span), Some(Diagnostic::new(Code::P011, "key is empty", span, "a key is a text")))
        }
        _ => {
            let mut found =
                Diagnostic::new(Code::P011, format!("key is {}, not a text", node.kind()), span, "a key is a text");
            if node.is_scalar() || node.value == Value::Null {
                found = found.fix("quote it", span, format!("\"{}\"", node.text));
            }
            (Pending::Refused(span), Some(found))
        }
    }
}

/// A plain scalar's value in YAML 1.2's core schema, with strict Booleans.
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" => return Value::Bool(true),
        "false" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Value::Float(f64::INFINITY),
        "-.inf" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    number(text).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn number(text: &str) -> Option<Value> {
    let radix = |digits: &str, radix| {
        let all = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        all.then(|| i64::from_str_radix(digits, radix).map_or(Value::Float(f64::INFINITY), Value::Integer))
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).map_or((unsigned, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let has_digits = !whole.is_empty() || fraction.is_some_and(|fraction| !fraction.is_empty());
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    if !has_digits || !digits(whole) || !digits(fraction.unwrap_or("")) || !exponent_fits {
        return None;
    }
    if fraction.is_none()
        && exponent.is_none()
        && let Ok(number) = text.parse()
    {
        return Some(Value::Integer(number));
    }
    text.parse().ok().map(Value::Float)
}

fn null(span: Span) -> Node {
    Node { value: Value::Null, span, style: Style::Plain, text: String::new() }
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// A text cut to what fits in a message.
pub fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    let flat = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    if text.chars().count() <= MOST {
        return text.chars().map(flat).collect();
    }
    text.chars().take(MOST).map(flat).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::{Node, Style, Text, Value, parse};
    use crate::diagnostic::{Diagnostic, FileId, Span};

    fn read(text: &str) -> (Vec<Node>, Vec<Diagnostic>) {
        let mut diagnostics = Vec::new();
        let nodes = parse(FileId(0), text, &mut diagnostics);
        (nodes, diagnostics)
    }

    fn slice(text: &str, span: Span) -> &str {
        text.get(span.start as usize..span.end as usize).unwrap()
    }

    /// Every key and value with the text under its span.
    fn show(text: &str, node: &Node, out: &mut String) {
        match &node.value {
            Value::List(items) => items.iter().for_each(|item| show(text, item, out)),
            Value::Map(entries) => {
                for (key, value) in entries {
                    let _ = write!(out, "‹{}› ", slice(text, key.span));
                    show(text, value, out);
                }
            }
            _ => {
                let _ = write!(out, "«{}» ", slice(text, node.span));
            }
        }
    }

    fn shown(text: &str) -> String {
        let (nodes, diagnostics) = read(text);
        assert!(diagnostics.is_empty(), "{text}: {diagnostics:?}");
        let mut out = String::new();
        nodes.iter().for_each(|node| show(text, node, &mut out));
        out.trim_end().to_owned()
    }

    fn found(text: &str) -> String {
        let (_, diagnostics) = read(text);
        let one = |d: &Diagnostic| format!("{} {} «{}»", d.code, d.message, slice(text, d.primary.span));
        diagnostics.iter().map(one).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn every_scalar_has_its_exact_place() {
        for (text, expected) in [
            ("a: b\n", "‹a› «b»"),
            ("a: b # c\n", "‹a› «b»"),
            ("a:   b   \nc: d", "‹a› «b» ‹c› «d»"),
            ("GET /x/{id:int}: { scope: items:read }\n", "‹GET /x/{id:int}› ‹scope› «items:read»"),
            ("/**: [a, 'b c', \"d\\\"e\"]\n", "‹/**› «a» «'b c'» «\"d\\\"e\"»"),
            ("a: |\n  b\n  c\n\nd: e\n", "‹a› «b\n  c» ‹d› «e»"),
            ("a: >-\n  b\n  c\nd: e\n", "‹a› «b\n  c» ‹d› «e»"),
            ("a: b\n  c\nd: e\n", "‹a› «b\n  c» ‹d› «e»"),
            ("a:\nb: ~\nc: null\n", "‹a› «» ‹b› «~» ‹c› «null»"),
            ("a: &x b\nc: *x\n", "‹a› «b» ‹c› «*x»"),
            ("- ä: ö # ü\n- ü\n", "‹ä› «ö» «ü»"),
            ("a: b\r\nc: 'd'\r\n", "‹a› «b» ‹c› «'d'»"),
            ("\u{feff}a: b\n", "‹a› «b»"),
            ("{a: 1, b: [2, {c: d}]}", "‹a› «1» ‹b› «2» ‹c› «d»"),
            ("\"a b\": !!str 5\n", "‹\"a b\"› «5»"),
            ("a: 1\n---\nb: 2\n...\n---\nc: 3\n", "‹a› «1» ‹b› «2» ‹c› «3»"),
        ] {
            assert_eq!(shown(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_absent_value_stands_behind_its_colon() {
        let (nodes, _) = read("routes:\n  GET /a : # why\n  GET /b: public\n");
        let Value::Map(entries) = &nodes[0].value else { panic!() };
        let Value::Map(routes) = &entries[0].1.value else { panic!() };
        assert_eq!((routes[0].1.span.start, routes[0].1.span.end), (18, 18));
        assert_eq!(routes[0].1.value, Value::Null);
    }

    #[test]
    fn collections_span_from_first_to_last_byte() {
        let text = "a:\n  - b\n  - { c: d }\ne: [ f ]\n";
        let (nodes, _) = read(text);
        let Value::Map(entries) = &nodes[0].value else { panic!() };
        assert_eq!(slice(text, entries[0].1.span), "- b\n  - { c: d }");
        assert_eq!(slice(text, entries[1].1.span), "[ f ]");
        assert_eq!(slice(text, nodes[0].span), text.trim_end());
    }

    #[test]
    fn the_core_schema_has_strict_booleans_and_keeps_what_was_written() {
        use Value::{Bool, Float, Integer, Null};
        let text = |text: &str| Value::String(text.to_owned());
        for (written, value) in [
            ("true", Bool(true)),
            ("false", Bool(false)),
            ("True", text("True")),
            ("yes", text("yes")),
            ("on", text("on")),
            ("null", Null),
            ("007", Integer(7)),
            ("-12", Integer(-12)),
            ("0x1F", Integer(31)),
            ("1.50", Float(1.5)),
            ("1e3", Float(1000.0)),
            ("1e", text("1e")),
            ("10.8.0.0/16", text("10.8.0.0/16")),
            ("9223372036854775808", Float(9_223_372_036_854_775_808.0)),
            ("12:30", text("12:30")),
            ("2030-01-01", text("2030-01-01")),
            (".", text(".")),
            ("-x", text("-x")),
            ("'5'", text("5")),
        ] {
            let (nodes, _) = read(&format!("a: {written}"));
            let Value::Map(entries) = &nodes[0].value else { panic!("{written}") };
            assert_eq!(entries[0].1.value, value, "{written}");
            assert_eq!(entries[0].1.text, written.trim_matches('\''), "{written}");
        }
    }

    #[test]
    fn places_inside_of_a_text_are_found_through_quotes_escapes_and_folds() {
        for (text, part, expected) in [
            ("a: path.x == user.id", "user.id", "user.id"),
            ("a: 'path.x == \"b\"'", "\"b\"", "\"b\""),
            ("a: 'it''s here'", "here", "here"),
            ("a: \"x == \\\"b\\\" c\"", "\"b\"", "\\\"b\\\""),
            ("a: \"\\u00e4 b\"", "b", "b"),
            ("a: one\n  two\n  three", "three", "three"),
            ("a: \"one\n  two\"", "two", "two"),
            ("a: |\n  one two", "two", "one two"),
        ] {
            let (nodes, _) = read(text);
            let Value::Map(entries) = &nodes[0].value else { panic!() };
            let node = &entries[0].1;
            let whole = Text { value: &node.text, span: node.span, style: node.style, source: text };
            let at = node.text.find(part).unwrap();
            assert_eq!(slice(text, whole.at(at..at + part.len())), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_of_form_are_all_reported_with_their_places() {
        for (text, expected) in [
            ("a: 1\nb: 2\na: 3\na: 4\n", "P002 duplicate key `a` «a» | P002 duplicate key `a` «a»"),
            ("a: &x {b: 1}\nc: { <<: *x, d: 1, d: 2 }\n", "P005 merge key `<<` «<<» | P002 duplicate key `d` «d»"),
            (
                "404: a\ntrue: b\n[c]: d\n",
                "P011 key is a number, not a text «404» | P011 key is a Boolean, not a text «true» | P011 key is a list, not a text «[c]»",
            ),
            (
                "a: !env SECRET\nb: !!int c\n",
                "P011 tag `!env` is not supported «!env» | P011 tag `!!int` on a text «!!int»",
            ),
            ("a: \0\n", "P001 control character U+0000 «\0»"),
            ("a: *b\n", "P001 bad YAML: while parsing node, found unknown anchor «*»"),
            ("a: &x [*x]\n", "P001 bad YAML: alias inside its own anchor «*x»"),
        ] {
            assert_eq!(found(text), expected, "{text:?}");
        }
        for text in ["a: [1, 2\n", "a: }\n", "a:\n\t- b\n", "a: \"b\n", "a: b: c\n", "%FOO\n--- x: y", "a: 'b' c\n"] {
            assert!(found(text).starts_with("P001 bad YAML: "), "{text:?}: {}", found(text));
        }
    }

    #[test]
    fn documents_before_a_syntax_error_are_kept() {
        let (nodes, diagnostics) = read("a: 1\n---\nb: [\n");
        assert_eq!((nodes.len(), diagnostics.len()), (1, 1));
    }

    #[test]
    fn aliases_within_the_budget_are_copies() {
        let (nodes, diagnostics) = read("a: &a { b: 1 }\nc: *a\n");
        assert!(diagnostics.is_empty());
        let Value::Map(entries) = &nodes[0].value else { panic!() };
        assert_eq!(entries[0].1, entries[1].1);
        assert_eq!(entries[1].1.style, Style::Alias);
    }
}
