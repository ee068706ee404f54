//! A. Request target and path. Ids are those of the attack tables in `SECURITY.md`.

use crate::h2raw;
use crate::harness::{Harness, IDENTITY, Token, compile_error, get};
use crate::table::{BAD, Expect, Refused, Report, admin, canon, p0, p1, policy};

/// Refused with 400 before any route is looked at, under every policy.
const REFUSED: &[(&str, &[&str])] = &[
    ("A01", &["/public/../admin/secrets", "/public/../../admin", "/.."]),
    (
        "A02",
        &[
            "/public/%2e%2e/admin",
            "/public/.%2e/admin",
            "/public/%2E./admin",
            "/public/%2e%2E/admin",
            "/public/./../admin",
            "/public/./admin",
            "/public/%2e/admin",
        ],
    ),
    ("A03", &["/admin%2fsecret", "/admin%2Fsecret", "/public%2f..%2fadmin"]),
    ("A04", &["//admin/x", "/admin//x", "/%5cadmin", "/admin%5cx", "/admin%5Cx", "/public//"]),
    ("A05", &["//admin/secret-endpoint", "///admin", "//api.test/admin"]),
    ("A08", &["admin/secrets", "foo:admin", "?x", "foo://h/admin", "http:/admin", "http:admin"]),
    ("A09", &["/foo/secret#/bar", "/public#/../admin"]),
    ("A11", &["/private%5csecret.txt", "/public\\..\\admin", "\\admin"]),
    ("A12", &["/public/%252e%252e/admin", "/%2561dmin", "/public/%25252e", "/a%252fb"]),
    ("A13", &["/public/%00/../admin", "/admin%00.png", "/%00"]),
    ("A14", &["/%c0%ae%c0%ae/admin", "/public/%c0%af", "/%ff", "/%e0%80%ae", "/%ed%a0%80"]),
    ("A15", &["/public/..;/admin", "/admin;a=1/x", "/public;/../admin", "/admin%3bx", "/admin%3B/x", "/;/admin"]),
    ("A16", &["/admin/%0a", "/admin/%0d%0ax", "/admin%0A", "/admin/%7f", "/admin/%1f", "/admin/%09"]),
    ("A17", &["/admin/.", "/admin/%2e", "/admin/.."]),
    ("A23", &["/a%zz", "/a%2", "/a%", "/%", "/%%", "/%u0041"]),
    ("A25", &["/a<b", "/a>b", "/a\"b", "/a`b"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_two_readers_could_read_differently_is_refused() {
    let mut report = Report::default();
    for gateway in [p0().await, p1().await] {
        for (id, targets) in REFUSED {
            for target in *targets {
                report.get(&gateway, id, target, "", &BAD).await;
                report.get(&gateway, id, target, &admin(), &BAD).await;
            }
        }
    }
    report.finish();
}

/// The same over HTTP/2, where the shape exists: refused by us, or the stream is reset.
#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_the_same_targets_are_refused() {
    let mut report = Report::default();
    for gateway in [p0().await, p1().await] {
        for (id, targets) in REFUSED {
            for target in *targets {
                let outcome = h2raw::get(&gateway, target, &[]).await;
                let upstream = gateway.upstream.take();
                // The fragment is gone before anyone of ours sees the path: what is decided is what is forwarded.
                let cut = target.split_once('#').is_some_and(|(path, _)| match &*upstream {
                    [] => outcome == h2raw::Outcome::Status(404),
                    [only] => only.target() == path,
                    _ => false,
                });
                report.note(id, cut || (outcome.is_refused(&[400]) && upstream.is_empty()), || {
                    format!("h2 {target}: {outcome:?}, upstream saw {upstream:?}")
                });
            }
        }
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_that_no_uri_has_are_refused() {
    let mut report = Report::default();
    for gateway in [p0().await, p1().await] {
        for (id, target) in [
            ("A13", &b"/admin\0.png"[..]),
            ("A14", b"/public/\xc0\xae\xc0\xae/admin"),
            ("A14", b"/public/\xff"),
            ("A14", b"/public/\x80"),
            ("A14", "/public/\u{ff0f}admin".as_bytes()),
            ("A16", b"/admin\t"),
            ("A16", b"/admin\x0b"),
            ("A25", b"/public /admin"),
            ("A25", b"/public\t/admin"),
            ("A25", b"/public  "),
        ] {
            let request = [b"GET ", target, b" HTTP/1.1\r\nHost: api.test\r\n\r\n"].concat();
            report.raw(&gateway, id, request, &BAD).await;
        }
    }
    report.finish();
}

/// What has one reading: the decision is that of the path as the upstream reads it, and the bytes are the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_one_reading_is_decided_and_forwarded_as_it_stands() {
    let mut report = Report::default();
    let (first, second) = (p0().await, p1().await);
    let none = Refused(&[404]);
    let ask = Refused(&[401]);
    let rows: &[(&str, &str, Expect, Expect)] = &[
        ("A09", "/foo/secret%23/bar", none.clone(), canon("/foo/secret%23/bar")),
        ("A09", "/admin/%23/bar", none.clone(), ask.clone()),
        ("A10", "/admin?x=/public/a", none.clone(), ask.clone()),
        ("A10", "/api/items?/public/a", ask.clone(), canon("/api/items?/public/a")),
        ("A10", "/public?bypass", canon("/public?bypass"), canon("/public?bypass")),
        ("A10", "/admin%3fpublic", none.clone(), canon("/admin%3fpublic")),
        ("A14", "/public/%ef%bc%8fadmin", canon("/public/%ef%bc%8fadmin"), canon("/public/%ef%bc%8fadmin")),
        ("A14", "/admin/%ef%bc%8f", none.clone(), ask.clone()),
        ("A17", "/admin/", none.clone(), ask.clone()),
        ("A17", "/api/admin/", ask.clone(), canon("/api/admin/")),
        ("A17", "/admin.", none.clone(), canon("/admin.")),
        ("A17", "/admin.json", none.clone(), canon("/admin.json")),
        ("A17", "/admin%20", none.clone(), canon("/admin%20")),
        ("A29", "/%61dmin/x", none.clone(), ask.clone()),
        ("A29", "/api/%61dmin/x", ask.clone(), canon("/api/admin/x")),
        ("A29", "/%70ublic/%7Ex", canon("/public/~x"), canon("/public/~x")),
    ];
    for (id, target, on_first, on_second) in rows {
        report.get(&first, id, target, "", on_first).await;
        report.get(&second, id, target, "", on_second).await;
    }
    for (id, target, forwarded) in [
        ("A17", "/admin/", "/admin/"),
        ("A29", "/%61dmin/x", "/admin/x"),
        ("A10", "/admin?x=/public", "/admin?x=/public"),
    ] {
        report.get(&second, id, target, &admin(), &canon(forwarded)).await;
    }
    let head = "HEAD /admin/ HTTP/1.1\r\nHost: api.test\r\n\r\n";
    report.raw(&second, "A17", head, &Refused(&[401])).await;
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opt_in_admits_one_form_and_nothing_beside_it() {
    let mut report = Report::default();
    let with = |word: &str| {
        format!(
            "version: 1\nupstream: http://UPSTREAM\nallow: {{ {word}: the test is about it, P312: the catch-all is meant }}\n{IDENTITY}routes:\n  /**: public\n  /admin/**: {{ scope: admin }}\n  /one/{{id}}: public\n"
        )
    };
    type OfOptIn<'a> = (&'a str, &'a str, &'a [(&'a str, Expect)]);
    let rows: &[OfOptIn<'_>] = &[
        (
            "A03",
            "encoded_slash",
            &[
                ("/one/a%2Fb", canon("/one/a%2Fb")),
                ("/admin/a%2fb", Refused(&[401])),
                ("/admin%2fsecret", canon("/admin%2fsecret")), // one segment, data
                ("/one/..%2fadmin", BAD),
                ("/one//x", BAD),
                ("/one/%5c", BAD),
            ],
        ),
        (
            "A04",
            "double_slash",
            &[
                ("/a//b", canon("/a//b")),
                ("/admin//x", Refused(&[401])),
                ("//admin/x", canon("//admin/x")), // an empty first segment, never an authority
                ("/%5cadmin", BAD),
                ("/a//../b", BAD),
            ],
        ),
        (
            "A12",
            "double_encoding",
            &[("/a%2520b", canon("/a%2520b")), ("/admin/%252ex", Refused(&[401])), ("/a/%252e", BAD), ("/a/../b", BAD)],
        ),
        (
            "A15",
            "path_params",
            &[
                ("/a;x=1", canon("/a;x=1")),
                ("/admin/x;y", Refused(&[401])),
                ("/a/..;/b", BAD), // an upstream that cuts at `;` would step up
                ("/a/../b", BAD),
            ],
        ),
    ];
    for (id, word, targets) in rows {
        let gateway = Harness::start(&with(word)).await;
        for (target, expect) in *targets {
            report.get(&gateway, id, target, "", expect).await;
        }
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_is_stripped_from_the_canonical_path() {
    let mut report = Report::default();
    let gateway = Harness::start(&format!(
        "version: 1\nupstream: http://UPSTREAM\nbase: /svc\nstrip_base: true\n{IDENTITY}routes:\n  /**: public\n  /admin/**: {{ scope: admin }}\n"
    ))
    .await;
    for (id, target, expect) in [
        ("A06", "/svc/items?a=1", canon("/items?a=1")),
        ("A06", "/svc/%69tems/", canon("/items/")),
        ("A06", "/svc", canon("/")),
        ("A06", "/svc%2Fadmin", BAD),
        ("A06", "/svc/%2e%2e/admin", BAD),
        ("A06", "/svc/admin", Refused(&[401])),
        ("A06", "/svc/%61dmin", Refused(&[401])),
        ("A06", "/svc//admin", BAD),
        ("A06", "/admin", Refused(&[404])),
    ] {
        report.get(&gateway, id, target, "", &expect).await;
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_path_is_clean_or_nothing_is_forwarded() {
    let mut report = Report::default();
    let rewrite = |template: &str| {
        policy(&format!(
            "  GET /a/{{rest**}}: {{ access: public, rewrite: \"{template}\" }}\n  GET /t/{{id}}: {{ access: public, rewrite: \"/items/{{id}}\" }}\n"
        ))
    };
    for template in ["/x/../y", "/x//y", "x/y", "/x/./y", "/x?y=1", "/x/%2e%2e"] {
        let error = compile_error(&rewrite(template));
        report.note("A07", error.is_some(), || format!("`{template}` loads"));
    }
    let gateway = Harness::start(&rewrite("/inner/{rest**}")).await;
    for (id, target, expect) in [
        ("A07", "/a/b%20c/d?e=f", canon("/inner/b%20c/d?e=f")),
        ("A07", "/a", canon("/inner")),
        ("A07", "/t/x%3Fy", canon("/items/x%3Fy")),
        ("A07", "/a/%2e%2e/b", BAD),
    ] {
        report.get(&gateway, id, target, "", &expect).await;
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn upper_case_does_not_get_around_a_protected_path_of_a_case_insensitive_app() {
    let mut report = Report::default();
    let gateway = Harness::start(&format!(
        "version: 1\nupstream: http://UPSTREAM\ncase: insensitive\n{IDENTITY}routes:\n  /**: public\n  /admin/**: {{ scope: admin }}\n"
    ))
    .await;
    for target in ["/ADMIN/x", "/Admin/x", "/aDmIn", "/%41dmin/x"] {
        report.get(&gateway, "A18", target, "", &Refused(&[401])).await;
    }
    report.get(&gateway, "A18", "/Public/X", "", &canon("/Public/X")).await;
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_ends_at_a_segment() {
    let mut report = Report::default();
    let gateway = Harness::start(&policy("  /pki/ca/prod/**: public\n")).await;
    for (target, expect) in [
        ("/pki/ca/prod-backup", Refused(&[404])),
        ("/pki/ca/prod1", Refused(&[404])),
        ("/pki/ca/prod.x/y", Refused(&[404])),
        ("/pki/ca/prod/x", canon("/pki/ca/prod/x")),
        ("/pki/ca/prod", canon("/pki/ca/prod")),
    ] {
        report.get(&gateway, "A19", target, "", &expect).await;
    }
    report.finish();
}

#[test]
fn a_template_that_could_be_read_in_two_ways_does_not_load() {
    let mut report = Report::default();
    for (id, routes) in [
        ("A20", "  GET admin: public\n"),
        ("A20", "  GET /a//b: public\n"),
        ("A20", "  GET /a/**/b: public\n"),
        ("A20", "  GET /a/*.php: public\n"),
        ("A20", "  GET /a/{x}{y}: public\n"),
        ("A20", "  GET /a/../b: public\n"),
        ("A26", "  \"GET /a\\nb\": public\n"),
        ("A26", "  \"GET /a?b\": public\n"),
        ("A27", "  GET /a/{x}: public\n  GET /a/{y}: authenticated\n"),
        ("A27", "  GET /a: public\n  GET|POST /a: authenticated\n"),
        ("A27", "  GET /a: public\n  GET /a/: authenticated\n"),
    ] {
        let error = compile_error(&policy(routes));
        report.note(id, error.is_some(), || format!("`{routes}` loads"));
    }
    for host in ["good.example`)", "\"a\\nb\"", "'a\"b'", "a b", "a/b"] {
        let text = format!("host: {host}\n{}", policy("  /**: public\n"));
        report.note("A26", compile_error(&text).is_some(), || format!("host {host} loads"));
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backtick_in_a_template_is_a_backtick() {
    let mut report = Report::default();
    let gateway = Harness::start(&policy("  \"GET /public/`x`'\": public\n")).await;
    report.get(&gateway, "A26", "/public/%60x%60%27", "", &canon("/public/%60x%60%27")).await;
    report.get(&gateway, "A26", "/public/x", "", &Refused(&[404])).await;
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn absolute_form_is_decided_and_forwarded_as_origin_form() {
    let mut report = Report::default();
    for (gateway, admins, root) in [(p0().await, "/api/admin", Refused(&[404])), (p1().await, "/admin", canon("/"))] {
        let request =
            |target: &str, host: &str, lines: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
        for (request, expect) in [
            (request(&format!("http://api.test{admins}"), "api.test", ""), Refused(&[401])),
            (request(&format!("http://api.test{admins}"), "api.test", &admin()), canon(admins)),
            (request("http://api.test/public?x", "api.test", ""), canon("/public?x")),
            (request("http://api.test", "api.test", ""), root),
            (request("http://good/admin", "evil", ""), BAD),
            (request("https://api.test/public", "api.test", ""), BAD),
            (request("ftp://api.test/public", "api.test", ""), BAD),
            (request("http://api.test@evil/public", "api.test", ""), BAD),
            (request("http:///public", "api.test", ""), BAD),
            (request("http://api.test/../admin", "api.test", ""), BAD),
        ] {
            report.raw(&gateway, "A21", request, &expect).await;
        }
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn asterisk_and_authority_form_are_refused() {
    let mut report = Report::default();
    for gateway in [p0().await, p1().await] {
        for line in ["GET *", "OPTIONS *", "OPTIONS */x", "CONNECT /", "CONNECT a.b", "CONNECT a.b:443", "GET a.b:443"]
        {
            let request = format!("{line} HTTP/1.1\r\nHost: api.test\r\n\r\n");
            report.raw(&gateway, "A22", request, &Refused(&[400, 405])).await;
        }
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_eight_thousand_octets_passes_and_one_over_eight_kib_does_not() {
    let mut report = Report::default();
    for gateway in [p0().await, p1().await] {
        let of = |length: usize| format!("/public/{}", "a".repeat(length - "/public/".len()));
        report.get(&gateway, "A24", &of(8000), "", &canon(&of(8000))).await;
        report.get(&gateway, "A24", &of(8192), "", &canon(&of(8192))).await;
        report.get(&gateway, "A24", &of(8193), "", &Refused(&[414])).await;
        report.get(&gateway, "A24", &of(65536), "", &Refused(&[414])).await;
    }
    report.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_is_a_name_and_not_a_path() {
    let mut report = Report::default();
    let gateway = p0().await;
    for scope in ["items:../admin", "items:*", "items%3Aread", "items:read/..", "*", "items:", ":read", "ITEMS:READ"] {
        let lines = Token::of("eve").with("scope", scope).line();
        report.get(&gateway, "A28", "/api/items", &lines, &Refused(&[403])).await;
        report.get(&gateway, "A28", "/api/admin/x", &lines, &Refused(&[403])).await;
    }
    let reader = Token::of("ada").with("scope", "items:read").line();
    report.get(&gateway, "A28", "/api/items", &reader, &canon("/api/items")).await;
    report.finish();
}

/// Every spelling of a step up, at every depth: 400, or it stays where it is.
#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_traversal_leaves_its_tree() {
    let mut report = Report::default();
    for gateway in [p0().await, p1().await] {
        let dots = [".", "%2e", "%2E", "%252e", "%c0%ae", "%e0%80%ae", "%u002e", "\u{ff0e}", "%ef%bc%8e", "0x2e"];
        let slashes = ["/", "%2f", "%2F", "\\", "%5c", "%252f", "%c0%af", "//", ";/", "%ef%bc%8f"];
        for first in dots {
            for second in dots {
                for slash in slashes {
                    let target = format!("/public/{first}{second}{slash}admin{slash}x");
                    let answer = gateway.raw(get(&target, "")).await.expect("an answer");
                    let upstream = gateway.upstream.take();
                    let stays = answer.status == 200
                        && matches!(&*upstream, [only] if only.target().starts_with("/public/")
                            && only.target().split('/').all(|segment| segment != ".." && segment != "."));
                    let refused = answer.status == 400 && upstream.is_empty();
                    report.note("A01", stays || refused, || format!("{target}: {} {upstream:?}", answer.status));
                }
            }
        }
    }
    report.finish();
}
