//! Path templates and route keys.
//!
//! ```text
//! key      := [ METHOD { "|" METHOD } " " ] template
//! template := "/" [ segment { "/" segment } ] [ "/" ]
//! segment  := literal | "{" name [ ":" type ] "}" | "*" | "**" | "{" name "**}"     (the last two at the end only)
//! ```
//!
//! Nothing in a template is a pattern but what stands above: a backtick, a quote or a dot is itself, and what
//! no canonical request can contain is refused here, so that a template never silently matches nothing.

use std::ops::Range;

use crate::diagnostic::{Code, Diagnostic, Spanned, suggest};
use crate::policy::template::{Kind, Segment, Template};
use crate::policy::yaml::{Text, shorten};

use super::scalars;

/// The most segments of a template.
const MAX_SEGMENTS: usize = 64;

/// What a template is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It matches paths.
    Match,
    /// It is prefixed to others: no tails.
    Base,
    /// It builds a path: no types, every part has a name.
    Rewrite,
}

const KINDS: &[(&str, Kind)] = &[("int", Kind::Int), ("uuid", Kind::Uuid), ("slug", Kind::Slug), ("date", Kind::Date)];

/// The methods and the template of a route key.
pub fn route_key(text: Text<'_>, found: &mut Vec<Diagnostic>) -> Option<(Vec<Spanned<String>>, Template)> {
    let start = match text.value.find(' ') {
        _ if text.value.starts_with('/') => 0,
        Some(blank) => blank,
        None => {
            let message = format!("route key `{}` has no path", shorten(text.value));
            let mut bad = Diagnostic::new(Code::P202, message, text.span, "`METHOD /path`, or `/path` for any method");
            if !text.value.is_empty() && !scalars::METHODS.contains(&text.value) {
                bad = bad.fix("a path begins with `/`", text.at(0..0), "/");
            }
            found.push(bad);
            return None;
        }
    };
    let words = text.value.get(..start).unwrap_or("");
    let methods = if words.is_empty() { Some(Vec::new()) } else { methods(text, words, found) };
    let rest = text.value.get(start..).unwrap_or("");
    let path = start + (rest.len() - rest.trim_start_matches(' ').len());
    let template = parse(text, path..text.value.len(), Use::Match, found);
    Some((methods?, template?))
}

fn methods(text: Text<'_>, words: &str, found: &mut Vec<Diagnostic>) -> Option<Vec<Spanned<String>>> {
    let mut methods: Vec<Spanned<String>> = Vec::new();
    let mut good = true;
    let mut at = 0;
    for word in words.split('|') {
        let range = at..at + word.len();
        at = range.end + 1;
        match method(text, range, found) {
            Some(method) if methods.iter().any(|earlier| earlier.value == method.value) => {
                found.push(Diagnostic::new(
                    Code::P202,
                    format!("method `{}` twice", method.value),
                    method.span,
                    "stands here again",
                ));
            }
            Some(method) => methods.push(method),
            None => good = false,
        }
    }
    good.then_some(methods)
}

/// One method word.
pub fn method(text: Text<'_>, range: Range<usize>, found: &mut Vec<Diagnostic>) -> Option<Spanned<String>> {
    let word = text.value.get(range.clone()).unwrap_or("");
    let span = text.at(range);
    if scalars::METHODS.contains(&word) || scalars::OTHER_METHODS.contains(&word) {
        return Some(Spanned::new(word.to_owned(), span));
    }
    if matches!(word, "CONNECT" | "TRACE" | "TRACK") {
        let message = format!("method `{word}` is never served");
        found.push(Diagnostic::new(Code::P202, message, span, "leave it out"));
        return None;
    }
    let mut bad = Diagnostic::new(Code::P202, format!("unknown method `{}`", shorten(word)), span, "not a method");
    let upper = word.to_ascii_uppercase();
    let known = || scalars::METHODS.iter().chain(scalars::OTHER_METHODS).copied();
    if word == "*" || upper == "ANY" || upper == "ALL" {
        bad = bad.help("a key without methods, just `/path`, stands for any method");
    } else if let Some(near) = known().find(|name| *name == upper).or_else(|| suggest::closest(&upper, known())) {
        bad = bad.fix("a method with a similar name exists", span, near);
    }
    found.push(bad);
    None
}

/// Parses a stretch of a text as a template.
pub fn parse(text: Text<'_>, range: Range<usize>, usage: Use, found: &mut Vec<Diagnostic>) -> Option<Template> {
    let mut parser = TemplateParser { text, usage, segments: Vec::new(), names: Vec::new(), found, good: true };
    parser.run(range.clone());
    let TemplateParser { segments, good, .. } = parser;
    let written = text.value.get(range.clone()).unwrap_or("");
    good.then(|| Template { text: written.to_owned(), span: text.at(range), segments })
}

struct TemplateParser<'a, 'd> {
    text: Text<'a>,
    usage: Use,
    segments: Vec<Segment>,
    names: Vec<Spanned<String>>,
    found: &'d mut Vec<Diagnostic>,
    good: bool,
}

impl TemplateParser<'_, '_> {
    fn bad(&mut self, range: Range<usize>, message: impl Into<String>, label: &str) -> &mut Diagnostic {
        self.good = false;
        let span = self.text.at(range);
        self.found.push(Diagnostic::new(Code::P202, message, span, label));
        let last = self.found.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "it was pushed in the line before")]
        &mut self.found[last]
    }

    fn run(&mut self, range: Range<usize>) {
        let written = self.text.value.get(range.clone()).unwrap_or("");
        let Some(path) = written.strip_prefix('/') else {
            let message = format!("template `{}` does not begin with `/`", shorten(written));
            let span = self.text.at(range.start..range.start);
            let bad = self.bad(range, message, "a path begins with `/`");
            bad.fixes.push(crate::diagnostic::Fix {
                title: "begin with `/`".to_owned(),
                edits: vec![crate::diagnostic::Edit { span, text: "/".to_owned() }],
            });
            return;
        };
        if written.len() > 4096 {
            self.bad(range, "template longer than 4096 bytes", "shorten it");
            return;
        }
        if path.is_empty() {
            return;
        }
        // One slash at the end is not significant.
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut at = range.start + 1;
        let count = path.split('/').count();
        if count > MAX_SEGMENTS {
            self.bad(range, format!("template of {count} segments"), &format!("at most {MAX_SEGMENTS}"));
            return;
        }
        for (index, segment) in path.split('/').enumerate() {
            let place = at..at + segment.len();
            at = place.end + 1;
            self.segment(segment, place, index + 1 == count);
        }
    }

    fn segment(&mut self, segment: &str, place: Range<usize>, last: bool) {
        if segment.is_empty() {
            let around = place.start.saturating_sub(1)..place.end + 1;
            self.bad(around, "empty segment in a template", "`//` is never part of a canonical path");
        } else if segment == "*" {
            self.parameter(None, Kind::Any, place);
        } else if segment == "**" {
            self.tail(None, place, last);
        } else if let Some(inner) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            self.braces(inner, place, last);
        } else {
            self.literal(segment, place);
        }
    }

    fn braces(&mut self, inner: &str, place: Range<usize>, last: bool) {
        let start = place.start + 1;
        if let Some(name) = inner.strip_suffix("**") {
            if self.name(name, start..start + name.len()) {
                self.tail(Some(name.to_owned()), place, last);
            }
            return;
        }
        let (name, kind) = inner.split_once(':').map_or((inner, None), |(name, kind)| (name, Some(kind)));
        if !self.name(name, start..start + name.len()) {
            return;
        }
        let Some(word) = kind else { return self.parameter(Some(name.to_owned()), Kind::Any, place) };
        let kind_place = start + name.len() + 1..place.end - 1;
        if self.usage == Use::Rewrite {
            self.bad(kind_place, "type in a rewritten path", "the name alone");
            return;
        }
        match KINDS.iter().find(|(known, _)| *known == word) {
            Some((_, kind)) => self.parameter(Some(name.to_owned()), *kind, place),
            None => {
                let span = self.text.at(kind_place.clone());
                let tail = self.text.at(kind_place.start - 1..kind_place.end);
                let label = "one of `int`, `uuid`, `slug`, `date`";
                let message = format!("unknown parameter type `{}`", shorten(word));
                let bad = self.bad(kind_place, message, label);
                let edit = match word {
                    "path" if last => Some((tail, "**")),
                    "str" | "string" => Some((tail, "")),
                    "integer" | "number" => Some((span, "int")),
                    _ => suggest::closest(word, KINDS.iter().map(|(name, _)| *name)).map(|near| (span, near)),
                };
                if let Some((span, text)) = edit {
                    let edits = vec![crate::diagnostic::Edit { span, text: text.to_owned() }];
                    bad.fixes.push(crate::diagnostic::Fix { title: "did you mean".to_owned(), edits });
                }
            }
        }
    }

    /// Checks a parameter's name, and that it is new.
    fn name(&mut self, name: &str, place: Range<usize>) -> bool {
        let good = name.len() <= 64
            && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if !good {
            self.bad(place, format!("bad parameter name `{}`", shorten(name)), "letters, digits, `_` and `-`");
            return false;
        }
        let span = self.text.at(place);
        if self.usage != Use::Rewrite
            && let Some(earlier) = self.names.iter().find(|earlier| earlier.value == name)
        {
            let message = format!("parameter `{name}` is used twice");
            self.found
                .push(Diagnostic::new(Code::P203, message, span, "stands here again").also(earlier.span, "first here"));
            self.good = false;
            return false;
        }
        self.names.push(Spanned::new(name.to_owned(), span));
        true
    }

    fn parameter(&mut self, name: Option<String>, kind: Kind, place: Range<usize>) {
        if name.is_none() && self.usage == Use::Rewrite {
            self.bad(place, "`*` in a rewritten path", "name the parameter");
            return;
        }
        self.segments.push(Segment::Parameter { name, kind });
    }

    fn tail(&mut self, name: Option<String>, place: Range<usize>, last: bool) {
        if name.is_none() && self.usage == Use::Rewrite {
            self.bad(place, "`**` in a rewritten path", "name the parameter: `{rest**}`");
        } else if self.usage == Use::Base {
            self.bad(place, "tail in a `base`", "nothing could follow it");
        } else if !last && self.usage == Use::Match {
            self.bad(place, "tail before the end of a template", "`**` and `{name**}` stand at the end only");
        } else {
            self.segments.push(Segment::Tail { name });
        }
    }

    fn literal(&mut self, segment: &str, place: Range<usize>) {
        if let Some(name) = segment.strip_prefix(':') {
            let span = self.text.at(place.clone());
            let bad = self.bad(place, "a parameter is written in braces", "a literal `:` here is written `%3A`");
            if !name.is_empty() {
                let edits = vec![crate::diagnostic::Edit { span, text: format!("{{{name}}}") }];
                bad.fixes.push(crate::diagnostic::Fix { title: "write it in braces".to_owned(), edits });
            }
            return;
        }
        let fault = |c: char| match c {
            '?' | '#' => Some("queries and fragments take no part in matching"),
            '{' | '}' => Some("a segment is entirely a literal or entirely a parameter"),
            '*' => Some("`*` stands for a whole segment; a literal one is written `%2A`"),
            '\\' => Some("never part of a canonical path"),
            '<' | '>' => Some("a parameter is written in braces; a literal one is percent-encoded"),
            ' ' | '\t' => Some("a blank is written `%20`"),
            _ if c.is_control() => Some("control characters are never part of a path"),
            _ => None,
        };
        for (at, c) in segment.char_indices() {
            if let Some(label) = fault(c) {
                let at = place.start + at;
                self.bad(at..at + c.len_utf8(), format!("`{}` in a template", c.escape_debug()), label);
                return;
            }
        }
        match decode(segment) {
            Err((at, length, label)) => {
                let at = place.start + at;
                self.bad(at..at + length, "bad percent-encoding in a template", label);
            }
            Ok(text) if text == "." || text == ".." => {
                self.bad(place, format!("`{}` in a template", shorten(segment)), "never part of a canonical path");
            }
            Ok(text) if text.chars().any(|c| c.is_control() || c == '\\') => {
                self.bad(place, format!("`{}` in a template", shorten(segment)), "never part of a canonical path");
            }
            Ok(text) => self.segments.push(Segment::Literal(text)),
        }
    }
}

/// Percent-decodes once. The error has place, length and reason.
fn decode(segment: &str) -> Result<String, (usize, usize, &'static str)> {
    let bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte != b'%' {
            decoded.push(*byte);
            at += 1;
            continue;
        }
        let digit = |index: usize| bytes.get(index).and_then(|byte| char::from(*byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
            return Err((at, 1, "`%` is followed by two hex digits; a literal one is written `%25`"));
        };
        decoded.push(u8::try_from(high * 16 + low).unwrap_or_default());
        at += 3;
    }
    String::from_utf8(decoded).map_err(|_| (0, segment.len(), "decodes to bytes that are not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::{Use, parse, route_key};
    use crate::diagnostic::{FileId, Span};
    use crate::policy::template::{Kind, Segment};
    use crate::policy::yaml::{Style, Text};

    fn text(value: &str) -> Text<'_> {
        let end = u32::try_from(value.len()).unwrap();
        Text { value, span: Span { file: FileId(0), start: 0, end }, style: Style::Plain, source: value }
    }

    fn show(value: &str, usage: Use) -> String {
        let mut found = Vec::new();
        match parse(text(value), 0..value.len(), usage, &mut found) {
            None => {
                let first = &found[0];
                let span = first.primary.span;
                format!(
                    "{}: {} «{}»",
                    first.code,
                    first.message,
                    value.get(span.start as usize..span.end as usize).unwrap()
                )
            }
            Some(template) => template
                .segments
                .iter()
                .map(|segment| match segment {
                    Segment::Literal(text) => format!("/{text}"),
                    Segment::Parameter { name, kind } => {
                        let name = name.as_deref().unwrap_or("*");
                        if *kind == Kind::Any { format!("/<{name}>") } else { format!("/<{name} {kind:?}>") }
                    }
                    Segment::Tail { name } => format!("/<{}…>", name.as_deref().unwrap_or("")),
                })
                .collect(),
        }
    }

    #[test]
    fn templates_are_read_as_written_or_refused() {
        for (template, expected) in [
            ("/", ""),
            ("/items", "/items"),
            ("/items/", "/items"),
            ("/items/{id:int}/x", "/items/<id Int>/x"),
            ("/a/{b}/{c:uuid}/{d:slug}/{e:date}", "/a/<b>/<c Uuid>/<d Slug>/<e Date>"),
            ("/a/*/b", "/a/<*>/b"),
            ("/**", "/<…>"),
            ("/a/{rest**}", "/a/<rest…>"),
            ("/größe", "/größe"),
            ("/gr%C3%B6%C3%9Fe", "/größe"),
            ("/%40me", "/@me"),
            ("/v1/items:batch", "/v1/items:batch"),
            ("/a`b'c\"d", "/a`b'c\"d"),
            ("/a/b.json", "/a/b.json"),
            ("/a%2Fb", "/a/b"),
            ("/%2541", "/%41"),
            ("items", "P202: template `items` does not begin with `/` «items»"),
            ("", "P202: template `` does not begin with `/` «»"),
            ("//", "P202: empty segment in a template «//»"),
            ("/a//b", "P202: empty segment in a template «//»"),
            ("/a/../b", "P202: `..` in a template «..»"),
            ("/a/%2e%2E/b", "P202: `%2e%2E` in a template «%2e%2E»"),
            ("/a/./b", "P202: `.` in a template «.»"),
            ("/a?b=c", "P202: `?` in a template «?»"),
            ("/a#b", "P202: `#` in a template «#»"),
            ("/a\\b", "P202: `\\\\` in a template «\\»"),
            ("/a%5Cb", "P202: `a%5Cb` in a template «a%5Cb»"),
            ("/a%00", "P202: `a%00` in a template «a%00»"),
            ("/a\nb", "P202: `\\n` in a template «\n»"),
            ("/a b", "P202: ` ` in a template « »"),
            ("/a%zz", "P202: bad percent-encoding in a template «%»"),
            ("/a%ff", "P202: bad percent-encoding in a template «a%ff»"),
            ("/a*", "P202: `*` in a template «*»"),
            ("/a{b}", "P202: `{` in a template «{»"),
            ("/{a}{b}", "P202: bad parameter name `a}{b` «a}{b»"),
            ("/{}", "P202: bad parameter name `` «»"),
            ("/{a:float}", "P202: unknown parameter type `float` «float»"),
            ("/:id", "P202: a parameter is written in braces «:id»"),
            ("/<id>", "P202: `<` in a template «<»"),
            ("/**/a", "P202: tail before the end of a template «**»"),
            ("/{a**}/b", "P202: tail before the end of a template «{a**}»"),
            ("/{a}/{a}", "P203: parameter `a` is used twice «a»"),
        ] {
            assert_eq!(show(template, Use::Match), expected, "{template:?}");
        }
        assert!(show(&"/a".repeat(65), Use::Match).starts_with("P202: template of 65 segments"));
        assert_eq!(show("/api/{tenant}/items/{rest**}", Use::Rewrite), "/api/<tenant>/items/<rest…>");
        assert_eq!(show("/{a}/{a}", Use::Rewrite), "/<a>/<a>");
        assert!(show("/{a:int}", Use::Rewrite).starts_with("P202") && show("/**", Use::Rewrite).starts_with("P202"));
        assert_eq!(show("/v1/t/{tenant}", Use::Base), "/v1/t/<tenant>");
        assert!(show("/v1/**", Use::Base).starts_with("P202"));
    }

    #[test]
    fn route_keys_name_known_methods() {
        for (key, expected) in [
            ("GET /a", "GET"),
            ("PUT|PATCH /a", "PUT PATCH"),
            ("/a", ""),
            ("QUERY /a", "QUERY"),
            ("get /a", "P202 unknown method `get`"),
            ("GETT /a", "P202 unknown method `GETT`"),
            ("GET|GET /a", "P202 method `GET` twice"),
            ("TRACE /a", "P202 method `TRACE` is never served"),
            ("GET| /a", "P202 unknown method ``"),
            ("GET", "P202 route key `GET` has no path"),
            ("GET a", "P202 template `a` does not begin with `/`"),
            ("", "P202 route key `` has no path"),
        ] {
            let mut found = Vec::new();
            let read = route_key(text(key), &mut found);
            let shown = match (read, found.first()) {
                (_, Some(first)) => format!("{} {}", first.code, first.message),
                (Some((methods, _)), None) => methods.into_iter().map(|m| m.value).collect::<Vec<_>>().join(" "),
                (None, None) => panic!("{key}: nothing said"),
            };
            assert_eq!(shown, expected, "{key}");
        }
    }
}
