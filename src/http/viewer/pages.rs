//! What people and their players' shells are given instead of media: a page, ASX, M3U.

use super::host::Origin;

/// Escapes text for elements and for attributes in double quotes; control characters are left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_control()) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// An ASX of one entry: `mms://` first, on the port of MMS's own where it has one, as UDP is offered there alone, then `http://` for
/// players that find nothing there.
///
/// It has to begin with `<ASX`, and MPlayer takes escapes in addresses literally; ours are percent-encoded and have none.
pub(super) fn asx(origin: &Origin, name: &str, title: &str, query: &str) -> String {
    let title = escaped(title);
    let url = |scheme, ending| origin.url(scheme, name, ending, query);
    let (mms, http) = (escaped(&url("mms", "")), escaped(&url("http", "")));
    format!(
        "<ASX VERSION=\"3.0\">\r\n  <TITLE>{title}</TITLE>\r\n  <PARAM NAME=\"Encoding\" VALUE=\"utf-8\" />\r\n  <ENTRY>\r\n    \
         <TITLE>{title}</TITLE>\r\n    <REF HREF=\"{mms}\" />\r\n    <REF HREF=\"{http}\" />\r\n  </ENTRY>\r\n</ASX>\r\n"
    )
}

/// An M3U of one entry.
pub(super) fn m3u(origin: &Origin, name: &str, title: &str, query: &str) -> String {
    let title: String = title.chars().filter(|c| !c.is_control()).collect();
    format!("#EXTM3U\r\n#EXTINF:-1,{title}\r\n{}\r\n", origin.url("http", name, "", query))
}

/// How to watch, for a browser; without a name: in general.
pub(super) fn page(origin: &Origin, name: &str, title: &str, query: &str) -> String {
    let (title, body) = if name.is_empty() {
        let (mms, http) = (escaped(&origin.url("mms", "", "", "")), escaped(&origin.url("http", "", "", "")));
        let body = format!(
            "<p>This server sends streams to media players. Open <code>{mms}NAME</code> or <code>{http}NAME</code>, with the \
             name of a stream, in VLC, mpv or Windows Media Player.</p>"
        );
        ("Streams".to_owned(), body)
    } else {
        let url = |scheme, ending| origin.url(scheme, name, ending, query);
        let playlist = escaped(&url("http", ".asx"));
        let (mms, http) = (escaped(&url("mms", "")), escaped(&url("http", "")));
        let body = format!(
            "<p>Open one of these addresses in a media player such as VLC, mpv or Windows Media Player:</p>\n\
             <p><a href=\"{mms}\"><code>{mms}</code></a></p>\n<p><code>{http}</code></p>\n\
             <p>Or let your player open <a href=\"{playlist}\">the playlist</a>.</p>"
        );
        (escaped(title), body)
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>body{{font-family:sans-serif;max-width:40em;margin:3em auto;padding:0 1em}}code{{overflow-wrap:anywhere}}</style>\n\
         </head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin::new(None, Some("h:8080"), "192.0.2.1:80".parse().unwrap())
    }

    #[test]
    fn everything_is_escaped() {
        let name = "a<b>&\"'\u{7}é";
        let encoded = "a%3Cb%3E%26%22%27%07%C3%A9";
        let title = "a&lt;b&gt;&amp;&quot;&#39;é";
        let asx = asx(&origin(), name, name, "");
        assert!(asx.starts_with("<ASX"));
        assert!(asx.contains(&format!("<TITLE>{title}</TITLE>")), "{asx}");
        let (mms, http) = (format!("\"mms://h:8080/{encoded}\""), format!("\"http://h:8080/{encoded}\""));
        assert!(asx.find(&mms).unwrap() < asx.find(&http).unwrap());
        let page = page(&origin(), name, name, "");
        assert!(page.contains(&format!("<h1>{title}</h1>")) && page.contains(&mms) && !page.contains("<b>"), "{page}");
        assert!(page.contains(&format!("http://h:8080/{encoded}.asx")));
        assert_eq!(m3u(&origin(), "a\r\nb", "a\r\nb", ""), "#EXTM3U\r\n#EXTINF:-1,ab\r\nhttp://h:8080/a%0D%0Ab\r\n");
    }

    #[test]
    fn mms_is_named_where_it_has_its_own_port() {
        for (port, mms) in [(1755, "mms://h/a?k=01ab"), (2755, "mms://h:2755/a?k=01ab")] {
            let origin = origin().with_mms(Some(port));
            let asx = asx(&origin, "a", "A", "?k=01ab");
            let refs: Vec<&str> = asx.split("<REF HREF=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
            assert_eq!(refs, [mms, "http://h:8080/a?k=01ab"]);
            assert!(page(&origin, "a", "A", "?k=01ab").contains(&format!("\"{mms}\"")));
        }
    }

    #[test]
    fn a_key_is_passed_on() {
        let (origin, key) = (origin(), "?k=01ab");
        for text in [asx(&origin, "a", "A", key), page(&origin, "a", "A", key)] {
            assert!(text.contains(">A</"), "its title: {text}");
            assert!(text.contains("\"mms://h:8080/a?k=01ab\"") && text.contains("http://h:8080/a?k=01ab"), "{text}");
        }
        assert!(page(&origin, "a", "A", key).contains("\"http://h:8080/a.asx?k=01ab\""));
        assert!(m3u(&origin, "a", "A", key).ends_with("\r\nhttp://h:8080/a?k=01ab\r\n"));
        assert!(!page(&origin, "", "", key).contains("01ab"));
    }
}
