//! Every row of the attack tables has a test here, or a reason why it cannot have one.

/// Rows that ask for what this build does not have.
const NOT_HERE: &[(&str, &str)] = &[
    ("D07", "no identity backend is called"),
    ("D11", "the PROXY protocol is not offered; its first line is a malformed request (E06)"),
    (
        "J10",
        "no rule about domains of addresses: logging in is by account name, and other issuers' claims are conditions",
    ),
    ("P05", "not built: dumps are up to whoever starts the process"),
    ("P06", "secrets are compared by `subtle` and aws-lc; how long that takes is not measured here"),
];

const SECTIONS: &[(char, usize, &str)] = &[
    ('A', 29, include_str!("a.rs")),
    ('B', 12, include_str!("b.rs")),
    ('C', 15, include_str!("c.rs")),
    ('D', 12, concat!(include_str!("d.rs"), include_str!("h.rs"))),
    ('E', 14, include_str!("e.rs")),
    ('F', 6, include_str!("f.rs")),
];

/// Where the rows about keys and tokens are tested.
const KEYS: &[&str] = &[
    include_str!("h.rs"),
    include_str!("inquiries.rs"),
    include_str!("../../src/provider/discovery.rs"),
    include_str!("../../src/provider/tests/mod.rs"),
    include_str!("../../src/token/compact.rs"),
    include_str!("../../src/token/jwks.rs"),
    include_str!("../../src/token/key.rs"),
    include_str!("../../src/token/verify/tests.rs"),
];

#[test]
fn every_row_about_tokens_and_their_keys_has_a_test() {
    let mut missing = Vec::new();
    for (section, rows) in [('G', 18), ('H', 9)] {
        for row in 1..=rows {
            let id = format!("{section}{row:02}");
            let tested = KEYS.iter().any(|text| text.contains(&id));
            match NOT_HERE.iter().find(|(not_here, _)| *not_here == id) {
                Some((id, reason)) => println!("{id}: skipped, {reason}"),
                None if tested => {}
                None => missing.push(id),
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

/// Where the rows about logins are tested: in the library, and against processes.
const LOGINS: &[&str] = &[
    include_str!("../../src/login/tests/mod.rs"),
    include_str!("../../src/login/hasher.rs"),
    include_str!("../../src/password/tests.rs"),
    include_str!("../../src/store/revoked.rs"),
    include_str!("../login/attacks.rs"),
    include_str!("../login/cluster.rs"),
    include_str!("../login/crash.rs"),
    include_str!("../login/flood.rs"),
    include_str!("../login/outcomes.rs"),
    include_str!("../browser/flight.rs"),
    include_str!("../browser/sessions.rs"),
    include_str!("f.rs"),
    include_str!("io.rs"),
];

/// Where the rows about sessions of browsers are tested.
const BROWSERS: &[&str] = &[
    include_str!("../../src/browser/return_to.rs"),
    include_str!("../browser/flight.rs"),
    include_str!("../browser/gateway.rs"),
    include_str!("../browser/redirects.rs"),
    include_str!("../browser/sessions.rs"),
    include_str!("inquiries.rs"),
    include_str!("io.rs"),
];

#[test]
fn every_row_about_cookies_and_redirects_has_a_test() {
    let rows = |section: char, count: usize| (1..=count).map(move |row| format!("{section}{row:02}"));
    let missing: Vec<String> =
        rows('I', 10).chain(rows('L', 8)).filter(|id| !BROWSERS.iter().any(|text| text.contains(id))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_row_about_logins_revocation_and_logs_has_a_test() {
    let mut missing = Vec::new();
    for (section, rows) in [('J', 10), ('K', 8), ('P', 7)] {
        for row in 1..=rows {
            let id = format!("{section}{row:02}");
            let tested = LOGINS.iter().any(|text| text.contains(&id));
            match NOT_HERE.iter().find(|(not_here, _)| *not_here == id) {
                Some((id, reason)) => println!("{id}: skipped, {reason}"),
                None if tested => {}
                None => missing.push(id),
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_row_of_the_attack_tables_has_a_test() {
    let mut missing = Vec::new();
    for (section, rows, text) in SECTIONS {
        for row in 1..=*rows {
            let id = format!("{section}{row:02}");
            let tested = text.contains(&format!("\"{id}\""));
            match (tested, NOT_HERE.iter().find(|(not_here, _)| *not_here == id)) {
                (true, None) => {}
                (false, Some((id, reason))) => println!("{id}: skipped, {reason}"),
                (true, Some(_)) => missing.push(format!("{id} has a test and a reason not to")),
                (false, None) => missing.push(format!("{id} has no test")),
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_transport_and_exhaustion_rows_of_this_part_have_tests() {
    let text = include_str!("io.rs");
    for id in ["I01", "I02", "I03", "I04", "I06", "O01", "O05", "O10"] {
        assert!(text.contains(&format!("\"{id}\"")), "{id} has no test");
    }
}
