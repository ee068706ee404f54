//! Rate limits.
//!
//! ```text
//! limit := N "/" ("s" | "min" | "hour" | "day") [ "by" key ] [ "burst" N ]
//! key   := "ip" | "user" | "token" | "tenant" | "route" | "header." name | "account"     (the last for logins only)
//! ```

use std::ops::Range;
use std::time::Duration;

use crate::diagnostic::{Code, Diagnostic, Spanned, suggest};
use crate::policy::document::{Limit, LimitKey};
use crate::policy::yaml::{Text, shorten};

use super::scalars;

const KEYS: &[&str] = &["ip", "user", "token", "tenant", "route", "account"];

/// Reads a limit, or says what is wrong with it. `login` admits the key `account`.
pub fn limit(text: Text<'_>, login: bool) -> Result<Limit, Diagnostic> {
    let bad =
        |range: Range<usize>, message: String, label: &str| Diagnostic::new(Code::P105, message, text.at(range), label);
    let mut words = words(text.value).into_iter();
    let whole = 0..text.value.len();
    let Some((rate, place)) = words.next() else {
        return Err(bad(whole, "empty limit".to_owned(), "`5/min by user`"));
    };
    let Some((count_text, unit)) = rate.split_once('/') else {
        return Err(bad(place, format!("bad limit `{}`", shorten(rate)), "a count and a time, such as `5/min`"));
    };
    let count_place = place.start..place.start + count_text.len();
    let unit_place = count_place.end + 1..place.end;
    let Some(count) = positive(count_text) else {
        return Err(bad(count_place, format!("bad count `{}`", shorten(count_text)), "a whole number from 1"));
    };
    let seconds = match unit {
        "s" => 1,
        "min" => 60,
        "hour" => 3600,
        "day" => 86_400,
        _ => {
            let span = text.at(unit_place.clone());
            let found =
                bad(unit_place, format!("unknown unit `{}`", shorten(unit)), "one of `s`, `min`, `hour`, `day`");
            return Err(match unit {
                "sec" | "second" => found.fix("did you mean `s`?", span, "s"),
                "m" | "minute" => found.fix("did you mean `min`?", span, "min"),
                "h" | "hr" => found.fix("did you mean `hour`?", span, "hour"),
                "d" => found.fix("did you mean `day`?", span, "day"),
                _ => found,
            });
        }
    };
    let (mut by, mut burst) = (None, None);
    while let Some((word, place)) = words.next() {
        let value = words.next();
        match (word, value) {
            ("by", Some((key, place))) if by.is_none() && burst.is_none() => {
                by = Some(limit_key(key, login).map_err(|label| {
                    let span = text.at(place.clone());
                    let found = bad(place, format!("unknown limit key `{}`", shorten(key)), label);
                    match suggest::closest(key, KEYS.iter().copied().filter(|key| login || *key != "account")) {
                        Some(near) => found.fix(format!("did you mean `{near}`?"), span, near),
                        None => found,
                    }
                })?);
            }
            ("burst", Some((number, place))) if burst.is_none() => {
                let Some(number) = positive(number) else {
                    return Err(bad(place, format!("bad burst `{}`", shorten(number)), "a whole number from 1"));
                };
                burst = Some(number);
            }
            ("by" | "burst", None) => {
                return Err(bad(place, format!("nothing behind `{word}`"), "here"));
            }
            _ => {
                let label = "`N/min`, then `by KEY`, then `burst N`";
                return Err(bad(place, format!("unexpected `{}` in a limit", shorten(word)), label));
            }
        }
    }
    let text = Spanned::new(text.value.to_owned(), text.span);
    Ok(Limit { count, per: Duration::from_secs(seconds), by, burst, text })
}

fn positive(digits: &str) -> Option<u32> {
    scalars::number(digits).and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)
}

fn limit_key(word: &str, login: bool) -> Result<LimitKey, &'static str> {
    match word {
        "ip" => Ok(LimitKey::Ip),
        "user" => Ok(LimitKey::User),
        "token" => Ok(LimitKey::Token),
        "tenant" => Ok(LimitKey::Tenant),
        "route" => Ok(LimitKey::Route),
        "account" if login => Ok(LimitKey::Account),
        "account" => Err("only in `login.limit`"),
        _ => match word.strip_prefix("header.") {
            Some(name) if scalars::is_token(name) => Ok(LimitKey::Header(name.to_ascii_lowercase())),
            Some(_) => Err("not a header name"),
            None => Err("one of `ip`, `user`, `token`, `tenant`, `route`, `header.NAME`"),
        },
    }
}

/// The words of a text and their places.
fn words(text: &str) -> Vec<(&str, Range<usize>)> {
    let mut words = Vec::new();
    let mut at = 0;
    for word in text.split(' ') {
        if !word.is_empty() {
            words.push((word, at..at + word.len()));
        }
        at += word.len() + 1;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::limit;
    use crate::diagnostic::{FileId, Span};
    use crate::policy::yaml::{Style, Text};

    #[test]
    fn limits_follow_their_grammar() {
        for (value, expected) in [
            ("5/min", "5 per 60s by None burst None"),
            ("600/min by user burst 100", "600 per 60s by Some(User) burst Some(100)"),
            ("5000/s by tenant", "5000 per 1s by Some(Tenant) burst None"),
            ("5/hour by header.X-Key", "5 per 3600s by Some(Header(\"x-key\")) burst None"),
            ("1/day burst 3", "1 per 86400s by None burst Some(3)"),
            ("5/m", "unknown unit `m` «m»"),
            ("0/min", "bad count `0` «0»"),
            ("x/min", "bad count `x` «x»"),
            ("5 per min", "bad limit `5` «5»"),
            ("5/min by usr", "unknown limit key `usr` «usr»"),
            ("5/min by account", "unknown limit key `account` «account»"),
            ("5/min burst 0", "bad burst `0` «0»"),
            ("5/min burst 3 by ip", "unexpected `by` in a limit «by»"),
            ("5/min by", "nothing behind `by` «by»"),
            ("5/min for user", "unexpected `for` in a limit «for»"),
            ("99999999999/s", "bad count `99999999999` «99999999999»"),
            ("", "empty limit «»"),
        ] {
            let end = u32::try_from(value.len()).unwrap();
            let span = Span { file: FileId(0), start: 0, end };
            let shown = match limit(Text { value, span, style: Style::Plain, source: value }, false) {
                Ok(limit) => format!("{} per {:?} by {:?} burst {:?}", limit.count, limit.per, limit.by, limit.burst),
                Err(bad) => {
                    let span = bad.primary.span;
                    format!("{} «{}»", bad.message, value.get(span.start as usize..span.end as usize).unwrap())
                }
            };
            assert_eq!(shown, expected, "{value}");
        }
    }
}
