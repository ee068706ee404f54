//! Properties of `policy::check` over generated, damaged and hostile sets: the order of files does not matter, what is
//! checked compiles, ten thousand routes are checked in a moment, nothing makes it stall.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use portcullis::diagnostic::{Code, Diagnostic, Sources};
use portcullis::policy::references::References;
use portcullis::policy::set::Revision;
use portcullis::policy::{self, Options};
use proptest::prelude::*;

const HEAD: &str =
    "version: 1\nupstream: http://localhost:8000\nidentity: { local: { preset: local, secret: env:SECRET_KEY } }\n";

fn check(texts: &[String]) -> (Sources, Vec<Diagnostic>) {
    let mut sources = Sources::default();
    for (at, text) in texts.iter().enumerate() {
        sources.add(&format!("{at}.yaml"), text);
    }
    let (document, mut found) = policy::read(&sources);
    let (checked, more) = policy::check(document, &sources, &Options::default());
    found.extend(more);
    if let Some(checked) = checked {
        let compiled = policy::compile::compile(&checked, &sources, &References::none(), Revision::of(&sources));
        assert!(compiled.is_ok(), "checked, but not compiled: {:?}\n{}", compiled.err(), texts.join("---\n"));
    }
    (sources, found)
}

/// The findings without their positions: code, message, and what is underlined, in any order of the labels.
fn without_positions(texts: &[String]) -> Vec<String> {
    let (sources, found) = check(texts);
    let mut lines: Vec<String> = (found.iter())
        .map(|found| {
            let mut texts: Vec<&str> = vec![sources.text(found.primary.span)];
            texts.extend(found.secondary.iter().map(|label| sources.text(label.span)));
            texts.sort_unstable();
            match found.code {
                // Of several in conflict, which one is shown as the first is a matter of positions.
                Code::P201 | Code::P204 => found.code.to_string(),
                _ => format!("{} {} {texts:?}", found.code, found.message),
            }
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

fn route() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "{x}", "{i:int}", "{s:slug}", "7"]);
    let tail = prop::sample::select(vec!["", "", "/**"]);
    let methods = prop::sample::select(vec!["", "GET ", "POST ", "GET|POST ", "HEAD "]);
    let asked = prop::sample::select(vec![
        "public",
        "authenticated",
        "{ role: admin }",
        "{ role: editor }",
        "staff",
        "deny",
        "todo",
        "{ scope: items }",
        "{ any: [ staff, { scope: itms } ] }",
        "{ where: same }",
    ]);
    (methods, prop::collection::vec(segment, 0..4), tail, asked).prop_map(|(methods, segments, tail, asked)| {
        // Parameters are named by their position, so that a name stands once.
        let path: String = (segments.iter().enumerate())
            .map(|(at, segment)| {
                format!(
                    "/{}",
                    segment
                        .replace('x', &format!("x{at}"))
                        .replace("{i:", &format!("{{i{at}:"))
                        .replace("{s:", &format!("{{s{at}:"))
                )
            })
            .collect();
        let path = if path.is_empty() && tail.is_empty() { "/".to_owned() } else { format!("{path}{tail}") };
        format!("{methods}{path}: {asked}")
    })
}

/// One fragment for each route, apart from the header.
fn fragments(routes: &[String]) -> Vec<String> {
    let mut texts = vec![format!(
        "{HEAD}app: a\nroles: {{ admin: {{ includes: editor, can: \"*\" }}, editor: [edit] }}\naccess: {{ staff: {{ role: editor }} }}\nconditions: {{ same: path.x0 == user.tenant }}\n"
    )];
    texts.extend(routes.iter().map(|route| format!("version: 1\napp: a\nroutes:\n  {route}\n")));
    texts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_files_does_not_matter(
        routes in prop::collection::btree_set(route(), 1..10).prop_map(|routes| routes.into_iter().collect::<Vec<_>>()),
        seed in any::<u64>(),
    ) {
        let texts = fragments(&routes);
        let mut shuffled = texts.clone();
        let mut state = seed | 1;
        for at in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            shuffled.swap(at, (state >> 33) as usize % (at + 1));
        }
        prop_assert_eq!(without_positions(&texts), without_positions(&shuffled));
    }
}

fn took(text: String) -> (Duration, Vec<Diagnostic>) {
    let mut sources = Sources::default();
    sources.add("a.yaml", &text);
    let (document, mut found) = policy::read(&sources);
    let start = Instant::now();
    found.extend(policy::check(document, &sources, &Options::default()).1);
    (start.elapsed(), found)
}

/// Debug builds are an order of magnitude slower; the release figure is what counts.
fn allowed(release: Duration) -> Duration {
    if cfg!(debug_assertions) { release * 25 } else { release }
}

#[test]
fn ten_thousand_routes_are_checked_in_a_moment() {
    let mut text = format!("{HEAD}case: sensitive\nroles: {{ admin: {{ can: \"*\" }}, editor: [edit] }}\nguards:\n");
    for service in 0..50 {
        let _ = writeln!(
            text,
            "  g{service}: {{ paths: \"/s{service}/t/{{tenant}}/**\", require: {{ where: path.tenant == user.tenant }} }}"
        );
    }
    text.push_str("routes:\n");
    for service in 0..50 {
        for kind in 0..50 {
            let base = format!("/s{service}/t/{{tenant}}/k{kind}");
            let _ = writeln!(text, "  GET {base}: {{ scope: k{kind}:read }}");
            let _ = writeln!(text, "  POST {base}: {{ scope: k{kind}:write, role: editor }}");
            let _ = writeln!(
                text,
                "  GET {base}/{{id:int}}: {{ any: [ {{ scope: k{kind}:read }}, {{ where: path.id == user.id }} ] }}"
            );
            let _ = writeln!(text, "  PUT|DELETE {base}/{{id:int}}: {{ permission: edit }}");
        }
    }
    let (took, found) = took(text);
    println!("checked in {took:?}, {} findings", found.len());
    let errors: Vec<&Diagnostic> = found.iter().filter(|found| found.is_error()).collect();
    assert!(errors.is_empty(), "{:?}", errors.first());
    assert!(took < allowed(Duration::from_millis(400)), "{took:?}");
}

#[test]
fn hostile_sets_do_not_stall() {
    let many = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<Vec<_>>().join("\n");
    let routes = |count: usize, line: &dyn Fn(usize) -> String| format!("{HEAD}routes:\n{}", many(count, line));
    let doubling = format!(
        "{HEAD}access:\n{}\nroutes:\n  GET /: a0\n",
        many(60, &|at| format!(
            "  a{at}: {{ any: [ {{ all: [ a{0}, {{ scope: l{at} }} ] }}, {{ all: [ a{0}, {{ scope: r{at} }} ] }} ] }}",
            at + 1
        ))
    );
    let chain = format!(
        "{HEAD}access:\n{}\n  a20000: {{ scope: x }}\nroutes:\n  GET /: a0\n",
        many(20_000, &|at| format!("  a{at}: {{ all: [ a{} ] }}", at + 1))
    );
    let ring =
        format!("{HEAD}roles:\n{}\n", many(20_000, &|at| format!("  r{at}: {{ includes: r{} }}", (at + 1) % 20_000)));
    let hard = |from: usize| {
        (0..30)
            .map(|at| {
                format!(
                    "{{ any: [ {{ scope: s{} }}, {{ scope: s{} }}, {{ role: q{} }} ] }}",
                    (at * 7 + from) % 31,
                    (at * 11 + from) % 31,
                    at % 9
                )
            })
            .collect::<Vec<_>>()
            .join(", ")
    };
    let formulas =
        format!("{HEAD}routes:\n  GET /a/**: {{ all: [ {} ] }}\n  GET /a/b: {{ all: [ {} ] }}\n", hard(0), hard(5));
    for (what, text) in [
        (
            "catch-alls that cross",
            routes(4000, &|at| {
                if at % 2 == 0 {
                    format!("  GET /l{at}/**: {{ scope: a }}")
                } else {
                    format!("  GET /{{x}}/m{at}: {{ scope: b }}")
                }
            }),
        ),
        ("literals under a parameter", routes(8000, &|at| format!("  GET /{{x}}/m{at}/{{y}}: {{ scope: b }}"))),
        ("deep templates", routes(2000, &|at| format!("  GET /{}l{at}: deny", "{x}/".to_owned() + &"a/".repeat(40)))),
        ("names that double", doubling),
        ("a long chain of names", chain),
        ("a long ring of roles", ring),
        ("formulas that are hard to compare", formulas),
        (
            "one catch-all and many siblings",
            routes(8000, &|at| {
                if at == 0 { "  /**: authenticated".to_owned() } else { format!("  GET /l{at}: {{ scope: s{at} }}") }
            }),
        ),
    ] {
        let (took, found) = took(text);
        println!("{what}: {took:?}, {} findings", found.len());
        assert!(took < allowed(Duration::from_secs(1)), "{what}: {took:?}");
    }
}

#[test]
fn surroundings_decide_what_a_policy_alone_cannot_say() {
    let plain = "version: 1\nupstream: http://localhost:8000\nroutes:\n  GET /: ";
    let known = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    for (asked, strict, environment, expected) in [
        ("todo", false, None, "warning P508"),
        ("todo", true, None, "error P508"),
        ("{ access: todo, allow: { P508: the importer wrote it } }", true, None, "suppressed P508"),
        ("authenticated", false, None, ""),
        ("authenticated", false, known(&[]), "error P411"),
        ("authenticated", false, known(&["SECRET_KEY"]), ""),
        ("authenticated", false, known(&["SUPABASE_URL"]), ""),
        ("public", false, known(&[]), ""),
        ("optional", false, known(&[]), ""),
    ] {
        let mut sources = Sources::default();
        sources.add("a.yaml", &format!("{plain}{asked}\n"));
        let (document, found) = policy::read(&sources);
        assert_eq!(found, [], "{asked}");
        let (checked, found) = policy::check(document, &sources, &Options { strict, environment });
        let shown: Vec<String> = (found.iter())
            .map(|found| {
                let suppressed = found.suppressed.as_ref().map(|_| "suppressed");
                format!("{} {}", suppressed.unwrap_or(found.severity.as_str()), found.code)
            })
            .collect();
        assert_eq!(shown.join(", "), expected, "{asked}");
        assert_eq!(checked.is_some(), !found.iter().any(Diagnostic::is_error), "{asked}");
    }
}

#[test]
fn a_damaged_set_is_checked_without_a_panic() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policies");
    for name in ["items.yaml", "saas/apps.yaml", "saas/_platform.yaml", "P304.yaml", "P302.yaml", "P312-opt-ins.yaml"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        for at in places.iter().step_by(41) {
            let (before, after) = text.split_at(*at);
            let rest: String = after.chars().skip(1).collect();
            for damaged in [format!("{before}{rest}"), format!("{before}*{rest}"), format!("{before}\u{e9}\n{after}")] {
                check(&[damaged]);
            }
        }
    }
}
