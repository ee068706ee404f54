//! The properties of policy-language 5.3 that are about decisions, on random policies and callers.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::policy::references::References;
use crate::policy::set::PolicySet;

use super::tests::{ask, try_candidate, user};

/// A requirement, as a policy writes it and as the oracle reads it.
#[derive(Clone, Debug)]
enum Need {
    Scope(usize),
    Role(usize),
    Permission(usize),
    Equal(usize, usize),
    Is(usize, usize),
    Any(Vec<Self>),
    All(Vec<Self>),
    Not(Box<Self>),
}

const SCOPES: [&str; 4] = ["a", "a:x", "a:x:y", "b"];
/// `r0 ⊂ r1 ⊂ r2`; `r3` stands alone.
const ROLES: [&str; 4] = ["r0", "r1", "r2", "r3"];
/// `p:0` is permitted by r0, `p:1` by r1, all of `p:` by r2, nothing by r3.
const PERMISSIONS: [&str; 3] = ["p:0", "p:1", "p:2"];
const VALUES: [&str; 3] = ["x", "y", "z"];

impl Need {
    fn yaml(&self) -> String {
        let list = |members: &[Self]| members.iter().map(Self::yaml).collect::<Vec<_>>().join(", ");
        match self {
            Self::Scope(at) => format!("{{ scope: \"{}\" }}", SCOPES[*at]),
            Self::Role(at) => format!("{{ role: {} }}", ROLES[*at]),
            Self::Permission(at) => format!("{{ permission: \"{}\" }}", PERMISSIONS[*at]),
            Self::Equal(claim, value) => format!("{{ where: token.c{claim} == \"{}\" }}", VALUES[*value]),
            Self::Is(claim, value) => format!("{{ where: token.c{claim} is \"{}\" }}", VALUES[*value]),
            Self::Any(members) => format!("{{ any: [{}] }}", list(members)),
            Self::All(members) => format!("{{ all: [{}] }}", list(members)),
            Self::Not(member) => format!("{{ not: {} }}", member.yaml()),
        }
    }

    /// What it comes to for these claims: the language's text, in the plainest way. `None` is unknown.
    fn value(&self, claims: &Map<String, Value>) -> Option<bool> {
        let names = |claim: &str| match claims.get(claim) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(items)) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            Some(_) => None,
        };
        let roles = || {
            let mut roles = names("roles")?;
            for (role, included) in [("r2", "r1"), ("r1", "r0")] {
                if roles.iter().any(|known| known == role) {
                    roles.push(included.to_owned());
                }
            }
            Some(roles)
        };
        let claim = |at: &usize| claims.get(&format!("c{at}")).filter(|value| !value.is_null());
        match self {
            Self::Scope(at) => {
                let wanted: Vec<&str> = SCOPES[*at].split(':').collect();
                Some(names("scope")?.iter().any(|scope| wanted.starts_with(&scope.split(':').collect::<Vec<_>>())))
            }
            Self::Role(at) => Some(roles()?.iter().any(|role| role == ROLES[*at])),
            Self::Permission(at) => {
                let (roles, own) = (roles()?, names("permissions")?);
                let by_role = |role: &str| roles.iter().any(|known| known == role);
                let granted = by_role("r2") || (*at < 2 && by_role(ROLES[*at]));
                Some(granted || own.iter().any(|name| name == PERMISSIONS[*at] || name == "*" || name == "p:*"))
            }
            Self::Equal(at, value) => Some(claim(at)?.as_str()? == VALUES[*value]),
            Self::Is(at, value) => Some(claim(at).and_then(Value::as_str) == Some(VALUES[*value])),
            Self::Any(members) => {
                let values: Vec<_> = members.iter().map(|member| member.value(claims)).collect();
                if values.contains(&Some(true)) {
                    Some(true)
                } else if values.contains(&None) {
                    None
                } else {
                    Some(false)
                }
            }
            Self::All(members) => {
                let values: Vec<_> = members.iter().map(|member| member.value(claims)).collect();
                if values.contains(&Some(false)) {
                    Some(false)
                } else if values.contains(&None) {
                    None
                } else {
                    Some(true)
                }
            }
            Self::Not(member) => member.value(claims).map(|value| !value),
        }
    }

    /// The same with the members of all lists in the opposite order.
    fn reversed(&self) -> Self {
        let list = |members: &[Self]| members.iter().rev().map(Self::reversed).collect();
        match self {
            Self::Any(members) => Self::Any(list(members)),
            Self::All(members) => Self::All(list(members)),
            Self::Not(member) => Self::Not(Box::new(member.reversed())),
            other => other.clone(),
        }
    }
}

/// Requirements without `is` and `not`.
fn positive() -> impl Strategy<Value = Need> {
    let leaf = prop_oneof![
        (0..4_usize).prop_map(Need::Scope),
        (0..4_usize).prop_map(Need::Role),
        (0..3_usize).prop_map(Need::Permission),
        (0..2_usize, 0..3_usize).prop_map(|(claim, value)| Need::Equal(claim, value)),
    ];
    nested(leaf.boxed())
}

/// All requirements.
fn any_need() -> impl Strategy<Value = Need> {
    let total = prop_oneof![
        (0..4_usize).prop_map(Need::Scope),
        (0..4_usize).prop_map(Need::Role),
        (0..2_usize, 0..3_usize).prop_map(|(claim, value)| Need::Is(claim, value)),
    ];
    let leaf = prop_oneof![
        3 => positive(),
        1 => (0..2_usize, 0..3_usize).prop_map(|(claim, value)| Need::Is(claim, value)),
        1 => total.prop_map(|need| Need::Not(Box::new(need))),
    ];
    nested(leaf.boxed())
}

fn nested(leaf: BoxedStrategy<Need>) -> impl Strategy<Value = Need> {
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![vec(inner.clone(), 1..4).prop_map(Need::Any), vec(inner, 1..4).prop_map(Need::All)]
    })
}

fn claims() -> impl Strategy<Value = Map<String, Value>> {
    let list = |names: &'static [&'static str]| {
        prop_oneof![
            8 => proptest::sample::subsequence(names, 0..=2).prop_map(|names| json!(names)),
            1 => Just(json!(7)),
            1 => Just(Value::Null),
        ]
    };
    let value = || prop_oneof![4 => proptest::sample::select(&VALUES[..]).prop_map(|value| json!(value)), 1 => Just(json!(7)), 1 => Just(Value::Null)];
    let permissions: &[&str] = &["p:0", "p:1", "p:2", "p:*", "*", "q"];
    (list(&SCOPES), list(&ROLES), list(permissions), value(), value()).prop_map(
        |(scope, roles, permissions, c0, c1)| {
            let claims = [("scope", scope), ("roles", roles), ("permissions", permissions), ("c0", c0), ("c1", c1)];
            claims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        },
    )
}

const NAMES: &str = "version: 1\n\
    roles: { r0: [\"p:0\"], r1: { includes: r0, can: [\"p:1\"] }, r2: { includes: r1, can: [\"p:*\"] }, r3: [] }\n\
    permissions: { \"p:0\": x, \"p:1\": x, \"p:2\": x }\n\
    identity: { app: { preset: jwt, secret: env:S, issuer: i, audience: a } }\n";

/// A set with two routes and perhaps a guard; `None` if a check refuses it, e.g. because it can never be true.
fn set(route: &Need, guard: Option<&Need>, backwards: bool) -> Option<Arc<PolicySet>> {
    let mut routes = [format!("  GET /x/{{id}}: {}\n", route.yaml()), "  /**: deny\n".to_owned()];
    let mut files = vec![("policies/a.yaml", NAMES.to_owned())];
    if let Some(guard) = guard {
        files.push((
            "policies/g.yaml",
            format!("version: 1\nguards: {{ g: {{ paths: /x/**, require: {} }} }}\n", guard.yaml()),
        ));
    }
    if backwards {
        routes.reverse();
    }
    files.push(("policies/r.yaml", format!("version: 1\nupstream: http://a\nroutes:\n{}", routes.concat())));
    if backwards {
        files.reverse();
    }
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    try_candidate(&files, &References::none()).ok().map(|candidate| Arc::clone(candidate.policy()))
}

fn allows(policy: &Arc<PolicySet>, claims: &Map<String, Value>) -> bool {
    ask(policy, "GET /x/7", &[], user(policy, Value::Object(claims.clone()))) == "allow"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_decision_is_what_the_language_says(need in any_need(), guard in proptest::option::of(any_need()), claims in claims()) {
        let Some(policy) = set(&need, guard.as_ref(), false) else { return Ok(()) };
        let holds = |need: &Need| need.value(&claims) == Some(true);
        let expected = holds(&need) && guard.as_ref().is_none_or(holds);
        prop_assert_eq!(allows(&policy, &claims), expected);
        prop_assert_eq!(ask(&policy, "POST /x/7", &[], user(&policy, json!({}))), "405 method_not_allowed");
        prop_assert_eq!(ask(&policy, "GET /y", &[], user(&policy, Value::Object(claims))), "403 access_denied");
    }

    #[test]
    fn order_never_matters(need in any_need(), guard in any_need(), claims in claims()) {
        let sets = (set(&need, Some(&guard), false), set(&need.reversed(), Some(&guard.reversed()), true));
        let (Some(policy), Some(reversed)) = sets else { return Ok(()) };
        let answer = |policy: &Arc<PolicySet>| ask(policy, "GET /x/7", &[], user(policy, Value::Object(claims.clone())));
        prop_assert_eq!(answer(&policy), answer(&reversed));
    }

    #[test]
    fn a_guard_or_a_further_key_never_allows_more_and_a_further_member_of_any_never_less(
        need in any_need(), more in any_need(), claims in claims(),
    ) {
        let Some(policy) = set(&need, None, false) else { return Ok(()) };
        let allowed = allows(&policy, &claims);
        if let Some(guarded) = set(&need, Some(&more), false) {
            prop_assert!(allowed || !allows(&guarded, &claims));
        }
        if let Some(both) = set(&Need::All(vec![need.clone(), more.clone()]), None, false) {
            prop_assert!(allowed || !allows(&both, &claims));
        }
        if let Some(either) = set(&Need::Any(vec![need, more]), None, false) {
            prop_assert!(!allowed || allows(&either, &claims));
        }
    }

    #[test]
    fn without_is_and_not_a_lost_claim_never_allows_and_a_further_name_never_denies(
        need in positive(), claims in claims(), at in 0..5_usize, wrong in any::<bool>(), name in 0..3_usize,
    ) {
        let Some(policy) = set(&need, None, false) else { return Ok(()) };
        let allowed = allows(&policy, &claims);
        let lost = ["scope", "roles", "permissions", "c0", "c1"][at];
        // A list of the wrong type makes what reads it unknown (section 8), so that losing one may allow.
        prop_assume!(claims.get(lost) != Some(&json!(7)));
        let mut fewer = claims.clone();
        if wrong { fewer.insert(lost.to_owned(), json!({"a": [1]})); } else { fewer.remove(lost); }
        prop_assert!(allowed || !allows(&policy, &fewer), "{lost} lost");
        for (claim, names) in [("scope", &SCOPES[..]), ("roles", &ROLES), ("permissions", &PERMISSIONS)] {
            let mut more = claims.clone();
            if let Some(Value::Array(items)) = more.get_mut(claim) {
                items.push(json!(names[name]));
            }
            prop_assert!(!allowed || allows(&policy, &more), "{claim} with {}", names[name]);
        }
    }
}

#[test]
fn a_set_without_routes_denies_everything() {
    let files = [("policies/a.yaml", "version: 1\nupstream: http://a\nroutes: {}\n")];
    let Ok(candidate) = try_candidate(&files, &References::none()) else { return };
    for request in ["GET /", "POST /token", "OPTIONS /x"] {
        assert_eq!(ask(candidate.policy(), request, &[], user(candidate.policy(), json!({}))), "404 not_found");
    }
}
