//! How twelve kinds of upstream read a path. Written from their documentation, without the gateway's code.

use super::rules::Case;

/// The segments of a path as somebody understands it.
pub type Path = Vec<String>;

/// A model of an upstream.
pub struct Reader {
    pub name: &'static str,
    pub read: fn(&str) -> Path,
    /// Whether it takes `/ADMIN` for `/admin`.
    pub folds_case: bool,
    /// Whether a script in the path takes all that follows for its path-info.
    pub has_path_info: bool,
    /// Whether it takes `/items.json` for a format of `/items`.
    pub has_suffixes: bool,
    /// Whether it takes spellings for equal that no request shows to be (R2: case, suffix, path-info, trailing dot).
    pub folds: bool,
}

const fn reader(name: &'static str, read: fn(&str) -> Path) -> Reader {
    Reader { name, read, folds_case: false, has_path_info: false, has_suffixes: false, folds: false }
}

const fn folding(name: &'static str, read: fn(&str) -> Path) -> Reader {
    Reader { folds: true, ..reader(name, read) }
}

pub const READERS: [Reader; 12] = [
    reader("RFC 3986", |path| decoded(&split(&dots(path)))),
    reader("nginx", |path| split(&merged(&dots(&merged(&decode(path)))))),
    reader("Tomcat", |path| split(&dots(&merged(&decode(&without_parameters(path)))))),
    reader("Spring PathPattern", |path| decoded(&split(&without_parameters(path)))),
    Reader { folds_case: true, ..folding("IIS", |path| split(&dots(&merged(&decode(path).replace('\\', "/"))))) },
    reader("Go path.Clean", |path| split(&merged(&dots(&merged(&decode(path)))))),
    reader("WSGI", |path| split(&decode(path))),
    Reader { has_path_info: true, ..folding("PHP path-info", |path| split(&dots(&merged(&decode(path))))) },
    Reader { folds_case: true, ..folding("Express", |path| decoded(&split(path))) },
    Reader { has_suffixes: true, ..folding("Rails", |path| without_suffix(decoded(&split(path)))) },
    reader("decoding twice", |path| split(&dots(&merged(&decode(&decode(path)))))),
    folding("Windows files", |path| without_dots(split(&dots(&merged(&decode(path)))))),
];

/// What a reader makes of a path, given how the app says that the upstream compares.
impl Reader {
    pub fn ignores_case(&self, case: Case) -> bool {
        case == Case::Insensitive || self.folds_case && case != Case::Sensitive
    }
}

/// Splits at slashes; one at the end does not count.
pub fn split(path: &str) -> Path {
    let body = path.strip_prefix('/').unwrap_or(path);
    if body.is_empty() {
        return Path::new();
    }
    body.strip_suffix('/').unwrap_or(body).split('/').map(str::to_owned).collect()
}

/// Decodes each segment by itself.
pub fn decoded(path: &[String]) -> Path {
    path.iter().map(|segment| decode(segment)).collect()
}

fn decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let escaped = (*byte == b'%').then(|| Some((digit(*tail.first()?)?, digit(*tail.get(1)?)?))).flatten();
        match escaped {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = &tail[2..];
            }
            None => out.push(*byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

fn merged(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

/// RFC 3986 §5.2.4.
fn dots(path: &str) -> String {
    if !path.contains("/.") {
        return path.to_owned();
    }
    let mut out: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in path.split('/').skip(1) {
        ends_open = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(out.pop()),
            _ => out.push(segment),
        }
    }
    format!("/{}{}", out.join("/"), if ends_open && !out.is_empty() { "/" } else { "" })
}

fn without_parameters(path: &str) -> String {
    if !path.contains(';') {
        return path.to_owned();
    }
    path.split('/').map(|segment| segment.split(';').next().unwrap_or("")).collect::<Vec<_>>().join("/")
}

/// `(.:format)` at the end of a route.
fn without_suffix(mut path: Path) -> Path {
    if let Some(last) = path.last_mut()
        && let Some((stem, suffix)) = last.rsplit_once('.')
        && !stem.is_empty()
        && !suffix.is_empty()
    {
        *last = stem.to_owned();
    }
    path
}

/// Trailing dots and blanks of a name. Three dots or more are a name of their own.
fn without_dots(mut path: Path) -> Path {
    for segment in &mut path {
        let name = segment.trim_end_matches(['.', ' ']);
        if !name.is_empty() {
            segment.truncate(name.len());
        }
    }
    path
}
