//! Requirements as formulas, to find out whether one grants what another refuses.
//!
//! Names are resolved, parameters are named by their position in the path, and equal parts are one: two requirements
//! that mean the same letter by letter have the same [`FormulaId`]. What cannot be at the same time (two issuers) and
//! what follows from something else (`role: editor` from `role: admin`, which includes it) is known here, so
//! that the comparison is exact.

use std::collections::HashMap;
use std::time::Duration;

use crate::diagnostic::Spanned;
use crate::identity::scope::Hierarchy;
use crate::policy::document::{
    Access, AccessRef, Clause, Comparison, Condition, Join, Names as Listed, Operand, Operator, Reference, Requirement,
};
use crate::policy::template::Segment;

use super::budget::Budget;
use super::cycles::DEPTH;
use super::names::Names;

/// A formula in [`Formulas`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FormulaId(u32);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Shape {
    Leaf(u32),
    All(Box<[FormulaId]>),
    Any(Box<[FormulaId]>),
    Not(FormulaId),
}

/// What a leaf asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Atom<'d> {
    /// A valid identity.
    Authenticated,
    Scope(&'d str),
    Role(&'d str),
    Permission(&'d str),
    Issuer(&'d str),
    Mfa,
    MaxAge(Duration),
    Comparison {
        left: String,
        operator: Operator,
        right: String,
        about_the_user: bool,
    },
    /// A name that is not defined (P102), or a cycle (P104).
    Unknown(&'d str),
}

/// All formulas of a set.
pub(super) struct Formulas<'d> {
    shapes: Vec<Shape>,
    ids: HashMap<Shape, FormulaId>,
    atoms: Vec<Atom<'d>>,
    atom_ids: HashMap<Atom<'d>, u32>,
    positions: HashMap<Vec<(&'d str, String)>, usize>,
    named: HashMap<(bool, &'d str, usize), FormulaId>,
    leaves: HashMap<FormulaId, std::rc::Rc<[u32]>>,
    implied: HashMap<(FormulaId, FormulaId), bool>,
    closures: HashMap<&'d str, Vec<&'d str>>,
    hierarchy: Hierarchy,
    budget: Budget,
}

/// The parameters of a path, by position.
pub(super) struct Positions<'d> {
    id: usize,
    names: Vec<(&'d str, String)>,
}

impl<'d> Formulas<'d> {
    pub(super) const TRUE: FormulaId = FormulaId(0);
    pub(super) const FALSE: FormulaId = FormulaId(1);

    pub(super) fn new(hierarchy: Hierarchy, budget: Budget) -> Self {
        let constants = [Shape::All(Box::default()), Shape::Any(Box::default())];
        Self {
            ids: constants.iter().cloned().zip([Self::TRUE, Self::FALSE]).collect(),
            shapes: constants.into(),
            atoms: Vec::new(),
            atom_ids: HashMap::new(),
            positions: HashMap::new(),
            named: HashMap::new(),
            leaves: HashMap::new(),
            implied: HashMap::new(),
            closures: HashMap::new(),
            hierarchy,
            budget,
        }
    }

    /// The parameters of a template.
    pub(super) fn positions(&mut self, segments: impl IntoIterator<Item = &'d Segment>) -> Positions<'d> {
        let names: Vec<(&str, String)> = (segments.into_iter().enumerate())
            .filter_map(|(at, segment)| match segment {
                Segment::Parameter { name: Some(name), .. } => Some((name.as_str(), format!("path[{at}]"))),
                Segment::Tail { name: Some(name) } => Some((name.as_str(), format!("path[{at}..]"))),
                _ => None,
            })
            .collect();
        let next = self.positions.len();
        let id = *self.positions.entry(names.clone()).or_insert(next);
        Positions { id, names }
    }

    // === From requirements ===

    /// What a route grants to: its access and everything it asks for.
    pub(super) fn of_route(&mut self, names: &Names<'d>, asked: &'d Requirement, at: &Positions<'d>) -> FormulaId {
        match names.access_of(asked) {
            Access::Deny | Access::Todo => Self::FALSE,
            Access::Public | Access::Optional => self.body(names, asked, at, 0),
            Access::Authenticated => {
                let identity = self.atom(Atom::Authenticated);
                let body = self.body(names, asked, at, 0);
                self.all(vec![identity, body])
            }
        }
    }

    /// What a guard asks for.
    pub(super) fn of_guard(&mut self, names: &Names<'d>, asked: &'d Requirement, at: &Positions<'d>) -> FormulaId {
        self.body(names, asked, at, 0)
    }

    fn body(&mut self, names: &Names<'d>, asked: &'d Requirement, at: &Positions<'d>, depth: usize) -> FormulaId {
        match asked {
            Requirement::Word(_) => Self::TRUE,
            Requirement::Named(name) => self.access(names, name, at, depth),
            Requirement::Object(object) => {
                let mut members = Vec::new();
                if let Some(AccessRef::Named(name)) = &object.access {
                    members.push(self.access(names, name, at, depth));
                }
                for clause in &object.clauses {
                    members.push(self.clause(names, clause, at, depth));
                }
                self.all(members)
            }
        }
    }

    fn access(&mut self, names: &Names<'d>, name: &'d Spanned<String>, at: &Positions<'d>, depth: usize) -> FormulaId {
        let key = (false, name.value.as_str(), at.id);
        if let Some(known) = self.named.get(&key) {
            return *known;
        }
        let formula = match names.access.get(&name.value) {
            Some(definition) if depth <= DEPTH && self.budget.spend(2) => {
                self.body(names, &definition.value, at, depth + 1)
            }
            _ => self.atom(Atom::Unknown(&name.value)),
        };
        self.named.insert(key, formula);
        formula
    }

    fn clause(&mut self, names: &Names<'d>, clause: &'d Clause, at: &Positions<'d>, depth: usize) -> FormulaId {
        match clause {
            Clause::Scope(listed) => self.listed(listed, Atom::Scope),
            Clause::Role(listed) => self.listed(listed, Atom::Role),
            Clause::Permission(listed) => self.listed(listed, Atom::Permission),
            Clause::Issuer(listed) => self.listed(listed, Atom::Issuer),
            Clause::Where(asked) => self.condition(names, asked, at, depth),
            Clause::Mfa(_) => self.atom(Atom::Mfa),
            Clause::MaxAge(age) => self.atom(Atom::MaxAge(age.value)),
            Clause::Any(members, _) => {
                let members = members.iter().map(|member| self.body(names, member, at, depth)).collect();
                self.any(members)
            }
            Clause::All(members, _) => {
                let members = members.iter().map(|member| self.body(names, member, at, depth)).collect();
                self.all(members)
            }
            Clause::Not(member, _) => {
                let member = self.body(names, member, at, depth);
                self.intern(Shape::Not(member))
            }
        }
    }

    fn listed(&mut self, listed: &'d Listed, atom: impl Fn(&'d str) -> Atom<'d>) -> FormulaId {
        let members = listed.names.iter().map(|name| self.atom(atom(&name.value))).collect();
        match listed.join {
            Join::Any => self.any(members),
            Join::All => self.all(members),
        }
    }

    fn condition(&mut self, names: &Names<'d>, asked: &'d Condition, at: &Positions<'d>, depth: usize) -> FormulaId {
        match asked {
            Condition::Comparison(comparison) => self.comparison(comparison, at),
            Condition::All(members, _) => {
                let members = members.iter().map(|member| self.condition(names, member, at, depth)).collect();
                self.all(members)
            }
            Condition::Named(name) => {
                let key = (true, name.value.as_str(), at.id);
                if let Some(known) = self.named.get(&key) {
                    return *known;
                }
                let formula = match names.conditions.get(&name.value) {
                    Some(definition) if depth <= DEPTH && self.budget.spend(2) => {
                        self.condition(names, &definition.value, at, depth + 1)
                    }
                    _ => self.atom(Atom::Unknown(&name.value)),
                };
                self.named.insert(key, formula);
                formula
            }
        }
    }

    fn comparison(&mut self, comparison: &'d Comparison, at: &Positions<'d>) -> FormulaId {
        let reference = |reference: &Reference| match reference {
            Reference::Path(name) => match at.names.iter().find(|(known, _)| known == name) {
                Some((_, position)) => position.clone(),
                None => format!("path.{name}"),
            },
            other => format!("{other:?}"),
        };
        let right = match &comparison.right {
            Operand::Reference(other) => reference(other),
            other => format!("{other:?}"),
        };
        let about_the_user = super::walk::Leaf::Comparison(comparison).is_about_the_user();
        self.atom(Atom::Comparison {
            left: reference(&comparison.left),
            operator: comparison.operator,
            right,
            about_the_user,
        })
    }

    // === Making formulas ===

    fn atom(&mut self, atom: Atom<'d>) -> FormulaId {
        let leaf = match self.atom_ids.get(&atom) {
            Some(leaf) => *leaf,
            None => {
                let leaf = u32::try_from(self.atoms.len()).unwrap_or(u32::MAX);
                self.atoms.push(atom.clone());
                self.atom_ids.insert(atom, leaf);
                leaf
            }
        };
        self.intern(Shape::Leaf(leaf))
    }

    /// All of them; of none, true.
    pub(super) fn all(&mut self, members: Vec<FormulaId>) -> FormulaId {
        self.joined(members, true)
    }

    fn any(&mut self, members: Vec<FormulaId>) -> FormulaId {
        self.joined(members, false)
    }

    fn joined(&mut self, members: Vec<FormulaId>, all: bool) -> FormulaId {
        let (neutral, absorbing) = if all { (Self::TRUE, Self::FALSE) } else { (Self::FALSE, Self::TRUE) };
        let mut flat = Vec::with_capacity(members.len());
        for member in members {
            match self.shapes.get(member.0 as usize) {
                Some(Shape::All(inner)) if all => flat.extend_from_slice(inner),
                Some(Shape::Any(inner)) if !all => flat.extend_from_slice(inner),
                _ => flat.push(member),
            }
        }
        if flat.contains(&absorbing) {
            return absorbing;
        }
        flat.retain(|member| *member != neutral);
        flat.sort_unstable();
        flat.dedup();
        match flat.as_slice() {
            [] => neutral,
            [one] => *one,
            _ if all => self.intern(Shape::All(flat.into())),
            _ => self.intern(Shape::Any(flat.into())),
        }
    }

    fn intern(&mut self, shape: Shape) -> FormulaId {
        if !self.budget.spend(3) {
            return Self::FALSE;
        }
        if let Some(known) = self.ids.get(&shape) {
            return *known;
        }
        // INVARIANT: members come before what they are members of.
        let id = FormulaId(u32::try_from(self.shapes.len()).unwrap_or(u32::MAX));
        self.shapes.push(shape.clone());
        self.ids.insert(shape, id);
        id
    }

    // === Reading formulas ===

    /// The leaves of a formula, each once.
    pub(super) fn leaves(&mut self, formula: FormulaId) -> std::rc::Rc<[u32]> {
        if let Some(known) = self.leaves.get(&formula) {
            return known.clone();
        }
        let mut leaves: Vec<u32> = (self.below(&[formula]).into_iter())
            .filter_map(|id| match self.shapes.get(id.0 as usize) {
                Some(Shape::Leaf(leaf)) => Some(*leaf),
                _ => None,
            })
            .collect();
        leaves.sort_unstable();
        let leaves: std::rc::Rc<[u32]> = leaves.into();
        self.leaves.insert(formula, leaves.clone());
        leaves
    }

    /// These formulas and all their parts, parts first.
    fn below(&self, formulas: &[FormulaId]) -> Vec<FormulaId> {
        let mut open = formulas.to_vec();
        let mut found = std::collections::BTreeSet::new();
        while let Some(id) = open.pop() {
            if self.budget.spend(5) && found.insert(id) {
                match self.shapes.get(id.0 as usize) {
                    Some(Shape::All(members) | Shape::Any(members)) => open.extend_from_slice(members),
                    Some(Shape::Not(member)) => open.push(*member),
                    Some(Shape::Leaf(_)) | None => {}
                }
            }
        }
        found.into_iter().collect()
    }

    /// Whether the formula holds for somebody of whom each leaf says what `holds` says.
    pub(super) fn holds(&self, formula: FormulaId, holds: impl Fn(&Atom<'d>) -> bool) -> bool {
        let program = Program::of(self, &[formula]);
        let values = program.values(|leaf| self.atoms.get(leaf as usize).map(&holds));
        program.value(&values, formula) == Some(true)
    }

    /// Whether whoever passes `one` also passes `other`. Exact; if the search takes too long, the answer is no.
    pub(super) fn implies(&mut self, names: &Names<'d>, one: FormulaId, other: FormulaId) -> bool {
        if one == other || one == Self::FALSE || other == Self::TRUE {
            return true;
        }
        if let Some(known) = self.implied.get(&(one, other)) {
            return *known;
        }
        let implied = match (self.shapes.get(one.0 as usize).cloned(), self.shapes.get(other.0 as usize).cloned()) {
            (_, Some(Shape::All(members))) => members.iter().all(|member| self.implies(names, one, *member)),
            (Some(Shape::Any(members)), _) => members.iter().all(|member| self.implies(names, *member, other)),
            _ => self.search(names, one, other),
        };
        self.implied.insert((one, other), implied);
        implied
    }

    /// Whether both let the same callers pass.
    pub(super) fn same(&mut self, names: &Names<'d>, one: FormulaId, other: FormulaId) -> bool {
        self.implies(names, one, other) && self.implies(names, other, one)
    }

    fn search(&mut self, names: &Names<'d>, one: FormulaId, other: FormulaId) -> bool {
        let mut leaves: Vec<u32> = self.leaves(one).iter().chain(self.leaves(other).iter()).copied().collect();
        leaves.sort_unstable();
        leaves.dedup();
        if leaves.len() > 128 {
            return false;
        }
        let atoms: Vec<Atom<'d>> = leaves.iter().filter_map(|leaf| self.atoms.get(*leaf as usize).cloned()).collect();
        let mut relations = vec![Relations::default(); atoms.len()];
        for (at, (atom, relation)) in atoms.iter().zip(&mut relations).enumerate() {
            for (bit, with) in atoms.iter().enumerate().filter(|(bit, _)| *bit != at) {
                if self.follows(names, atom, with) {
                    relation.implied |= 1 << bit;
                }
                if excludes(atom, with) {
                    relation.excluded |= 1 << bit;
                }
            }
        }
        let program = Program::of(self, &[one, other]);
        let mut search = Search { program, leaves, relations, one, other, tries: 20_000, budget: &self.budget };
        !search.finds(0, 0)
    }

    /// Whether `other` holds for whoever `atom` holds for.
    fn follows(&mut self, names: &Names<'d>, atom: &Atom<'d>, other: &Atom<'d>) -> bool {
        match (atom, other) {
            (
                Atom::Comparison { about_the_user: false, .. } | Atom::Unknown(_) | Atom::Authenticated,
                Atom::Authenticated,
            ) => false,
            (_, Atom::Authenticated) => {
                !matches!(atom, Atom::Comparison { operator: Operator::Is | Operator::IsNot, .. })
            }
            (Atom::Role(role), Atom::Role(included)) => {
                let closure = self.closures.entry(role).or_insert_with(|| names.closure(role));
                closure.contains(included)
            }
            (Atom::Role(role), Atom::Permission(permission)) => names.role_grants(role, permission),
            (Atom::Scope(asked), Atom::Scope(implied)) => {
                // A token passes `items` with the scope `items`, which satisfies `items:read` too.
                let rest = implied.strip_prefix(asked).unwrap_or_default();
                match self.hierarchy {
                    Hierarchy::Colon => rest.starts_with(':'),
                    Hierarchy::Dot => rest.starts_with('.'),
                    Hierarchy::None => false,
                }
            }
            (Atom::MaxAge(age), Atom::MaxAge(longer)) => age <= longer,
            (
                Atom::Comparison { left, operator, right, .. },
                Atom::Comparison { left: other_left, operator: other, right: other_right, .. },
            ) => {
                let pair = matches!(
                    (operator, other),
                    (Operator::Equal, Operator::Is)
                        | (Operator::Is, Operator::Equal)
                        | (Operator::NotEqual, Operator::IsNot)
                );
                left == other_left && right == other_right && pair
            }
            _ => false,
        }
    }
}

/// Whether the two cannot hold for one request.
fn excludes(atom: &Atom<'_>, other: &Atom<'_>) -> bool {
    match (atom, other) {
        (Atom::Issuer(one), Atom::Issuer(another)) => one != another,
        (
            Atom::Comparison { left, operator, right, .. },
            Atom::Comparison { left: other_left, operator: other, right: other_right, .. },
        ) if left == other_left => {
            let is = |operator: &Operator| matches!(operator, Operator::Equal | Operator::Is);
            let is_not = |operator: &Operator| matches!(operator, Operator::NotEqual | Operator::IsNot);
            let constant = |right: &str| !right.starts_with("path[") && is_literal(right);
            if right == other_right {
                (is(operator) && is_not(other)) || (is_not(operator) && is(other))
            } else {
                is(operator) && is(other) && constant(right) && constant(other_right)
            }
        }
        _ => false,
    }
}

/// Whether the text is that of a literal operand, as its `Debug` form shows it.
fn is_literal(right: &str) -> bool {
    ["String(", "Integer(", "Bool(", "Time(", "Duration("].iter().any(|kind| right.starts_with(kind))
}

/// Formulas laid out for evaluation: parts first, members by their place.
struct Program {
    ids: Vec<FormulaId>,
    parts: Vec<Part>,
}

enum Part {
    Leaf(u32),
    All(Vec<usize>),
    Any(Vec<usize>),
    Not(usize),
}

impl Program {
    fn of(formulas: &Formulas<'_>, roots: &[FormulaId]) -> Self {
        let ids = formulas.below(roots);
        let place = |id: &FormulaId| ids.binary_search(id).unwrap_or(usize::MAX);
        let parts = (ids.iter())
            .map(|id| match formulas.shapes.get(id.0 as usize) {
                Some(Shape::Leaf(leaf)) => Part::Leaf(*leaf),
                Some(Shape::All(members)) => Part::All(members.iter().map(place).collect()),
                Some(Shape::Any(members)) => Part::Any(members.iter().map(place).collect()),
                Some(Shape::Not(member)) => Part::Not(place(member)),
                None => Part::Any(Vec::new()),
            })
            .collect();
        Self { ids, parts }
    }

    fn values(&self, leaf: impl Fn(u32) -> Option<bool>) -> Vec<Option<bool>> {
        let mut values: Vec<Option<bool>> = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let value = match part {
                Part::Leaf(number) => leaf(*number),
                Part::Not(member) => values.get(*member).copied().flatten().map(|value| !value),
                Part::All(members) => joined(members, &values, false),
                Part::Any(members) => joined(members, &values, true),
            };
            values.push(value);
        }
        values
    }

    fn value(&self, values: &[Option<bool>], id: FormulaId) -> Option<bool> {
        values.get(self.ids.binary_search(&id).ok()?).copied().flatten()
    }
}

fn joined(members: &[usize], values: &[Option<bool>], absorbing: bool) -> Option<bool> {
    let mut all_known = true;
    for member in members {
        match values.get(*member).copied().flatten() {
            Some(value) if value == absorbing => return Some(absorbing),
            Some(_) => {}
            None => all_known = false,
        }
    }
    all_known.then_some(!absorbing)
}

#[derive(Clone, Default)]
struct Relations {
    implied: u128,
    excluded: u128,
}

/// Looks for somebody who passes `one` and not `other`.
struct Search<'s> {
    program: Program,
    leaves: Vec<u32>,
    relations: Vec<Relations>,
    one: FormulaId,
    other: FormulaId,
    tries: u32,
    budget: &'s Budget,
}

impl Search<'_> {
    /// `yes` and `no`: what is settled of the leaves. When it takes too long, the answer is yes.
    fn finds(&mut self, yes: u128, no: u128) -> bool {
        let Some(tries) = self.tries.checked_sub(1).filter(|_| self.budget.spend(self.program.parts.len())) else {
            return true;
        };
        self.tries = tries;
        let values = self.program.values(|leaf| {
            let bit = 1_u128 << self.leaves.binary_search(&leaf).ok()?;
            (yes & bit != 0).then_some(true).or_else(|| (no & bit != 0).then_some(false))
        });
        match (self.program.value(&values, self.one), self.program.value(&values, self.other)) {
            (Some(false), _) | (_, Some(true)) => return false,
            (Some(true), Some(false)) => return true,
            _ => {}
        }
        let Some(next) = (0..self.leaves.len()).find(|bit| (yes | no) & (1 << bit) == 0) else { return false };
        let (with, without) = self.set_true(next, yes, no);
        if with & without == 0 && self.finds(with, without) {
            return true;
        }
        let (with, without) = self.set_false(next, yes, no);
        with & without == 0 && self.finds(with, without)
    }

    fn set_true(&self, leaf: usize, yes: u128, no: u128) -> (u128, u128) {
        let relation = self.relations.get(leaf).cloned().unwrap_or_default();
        let mut with = yes | 1 << leaf | relation.implied;
        let mut without = no | relation.excluded;
        // What is implied excludes and implies in turn.
        for (bit, relation) in self.relations.iter().enumerate() {
            if with & (1 << bit) != 0 {
                with |= relation.implied;
                without |= relation.excluded;
            }
        }
        (with, without)
    }

    fn set_false(&self, leaf: usize, yes: u128, no: u128) -> (u128, u128) {
        let mut without = no | 1 << leaf;
        for (bit, relation) in self.relations.iter().enumerate() {
            if relation.implied & (1 << leaf) != 0 {
                without |= 1 << bit;
            }
        }
        (yes, without)
    }
}

#[cfg(test)]
mod tests {
    use crate::diagnostic::Sources;
    use crate::policy::document::Document;

    use super::*;

    const SET: &str = r#"
version: 1
roles:
  editor: [edit]
  admin: { includes: editor, can: "*" }
conditions: { own: path.id == user.id }
access: { staff: { role: editor } }
routes:
  GET /a0: authenticated
  GET /a1: optional
  GET /a2: deny
  GET /a3: { role: admin }
  GET /a4: staff
  GET /a5: { permission: edit }
  GET /a6: { scope: items }
  GET /a7: { scope: items:read }
  GET /a8: { any: [ staff, { scope: items:read } ] }
  GET /a9: { all: [ { scope: items }, { role: admin } ] }
  GET /{id}: { where: own }
  GET /{user}: { where: path.user == user.id, mfa: true }
  GET /b/{id}: { where: own }
  GET /a13: { where: user.tenant == "a" }
  GET /a14: { not: { where: user.tenant is "a" } }
  GET /a15: { max_age: 5m }
  GET /a16: { max_age: 10m }
  GET /a17: { all: [ { issuer: one }, { issuer: two } ] }
"#;

    fn formulas<'d>(document: &'d Document, names: &Names<'d>) -> (Formulas<'d>, Vec<FormulaId>) {
        let mut formulas = Formulas::new(Hierarchy::Colon, Budget::default());
        let of = |formulas: &mut Formulas<'d>, route: &'d crate::policy::document::Route| {
            let at = formulas.positions(&route.template.segments);
            formulas.of_route(names, &route.requirement, &at)
        };
        let ids = document.routes.iter().map(|route| of(&mut formulas, route)).collect();
        (formulas, ids)
    }

    #[test]
    fn who_passes_one_passes_the_other() {
        let mut sources = Sources::default();
        sources.add("a.yaml", SET);
        let (document, found) = crate::policy::read(&sources);
        assert_eq!(found, []);
        let names = Names::of(&document);
        let (mut formulas, ids) = formulas(&document, &names);
        for (one, other, expected) in [
            (3, 0, true),  // admin → a login
            (0, 1, true),  // a login → everybody
            (1, 0, false), // and not the other way round
            (2, 3, true),  // nobody → admin
            (3, 4, true),  // admin → editor, which it includes
            (4, 3, false),
            (4, 5, true), // editor → edit, which it can
            (3, 5, true),
            (5, 4, false),
            (6, 7, true), // items → items:read
            (7, 6, false),
            (4, 8, true),
            (7, 8, true),
            (8, 4, false),
            (9, 8, true),
            (9, 6, true),
            (11, 10, true), // one position, whatever the name
            (10, 11, false),
            (12, 10, false), // another position
            (13, 14, false),
            (15, 16, true),
            (16, 15, false),
            (17, 2, true), // two issuers at once: nobody
        ] {
            assert_eq!(formulas.implies(&names, ids[one], ids[other]), expected, "{one} implies {other}");
        }
    }
}
