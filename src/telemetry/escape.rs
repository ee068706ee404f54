//! Text that a client chose, made harmless for a line of log.
//!
//! Control characters could forge lines or move a terminal's cursor; bidirectional controls and line separators
//! make a line read otherwise than it is. All of them are written as escapes.

/// Whether a character is written as an escape.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Appends `text` as a JSON string with its quotes.
pub(crate) fn push_json(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_hostile(c) => push_utf16(out, c),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends at most `limit` bytes of `text` as a JSON string; what is cut off shows as `…`.
pub(crate) fn push_json_capped(out: &mut String, text: &str, limit: usize) {
    if text.len() <= limit {
        return push_json(out, text);
    }
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= limit).last().unwrap_or(0);
    push_json(out, text.get(..end).unwrap_or(""));
    out.pop();
    out.push_str("…\"");
}

/// Appends `text` for a person to read.
pub(crate) fn push_text(out: &mut String, text: &str) {
    for c in text.chars() {
        if is_hostile(c) { push_utf16(out, c) } else { out.push(c) }
    }
}

fn push_utf16(out: &mut String, c: char) {
    use std::fmt::Write as _;
    let mut units = [0; 2];
    for unit in c.encode_utf16(&mut units) {
        let _ = write!(out, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_characters_are_escaped_and_the_line_stays_json() {
        for text in [
            "plain",
            "caf\u{e9}",
            "a\r\nb",
            "\u{1b}[31mred",
            "\u{202e}evil",
            "\u{2028}",
            "\u{0}",
            "\u{9b}1m",
            "\u{2066}x\u{2069}",
            "😀",
            "</script>",
            "\"quoted\\\"",
            "\u{feff}",
            "\u{7f}",
        ] {
            let mut out = String::new();
            push_json(&mut out, text);
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
            assert!(!out.chars().any(is_hostile), "{out}");
            let mut shown = String::new();
            push_text(&mut shown, text);
            assert!(!shown.chars().any(is_hostile), "{shown}");
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let mut out = String::new();
        push_json_capped(&mut out, &"é".repeat(10_000), 9);
        assert_eq!(out, "\"éééé…\"");
    }
}
