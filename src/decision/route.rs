//! Which route a request has: host, then the most specific template, then the method.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use smallvec::SmallVec;

use crate::policy::document::Access;
use crate::policy::set::{App, Cors, Methods, PolicySet, Route, RouteId};
use crate::request::RequestError;
use crate::request::head::RequestHead;
use crate::request::host::Host;
use crate::request::method;
use crate::request::target::Target;

use super::reason::{Denial, Reason};

/// The segments of a path, percent-decoded.
pub(super) type Decoded<'t> = SmallVec<[Cow<'t, str>; 16]>;

/// A request with its route. Made by [`route`] alone.
#[derive(Clone, Debug)]
pub struct Routed {
    policy: Arc<PolicySet>,
    // INVARIANT: `route` took it from this very set.
    route: RouteId,
    target: Target,
}

impl Routed {
    /// The policy set that all later steps use.
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

    /// The request target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Whether a credential is looked at: not on `public`, `deny` and `todo`.
    pub fn needs_credential(&self) -> bool {
        self.route().needs_credential()
    }

    /// Whether a credential may be absent.
    pub fn is_optional(&self) -> bool {
        self.route().access == Access::Optional
    }

    /// A refusal that names this route.
    #[must_use]
    pub fn refuse(&self, mut denial: Denial) -> Denial {
        denial.route = Some(self.route);
        denial.app = Some(self.route().app);
        denial
    }

    pub(super) fn into_parts(self) -> (Arc<PolicySet>, RouteId, Target) {
        (self.policy, self.route, self.target)
    }
}

/// Chooses the route of a request, or says why it has none: 404, 405, or 400 for a form of the target that the
/// app does not allow.
pub fn route(
    policy: &Arc<PolicySet>,
    target: Target,
    host: &Host<'_>,
    head: &RequestHead<'_>,
) -> Result<Routed, Denial> {
    let methods = find(policy, &target, host);
    if method::is_refused(head.method) {
        return Err(method_not_allowed(policy, methods));
    }
    let Some(id) = methods.and_then(|methods| methods.find(head.method)) else {
        // The app is known only after routing: an irregular target without a route is refused as such.
        target.irregular().admit(crate::request::target::Irregular::NONE).map_err(RequestError::from)?;
        return Err(match methods {
            Some(_) => method_not_allowed(policy, methods),
            None => not_found(policy),
        });
    };
    let routed = Routed { policy: Arc::clone(policy), route: id, target };
    let allowed = routed.app().irregular;
    routed.target.irregular().admit(allowed).map_err(|error| routed.refuse(RequestError::from(error).into()))?;
    Ok(routed)
}

/// What the most specific template of a request's path answers.
pub(super) fn find<'p>(policy: &'p PolicySet, target: &Target, host: &Host<'_>) -> Option<&'p Methods> {
    let segments: Decoded<'_> = target.segments().map(|segment| segment.decoded()).collect();
    policy.hosts.table(host.as_str()).find(target.path(), &segments)
}

fn not_found(policy: &PolicySet) -> Denial {
    let reason = if policy.unmatched == 403 { Reason::AccessDenied } else { Reason::NotFound };
    Denial::new(reason, "nothing is served here").because("no_route")
}

fn method_not_allowed(policy: &PolicySet, methods: Option<&Methods>) -> Denial {
    let mut denial = Denial::new(Reason::MethodNotAllowed, "this path does not serve the method");
    if let Some(methods) = methods {
        denial.allow = methods.allow();
        denial.app = methods.routes().next().and_then(|id| policy.route(id)).map(|route| route.app);
    }
    denial
}

/// A CORS preflight that the gateway answers.
#[derive(Clone, Debug)]
pub struct Preflight<'p> {
    /// The app whose settings apply.
    pub app: &'p App,
    /// Its settings.
    pub cors: &'p Cors,
    /// The methods of the requested path.
    pub methods: Vec<Method>,
}

/// Whether the gateway answers the request itself, as a CORS preflight: the template does not name `OPTIONS`, and
/// the app has `cors`. Everything else is an ordinary request.
pub fn preflight<'p>(
    policy: &'p PolicySet,
    target: &Target,
    host: &Host<'_>,
    head: &RequestHead<'_>,
) -> Option<Preflight<'p>> {
    if !head.is_preflight() {
        return None;
    }
    let methods = find(policy, target, host)?;
    if methods.named.iter().any(|(method, _)| *method == Method::OPTIONS) {
        return None;
    }
    let requested = head.header("access-control-request-method").one().and_then(|method| methods.find(method));
    let route = policy.route(requested.or_else(|| methods.routes().next())?)?;
    let app = policy.app(route.app)?;
    let cors = app.cors.as_ref()?;
    target.irregular().is_subset(app.irregular).then(|| Preflight { app, cors, methods: methods.allow() })
}
