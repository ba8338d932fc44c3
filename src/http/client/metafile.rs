//! Bodies that name another place: ASX, and the `[Reference]` list of old servers; and places that are told relative to ours.

/// Schemes of places that a client of ours can go to.
const SCHEMES: [&str; 5] = ["http", "mmsh", "mms", "mmst", "mmsu"];

/// The first place in a metafile that can be played, as it stands there; `None` where the text is none, or names no such place.
///
/// Source: the ASX elements `REF` and `ENTRYREF`; `[Reference]` as Windows Media servers write it for old players.
pub(super) fn first_place(text: &str) -> Option<String> {
    let text = begin(text).unwrap_or_default();
    if starts_with(text, "[Reference]") {
        let mut places = text.lines().filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            let number = name.trim().get(3..).filter(|_| starts_with(name.trim(), "ref"))?;
            number.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.trim().to_owned())
        });
        return places.find(|place| can_be_played(place));
    }
    if !starts_with(text, "<asx") {
        return None;
    }
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once('<') {
        if let Some(comment) = behind.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, behind)| behind);
            continue;
        }
        let end = tag_end(behind);
        let (tag, behind) = behind.split_at(end);
        rest = behind;
        let name_end = tag.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(tag.len());
        let (name, attributes) = tag.split_at(name_end);
        if name.eq_ignore_ascii_case("ref") || name.eq_ignore_ascii_case("entryref") {
            let place = attribute(attributes, "href").map(|value| unescaped(value.trim()));
            if let Some(place) = place.filter(|place| can_be_played(place)) {
                return Some(place);
            }
        }
    }
    None
}

/// Whether a text begins as a metafile does; `None` where more of it is needed to tell.
pub(super) fn sniff(text: &[u8]) -> Option<bool> {
    let text = String::from_utf8_lossy(text);
    let begin = begin(&text)?;
    let marks = ["<asx", "[Reference]"];
    if marks.iter().any(|mark| starts_with(begin, mark)) {
        return Some(true);
    }
    let is_open = |mark: &str| mark.get(..begin.len()).is_some_and(|mark| mark.eq_ignore_ascii_case(begin));
    (!marks.into_iter().chain(["<?", "<!--"]).any(is_open)).then_some(false)
}

/// What stands behind white space, XML's own declarations and comments; `None` where one of these does not end.
fn begin(mut text: &str) -> Option<&str> {
    loop {
        text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
        text = if let Some(declaration) = text.strip_prefix("<?") {
            declaration.split_once("?>")?.1
        } else if let Some(comment) = text.strip_prefix("<!--") {
            comment.split_once("-->")?.1
        } else {
            return Some(text);
        };
    }
}

fn starts_with(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
}

/// A place without a scheme is one of the server that names it.
fn can_be_played(place: &str) -> bool {
    match scheme(place) {
        Some((scheme, rest)) => rest.starts_with("//") && SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme)),
        None => !place.is_empty(),
    }
}

/// The scheme of a place and what follows its colon; `None` where the place is relative. RFC 3986 3.1.
fn scheme(place: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = place.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    is_scheme.then_some((scheme, rest))
}

/// Where a tag ends: at `>` outside of quotes.
fn tag_end(text: &str) -> usize {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '>') => return at,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
    }
    text.len()
}

/// The value of an attribute; blanks may stand around the equals sign.
fn attribute<'a>(mut text: &'a str, name: &str) -> Option<&'a str> {
    loop {
        let (found, behind) = text.split_once('=')?;
        let behind = behind.trim_start();
        let (value, behind) = match behind.chars().next()? {
            quote @ ('"' | '\'') => behind.get(1..)?.split_once(quote)?,
            _ => behind.split_at(behind.find(char::is_whitespace).unwrap_or(behind.len())),
        };
        if found.trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        text = behind;
    }
}

/// Text with its entities resolved; those that are unknown stay as they are.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        let (before, entity) = rest.split_at(at);
        out.push_str(before);
        let known = entity.get(1..).and_then(|text| text.split_once(';')).filter(|(name, _)| name.len() <= 8);
        let resolved = known.and_then(|(name, behind)| Some((character(name)?, behind)));
        match resolved {
            Some((c, behind)) => {
                out.push(c);
                rest = behind;
            }
            None => {
                out.push('&');
                rest = entity.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

fn character(entity: &str) -> Option<char> {
    Some(match entity {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
    })
}

/// A place as a URL of its own: it may be told relative to what we asked for, `target` at `host` (with its port).
///
/// RFC 3986 4.2, as far as servers use it.
pub(super) fn resolved(place: &str, host: &str, target: &str) -> String {
    let place = place.trim();
    if scheme(place).is_some() {
        return place.to_owned();
    }
    if let Some(authority) = place.strip_prefix("//") {
        return format!("http://{authority}");
    }
    if place.starts_with('/') {
        return format!("http://{host}{place}");
    }
    let path = target.split(['?', '#']).next().unwrap_or_default();
    if place.starts_with('?') {
        return format!("http://{host}{path}{place}");
    }
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("http://{host}{folder}/{place}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_in_metafiles() {
        let asx = "\u{feff}\r\n<asx Version = \"3.0\">\n<!-- a > <ref href=\"http://no/\"> --><Title>a > b</Title>\n<Entry>\
                   <REF HREF=\"rtsp://h/no\"/><Ref x='>' href = 'http://h/a?k=1&amp;b=&#50;&nbsp;' />\n\
                   <ref href=\"mms://h/b\"/></Entry></asx>";
        assert_eq!(first_place(asx).as_deref(), Some("http://h/a?k=1&b=2&nbsp;"));
        assert_eq!(first_place("<ASX><ENTRYREF HREF=other.asx /></ASX>").as_deref(), Some("other.asx"));
        let reference = "[Reference]\r\nRef1=rtsp://h/x\r\nRef2=http://h/name?MSWMExt=.asf\r\nRef3=mms://h/y\r\n";
        assert_eq!(first_place(reference).as_deref(), Some("http://h/name?MSWMExt=.asf"));
        for (text, place) in [
            ("<?xml version=\"1.0\"?>\n<!-- x > y -->\n<asx><ref href=\"/a:1?u=http://b/\"/>", Some("/a:1?u=http://b/")),
            ("<asx><ref href=\"javascript:x\"/><ref href=\"http:x\"/>", None),
        ] {
            assert_eq!(first_place(text).as_deref(), place, "{text}");
        }
        for none in
            ["", "<html><ref href='http://h/'>", "<asx>", "<asx><ref href=\"http://h", "[Reference]", "#EXTM3U\nhttp://h/"]
        {
            assert_eq!(first_place(none), None, "{none}");
        }
    }

    #[test]
    fn a_text_is_known_as_soon_as_it_can_be() {
        let asx = format!("{}<?xml version='1.0'?> <!-- {} --><ASX", " ".repeat(40), "long ".repeat(50));
        for end in 0..asx.len() {
            assert_eq!(sniff(&asx.as_bytes()[..end]), None, "{end}");
        }
        assert_eq!(sniff(asx.as_bytes()), Some(true));
        assert_eq!(sniff(b"[ref"), None);
        assert_eq!(sniff(b"[Reference]\n"), Some(true));
        for other in ["<html>", "<!DOCTYPE", "x", "<?xml?><html", "[other"] {
            assert_eq!(sniff(other.as_bytes()), Some(false), "{other}");
        }
    }

    #[test]
    fn relative_places() {
        for (place, url) in [
            ("mmsh://o/x", "mmsh://o/x"),
            ("//o:81/x", "http://o:81/x"),
            ("/x?y", "http://h:80/x?y"),
            ("x", "http://h:80/a/x"),
            ("?k=v", "http://h:80/a/b?k=v"),
            ("/plain?next=http://a/b", "http://h:80/plain?next=http://a/b"),
            ("?next=mms://a", "http://h:80/a/b?next=mms://a"),
            ("javascript:x", "javascript:x"),
        ] {
            assert_eq!(resolved(place, "h:80", "/a/b?c/d"), url);
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "(<|>|asx|ref |href|=|\"|'|&|&#|;|\\[Reference\\]|\n|Ref1|[ -~é]){0,30}") {
            let _ = first_place(&text);
            let _ = first_place(&format!("<asx {text}"));
            let _ = resolved(&text, "h", &text);
        }
    }
}
