//! An app's own folder: its packages, and code for logging in that the gateway replaces.
//!
//! What is looked for are the names that FastAPI's tutorial and the templates made from it use. Files are read as text;
//! nothing in them is run.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::dotenv::Dotenv;

use super::report::{Finding, Section};
use super::{World, shown};

const SECTION: Section = Section::Project;
const MAX_FILES: usize = 2000;
const MAX_BYTES: u64 = 1 << 20;
const MAX_DEPTH: usize = 12;
/// Folders with the code of others.
const OTHERS: &[&str] = &["node_modules", "site-packages", "venv", "env", "__pycache__", "dist", "build", "target"];

/// A pattern in Python code, and what it means.
struct Sign {
    code: &'static str,
    text: &'static str,
    problem: bool,
    says: &'static str,
    help: &'static str,
}

const SIGNS: &[Sign] = &[
    Sign {
        code: "verify_off",
        text: "verify_signature\": False",
        problem: true,
        says: "takes tokens whose signature nobody checked",
        help: "read X-Auth-User, which the gateway sets, or verify the signature",
    },
    Sign {
        code: "verify_off",
        text: "verify_signature': False",
        problem: true,
        says: "takes tokens whose signature nobody checked",
        help: "read X-Auth-User, which the gateway sets, or verify the signature",
    },
    Sign {
        code: "fake_users",
        text: "fake_users_db",
        problem: false,
        says: "still has the tutorial's users",
        help: "`portcullis user add`, or `portcullis user import`",
    },
    Sign {
        code: "own_login",
        text: "OAuth2PasswordBearer",
        problem: false,
        says: "reads bearer tokens itself (OAuth2PasswordBearer)",
        help: "the gateway verifies them: read X-Auth-User and X-Auth-Roles",
    },
    Sign {
        code: "own_login",
        text: "def create_access_token",
        problem: false,
        says: "signs tokens itself (create_access_token)",
        help: "`login: local` gives them out at POST /token, with refresh tokens and a throttle",
    },
    Sign {
        code: "own_login",
        text: "def verify_password",
        problem: false,
        says: "verifies passwords itself (verify_password)",
        help: "`portcullis user import` takes the hashes of pwdlib, passlib, Django and Werkzeug as they are",
    },
    Sign {
        code: "own_login",
        text: "jwt.decode(",
        problem: false,
        says: "verifies tokens itself (jwt.decode)",
        help: "the gateway has done so before the app is asked",
    },
];

/// Looks at a folder.
pub(super) fn look(project: &Path, world: &World) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !project.is_dir() {
        findings.push(Finding::problem(SECTION, "no_project", shown(project), "is not a folder"));
        return findings;
    }
    let upstream_login = world.policy().is_some_and(|policy| {
        policy
            .apps
            .iter()
            .any(|app| app.login.as_ref().is_some_and(|login| login.via == crate::policy::set::Via::Upstream))
    });
    packages(project, upstream_login, &mut findings);
    settings(project, upstream_login, world, &mut findings);
    code(project, upstream_login, &mut findings);
    findings
}

fn packages(project: &Path, upstream_login: bool, findings: &mut Vec<Finding>) {
    let mut text = String::new();
    let mut names = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(project).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let lists = name.starts_with("requirements") && name.ends_with(".txt");
        if (lists || ["pyproject.toml", "Pipfile", "setup.cfg"].contains(&name.as_str()))
            && let Some(content) = read(&entry.path())
        {
            text.push_str(&content.to_ascii_lowercase());
            text.push('\n');
            names.push(name);
        }
    }
    if names.is_empty() {
        let message = "no requirements.txt and no pyproject.toml: what is installed is not known";
        findings.push(Finding::warning(SECTION, "no_packages", shown(project), message));
        return;
    }
    let subject = names.join(", ");
    let has = |package: &str| words(&text).any(|word| word == package);
    if !has("fastapi") {
        findings.push(Finding::warning(SECTION, "no_fastapi", &subject, "does not name fastapi"));
    }
    let own: Vec<&str> = ["python-jose", "pyjwt", "pwdlib", "passlib", "argon2-cffi", "bcrypt"]
        .into_iter()
        .filter(|package| has(package))
        .collect();
    if upstream_login {
        // The app keeps its own login, and needs them.
        if !has("python-jose") && !has("pyjwt") {
            let message = "names neither python-jose nor pyjwt, and the app signs tokens (`login: upstream`)";
            findings.push(Finding::problem(SECTION, "no_jwt_package", &subject, message));
        }
        if !["pwdlib", "passlib", "argon2-cffi", "bcrypt"].into_iter().any(has) {
            let message = "names no package that verifies password hashes, and the app does (`login: upstream`)";
            findings.push(Finding::problem(SECTION, "no_hash_package", &subject, message).help("pwdlib[argon2]"));
        }
    } else if !own.is_empty() {
        let message = format!("names {}, which the app does not need behind the gateway", own.join(", "));
        findings.push(Finding::warning(SECTION, "spare_packages", &subject, message));
    } else {
        findings.push(Finding::fine(SECTION, &subject, "no packages for tokens or passwords"));
    }
}

/// The names of packages: letters, digits, `-`, `_` and `.`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
}

fn settings(project: &Path, upstream_login: bool, world: &World, findings: &mut Vec<Finding>) {
    let path = project.join(".env");
    let name = shown(&path);
    let file = read(&path).map(|text| Dotenv::parse(&text));
    let Some(file) = file else {
        if upstream_login {
            let message = "there is none, and the app signs tokens with SECRET_KEY";
            findings.push(Finding::problem(SECTION, "no_env_file", name, message).help("`portcullis init`"));
        }
        return;
    };
    match (file.get("SECRET_KEY"), world.environment.get("SECRET_KEY")) {
        (None, _) if upstream_login => {
            let message = "has no SECRET_KEY, and the app signs tokens with it";
            findings.push(Finding::problem(SECTION, "no_secret_key", &name, message));
        }
        (Some(own), _) if own.len() < 32 => {
            let message = format!("SECRET_KEY has {} bytes; HS256 needs 32 at least", own.len());
            findings.push(Finding::problem(SECTION, "short_secret", &name, message).help("portcullis secret new"));
        }
        (Some(own), Some(ours)) if own != ours && upstream_login => {
            let message = "SECRET_KEY is another than the gateway's: the gateway refuses the app's tokens";
            findings.push(Finding::problem(SECTION, "other_secret", &name, message));
        }
        _ => {}
    }
    for variable in ["ALGORITHM", "ACCESS_TOKEN_EXPIRE_MINUTES"] {
        if upstream_login && file.get(variable).is_none() {
            let message = format!("{variable} is not set: the app's default holds");
            findings.push(Finding::warning(SECTION, "default", &name, message));
        }
    }
    let ignored = read(&project.join(".gitignore")).is_some_and(|text| crate::cli::init::ignores(&text, ".env"));
    if !ignored && project.canonicalize().ok() != Path::new(".").canonicalize().ok() {
        let message = "no line `.env` in its .gitignore";
        findings.push(Finding::warning(SECTION, "env_file_not_ignored", name, message));
    }
}

fn code(project: &Path, upstream_login: bool, findings: &mut Vec<Finding>) {
    let mut files = Vec::new();
    python(project, 0, &mut files);
    files.sort();
    let before = findings.len();
    for path in &files {
        let Some(text) = read(path) else { continue };
        let name = shown(path.strip_prefix(project).unwrap_or(path));
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if line.starts_with('#') {
                continue;
            }
            let at = format!("{name}:{}", number + 1);
            for sign in SIGNS.iter().filter(|sign| line.contains(sign.text)) {
                // An app that keeps its own login needs its own code for it.
                if sign.code == "own_login"
                    && (upstream_login || line.starts_with("from ") || line.starts_with("import "))
                {
                    continue;
                }
                let make = if sign.problem { Finding::problem } else { Finding::warning };
                findings.push(make(SECTION, sign.code, at.clone(), sign.says.to_owned()).help(sign.help));
            }
            if literal_secret(line) {
                let message = "a secret is written in the code: whoever has the code can sign tokens";
                let finding = Finding::problem(SECTION, "literal_secret", at, message);
                findings.push(finding.help("read it from the environment, and make a new one"));
            }
        }
    }
    if findings.len() == before && !files.is_empty() {
        let message = format!("{}: no code for logging in", crate::cli::terminal::count(files.len(), "Python file"));
        findings.push(Finding::fine(SECTION, shown(project), message));
    }
}

/// `SECRET_KEY = "…"` with a text.
fn literal_secret(line: &str) -> bool {
    let Some(rest) = ["SECRET_KEY", "JWT_SECRET", "JWT_SECRET_KEY"].iter().find_map(|name| line.strip_prefix(name))
    else {
        return false;
    };
    // A type may stand between: `SECRET_KEY: str = "…"`.
    let Some((between, value)) = rest.split_once('=') else { return false };
    let typed = between.trim().is_empty() || between.trim_start().starts_with(':');
    let value = value.trim_start();
    typed && value.starts_with(['"', '\'']) && value.trim_end().len() > 2
}

fn python(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    if depth > MAX_DEPTH {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if files.len() >= MAX_FILES {
            return;
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Ok(kind) = entry.file_type() else { continue };
        if name.starts_with('.') || OTHERS.contains(&&*name) {
            continue;
        }
        if kind.is_dir() {
            python(&entry.path(), depth + 1, files);
        } else if kind.is_file() && name.ends_with(".py") {
            files.push(entry.path());
        }
    }
}

fn read(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return None;
    }
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_code_is_seen() {
        for (line, expected) in [
            ("SECRET_KEY = \"abc\"", true),
            ("SECRET_KEY: str = 'abc'", true),
            ("SECRET_KEY = os.environ[\"SECRET_KEY\"]", false),
            ("SECRET_KEY = \"\"", false),
            ("SECRET_KEY == \"abc\"", false),
            ("secret = \"abc\"", false),
        ] {
            assert_eq!(literal_secret(line), expected, "{line}");
        }
    }
}
