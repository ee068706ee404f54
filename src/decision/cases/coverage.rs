//! What tests have seen: routes allowed and refused, leaves and guards with both values.

use crate::policy::document::Access;
use crate::policy::formula::{LeafId, Truth};
use crate::policy::set::{Destination, LeafKind, Place, PolicySet, Route};

use crate::decision::decide::Decision;

/// Which routes, leaves and guards were seen with which results.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// The routes of the policy, in file order.
    pub routes: Vec<RouteCoverage>,
    /// The leaves other than access words, each once for the place where it stands.
    pub leaves: Vec<LeafCoverage>,
    /// The guards, in the order of names.
    pub guards: Vec<GuardCoverage>,
}

/// A route and what was seen of it.
#[derive(Clone, Debug)]
pub struct RouteCoverage {
    /// Its key, as written.
    pub key: String,
    /// Where it stands.
    pub place: Place,
    /// How often it was allowed.
    pub allowed: usize,
    /// How often it was refused.
    pub denied: usize,
    access: Access,
}

/// A leaf and what was seen of it, by requests that carry an identity.
#[derive(Clone, Debug)]
pub struct LeafCoverage {
    /// What it asks for.
    pub text: String,
    /// Where it stands.
    pub place: Place,
    /// How often it was true.
    pub held: usize,
    /// How often it was false or unknown.
    pub failed: usize,
}

/// A guard and what was seen of it.
#[derive(Clone, Debug)]
pub struct GuardCoverage {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// How often it held.
    pub held: usize,
    /// How often it did not.
    pub failed: usize,
}

/// Something that tests have not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncovered {
    /// A route key, a leaf or a guard.
    pub what: String,
    /// What was not seen: `never requested`, `no deny test`.
    pub finding: &'static str,
    /// Where it stands.
    pub place: Place,
    /// Whether it is a route (P602).
    pub is_route: bool,
}

impl Coverage {
    /// Nothing seen yet.
    pub(super) fn of(policy: &PolicySet) -> Self {
        // What the policy itself grants; what a preset or a login brings is not the policy's to test.
        let written = |route: &&Route| !route.generated && !matches!(route.destination, Destination::Own(_));
        let routes = policy.routes.iter().filter(written).map(|route| RouteCoverage {
            key: route.written.to_string(),
            place: route.place.clone(),
            allowed: 0,
            denied: 0,
            access: route.access,
        });
        let mut leaves: Vec<LeafCoverage> = Vec::new();
        let mut known = std::collections::HashSet::new();
        for leaf in policy.routes.iter().flat_map(|route| &route.leaves) {
            if !matches!(leaf.kind, LeafKind::Access(_)) && known.insert(leaf.place.span) {
                let (text, place) = (leaf.text.to_string(), leaf.place.clone());
                leaves.push(LeafCoverage { text, place, held: 0, failed: 0 });
            }
        }
        leaves.sort_by_key(|leaf| leaf.place.span);
        let guards = policy.guards.iter().map(|guard| GuardCoverage {
            name: guard.name.to_string(),
            place: guard.place.clone(),
            held: 0,
            failed: 0,
        });
        Self { routes: routes.collect(), leaves, guards: guards.collect() }
    }

    /// Adds what one request showed.
    pub(super) fn record(&mut self, policy: &PolicySet, decision: &Decision, has_identity: bool) {
        let (id, masks, allowed) = match decision {
            Decision::Allow(allowed) => (Some(allowed.0.route().id), Some(allowed.0.masks()), true),
            Decision::Deny(denial) => (denial.route, denial.masks, false),
            Decision::Preflight => (None, None, false),
        };
        let Some(route) = id.and_then(|id| policy.route(id)) else { return };
        if let Some(seen) = self.routes.iter_mut().find(|seen| seen.place.span == route.place.span) {
            if allowed {
                seen.allowed += 1;
            } else {
                seen.denied += 1;
            }
        }
        let Some(masks) = masks else { return };
        for guard in &route.guards {
            let Some(seen) = self.guards.get_mut(guard.guard.0) else { continue };
            match guard.requirement.value(masks) {
                Truth::True => seen.held += 1,
                Truth::False | Truth::Unknown => seen.failed += 1,
            }
        }
        if !has_identity {
            return;
        }
        for (number, leaf) in (0..).zip(&route.leaves) {
            if let Some(seen) = self.leaves.iter_mut().find(|seen| seen.place.span == leaf.place.span) {
                match masks.get(LeafId(number)) {
                    Truth::True => seen.held += 1,
                    Truth::False | Truth::Unknown => seen.failed += 1,
                }
            }
        }
    }

    /// The share of routes, leaves and guards that were seen as they should, in percent.
    pub fn percent(&self) -> usize {
        let all = self.routes.len() + self.leaves.len() + self.guards.len();
        let covered = self.covered_routes() + self.covered_leaves() + self.covered_guards();
        (covered * 100).checked_div(all).unwrap_or(100)
    }

    /// How many routes were seen allowed and refused; public ones need to be seen allowed alone.
    pub fn covered_routes(&self) -> usize {
        self.routes.iter().filter(|route| route.finding().is_none()).count()
    }

    /// How many leaves were seen true, and false or unknown.
    pub fn covered_leaves(&self) -> usize {
        self.leaves.iter().filter(|leaf| leaf.held > 0 && leaf.failed > 0).count()
    }

    /// How many guards were seen to hold and not to hold.
    pub fn covered_guards(&self) -> usize {
        self.guards.iter().filter(|guard| guard.held > 0 && guard.failed > 0).count()
    }

    /// What is left to test: routes, then leaves of routes that were requested, then guards.
    pub fn findings(&self) -> Vec<Uncovered> {
        let routes = self.routes.iter().filter_map(|route| {
            let (what, place) = (route.key.clone(), route.place.clone());
            Some(Uncovered { what, finding: route.finding()?, place, is_route: true })
        });
        let seen = |held: usize, failed: usize| match (held, failed) {
            (0, 0) => None,
            (0, _) => Some("never true"),
            (_, 0) => Some("never false"),
            _ => None,
        };
        let leaves = self.leaves.iter().filter_map(|leaf| {
            let (what, place) = (format!("leaf `{}`", leaf.text), leaf.place.clone());
            Some(Uncovered { what, finding: seen(leaf.held, leaf.failed)?, place, is_route: false })
        });
        let guards = self.guards.iter().filter_map(|guard| {
            let (what, place) = (format!("guard {}", guard.name), guard.place.clone());
            let finding =
                if guard.held + guard.failed == 0 { Some("never applied") } else { seen(guard.held, guard.failed) };
            Some(Uncovered { what, finding: finding?, place, is_route: false })
        });
        routes.chain(leaves).chain(guards).collect()
    }
}

impl RouteCoverage {
    fn finding(&self) -> Option<&'static str> {
        match (self.allowed, self.denied, self.access) {
            (0, 0, _) => Some("never requested"),
            (0, _, Access::Deny | Access::Todo) => None,
            (0, ..) => Some("no allow test"),
            (_, 0, Access::Authenticated) => Some("no deny test"),
            _ => None,
        }
    }
}
