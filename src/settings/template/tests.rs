use super::*;
use crate::settings::Start;
use proptest::prelude::*;
use std::time::Duration;

fn captures(pattern: &str, name: &str) -> Option<Vec<String>> {
    Pattern::new(pattern).unwrap().captures(name).map(|captures| captures.0)
}

#[test]
fn stars_take_as_little_as_they_can() {
    for (pattern, name, matched) in [
        ("cam-*", "cam-1", Some(vec!["1"])),
        ("cam-*", "CAM-Front Door", Some(vec!["Front Door"])),
        ("cam-*", "cam-Köln", Some(vec!["Köln"])),
        ("cam-*", "cam-", None),
        ("cam-*", "cam", None),
        ("cam-*", "a/cam-1", None),
        ("cam-*", "cam-1/2", None),
        ("a/*/b", "a/x/b", Some(vec!["x"])),
        ("a/*/b", "a/b", None),
        ("a/*/b", "a/x/y/b", None),
        ("*-*", "a-b-c", Some(vec!["a", "b-c"])),
        ("*-*", "--b", Some(vec!["-", "b"])),
        ("*-*", "-b", None),
        ("a*b*c", "axbybc", Some(vec!["x", "yb"])),
        ("a*bc", "abcbc", Some(vec!["bc"])),
        ("a*a", "aa", None),
        ("*é*", "éé€", Some(vec!["é", "€"])),
        ("*", "*", Some(vec!["*"])),
        // What is no name for a publishing point is none for a template.
        ("*", "..", None),
        ("a/*", "a/..", None),
        ("cam-*", "cam-\0", None),
        ("cam-*", "cam-\u{85}", None),
        ("cam-*", "cam-a\\b", None),
        ("cam-*", "cam-1.asx", None),
        ("cam-*", "cam-1?x", None),
        ("*", "publish", None),
    ] {
        let matched = matched.map(|matched| matched.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(captures(pattern, name), matched, "{pattern} {name:?}");
    }
    assert!(captures("cam-*", &format!("cam-{}", "x".repeat(MATCH_MAX))).is_some());
    assert!(captures("cam-*", &format!("cam-{}", "x".repeat(MATCH_MAX + 1))).is_none());
    assert_eq!(Pattern::new("cam"), None);
}

#[test]
fn a_name_is_written_in_one_way() {
    let pattern = Pattern::new("Cam-*/x").unwrap();
    let captures = pattern.captures("cAM-Door/X").unwrap();
    assert_eq!(pattern.name(&captures), "Cam-Door/x");
    assert_eq!((pattern.stars(), pattern.literal_chars()), (1, 6));
}

fn filled(source: &Source, matched: &str) -> Option<Source> {
    source.filled(&Captures(vec![matched.into(), "two".into()]))
}

#[test]
fn urls_are_filled_in_without_meaning() {
    let pull = |url: &str| Source::Pull { url: url.into(), start: Start::Watched, linger: Duration::ZERO };
    for (url, matched, wanted) in [
        ("rtsp://h/{1}", "front", Some("rtsp://h/front")),
        ("rtsp://h/{2}/{1}/{1}", "a b", Some("rtsp://h/two/a%20b/a%20b")),
        ("http://h/x?cam={1}&q", "a&b=c#d?e%41+@:ü", Some("http://h/x?cam=a%26b%3Dc%23d%3Fe%2541%2B%40%3A%C3%BC&q")),
        ("mms://h/{x}{}{1", "a", Some("mms://h/{x}{}{1")),
        ("mms://h/{1}", "{2}", Some("mms://h/%7B2%7D")),
        ("mms://h/{1}", "..", None),
        ("mms://h/{1}/x", ".", None),
        ("mms://h/.{1}/x", ".", None),
        ("mms://h/../{1}", "x", Some("mms://h/../x")),
        ("mms://h/{1}", "...", Some("mms://h/...")),
    ] {
        assert_eq!(filled(&pull(url), matched), wanted.map(pull), "{url} {matched}");
    }
}

#[test]
fn arguments_stay_one_and_begin_no_option() {
    let exec = |argument: &str| Source::Exec {
        argv: vec!["cam".into(), argument.into()],
        start: Start::Watched,
        linger: Duration::ZERO,
    };
    for (argument, matched, wanted) in [
        ("{1}", "$(id) `id` ; \"' *", Some("$(id) `id` ; \"' *")),
        ("x={1}-{2}{9}", "-y", Some("x=-y-two{9}")),
        ("{1}", "-y", None),
        ("{1}", "{2}", Some("{2}")),
    ] {
        // What is no star's is refused by the check of the settings.
        if argument.contains("{9}") {
            assert_eq!(filled(&exec(argument), matched), None);
            continue;
        }
        assert_eq!(filled(&exec(argument), matched), wanted.map(exec), "{argument} {matched}");
    }
}

#[test]
fn paths_lead_nowhere_else() {
    let file = |path: &str| Source::File { paths: vec![path.into(), "/b".into()], start: Start::Always, linger: Duration::ZERO };
    for (path, matched, wanted) in [
        ("/srv/{1}.asf", "a b", Some("/srv/a b.asf")),
        ("/srv/{1}.asf", "..", None),
        ("/srv/{1}.asf", ".hidden", None),
        ("/srv/x{1}", "a..b", None),
    ] {
        assert_eq!(filled(&file(path), matched), wanted.map(file), "{path} {matched}");
    }
    assert_eq!(filled(&Source::Push, "a"), None);
}

proptest! {
    #[test]
    fn what_matches_makes_the_name_again(pattern in r"[ab/*-]{1,8}", name in r"[aAbB/é*.-]{0,12}") {
        let Some(pattern) = Pattern::new(&pattern) else { return Ok(()) };
        if let Some(captures) = pattern.captures(&name) {
            prop_assert!(captures.0.len() == pattern.stars());
            prop_assert!(captures.0.iter().all(|text| !text.is_empty() && !text.contains('/')));
            prop_assert!(pattern.name(&captures).eq_ignore_ascii_case(&name));
        }
    }

    #[test]
    fn nothing_has_a_meaning_in_a_url(text in r"\PC{1,20}") {
        let url = Captures(vec![text]).fill_url("mms://h/{1}");
        prop_assert!(url["mms://h/".len()..].bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
    }
}
