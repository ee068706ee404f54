//! Parameters of a query, each at most once.

/// The longest query that is looked at.
const MOST: usize = 8 * 1024;

/// The parameters of a query, decoded.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

/// A parameter that matters is there twice, or cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclear;

impl Query {
    /// Reads a query. What cannot be decoded, is too long, or is there twice is an error: nothing is guessed.
    pub fn parse(query: Option<&str>) -> Result<Self, Unclear> {
        let query = query.unwrap_or_default();
        if query.len() > MOST {
            return Err(Unclear);
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name).ok_or(Unclear)?, decode(value).ok_or(Unclear)?);
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(Unclear);
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// A parameter that has a value.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(other, value)| other == name && !value.is_empty())?;
        Some(value)
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => digit(bytes.next())? << 4 | digit(bytes.next())?,
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// A text as a value in a query.
pub(super) fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_once_or_not_at_all() {
        let query = Query::parse(Some("code=a%2Fb+c&&state=x=y&empty=&flag")).unwrap();
        for (name, expected) in
            [("code", Some("a/b c")), ("state", Some("x=y")), ("empty", None), ("flag", None), ("x", None)]
        {
            assert_eq!(query.get(name), expected, "{name}");
        }
        assert_eq!(Query::parse(None).unwrap().get("code"), None);
        for unclear in ["a=1&a=1", "a=1&%61=2", "a=%", "a=%4", "a=%zz", "a=%ff", &"a".repeat(MOST + 1)] {
            assert_eq!(Query::parse(Some(unclear)).err(), Some(Unclear), "{unclear:.20}");
        }
        let encoded = encode("/a?b=c&d#e f\u{e4}");
        assert_eq!(Query::parse(Some(&format!("x={encoded}"))).unwrap().get("x"), Some("/a?b=c&d#e f\u{e4}"));
    }
}
