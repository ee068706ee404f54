//! Portcullis: a reverse proxy that decides, from YAML policies, who may call an API.
//!
//! The modules stand in reading order, the pure core first. `ARCHITECTURE.md` has the map, the rank of
//! each part (a part may import only parts of lower rank) and the decisions with their measurements.
//!
//! * The way of a request: `proxy` → `pipeline` → `request` → `decision` → (`issuer` | `login` → `store`) → `decision` → `proxy`.
//! * The way of a policy: `reload` → `policy` (yaml → document → check → compile) → `decision` (its own
//!   tests) → `reload` (swap).

pub mod clock;
pub mod random;
pub mod secret;
pub mod diagnostic;
pub mod response;

pub mod request;
pub mod identity;
pub mod password;
pub mod token;
pub mod policy;
pub mod decision;
pub mod openapi;
pub mod config;

pub mod live;
pub mod endpoint;
pub mod fetch;
pub mod telemetry;
pub mod store;
pub mod provider;
pub mod reload;
pub mod issuer;
pub mod login;
pub mod browser;
pub mod pipeline;
pub mod proxy;
pub mod admin;
pub mod server;
pub mod demo;
pub mod cli;
