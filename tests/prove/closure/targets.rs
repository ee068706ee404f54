//! Hostile targets: a path that a rule has, attacked in a few places.

use crate::dice::Dice;

use super::rules::Rules;

/// What is put somewhere into a path.
const INSERTED: &[&str] = &[
    "/",
    "//",
    "/.",
    "/..",
    "/../",
    "/./",
    ".",
    "..",
    "%2e",
    "%2E%2e",
    ".%2e",
    "%2f",
    "%2F",
    "%5c",
    "\\",
    ";",
    ";a=1",
    ";/",
    "..;/",
    "%3b",
    "%25",
    "%252e",
    "%252f",
    "%2e%252e",
    "%255c",
    "%00",
    "%0a",
    "%20",
    " ",
    "%09",
    "?",
    "#",
    "%23",
    "%3f",
    "%c0%ae",
    "%c0%af",
    "%ef%bc%8f",
    "%ef%bc%8e",
    "%e2%81%84",
    "%c2%85",
    "...",
    "....//",
    "%u002f",
    "%%32%65",
    "*",
    "+",
    "~",
    ":",
    "@",
    "|",
    "{",
    "%zz",
    "%",
    "&",
    "=",
    "%2561",
    "%2541",
    "\u{e9}",
    "%c3%a9",
];

/// What is put at the end.
const APPENDED: &[&str] = &[
    "/",
    ".",
    "..",
    ".json",
    ".html",
    ".css",
    "%20",
    "%2e",
    "%2ejson",
    "/x.css",
    ";.css",
    ";jsessionid=1",
    "%3b.png",
    "?x",
    "?/../admin",
    "?a=%2f",
    "#",
    "%23",
    "%3f",
    "//",
    "/.",
    "/..",
    "/index.php",
    "/%2e",
    "%00.png",
    ".json.json",
    "./",
    " ",
    "%0d%0a",
    "/*",
    "~",
    ".bak",
    "::$DATA",
    "%3a%3a$DATA",
    ".php/x",
];

/// A target for one of the policy's paths.
pub fn random(rules: &Rules, dice: &mut Dice) -> String {
    let mut path = rules.sample(dice);
    match dice.below(20) {
        0 => {
            // From an open place into another one.
            let climb = dice.word(&[
                "/../",
                "/..;/",
                "/%2e%2e/",
                "/..%2f",
                "/..%5c",
                "/..\\",
                "/%252e%252e/",
                "//../",
                "/./../",
            ]);
            path = format!("{path}{}{}", climb.repeat(1 + dice.below(3)), rules.sample(dice).trim_start_matches('/'));
        }
        1 => path = format!("{path}{}", rules.sample(dice)),
        2 => path.insert_str(
            0,
            dice.word(&["/", "//", "/.", "/%2f", "/;", "/%5c", "http://gateway.example", "http:/", "\\"]),
        ),
        _ => {}
    }
    for _ in 0..dice.below(4) {
        path = match dice.below(8) {
            0 => at_letter(&path, dice, |letter| {
                let other =
                    if letter.is_ascii_uppercase() { letter.to_ascii_lowercase() } else { letter.to_ascii_uppercase() };
                other.to_string()
            }),
            1 => at_letter(&path, dice, |letter| format!("%{:02x}", u32::from(letter))),
            2 => at_letter(&path, dice, |letter| format!("%25{:02X}", u32::from(letter))),
            3 => {
                let slash = dice.word(&[
                    "%2f", "%2F", "//", "/./", "%252f", "\\", "%5c", ";/", "/;x/", "/x/../", ".%2f", "./", "%20/",
                    "%2e/",
                ]);
                replace_slash(&path, dice, slash)
            }
            4 | 5 => format!("{path}{}", dice.word(APPENDED)),
            6 => path.to_ascii_uppercase(),
            _ => {
                let at = dice.below(path.len() + 1);
                let at = (0..=at).rev().find(|at| path.is_char_boundary(*at)).unwrap_or(0);
                format!("{}{}{}", &path[..at], dice.word(INSERTED), &path[at..])
            }
        };
    }
    path
}

/// Replaces one letter or digit.
fn at_letter(path: &str, dice: &mut Dice, change: impl Fn(char) -> String) -> String {
    let letters: Vec<(usize, char)> =
        path.char_indices().filter(|(_, letter)| letter.is_ascii_alphanumeric()).collect();
    if letters.is_empty() {
        return path.to_owned();
    }
    let (at, letter) = *dice.pick(&letters);
    format!("{}{}{}", &path[..at], change(letter), &path[at + 1..])
}

fn replace_slash(path: &str, dice: &mut Dice, by: &str) -> String {
    let slashes: Vec<usize> = path.match_indices('/').map(|(at, _)| at).skip(1).collect();
    if slashes.is_empty() {
        return path.to_owned();
    }
    let at = *dice.pick(&slashes);
    format!("{}{by}{}", &path[..at], &path[at + 1..])
}
