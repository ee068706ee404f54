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
    include_str!("../prove/crash.rs"),
    include_str!("../prove/login/mod.rs"),
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
    include_str!("redirect.rs"),
    include_str!("ssr.rs"),
];

/// The groups of `supabase-and-oauth.md` F1 that are about what goes through to Supabase, and about its cookies: each case
/// with the words by which its test is known.
const PASSED_THROUGH: &[(&str, &[&str])] = &[
    ("both error formats", &["refusals_have_the_shape", "x-supabase-api-version"]),
    ("429 on refresh", &["what_would_end_a_session", "(refresh, \"429\""]),
    ("upstream down", &["is_down_or_slow", "grant_type=refresh_token"]),
    ("preflight", &["cross_origin_answers_are_ours_alone", "Access-Control-Request-Headers"]),
    ("admin blocked", &["/auth/v1/admin/users", "not_admin"]),
    ("refresh with stale bearer", &["a_bearer_is_not_looked_at", "bearer(&expired)"]),
    ("logout by scope", &["a_successful_logout_ends", "?scope=others"]),
    ("error redirects as they are", &["(\"/auth/v1/verify\", \"303\""]),
    ("stable address", &["told_the_truth_about_the_client", "sb-forwarded-for"]),
    ("raw, encoded, in pieces, with a gap, corrupt", &["\"raw\"", "\"base64\"", "\"pieces\"", "\"gap\"", "\"half\""]),
    ("wrong name, expired", &["\"wrong name\"", "\"expired\""]),
    ("one credential or two", &["\"header and the same cookie\"", "\"header and another cookie\""]),
    ("CSRF on POST", &["a_write_with_a_session_in_a_cookie"]),
    ("one refresh for all", &["an_expired_session_is_refreshed_once"]),
    ("logs", &["P01", "secret_key"]),
];

#[test]
fn every_case_of_the_pass_through_and_of_supabases_cookies_has_a_test() {
    let text = concat!(include_str!("edge.rs"), include_str!("ssr.rs"));
    for (case, words) in PASSED_THROUGH {
        let missing: Vec<&&str> = words.iter().filter(|word| !text.contains(**word)).collect();
        assert!(missing.is_empty(), "{case}: {missing:?}");
    }
}

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
