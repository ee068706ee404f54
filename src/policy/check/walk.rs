//! Going through requirements and conditions, as they are written and through their names.

use std::collections::HashSet;

use crate::diagnostic::{Span, Spanned};
use crate::policy::document::{
    Access, AccessRef, Clause, Comparison, Condition, Definition, Document, FragmentId, Guard, Issuer, Names as Listed,
    Operand, Reference, Requirement, Route,
};

use super::findings::Owner;
use super::names::Names;

/// Where a requirement or a condition is written.
#[derive(Clone, Copy)]
pub(super) enum Site<'d> {
    Route(&'d Route),
    Guard(&'d Definition<Guard>),
    Access(&'d Definition<Requirement>),
    Condition(&'d Definition<Condition>),
    /// The `mfa` condition of an issuer.
    Issuer(&'d Definition<Issuer>),
    /// `login.introspect`.
    Login(FragmentId),
}

impl<'d> Site<'d> {
    pub(super) fn owner(self) -> Owner<'d> {
        match self {
            Self::Route(route) => route.into(),
            Self::Guard(guard) => guard.into(),
            Self::Access(access) => access.into(),
            Self::Condition(condition) => condition.into(),
            Self::Issuer(issuer) => issuer.into(),
            Self::Login(fragment) => Owner::of_fragment(fragment),
        }
    }
}

/// One thing within a requirement.
#[derive(Clone, Copy)]
pub(super) enum Part<'d> {
    /// An access word.
    Word(&'d Spanned<Access>),
    /// The name of a requirement.
    Access {
        name: &'d Spanned<String>,
        /// It stands inside `any`, `all` or `not`.
        nested: bool,
    },
    /// An authorising key; what is inside it follows.
    Clause(&'d Clause),
    /// The name of a condition.
    Condition(&'d Spanned<String>),
    /// A comparison.
    Comparison(&'d Comparison),
}

/// Visits everything that is written, names not followed.
pub(super) fn written<'d>(document: &'d Document, visit: &mut dyn FnMut(Site<'d>, Part<'d>)) {
    for route in &document.routes {
        requirement(&route.requirement, false, &mut |part| visit(Site::Route(route), part));
    }
    for guard in &document.guards {
        requirement(&guard.value.require, false, &mut |part| visit(Site::Guard(guard), part));
    }
    for access in &document.access {
        requirement(&access.value, false, &mut |part| visit(Site::Access(access), part));
    }
    for definition in &document.conditions {
        condition(&definition.value, &mut |part| visit(Site::Condition(definition), part));
    }
    for issuer in &document.issuers {
        if let Some(mfa) = &issuer.value.mfa {
            condition(mfa, &mut |part| visit(Site::Issuer(issuer), part));
        }
    }
    for app in &document.apps {
        for (fragment, header) in &app.headers {
            if let Some(asked) = header.login.as_ref().and_then(|login| login.value.introspect.as_ref()) {
                requirement(asked, false, &mut |part| visit(Site::Login(*fragment), part));
            }
        }
    }
}

/// The parts of a requirement, names not followed.
pub(super) fn requirement<'d>(asked: &'d Requirement, nested: bool, visit: &mut dyn FnMut(Part<'d>)) {
    match asked {
        Requirement::Word(word) => visit(Part::Word(word)),
        Requirement::Named(name) => visit(Part::Access { name, nested }),
        Requirement::Object(object) => {
            match &object.access {
                None => {}
                Some(AccessRef::Word(word)) => visit(Part::Word(word)),
                Some(AccessRef::Named(name)) => visit(Part::Access { name, nested }),
            }
            for clause in &object.clauses {
                visit(Part::Clause(clause));
                match clause {
                    Clause::Any(members, _) | Clause::All(members, _) => {
                        members.iter().for_each(|member| requirement(member, true, visit));
                    }
                    Clause::Not(member, _) => requirement(member, true, visit),
                    Clause::Where(asked) => condition(asked, visit),
                    Clause::Scope(_)
                    | Clause::Role(_)
                    | Clause::Permission(_)
                    | Clause::Issuer(_)
                    | Clause::Mfa(_)
                    | Clause::MaxAge(_) => {}
                }
            }
        }
    }
}

/// The parts of a condition, names not followed.
pub(super) fn condition<'d>(asked: &'d Condition, visit: &mut dyn FnMut(Part<'d>)) {
    match asked {
        Condition::Comparison(comparison) => visit(Part::Comparison(comparison)),
        Condition::Named(name) => visit(Part::Condition(name)),
        Condition::All(members, _) => members.iter().for_each(|member| condition(member, visit)),
    }
}

/// A leaf of a requirement, with names followed.
#[derive(Clone, Copy)]
pub(super) enum Leaf<'d> {
    Scope(&'d Listed),
    Role(&'d Listed),
    Permission(&'d Listed),
    Issuer(&'d Listed),
    Mfa(Span),
    MaxAge(Span),
    Comparison(&'d Comparison),
}

impl Leaf<'_> {
    /// Where it is written.
    pub(super) fn span(self) -> Span {
        match self {
            Self::Scope(names) | Self::Role(names) | Self::Permission(names) | Self::Issuer(names) => names.span,
            Self::Mfa(span) | Self::MaxAge(span) => span,
            Self::Comparison(comparison) => comparison.text.span,
        }
    }

    /// Whether it reads something about the user.
    pub(super) fn is_about_the_user(self) -> bool {
        match self {
            Self::Comparison(comparison) => {
                references(comparison).any(|reference| matches!(reference, Reference::User(_) | Reference::Token(_)))
            }
            _ => true,
        }
    }
}

/// Both sides of a comparison, where they are references.
pub(super) fn references(comparison: &Comparison) -> impl Iterator<Item = &Reference> {
    let right = match &comparison.right {
        Operand::Reference(reference) => Some(reference),
        _ => None,
    };
    std::iter::once(&comparison.left).chain(right)
}

/// Visits the leaves of a requirement, names followed. The trail holds the names on the way, outermost
/// first. Every named requirement or condition is entered once, so that the work is bounded by what is written.
pub(super) fn leaves<'d>(
    names: &Names<'d>,
    asked: &'d Requirement,
    visit: &mut dyn FnMut(Leaf<'d>, &[&'d Spanned<String>]),
) {
    Follow { names, visit, trail: Vec::new(), entered: HashSet::new() }.requirement(asked);
}

struct Follow<'d, 'v> {
    names: &'v Names<'d>,
    visit: &'v mut dyn FnMut(Leaf<'d>, &[&'d Spanned<String>]),
    trail: Vec<&'d Spanned<String>>,
    entered: HashSet<(bool, &'d str)>,
}

impl<'d> Follow<'d, '_> {
    fn leaf(&mut self, leaf: Leaf<'d>) {
        if self.names.budget.spend(2) {
            (self.visit)(leaf, &self.trail);
        }
    }

    fn enter(&mut self, is_condition: bool, name: &'d Spanned<String>, inside: impl FnOnce(&mut Self)) {
        let key = (is_condition, name.value.as_str());
        let deep = self.trail.len() > super::cycles::DEPTH;
        if deep || !self.names.budget.spend(2) || !self.entered.insert(key) {
            return;
        }
        self.trail.push(name);
        inside(self);
        self.trail.pop();
    }

    fn named(&mut self, name: &'d Spanned<String>) {
        if let Some(definition) = self.names.access.get(&name.value) {
            self.enter(false, name, |this| this.requirement(&definition.value));
        }
    }

    fn requirement(&mut self, asked: &'d Requirement) {
        match asked {
            Requirement::Word(_) => {}
            Requirement::Named(name) => self.named(name),
            Requirement::Object(object) => {
                if let Some(AccessRef::Named(name)) = &object.access {
                    self.named(name);
                }
                object.clauses.iter().for_each(|clause| self.clause(clause));
            }
        }
    }

    fn clause(&mut self, clause: &'d Clause) {
        match clause {
            Clause::Scope(names) => self.leaf(Leaf::Scope(names)),
            Clause::Role(names) => self.leaf(Leaf::Role(names)),
            Clause::Permission(names) => self.leaf(Leaf::Permission(names)),
            Clause::Issuer(names) => self.leaf(Leaf::Issuer(names)),
            Clause::Mfa(span) => self.leaf(Leaf::Mfa(*span)),
            Clause::MaxAge(age) => self.leaf(Leaf::MaxAge(age.span)),
            Clause::Where(asked) => self.condition(asked),
            Clause::Any(members, _) | Clause::All(members, _) => {
                members.iter().for_each(|member| self.requirement(member))
            }
            Clause::Not(member, _) => self.requirement(member),
        }
    }

    fn condition(&mut self, asked: &'d Condition) {
        match asked {
            Condition::Comparison(comparison) => self.leaf(Leaf::Comparison(comparison)),
            Condition::Named(name) => {
                if let Some(definition) = self.names.conditions.get(&name.value) {
                    self.enter(true, name, |this| this.condition(&definition.value));
                }
            }
            Condition::All(members, _) => members.iter().for_each(|member| self.condition(member)),
        }
    }
}
