//! What is special about some methods.

/// Methods that no route can allow: `CONNECT` makes tunnels, `TRACE` and `TRACK` show headers to scripts.
pub const REFUSED: [&str; 3] = ["CONNECT", "TRACE", "TRACK"];

/// Headers by which clients ask some frameworks to run another method than the one that was decided on.
pub const OVERRIDE_HEADERS: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Whether a method is 405 on every route. Methods are case-sensitive: `get` is an unknown method, not this.
pub fn is_refused(method: &str) -> bool {
    REFUSED.contains(&method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_and_traces_are_refused_on_every_route() {
        assert!(["CONNECT", "TRACE", "TRACK"].into_iter().all(is_refused));
        assert!(!["GET", "trace", "QUERY", ""].into_iter().any(is_refused));
    }
}
