//! The codes of findings: stable, documented, never reused.

use std::fmt;
use std::str::FromStr;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The set does not load.
    Error,
    /// The set loads; probably it does not mean what it says.
    Warning,
}

impl Severity {
    /// The word shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

macro_rules! codes {
    ($($code:ident $severity:ident $title:literal,)*) => {
        /// A kind of finding. `portcullis help P301` explains one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $title] $code,)*
        }

        impl Code {
            /// All codes, in order.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            /// The code as it is written.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => stringify!($code),)* }
            }

            /// What it finds, in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Self::$code => $title,)* }
            }

            /// How bad it is unless its surroundings say otherwise.
            pub fn severity(self) -> Severity {
                match self { $(Self::$code => Severity::$severity,)* }
            }
        }
    };
}

codes! {
    P001 Error "YAML syntax (may stop at the first in each file)",
    P002 Error "duplicate key",
    P003 Error "`version` newer than this binary",
    P004 Error "unknown key",
    P005 Error "merge key `<<`",
    P006 Error "alias or size budget exceeded",
    P007 Error "policy keys in a `*.test.yaml`",
    P008 Error "file is not UTF-8, or unreadable",
    P009 Error "`version` missing",
    P010 Error "wrong type (a list where a map belongs, …)",
    P011 Error "key is not a string, or an unsupported tag",
    P012 Error "no policy files, or an empty document",
    P013 Error "link leaves the policies folder",
    P101 Error "defined twice (both places)",
    P102 Error "unknown role, scope, permission, access, condition, set, limit, issuer, identity, app",
    P103 Error "role cycle",
    P104 Error "access or condition cycle",
    P105 Error "bad limit text",
    P106 Error "bad condition: unknown root, unknown operator, unquoted string",
    P107 Error "reserved name",
    P108 Error "wildcard where one name is required",
    P109 Error "bad value: duration, size, CIDR, URL, status, header name, time zone",
    P201 Error "same template and method twice",
    P202 Error "bad template",
    P203 Error "parameter used twice",
    P204 Error "two overlapping typed parameters at one position",
    P205 Warning "unreachable route: its paths and methods are all taken by more specific routes",
    P206 Warning "redundant: same requirement, other keys and methods as the broader route",
    P207 Error "app header: set twice, `upstream` missing, bad host",
    P301 Error "bare list in a requirement: `{ any: … }` or `{ all: … }`?",
    P302 Warning "partial overlap with different requirements",
    P303 Error "access stated below the top; `public` or `include_public` with a fact about the user",
    P304 Error "condition can never be true",
    P305 Warning "methods refused (405) that a broader route would serve",
    P306 Error "condition reads a parameter that the route or guard lacks",
    P307 Warning "guard matches no route",
    P308 Error "empty requirement",
    P309 Error "more than 64 leaves",
    P310 Error "`not` over something that can be unknown",
    P311 Warning "weaker hole: a more specific route grants what the tree around it refuses",
    P312 Warning "catch-all weaker than a sibling while the upstream may fold spellings",
    P401 Error "roles, permissions, scopes or tenant mapped from `user_metadata`",
    P402 Error "algorithm and key do not fit, a secret that is too short, or a well-known secret",
    P403 Error "literal secret in a policy",
    P404 Warning "`authenticated` route reachable by anonymous Supabase users, where allowed",
    P405 Warning "decision depends on a client-controlled header or query",
    P406 Error "`env:` or `file:` reference cannot be resolved",
    P407 Warning "secret file readable by others",
    P408 Warning "a check is waived",
    P410 Warning "guard or `where` is unknown, hence refuses, for identities without an optional `token.*` claim",
    P411 Error "routes need an identity but nobody may sign tokens",
    P412 Error "issuer incomplete or contradictory",
    P501 Warning "unused role, scope or permission",
    P502 Warning "unused access or condition",
    P503 Warning "unused set or limit",
    P504 Warning "unused identity",
    P505 Warning "superuser role (`\"*\"`) fails a `role:` check",
    P506 Warning "permission that no role grants and no issuer maps: nobody can pass",
    P507 Warning "`public` with a method other than GET/HEAD/OPTIONS, no limit, no condition",
    P508 Warning "`todo` left",
    P509 Warning "scope names that are near misses of each other (no catalogue)",
    P510 Warning "unused suppression",
    P511 Error "bad suppression",
    P601 Error "failing test",
    P602 Warning "route without an allow test or without a deny test (with `--coverage`)",
    P603 Error "malformed test",
    P701 Error "login: own path taken by a route or another app, or no fitting issuer",
    P702 Error "CORS: `*` with credentials, bad origin",
    P703 Error "header name that cannot be set",
    P704 Error "two headers fold to the same name",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no such code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownCode;

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        Self::ALL.iter().copied().find(|code| code.as_str().eq_ignore_ascii_case(text)).ok_or(UnknownCode)
    }
}

impl Code {
    /// Whether a policy may suppress it with `allow: { CODE: reason }` (17): warnings, and P312.
    pub fn can_be_suppressed(self) -> bool {
        self.severity() == Severity::Warning && self != Self::P510
    }
}
