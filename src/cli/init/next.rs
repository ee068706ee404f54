//! The lines to go on with. They work as they are printed.

use std::fmt::Write as _;
use std::path::Path;

use super::{Answers, Issuer, Login};

/// The program as it can be called in the folder.
pub(super) fn program(folder: &Path) -> String {
    let called = std::env::args().next().unwrap_or_else(|| "portcullis".to_owned());
    if called.contains('/') && !called.starts_with('/') && folder != Path::new(".") {
        return std::env::current_exe().map_or(called, |path| shell(&path.display().to_string()));
    }
    shell(&called)
}

/// A word of a shell.
fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// What to do next. Calls and their answers are shown where the policy is `known` to be the one that the answers make.
pub(super) fn lines(answers: &Answers, known: bool, path: &Path, program: &str) -> String {
    let mut text = String::from("\nNext:\n\n");
    if path != Path::new(".") {
        let _ = writeln!(text, "  cd {}", shell(&path.display().to_string()));
    }
    if answers.login == Login::Local {
        let _ = writeln!(
            text,
            "  {program} user add ada     # asks for a password; with `--role admin` she may use /admin/**"
        );
    }
    let _ = writeln!(text, "  {program} serve");
    if answers.issuer == Issuer::Supabase {
        text.push_str("\nIt needs SUPABASE_URL and SUPABASE_KEY, in the environment or in `.env`.\n");
    }
    if known {
        calls(answers, path, program, &mut text);
    }
    let _ = write!(text, "\n`{program} doctor` looks at everything around it; `{program} help` has the rest.\n");
    text
}

/// Calls, each with what it answers.
fn calls(answers: &Answers, path: &Path, program: &str, text: &mut String) {
    text.push_str("\nand in another terminal");
    if path != Path::new(".") || answers.login == Login::None {
        text.push_str(", in the same folder");
    }
    text.push_str(":\n\n");
    let base = format!("http://{}", reachable(answers.listen));
    let mut calls: Vec<(String, String)> = Vec::new();
    let call = |token: bool, path: &str| {
        let token = if token { "-H \"Authorization: Bearer $TOKEN\" " } else { "" };
        format!("curl -i {token}{base}{path}")
    };
    let upstream = &answers.upstream;
    let through = format!("your app's answer (502 while nothing listens on {upstream})");
    calls.push((call(false, "/users/me"), "401: no token".to_owned()));
    match answers.login {
        Login::Local => {
            calls.push(("read -rsp 'password: ' PASSWORD".to_owned(), "ada's".to_owned()));
            calls.push((
                format!(
                    "TOKEN=$(printf %s \"$PASSWORD\" | curl -sS {base}/token -d username=ada --data-urlencode password@- \
                     | sed -n 's/.*\"access_token\": *\"\\([^\"]*\\)\".*/\\1/p')"
                ),
                String::new(),
            ));
            calls.push((call(true, "/users/me"), through));
            calls.push((call(true, "/admin/users"), "403: ada lacks the role `admin`".to_owned()));
            calls.push((call(true, "/logout").replacen("curl -i", "curl -i -X POST", 1), "204: logged out".to_owned()));
            calls.push((call(true, "/users/me"), "401: the session has ended, and with it the token".to_owned()));
        }
        Login::None if matches!(answers.issuer, Issuer::Local | Issuer::Secret) => {
            calls.push((
                format!("TOKEN=$({program} token mint --as ada)"),
                "`ada` is a test identity of the policy".to_owned(),
            ));
            calls.push((call(true, "/users/me"), through));
            calls.push((call(true, "/admin/users"), "403: ada lacks the role `admin`".to_owned()));
        }
        Login::Upstream => {
            calls.push((
                format!("curl -i {base}/token -d username=NAME -d password=PASSWORD"),
                "your app's login".to_owned(),
            ));
        }
        Login::Supabase => {
            calls.push((
                "read -rp 'e-mail: ' EMAIL; read -rsp 'password: ' PASSWORD".to_owned(),
                "of a user of the project".to_owned(),
            ));
            calls.push((
                format!(
                    "TOKEN=$(printf %s \"$PASSWORD\" | curl -sS {base}/token --data-urlencode username=\"$EMAIL\" \
                     --data-urlencode password@- | sed -n 's/.*\"access_token\": *\"\\([^\"]*\\)\".*/\\1/p')"
                ),
                String::new(),
            ));
            calls.push((call(true, "/users/me"), through));
            calls.push((call(true, "/admin/users"), "403 without `role: admin` in the user's app_metadata".to_owned()));
        }
        Login::None => calls.push((call(true, "/users/me"), "with a token of the issuer".to_owned())),
    }
    let width = calls.iter().map(|(line, _)| line.len()).filter(|width| *width < 100).max().unwrap_or(0);
    for (line, what) in calls {
        match what.as_str() {
            "" => {
                let _ = writeln!(text, "  {line}");
            }
            what => {
                let _ = writeln!(text, "  {line:width$}  # {what}");
            }
        }
    }
}

/// An address that one can connect to.
fn reachable(address: std::net::SocketAddr) -> std::net::SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr = match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    address
}
