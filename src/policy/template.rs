//! Path templates: literals, typed and untyped parameters, wildcards and tails.
//!
//! ```text
//! template := "/" [ segment { "/" segment } ] [ "/" ]
//! segment  := literal | "{" name [ ":" type ] "}" | "*" | "**" | "{" name "**}"     (the last two at the end only)
//! type     := "int" | "uuid" | "slug" | "date"
//! ```

use crate::diagnostic::Span;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// As written.
    pub text: String,
    /// Where it stands.
    pub span: Span,
    /// Its segments; the template `/` has none.
    pub segments: Vec<Segment>,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// A literal, percent-decoded once.
    Literal(String),
    /// `{name}` or `{name:type}`; `*` has no name.
    Parameter {
        /// The name, unless it is `*`.
        name: Option<String>,
        /// The type.
        kind: Kind,
    },
    /// `**` or `{name**}`: zero or more segments, at the end only.
    Tail {
        /// The name, unless it is `**`.
        name: Option<String>,
    },
}

/// Types of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `{name}`, `*`: any non-empty segment.
    Any,
    /// 1–19 ASCII digits, at most 2⁶³−1.
    Int,
    /// 8-4-4-4-12 hex digits, any case.
    Uuid,
    /// `[A-Za-z0-9_-]+`.
    Slug,
    /// A real calendar date `YYYY-MM-DD`.
    Date,
}
