//! P309
//!
//! # What it does
//! Reports routes with more than 64 different leaves, those of all guards included whose paths intersect theirs.
//!
//! # Why it matters
//! A decision is written down in two masks of 64 bits; this is what makes every decision explicable at no cost.
//! And nobody can review a rule with 65 parts.
//!
//! # Example
//! A route whose `any` lists 70 user ids.
//!
//! # Instead
//! A set (`where: user.id in testers`), a role, or two routes.

use crate::diagnostic::{Code, Diagnostic};
use crate::policy::document::Access;
use crate::policy::formula::MAX_LEAVES;

use super::Context;
use super::findings::Findings;
use super::table::Table;

pub(super) fn run<'d>(_: &Context<'d>, table: &mut Table<'d>, found: &mut Findings<'d>) {
    for view in &table.routes {
        let mut leaves: Vec<u32> = table.formulas.leaves(view.formula).to_vec();
        let own = leaves.len();
        for (index, _) in &view.guards {
            let Some(guard) = table.guards.get(*index) else { continue };
            if view.access == Access::Public && guard.guard.value.include_public.is_none() {
                continue;
            }
            for formula in &guard.formulas {
                leaves.extend_from_slice(&table.formulas.leaves(*formula));
            }
        }
        if leaves.len() <= MAX_LEAVES {
            continue;
        }
        leaves.sort_unstable();
        leaves.dedup();
        if leaves.len() > MAX_LEAVES {
            let message = format!("{} leaves, more than {MAX_LEAVES}", leaves.len());
            let diagnostic = Diagnostic::new(
                Code::P309,
                message,
                view.route.key.span,
                format!("{own} of its own, the others of guards"),
            )
            .help("values belong into a set: `where: user.id in NAME`");
            found.about(view.route, diagnostic);
        }
    }
}
