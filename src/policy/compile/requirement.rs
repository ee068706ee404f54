//! Requirements and conditions as formulas over the leaves of one route.

use http::HeaderName;

use crate::diagnostic::{Code, Diagnostic, Span, Spanned};
use crate::identity::IssuerName;
use crate::identity::claims::ClaimPath;
use crate::policy::document::{
    self, Access, AccessRef, Clause, Join, Names, Operand as Written, Reference, Requirement, RequirementObject,
};
use crate::policy::formula::{Label, LeafId, MAX_LEAVES, Node, NodeKind};
use crate::policy::set::{Comparison, Leaf, LeafKind, Operand, Parameter};
use crate::policy::template::{Kind, Segment};

use super::{Builder, unknown};

/// Named access and conditions may name each other this deep; more is a cycle (P104).
const MAX_DEPTH: usize = 32;

/// The most parts that all requirements of a set may have, names followed: some 200 MiB.
const MAX_PARTS: usize = 2_000_000;

/// The leaves of a route while they are collected.
#[derive(Default)]
pub(super) struct Leaves {
    pub(super) leaves: Vec<Leaf>,
    /// How many there are in truth.
    pub(super) wanted: usize,
}

/// The parameters of a template.
pub(super) fn parameters(template: &[Segment]) -> Vec<Parameter> {
    template
        .iter()
        .enumerate()
        .filter_map(|(position, segment)| match segment {
            Segment::Literal(_) => None,
            Segment::Parameter { name, kind } => {
                Some(Parameter { name: name.as_deref()?.into(), position, kind: *kind, tail: false })
            }
            Segment::Tail { name } => {
                Some(Parameter { name: name.as_deref()?.into(), position, kind: Kind::Any, tail: true })
            }
        })
        .collect()
}

impl Builder<'_> {
    /// The access word of a route, and where it stands: stated at the top, or at the top of the named access that
    /// is its whole value; `authenticated` if nowhere.
    pub(super) fn access_word(&self, requirement: &Requirement, key: Span) -> (Access, Span) {
        let mut current = requirement;
        for _ in 0..MAX_DEPTH {
            let name = match current {
                Requirement::Word(word) => return (word.value, word.span),
                Requirement::Named(name) => name,
                Requirement::Object(RequirementObject { access: Some(AccessRef::Word(word)), .. }) => {
                    return (word.value, word.span);
                }
                Requirement::Object(RequirementObject { access: Some(AccessRef::Named(name)), .. }) => name,
                Requirement::Object(RequirementObject { access: None, .. }) => break,
            };
            match self.access.get(name.value.as_str()) {
                Some(definition) => current = &definition.value,
                None => break,
            }
        }
        (Access::Authenticated, key)
    }

    /// The formula of a route: the access word, then everything else.
    pub(super) fn route_requirement(
        &mut self,
        requirement: &Requirement,
        key: Span,
        parameters: &[Parameter],
        leaves: &mut Leaves,
    ) -> (Access, Node) {
        let (access, span) = self.access_word(requirement, key);
        let word = self.leaf(LeafKind::Access(access), access.as_str(), span, leaves);
        let rest = self.requirement(requirement, parameters, leaves, 0);
        let place = self.place(requirement.span());
        let node = match rest {
            None => word,
            Some(rest) => Node { kind: NodeKind::All([word, rest].into()), label: None, place },
        };
        (access, node)
    }

    /// A requirement without its access word; `None` if nothing is left.
    pub(super) fn requirement(
        &mut self,
        requirement: &Requirement,
        parameters: &[Parameter],
        leaves: &mut Leaves,
        depth: usize,
    ) -> Option<Node> {
        if self.is_too_much(1, requirement.span()) {
            return Some(Node { kind: NodeKind::Any([].into()), label: None, place: self.place(requirement.span()) });
        }
        match requirement {
            Requirement::Word(_) => None,
            Requirement::Named(name) => self.named_access(name, parameters, leaves, depth),
            Requirement::Object(object) => {
                let mut members = Vec::new();
                if let Some(AccessRef::Named(name)) = &object.access {
                    members.extend(self.named_access(name, parameters, leaves, depth));
                }
                for clause in &object.clauses {
                    members.extend(self.clause(clause, parameters, leaves, depth));
                }
                self.all(members, object.span)
            }
        }
    }

    /// Names refer to names, and each doubling doubles what one line stands for. Past `MAX_PARTS` the set does not load.
    fn is_too_much(&mut self, parts: usize, span: Span) -> bool {
        let before = self.parts;
        self.parts = before.saturating_add(parts);
        if before <= MAX_PARTS && self.parts > MAX_PARTS {
            let message = format!("the requirements have more than {MAX_PARTS} parts when all names are followed");
            self.problem(Code::P006, span, message);
        }
        self.parts > MAX_PARTS
    }

    /// One node for several; `None` for none.
    fn all(&self, mut members: Vec<Node>, span: Span) -> Option<Node> {
        match members.len() {
            0 => None,
            1 => members.pop(),
            _ => Some(Node { kind: NodeKind::All(members.into()), label: None, place: self.place(span) }),
        }
    }

    fn named_access(
        &mut self,
        name: &Spanned<String>,
        parameters: &[Parameter],
        leaves: &mut Leaves,
        depth: usize,
    ) -> Option<Node> {
        let Some(definition) = self.access.get(name.value.as_str()).copied() else {
            self.problems.push(unknown("access", &name.value, name.span));
            return None;
        };
        if depth >= MAX_DEPTH {
            self.problem(Code::P104, name.span, format!("access `{}` names itself", name.value));
            return None;
        }
        let node = self.requirement(&definition.value, parameters, leaves, depth + 1)?;
        let place = self.place(definition.name.span);
        let label = Some(Label::Access(name.value.as_str().into()));
        // A second name keeps the first one's node apart.
        let kind = if node.label.is_some() { NodeKind::All([node].into()) } else { node.kind };
        Some(Node { kind, label, place })
    }

    fn clause(&mut self, clause: &Clause, parameters: &[Parameter], leaves: &mut Leaves, depth: usize) -> Option<Node> {
        match clause {
            Clause::Scope(names) => self.names(names, leaves, |_, name| {
                Ok((LeafKind::Scope(name.value.as_str().into()), format!("scope {}", name.value)))
            }),
            Clause::Role(names) => self.names(names, leaves, |builder, name| {
                let role = builder.policy.roles.id(&name.value).ok_or("role")?;
                Ok((LeafKind::Role(role), format!("role {}", name.value)))
            }),
            Clause::Permission(names) => self.names(names, leaves, |builder, name| {
                let permitting = builder.policy.roles.permitting(&name.value);
                Ok((LeafKind::Permission(name.value.as_str().into(), permitting), format!("permission {}", name.value)))
            }),
            Clause::Issuer(names) => self.names(names, leaves, |builder, name| {
                let issuer = IssuerName::new(&name.value);
                builder.policy.issuer(&issuer).ok_or("issuer")?;
                Ok((LeafKind::Issuer(issuer), format!("issuer {}", name.value)))
            }),
            Clause::Where(condition) => self.condition(condition, parameters, leaves, depth),
            Clause::Mfa(span) => Some(self.leaf(LeafKind::Mfa, "mfa", *span, leaves)),
            Clause::MaxAge(age) => {
                let text = format!("max_age {}", duration_text(age.value));
                Some(self.leaf(LeafKind::MaxAge(age.value), &text, age.span, leaves))
            }
            Clause::Any(members, span) | Clause::All(members, span) => {
                let nodes = members
                    .iter()
                    // A member that asks for nothing would grant everything in `any`; `check` refuses it (P303).
                    .map(|member| match self.requirement(member, parameters, leaves, depth) {
                        Some(node) => node,
                        None => {
                            self.problem(Code::P303, member.span(), "access is stated at the top of a route only");
                            Node { kind: NodeKind::Any([].into()), label: None, place: self.place(member.span()) }
                        }
                    })
                    .collect();
                let kind = if matches!(clause, Clause::Any(..)) { NodeKind::Any(nodes) } else { NodeKind::All(nodes) };
                Some(Node { kind, label: None, place: self.place(*span) })
            }
            Clause::Not(member, span) => {
                let Some(node) = self.requirement(member, parameters, leaves, depth) else {
                    self.problem(Code::P303, member.span(), "access is stated at the top of a route only");
                    return None;
                };
                Some(Node { kind: NodeKind::Not(Box::new(node)), label: None, place: self.place(*span) })
            }
        }
    }

    fn names(
        &mut self,
        names: &Names,
        leaves: &mut Leaves,
        kind: impl Fn(&Self, &Spanned<String>) -> Result<(LeafKind, String), &'static str>,
    ) -> Option<Node> {
        let mut nodes = Vec::new();
        self.is_too_much(names.names.len(), names.span);
        for name in &names.names {
            match kind(self, name) {
                Ok((kind, text)) => nodes.push(self.leaf(kind, &text, name.span, leaves)),
                Err(what) => self.problems.push(unknown(what, &name.value, name.span)),
            }
        }
        if nodes.len() < 2 {
            return nodes.pop();
        }
        let kind = match names.join {
            Join::Any => NodeKind::Any(nodes.into()),
            Join::All => NodeKind::All(nodes.into()),
        };
        Some(Node { kind, label: None, place: self.place(names.span) })
    }

    fn condition(
        &mut self,
        condition: &document::Condition,
        parameters: &[Parameter],
        leaves: &mut Leaves,
        depth: usize,
    ) -> Option<Node> {
        match condition {
            document::Condition::Comparison(comparison) => {
                self.is_too_much(1, comparison.text.span);
                let compiled = self.comparison(comparison, parameters)?;
                let text = comparison.text.value.split_whitespace().collect::<Vec<_>>().join(" ");
                Some(self.leaf(LeafKind::Comparison(compiled), &text, comparison.text.span, leaves))
            }
            document::Condition::Named(name) => {
                let Some(definition) = self.conditions.get(name.value.as_str()).copied() else {
                    self.problems.push(unknown("condition", &name.value, name.span));
                    return None;
                };
                if depth >= MAX_DEPTH {
                    self.problem(Code::P104, name.span, format!("condition `{}` names itself", name.value));
                    return None;
                }
                let node = self.condition(&definition.value, parameters, leaves, depth + 1)?;
                if let NodeKind::Leaf(id) = &node.kind
                    && let Some(leaf) = leaves.leaves.get_mut(usize::from(id.0))
                {
                    leaf.condition.get_or_insert_with(|| name.value.as_str().into());
                }
                let place = self.place(definition.name.span);
                Some(Node { kind: node.kind, label: Some(Label::Condition(name.value.as_str().into())), place })
            }
            document::Condition::All(members, span) => {
                let nodes =
                    members.iter().filter_map(|member| self.condition(member, parameters, leaves, depth)).collect();
                self.all(nodes, *span)
            }
        }
    }

    /// A comparison with its names resolved.
    pub(super) fn comparison(
        &mut self,
        comparison: &document::Comparison,
        parameters: &[Parameter],
    ) -> Option<Comparison> {
        let left = self.reference(&comparison.left, comparison.left_span, parameters)?;
        let right = match &comparison.right {
            Written::String(text) => Operand::String(text.as_str().into()),
            Written::Integer(value) => Operand::Integer(*value),
            Written::Float(value) => Operand::Float(*value),
            Written::Bool(value) => Operand::Bool(*value),
            Written::Time(minutes) => Operand::Time(*minutes),
            Written::Duration(duration) => Operand::Duration(*duration),
            Written::Reference(reference) => self.reference(reference, comparison.right_span, parameters)?,
            Written::Set(name) => match self.named_sets.get(name.as_str()) {
                Some(set) => Operand::Set(*set),
                None => {
                    self.problems.push(unknown("set", name, comparison.right_span));
                    return None;
                }
            },
            Written::Present => Operand::Present,
            Written::Missing => Operand::Missing,
        };
        Some(Comparison { left, operator: comparison.operator, right })
    }

    /// A reference with its name resolved.
    pub(super) fn reference(&mut self, reference: &Reference, span: Span, parameters: &[Parameter]) -> Option<Operand> {
        Some(match reference {
            Reference::Path(name) => match parameters.iter().find(|parameter| *parameter.name == **name) {
                Some(parameter) => Operand::Path(parameter.clone()),
                None => {
                    let message = format!("there is no parameter `{name}` in the path");
                    self.problems.push(Diagnostic::new(Code::P306, message, span, "read here"));
                    return None;
                }
            },
            Reference::User(fact) => Operand::User(*fact),
            Reference::Token(segments) => match claim_path(segments) {
                Some(path) => Operand::Token(path),
                None => {
                    self.problem(Code::P106, span, "this is not the path of a claim");
                    return None;
                }
            },
            Reference::ClientIp => Operand::ClientIp,
            Reference::ClientCountry => Operand::ClientCountry,
            Reference::Header(name) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => Operand::Header(name),
                Err(_) => {
                    self.problem(Code::P106, span, format!("`{name}` is not a header name"));
                    return None;
                }
            },
            Reference::Query(name) => Operand::Query(name.as_str().into()),
            Reference::RequestMethod => Operand::RequestMethod,
            Reference::RequestHost => Operand::RequestHost,
            Reference::RequestTime => Operand::RequestTime,
            Reference::RequestWeekday => Operand::RequestWeekday,
            Reference::Env(name) => Operand::Env(self.env(name)),
        })
    }

    /// A node for a leaf; equal leaves share a bit.
    fn leaf(&self, kind: LeafKind, text: &str, span: Span, leaves: &mut Leaves) -> Node {
        let place = self.place(span);
        let known = leaves.leaves.iter().position(|leaf| leaf.kind == kind);
        let number = known.unwrap_or_else(|| {
            leaves.wanted += 1;
            if leaves.leaves.len() < MAX_LEAVES {
                leaves.leaves.push(Leaf { kind, text: text.into(), condition: None, place: place.clone() });
            }
            leaves.leaves.len() - 1
        });
        // At most 63; more leaves than bits is P309, and the set does not load.
        let id = LeafId(u8::try_from(number).unwrap_or(63));
        Node { kind: NodeKind::Leaf(id), label: None, place }
    }
}

/// A claim path from its segments, whatever characters they have.
fn claim_path(segments: &[String]) -> Option<ClaimPath> {
    let plain = |segment: &str| segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if let [name] = segments {
        return Some(ClaimPath::name(name));
    }
    let parts: Vec<String> = segments
        .iter()
        .map(|segment| if plain(segment) { segment.clone() } else { format!("\"{segment}\"") })
        .collect();
    ClaimPath::parse(&parts.join(".")).ok()
}

/// A duration as policies write it.
pub(super) fn duration_text(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    let (number, unit) = match seconds {
        0 => (0, "s"),
        _ if seconds.is_multiple_of(86400) => (seconds / 86400, "d"),
        _ if seconds.is_multiple_of(3600) => (seconds / 3600, "h"),
        _ if seconds.is_multiple_of(60) => (seconds / 60, "m"),
        _ => (seconds, "s"),
    };
    format!("{number}{unit}")
}
