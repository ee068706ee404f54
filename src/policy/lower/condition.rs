//! Conditions and references.
//!
//! ```text
//! condition := leaf | name
//! leaf      := ref op (literal | ref)
//!            | ref "in" (set | ref)
//!            | ref "is" ["not"] (literal | "present" | "missing")
//! op        := "==" | "!=" | "<" | "<=" | ">" | ">=" | "contains" | "starts_with" | "ends_with"
//! ref       := root "." segment { "." segment }      segment := [A-Za-z0-9_-]+ | "quoted"
//! literal   := "string" | number | "true" | "false" | HH:MM | duration
//! ```

use std::ops::Range;

use crate::diagnostic::{Code, Diagnostic, Span, Spanned, suggest};
use crate::policy::document::{Comparison, Condition, Operand, Operator, Reference, UserFact};
use crate::policy::yaml::{Style, Text, shorten};

use super::scalars;

const ROOTS: &[&str] = &["path", "user", "token", "client", "header", "query", "request", "env"];
const USER_FACTS: &[(&str, UserFact)] = &[
    ("id", UserFact::Id),
    ("email", UserFact::Email),
    ("name", UserFact::Name),
    ("tenant", UserFact::Tenant),
    ("session", UserFact::Session),
    ("issuer", UserFact::Issuer),
    ("kind", UserFact::Kind),
    ("roles", UserFact::Roles),
    ("scopes", UserFact::Scopes),
    ("permissions", UserFact::Permissions),
    ("auth_age", UserFact::AuthAge),
];
const OPERATORS: &[(&str, Operator)] = &[
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<", Operator::Less),
    ("<=", Operator::LessOrEqual),
    (">", Operator::Greater),
    (">=", Operator::GreaterOrEqual),
    ("contains", Operator::Contains),
    ("starts_with", Operator::StartsWith),
    ("ends_with", Operator::EndsWith),
    ("in", Operator::In),
    ("is", Operator::Is),
];
/// The most bytes of a condition.
const MAX_LENGTH: usize = 4096;

/// Reads a condition, or says what is wrong with it.
pub fn condition(text: Text<'_>) -> Result<Condition, Diagnostic> {
    if text.value.len() > MAX_LENGTH {
        return Err(bad("condition longer than 4096 bytes", text.span, "shorten it"));
    }
    let trimmed = text.value.trim();
    if trimmed.is_empty() {
        return Err(bad("empty condition", text.span, "here"));
    }
    if scalars::is_name(trimmed) && !is_rooted(trimmed) {
        return Ok(Condition::Named(Spanned::new(trimmed.to_owned(), text.all())));
    }
    Parser { text, at: 0 }.leaf().map(Condition::Comparison)
}

/// Reads a text that is one reference and nothing else.
pub fn reference(text: Text<'_>) -> Result<Reference, Diagnostic> {
    let mut parser = Parser { text, at: 0 };
    let token = parser.token().ok_or_else(|| bad("empty reference", text.span, "here"))?;
    let reference = parser.reference(&token)?;
    match parser.token() {
        None => Ok(reference),
        Some(rest) => Err(bad("a reference stands alone", text.at(rest.range), "does not belong here")),
    }
}

/// Whether a word begins with a root and a dot.
pub fn is_rooted(word: &str) -> bool {
    word.split_once('.').is_some_and(|(root, _)| ROOTS.contains(&root))
}

fn bad(message: impl Into<String>, span: Span, label: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Code::P106, message, span, label)
}

/// A word, an operator or a quoted string.
#[derive(Clone)]
struct Token {
    kind: TokenKind,
    range: Range<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    Word,
    Symbol,
    Quoted,
    /// A quoted string without an end.
    Open,
}

struct Parser<'a> {
    text: Text<'a>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn word(&self, token: &Token) -> &'a str {
        self.text.value.get(token.range.clone()).unwrap_or("")
    }

    fn span(&self, token: &Token) -> Span {
        self.text.at(token.range.clone())
    }

    fn rest(&self) -> &'a str {
        self.text.value.get(self.at..).unwrap_or("")
    }

    /// The next token.
    fn token(&mut self) -> Option<Token> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let rest = self.rest();
        let first = rest.chars().next()?;
        let start = self.at;
        let (length, kind) = if matches!(first, '=' | '!' | '<' | '>' | '&' | '|') {
            let length = rest.bytes().take_while(|byte| b"=!<>&|".contains(byte)).count();
            (length.min(2), TokenKind::Symbol)
        } else if first == '"' {
            quoted_length(rest).map_or((rest.len(), TokenKind::Open), |length| (length, TokenKind::Quoted))
        } else {
            word_length(rest)
                .map_or((rest.len(), TokenKind::Open), |length| (length.max(first.len_utf8()), TokenKind::Word))
        };
        self.at = start + length;
        Some(Token { kind, range: start..self.at })
    }

    fn leaf(mut self) -> Result<Comparison, Diagnostic> {
        let whole = self.text.value;
        let (before, after) = (whole.len() - whole.trim_start().len(), whole.trim_end().len());
        let left_token = self.token().ok_or_else(|| bad("empty condition", self.text.span, "here"))?;
        let left = self.left(&left_token)?;
        let left_span = self.span(&left_token);
        let operator_token = self.token().ok_or_else(|| {
            bad(format!("`{}` is not compared with anything", self.word(&left_token)), left_span, "and then?")
                .help("for example `== \"x\"`, `in office`, `is present`")
        })?;
        let operator = self.operator(&operator_token)?;
        let (operator, right, right_range) = match operator {
            Operator::In => {
                let token = self.right_token(&operator_token)?;
                (Operator::In, self.set(&token)?, token.range)
            }
            Operator::Is => self.is(&operator_token)?,
            other => {
                let token = self.right_token(&operator_token)?;
                (other, self.operand(&token)?, token.range)
            }
        };
        if let Some(extra) = self.token() {
            return Err(self.extra(&extra, &right_range));
        }
        Ok(Comparison {
            text: Spanned::new(whole.trim().to_owned(), self.text.at(before..after.max(before))),
            left,
            left_span,
            operator,
            right,
            right_span: self.text.at(right_range),
        })
    }

    fn left(&self, token: &Token) -> Result<Reference, Diagnostic> {
        if token.kind == TokenKind::Word && is_rooted(self.word(token)) {
            return self.reference(token);
        }
        let word = self.word(token);
        if token.kind == TokenKind::Word && word.contains('.') && !word.starts_with(|c: char| c.is_ascii_digit()) {
            return self.reference(token);
        }
        if word == "not" {
            return Err(bad("`not` inside of a condition", self.span(token), "not a reference")
                .help("write `is not`, or put the requirement under the key `not`"));
        }
        let message = format!("the left side of a comparison is a reference, not `{}`", shorten(word));
        let mut found = bad(message, self.span(token), "not a reference");
        if let Some(near) = suggest::closest(word, ROOTS.iter().copied()) {
            found = found.help(format!("did you mean `{near}.…`?"));
        } else {
            found = found.help("references begin with `path.`, `user.`, `token.`, `client.`, `header.`, `query.`, `request.` or `env.`");
        }
        Err(found)
    }

    fn operator(&self, token: &Token) -> Result<Operator, Diagnostic> {
        let word = self.word(token);
        if let Some((_, operator)) = OPERATORS.iter().find(|(known, _)| *known == word) {
            return Ok(*operator);
        }
        let span = self.span(token);
        let found = bad(format!("unknown operator `{}`", shorten(word)), span, "not an operator");
        let replacement = match word {
            "=" | "===" | "eq" | "equals" => Some("=="),
            "<>" | "ne" => Some("!="),
            "has" | "includes" => Some("contains"),
            "startsWith" | "startswith" => Some("starts_with"),
            "endsWith" | "endswith" => Some("ends_with"),
            _ => suggest::closest(word, OPERATORS.iter().map(|(known, _)| *known)),
        };
        Err(match replacement {
            Some(near) => found.fix(format!("did you mean `{near}`?"), span, near),
            None if word == "not" => found.help("write `is not`, or put the requirement under the key `not`"),
            None if word == "matches" || word == "=~" => {
                found.help("there are no regular expressions; `starts_with` and `ends_with` exist")
            }
            None => found
                .help("operators: `==` `!=` `<` `<=` `>` `>=` `contains` `starts_with` `ends_with` `in` `is` `is not`"),
        })
    }

    fn right_token(&mut self, operator: &Token) -> Result<Token, Diagnostic> {
        let word = self.word(operator);
        let span = self.span(operator);
        self.token().ok_or_else(|| bad(format!("nothing behind `{word}`"), span, "compared with what?"))
    }

    fn is(&mut self, operator: &Token) -> Result<(Operator, Operand, Range<usize>), Diagnostic> {
        let mut token = self.right_token(operator)?;
        let mut kind = Operator::Is;
        let mut start = token.range.start;
        if token.kind == TokenKind::Word && self.word(&token) == "not" {
            kind = Operator::IsNot;
            token = self.right_token(&token)?;
            start = token.range.start;
        }
        let operand = match self.word(&token) {
            "present" => Operand::Present,
            "missing" => Operand::Missing,
            "null" | "none" | "empty" | "absent" | "undefined" => {
                let span = self.span(&token);
                return Err(bad(format!("unknown word `{}`", self.word(&token)), span, "behind `is`").fix(
                    "did you mean `missing`?",
                    span,
                    "missing",
                ));
            }
            word if token.kind == TokenKind::Word && is_rooted(word) => {
                let found = bad("`is` takes a literal, `present` or `missing`", self.span(&token), "a reference");
                return Err(found.help("compare two references with `==`"));
            }
            _ => self.operand(&token)?,
        };
        Ok((kind, operand, start..token.range.end))
    }

    fn set(&self, token: &Token) -> Result<Operand, Diagnostic> {
        let word = self.word(token);
        let span = self.span(token);
        if token.kind == TokenKind::Word {
            if is_rooted(word) {
                return self.reference(token).map(Operand::Reference);
            }
            if scalars::is_name(word) {
                return Ok(Operand::Set(word.to_owned()));
            }
        }
        Err(bad(format!("`in` takes a set or a list, not `{}`", shorten(word)), span, "neither")
            .help("give the values a name under `sets`, and use the name"))
    }

    /// A literal or a reference on the right side.
    fn operand(&self, token: &Token) -> Result<Operand, Diagnostic> {
        let word = self.word(token);
        match token.kind {
            TokenKind::Quoted => return unquote(word).map(Operand::String).ok_or_else(|| self.bad_quotes(token)),
            TokenKind::Open => return Err(self.bad_quotes(token)),
            TokenKind::Symbol => {
                return Err(bad(format!("unexpected `{word}`"), self.span(token), "a value belongs here"));
            }
            TokenKind::Word => {}
        }
        if is_rooted(word) {
            return self.reference(token).map(Operand::Reference);
        }
        match word {
            "true" => return Ok(Operand::Bool(true)),
            "false" => return Ok(Operand::Bool(false)),
            "null" => {
                return Err(bad("no comparison with `null`", self.span(token), "null is missing")
                    .help("write `is missing` or `is present`"));
            }
            _ => {}
        }
        if let Ok(number) = word.parse::<i64>() {
            return Ok(Operand::Integer(number));
        }
        let numeric = word.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        if let Some(number) = word.parse::<f64>().ok().filter(|number| numeric && number.is_finite()) {
            return Ok(Operand::Float(number));
        }
        if let Some(minutes) = time_of_day(word) {
            return Ok(Operand::Time(minutes));
        }
        if let Some(duration) = scalars::duration(word) {
            return Ok(Operand::Duration(duration));
        }
        Err(self.unquoted(token))
    }

    /// A word that is neither literal nor reference: very likely a string without its quotes. Everything up to
    /// the end is taken for it.
    fn unquoted(&self, token: &Token) -> Diagnostic {
        let from = self.text.value.get(token.range.start..).unwrap_or("").trim_end();
        let range = token.range.start..token.range.start + from.len();
        let span = self.text.at(range);
        let found = bad(format!("unquoted string `{}`", shorten(from)), span, "strings are quoted");
        if from.contains('"') {
            return found;
        }
        let quoted = match self.text.style {
            Style::DoubleQuoted => format!("\\\"{from}\\\""),
            _ => format!("\"{from}\""),
        };
        found.fix("quote it", span, quoted)
    }

    fn bad_quotes(&self, token: &Token) -> Diagnostic {
        bad(
            "bad string",
            self.span(token),
            "a string ends with `\"`; inside, `\\\"` and `\\\\` stand for `\"` and `\\`",
        )
    }

    fn extra(&self, token: &Token, right: &Range<usize>) -> Diagnostic {
        let word = self.word(token);
        let span = self.text.at(token.range.start..self.text.value.trim_end().len());
        let found = bad("a condition is one comparison", span, "does not belong to it");
        let right_word = self.text.value.get(right.clone()).unwrap_or("");
        match word {
            "and" | "&&" | "AND" => found.help("list the comparisons: `where: [ …, … ]` means that all must hold"),
            "or" | "||" | "OR" => found.help("write alternatives under the key `any`"),
            "+" | "-" | "*" | "/" => found.help("there is no arithmetic"),
            _ if word.starts_with('(') || right_word.ends_with(')') => found.help("there are no functions"),
            _ => found,
        }
    }

    fn reference(&self, token: &Token) -> Result<Reference, Diagnostic> {
        let word = self.word(token);
        let span = self.span(token);
        if token.kind != TokenKind::Word {
            return Err(bad(format!("`{}` is not a reference", shorten(word)), span, "here"));
        }
        let segments = segments(word).ok_or_else(|| {
            bad(
                format!("bad reference `{}`", shorten(word)),
                span,
                "segments are letters, digits, `_` and `-`, or quoted",
            )
        })?;
        let Some((root, rest)) = segments.split_first() else {
            return Err(bad("empty reference", span, "here"));
        };
        let root_span = self.text.at(token.range.start..token.range.start + root.len());
        let rest_span = self.text.at((token.range.start + root.len() + 1).min(token.range.end)..token.range.end);
        let one = || match rest {
            [only] => Ok(only.clone()),
            [] => Err(bad(format!("`{root}` alone is not a reference"), span, "of what?")),
            _ => Err(bad(format!("`{root}.` takes one name"), rest_span, "more than one")),
        };
        let among = |names: &[&str], name: &str| {
            let found = bad(format!("unknown reference `{}`", shorten(word)), rest_span, format!("not under `{root}`"));
            match suggest::closest(name, names.iter().copied()) {
                Some(near) => found.fix(format!("did you mean `{root}.{near}`?"), rest_span, near),
                None => found.help(format!("under `{root}`: `{}`", names.join("` `"))),
            }
        };
        match root.as_str() {
            "path" => one().map(Reference::Path),
            "user" => {
                let name = one()?;
                USER_FACTS.iter().find(|(known, _)| *known == name).map(|(_, fact)| Reference::User(*fact)).ok_or_else(
                    || {
                        let names: Vec<&str> = USER_FACTS.iter().map(|(known, _)| *known).collect();
                        let found = among(&names, &name);
                        if found.fixes.is_empty() {
                            found.help(format!("a claim of the token is `token.{}`", shorten(&name)))
                        } else {
                            found
                        }
                    },
                )
            }
            "token" if rest.is_empty() => Err(bad("`token` alone is not a reference", span, "which claim?")),
            "token" => Ok(Reference::Token(rest.to_vec())),
            "client" => match one()?.as_str() {
                "ip" => Ok(Reference::ClientIp),
                "country" => Ok(Reference::ClientCountry),
                name => Err(among(&["ip", "country"], name)),
            },
            "header" => {
                let name = one()?;
                if !scalars::is_token(&name) {
                    return Err(bad(format!("`{}` is not a header name", shorten(&name)), rest_span, "here"));
                }
                Ok(Reference::Header(name.to_ascii_lowercase()))
            }
            "query" => one().map(Reference::Query),
            "request" => match one()?.as_str() {
                "method" => Ok(Reference::RequestMethod),
                "host" => Ok(Reference::RequestHost),
                "time" => Ok(Reference::RequestTime),
                "weekday" => Ok(Reference::RequestWeekday),
                name => Err(among(&["method", "host", "time", "weekday"], name)),
            },
            "env" => {
                let name = one()?;
                if !scalars::is_variable_name(&name) {
                    return Err(bad(format!("`{}` is not a variable's name", shorten(&name)), rest_span, "here"));
                }
                Ok(Reference::Env(name))
            }
            other => {
                let found = bad(format!("unknown root `{}`", shorten(other)), root_span, "not a root");
                Err(match suggest::closest(other, ROOTS.iter().copied()) {
                    Some(near) => found.fix(format!("did you mean `{near}`?"), root_span, near),
                    None => found.help(format!("roots: `{}`", ROOTS.join("` `"))),
                })
            }
        }
    }
}

/// `HH:MM`, as minutes since midnight.
fn time_of_day(word: &str) -> Option<u16> {
    let (hours, minutes) = word.split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let hours = scalars::number(hours).filter(|hours| *hours < 24)?;
    let minutes = scalars::number(minutes).filter(|minutes| *minutes < 60)?;
    u16::try_from(hours * 60 + minutes).ok()
}

/// The length of the quoted string that `text` begins with, quotes included.
fn quoted_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The length of the word that `text` begins with; quoted segments belong to it.
fn word_length(text: &str) -> Option<usize> {
    let mut at = 0;
    while let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
        if c.is_whitespace() || matches!(c, '=' | '!' | '<' | '>' | '&' | '|') {
            break;
        }
        at += if c == '"' { quoted_length(text.get(at..)?)? } else { c.len_utf8() };
    }
    Some(at)
}

/// The text of a quoted string. Only `\"` and `\\` are escapes.
fn unquote(quoted: &str) -> Option<String> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            '"' => return None,
            _ => text.push(c),
        }
    }
    Some(text)
}

/// The segments of a reference; none is empty.
fn segments(word: &str) -> Option<Vec<String>> {
    let mut segments = Vec::new();
    let mut rest = word;
    loop {
        let length = if rest.starts_with('"') { quoted_length(rest)? } else { rest.find('.').unwrap_or(rest.len()) };
        let (segment, behind) = rest.split_at_checked(length)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let segment = if segment.starts_with('"') {
            unquote(segment)?
        } else if segment.chars().all(plain) {
            segment.to_owned()
        } else {
            return None;
        };
        if segment.is_empty() {
            return None;
        }
        segments.push(segment);
        match behind.strip_prefix('.') {
            Some(next) => rest = next,
            None if behind.is_empty() => return Some(segments),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{condition, reference};
    use crate::diagnostic::{FileId, Span};
    use crate::policy::document::Condition;
    use crate::policy::yaml::{Style, Text};

    fn text(value: &str) -> Text<'_> {
        let end = u32::try_from(value.len()).unwrap();
        Text { value, span: Span { file: FileId(0), start: 0, end }, style: Style::Plain, source: value }
    }

    fn show(value: &str) -> String {
        let slice = |span: Span| value.get(span.start as usize..span.end as usize).unwrap().to_owned();
        match condition(text(value)) {
            Ok(Condition::Comparison(leaf)) => format!(
                "{:?} «{}» {:?} {:?} «{}»",
                leaf.left,
                slice(leaf.left_span),
                leaf.operator,
                leaf.right,
                slice(leaf.right_span)
            ),
            Ok(Condition::Named(name)) => format!("name {}", name.value),
            Ok(Condition::All(..)) => panic!("a list"),
            Err(bad) => {
                let fix = bad.fixes.first().map_or(String::new(), |fix| format!(" → {}", fix.edits[0].text));
                format!("{} «{}»{fix}", bad.message, slice(bad.primary.span))
            }
        }
    }

    #[test]
    fn conditions_are_one_comparison() {
        for (condition, expected) in [
            ("path.user_id == user.id", r#"Path("user_id") «path.user_id» Equal Reference(User(Id)) «user.id»"#),
            ("  path.a==user.id ", r#"Path("a") «path.a» Equal Reference(User(Id)) «user.id»"#),
            (r#"token.a.b != "x y""#, r#"Token(["a", "b"]) «token.a.b» NotEqual String("x y") «"x y"»"#),
            (
                r#"token."https://acme.example/plan" == "pro""#,
                r#"Token(["https://acme.example/plan"]) «token."https://acme.example/plan"» Equal String("pro") «"pro"»"#,
            ),
            (r#"token."a b".c is "\"\\""#, r#"Token(["a b", "c"]) «token."a b".c» Is String("\"\\") «"\"\\"»"#),
            ("token.suspended is not true", r#"Token(["suspended"]) «token.suspended» IsNot Bool(true) «true»"#),
            ("user.email is present", "User(Email) «user.email» Is Present «present»"),
            ("user.email is not missing", "User(Email) «user.email» IsNot Missing «missing»"),
            ("client.ip in office", r#"ClientIp «client.ip» In Set("office") «office»"#),
            ("path.id in token.ids", r#"Path("id") «path.id» In Reference(Token(["ids"])) «token.ids»"#),
            ("token.n >= -5", r#"Token(["n"]) «token.n» GreaterOrEqual Integer(-5) «-5»"#),
            ("token.n < 1.5", r#"Token(["n"]) «token.n» Less Float(1.5) «1.5»"#),
            ("request.time > 08:30", "RequestTime «request.time» Greater Time(510) «08:30»"),
            ("user.auth_age <= 10m", "User(AuthAge) «user.auth_age» LessOrEqual Duration(600s) «10m»"),
            (
                "header.X-Plan == env.PLAN",
                r#"Header("x-plan") «header.X-Plan» Equal Reference(Env("PLAN")) «env.PLAN»"#,
            ),
            ("same_tenant", "name same_tenant"),
            ("user.id", "`user.id` is not compared with anything «user.id»"),
            ("user.name == John Smith", "unquoted string `John Smith` «John Smith» → \"John Smith\""),
            ("user.tenant == acme", "unquoted string `acme` «acme» → \"acme\""),
            ("user.plan == \"a\"", "unknown reference `user.plan` «plan»"),
            ("user.emial == \"a\"", "unknown reference `user.emial` «emial» → email"),
            ("usr.id == \"a\"", "unknown root `usr` «usr» → user"),
            ("\"a\" == user.id", "the left side of a comparison is a reference, not `\"a\"` «\"a\"»"),
            ("5 == user.id", "the left side of a comparison is a reference, not `5` «5»"),
            ("user.id = \"a\"", "unknown operator `=` «=» → =="),
            ("user.id startswith \"a\"", "unknown operator `startswith` «startswith» → starts_with"),
            ("user.id ==", "nothing behind `==` «==»"),
            ("user.id == \"a", "bad string «\"a»"),
            ("user.id == \"a\\n\"", "bad string «\"a\\n\"»"),
            ("user.id == \"a\" and user.name == \"b\"", "a condition is one comparison «and user.name == \"b\"»"),
            ("user.id == \"a\" || user.name == \"b\"", "a condition is one comparison «|| user.name == \"b\"»"),
            ("client.ip in [10.0.0.0/8]", "`in` takes a set or a list, not `[10.0.0.0/8]` «[10.0.0.0/8]»"),
            ("user.id is user.name", "`is` takes a literal, `present` or `missing` «user.name»"),
            ("user.id is null", "unknown word `null` «null» → missing"),
            ("user.id == null", "no comparison with `null` «null»"),
            ("user..id == 5", "bad reference `user..id` «user..id»"),
            ("client == 5", "the left side of a comparison is a reference, not `client` «client»"),
            ("path.a.b == 5", "`path.` takes one name «a.b»"),
            ("request.tiem > 08:00", "unknown reference `request.tiem` «tiem» → time"),
            ("user.id == inf", "unquoted string `inf` «inf» → \"inf\""),
            ("user.id == 25:00", "unquoted string `25:00` «25:00» → \"25:00\""),
            ("not user.id == 5", "`not` inside of a condition «not»"),
            ("", "empty condition «»"),
            ("ä == 5", "the left side of a comparison is a reference, not `ä` «ä»"),
        ] {
            assert_eq!(show(condition), expected, "{condition}");
        }
    }

    #[test]
    fn a_reference_stands_alone() {
        assert!(reference(text("user.id")).is_ok() && reference(text("token.\"a.b\".c")).is_ok());
        for bad in ["user", "user.id x", "\"a\"", "", "foo", "token", "token.", "token.\"a"] {
            assert!(reference(text(bad)).is_err(), "{bad}");
        }
    }
}
