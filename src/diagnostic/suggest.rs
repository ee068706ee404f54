//! "Did you mean".

/// The candidate that `word` was most likely meant to be, if one is near enough.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > 128 {
        return None;
    }
    let folded = word.to_lowercase();
    let room = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != word && candidate.len() <= 256)
        .filter_map(|candidate| {
            let other = candidate.to_lowercase();
            let distance = strsim::damerau_levenshtein(&folded, &other);
            // A longer word with the same beginning (`expire` for `expires_in`) is as near as a typo.
            let near = distance <= room || (folded.len() >= 4 && strsim::jaro_winkler(&folded, &other) > 0.92);
            near.then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn typos_are_near_and_other_words_are_not() {
        let names = ["items:read", "items:write", "limit", "timeout", "scope", "role"];
        for (word, expected) in [
            ("items:wirte", Some("items:write")),
            ("Scope", Some("scope")),
            ("scopes", Some("scope")),
            ("limits", Some("limit")),
            ("tiemout", Some("timeout")),
            ("roel", Some("role")),
            ("banana", None),
            ("", None),
            ("limit", None),
        ] {
            assert_eq!(closest(word, names), expected, "{word}");
        }
    }
}
