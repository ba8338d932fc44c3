//! URLs of a description's parts: what `a=control`, `Content-Base` and `Content-Location` mean.

use std::fmt::Write as _;

/// The URL that the parts of a description are relative to.
///
/// That is `Content-Base`, else `Content-Location`, else the URL of the request, which has to be absolute; host and port
/// are always those of the request, so that nobody is led elsewhere.
///
/// Source: RFC 2326 C.1.1.
pub fn base_url(request: &str, content_base: Option<&str>, content_location: Option<&str>) -> String {
    let told = content_base.into_iter().chain(content_location).map(str::trim).find(|url| !url.is_empty());
    told.map_or_else(|| encoded(request), |told| resolved(request, told))
}

/// A control URL by its base: an absolute one keeps its path alone, a relative one is put behind the base, as players do
/// it, whatever the base ends with.
pub(super) fn resolved(base: &str, control: &str) -> String {
    let control = control.trim();
    if control.is_empty() || control == "*" {
        return encoded(base);
    }
    let origin = parted(base).map_or("", |(origin, _)| origin);
    if let Some((_, path)) = parted(control) {
        return encoded(&format!("{origin}{path}"));
    }
    if control.starts_with('/') {
        return encoded(&format!("{origin}{control}"));
    }
    let slash = if base.ends_with('/') { "" } else { "/" };
    encoded(&format!("{base}{slash}{control}"))
}

/// Scheme and authority of an absolute URL, and what follows.
pub(super) fn parted(url: &str) -> Option<(&str, &str)> {
    let at = url.find("://").filter(|at| *at > 0)?;
    if !url.get(..at)?.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let authority = url.get(at + 3..)?;
    let end = authority.find(['/', '?', '#']).unwrap_or(authority.len());
    url.split_at_checked(at + 3 + end)
}

/// Without what would end a request's target: blanks, controls and all that is not ASCII as `%XX`.
fn encoded(url: &str) -> String {
    let mut out = String::with_capacity(url.len());
    for byte in url.bytes() {
        if byte.is_ascii_graphic() {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases() {
        let request = "rtsp://h:554/a";
        for (base, location, expected) in [
            (None, None, "rtsp://h:554/a"),
            (Some("rtsp://h:554/a/"), Some("rtsp://h:554/b"), "rtsp://h:554/a/"),
            (Some(" "), Some("rtsp://10.0.0.1/b"), "rtsp://h:554/b"),
            (Some("/c/"), None, "rtsp://h:554/c/"),
        ] {
            assert_eq!(base_url(request, base, location), expected);
        }
    }

    #[test]
    fn controls() {
        for (base, control, expected) in [
            ("rtsp://h/a/", "audio", "rtsp://h/a/audio"),
            ("rtsp://h/a", "audio", "rtsp://h/a/audio"),
            ("rtsp://h/a", "*", "rtsp://h/a"),
            ("rtsp://h/a", "", "rtsp://h/a"),
            ("rtsp://h/a/?k=1", "audio", "rtsp://h/a/?k=1/audio"),
            ("rtsp://h:81/a", "rtsp://192.168.0.9:554/x/video?y", "rtsp://h:81/x/video?y"),
            ("rtsp://h:81/a", "rtsp://other", "rtsp://h:81"),
            ("rtsp://h/a", "/b/c", "rtsp://h/b/c"),
            ("rtsp://h/a", "t?u=http://x/", "rtsp://h/a/t?u=http://x/"),
            ("rtsp://h/a", "b c\u{e9}\r\nX: y", "rtsp://h/a/b%20c%C3%A9%0D%0AX:%20y"),
        ] {
            assert_eq!(resolved(base, control), expected, "{base} {control}");
        }
    }
}
