//! `init`: a working folder, made from a few answers.
//!
//! Every question has a flag and a default; questions are asked only where somebody can answer. What exists is kept and
//! named, a secret above all. In the end the policies that are there then are checked with their own tests, and the
//! lines to go on with are printed.

mod next;
mod texts;
mod write;

use std::io::{self, BufRead as _, IsTerminal as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{ArgAction, Args, ValueEnum};

use crate::diagnostic::text;
use crate::reload::load::{self, load};

pub use self::write::ignores;
use self::write::{Folder, Outcome};
use super::check;
use super::exit::Exit;
use super::{Global, Terminal};

/// Makes a working folder: a policy with its tests, a secret, a compose file
///
/// Nothing that exists is overwritten. Without a terminal, or with `--yes`, what no flag says takes its default.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The folder; made if it does not exist
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Ask nothing, and take the default of what no flag says
    #[arg(short, long)]
    yes: bool,
    /// Your app (`http://127.0.0.1:8000`)
    #[arg(long, value_name = "URL", value_parser = url)]
    upstream: Option<String>,
    /// Who checks passwords at `POST /token` (`local`)
    #[arg(long, value_name = "WAY")]
    login: Option<Login>,
    /// Who signs the tokens (what fits the login)
    #[arg(long, value_name = "KIND")]
    issuer: Option<Issuer>,
    /// The URL of the issuer, or of the Supabase project
    #[arg(long, value_name = "URL", value_parser = plain)]
    issuer_url: Option<String>,
    /// The `aud` of the tokens, where others sign them
    #[arg(long, value_name = "NAME", value_parser = plain)]
    audience: Option<String>,
    /// The name of your app in the policy (`api`)
    #[arg(long, value_name = "NAME", value_parser = name)]
    app: Option<String>,
    /// Where the gateway listens (`127.0.0.1:8080`)
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where the admin listener listens (`127.0.0.1:9901`)
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// A workflow that checks the policies at each push
    #[arg(long, action = ArgAction::SetTrue, overrides_with = "no_ci")]
    ci: bool,
    /// No workflow
    #[arg(long, action = ArgAction::SetTrue)]
    no_ci: bool,
    /// A compose file
    #[arg(long, action = ArgAction::SetTrue, overrides_with = "no_compose")]
    compose: bool,
    /// No compose file
    #[arg(long, action = ArgAction::SetTrue)]
    no_compose: bool,
}

/// Who checks passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Login {
    /// The gateway, with users of its own
    Local,
    /// The app, at its own token endpoint
    Upstream,
    /// Supabase
    Supabase,
    /// Nobody here: clients bring their tokens
    None,
}

/// Who signs tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Issuer {
    /// The gateway, with `SECRET_KEY`
    Local,
    /// Supabase
    Supabase,
    /// An app that shares `SECRET_KEY`
    Secret,
    /// An OpenID provider
    Oidc,
}

/// All answers.
#[derive(Debug)]
struct Answers {
    upstream: String,
    login: Login,
    issuer: Issuer,
    issuer_url: Option<String>,
    audience: Option<String>,
    app: String,
    listen: SocketAddr,
    admin_listen: SocketAddr,
    ci: bool,
    compose: bool,
}

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9901);

/// `http://host[:port]` without a path.
fn url(text: &str) -> Result<String, String> {
    let text = plain(text.trim_end_matches('/'))?;
    let uri: http::Uri = text.parse().map_err(|_| "a URL such as http://127.0.0.1:8000".to_owned())?;
    match (uri.scheme_str(), uri.authority(), uri.path(), uri.query()) {
        (Some("http" | "https"), Some(authority), "" | "/", None) if !authority.as_str().contains('@') => Ok(text),
        _ => Err("a URL such as http://127.0.0.1:8000, without a path".to_owned()),
    }
}

/// A text that means itself in YAML and in `.env`.
fn plain(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._~:/?=@+[]%".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits) && !text.ends_with(':') {
        Ok(text.to_owned())
    } else {
        Err("letters, digits, and what a URL has between them".to_owned())
    }
}

fn name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("lower case letters, digits and `-`".to_owned())
    }
}

impl Arguments {
    /// Runs the command.
    pub fn run(&self, global: &Global, terminal: Terminal) -> Result<Exit, Exit> {
        let asked = !self.yes && io::stdin().is_terminal() && terminal.is_err_interactive();
        let mut answers = self.answers(&Questions { terminal, asked })?;
        let mut folder = Folder::open(&self.folder).map_err(|error| {
            terminal.err(format_args!("error: cannot make {}: {error}\n", self.folder.display()));
            Exit::Found
        })?;
        let policies = global.policies.clone().unwrap_or_else(|| PathBuf::from("policies"));
        self.write(&mut folder, &policies, &answers);
        for line in folder.report() {
            terminal.out(format_args!("{line}\n"));
        }
        let good = check_set(terminal, &self.folder.join(&policies));
        if !good || folder.failed() {
            return Ok(Exit::Found);
        }
        folder.settings(&mut answers);
        let known = folder.contains(&policies.join("app.yaml"), &texts::policy(&answers));
        terminal.out(next::lines(&answers, known, &self.folder, &next::program(&self.folder)));
        Ok(Exit::Fine)
    }

    fn answers(&self, questions: &Questions) -> Result<Answers, Exit> {
        let login = self.login;
        let app = questions.text(self.app.clone(), "the name of your app in the policy", "api", name)?;
        let upstream = questions.text(self.upstream.clone(), "the URL of your app", "http://127.0.0.1:8000", url)?;
        let login = questions.choice(
            login,
            "who checks passwords at POST /token",
            self.issuer.map_or(Login::Local, Issuer::usual_login),
        )?;
        let issuer = match (self.issuer, login) {
            (Some(issuer), _) => issuer,
            (None, Login::Local) => Issuer::Local,
            (None, Login::Supabase) => Issuer::Supabase,
            (None, Login::Upstream) => questions.choice(None, "who signs the tokens", Issuer::Secret)?,
            (None, Login::None) => questions.choice(None, "who signs the tokens", Issuer::Local)?,
        };
        let fits = match login {
            Login::Local => issuer == Issuer::Local,
            Login::Supabase => issuer == Issuer::Supabase,
            Login::Upstream => issuer != Issuer::Local,
            Login::None => true,
        };
        if !fits {
            let said = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
                value().map_or_else(String::new, |value| value.get_name().to_owned())
            };
            let (login, issuer) = (said(&|| login.to_possible_value()), said(&|| issuer.to_possible_value()));
            questions
                .terminal
                .err(format_args!("error: `--login {login}` gives out no tokens of `--issuer {issuer}`\n"));
            return Err(Exit::Usage);
        }
        let mut issuer_url = self.issuer_url.clone();
        let mut audience = self.audience.clone();
        if issuer == Issuer::Oidc {
            let example = "https://login.example.com/";
            issuer_url =
                Some(questions.text(issuer_url, "the issuer, as its tokens have it in `iss`", example, plain)?);
            audience = Some(questions.text(audience, "the `aud` of tokens for your app", &app, plain)?);
        } else if issuer == Issuer::Supabase && questions.asked && issuer_url.is_none() {
            let example = "https://PROJECT.supabase.co";
            issuer_url = Some(questions.text(None, "the URL of your Supabase project", example, plain)?);
        }
        let wanted = |yes: bool, no: bool| if yes || no { Some(yes && !no) } else { None };
        let compose = questions.yes_or_no(wanted(self.compose, self.no_compose), "a compose file")?;
        let ci =
            questions.yes_or_no(wanted(self.ci, self.no_ci), "a workflow that checks the policies at each push")?;
        let (listen, admin_listen) = (self.listen.unwrap_or(LISTEN), self.admin_listen.unwrap_or(ADMIN_LISTEN));
        Ok(Answers { upstream, login, issuer, issuer_url, audience, app, listen, admin_listen, ci, compose })
    }

    fn write(&self, folder: &mut Folder, policies: &Path, answers: &Answers) {
        if folder.has_policies(policies) {
            let what = format!("{}/", policies.display());
            folder.say(Outcome::Kept, &what, "has policies already; none were added");
        } else {
            folder.file(&policies.join("app.yaml"), &texts::policy(answers));
            folder.file(&policies.join("app.test.yaml"), &texts::policy_tests());
        }
        if answers.listen != LISTEN || answers.admin_listen != ADMIN_LISTEN {
            folder.file(Path::new("portcullis.yaml"), &texts::settings(answers));
        }
        folder.secrets(answers);
        folder.file(Path::new(".env.example"), &texts::environment_example(answers));
        folder.ignore(&[".env", "portcullis.db*"]);
        if answers.compose {
            let text = texts::compose(answers, folder.has("portcullis.yaml"));
            folder.file(Path::new("docker-compose.yaml"), &text);
        }
        if answers.ci {
            folder.file(Path::new(".github/workflows/policy.yml"), &texts::workflow(policies));
        }
    }
}

impl Issuer {
    /// The login that goes with it if nobody says so.
    fn usual_login(self) -> Login {
        match self {
            Self::Local => Login::Local,
            Self::Secret => Login::Upstream,
            Self::Supabase => Login::Supabase,
            Self::Oidc => Login::None,
        }
    }
}

/// Checks what is there now as `portcullis check` does, and shows it.
fn check_set(terminal: Terminal, policies: &Path) -> bool {
    let started = Instant::now();
    let loaded = load(policies, &load::Options::check());
    terminal.out(text::render(&loaded.diagnostics, &loaded.sources, terminal.colors_out()));
    terminal.out(format_args!(" check  {}", check::summary(&loaded, started.elapsed())));
    !loaded.has_errors()
}

// === Questions ===

/// Asks what no flag has said.
struct Questions {
    terminal: Terminal,
    /// Whether somebody is there to answer.
    asked: bool,
}

impl Questions {
    /// A line of text. `Err`: nobody answers any more.
    fn line(&self, question: &str, default: &str) -> Result<String, Exit> {
        self.terminal.err(format_args!("{question} [{default}]: "));
        let mut line = String::new();
        match io::stdin().lock().read_line(&mut line) {
            Ok(read) if read > 0 => Ok(line.trim().to_owned()),
            _ => {
                self.terminal.err("\nnothing was written\n");
                Err(Exit::Usage)
            }
        }
    }

    fn text(
        &self,
        said: Option<String>,
        question: &str,
        default: &str,
        parse: fn(&str) -> Result<String, String>,
    ) -> Result<String, Exit> {
        match said {
            Some(said) => return Ok(said),
            None if !self.asked => return Ok(default.to_owned()),
            None => {}
        }
        loop {
            let line = self.line(question, default)?;
            match parse(if line.is_empty() { default } else { &line }) {
                Ok(text) => return Ok(text),
                Err(why) => self.terminal.err(format_args!("  {why}\n")),
            }
        }
    }

    fn choice<T: ValueEnum + Copy>(&self, said: Option<T>, question: &str, default: T) -> Result<T, Exit> {
        match said {
            Some(said) => return Ok(said),
            None if !self.asked => return Ok(default),
            None => {}
        }
        let name = |value: &T| value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        for value in T::value_variants() {
            let help = value.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
            self.terminal.err(format_args!("  {:9} {}\n", name(value), help.unwrap_or_default()));
        }
        loop {
            let line = self.line(question, &name(&default))?;
            if line.is_empty() {
                return Ok(default);
            }
            match T::from_str(&line, true) {
                Ok(value) => return Ok(value),
                Err(_) => self.terminal.err("  one of the words above\n"),
            }
        }
    }

    fn yes_or_no(&self, said: Option<bool>, question: &str) -> Result<bool, Exit> {
        match said {
            Some(said) => return Ok(said),
            None if !self.asked => return Ok(true),
            None => {}
        }
        loop {
            match self.line(&format!("{question}?"), "yes")?.to_ascii_lowercase().as_str() {
                "" | "y" | "yes" => return Ok(true),
                "n" | "no" => return Ok(false),
                _ => self.terminal.err("  yes or no\n"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_makes_a_set_without_a_finding() {
        let ways = [
            (Login::Local, Issuer::Local),
            (Login::Upstream, Issuer::Secret),
            (Login::Upstream, Issuer::Oidc),
            (Login::Upstream, Issuer::Supabase),
            (Login::Supabase, Issuer::Supabase),
            (Login::None, Issuer::Local),
            (Login::None, Issuer::Secret),
            (Login::None, Issuer::Supabase),
            (Login::None, Issuer::Oidc),
        ];
        for (login, issuer) in ways {
            for stated in [false, true] {
                let folder = tempfile::tempdir().unwrap();
                let stated = stated || issuer == Issuer::Oidc;
                let answers = Answers {
                    upstream: "https://app.internal:8443".to_owned(),
                    login,
                    issuer,
                    issuer_url: stated.then(|| "https://login.example.com/".to_owned()),
                    audience: stated.then(|| "items".to_owned()),
                    app: "items".to_owned(),
                    listen: LISTEN,
                    admin_listen: ADMIN_LISTEN,
                    ci: true,
                    compose: true,
                };
                std::fs::write(folder.path().join("app.yaml"), texts::policy(&answers)).unwrap();
                std::fs::write(folder.path().join("app.test.yaml"), texts::policy_tests()).unwrap();
                let loaded = load(folder.path(), &load::Options { strict: true, ..load::Options::check() });
                let found: Vec<_> = loaded.diagnostics.iter().filter(|found| found.suppressed.is_none()).collect();
                assert!(found.is_empty(), "{login:?} {issuer:?} {stated}: {found:#?}\n{}", texts::policy(&answers));
                assert!(loaded.passed() >= 10, "{login:?} {issuer:?}");
            }
        }
    }

    #[test]
    fn what_would_mean_something_else_in_yaml_is_refused() {
        for bad in
            ["ftp://x", "http://a b", "http://x/path", "http://u:p@x", "http://x?q", "x", "", "http://x\n", "- x"]
        {
            assert!(url(bad).is_err(), "{bad:?}");
        }
        for good in ["http://127.0.0.1:8000", "https://app.internal", "http://[::1]:8000/"] {
            assert!(url(good).is_ok(), "{good:?}");
        }
        for bad in ["", "Api", "a b", "1a", "a\"", "a: b", "-a"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
