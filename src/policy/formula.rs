//! Requirements as three-valued formulas over at most 64 leaves.
//!
//! What all leaves of a route say about one request fits two masks ([`Masks`]): which leaves are known, and
//! which of them are true. A [`Node`] is evaluated on the masks by Kleene's logic, as often as needed: for the
//! decision, to find out what is missing, and, with masks from the decision log, for an explanation later.

use std::fmt;

use super::set::Place;

/// The most leaves that a route may have, its guards included.
pub const MAX_LEAVES: usize = 64;

/// True, false, or not known. Only [`Truth::True`] grants; there is no conversion to `bool`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Truth {
    /// It does not hold.
    False,
    /// It holds.
    True,
    /// An operand is missing or has the wrong type.
    Unknown,
}

impl Truth {
    /// From something that is known.
    pub fn known(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }

    /// Kleene's conjunction.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::True, Self::True) => Self::True,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
        }
    }

    /// Kleene's disjunction.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    /// Kleene's negation: not unknown is unknown.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "`!` reads like two-valued logic")]
    pub fn not(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::True => Self::False,
            Self::Unknown => Self::Unknown,
        }
    }
}

/// Which leaf of a route: the number of its bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafId(pub u8);

impl LeafId {
    /// Its bit in a mask.
    pub fn bit(self) -> u64 {
        1_u64.checked_shl(u32::from(self.0)).unwrap_or(0)
    }
}

/// What the leaves of a route say about one request. INVARIANT: no bit of `truth` is set that is not in `known`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Masks {
    known: u64,
    truth: u64,
}

impl Masks {
    /// From the two masks of a decision log.
    pub fn new(known: u64, truth: u64) -> Self {
        Self { known, truth: truth & known }
    }

    /// Records what one leaf says.
    pub fn set(&mut self, leaf: LeafId, value: Truth) {
        let bit = leaf.bit();
        self.known &= !bit;
        self.truth &= !bit;
        match value {
            Truth::False => self.known |= bit,
            Truth::True => {
                self.known |= bit;
                self.truth |= bit;
            }
            Truth::Unknown => {}
        }
    }

    /// What one leaf says.
    pub fn get(self, leaf: LeafId) -> Truth {
        let bit = leaf.bit();
        match (self.known & bit != 0, self.truth & bit != 0) {
            (true, true) => Truth::True,
            (true, false) => Truth::False,
            (false, _) => Truth::Unknown,
        }
    }

    /// The leaves that are known.
    pub fn known(self) -> u64 {
        self.known
    }

    /// The leaves that are true.
    pub fn truth(self) -> u64 {
        self.truth
    }
}

/// A requirement, or a part of one, with the name and place it has in the policy.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it says.
    pub kind: NodeKind,
    /// The name under which it was inlined, if it has one.
    pub label: Option<Label>,
    /// Where it stands.
    pub place: Place,
}

/// A formula.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// One leaf.
    Leaf(LeafId),
    /// Each must hold; of none, true.
    All(Box<[Node]>),
    /// One suffices; of none, false.
    Any(Box<[Node]>),
    /// It must not hold.
    Not(Box<Node>),
}

/// The name of a part that is defined elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// A named access.
    Access(Box<str>),
    /// A named condition.
    Condition(Box<str>),
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access(name) => f.write_str(name),
            Self::Condition(name) => write!(f, "condition {name}"),
        }
    }
}

impl Node {
    /// The value on these masks.
    pub fn value(&self, masks: Masks) -> Truth {
        self.value_if(masks, 0)
    }

    /// The best value it could have if the leaves in `forced` said whatever is best: true, or false below a
    /// `not`. This answers "would it hold with another scope, a second factor, another user?".
    pub fn value_if(&self, masks: Masks, forced: u64) -> Truth {
        self.evaluate(masks, forced, true)
    }

    fn evaluate(&self, masks: Masks, forced: u64, positive: bool) -> Truth {
        match &self.kind {
            NodeKind::Leaf(leaf) if leaf.bit() & forced != 0 => Truth::known(positive),
            NodeKind::Leaf(leaf) => masks.get(*leaf),
            NodeKind::All(members) => {
                let mut value = Truth::True;
                for member in members {
                    value = value.and(member.evaluate(masks, forced, positive));
                    if value == Truth::False {
                        break;
                    }
                }
                value
            }
            NodeKind::Any(members) => {
                let mut value = Truth::False;
                for member in members {
                    value = value.or(member.evaluate(masks, forced, positive));
                    if value == Truth::True {
                        break;
                    }
                }
                value
            }
            NodeKind::Not(member) => member.evaluate(masks, forced, !positive).not(),
        }
    }

    /// The bits of all leaves in it.
    pub fn leaves(&self) -> u64 {
        match &self.kind {
            NodeKind::Leaf(leaf) => leaf.bit(),
            NodeKind::All(members) | NodeKind::Any(members) => {
                members.iter().fold(0, |bits, member| bits | member.leaves())
            }
            NodeKind::Not(member) => member.leaves(),
        }
    }

    /// Calls `visit` on this node and all below it, in file order.
    pub fn walk<'n>(&'n self, visit: &mut impl FnMut(&'n Self)) {
        visit(self);
        match &self.kind {
            NodeKind::Leaf(_) => {}
            NodeKind::All(members) | NodeKind::Any(members) => members.iter().for_each(|member| member.walk(visit)),
            NodeKind::Not(member) => member.walk(visit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Truth::{False, True, Unknown};

    #[test]
    fn kleene_tables() {
        for (a, b, and, or) in [
            (True, True, True, True),
            (True, Unknown, Unknown, True),
            (True, False, False, True),
            (Unknown, Unknown, Unknown, Unknown),
            (Unknown, False, False, Unknown),
            (False, False, False, False),
        ] {
            assert_eq!((a.and(b), b.and(a)), (and, and), "{a:?} and {b:?}");
            assert_eq!((a.or(b), b.or(a)), (or, or), "{a:?} or {b:?}");
        }
        assert_eq!([True, Unknown, False].map(Truth::not), [False, Unknown, True]);
    }

    /// The best that forced leaves can do is true, and false below a `not`, however deep.
    #[test]
    fn what_is_forced_helps_on_both_sides_of_not() {
        let place = Place::of(&crate::diagnostic::Sources::default(), crate::diagnostic::Span::default());
        let node = |kind| Node { kind, label: None, place: place.clone() };
        let leaf = |bit| node(NodeKind::Leaf(LeafId(bit)));
        let not = |inner| node(NodeKind::Not(Box::new(inner)));
        let all = |members: Vec<Node>| node(NodeKind::All(members.into()));
        let any = |members: Vec<Node>| node(NodeKind::Any(members.into()));
        let (first, second) = (0b01, 0b10);
        for (formula, forced, best) in [
            (all(vec![leaf(0), not(leaf(1))]), first | second, True),
            (not(any(vec![leaf(0), not(leaf(1))])), first | second, True),
            (not(not(leaf(0))), first, True),
            (not(leaf(0)), first, True),
            (not(leaf(0)), 0, Unknown),
            (not(all(vec![leaf(0), leaf(1)])), second, True),
            (all(vec![not(leaf(0)), leaf(1)]), first, Unknown),
        ] {
            assert_eq!(formula.value_if(Masks::default(), forced), best, "{:?}", formula.kind);
        }
    }

    #[test]
    fn masks_keep_what_was_recorded() {
        let mut masks = Masks::default();
        for (leaf, value) in [(0, True), (1, False), (63, True), (62, Unknown), (0, False)] {
            masks.set(LeafId(leaf), value);
        }
        let values = [0, 1, 2, 62, 63].map(|leaf| masks.get(LeafId(leaf)));
        assert_eq!(values, [False, False, Unknown, Unknown, True]);
        assert_eq!((masks.known(), masks.truth()), (1 << 63 | 0b11, 1 << 63));
        assert_eq!(Masks::new(0b01, 0b11), Masks::new(0b01, 0b01));
    }
}
