//! Random policies, and what they mean: said in the plainest way, without the gateway's code.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::dice::Dice;

/// How many routes a policy has.
pub const RULES: usize = 20;

const WORDS: &[&str] =
    &["admin", "api", "items", "public", "v1", "users", "files", "index.php", "report.pdf", "a", "secret", "7"];
const SCOPES: [&str; 4] = ["items", "items:read", "items:write", "users:read"];
const ROLES: [&str; 2] = ["editor", "admin"];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Case {
    /// Not said: `check` speaks.
    Unset,
    Sensitive,
    Insensitive,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    Word(&'static str),
    /// `*`, `{p}`, `{p:int}`, `{p:slug}`.
    Any,
    Named,
    Int,
    Slug,
    /// `**`, or `{rest**}`.
    Tail,
}

#[derive(Clone, Debug)]
pub enum Need {
    Public,
    Authenticated,
    Scope(usize),
    Role(usize),
    Both(usize, usize),
    Either(usize, usize),
    Deny,
}

#[derive(Clone, Debug)]
pub struct Rule {
    /// `GET`, `POST` or none.
    pub method: Option<&'static str>,
    /// Below the base.
    pub template: Vec<Piece>,
    pub need: Need,
    /// The words that a rewrite puts before the rest, in place of the template's own.
    pub rewrite: Option<Vec<&'static str>>,
}

/// A random policy.
#[derive(Debug)]
pub struct Rules {
    pub case: Case,
    pub allow: Vec<&'static str>,
    /// `base: /svc` with `strip_base`.
    pub strips_base: bool,
    pub rules: Vec<Rule>,
}

const BASE: &str = "svc";

/// Who asks: scopes and roles; nobody first.
pub const CALLERS: [Option<(&[usize], &[usize])>; 7] = [
    None,
    Some((&[], &[])),
    Some((&[1], &[])),
    Some((&[0], &[])),
    Some((&[2, 3], &[])),
    Some((&[], &[0])),
    Some((&[0, 3], &[1])),
];

/// The claims of a caller.
pub fn claims((scopes, roles): (&[usize], &[usize])) -> Value {
    let names = |all: &[&str], some: &[usize]| some.iter().map(|at| all[*at].to_owned()).collect::<Vec<_>>();
    json!({ "sub": "ada", "scope": names(&SCOPES, scopes), "roles": names(&ROLES, roles) })
}

impl Need {
    fn random(dice: &mut Dice) -> Self {
        match dice.below(12) {
            0..=3 => Self::Public,
            4 | 5 => Self::Authenticated,
            6 | 7 => Self::Scope(dice.below(SCOPES.len())),
            8 => Self::Role(dice.below(ROLES.len())),
            9 => Self::Both(dice.below(SCOPES.len()), dice.below(ROLES.len())),
            10 => Self::Either(dice.below(SCOPES.len()), dice.below(ROLES.len())),
            _ => Self::Deny,
        }
    }

    fn yaml(&self) -> String {
        match self {
            Self::Public => "public".to_owned(),
            Self::Authenticated => "authenticated".to_owned(),
            Self::Scope(scope) => format!("{{ scope: \"{}\" }}", SCOPES[*scope]),
            Self::Role(role) => format!("{{ role: {} }}", ROLES[*role]),
            Self::Both(scope, role) => format!("{{ scope: \"{}\", role: {} }}", SCOPES[*scope], ROLES[*role]),
            Self::Either(scope, role) => {
                format!("{{ any: [ {{ scope: \"{}\" }}, {{ role: {} }} ] }}", SCOPES[*scope], ROLES[*role])
            }
            Self::Deny => "deny".to_owned(),
        }
    }

    fn is_met(&self, caller: usize) -> bool {
        let has_scope = |wanted: usize| {
            CALLERS[caller].is_some_and(|(scopes, _)| {
                // `items` covers `items:read`.
                scopes.iter().any(|own| {
                    SCOPES[*own] == SCOPES[wanted] || SCOPES[wanted].starts_with(&format!("{}:", SCOPES[*own]))
                })
            })
        };
        // The admin is an editor.
        let has_role = |wanted: usize| CALLERS[caller].is_some_and(|(_, roles)| roles.iter().any(|own| *own >= wanted));
        match self {
            Self::Public => true,
            Self::Authenticated => CALLERS[caller].is_some(),
            Self::Scope(scope) => has_scope(*scope),
            Self::Role(role) => has_role(*role),
            Self::Both(scope, role) => has_scope(*scope) && has_role(*role),
            Self::Either(scope, role) => has_scope(*scope) || has_role(*role),
            Self::Deny => false,
        }
    }
}

impl Rule {
    /// The callers who may, as bits.
    pub fn callers(&self) -> u8 {
        (0..CALLERS.len()).filter(|caller| self.need.is_met(*caller)).fold(0, |bits, caller| bits | 1 << caller)
    }

    fn path(&self) -> String {
        if self.template.is_empty() {
            return "/".to_owned();
        }
        let mut path = String::new();
        for (at, piece) in self.template.iter().enumerate() {
            let _ = match piece {
                Piece::Word(word) => write!(path, "/{word}"),
                Piece::Any => write!(path, "/*"),
                Piece::Named => write!(path, "/{{p{at}}}"),
                Piece::Int => write!(path, "/{{p{at}:int}}"),
                Piece::Slug => write!(path, "/{{p{at}:slug}}"),
                Piece::Tail if self.rewrite.is_some() => write!(path, "/{{rest**}}"),
                Piece::Tail => write!(path, "/**"),
            };
        }
        path
    }

    /// The key as a policy writes it.
    pub fn key(&self) -> String {
        let method = self.method.map(|method| format!("{method} ")).unwrap_or_default();
        format!("{method}{}", self.path())
    }

    fn is_literal(&self) -> bool {
        self.template.iter().all(|piece| matches!(piece, Piece::Word(_)))
    }
}

impl Rules {
    pub fn random(dice: &mut Dice) -> Self {
        let case = *dice.pick(&[Case::Unset, Case::Unset, Case::Sensitive, Case::Insensitive]);
        let mut allow = Vec::new();
        if dice.one_in(3) {
            for word in ["encoded_slash", "double_slash", "path_params", "double_encoding"] {
                if dice.one_in(2) {
                    allow.push(word);
                }
            }
        }
        let mut rules: Vec<Rule> = Vec::new();
        while rules.len() < RULES {
            let rule = random_rule(&rules, dice);
            if !rules.iter().any(|known| shape(&known.template) == shape(&rule.template)) {
                rules.push(rule);
            }
        }
        Self { case, allow, strips_base: dice.one_in(5), rules }
    }

    pub fn yaml(&self) -> String {
        let mut text = String::from("version: 1\nupstream: http://127.0.0.1:9\n");
        let _ = match self.case {
            Case::Unset => Ok(()),
            Case::Sensitive => writeln!(text, "case: sensitive"),
            Case::Insensitive => writeln!(text, "case: insensitive"),
        };
        if self.strips_base {
            let _ = writeln!(text, "base: /{BASE}\nstrip_base: true");
        }
        text.push_str("allow: {");
        for word in &self.allow {
            let _ = write!(text, " {word}: the upstream reads it so,");
        }
        if !self.allow.is_empty() {
            text.push_str(" P312: random,");
        }
        text.push_str(" P205: x, P206: x, P302: x, P305: x, P311: x }\n");
        text.push_str(
            "identity: { tests: { preset: jwt, secret: env:SECRET, issuer: i, audience: a } }\n\
             roles: { editor: [], admin: { includes: editor } }\nroutes:\n",
        );
        for rule in &self.rules {
            let key = rule.key();
            let _ = match &rule.rewrite {
                None => writeln!(text, "  {key}: {}", rule.need.yaml()),
                Some(words) => {
                    let need = rule.need.yaml();
                    let need = need
                        .strip_prefix("{ ")
                        .and_then(|need| need.strip_suffix(" }"))
                        .map_or_else(|| format!("access: {need}"), str::to_owned);
                    writeln!(text, "  {key}: {{ {need}, rewrite: \"/{}/{{rest**}}\" }}", words.join("/"))
                }
            };
        }
        text
    }

    /// The rule that a path has, if it is asked with `GET`.
    pub fn rule(&self, path: &[String], ignores_case: bool) -> Option<usize> {
        let mut best: Option<(usize, Vec<u8>)> = None;
        for (number, rule) in self.rules.iter().enumerate() {
            let Some(rank) = self.rank(rule, path, ignores_case) else { continue };
            if best.as_ref().is_none_or(|(_, known)| rank < *known) {
                best = Some((number, rank));
            }
        }
        // A template without the method is 405, and no broader one is asked.
        let (number, _) = best?;
        (self.rules[number].method != Some("POST")).then_some(number)
    }

    /// How well a template fits, the smaller the better; none if it does not.
    fn rank(&self, rule: &Rule, path: &[String], ignores_case: bool) -> Option<Vec<u8>> {
        let same = |word: &str, segment: &str| {
            if ignores_case { word.eq_ignore_ascii_case(segment) } else { word == segment }
        };
        let mut rest = path.iter();
        if self.strips_base && !same(BASE, rest.next()?) {
            return None;
        }
        let mut rank = Vec::with_capacity(rule.template.len() + 1);
        for piece in &rule.template {
            if *piece == Piece::Tail {
                rank.push(4);
                return Some(rank);
            }
            let segment = rest.next()?;
            rank.push(match piece {
                Piece::Word(word) if same(word, segment) => 0,
                Piece::Int if is_int(segment) => 1,
                Piece::Slug if is_slug(segment) => 2,
                Piece::Any | Piece::Named if !segment.is_empty() => 3,
                _ => return None,
            });
        }
        rank.push(0);
        rest.next().is_none().then_some(rank)
    }

    /// What the upstream's path is in terms of the policy's: the base and what was rewritten are put back. `None` if it
    /// is no longer where the rule sent it.
    pub fn back(&self, rule: usize, seen: &[String], ignores_case: bool) -> Option<Vec<String>> {
        let mut path = if self.strips_base { vec![BASE.to_owned()] } else { Vec::new() };
        let mut rest = seen;
        if let Some(words) = &self.rules[rule].rewrite {
            for word in words {
                let (first, others) = rest.split_first()?;
                let same = if ignores_case { word.eq_ignore_ascii_case(first) } else { word == first };
                if !same {
                    return None;
                }
                rest = others;
            }
            let own = self.rules[rule].template.iter();
            path.extend(
                own.filter_map(|piece| if let Piece::Word(word) = piece { Some((*word).to_owned()) } else { None }),
            );
        }
        path.extend(rest.iter().cloned());
        Some(path)
    }

    /// Whether a rule names a path's last segment, and it has a suffix.
    pub fn is_file(&self, rule: usize, path: &[String]) -> bool {
        let last = path.len().checked_sub(1 + usize::from(self.strips_base));
        let piece = last.and_then(|last| self.rules[rule].template.get(last));
        matches!(piece, Some(Piece::Word(word)) if word.contains('.'))
    }

    /// The path of the script, where a path goes on behind one that the policy names.
    pub fn script(&self, path: &[String]) -> Option<Vec<String>> {
        let base = usize::from(self.strips_base);
        let at = path.iter().position(|segment| segment.ends_with(".php"))?;
        let script = path.get(base..=at)?;
        let named = |rule: &&Rule| {
            rule.is_literal()
                && rule.template.len() == script.len()
                && rule.template.iter().zip(script).all(|(piece, name)| *piece == Piece::Word(leak(name)))
        };
        self.rules.iter().any(|rule| named(&rule)).then(|| path[..=at].to_vec())
    }

    /// A path of a rule, before anybody attacked it.
    pub fn sample(&self, dice: &mut Dice) -> String {
        let mut path = if self.strips_base { format!("/{BASE}") } else { String::new() };
        let rule = dice.pick(&self.rules);
        for piece in &rule.template {
            match piece {
                Piece::Word(word) => {
                    let _ = write!(path, "/{word}");
                }
                Piece::Int => path.push_str(dice.word(&["/7", "/42", "/x"])),
                Piece::Any | Piece::Named | Piece::Slug => {
                    let _ = write!(path, "/{}", dice.word(WORDS));
                }
                Piece::Tail => {
                    for _ in 0..dice.below(3) {
                        let _ = write!(path, "/{}", dice.word(WORDS));
                    }
                }
            }
        }
        if path.is_empty() { "/".to_owned() } else { path }
    }
}

/// One of the words, as such.
fn leak(name: &str) -> &'static str {
    WORDS.iter().find(|word| **word == name).copied().unwrap_or("")
}

fn is_int(segment: &str) -> bool {
    (1..=19).contains(&segment.len())
        && segment.bytes().all(|byte| byte.is_ascii_digit())
        && segment.parse::<i64>().is_ok()
}

fn is_slug(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Names of parameters make no difference.
fn shape(template: &[Piece]) -> Vec<Piece> {
    template.iter().map(|piece| if *piece == Piece::Any { Piece::Named } else { piece.clone() }).collect()
}

/// Often below or beside another one.
fn random_rule(known: &[Rule], dice: &mut Dice) -> Rule {
    let mut template = Vec::new();
    if !known.is_empty() && !dice.one_in(3) {
        template.clone_from(&dice.pick(known).template);
        template.retain(|piece| *piece != Piece::Tail);
        template.truncate(dice.below(4));
    }
    for _ in 0..dice.below(3) {
        template.push(match dice.below(10) {
            0 => Piece::Any,
            1 => Piece::Named,
            2 => Piece::Int,
            3 => Piece::Slug,
            _ => Piece::Word(dice.word(WORDS)),
        });
    }
    if dice.one_in(3) {
        template.push(Piece::Tail);
    }
    let method = *dice.pick(&[None, Some("GET"), None, Some("GET"), None, Some("POST")]);
    let is_plain = matches!(template.split_last(), Some((Piece::Tail, words))
        if words.iter().all(|piece| matches!(piece, Piece::Word(_))));
    let rewrite = (is_plain && dice.one_in(3)).then(|| vec!["store", dice.word(WORDS)]);
    Rule { method, template, need: Need::random(dice), rewrite }
}
