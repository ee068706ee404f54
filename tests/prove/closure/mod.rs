//! Whatever a common upstream takes a forwarded path to be, that reading's own rule was satisfied by the caller too.
//!
//! Random policies, hostile targets, seven callers: what the gateway forwards is read by twelve models of upstreams,
//! and each reading is looked up in the policy again, by an oracle of its own. What no request check can see (letter
//! case, suffix, path-info, trailing dot, and whatever irregular form an app lets in) must be closed by the app's
//! declaration (`case: insensitive`), or named by `check` (P312) for that very route. Where such a folded reading is of
//! a path that the policy has no rule for, nothing was asked of anybody: these are counted apart. So are suffixes, dots
//! and path-info in apps that state `case`: who states how the upstream compares is not asked about each tree.

mod readers;
mod rules;
mod strings;
mod targets;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use portcullis::clock::Timestamp;
use portcullis::decision::{RequestFacts, authorize, route};
use portcullis::diagnostic::{Code, Sources};
use portcullis::identity::claims::Claims;
use portcullis::identity::{Caller, Transport};
use portcullis::policy::Options;
use portcullis::policy::references::References;
use portcullis::policy::set::{PolicySet, Revision};
use portcullis::request::Asked;
use portcullis::request::forwarded::ClientAddr;
use portcullis::request::head::RequestHead;
use serde_json::Value;

use crate::crowd;
use crate::dice::{Dice, SEED};
use crate::run::Run;

use self::readers::{READERS, Reader, decoded, split};
use self::rules::{CALLERS, Rules};

/// What one policy's targets came to.
#[derive(Default)]
struct Seen {
    targets: u64,
    forwarded: u64,
    pairs: u64,
    /// Readings that another rule decides, all of which the caller satisfied.
    elsewhere: u64,
    /// Folded readings that the policy says nothing about.
    unruled: u64,
    /// Readings of files below an app that states how its upstream compares paths.
    stated: u64,
    /// Readings whose rule was not satisfied, closed by nothing but the warning, by reader.
    named: BTreeMap<&'static str, u64>,
    broken: Vec<String>,
}

pub fn run(run: &mut Run) {
    let (strings, longest) = strings::run(run);
    let (policies, targets) = (run.of(90, 4_400), run.of(2_500, 5_000));
    let mut all = Seen::default();
    crowd::work(
        run,
        "policies",
        policies,
        |number| policy(number, targets),
        |run, seen: Seen| {
            all.targets += seen.targets;
            all.forwarded += seen.forwarded;
            all.pairs += seen.pairs;
            all.elsewhere += seen.elsewhere;
            all.unruled += seen.unruled;
            all.stated += seen.stated;
            for (reader, count) in seen.named {
                *all.named.entry(reader).or_default() += count;
            }
            for broken in seen.broken {
                run.fail(broken);
            }
        },
    );
    let goal = run.of(1_000_000, 100_000_000);
    run.check(all.pairs >= goal, || format!("only {} readings", all.pairs));
    run.check(!all.named.is_empty(), || "no reading needed the warning: the attacks are too tame".to_owned());
    run.measure("seed", SEED);
    run.count("policies", policies);
    run.count("targets", all.targets);
    run.count("targets forwarded", all.forwarded);
    run.count("readings (policy, target, reader)", all.pairs);
    run.count("readings that are another rule's", all.elsewhere);
    run.count("folded readings that no rule is about", all.unruled);
    run.count("readings of suffixes, dots and path-info in apps that state `case`, not named", all.stated);
    for (reader, count) in &all.named {
        run.count(&format!("readings that only the warning closes: {reader}"), *count);
    }
    run.result(format!(
        "{} readings of {} forwarded targets under {policies} random policies, 0 by a caller whom the reading's own rule \
         refuses; {strings} strings (all of up to {longest} symbols): one reading, forwarded as matched",
        grouped(all.pairs),
        grouped(all.forwarded),
    ));
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A policy as the gateway has it, with what `check` says about it: the rule that another spelling falls into, with the
/// rule whose paths are spelled so, or with several.
struct Subject {
    rules: Rules,
    policy: Arc<PolicySet>,
    named: Vec<(usize, usize, bool)>,
    /// The rule of each of the policy's routes.
    keys: HashMap<Box<str>, usize>,
    callers: Vec<Caller>,
}

impl Subject {
    fn random(dice: &mut Dice) -> Self {
        loop {
            let rules = Rules::random(dice);
            let text = rules.yaml();
            let mut sources = Sources::default();
            sources.add("policies/random.yaml", &text);
            let (document, _) = portcullis::policy::read(&sources);
            let (checked, found) = portcullis::policy::check(document, &sources, &Options::default());
            let Some(checked) = checked else {
                // P204 is a matter of luck (an `int` beside a `slug`).
                let errors: Vec<_> = found.iter().filter(|found| found.is_error()).map(|found| found.code).collect();
                assert!(errors.iter().all(|code| *code == Code::P204), "{found:#?}\n{text}");
                continue;
            };
            let keys: HashMap<Box<str>, usize> =
                rules.rules.iter().enumerate().map(|(number, rule)| (rule.key().into(), number)).collect();
            let named = found.iter().filter(|found| found.code == Code::P312).map(|found| {
                let of = |span| keys[sources.text(span).trim_matches('"')];
                (
                    of(found.primary.span),
                    of(found.secondary[0].span),
                    found.notes.iter().any(|note| note.contains("more")),
                )
            });
            let named = named.collect();
            let compiled =
                portcullis::policy::compile::compile(&checked, &sources, &References::none(), Revision::default());
            let policy = Arc::clone(compiled.unwrap_or_else(|problems| panic!("{problems:#?}\n{text}")).policy());
            let issuer = &policy.issuers[0];
            let callers = CALLERS.map(|caller| match caller {
                None => Caller::Anonymous,
                Some(caller) => {
                    let Value::Object(claims) = rules::claims(caller) else { panic!("claims are an object") };
                    let claims = Claims::new(claims);
                    let identity = issuer.mapping.identity(claims, issuer.name.clone(), Transport::Bearer, None);
                    Caller::Known(std::sync::Arc::new(identity))
                }
            });
            return Self { rules, policy: Arc::clone(&policy), named, keys, callers: callers.into() };
        }
    }
}

fn policy(number: u64, targets: u64) -> Seen {
    let mut dice = Dice::of(number);
    let subject = Subject::random(&mut dice);
    let mut seen = Seen::default();
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("gateway.example"));
    for _ in 0..targets {
        let target = targets::random(&subject.rules, &mut dice);
        seen.targets += 1;
        if let Err(what) = judge(&subject, &target, &headers, &mut seen)
            && seen.broken.len() < 3
        {
            seen.broken.push(format!("`GET {target}`: {what}\n{}", subject.rules.yaml()));
        }
    }
    seen
}

/// Asks for a target in everybody's name, and reads what is forwarded.
fn judge(subject: &Subject, target: &str, headers: &HeaderMap, seen: &mut Seen) -> Result<(), String> {
    let (rules, now) = (&subject.rules, Timestamp::from_seconds(1_900_000_000));
    let head = RequestHead::new("GET", target, headers);
    let Ok(asked) = Asked::parse(&head) else { return Ok(()) };
    let irregular = !asked.target.irregular().is_empty();
    let Ok(routed) = route(&subject.policy, asked.target, &asked.host, &head) else { return Ok(()) };
    let facts = RequestFacts {
        head: &head,
        host: &asked.host,
        client: ClientAddr::new(std::net::Ipv4Addr::LOCALHOST.into()),
        country: None,
    };
    let rule = subject.keys[&routed.route().written];
    let ignores_case = rules.case == rules::Case::Insensitive;
    let matched = decoded(&split(routed.target().path()));
    if rules.rule(&matched, ignores_case) != Some(rule) {
        return Err(format!("decided by `{}`, which the language does not say", rules.rules[rule].key()));
    }
    let (mut allowed, mut forwarded) = (0u8, String::new());
    for (number, caller) in subject.callers.iter().enumerate() {
        let caller = if routed.needs_credential() { caller.clone() } else { Caller::Anonymous };
        let Ok(permit) = authorize(routed.clone(), caller, &facts, now) else { continue };
        let Ok(target) = permit.forwarded_target() else { continue };
        if allowed == 0 {
            target.split('?').next().unwrap_or_default().clone_into(&mut forwarded);
        }
        allowed |= 1 << number;
    }
    if allowed == 0 {
        return Ok(());
    }
    if allowed & !rules.rules[rule].callers() != 0 {
        return Err(format!("`{}` lets callers {allowed:#b} pass", rules.rules[rule].key()));
    }
    seen.forwarded += 1;
    for reader in &READERS {
        seen.pairs += 1;
        reading(subject, reader, (rule, &matched), &forwarded, allowed, irregular, seen)?;
    }
    Ok(())
}

fn reading(
    subject: &Subject,
    reader: &Reader,
    (rule, matched): (usize, &[String]),
    forwarded: &str,
    allowed: u8,
    irregular: bool,
    seen: &mut Seen,
) -> Result<(), String> {
    let rules = &subject.rules;
    let ignores_case = reader.ignores_case(rules.case);
    let path = (reader.read)(forwarded);
    // A file that the policy names with its suffix is that file.
    if reader.has_suffixes && rules.is_file(rule, matched) {
        return Ok(());
    }
    let mut own = rules.back(rule, &path, ignores_case);
    if reader.has_path_info
        && let Some(script) = own.as_deref().and_then(|path| rules.script(path))
    {
        own = Some(script);
    }
    let other = own.as_deref().and_then(|path| rules.rule(path, ignores_case));
    if other == Some(rule) {
        return Ok(());
    }
    if other.is_none() && (reader.folds || irregular) {
        seen.unruled += 1;
        return Ok(());
    }
    let may = other.map_or(0, |other| rules.rules[other].callers());
    if allowed & !may == 0 {
        seen.elsewhere += 1;
        return Ok(());
    }
    let named = other.is_some_and(|other| {
        subject.named.iter().any(|(caught, sibling, more)| *caught == rule && (*sibling == other || *more))
    });
    if named && (reader.folds || irregular) {
        *seen.named.entry(reader.name).or_default() += 1;
        return Ok(());
    }
    // Suffixes, dots and path-info below a tree, where the app has stated how its upstream compares paths.
    if reader.folds && !reader.folds_case && rules.allow.is_empty() && rules.case != rules::Case::Unset {
        seen.stated += 1;
        return Ok(());
    }
    Err(format!(
        "`{}` lets callers {allowed:#b} pass; `{forwarded}` is `/{}` to {}, which is `{}`'s",
        rules.rules[rule].key(),
        path.join("/"),
        reader.name,
        other.map_or_else(|| "nobody".to_owned(), |other| rules.rules[other].key()),
    ))
}
