//! What the fields of a user are called elsewhere.

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::diagnostic::suggest::closest;
use crate::secret::Secret;

use super::read::{Item, Origin, Record, Stated, Surroundings};

/// Why an object is no user, with its name if it has one.
type NotRead = (Option<String>, String);

const NAME: &[&str] = &["username", "user", "login", "account"];
const FULL_NAME: &[&str] = &["name"];
const EMAIL: &[&str] = &["email", "emailaddress", "mail"];
const HASH: &[&str] = &["passwordhash", "hashedpassword", "encryptedpassword", "passworddigest", "hash", "pwhash"];
const CUSTOM_HASH: &[&str] = &["custompasswordhash"];
const PASSWORD: &[&str] = &["password"];
const ID: &[&str] = &["id", "uuid", "sub", "userid"];
const ROLES: &[&str] = &["roles", "role", "groups"];
const SCOPES: &[&str] = &["scopes", "scope"];
const TENANT: &[&str] = &["tenant", "tenantid"];
const OFF: &[&str] = &["disabled", "isdisabled", "blocked", "banned"];
const ON: &[&str] = &["isactive", "active", "enabled"];
const SUPABASE: &[&str] = &["banneduntil", "deletedat", "isanonymous", "rawappmetadata", "phone", "aud"];

/// A field's name without case and separators.
fn folded(name: &str) -> String {
    name.chars().filter(|char| !matches!(char, '_' | '-' | ' ' | '.')).flat_map(char::to_lowercase).collect()
}

/// The first of these fields that the object has and that says something, with its name as it is written.
fn find<'o>(object: &'o Map<String, Value>, names: &[&str]) -> Option<(&'o str, &'o Value)> {
    names.iter().find_map(|name| {
        let (written, value) = object.iter().find(|(written, value)| folded(written) == *name && !is_empty(value))?;
        Some((written.as_str(), value))
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => matches!(text.trim(), "" | "NULL" | "\\N"),
        _ => false,
    }
}

/// Whether the object has one of these fields, whatever it says.
fn states(object: &Map<String, Value>, names: &[&str]) -> bool {
    object.iter().any(|(written, value)| names.contains(&folded(written).as_str()) && !value.is_null())
}

/// Whether a header has a column for the name.
pub fn check_columns(columns: &[String]) -> Result<(), String> {
    let is_name = |column: &String| [NAME, FULL_NAME, EMAIL].concat().contains(&folded(column).as_str());
    if columns.iter().any(is_name) {
        return Ok(());
    }
    let near = columns.iter().find_map(|column| Some((column, closest(column, ["username", "name", "email"])?)));
    let hint = near.map_or_else(String::new, |(column, name)| format!(" (is `{column}` meant to be `{name}`?)"));
    let shown: Vec<String> = columns.iter().take(8).map(|column| format!("`{}`", printable(column))).collect();
    Err(format!(
        "no column is a name: `username`, `name` or `email` is needed, the header has {}{hint}",
        shown.join(", ")
    ))
}

/// The columns that nothing is read from.
pub fn unread(columns: &[String], origin: Origin) -> Vec<String> {
    let known = [NAME, FULL_NAME, EMAIL, HASH, PASSWORD, ID, ROLES, SCOPES, TENANT, OFF, ON].concat();
    let known_there = if origin == Origin::Supabase { SUPABASE } else { &[] };
    let is_known = |column: &str| known.contains(&column) || known_there.contains(&column);
    let unread = columns.iter().filter(|column| !is_known(&folded(column)));
    unread.map(|column| printable(column)).collect()
}

/// A text of a file as it may be shown: short, and without what moves a cursor.
pub fn printable(text: &str) -> String {
    let shown: String = text.chars().take(64).map(|char| if char.is_control() { '?' } else { char }).collect();
    if text.chars().nth(64).is_some() { format!("{shown}…") } else { shown }
}

/// Whose export an object is part of.
pub fn recognise(object: &Map<String, Value>) -> Option<Origin> {
    let has = |name| object.contains_key(name);
    if has("model") && object.get("fields").is_some_and(Value::is_object) {
        Some(Origin::Django)
    } else if has("encrypted_password") || has("raw_app_meta_data") {
        Some(Origin::Supabase)
    } else if has("passwordHash") || has("custom_password_hash") || has("app_metadata") {
        Some(Origin::Auth0)
    } else {
        None
    }
}

/// Reads an object. `key` is the name under which it stands in a dictionary.
pub fn read(object: &Map<String, Value>, key: Option<&str>, around: &mut Surroundings) -> Result<Item, NotRead> {
    let mut object = object;
    if around.origin == Origin::Django {
        let Some(fields) = object.get("fields").and_then(Value::as_object) else {
            return Err((None, "no `fields`: it is no object of a Django fixture".to_owned()));
        };
        let model = object.get("model").and_then(Value::as_str).unwrap_or_default();
        if model.ends_with(".group") {
            if let (Some(number), Some(name)) = (object.get("pk").and_then(Value::as_i64), fields.get("name")) {
                around.groups.insert(number, name.as_str().unwrap_or_default().to_owned());
            }
            return Ok(Item::Skip("Django groups (their names are roles)"));
        }
        if !fields.contains_key("password") {
            return Ok(Item::Skip("Django objects that are no users"));
        }
        object = fields;
    }
    if around.origin == Origin::Supabase {
        if find(object, &["deletedat"]).is_some() {
            return Ok(Item::Skip("deleted users"));
        }
        if find(object, &["isanonymous"]).is_some_and(|(_, value)| truth(value) == Some(true)) {
            return Ok(Item::Skip("anonymous users"));
        }
    }
    let name = name(object, key, around.origin).map_err(|why| (None, why))?;
    match user(object, name.clone(), around) {
        Ok(record) => Ok(Item::User(Box::new(record))),
        Err(why) => Err((Some(name), why)),
    }
}

fn name(object: &Map<String, Value>, key: Option<&str>, origin: Origin) -> Result<String, String> {
    let full_name = !matches!(origin, Origin::Auth0 | Origin::Supabase);
    let found = find(object, NAME)
        .or_else(|| find(object, FULL_NAME).filter(|_| full_name && key.is_none()))
        .or_else(|| find(object, EMAIL).filter(|_| key.is_none()))
        .or_else(|| find(object, &["phone"]).filter(|_| origin == Origin::Supabase));
    match (found, key) {
        (Some((written, value)), _) => text(written, value),
        (None, Some(key)) => Ok(key.to_owned()),
        (None, None) => Err("no name".to_owned()),
    }
}

fn user(object: &Map<String, Value>, name: String, around: &Surroundings) -> Result<Record, String> {
    let texts = |names| find(object, names).map(|(written, value)| text(written, value)).transpose();
    let app_metadata = match find(object, &["rawappmetadata", "appmetadata"]) {
        Some((_, Value::Object(map))) => Some(map.clone()),
        Some((written, Value::String(json))) => {
            let map = serde_json::from_str(json).map_err(|_| format!("`{}` is not JSON", printable(written)))?;
            Some(map)
        }
        _ => None,
    };
    let roles = match around.origin {
        // There, `role` is the role in the database; the app's stand in `app_metadata`.
        Origin::Supabase | Origin::Auth0 => match app_metadata.as_ref().map(|map| (map, find(map, &["roles", "role"])))
        {
            Some((_, Some((written, value)))) => Some(names(written, value, around)?),
            _ => None,
        },
        _ => list(object, ROLES, around)?,
    };
    Ok(Record {
        line: 0,
        id: texts(ID).ok().flatten().filter(|id| uuid::Uuid::try_parse(id).is_ok()).map(|id| id.to_lowercase()),
        name,
        email: texts(EMAIL)?,
        password: password(object, around.origin)?,
        roles,
        scopes: list(object, SCOPES, around)?,
        tenant: texts(TENANT)?,
        disabled: disabled(object, around)?,
    })
}

fn password(object: &Map<String, Value>, origin: Origin) -> Result<Stated, String> {
    if let Some((written, value)) = find(object, CUSTOM_HASH) {
        return auth0(value).ok_or_else(|| format!("`{written}` is in a form that is not read"));
    }
    if let Some((written, value)) = find(object, HASH) {
        return Ok(hash(text(written, value)?));
    }
    match find(object, PASSWORD) {
        Some((written, value)) if origin == Origin::Django => Ok(hash(text(written, value)?)),
        Some((written, value)) => {
            // Not trimmed: a password may begin with a blank.
            let text = value.as_str().ok_or_else(|| format!("`{written}` is not a text"))?;
            Ok(if text.starts_with('!') && text.len() >= 41 {
                Stated::Nothing // Django's mark of an unusable password, and 40 random characters
            } else {
                Stated::Either(Secret::new(text.to_owned()))
            })
        }
        None => Ok(Stated::Nothing),
    }
}

fn hash(stored: String) -> Stated {
    // `!` and `*` mark a password that nobody can have, in Django and in `shadow`.
    if stored.starts_with('!') || stored.starts_with('*') { Stated::Nothing } else { Stated::Hash(Secret::new(stored)) }
}

/// Auth0's `custom_password_hash`: `{"algorithm": "bcrypt", "hash": {"value": "$2b$…"}}`.
fn auth0(value: &Value) -> Option<Stated> {
    let algorithm = value.get("algorithm")?.as_str()?;
    let hash = value.get("hash")?;
    let stored = hash.get("value")?.as_str()?;
    let encoded = hash.get("encoding").is_some_and(|encoding| encoding != "utf8");
    let salted = value.get("password").is_some() || hash.get("salt").is_some();
    match algorithm {
        "argon2" | "bcrypt" | "pbkdf2" if !encoded && !salted => Some(Stated::Hash(Secret::new(stored.to_owned()))),
        _ => None,
    }
}

fn disabled(object: &Map<String, Value>, around: &Surroundings) -> Result<Option<bool>, String> {
    if around.origin == Origin::Supabase {
        let until = match find(object, &["banneduntil"]) {
            Some((written, value)) => text(written, value)?,
            None => return Ok(Some(false)),
        };
        // What cannot be read is taken for a ban that holds.
        return Ok(Some(moment(&until).is_none_or(|until| until > around.now)));
    }
    for (fields, when) in [(OFF, true), (ON, false)] {
        if let Some((written, value)) = find(object, fields) {
            let value = truth(value).ok_or_else(|| format!("`{}` is neither true nor false", printable(written)))?;
            return Ok(Some(value == when));
        }
    }
    Ok(if states(object, OFF) { Some(false) } else { None })
}

/// A time as PostgreSQL or JavaScript writes it.
fn moment(text: &str) -> Option<Timestamp> {
    let mut written = text.trim().replacen(' ', "T", 1);
    let bare_offset = written.len().checked_sub(3).and_then(|at| written.get(at..)).is_some_and(|offset| {
        offset.starts_with(['+', '-']) && offset.bytes().skip(1).all(|byte| byte.is_ascii_digit())
    });
    if bare_offset {
        written.push_str(":00");
    }
    let parsed: jiff::Timestamp = written.parse().ok()?;
    Some(Timestamp::from_millis(parsed.as_millisecond()))
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => match number.as_i64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" | "on" => Some(true),
            "false" | "f" | "no" | "n" | "0" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn text(written: &str, value: &Value) -> Result<String, String> {
    match value.as_str() {
        Some(text) => Ok(text.trim().to_owned()),
        None => Err(format!("`{}` is not a text", printable(written))),
    }
}

/// A list that is stated, be it empty.
fn list(object: &Map<String, Value>, fields: &[&str], around: &Surroundings) -> Result<Option<Vec<String>>, String> {
    match find(object, fields) {
        Some((written, value)) => names(written, value, around).map(Some),
        None if states(object, fields) => Ok(Some(Vec::new())),
        None => Ok(None),
    }
}

/// Names: an array, or a text with blanks, commas or semicolons between them.
fn names(written: &str, value: &Value, around: &Surroundings) -> Result<Vec<String>, String> {
    let wrong = || format!("`{}` is not a list of names", printable(written));
    let mut names: Vec<String> = Vec::new();
    match value {
        Value::String(text) => {
            let parts = text.split(|char: char| char.is_whitespace() || matches!(char, ';' | ','));
            names.extend(parts.filter(|part| !part.is_empty()).map(str::to_owned));
        }
        Value::Array(values) => {
            for value in values {
                names.push(match value {
                    Value::String(name) => name.clone(),
                    Value::Number(number) if around.origin == Origin::Django => {
                        let name = number.as_i64().and_then(|number| around.groups.get(&number));
                        let missing = || format!("group {number} is not in the file: dump auth.group before auth.user");
                        name.ok_or_else(missing)?.clone()
                    }
                    // Django's natural keys.
                    Value::Array(key) => match key.as_slice() {
                        [Value::String(name)] => name.clone(),
                        _ => return Err(wrong()),
                    },
                    _ => return Err(wrong()),
                });
            }
        }
        _ => return Err(wrong()),
    }
    names.dedup();
    Ok(names)
}
