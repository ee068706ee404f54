//! The pages: plain HTML without scripts, pictures or anything from elsewhere.
//!
//! All text is escaped here, whoever it comes from. What a provider says is never shown.

use std::fmt::Write as _;
use std::sync::LazyLock;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, PRAGMA, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue};

use crate::response::{DECISION_HEADER, Response};

use super::query::encode;

/// Contrasts are 4.5 to 1 and better in both schemes; nothing says by colour alone what it says.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1a1d21;--soft:#4d545c;--paper:#f4f5f7;--card:#fff;--line:#8a929b;--accent:#1d4fb8;--on:#fff;--bad:#9b1c1c;--badpaper:#fdecec}\
@media(prefers-color-scheme:dark){:root{--ink:#eceef0;--soft:#b4bbc3;--paper:#14171a;--card:#1e2226;--line:#79828c;--accent:#8fb4ff;--on:#10131a;--bad:#ffb4b4;--badpaper:#3a1c1e}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:flex;align-items:center;justify-content:center;background:var(--paper);color:var(--ink);font:1rem/1.5 system-ui,sans-serif}\
main{width:100%;max-width:24rem;margin:1rem;padding:2rem;background:var(--card);border:1px solid var(--line);border-radius:.75rem;overflow-wrap:anywhere}\
h1{margin:0 0 1.25rem;font-size:1.375rem;line-height:1.25}\
h2{margin:0 0 .75rem;font-size:1rem}\
p{margin:0 0 1rem}\
label{display:block;margin:0 0 .25rem;font-weight:600}\
input{display:block;width:100%;margin:0 0 1rem;padding:.625rem .75rem;font:inherit;color:inherit;background:transparent;border:1px solid var(--line);border-radius:.375rem}\
button,.button{display:block;width:100%;padding:.625rem .75rem;font:inherit;font-weight:600;text-align:center;text-decoration:none;border-radius:.375rem;border:1px solid var(--accent);cursor:pointer}\
button{background:var(--accent);color:var(--on)}\
.button{background:transparent;color:var(--accent)}\
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}\
ul{list-style:none;margin:0 0 1.25rem;padding:0;display:grid;gap:.625rem}\
hr{margin:1.25rem 0;border:0;border-top:1px solid var(--line)}\
details{margin-top:1.25rem;padding-top:1.25rem;border-top:1px solid var(--line)}\
summary{cursor:pointer;color:var(--accent);font-weight:600}\
summary+form{margin-top:1rem}\
main>:last-child{margin-bottom:0}\
.note{color:var(--soft);font-size:.875rem}\
.bad{padding:.75rem;color:var(--bad);background:var(--badpaper);border:1px solid var(--bad);border-radius:.375rem}";

/// Nothing may be loaded or run; forms go to this origin; nobody may put the page into a frame.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// The sign-in page.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignIn<'p> {
    pub(super) app: &'p str,
    /// The path of the page.
    pub(super) path: &'p str,
    /// Where the login ends, where that is not the default.
    pub(super) return_to: Option<&'p str>,
    /// Names of providers.
    pub(super) providers: &'p [&'p str],
    /// Whether there is a form for passwords.
    pub(super) passwords: bool,
    /// What was typed before.
    pub(super) account: &'p str,
    /// Whether that was to sign up.
    pub(super) signing_up: bool,
    /// What went wrong before.
    pub(super) problem: Option<&'p str>,
}

/// A page that only says something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notice<'p> {
    pub(super) title: &'p str,
    pub(super) text: &'p str,
    /// A link, and what it says.
    pub(super) way_on: Option<(&'p str, &'p str)>,
    /// The id under which the log has more.
    pub(super) reference: &'p str,
}

/// Text as content or as a quoted attribute of HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Nothing turns the direction of what is read, or hides.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            character if character.is_control() => out.push(' '),
            character => out.push(character),
        }
    }
    out
}

/// The name of a provider as people know it.
fn shown(name: &str) -> String {
    let known = match name {
        "apple" => "Apple",
        "auth0" => "Auth0",
        "azure" | "entra" => "Microsoft",
        "bitbucket" => "Bitbucket",
        "discord" => "Discord",
        "facebook" => "Facebook",
        "figma" => "Figma",
        "github" => "GitHub",
        "gitlab" => "GitLab",
        "google" => "Google",
        "kakao" => "Kakao",
        "keycloak" => "Keycloak",
        "linkedin" | "linkedin_oidc" => "LinkedIn",
        "notion" => "Notion",
        "okta" => "Okta",
        "slack" | "slack_oidc" => "Slack",
        "spotify" => "Spotify",
        "twitch" => "Twitch",
        "twitter" | "x" => "X",
        "workos" => "WorkOS",
        "zoom" => "Zoom",
        _ => {
            let mut characters = name.chars();
            let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
            return format!("{first}{}", characters.as_str());
        }
    };
    known.to_owned()
}

impl SignIn<'_> {
    pub(super) fn respond(&self, status: u16) -> Response {
        let app = escape(self.app);
        let mut body = format!("<h1>Sign in to {app}</h1>\n");
        if !self.passwords {
            self.problem(&mut body);
        }
        if !self.providers.is_empty() {
            body.push_str("<ul>\n");
            for name in self.providers {
                let query = self.return_to.map(|place| format!("?return_to={}", encode(place))).unwrap_or_default();
                let path = escape(&format!("{}/{name}{query}", self.path.trim_end_matches('/')));
                let _ = writeln!(
                    body,
                    "<li><a class=\"button\" href=\"{path}\">Continue with {}</a></li>",
                    escape(&shown(name))
                );
            }
            body.push_str("</ul>\n");
        }
        if self.passwords {
            if !self.providers.is_empty() {
                body.push_str("<hr>\n");
            }
            self.form(&mut body, false);
            let open = if self.signing_up { " open" } else { "" };
            let _ = writeln!(body, "<details{open}><summary>New here? Create an account</summary>");
            self.form(&mut body, true);
            body.push_str("</details>\n");
        }
        if !self.passwords && self.providers.is_empty() {
            body.push_str("<p>There is no way to sign in here yet.</p>\n");
        }
        page(status, &format!("Sign in to {app}"), &body, "same-origin")
    }

    fn problem(&self, body: &mut String) {
        if let Some(problem) = self.problem {
            let _ = writeln!(body, "<p class=\"bad\" id=\"problem\" role=\"alert\">{}</p>", escape(problem));
        }
    }

    /// A form; what went wrong with it stands above its first field, which has the focus, so that both are in sight.
    fn form(&self, body: &mut String, up: bool) {
        let (id, action, autocomplete, button, kind) = match up {
            false => ("in", "sign_in", "current-password", "Sign in", "text"),
            true => ("up", "sign_up", "new-password", "Create account", "email"),
        };
        let is_this = self.signing_up == up;
        let account = if is_this { escape(self.account) } else { String::new() };
        let problem = if is_this && self.problem.is_some() { " aria-describedby=\"problem\"" } else { "" };
        let focus = if is_this && (self.problem.is_some() || self.providers.is_empty()) { " autofocus" } else { "" };
        let _ = writeln!(body, "<form method=\"post\" action=\"{}\">", escape(self.path));
        if is_this {
            self.problem(body);
        }
        if let Some(place) = self.return_to {
            let _ = writeln!(body, "<input type=\"hidden\" name=\"return_to\" value=\"{}\">", escape(place));
        }
        let _ = writeln!(
            body,
            "<label for=\"account-{id}\">Email</label>\n\
             <input id=\"account-{id}\" name=\"username\" type=\"{kind}\" inputmode=\"email\" autocomplete=\"username\" \
             autocapitalize=\"none\" spellcheck=\"false\" maxlength=\"320\" required value=\"{account}\"{problem}{focus}>\n\
             <label for=\"password-{id}\">Password</label>\n\
             <input id=\"password-{id}\" name=\"password\" type=\"password\" autocomplete=\"{autocomplete}\" \
             maxlength=\"1024\" required>\n\
             <button name=\"action\" value=\"{action}\">{button}</button>\n</form>"
        );
    }
}

impl Notice<'_> {
    pub(super) fn respond(&self, status: u16) -> Response {
        let title = escape(self.title);
        let mut body = format!("<h1>{title}</h1>\n<p>{}</p>\n", escape(self.text));
        if let Some((path, text)) = self.way_on {
            let _ = writeln!(body, "<p><a class=\"button\" href=\"{}\">{}</a></p>", escape(path), escape(text));
        }
        if status >= 400 && !self.reference.is_empty() {
            let _ = writeln!(body, "<p class=\"note\">Reference: {}</p>", escape(self.reference));
        }
        // Its address may hold a code.
        let response = page(status, &title, &body, "no-referrer");
        match HeaderValue::from_str(self.reference) {
            Ok(id) if !self.reference.is_empty() => response.with(DECISION_HEADER, id),
            _ => response,
        }
    }
}

/// A whole page. `title` and `body` are HTML already.
fn page(status: u16, title: &str, body: &str, referrer: &'static str) -> Response {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    );
    let mut response = Response::new(status).body(html);
    let mut set = |name: HeaderName, value| drop(response.headers.insert(name, value));
    set(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    set(CONTENT_SECURITY_POLICY, POLICY.clone());
    // Without it browsers say `Origin: null` when the form is sent.
    set(REFERRER_POLICY, HeaderValue::from_static(referrer));
    set(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    set(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    set(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    uncached(response)
}

/// 303: what follows is a GET, whatever came before (RFC 9700 §4.12).
pub(super) fn redirect(place: &str, cookies: Vec<HeaderValue>) -> Response {
    let Ok(place) = HeaderValue::try_from(place) else { return uncached(Response::new(500)) };
    with_cookies(uncached(Response::new(303).with(LOCATION, place)), cookies)
}

/// The same answer with cookies.
pub(super) fn with_cookies(response: Response, cookies: Vec<HeaderValue>) -> Response {
    cookies.into_iter().fold(response, |response, cookie| response.with(http::header::SET_COOKIE, cookie))
}

/// The same answer, to be kept by nobody.
pub(super) fn uncached(mut response: Response) -> Response {
    response.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: SignIn<'_> = SignIn {
        app: "shop",
        path: "/login",
        return_to: None,
        providers: &["github", "my-idp"],
        passwords: true,
        account: "",
        signing_up: false,
        problem: None,
    };

    fn html(response: &Response) -> &str {
        std::str::from_utf8(&response.body).unwrap()
    }

    #[test]
    fn whatever_stands_in_a_page_is_text() {
        let hostile = "\"'><script>alert(1)</script>&\u{202e}\u{0}";
        let page = SignIn {
            app: hostile,
            return_to: Some(hostile),
            account: hostile,
            problem: Some(hostile),
            providers: &[hostile],
            ..PAGE
        };
        let (title, text, way_on) = (hostile, hostile, Some((hostile, hostile)));
        let notice = Notice { title, text, way_on, reference: hostile };
        for response in [page.respond(400), notice.respond(400)] {
            let html = html(&response);
            assert!(!html.contains("<script") && !html.contains("'>") && !html.contains('\u{202e}'), "{html}");
            assert_eq!(html.matches("<main>").count(), 1);
        }
    }

    #[test]
    fn a_page_has_labels_no_scripts_and_nothing_from_elsewhere() {
        let response = PAGE.respond(200);
        let html = html(&response);
        for absent in ["<script", "http:", "https:", "<img", "<link", "style=", "onclick", "src="] {
            assert!(!html.contains(absent), "{absent}");
        }
        for id in ["account-in", "password-in", "account-up", "password-up"] {
            assert!(html.contains(&format!("for=\"{id}\"")) && html.contains(&format!("id=\"{id}\"")), "{id}");
        }
        for present in ["lang=\"en\"", "<title>Sign in to shop</title>", "Continue with GitHub", "Continue with My-idp"]
        {
            assert!(html.contains(present), "{present}");
        }
        let header = |name: HeaderName| response.headers[name].to_str().unwrap();
        let style = html.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        let hash = STANDARD.encode(digest::digest(&digest::SHA256, style.as_bytes()));
        let policy = header(CONTENT_SECURITY_POLICY);
        assert!(policy.starts_with("default-src 'none'; ") && policy.contains(&format!("'sha256-{hash}'")), "{policy}");
        assert_eq!((header(CACHE_CONTROL), header(X_FRAME_OPTIONS)), ("no-store", "DENY"));
        assert_eq!(header(REFERRER_POLICY), "same-origin");
    }

    #[test]
    fn a_place_to_return_to_goes_along_with_every_way_in() {
        let response = SignIn { return_to: Some("/a?b=c&d"), ..PAGE }.respond(200);
        let html = html(&response);
        assert!(html.contains("href=\"/login/github?return_to=%2Fa%3Fb%3Dc%26d\""), "{html}");
        assert_eq!(html.matches("name=\"return_to\" value=\"/a?b=c&amp;d\"").count(), 2, "{html}");
    }

    /// WCAG 2.2, 1.4.3 and 1.4.11.
    #[test]
    fn text_stands_out_in_both_colour_schemes() {
        let luminance = |colour: &str| {
            let long =
                if colour.len() == 3 { colour.chars().flat_map(|c| [c, c]).collect() } else { colour.to_owned() };
            let channel = |at: usize| {
                let value = f64::from(u8::from_str_radix(long.get(at..at + 2).unwrap(), 16).unwrap()) / 255.0;
                if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
        };
        let dark = STYLE.split_once("@media").unwrap().1;
        for scheme in [STYLE, dark] {
            let colour = |name: &str| {
                let rest = scheme.split_once(&format!("--{name}:#")).unwrap().1;
                luminance(rest.split([';', '}']).next().unwrap())
            };
            for (one, other, least) in [
                ("ink", "card", 7.0),
                ("soft", "card", 4.5),
                ("accent", "card", 4.5),
                ("on", "accent", 4.5),
                ("bad", "badpaper", 4.5),
                ("line", "card", 3.0),
            ] {
                let (a, b) = (colour(one), colour(other));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast >= least, "{one} on {other}: {contrast}");
            }
        }
    }
}
