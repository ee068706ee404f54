//! From the text of a file to records: CSV, JSON in three shapes, and the exports of others.
//!
//! One bad row never hides the others: each is kept with its line and why. What a row means is in `fields`; whether a
//! name or a hash is any good is not looked at here.

use std::collections::{BTreeMap, HashMap};

use clap::ValueEnum;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::secret::Secret;

use super::fields;

/// The most users in one file.
pub const MOST_RECORDS: usize = 1_000_000;

/// Whose export a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Origin {
    /// A table with a header: `username,email,password_hash,roles,scopes,tenant,disabled`
    Csv,
    /// Objects with the same names, one a line or in one array; also what `user export` writes
    Json,
    /// `manage.py dumpdata auth.group auth.user`
    Django,
    /// The table `auth.users`, as CSV or JSON
    Supabase,
    /// `{"johndoe": {"username": "johndoe", "hashed_password": "…"}}`
    Fastapi,
    /// An Auth0 export: `passwordHash`, or `custom_password_hash`
    Auth0,
}

/// A user as a file states it. `None` is what it says nothing about.
#[derive(Debug, Default)]
pub struct Record {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// An id that is kept because it is a UUID.
    pub id: Option<String>,
    /// The name.
    pub name: String,
    /// The address.
    pub email: Option<String>,
    /// What to log in with.
    pub password: Stated,
    /// Roles.
    pub roles: Option<Vec<String>>,
    /// Scopes.
    pub scopes: Option<Vec<String>>,
    /// The tenant.
    pub tenant: Option<String>,
    /// Whether login is off.
    pub disabled: Option<bool>,
}

/// What a file states about a password.
#[derive(Debug, Default)]
pub enum Stated {
    /// Nothing: the user cannot log in yet.
    #[default]
    Nothing,
    /// A hash of it.
    Hash(Secret<String>),
    /// The password, or a hash of it, in a column that is named `password`.
    Either(Secret<String>),
}

/// A row that is no user, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Bad {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// The name, where it could be read.
    pub name: Option<String>,
    /// Why.
    pub why: String,
}

/// What a file holds.
#[derive(Debug)]
pub struct Reading {
    /// Whose export it was taken for.
    pub origin: Origin,
    /// Its users.
    pub records: Vec<Record>,
    /// The rows that are none.
    pub bad: Vec<Bad>,
    /// What was left out on purpose, with how often.
    pub skipped: BTreeMap<&'static str, usize>,
    /// Columns that are not looked at.
    pub unread: Vec<String>,
}

/// What an object says, beside a record.
pub enum Item {
    /// A user.
    User(Box<Record>),
    /// Something to leave out.
    Skip(&'static str),
}

/// What is known beside the object that is read.
pub struct Surroundings {
    /// Whose export it is.
    pub origin: Origin,
    /// The present time.
    pub now: Timestamp,
    /// Django: names of groups by their number.
    pub groups: HashMap<i64, String>,
}

/// Reads a file. `Err` is what makes the whole file unreadable.
pub fn read(text: &str, from: Option<Origin>, now: Timestamp) -> Result<Reading, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let shape = Shape::of(text);
    let origin = match (from, &shape) {
        (Some(Origin::Csv), Shape::Array | Shape::Lines | Shape::Object) => {
            return Err("it is JSON, not CSV".to_owned());
        }
        (Some(origin @ (Origin::Json | Origin::Django | Origin::Fastapi | Origin::Auth0)), Shape::Table) => {
            return Err(format!("it is not JSON, which {} is", origin.as_str()));
        }
        (Some(origin), _) => origin,
        (None, Shape::Table) => Origin::Csv,
        (None, Shape::Array | Shape::Lines | Shape::Object) => Origin::Json,
    };
    let mut reader = Reader {
        surroundings: Surroundings { origin, now, groups: HashMap::new() },
        guess: from.is_none(),
        reading: Reading { origin, records: Vec::new(), bad: Vec::new(), skipped: BTreeMap::new(), unread: Vec::new() },
    };
    match shape {
        Shape::Table => reader.table(text)?,
        Shape::Lines => reader.lines(text)?,
        Shape::Array => reader.array(text)?,
        Shape::Object => reader.object(text)?,
    }
    reader.reading.origin = reader.surroundings.origin;
    Ok(reader.reading)
}

/// How a text is made.
enum Shape {
    /// CSV.
    Table,
    /// One object a line.
    Lines,
    /// `[{…}, {…}]`.
    Array,
    /// `{"name": {…}, …}`.
    Object,
}

impl Shape {
    fn of(text: &str) -> Self {
        let trimmed = text.trim_start();
        if trimmed.starts_with('[') {
            return Self::Array;
        }
        if !trimmed.starts_with('{') {
            return Self::Table;
        }
        let first = trimmed.lines().next().unwrap_or_default();
        match serde_json::from_str::<Map<String, Value>>(first) {
            // One line that is a user; or a whole dictionary of users on one line.
            Ok(object) if object.is_empty() || !object.values().all(Value::is_object) => Self::Lines,
            Ok(_) => Self::Object,
            Err(_) if serde_json::from_str::<IgnoredAny>(trimmed).is_ok() => Self::Object,
            // A first line that is broken, among others that are not.
            Err(_) if trimmed.lines().take(20).any(|line| serde_json::from_str::<Map<String, Value>>(line).is_ok()) => {
                Self::Lines
            }
            Err(_) => Self::Object,
        }
    }
}

struct Reader {
    surroundings: Surroundings,
    /// Whether the origin is still a guess.
    guess: bool,
    reading: Reading,
}

impl Reader {
    fn table(&mut self, text: &str) -> Result<(), String> {
        let header = text.lines().next().unwrap_or_default();
        let delimiter = if header.contains(',') {
            b','
        } else if header.contains('\t') {
            b'\t'
        } else if header.contains(';') {
            b';'
        } else {
            b','
        };
        let mut table = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(text.as_bytes());
        let columns: Vec<String> = match table.headers() {
            Ok(header) => header.iter().map(|name| name.trim().to_owned()).collect(),
            Err(_) => return Err("its first line is no header".to_owned()),
        };
        if columns.iter().all(String::is_empty) {
            return Err("it is empty".to_owned());
        }
        if self.guess && columns.iter().any(|column| column == "encrypted_password") {
            self.surroundings.origin = Origin::Supabase;
        }
        fields::check_columns(&columns)?;
        self.reading.unread = fields::unread(&columns, self.surroundings.origin);
        for row in table.records() {
            let row = match row {
                Ok(row) => row,
                Err(error) => {
                    let line = error.position().map_or(0, |position| position.line());
                    self.bad(usize::try_from(line).unwrap_or(0), None, "it is not CSV".to_owned())?;
                    continue;
                }
            };
            let line = row.position().map_or(0, |position| line_of(text, position));
            if row.len() == 1 && row.get(0).is_some_and(|only| only.trim().is_empty()) {
                continue;
            }
            if row.len() != columns.len() {
                let open = row.iter().any(|field| field.contains('\n'));
                let hint = if open { " (is a quote not closed?)" } else { "" };
                let why = format!("{} values for {} columns{hint}", row.len(), columns.len());
                self.bad(line, None, why)?;
                continue;
            }
            let object = columns.iter().cloned().zip(row.iter().map(|field| Value::String(field.to_owned()))).collect();
            self.one(line, None, &object)?;
        }
        Ok(())
    }

    fn lines(&mut self, text: &str) -> Result<(), String> {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match serde_json::from_str::<Value>(line) {
                Ok(value) => self.value(number + 1, None, &value)?,
                Err(error) => self.bad(number + 1, None, not_json(&error))?,
            }
        }
        Ok(())
    }

    fn array(&mut self, text: &str) -> Result<(), String> {
        let mut scan = Scan::new(text);
        scan.expect('[')?;
        while !scan.ends_with(']')? {
            let line = scan.line();
            let value = scan.value()?;
            self.value(line, None, &value)?;
        }
        scan.end()
    }

    fn object(&mut self, text: &str) -> Result<(), String> {
        let mut scan = Scan::new(text);
        scan.expect('{')?;
        let mut plain = Map::new();
        while !scan.ends_with('}')? {
            let line = scan.line();
            let Value::String(key) = scan.value()? else { return Err(format!("line {line}: not JSON: no name")) };
            scan.expect(':')?;
            match scan.value()? {
                // `{"users": [{…}]}`: a list in a wrapper.
                Value::Array(users) if users.iter().all(Value::is_object) && !users.is_empty() && plain.is_empty() => {
                    for user in &users {
                        self.value(line, None, user)?;
                    }
                }
                Value::Object(user) => {
                    if self.guess {
                        self.surroundings.origin = Origin::Fastapi;
                    }
                    self.one(line, Some(&key), &user)?;
                }
                value => drop(plain.insert(key, value)),
            }
        }
        // One user alone, written over several lines.
        if self.reading.records.is_empty() && self.reading.bad.is_empty() && !plain.is_empty() {
            self.one(1, None, &plain)?;
        }
        scan.end()
    }

    fn value(&mut self, line: usize, key: Option<&str>, value: &Value) -> Result<(), String> {
        match value.as_object() {
            Some(object) => {
                if std::mem::take(&mut self.guess)
                    && let Some(origin) = fields::recognise(object)
                {
                    self.surroundings.origin = origin;
                }
                self.one(line, key, object)
            }
            None => self.bad(line, None, "it is no object".to_owned()),
        }
    }

    fn one(&mut self, line: usize, key: Option<&str>, object: &Map<String, Value>) -> Result<(), String> {
        match fields::read(object, key, &mut self.surroundings) {
            Ok(Item::User(record)) => self.reading.records.push(Record { line, ..*record }),
            Ok(Item::Skip(what)) => *self.reading.skipped.entry(what).or_default() += 1,
            Err((name, why)) => return self.bad(line, name, why),
        }
        self.limit()
    }

    fn bad(&mut self, line: usize, name: Option<String>, why: String) -> Result<(), String> {
        self.reading.bad.push(Bad { line, name, why });
        self.limit()
    }

    fn limit(&self) -> Result<(), String> {
        match self.reading.records.len() + self.reading.bad.len() {
            0..=MOST_RECORDS => Ok(()),
            _ => Err(format!("it has more than {MOST_RECORDS} rows: split it")),
        }
    }
}

/// The line where a row begins: its position is where the one before ended, and blank lines may follow that.
fn line_of(text: &str, position: &csv::Position) -> usize {
    let from = usize::try_from(position.byte()).ok().and_then(|at| text.as_bytes().get(at..)).unwrap_or_default();
    let blank = from.iter().take_while(|byte| matches!(**byte, b'\r' | b'\n')).filter(|byte| **byte == b'\n').count();
    usize::try_from(position.line()).unwrap_or(usize::MAX).saturating_add(blank)
}

/// Why a text is no JSON; never with a part of it.
fn not_json(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => "not JSON: it ends too early".to_owned(),
        _ => format!("not JSON: column {}", error.column()),
    }
}

/// Walks over the values of an array or object, and knows on which line it stands.
struct Scan<'t> {
    rest: &'t str,
    line: usize,
    first: bool,
}

impl<'t> Scan<'t> {
    fn new(text: &'t str) -> Self {
        Self { rest: text, line: 1, first: true }
    }

    fn line(&self) -> usize {
        self.line
    }

    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.line += passed.bytes().filter(|byte| *byte == b'\n').count();
        self.rest = rest;
    }

    fn space(&mut self) {
        let blank = self.rest.len() - self.rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.advance(blank);
    }

    fn expect(&mut self, char: char) -> Result<(), String> {
        self.space();
        if !self.rest.starts_with(char) {
            return Err(format!("line {}: not JSON: `{char}` expected", self.line));
        }
        self.advance(char.len_utf8());
        self.space();
        Ok(())
    }

    /// Whether the array or object ends here; else goes over the comma before the next value.
    fn ends_with(&mut self, close: char) -> Result<bool, String> {
        self.space();
        if self.rest.starts_with(close) {
            self.advance(close.len_utf8());
            return Ok(true);
        }
        if !std::mem::take(&mut self.first) {
            self.expect(',')?;
        }
        Ok(false)
    }

    fn value(&mut self) -> Result<Value, String> {
        self.space();
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<Value>();
        let value = values.next();
        let passed = values.byte_offset();
        match value {
            Some(Ok(value)) => {
                self.advance(passed);
                Ok(value)
            }
            Some(Err(error)) => {
                Err(format!("line {}: {}", self.line + error.line().saturating_sub(1), not_json(&error)))
            }
            None => Err(format!("line {}: not JSON: it ends too early", self.line)),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.space();
        if self.rest.is_empty() { Ok(()) } else { Err(format!("line {}: not JSON: more than one value", self.line)) }
    }
}

impl Origin {
    /// The word of `--from`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Django => "django",
            Self::Supabase => "supabase",
            Self::Fastapi => "fastapi",
            Self::Auth0 => "auth0",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Reading {
        super::read(text, None, Timestamp::from_seconds(1_800_000_000)).unwrap()
    }

    fn shown(record: &Record) -> String {
        let password = match &record.password {
            Stated::Nothing => "-".to_owned(),
            Stated::Hash(hash) => format!("hash {}", hash.expose()),
            Stated::Either(either) => format!("either {}", either.expose()),
        };
        let list = |list: &Option<Vec<String>>| list.as_ref().map_or_else(|| "-".to_owned(), |list| list.join("+"));
        format!(
            "{}: {} <{}> {password} roles {} scopes {} tenant {} disabled {}",
            record.line,
            record.name,
            record.email.as_deref().unwrap_or("-"),
            list(&record.roles),
            list(&record.scopes),
            record.tenant.as_deref().unwrap_or("-"),
            record.disabled.map_or_else(|| "-".to_owned(), |disabled| disabled.to_string()),
        )
    }

    #[test]
    fn each_format_is_recognised_and_read() {
        let cases: &[(&str, Origin, &[&str])] = &[
            (
                "name,email,password_hash,roles,scopes,tenant,disabled\n\
                 ann,ann@example.com,$2b$04$x,editor;admin,items:read me,acme,false\n\n\
                 \"bob, the builder\",,,,,,yes\n",
                Origin::Csv,
                &[
                    "2: ann <ann@example.com> hash $2b$04$x roles editor+admin scopes items:read+me tenant acme disabled false",
                    "4: bob, the builder <-> - roles  scopes  tenant - disabled true",
                ],
            ),
            (
                "\u{feff}Username;Hashed Password;Is-Active\r\nann;$2b$04$x;0\r\n",
                Origin::Csv,
                &["2: ann <-> hash $2b$04$x roles - scopes - tenant - disabled true"],
            ),
            (
                "password\tuser_name\nhunter2\tann\n",
                Origin::Csv,
                &["2: ann <-> either hunter2 roles - scopes - tenant - disabled -"],
            ),
            (
                "{\"username\":\"ann\",\"scopes\":[\"a\",\"b\"]}\n\n{\"username\":\"bob\",\"roles\":\"x y\"}\n",
                Origin::Json,
                &[
                    "1: ann <-> - roles - scopes a+b tenant - disabled -",
                    "3: bob <-> - roles x+y scopes - tenant - disabled -",
                ],
            ),
            (
                "[\n {\"username\":\"ann\"},\n\n {\"name\":\"bob\", \"disabled\":true}\n]\n",
                Origin::Json,
                &[
                    "2: ann <-> - roles - scopes - tenant - disabled -",
                    "4: bob <-> - roles - scopes - tenant - disabled true",
                ],
            ),
            (
                r#"[{"model":"auth.group","pk":7,"fields":{"name":"editors"}},
                    {"model":"auth.user","pk":1,"fields":{"username":"ann","email":"ann@example.com",
                     "password":"pbkdf2_sha256$1000$x$y","is_active":true,"is_superuser":true,"groups":[7]}},
                    {"model":"accounts.member","pk":2,"fields":{"email":"bob@example.com","password":"!none","is_active":false,
                     "groups":[["writers"]]}},
                    {"model":"sessions.session","pk":"x","fields":{"session_data":"y"}}]"#,
                Origin::Django,
                &[
                    "2: ann <ann@example.com> hash pbkdf2_sha256$1000$x$y roles editors scopes - tenant - disabled false",
                    "4: bob@example.com <bob@example.com> - roles writers scopes - tenant - disabled true",
                ],
            ),
            (
                "instance_id,id,aud,role,email,encrypted_password,banned_until,raw_app_meta_data\n\
                 0,0193530c-0000-7000-8000-000000000001,authenticated,authenticated,ann@example.com,$2a$10$x,,\
                 \"{\"\"provider\"\":\"\"email\"\",\"\"roles\"\":[\"\"editor\"\"]}\"\n\
                 0,0193530c-0000-7000-8000-000000000002,authenticated,authenticated,bob@example.com,,2222-01-01 00:00:00+00,{}\n\
                 0,0193530c-0000-7000-8000-000000000003,authenticated,authenticated,cid@example.com,,2022-01-01 00:00:00.5+00,\n",
                Origin::Supabase,
                &[
                    "2: ann@example.com <ann@example.com> hash $2a$10$x roles editor scopes - tenant - disabled false",
                    "3: bob@example.com <bob@example.com> - roles - scopes - tenant - disabled true",
                    "4: cid@example.com <cid@example.com> - roles - scopes - tenant - disabled false",
                ],
            ),
            (
                "{\n  \"johndoe\": {\"username\": \"johndoe\", \"full_name\": \"John\", \"hashed_password\": \"$2b$12$x\", \"disabled\": false},\n  \
                 \"alice\": {\"email\": \"alice@example.com\", \"hashed_password\": \"$2b$12$y\", \"disabled\": true}\n}",
                Origin::Fastapi,
                &[
                    "2: johndoe <-> hash $2b$12$x roles - scopes - tenant - disabled false",
                    "3: alice <alice@example.com> hash $2b$12$y roles - scopes - tenant - disabled true",
                ],
            ),
            (
                "{\"_id\":{\"$oid\":\"x\"},\"email\":\"ann@example.com\",\"name\":\"Ann\",\"passwordHash\":\"$2b$10$x\"}\n\
                 {\"email\":\"bob@example.com\",\"blocked\":true,\"custom_password_hash\":{\"algorithm\":\"bcrypt\",\"hash\":{\"value\":\"$2b$10$y\"}}}",
                Origin::Auth0,
                &[
                    "1: ann@example.com <ann@example.com> hash $2b$10$x roles - scopes - tenant - disabled -",
                    "2: bob@example.com <bob@example.com> hash $2b$10$y roles - scopes - tenant - disabled true",
                ],
            ),
        ];
        for (text, origin, expected) in cases {
            let reading = read(text);
            assert_eq!(reading.bad, [], "{text}");
            assert_eq!(reading.records.iter().map(shown).collect::<Vec<_>>(), *expected, "{text}");
            assert_eq!(reading.origin, *origin, "{text}");
        }
    }

    #[test]
    fn every_bad_row_is_named_with_its_line() {
        let cases: &[(&str, &[(usize, &str)])] = &[
            (
                "username,roles,disabled\nann,editor\n,editor,false\nbob,,maybe\n\"cid\nx\",a,\"b\n",
                &[
                    (2, "2 values for 3 columns"),
                    (3, "no name"),
                    (4, "`disabled` is neither true nor false"),
                    (5, "`disabled` is neither true nor false"),
                ],
            ),
            (
                "{\"username\":\"ann\"}\n{\"username\":\n[1]\n{\"username\":7}\n",
                &[(2, "not JSON: it ends too early"), (3, "it is no object"), (4, "`username` is not a text")],
            ),
            (
                "[{\"username\":\"ann\"},\n{\"username\":\"bob\",\"roles\":[1]}]",
                &[(2, "`roles` is not a list of names")],
            ),
            (
                r#"[{"model":"auth.user","pk":1,"fields":{"username":"ann","password":"x","groups":[9]}}]"#,
                &[(1, "group 9 is not in the file: dump auth.group before auth.user")],
            ),
        ];
        for (text, expected) in cases {
            let reading = read(text);
            let bad: Vec<_> = reading.bad.iter().map(|bad| (bad.line, bad.why.as_str())).collect();
            assert_eq!(bad, *expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_table_and_no_json_is_refused_as_a_whole() {
        for (text, expected) in [
            ("", "it is empty"),
            (
                "just a text\nof lines\n",
                "no column is a name: `username`, `name` or `email` is needed, the header has `just a text`",
            ),
            ("[{\"username\":\"ann\"}\n{}", "line 2: not JSON: `,` expected"),
            ("[{\"username\":\"ann\"},\n\n", "line 3: not JSON: it ends too early"),
            ("[] []", "line 1: not JSON: more than one value"),
        ] {
            let error = super::read(text, None, Timestamp::from_seconds(0)).unwrap_err();
            assert_eq!(error, expected, "{text}");
        }
    }

    #[test]
    fn nothing_makes_the_reader_panic() {
        let whole = "[{\"username\":\"änn\",\"roles\":[\"x\"],\"custom_password_hash\":{\"hash\":{\"value\":\"v\"}}}]";
        for (before, after) in (0..whole.len()).filter_map(|cut| whole.split_at_checked(cut)) {
            let _ = super::read(before, None, Timestamp::from_seconds(0));
            let _ = super::read(after, None, Timestamp::from_seconds(0));
        }
        let deep = format!("[{}", "[".repeat(100_000));
        assert!(super::read(&deep, None, Timestamp::from_seconds(0)).is_err());
    }
}
