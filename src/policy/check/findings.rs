//! Findings with what may suppress them.

use crate::diagnostic::Diagnostic;

use crate::policy::document::{Definition, Document, FragmentId, Route, Suppression};

/// Something that a suppression can stand on: an object with its own `allow`, within a document with another.
#[derive(Clone, Copy)]
pub(super) struct Owner<'d> {
    pub(super) allow: &'d [Suppression],
    pub(super) fragment: FragmentId,
    /// Nobody wrote it.
    pub(super) generated: bool,
}

impl Owner<'_> {
    /// Only the document.
    pub(super) fn of_fragment(fragment: FragmentId) -> Self {
        Self { allow: &[], fragment, generated: false }
    }
}

impl<'d, T> From<&'d Definition<T>> for Owner<'d> {
    fn from(definition: &'d Definition<T>) -> Self {
        Self { allow: &definition.allow, fragment: definition.fragment, generated: false }
    }
}

impl<'d> From<&'d Route> for Owner<'d> {
    fn from(route: &'d Route) -> Self {
        Self { allow: &route.allow, fragment: route.fragment, generated: route.generated }
    }
}

/// The findings of a run.
#[derive(Default)]
pub(super) struct Findings<'d> {
    found: Vec<(Diagnostic, Vec<Owner<'d>>)>,
}

impl<'d> Findings<'d> {
    /// Adds a finding about one thing.
    pub(super) fn about(&mut self, owner: impl Into<Owner<'d>>, diagnostic: Diagnostic) {
        self.found.push((diagnostic, vec![owner.into()]));
    }

    /// Adds a finding about several things; a suppression on any of them counts.
    pub(super) fn between(&mut self, owners: Vec<Owner<'d>>, diagnostic: Diagnostic) {
        self.found.push((diagnostic, owners));
    }

    /// All of them, each with its owners.
    pub(super) fn into_inner(self) -> Vec<(Diagnostic, Vec<Owner<'d>>)> {
        self.found
    }
}

/// Every suppression of the set.
pub(super) fn suppressions(document: &Document) -> impl Iterator<Item = &Suppression> {
    fn of<T>(definitions: &[Definition<T>]) -> impl Iterator<Item = &Suppression> {
        definitions.iter().flat_map(|definition| &definition.allow)
    }
    (document.fragments.iter().flat_map(|fragment| &fragment.allow))
        .chain(of(&document.issuers))
        .chain(of(&document.scopes))
        .chain(of(&document.permissions))
        .chain(of(&document.roles))
        .chain(of(&document.sets))
        .chain(of(&document.conditions))
        .chain(of(&document.access))
        .chain(of(&document.limits))
        .chain(of(&document.guards))
        .chain(of(&document.identities))
        .chain(document.routes.iter().flat_map(|route| &route.allow))
}
