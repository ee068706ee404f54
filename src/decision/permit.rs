//! What may be forwarded, and how its path is written.

use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::clock::Timestamp;
use crate::identity::Caller;
use crate::policy::formula::{Masks, Truth};
use crate::policy::set::{App, Bits, Destination, GuardId, PolicySet, Route, RouteId};
use crate::policy::template::Segment;
use crate::request::target::{CanonicalPath, Target};

use super::reason::{Denial, Reason};
use super::route::Routed;

/// An allowed request. Only [`authorize`](super::authorize::authorize()) makes one that leaves this part, and only
/// a permit is forwarded.
#[derive(Clone, Debug)]
pub struct Permit {
    pub(super) policy: Arc<PolicySet>,
    // INVARIANT: an index of `policy`.
    pub(super) route: RouteId,
    pub(super) target: Target,
    pub(super) caller: Caller,
    pub(super) masks: Masks,
    /// The guards of the route that apply to the request, by their position in the route.
    pub(super) guards: Bits,
}

/// What stays as it is in a literal of a rewritten path: unreserved characters and what RFC 3986 allows in a
/// segment, without `;`.
const LITERAL: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

impl Permit {
    /// A permit that nobody gave, to show which headers would be sent. Only for `explain`, which drops it.
    pub(super) fn supposed(routed: Routed, caller: Caller) -> Self {
        let (policy, route, target) = routed.into_parts();
        Self { policy, route, target, caller, masks: Masks::default(), guards: Bits::default() }
    }

    /// The policy set that decided.
    pub fn policy(&self) -> &Arc<PolicySet> {
        &self.policy
    }

    /// The route.
    #[expect(clippy::indexing_slicing, reason = "the index was taken from this very set")]
    pub fn route(&self) -> &Route {
        &self.policy.routes[self.route.0]
    }

    /// The route's app.
    #[expect(clippy::indexing_slicing, reason = "compile gives every route an app of its own set")]
    pub fn app(&self) -> &App {
        &self.policy.apps[self.route().app.0]
    }

    /// Who asks.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The target as it was matched.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Where the request goes.
    pub fn destination(&self) -> Destination {
        self.route().destination
    }

    /// What the leaves said.
    pub fn masks(&self) -> Masks {
        self.masks
    }

    /// When the caller's token ends.
    pub fn expires(&self) -> Option<Timestamp> {
        match &self.caller {
            Caller::Anonymous => None,
            Caller::Known(identity) => identity.expires,
        }
    }

    /// What guards in shadow mode say; those that would not have refused are in it as [`Truth::True`].
    pub fn shadow(&self) -> Vec<(GuardId, Truth)> {
        super::authorize::shadow(&self.policy, self.route(), &self.guards, self.masks)
    }

    /// The bytes of the request target to forward: those that were matched, or what `strip_base` and `rewrite`
    /// make of them. A rewritten path is judged like a request's: 500 if it is not clean.
    pub fn forwarded_target(&self) -> Result<Cow<'_, str>, Denial> {
        let path = match (&self.route().rewrite, self.app().strip_base) {
            (Some(template), _) => self.rewritten(template)?,
            (None, true) => self.without_base(),
            (None, false) => return Ok(Cow::Borrowed(self.target.forwarded())),
        };
        let clean = CanonicalPath::parse(&path)
            .ok()
            .filter(|clean| clean.as_str() == path && clean.irregular().is_subset(self.app().irregular));
        if clean.is_none() {
            return Err(self.unclean());
        }
        Ok(Cow::Owned(match self.target.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        }))
    }

    /// `X-Forwarded-Prefix`: what `strip_base` removes.
    pub fn forwarded_prefix(&self) -> Option<String> {
        let app = self.app();
        if !app.strip_base || self.route().rewrite.is_some() {
            return None;
        }
        let mut prefix = String::new();
        for segment in self.target.segments().take(app.base.len()) {
            prefix.push('/');
            prefix.push_str(segment.encoded());
        }
        (!prefix.is_empty()).then_some(prefix)
    }

    fn without_base(&self) -> String {
        let mut segments = self.target.segments();
        for _ in &self.app().base {
            segments.next();
        }
        let rest = segments.rest();
        let slash = if self.target.has_trailing_slash() && !rest.is_empty() { "/" } else { "" };
        format!("/{rest}{slash}")
    }

    fn rewritten(&self, template: &[Segment]) -> Result<String, Denial> {
        let mut path = String::new();
        for segment in template {
            match segment {
                Segment::Literal(text) => {
                    path.push('/');
                    path.extend(utf8_percent_encode(text, LITERAL));
                }
                Segment::Parameter { name, .. } => {
                    let at = self.position(name.as_deref()).ok_or_else(|| self.unclean())?;
                    let value = self.target.segments().nth(at).ok_or_else(|| self.unclean())?;
                    path.push('/');
                    path.push_str(value.encoded());
                }
                Segment::Tail { name } => {
                    let at = self.position(name.as_deref()).ok_or_else(|| self.unclean())?;
                    let mut segments = self.target.segments();
                    for _ in 0..at {
                        segments.next();
                    }
                    if !segments.rest().is_empty() {
                        path.push('/');
                        path.push_str(segments.rest());
                    }
                    if self.target.has_trailing_slash() {
                        path.push('/');
                    }
                }
            }
        }
        if path.is_empty() {
            path.push('/');
        }
        Ok(path)
    }

    /// The position of a parameter in the route's template; an unnamed tail is the route's own.
    fn position(&self, name: Option<&str>) -> Option<usize> {
        self.route().template.iter().position(|segment| match segment {
            Segment::Literal(_) => false,
            Segment::Parameter { name: own, .. } => own.is_some() && own.as_deref() == name,
            Segment::Tail { name: own } => own.as_deref() == name,
        })
    }

    fn unclean(&self) -> Denial {
        let mut denial = Denial::new(Reason::InternalServerError, "the request cannot be forwarded")
            .because("the rewritten path is not canonical");
        denial.route = Some(self.route);
        denial.app = Some(self.route().app);
        denial.masks = Some(self.masks);
        denial.caller = self.caller.clone();
        denial
    }
}
