//! What leaves read: facts about the request and its caller, with three values.
//!
//! A fact is read only when a leaf asks for it, and what several leaves ask for is computed once.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value as Json;
use smallvec::SmallVec;

use crate::clock::Timestamp;
use crate::identity::{Caller, Fact, Identity};
use crate::policy::document::{Preset, UserFact};
use crate::policy::set::{Bits, Issuer, Operand, Parameter, PolicySet, Route, permits};
use crate::policy::template::Kind;
use crate::request::forwarded::ClientAddr;
use crate::request::head::{Lookup, RequestHead};
use crate::request::host::Host;
use crate::request::target::Target;

use super::route::Decoded;

/// What leaves may read of the request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'r> {
    /// The head as received.
    pub head: &'r RequestHead<'r>,
    /// The effective host.
    pub host: &'r Host<'r>,
    /// The client's address, after trusted proxies.
    pub client: ClientAddr,
    /// The client's country, if a trusted proxy says so.
    pub country: Option<&'r str>,
}

/// Where `env.NAME` comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Environment {
    /// From the values that were resolved at load.
    #[default]
    Resolved,
    /// The text `test:NAME`: for the policy's own tests, which need no secret.
    Test,
}

/// A value that a comparison reads.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    /// Absent, or JSON `null`.
    Missing,
    /// Several values, or a list of the wrong type: unknown even to `is`.
    Unclear,
    /// Present, and of a type that nothing can be compared with.
    Other,
    /// A string; a path parameter of type `int` has a number too.
    Text(Cow<'a, str>, Option<i64>),
    /// A secret: compared in constant time, never shown.
    Secret(Cow<'a, str>),
    Bool(bool),
    Integer(i64),
    Float(f64),
    Address(IpAddr),
    /// Minutes since midnight.
    Time(u16),
    Duration(Duration),
    /// A JSON list.
    List(&'a [Json]),
    /// A list of names.
    Names(SmallVec<[&'a str; 8]>),
}

impl<'a> Value<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text), None)
    }

    pub(super) fn json(value: Option<&'a Json>) -> Self {
        match value {
            None | Some(Json::Null) => Self::Missing,
            Some(Json::Bool(value)) => Self::Bool(*value),
            Some(Json::Number(number)) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => Self::Integer(integer),
                (None, Some(float)) => Self::Float(float),
                (None, None) => Self::Other,
            },
            Some(Json::String(text)) => Self::text(text),
            Some(Json::Array(items)) => Self::List(items),
            Some(Json::Object(_)) => Self::Other,
        }
    }
}

/// Everything that the leaves of one request may read.
pub(super) struct Facts<'a> {
    pub(super) policy: &'a PolicySet,
    pub(super) route: &'a Route,
    pub(super) target: &'a Target,
    pub(super) request: &'a RequestFacts<'a>,
    pub(super) caller: &'a Caller,
    pub(super) now: Timestamp,
    pub(super) environment: Environment,
    segments: OnceCell<Decoded<'a>>,
    closure: OnceCell<Fact<Bits>>,
    issuer: OnceCell<Option<&'a Issuer>>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(
        policy: &'a PolicySet,
        route: &'a Route,
        target: &'a Target,
        request: &'a RequestFacts<'a>,
        caller: &'a Caller,
        now: Timestamp,
        environment: Environment,
    ) -> Self {
        Self {
            policy,
            route,
            target,
            request,
            caller,
            now,
            environment,
            segments: OnceCell::new(),
            closure: OnceCell::new(),
            issuer: OnceCell::new(),
        }
    }

    pub(super) fn identity(&self) -> Option<&'a Identity> {
        match self.caller {
            Caller::Anonymous => None,
            Caller::Known(identity) => Some(identity),
        }
    }

    /// The decoded segments of the path.
    pub(super) fn segments(&self) -> &Decoded<'a> {
        self.segments.get_or_init(|| self.target.segments().map(|segment| segment.decoded()).collect())
    }

    /// The caller's issuer in this policy set.
    pub(super) fn issuer(&self) -> Option<&'a Issuer> {
        *self.issuer.get_or_init(|| self.policy.issuer(&self.identity()?.issuer))
    }

    /// The caller's roles and all that they include.
    pub(super) fn closure(&self) -> &Fact<Bits> {
        self.closure.get_or_init(|| match self.identity().map(|identity| &identity.roles) {
            None => Fact::Missing,
            Some(Fact::Missing) => Fact::Known(Bits::default()),
            Some(Fact::WrongType) => Fact::WrongType,
            Some(Fact::Known(names)) => Fact::Known(self.policy.roles.closure(names.iter().map(|name| &**name))),
        })
    }

    /// Whether the caller has a permission, of which `permitting` are the roles: unknown if roles or permissions
    /// have the wrong type, missing without a caller.
    pub(super) fn has_permission(&self, permission: &str, permitting: &Bits) -> Fact<bool> {
        let (Some(identity), closure) = (self.identity(), self.closure()) else { return Fact::Missing };
        let claimed = match &identity.permissions {
            Fact::Missing => false,
            Fact::WrongType => return Fact::WrongType,
            Fact::Known(patterns) => patterns.iter().any(|pattern| permits(pattern, permission)),
        };
        match closure {
            Fact::Missing => Fact::Missing,
            Fact::WrongType => Fact::WrongType,
            Fact::Known(roles) => Fact::Known(claimed || roles.intersects(permitting)),
        }
    }

    /// How long ago the caller authenticated. A time that is still to come (clocks may differ by the issuer's leeway)
    /// says nothing: it must not count as fresh.
    pub(super) fn auth_age(&self) -> Fact<Duration> {
        let Some(identity) = self.identity() else { return Fact::Missing };
        match identity.auth_time {
            Fact::Missing => Fact::Missing,
            Fact::WrongType => Fact::WrongType,
            Fact::Known(time) if time > self.now.plus(self.policy.verifier.leeway(&identity.issuer)) => Fact::WrongType,
            Fact::Known(time) => Fact::Known(self.now.since(time)),
        }
    }

    /// The value of a reference or literal. Sets have none: `in` looks into them.
    pub(super) fn read(&self, operand: &'a Operand) -> Value<'a> {
        match operand {
            Operand::Path(parameter) => self.parameter(parameter),
            Operand::User(fact) => self.user(*fact),
            Operand::Token(path) => {
                let Some(identity) = self.identity() else { return Value::Missing };
                let value = path.get(&identity.claims);
                // Supabase writes `""` for an address that a user has not.
                let is_empty = value.and_then(Json::as_str) == Some("");
                if is_empty
                    && matches!(path.as_str(), "email" | "phone")
                    && self.issuer().is_some_and(|issuer| issuer.preset == Preset::Supabase)
                {
                    return Value::Missing;
                }
                Value::json(value)
            }
            Operand::ClientIp => Value::Address(self.request.client.ip()),
            Operand::ClientCountry => self.request.country.map_or(Value::Missing, Value::text),
            // A client's copy of an identity header says nothing.
            Operand::Header(name) if self.policy.strip.contains(name.as_str()) => Value::Missing,
            Operand::Header(name) => match self.request.head.header(name.as_str()) {
                Lookup::Missing => Value::Missing,
                Lookup::One(value) => Value::text(value),
                Lookup::Unclear => Value::Unclear,
            },
            Operand::Query(name) => match self.target.query_value(name) {
                Lookup::Missing => Value::Missing,
                Lookup::One(value) => Value::Text(value, None),
                Lookup::Unclear => Value::Unclear,
            },
            Operand::RequestMethod => Value::text(self.request.head.method),
            Operand::RequestHost => Value::text(self.request.host.as_str()),
            Operand::RequestTime => self.local_time().map_or(Value::Missing, |time| {
                let minutes = i32::from(time.hour()) * 60 + i32::from(time.minute());
                u16::try_from(minutes).map_or(Value::Missing, Value::Time)
            }),
            Operand::RequestWeekday => self.local_time().map_or(Value::Missing, |time| {
                Value::text(match time.weekday() {
                    jiff::civil::Weekday::Monday => "mon",
                    jiff::civil::Weekday::Tuesday => "tue",
                    jiff::civil::Weekday::Wednesday => "wed",
                    jiff::civil::Weekday::Thursday => "thu",
                    jiff::civil::Weekday::Friday => "fri",
                    jiff::civil::Weekday::Saturday => "sat",
                    jiff::civil::Weekday::Sunday => "sun",
                })
            }),
            Operand::Env(id) => match (self.policy.environment.get(id.0), self.environment) {
                (None, _) => Value::Missing,
                (Some(env), Environment::Test) => Value::Secret(Cow::Owned(format!("test:{}", env.name))),
                (Some(env), Environment::Resolved) => {
                    env.value.as_ref().map_or(Value::Missing, |value| Value::Secret(Cow::Borrowed(value.expose())))
                }
            },
            Operand::Transport => {
                self.identity().map_or(Value::Missing, |identity| Value::text(identity.transport.as_str()))
            }
            Operand::String(text) => Value::text(text),
            Operand::Integer(value) => Value::Integer(*value),
            Operand::Float(value) => Value::Float(*value),
            Operand::Bool(value) => Value::Bool(*value),
            Operand::Time(minutes) => Value::Time(*minutes),
            Operand::Duration(duration) => Value::Duration(*duration),
            Operand::Set(_) | Operand::Present | Operand::Missing => Value::Other,
        }
    }

    fn parameter(&self, parameter: &Parameter) -> Value<'a> {
        if parameter.tail {
            let rest: Vec<Cow<'a, str>> =
                self.target.segments().skip(parameter.position).map(|segment| segment.decoded()).collect();
            return Value::Text(Cow::Owned(rest.join("/")), None);
        }
        let Some(segment) = self.target.segments().nth(parameter.position) else { return Value::Missing };
        let text = segment.decoded();
        let number = if parameter.kind == Kind::Int { text.parse().ok() } else { None };
        Value::Text(text, number)
    }

    fn user(&self, fact: UserFact) -> Value<'a> {
        let Some(identity) = self.identity() else { return Value::Missing };
        let text = |fact: &'a Fact<Box<str>>| match fact {
            Fact::Missing => Value::Missing,
            Fact::WrongType => Value::Other,
            Fact::Known(text) => Value::text(text),
        };
        match fact {
            UserFact::Id => text(&identity.id),
            UserFact::Email => text(&identity.email),
            UserFact::Name => text(&identity.name),
            UserFact::Tenant => text(&identity.tenant),
            UserFact::Session => text(&identity.session),
            UserFact::Issuer => Value::text(identity.issuer.as_str()),
            UserFact::Kind => Value::text(identity.kind.as_str()),
            UserFact::AuthAge => match self.auth_age() {
                Fact::Missing => Value::Missing,
                Fact::WrongType => Value::Other,
                Fact::Known(age) => Value::Duration(age),
            },
            UserFact::Scopes => match &identity.scopes {
                Fact::Missing => Value::Names(SmallVec::new()),
                Fact::WrongType => Value::Unclear,
                Fact::Known(scopes) => Value::Names(scopes.iter().collect()),
            },
            UserFact::Roles => self.role_names(identity).map_or(Value::Unclear, Value::Names),
            UserFact::Permissions => self.permission_names().map_or(Value::Unclear, Value::Names),
        }
    }

    /// The roles of the token, then what they include in the order of the policy.
    pub(super) fn role_names(&self, identity: &'a Identity) -> Option<SmallVec<[&'a str; 8]>> {
        let mut names: SmallVec<[&'a str; 8]> = match &identity.roles {
            Fact::Missing => SmallVec::new(),
            Fact::WrongType => return None,
            Fact::Known(roles) => roles.iter().map(|role| &**role).collect(),
        };
        for role in self.closure().known()?.iter().filter_map(|number| self.policy.roles.roles.get(number)) {
            if !names.contains(&&*role.name) {
                names.push(&role.name);
            }
        }
        Some(names)
    }

    /// Every permission of the set that the caller has; `None` if that cannot be known.
    pub(super) fn permission_names(&self) -> Option<SmallVec<[&'a str; 8]>> {
        let identity = self.identity()?;
        let claimed: &[Box<str>] = match &identity.permissions {
            Fact::Missing => &[],
            Fact::WrongType => return None,
            Fact::Known(patterns) => patterns,
        };
        let closure = self.closure().known()?;
        let granted = || closure.iter().filter_map(|number| self.policy.roles.roles.get(number));
        let holds = |permission: &str| {
            claimed.iter().chain(granted().flat_map(|role| &role.can)).any(|pattern| permits(pattern, permission))
        };
        Some(self.policy.permissions.iter().map(|name| &**name).filter(|name| holds(name)).collect())
    }

    fn local_time(&self) -> Option<jiff::Zoned> {
        let moment = jiff::Timestamp::from_millisecond(self.now.as_millis()).ok()?;
        Some(moment.to_zoned(self.policy.time_zone.clone()))
    }
}
