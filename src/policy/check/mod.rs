//! Every finding about a policy set that reading its text does not raise.
//!
//! A [`Document`] goes in; all findings come out in one run, sorted by file and position, and, if none of them is
//! an error, the document as a [`Checked`], which is what `compile` takes. Each check is a file: its opening
//! comment is the documentation of its codes.
//!
//! Nothing here resolves `env:` or `file:` references, runs the policy's tests or decides a request.

mod budget;
mod describe;
mod findings;
mod formula;
mod names;
mod paths;
mod table;
mod walk;

mod anonymous_users;
mod app_header;
mod client_controlled;
mod cors;
mod cycles;
mod defined_twice;
mod folded_spelling;
mod header_names;
mod impossible;
mod issuer_settings;
mod leaf_budget;
mod missing_parameter;
mod nobody_signs;
mod optional_claims;
mod overlapping_types;
mod own_paths;
mod partial_overlap;
mod public_facts;
mod public_write;
mod redundant;
mod refused_methods;
mod same_route;
mod similar_scopes;
mod superuser_role;
mod suppressions;
mod test_names;
mod todo_left;
mod total_not;
mod ungranted_permission;
mod unknown_names;
mod unmatched_guard;
mod unreachable_route;
mod unused;
mod user_metadata;
mod waived;
mod weak_keys;
mod weaker_hole;

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, Sources};

use super::checked::Checked;
use super::document::{Document, FragmentId};
use findings::{Findings, Owner};
use names::Names;
use table::Table;

/// What the surroundings ask of a check.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `check --strict`: `todo` is an error.
    pub strict: bool,
    /// The names of the environment variables that are set, where they are known. `serve` knows them, a check
    /// in CI does not; what depends on them (P411) is left open then.
    pub environment: Option<BTreeSet<String>>,
}

/// Runs every check. The document comes out again as [`Checked`] if it was read without errors
/// ([`Document::damage`]) and no check found one.
pub fn check(document: Document, sources: &Sources, options: &Options) -> (Option<Checked>, Vec<Diagnostic>) {
    let found = findings(&document, sources, options);
    let broken = document.damage.broken || found.iter().any(Diagnostic::is_error);
    ((!broken).then(|| Checked::danger_assert(document)), found)
}

/// What every check reads.
struct Context<'d> {
    document: &'d Document,
    sources: &'d Sources,
    options: &'d Options,
    names: Names<'d>,
}

fn findings(document: &Document, sources: &Sources, options: &Options) -> Vec<Diagnostic> {
    let context = Context { document, sources, options, names: Names::of(document) };
    let mut found = Findings::default();

    // Of names.
    for run in [
        defined_twice::run,
        unknown_names::run,
        cycles::run,
        app_header::run,
        public_facts::run,
        missing_parameter::run,
        total_not::run,
        impossible::run,
        user_metadata::run,
        weak_keys::run,
        waived::run,
        client_controlled::run,
        optional_claims::run,
        nobody_signs::run,
        issuer_settings::run,
        unused::run,
        ungranted_permission::run,
        todo_left::run,
        similar_scopes::run,
        cors::run,
        header_names::run,
        test_names::run,
    ] {
        run(&context, &mut found);
    }

    // Of routes beside each other: these need the tries and formulas.
    let mut table = Table::of(&context);
    for run in [same_route::run, overlapping_types::run, own_paths::run, unmatched_guard::run, unreachable_route::run] {
        run(&context, &table, &mut found);
    }
    for run in [
        leaf_budget::run,
        anonymous_users::run,
        superuser_role::run,
        public_write::run,
        redundant::run,
        partial_overlap::run,
        refused_methods::run,
        weaker_hole::run,
        folded_spelling::run,
    ] {
        run(&context, &mut table, &mut found);
    }

    if let Some(diagnostic) = context.names.budget.report() {
        found.about(Owner::of_fragment(FragmentId(0)), diagnostic);
    }
    suppressions::finish(&context, found)
}
