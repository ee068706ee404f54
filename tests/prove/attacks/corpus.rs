//! The corpus as it stands in `tests/attacks`: its format is described there, in `README.md`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::keys::{Forgery, Keys};
use super::readers::Reader;

/// Every case and every ordinary request.
pub struct Corpus {
    pub cases: Vec<Case>,
    pub ordinary: Vec<Ordinary>,
    /// Class, group id and what each cites.
    pub cites: Vec<(String, Vec<String>)>,
    pub keys: Keys,
}

/// One attack.
#[derive(Clone, Debug)]
pub struct Case {
    /// `A01/3`: the row of the threat model and a number.
    pub id: String,
    pub wire: Wire,
    /// For each policy under which it is run, what Portcullis must do.
    pub expect: Vec<(Policy, Vec<Outcome>)>,
    /// Who reads the path that is forwarded.
    pub read_by: Vec<Reader>,
    /// Whose token it brings, if a valid one.
    pub credential: Credential,
    /// Texts of the client's that no header upstream may have.
    pub absent: Vec<String>,
    /// Header lines that the upstream must have got, in these words.
    pub present: Vec<String>,
    /// The connection must end with the first answer.
    pub ends: bool,
}

/// What is sent.
#[derive(Clone, Debug)]
pub enum Wire {
    Request(Request),
    /// These bytes, on a connection of their own.
    Raw(Vec<u8>),
    /// One HTTP/2 stream, or frames as they are.
    H2(H2),
}

/// A request in its parts: it can be sent over HTTP/1 and HTTP/2.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub host: Vec<u8>,
    /// Header lines without their ends.
    pub lines: Vec<Vec<u8>>,
    pub body: Option<Vec<u8>>,
}

/// Without the spaces and tabs around it.
fn trimmed(value: &[u8]) -> Vec<u8> {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(start, |last| last + 1);
    value[start..end].to_vec()
}

type Pair = (Vec<u8>, Vec<u8>);

#[derive(Clone, Debug, Default)]
pub struct H2 {
    pub fields: Vec<Pair>,
    pub data: Vec<Vec<u8>>,
    pub trailers: Vec<Pair>,
    /// Kind, flags, stream, payload: sent instead of the stream.
    pub frames: Vec<(u8, u8, u32, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    Nobody,
    Reader,
    Admin,
}

/// The policies of the threat model, and one with an app for each option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    P0,
    P1,
    Options,
}

impl Policy {
    pub const ALL: [Self; 3] = [Self::P0, Self::P1, Self::Options];

    pub const fn name(self) -> &'static str {
        match self {
            Self::P0 => "p0",
            Self::P1 => "p1",
            Self::Options => "options",
        }
    }

    /// Whether this path is closed to a client with this credential.
    pub fn closes(self, path: &[u8], credential: Credential) -> bool {
        let under = |tree: &str| {
            path.strip_prefix(tree.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        match (credential, self) {
            (Credential::Admin, _) => false,
            (Credential::Reader, Self::P0) => !under("/public") && !under("/api/items"),
            (_, Self::P0) => !under("/public"),
            (_, Self::P1 | Self::Options) => under("/admin"),
        }
    }
}

/// One of the things that Portcullis may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This status, and the upstream saw nothing.
    Refused(u16),
    /// No answer (a reset stream, an ended connection), and the upstream saw nothing.
    Closed,
    /// This status, and the upstream saw one request of this target.
    Forwarded(u16, Option<Vec<u8>>),
    /// 400 or no answer, after the upstream saw the beginning of one request: its body broke off on the way.
    Cut,
}

/// What must pass untouched.
#[derive(Clone, Debug)]
pub struct Ordinary {
    pub name: String,
    pub request: Request,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "class")]
    _class: String,
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    id: String,
    cites: Vec<String>,
    why: String,
    #[serde(default = "both")]
    policy: String,
    #[serde(default, rename = "as")]
    shape: Shape,
    #[serde(default)]
    read_by: Vec<Reader>,
    method: Option<String>,
    target: Option<String>,
    host: Option<String>,
    #[serde(default)]
    lines: Vec<String>,
    body: Option<String>,
    #[serde(default)]
    inputs: Vec<Input>,
    #[serde(default)]
    combine: Vec<BTreeMap<String, OneOrMore>>,
    #[serde(default)]
    tokens: Vec<Tokens>,
    #[serde(default)]
    h2: Vec<Stream>,
    expect: Expect,
    #[serde(default)]
    absent: Vec<String>,
    #[serde(default)]
    present: Vec<String>,
    #[serde(default)]
    ends: bool,
    #[serde(default)]
    smuggle: bool,
}

fn both() -> String {
    "both".to_owned()
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Shape {
    #[default]
    Target,
    /// A header line.
    Line,
    Method,
    Host,
    /// The text behind `Authorization: `.
    Authorization,
    Raw,
    /// Header lines of a POST whose body is the group's.
    Framing,
    /// The body of a chunked POST.
    Chunks,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Plain(String),
    Own { input: String, expect: Expect },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Expect {
    Same(String),
    Each(BTreeMap<String, String>),
}

/// Forgeries: each of the lists with each of the others.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tokens {
    headers: Vec<String>,
    claims: Vec<BTreeMap<String, String>>,
    more: Vec<String>,
    keys: Vec<String>,
    forms: Vec<String>,
    expect: Option<Expect>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Stream {
    /// In the place of the field of this name.
    replace: Vec<(String, String)>,
    add: Vec<(String, String)>,
    before: Vec<(String, String)>,
    drop: Vec<String>,
    data: Vec<String>,
    trailers: Vec<(String, String)>,
    frames: Vec<(u8, u8, u32, String)>,
    expect: Option<Expect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Untouched {
    #[serde(rename = "why")]
    _why: String,
    /// Sent with the header lines of a browser's first visit.
    targets: Vec<String>,
    requests: Vec<UntouchedRequest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UntouchedRequest {
    name: String,
    #[serde(default = "get")]
    method: String,
    target: Option<String>,
    #[serde(default)]
    lines: Vec<String>,
    body: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

/// A smuggled request asks for this; it is closed under every policy.
pub const SMUGGLED: &str = "GET /admin/smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n";

impl Corpus {
    /// All files of `tests/attacks`.
    pub fn read() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks");
        let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        let mut corpus = Self { cases: Vec::new(), ordinary: Vec::new(), cites: Vec::new(), keys: Keys::new() };
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap();
            if path.ends_with("ordinary.yaml") {
                let all: Untouched = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
                corpus.ordinary = ordinary(all, &corpus.keys);
                continue;
            }
            let file: File = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            for group in file.groups {
                corpus.add(group);
            }
        }
        corpus
    }

    fn add(&mut self, group: Group) {
        assert!(!group.why.is_empty(), "{} says no why", group.id);
        self.cites.push((group.id.clone(), group.cites.clone()));
        let policies: &[Policy] = match &*group.policy {
            "both" => &[Policy::P0, Policy::P1],
            "p0" => &[Policy::P0],
            "p1" => &[Policy::P1],
            "options" => &[Policy::Options],
            other => panic!("{}: no policy is called {other}", group.id),
        };
        let before = self.cases.iter().filter(|case| case.id.split('/').next() == Some(&group.id)).count();
        let mut number = before;
        let mut push = |cases: &mut Vec<Case>, wire: Wire, text: &str, expect: &Expect| {
            number += 1;
            let credential = match text {
                _ if text.contains("{admin}") => Credential::Admin,
                _ if text.contains("{reader}") || text.contains("{writer}") => Credential::Reader,
                _ => Credential::Nobody,
            };
            let target = match &wire {
                Wire::Request(request) => Some(request.target.clone()),
                _ => None,
            };
            cases.push(Case {
                id: format!("{}/{number}", group.id),
                wire,
                expect: policies.iter().map(|policy| (*policy, outcomes(expect, *policy, target.as_deref()))).collect(),
                read_by: if group.read_by.is_empty() { vec![Reader::Rfc3986] } else { group.read_by.clone() },
                credential,
                absent: group.absent.clone(),
                present: group.present.clone(),
                ends: group.ends,
            });
        };
        let keys = &self.keys;
        let frame = format!("{:?} {:?} {:?} {:?}", group.target, group.lines, group.host, group.body);
        for input in &group.inputs {
            let (text, expect) = match input {
                Input::Plain(text) => (text, &group.expect),
                Input::Own { input, expect } => (input, expect),
            };
            push(&mut self.cases, group.wire(text, keys), &format!("{frame} {text}"), expect);
        }
        for combination in &group.combine {
            for text in combined(combination) {
                push(&mut self.cases, group.wire(&text, keys), &format!("{frame} {text}"), &group.expect);
            }
        }
        for tokens in &group.tokens {
            for forgery in tokens.all() {
                let authorization = format!("Bearer {}", keys.token(&forgery));
                let request = Request {
                    lines: vec![[b"Authorization: ", authorization.as_bytes()].concat()],
                    ..group.request(keys)
                };
                let expect = tokens.expect.as_ref().unwrap_or(&group.expect);
                let good = policies.iter().any(|policy| {
                    outcomes(expect, *policy, Some(&request.target))
                        .iter()
                        .any(|it| matches!(it, Outcome::Forwarded(..)))
                });
                push(&mut self.cases, Wire::Request(request), if good { "{admin}" } else { "" }, expect);
            }
        }
        for stream in &group.h2 {
            let wire = Wire::H2(stream.wire(&group, keys));
            let texts: String = stream.add.iter().chain(&stream.replace).map(|(_, value)| &**value).collect();
            push(&mut self.cases, wire, &format!("{frame} {texts}"), stream.expect.as_ref().unwrap_or(&group.expect));
        }
        assert!(number > before, "{} has no case", group.id);
    }
}

impl Group {
    fn request(&self, keys: &Keys) -> Request {
        Request {
            method: bytes(self.method.as_deref().unwrap_or("GET"), keys),
            target: bytes(self.target.as_deref().unwrap_or("/public/x"), keys),
            host: bytes(self.host.as_deref().unwrap_or("api.test"), keys),
            lines: self.lines.iter().map(|line| bytes(line, keys)).collect(),
            body: self.body.as_ref().map(|body| bytes(body, keys)),
        }
    }

    fn wire(&self, text: &str, keys: &Keys) -> Wire {
        let input = bytes(text, keys);
        let mut request = self.request(keys);
        let raw = match self.shape {
            Shape::Target => {
                request.target = input;
                return Wire::Request(request);
            }
            Shape::Line => {
                request.lines.extend(lines(&input));
                return Wire::Request(request);
            }
            Shape::Method => {
                request.method = input;
                return Wire::Request(request);
            }
            Shape::Host => {
                request.host = input;
                return Wire::Request(request);
            }
            Shape::Authorization => {
                request.lines.push([b"Authorization: ", &*input].concat());
                return Wire::Request(request);
            }
            Shape::Raw => input,
            Shape::Framing => {
                request.method = bytes(self.method.as_deref().unwrap_or("POST"), keys);
                let body = request.body.take().unwrap_or_default();
                let head = request.head();
                [&head[..head.len() - 2], &input, b"\r\n", &body].concat()
            }
            Shape::Chunks => {
                request.method = bytes(self.method.as_deref().unwrap_or("POST"), keys);
                request.lines.push(b"Transfer-Encoding: chunked".to_vec());
                [request.head(), input].concat()
            }
        };
        let behind = if self.smuggle { SMUGGLED } else { "" };
        Wire::Raw([&raw, behind.as_bytes()].concat())
    }
}

impl Request {
    /// The head in HTTP/1.1, with its last empty line.
    pub fn head(&self) -> Vec<u8> {
        let mut head = [&*self.method, b" ", &self.target, b" HTTP/1.1\r\nHost: ", &self.host, b"\r\n"].concat();
        for line in &self.lines {
            head.extend_from_slice(line);
            head.extend_from_slice(b"\r\n");
        }
        if let Some(body) = &self.body {
            head.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// As sent over HTTP/1.1.
    pub fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone().unwrap_or_default()].concat()
    }

    /// As fields of HTTP/2; names that a header line has no colon for are left out.
    pub fn h2(&self) -> H2 {
        let pseudo = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
        let mut fields = vec![
            pseudo(":method", &self.method),
            pseudo(":scheme", b"https"),
            pseudo(":authority", &self.host),
            pseudo(":path", &self.target),
        ];
        for line in &self.lines {
            if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                fields.push((line[..colon].to_ascii_lowercase(), trimmed(&line[colon + 1..])));
            }
        }
        H2 { fields, data: self.body.clone().into_iter().collect(), ..H2::default() }
    }
}

impl Tokens {
    fn all(&self) -> Vec<Forgery> {
        fn or<T: Clone + Default>(list: &[T]) -> Vec<T> {
            if list.is_empty() { vec![T::default()] } else { list.to_vec() }
        }
        let mut all = Vec::new();
        for header in or(&self.headers) {
            for claims in or(&self.claims) {
                for more in or(&self.more) {
                    for key in or(&self.keys) {
                        for form in or(&self.forms) {
                            let header = (!header.is_empty()).then(|| header.clone());
                            let (claims, more, key) = (claims.clone(), more.clone(), key.clone());
                            all.push(Forgery { header, claims, more, key, form });
                        }
                    }
                }
            }
        }
        all
    }
}

impl Stream {
    fn wire(&self, group: &Group, keys: &Keys) -> H2 {
        let pairs = |pairs: &[(String, String)]| -> Vec<Pair> {
            pairs.iter().map(|(name, value)| (bytes(name, keys), bytes(value, keys))).collect()
        };
        let request = Request { body: None, ..group.request(keys) };
        let mut fields = pairs(&self.before);
        fields.extend(request.h2().fields);
        for (name, value) in pairs(&self.replace) {
            let field = fields.iter_mut().find(|field| field.0 == name).expect("a field to replace");
            field.1 = value;
        }
        fields.retain(|(name, _)| !self.drop.iter().any(|drop| drop.as_bytes() == name));
        fields.extend(pairs(&self.add));
        H2 {
            fields,
            data: self.data.iter().map(|data| bytes(data, keys)).collect(),
            trailers: pairs(&self.trailers),
            frames: self.frames.iter().map(|it| (it.0, it.1, it.2, bytes(&it.3, keys))).collect(),
        }
    }
}

fn ordinary(all: Untouched, keys: &Keys) -> Vec<Ordinary> {
    let base = all.requests.first().expect("a browser's first visit").lines.clone();
    let request = |method: &str, target: &str, lines: &[String], body: Option<&String>| Request {
        method: bytes(method, keys),
        target: bytes(target, keys),
        host: b"api.test".to_vec(),
        lines: lines.iter().map(|line| bytes(line, keys)).collect(),
        body: body.map(|body| bytes(body, keys)),
    };
    let of_targets = all
        .targets
        .iter()
        .map(|target| Ordinary { name: target.clone(), request: request("GET", target, &base, None) });
    let of_requests = all.requests.iter().map(|it| Ordinary {
        name: it.name.clone(),
        request: request(&it.method, it.target.as_deref().unwrap_or("/items"), &it.lines, it.body.as_ref()),
    });
    of_targets.chain(of_requests).collect()
}

/// `form` with each value of each other list in the place of its name.
fn combined(combination: &BTreeMap<String, OneOrMore>) -> Vec<String> {
    let list = |value: &OneOrMore| match value {
        OneOrMore::One(one) => vec![one.clone()],
        OneOrMore::More(more) => more.clone(),
    };
    let mut all = list(combination.get("form").expect("a combination has a form"));
    for (name, values) in combination.iter().filter(|(name, _)| *name != "form") {
        let values = list(values);
        let place = format!("{{{name}}}");
        all = all.iter().flat_map(|form| values.iter().map(|value| form.replace(&place, value))).collect();
    }
    all
}

/// The bytes that a text of the corpus stands for: a character up to U+00FF is the byte of that number, any other is
/// UTF-8. `{admin}` and the like are tokens, `{N x TEXT}` is a text many times.
fn bytes(text: &str, keys: &Keys) -> Vec<u8> {
    let mut text = keys.fill(text);
    while let Some((at, end, times, what)) = repeated(&text) {
        text.replace_range(at..=end, &what.repeat(times));
    }
    let mut bytes = Vec::new();
    for character in text.chars() {
        match u8::try_from(u32::from(character)) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

fn repeated(text: &str) -> Option<(usize, usize, usize, String)> {
    text.match_indices('{').find_map(|(at, _)| {
        let end = at + text[at..].find('}')?;
        let (times, what) = text[at + 1..end].split_once(" x ")?;
        Some((at, end, times.parse().ok()?, what.to_owned()))
    })
}

fn lines(input: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    let mut rest = input;
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        lines.push(rest[..end].to_vec());
        rest = &rest[end + 2..];
    }
    lines.push(rest.to_vec());
    lines
}

fn outcomes(expect: &Expect, policy: Policy, target: Option<&[u8]>) -> Vec<Outcome> {
    let text = match expect {
        Expect::Same(text) => text,
        Expect::Each(each) => each.get(policy.name()).unwrap_or_else(|| panic!("nothing expected under {policy:?}")),
    };
    let outcome = |text: &str| {
        let (status, forwarded) = text.split_once(' ').unwrap_or((text, ""));
        match status {
            "closed" => return Outcome::Closed,
            "cut" => return Outcome::Cut,
            _ => {}
        }
        let status = status.parse().unwrap_or_else(|_| panic!("`{text}` is no outcome"));
        match forwarded.trim() {
            "" => Outcome::Refused(status),
            "any" => Outcome::Forwarded(status, None),
            "same" => Outcome::Forwarded(status, Some(target.expect("`same` is for requests in parts").to_vec())),
            target => Outcome::Forwarded(status, Some(target.as_bytes().to_vec())),
        }
    };
    text.split('|').map(|text| outcome(text.trim())).collect()
}
