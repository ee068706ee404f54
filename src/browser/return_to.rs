//! Where a login ends: a path of the same origin, or nothing.
//!
//! What comes here was chosen by whoever made the link to the sign-in page. It must not lead elsewhere, whatever a browser,
//! a proxy or the app makes of it: so it is not repaired, but refused when anything in it has two readings.

/// The longest place to return to; it travels in a cookie.
const MOST: usize = 1024;

/// Characters that stand for `/`, `\`, `.`, `:` or `@` once somebody normalises them (NFKC, or look-alikes of it).
const FOLDED: &[char] = &[
    '\u{2024}', '\u{2044}', '\u{2215}', '\u{2216}', '\u{2236}', '\u{244a}', '\u{29f5}', '\u{29f8}', '\u{29f9}',
    '\u{3002}', '\u{fe13}', '\u{fe52}', '\u{fe55}', '\u{fe68}', '\u{fe6b}', '\u{ff0e}', '\u{ff0f}', '\u{ff1a}',
    '\u{ff20}', '\u{ff3c}', '\u{ff61}', '\u{ff65}',
];

/// The place itself, where it is a path of the same origin (with query and fragment) in plain spelling.
///
/// ```text
/// place    = path [ "?" text ] [ "#" text ]
/// path     = "/" [ segment { "/" segment } ]      ; no segment but the last empty, none "." or ".."
/// segment  = pchar of RFC 3986, but no ";"   ; escapes: UTF-8 without / \ . % controls or what folds to them
/// text     = characters of RFC 3986               ; escapes: UTF-8 without controls
/// ```
pub fn return_to(asked: &str) -> Option<&str> {
    let plain = |byte: u8| matches!(byte, 0x21..=0x7e) && !b"\"<>\\^`{|}".contains(&byte);
    if asked.len() > MOST || !asked.bytes().all(plain) {
        return None;
    }
    let (rest, fragment) = asked.split_once('#').unwrap_or((asked, ""));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if fragment.contains('#') || !(is_path(path) && is_text(query) && is_text(fragment)) {
        return None;
    }
    Some(asked)
}

fn is_path(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if segment.is_empty() && !is_last || matches!(segment, "." | "..") || segment.contains([';', '[', ']']) {
            return false;
        }
        let Some(decoded) = decode(segment) else { return false };
        let harmless = |character: char| {
            !character.is_control() && !matches!(character, '/' | '\\' | '%' | ';') && !FOLDED.contains(&character)
        };
        // A dot that is written as an escape is there to be seen by one reader and not by another.
        let hides_dot = decoded.matches('.').count() != segment.matches('.').count();
        if hides_dot || !decoded.chars().all(harmless) {
            return false;
        }
    }
    true
}

fn is_text(text: &str) -> bool {
    decode(text).is_some_and(|text| !text.chars().any(char::is_control))
}

/// Decodes escapes; `None` where one is broken, or the whole is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => digit(bytes.next())? << 4 | digit(bytes.next())?,
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_of_the_same_origin_are_taken_as_they_are() {
        for place in [
            "/",
            "/a",
            "/a/",
            "/a/b.html",
            "/a/b?c=d&e=/f",
            "/@ann",
            "/a:b",
            "/caf%C3%A9",
            "/a%20b",
            "/a?next=%2Fb%3Fc",
            "/a?q=1%2B1#part",
            "/#/settings",
            "/a?time=12:00&mail=a@b.example",
            "/.well-known/x",
            "/a..b/...c",
            "/~ann/a+b,c=d!$&'()*",
            "/a?url=https://b.example/c", // what the app makes of its own query is its own
            "/a?x=[1]",
        ] {
            assert_eq!(return_to(place), Some(place));
        }
        let long = format!("/{}", "a".repeat(MOST - 1));
        assert_eq!(return_to(&long), Some(&*long));
        assert_eq!(return_to(&format!("{long}a")), None);
    }

    /// L01: none of these leads anywhere.
    #[test]
    fn hostile_places_are_refused() {
        let hosts = [
            "evil.example",
            "evil.example/",
            "evil.example/%2e%2e",
            "user@evil.example",
            "[::1]",
            "2130706433",
            "a@b@evil.example:443",
        ];
        // What makes of a host another origin, or might for somebody.
        let leads = [
            "//",
            "///",
            "////",
            "/\\",
            "\\/",
            "\\\\",
            "\\",
            "/\\/",
            "/%2f",
            "/%2F",
            "/%5c",
            "/%5C",
            "/%252f",
            "/%255c",
            "/%25252f",
            "%2f%2f",
            "%2f/",
            "/%2f%2f",
            "/%09/",
            "/%0a/",
            "/%0d/",
            "/%0d%0a/",
            "/%00/",
            "/%20//",
            "/\t/",
            "/\n/",
            "/\r/",
            "/ /",
            "\t//",
            " //",
            "\n//",
            "\u{0}//",
            "\u{1}//",
            "\u{a0}//",
            "\u{feff}//",
            "\u{200b}//",
            "/.//",
            "/..//",
            "/./",
            "/../",
            "/%2e/",
            "/%2e%2e/",
            "/.%2e/",
            "/%2e%2e%2f",
            "/..%2f",
            "/;//",
            "/;/",
            "/.;/",
            "/..;/",
            "/a//",
            "/a/../",
            "/a/..//",
            "/\u{ff0f}",
            "\u{ff0f}\u{ff0f}",
            "/%ef%bc%8f",
            "/%EF%BC%8F%EF%BC%8F",
            "/%e2%88%95",
            "/%e2%81%84",
            "/%c0%af",
            "/%c1%9c",
            "/%e0%80%af",
            "/%uff0f",
            "/%ef%bc%bc",
            "https://",
            "https:",
            "https:/",
            "https:///",
            "http://",
            "HTTPS://",
            "hTtP:\\\\",
            "ftp://",
            "//https://",
            "/https:///",
            "javascript://",
            "data://",
            "file:///",
            "blob:https://",
            "view-source:https://",
            "about:",
            "ws://",
            "https://app.example@",
            "https://app.example.",
            "https://app.example:443@",
            "//app.example@",
            "http:",
            "://",
            ":",
            "@",
            "?//",
            "#//",
            "/#\u{a}//",
            "/\"//",
            "/<//",
            "/`//",
            "/^//",
            "/{//",
        ];
        let mut count = 0;
        let mut refused = |place: &str| {
            assert_eq!(return_to(place), None, "{place:?}");
            count += 1;
        };
        for host in hosts {
            for lead in leads {
                refused(&format!("{lead}{host}"));
            }
        }
        for place in [
            "",
            "a",
            "evil.example",
            ".",
            "..",
            "./a",
            "../a",
            "?a",
            "#a",
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "java\tscript:alert(1)",
            "java\nscript:alert(1)",
            "\u{1}javascript:alert(1)",
            " javascript:alert(1)",
            "javascript&colon;alert(1)",
            "data:text/html,<script>alert(1)</script>",
            "data:text/html;base64,PHNjcmlwdD4=",
            "vbscript:msgbox(1)",
            "mailto:a@b",
            "tel:1",
            "intent://evil.example#Intent;end",
            "/a\r\nSet-Cookie: x=y",
            "/a%0d%0aSet-Cookie:%20x=y",
            "/a?b=%0d%0aSet-Cookie:%20x=y",
            "/a%0aLocation:%20//evil.example",
            "/a\u{0}",
            "/a%00",
            "/a?b%00",
            "/a#b%00",
            "/a%7f",
            "/a%c2%85b",
            "/a\u{85}",
            "/a\u{2028}",
            "/%e2%80%a8%00",
            "/a b",
            "/a\\b",
            "/a%5cb",
            "/a%2fb",
            "/a%252fb",
            "/a%",
            "/a%4",
            "/a%zz",
            "/a%ff",
            "/a?b=%",
            "/a?b=%ff",
            "/a?b=%zz",
            "/a#%",
            "/a//b",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/a/.",
            "/.",
            "/..",
            "/%2e",
            "/%2E%2e",
            "/a/%2e%2e",
            "/a/.%2e/b",
            "/a/;/b",
            "/a;b",
            "/a%3bb",
            "/..;/a",
            "/a#b#c",
            "/\u{e4}",
            "/%u0061",
            "/%25",
            "/%2561",
            "/<script>",
            "/\"onmouseover=alert(1)",
            "/'\"><svg>",
            "/{{7*7}}",
            "/${7*7}",
            "/`id`",
            "/a|b",
            "/a^b",
            "/%ef%bc%8e%ef%bc%8e/a",
            "/%e3%80%82",
            "/%ef%bc%a0evil.example",
            "/%ef%bc%9a",
            "/\u{ff0e}\u{ff0e}/a",
            "/\u{2024}",
            "////",
            "//",
            "///a",
            "/\\",
            "\\",
            "\\\\",
            "//a",
            "/\\a",
            "//@a",
            "//a@b",
            "//a:80\\@b",
            "//a%00b",
            "//a%23@b",
            "//0x7f.1",
            "//[::ffff:127.0.0.1]",
            "https://app.example/",
            "http://app.example/a",
            "//app.example/a",
            "app.example/a",
            "*",
            "/a/*\u{7}",
            "\u{202e}/a",
            "/\u{202e}a",
        ] {
            refused(place);
        }
        assert!(count >= 200, "{count}");
        // Whatever stands before two slashes at the beginning, or after them.
        for byte in 0..=0x7f_u8 {
            for place in [format!("{}//evil.example", char::from(byte)), format!("/{}/evil.example", char::from(byte))]
            {
                let is_segment = byte.is_ascii_alphanumeric() || b"-_~!$&'()*+,=:@".contains(&byte);
                let is_plain_path = place.starts_with('/') && !place.starts_with("//") && is_segment;
                let starts_query = place.starts_with("/?") || place.starts_with("/#");
                assert_eq!(return_to(&place).is_some(), is_plain_path || starts_query, "{place:?}");
            }
        }
    }
}
