//! Scopes and their hierarchy.

use serde_json::Value;
use smallvec::SmallVec;

use super::Fact;

/// The scopes of a token, in the token's order. They are opaque: never trimmed, decoded or read as a pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeSet {
    /// All scopes, one after the other.
    text: String,
    /// Where each ends.
    ends: SmallVec<[usize; 8]>,
}

impl ScopeSet {
    /// From the scopes as the token lists them.
    pub fn new<'s>(scopes: impl IntoIterator<Item = &'s str>) -> Self {
        let mut set = Self::default();
        for scope in scopes {
            set.push(scope);
        }
        set
    }

    fn push(&mut self, scope: &str) {
        self.text.push_str(scope);
        self.ends.push(self.text.len());
    }

    /// From a claim: a string is split at spaces, an array holds one scope in each element.
    pub fn from_claim(claim: &Value) -> Fact<Self> {
        match claim {
            Value::Null => Fact::Missing,
            Value::String(text) => Fact::Known(Self::from_text(text)),
            Value::Array(items) => {
                let mut set = Self::default();
                for item in items {
                    let Some(scope) = item.as_str() else { return Fact::WrongType };
                    set.push(scope);
                }
                Fact::Known(set)
            }
            Value::Bool(_) | Value::Number(_) | Value::Object(_) => Fact::WrongType,
        }
    }

    /// From a list with spaces between (RFC 6749 §3.3).
    pub fn from_text(text: &str) -> Self {
        let mut set = Self { text: String::with_capacity(text.len()), ends: SmallVec::new() };
        // At spaces alone: a tab is part of a scope that nothing asks for.
        for scope in text.split(' ').filter(|scope| !scope.is_empty()) {
            set.push(scope);
        }
        set
    }

    /// The scopes in the token's order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.ends.iter().scan(0, |begin, end| {
            let scope = self.text.get(*begin..*end);
            *begin = *end;
            scope
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether one of these scopes satisfies the one required.
    pub fn satisfies(&self, required: &str, hierarchy: Hierarchy) -> bool {
        self.iter().any(|scope| hierarchy.satisfies(scope, required))
    }
}

/// How scopes imply each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Hierarchy {
    /// `items` satisfies `items:read`.
    #[default]
    Colon,
    /// `items` satisfies `items.read`.
    Dot,
    /// Only equal scopes satisfy each other.
    None,
}

impl Hierarchy {
    /// Whether a scope of a token satisfies a required one: they are equal, or the token's is the shorter one and
    /// ends where a part of the other does. A scope with an empty part (`items:`, `:read`, empty) grants nothing.
    pub fn satisfies(self, scope: &str, required: &str) -> bool {
        let separator = match self {
            Self::Colon => ':',
            Self::Dot => '.',
            Self::None => return !scope.is_empty() && scope == required,
        };
        if scope.split(separator).any(str::is_empty) {
            return false;
        }
        required.strip_prefix(scope).is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_shorter_scope_of_the_token_satisfies_a_longer_one() {
        use Hierarchy::{Colon, Dot, None};
        for (scope, required, hierarchy, expected) in [
            ("items", "items", Colon, true),
            ("items", "items:read", Colon, true),
            ("items", "items:read:own", Colon, true),
            ("items:read", "items:read:own", Colon, true),
            ("items:read", "items", Colon, false),
            ("item", "items:read", Colon, false),
            ("items:rea", "items:read", Colon, false),
            ("ITEMS:READ", "items:read", Colon, false),
            ("items:", "items:read", Colon, false),
            (":read", ":read", Colon, false),
            ("items:", "items:", Colon, false),
            ("items::read", "items::read", Colon, false),
            ("", "items", Colon, false),
            ("", "", Colon, false),
            ("items:*", "items:read", Colon, false),
            ("*", "items:read", Colon, false),
            ("items:../admin", "admin", Colon, false),
            ("items%3Aread", "items:read", Colon, false),
            ("items", "items.read", Colon, false),
            ("items", "items.read", Dot, true),
            ("items", "items:read", Dot, false),
            ("items", "items:read", None, false),
            ("items:read", "items:read", None, true),
            ("", "", None, false),
        ] {
            assert_eq!(hierarchy.satisfies(scope, required), expected, "{scope:?} {required:?} {hierarchy:?}");
        }
    }

    #[test]
    fn a_claim_is_a_string_or_strings() {
        let scopes = |claim: Value| match ScopeSet::from_claim(&claim) {
            Fact::Known(scopes) => Fact::Known(scopes.iter().map(str::to_owned).collect::<Vec<_>>()),
            Fact::Missing => Fact::Missing,
            Fact::WrongType => Fact::WrongType,
        };
        let known = |list: &[&str]| Fact::Known(list.iter().map(|scope| (*scope).to_owned()).collect::<Vec<_>>());
        assert_eq!(scopes(json!("a  b:c a")), known(&["a", "b:c", "a"]));
        assert_eq!(scopes(json!("a\tb")), known(&["a\tb"]));
        assert_eq!(scopes(json!("")), known(&[]));
        assert_eq!(scopes(json!(["a b", "c"])), known(&["a b", "c"]));
        assert_eq!(scopes(json!(null)), Fact::Missing);
        for wrong in [json!(1), json!(true), json!({"a": 1}), json!(["a", 1]), json!([["a"]])] {
            assert_eq!(scopes(wrong), Fact::WrongType);
        }
    }

    proptest! {
        #[test]
        fn the_hierarchy_is_reflexive_and_transitive(
            a in "[ab]{1,2}(:[ab]{1,2}){0,2}", b in "[ab]{1,2}(:[ab]{1,2}){0,2}", c in "[ab]{1,2}(:[ab]{1,2}){0,2}",
        ) {
            let satisfies = |scope: &str, required: &str| Hierarchy::Colon.satisfies(scope, required);
            prop_assert!(satisfies(&a, &a));
            prop_assert!(!(satisfies(&a, &b) && satisfies(&b, &c)) || satisfies(&a, &c));
            let longer = format!("{a}:{b}");
            prop_assert!(satisfies(&a, &longer) && !satisfies(&longer, &a));
            prop_assert!(!satisfies(&a, &b) || a.len() <= b.len());
        }

        #[test]
        fn only_whole_parts_count(a in "[ab:.]{0,6}", b in "[ab:.]{0,6}") {
            let parts = |text: &str| text.split(':').map(str::to_owned).collect::<Vec<_>>();
            let (granted, required) = (parts(&a), parts(&b));
            let expected = !granted.contains(&String::new()) && required.starts_with(&granted);
            prop_assert_eq!(Hierarchy::Colon.satisfies(&a, &b), expected);
        }
    }
}
