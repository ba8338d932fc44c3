//! The query of an address: which profile a viewer wants (`?profile=NAME`), beside the key of [`super::signed`].

use super::signed::key_of;

/// The profile in the query of a URL: the letters, digits, `-` and `_` of its first `profile`. Players append what they like to it.
pub fn profile_of(query: &str) -> Option<&str> {
    let value = query.split(['&', ';']).find_map(|parameter| parameter.strip_prefix("profile="))?;
    let end = value.bytes().position(|byte| !byte.is_ascii_alphanumeric() && !b"-_".contains(&byte)).unwrap_or(value.len());
    value.get(..end).filter(|profile| !profile.is_empty())
}

/// Parts a name of MMS, where the query is part of it, from its key and its profile. What has neither is a name as it stands,
/// question marks included.
pub fn split_query(name: &str) -> (&str, Option<&str>, Option<&str>) {
    for (at, _) in name.rmatch_indices('?') {
        if let (Some(bare), Some(query)) = (name.get(..at), name.get(at + 1..)) {
            let (key, profile) = (key_of(query), profile_of(query));
            if key.is_some() || profile.is_some() {
                return (bare, key, profile);
            }
        }
    }
    (name, None, None)
}

/// The query, with its question mark, that says these; nothing where there is neither. The key stands last: what follows it is
/// not part of it.
pub fn query_of(key: Option<&str>, profile: Option<&str>) -> String {
    match (key, profile) {
        (None, None) => String::new(),
        (Some(key), None) => format!("?k={key}"),
        (None, Some(profile)) => format!("?profile={profile}"),
        (Some(key), Some(profile)) => format!("?profile={profile}&k={key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_among_what_players_append() {
        for (query, profile) in [
            ("profile=wmp64", Some("wmp64")),
            ("k=01&profile=a-b_C", Some("a-b_C")),
            ("profile=wmp64/stream=1", Some("wmp64")),
            ("a=b;profile=x&profile=y", Some("x")),
            ("profile=", None),
            ("profile=%41", None),
            ("myprofile=x", None),
            ("profile", None),
            ("", None),
        ] {
            assert_eq!(profile_of(query), profile, "{query}");
        }
    }

    #[test]
    fn names_of_mms_are_parted_from_both() {
        for (name, parts) in [
            ("cam1", ("cam1", None, None)),
            ("cam1?k=01ab", ("cam1", Some("01ab"), None)),
            ("cam1?profile=wmp64", ("cam1", None, Some("wmp64"))),
            ("a?b?profile=x&k=01", ("a?b", Some("01"), Some("x"))),
            ("a?b=c", ("a?b=c", None, None)),
            ("?k=1", ("", Some("1"), None)),
            ("a?k=1?x", ("a", Some("1"), None)),
        ] {
            assert_eq!(split_query(name), parts, "{name}");
        }
    }

    #[test]
    fn a_query_says_what_was_in_it() {
        for (key, profile) in [(None, None), (Some("01ab"), None), (None, Some("wmp64")), (Some("01ab"), Some("wmp64"))] {
            assert_eq!(split_query(&format!("cam{}", query_of(key, profile))), ("cam", key, profile));
        }
    }
}
