//! Who is answered what: roles, signing in, forms, heads, what is escaped.

use std::time::Duration;

use crate::support::accounts::accounts;
use crate::support::daemon::Launch;
use crate::support::viewer::Viewer;
use crate::support::{wait_for, wait_until};
use crate::visitor::{Somebody, ask, launch, sign_in_with};

/// All routes: method, path, and who may: 0 everybody, 1 viewers, 2 publishers, 3 operators.
const ROUTES: [(&str, &str, usize); 20] = [
    ("GET", "/sign-in", 0),
    ("POST", "/sign-in", 0),
    ("GET", "/assets/console.css", 0),
    ("GET", "/assets/console.js", 0),
    ("GET", "/assets/icon.svg", 0),
    ("GET", "/", 1),
    ("GET", "/still", 1),
    ("POST", "/sign-out", 1),
    ("GET", "/sources", 2),
    ("GET", "/sources/disconnect", 3),
    ("POST", "/sources/disconnect", 3),
    ("GET", "/viewers", 3),
    ("GET", "/viewers/{session}", 3),
    ("GET", "/viewers/{session}/kick", 3),
    ("POST", "/viewers/{session}/kick", 3),
    ("GET", "/load", 3),
    ("GET", "/leases", 3),
    ("GET", "/firewall", 3),
    ("GET", "/probe", 3),
    ("GET", "/users", 3),
];
/// The last one, which ends what the test goes on with.
const SIGN_OUT_OTHERS: (&str, &str, usize) = ("POST", "/users/sign-out", 3);

#[test]
fn no_role_sees_what_it_may_not() {
    // Whoever adds a route has to say here who may use it.
    let source = include_str!("../../src/console/mod.rs");
    for known in source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(ROUTES.iter().chain([&SIGN_OUT_OTHERS]).any(|(_, path, _)| *path == known), "{known} is not in this table");
    }
    let (_folder, file) = accounts();
    let daemon = launch("", &file);
    let roles = ["viewer", "publisher", "operator"].map(|role| Somebody::new(daemon.console, role));
    let mut asked = 0;
    for (method, path, least) in ROUTES.into_iter().chain([SIGN_OUT_OTHERS]).filter(|(_, path, _)| *path != "/sign-out") {
        let path = path.replace("{session}", "123456");
        for level in 0..=3 {
            let answer = match (level, method) {
                (0, _) => ask(daemon.console, method, &path, &[], Some("user=nobody&point=nowhere")),
                (_, "GET") => roles[level - 1].get(&path),
                _ => roles[level - 1].post(&path, "user=nobody&point=nowhere"),
            };
            let told = format!("{method} {path} at level {level}: {} {:?}", answer.status, answer.header("location"));
            let to_sign_in = answer.status == 303 && answer.header("location").is_some_and(|to| to.starts_with("/sign-in"));
            if level < least {
                let refused = match (level, path.as_str()) {
                    // A part of a page is not sent to another page.
                    (0, "/still") => answer.status == 401 && answer.cookie("__Host-wmrelay-sign-in").is_none(),
                    (0, _) => to_sign_in,
                    _ => answer.status == 403,
                };
                assert!(refused && !answer.text().contains("127.0.0.1"), "{told}");
            } else if (method, path.as_str()) == ("POST", "/sign-in") {
                assert_eq!(answer.status, 403, "without its form: {told}");
            } else {
                assert!(!to_sign_in && ![401, 403, 405].contains(&answer.status) && answer.status < 500, "{told}");
            }
            asked += 1;
        }
    }
    assert_eq!(asked, 20 * 4);

    // A form that is not ours changes nothing, whoever is signed in.
    let operator = &roles[2];
    let (cookie, form) = (("Cookie", operator.cookie.as_str()), format!("form_token={}&point=demo", operator.form_token));
    for (fields, form) in [
        (&[cookie][..], "point=demo"),
        (&[cookie], &format!("form_token={}&point=demo", roles[1].form_token)),
        (&[cookie, ("Sec-Fetch-Site", "cross-site")], &form),
        (&[cookie, ("Sec-Fetch-Site", "same-site")], &form),
        (&[cookie, ("Origin", "https://evil.example")], &form),
    ] {
        let answer = ask(daemon.console, "POST", "/sources/disconnect", fields, Some(form));
        assert_eq!(answer.status, 403, "{fields:?}");
    }
    assert!(!daemon.log().contains("disconnected by"), "{}", daemon.log());
    let own_page = [cookie, ("Origin", &format!("https://{}", daemon.console))];
    assert_eq!(ask(daemon.console, "POST", "/sources/disconnect", &own_page, Some(&form)).status, 303);
    wait_until("the source's end in the log", Duration::from_secs(10), || daemon.log().contains("disconnected by an operator"));
}

#[test]
fn what_cannot_be_undone_is_asked_first() {
    let (_folder, file) = accounts();
    let daemon = launch("[[publishing_point]]\nname = \"a&b\"\nsource = { type = \"demo\" }\n", &file);
    let operator = Somebody::new(daemon.console, "operator");
    let list = wait_for("a source that sends", Duration::from_secs(20), || {
        let page = operator.get("/sources").text();
        page.contains("href=\"/sources/disconnect?point=a%26b\"").then_some(page)
    });
    assert!(!list.contains("action=\"/sources/disconnect\""), "{list}");
    let question = operator.get("/sources/disconnect?point=a%26b").text();
    assert!(
        question.contains("Disconnect the source of a&amp;b?") && question.contains("name=\"point\" value=\"a&amp;b\""),
        "{question}"
    );
    assert!(question.contains(&format!("name=\"form_token\" value=\"{}\"", operator.form_token)), "{question}");
    assert!(!daemon.log().contains("disconnected by"), "{}", daemon.log());
    assert_eq!(operator.post("/sources/disconnect", "point=a%26b").status, 303);
    wait_until("the source's end in the log", Duration::from_secs(10), || daemon.log().contains("disconnected by an operator"));

    let viewer = Viewer::tcp(daemon.mms, "a&b");
    viewer.wait_for_packets(1, Duration::from_secs(20));
    let question = operator.get("/viewers/1/kick").text();
    assert!(question.contains("End session 1?") && question.contains("<dd>127.0.0.1</dd>"), "{question}");
    assert!(question.contains("action=\"/viewers/1/kick\"") && viewer.ended().is_none(), "{question}");
    assert_eq!(operator.post("/viewers/1/kick", "").header("location"), Some("/viewers?done=kicked"));
    wait_for("the viewer's end", Duration::from_secs(10), || viewer.ended());
    // Of what is over nothing is asked any more.
    wait_until("the session's own page", Duration::from_secs(10), || {
        operator.get("/viewers/1/kick").header("location") == Some("/viewers/1")
    });
    assert_eq!(["/viewers/2/kick", "/sources/disconnect?point=b"].map(|path| operator.get(path).status), [404, 404]);
}

#[test]
fn every_answer_is_secured() {
    let (_folder, file) = accounts();
    let daemon = launch("", &file);
    let operator = Somebody::new(daemon.console, "operator");
    for (path, status, cache) in [
        ("/", 200, "no-store"),
        ("/viewers", 200, "no-store"),
        ("/viewers/none", 404, "no-store"),
        ("/still?point=none", 404, "no-store"),
        ("/none", 404, "no-store"),
        ("/sign-out", 405, "no-store"),
        ("/sign-in", 303, "no-store"),
        ("/assets/console.css", 200, "max-age=3600"),
    ] {
        let answer = operator.get(path);
        assert_eq!((answer.status, answer.header("cache-control")), (status, Some(cache)), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in
            [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("x-frame-options", "DENY")]
        {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
        // With a certificate of its own that would lock people out.
        assert_eq!(answer.header("strict-transport-security"), None);
        let page = answer.text();
        assert!(
            !page.contains("<style") && !page.contains(" style=") && !page.contains("<script>") && !page.contains(" onclick")
        );
    }
    let signed_in = sign_in_with(daemon.console, "viewer", "geheim", "/");
    let cookie = signed_in.head.lines().find(|line| line.contains("__Host-wmrelay=")).unwrap();
    for word in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict", "; Max-Age=43200"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    // Longer than any form.
    assert_eq!(operator.post("/sources/disconnect", &format!("point={}", "a".repeat(20_000))).status, 413);
    let odd = ask(daemon.console, "DELETE", "/viewers", &[("Cookie", &operator.cookie)], None);
    assert!([403, 405, 415].contains(&odd.status), "{odd:?}");
}

#[test]
fn signing_in_leads_back_and_cannot_be_tried_for_ever() {
    let (_folder, file) = accounts();
    let daemon = launch("", &file);
    let away = ask(daemon.console, "GET", "/firewall?viewers=10&side=viewer", &[], None);
    let to = away.header("location").unwrap();
    assert_eq!(to, "/sign-in?next=/firewall%3Fviewers%3D10%26side%3Dviewer");
    assert!(ask(daemon.console, "GET", to, &[], None).text().contains("value=\"/firewall?viewers=10&amp;side=viewer\""));
    for (next, expected) in [
        ("%2Ffirewall%3Fviewers%3D10", "/firewall?viewers=10"),
        ("https%3A%2F%2Fevil.example%2F", "/"),
        ("%2F%2Fevil.example", "/"),
        ("%2F%5Cevil.example", "/"),
        ("%2Fa%0D%0ASet-Cookie%3Aa%3Db", "/"),
    ] {
        let answer = sign_in_with(daemon.console, "operator", "geheim", next);
        assert_eq!((answer.status, answer.header("location")), (303, Some(expected)), "{next}");
    }
    // Who asks for no page is not led to one, and gets no cookie.
    let by_script = [("Sec-Fetch-Dest", "empty"), ("Sec-Fetch-Mode", "cors")];
    for fields in [&by_script[..], &[("Sec-Fetch-Dest", "image")]] {
        let answer = ask(daemon.console, "GET", "/viewers", fields, None);
        assert!(answer.status == 401 && answer.header("set-cookie").is_none(), "{answer:?}");
    }
    // A form that was open for too long comes again, with the name, and is good then.
    let stale = "form_token=of-yesterday&user=operator&password=geheim&next=%2Fviewers";
    let same = ("Sec-Fetch-Site", "same-origin");
    let again = ask(daemon.console, "POST", "/sign-in", &[same], Some(stale));
    let page = again.text();
    assert!(again.status == 403 && page.contains("Send it once more") && page.contains("value=\"operator\""), "{page}");
    let cookie = format!("__Host-wmrelay-sign-in={}", again.cookie("__Host-wmrelay-sign-in").unwrap());
    let form = stale.replace("of-yesterday", &again.form_token());
    let answer = ask(daemon.console, "POST", "/sign-in", &[same, ("Cookie", &cookie)], Some(&form));
    assert_eq!((answer.status, answer.header("location")), (303, Some("/viewers")));
    let from_elsewhere = ask(daemon.console, "POST", "/sign-in", &[("Sec-Fetch-Site", "cross-site")], Some(stale));
    assert!(from_elsewhere.status == 403 && from_elsewhere.header("set-cookie").is_none());
    // Who signs in again is signed out of what was there before.
    let before = Somebody::new(daemon.console, "viewer");
    let page = ask(daemon.console, "GET", "/sign-in", &[], None);
    let cookies = format!("{}; __Host-wmrelay-sign-in={}", before.cookie, page.cookie("__Host-wmrelay-sign-in").unwrap());
    let form = format!("form_token={}&user=viewer&password=geheim", page.form_token());
    assert_eq!(ask(daemon.console, "POST", "/sign-in", &[same, ("Cookie", &cookies)], Some(&form)).status, 303);
    assert_eq!(before.get("/").status, 303);
    // What is signed out, by oneself or by an operator, opens nothing.
    let (one, other) = (Somebody::new(daemon.console, "viewer"), Somebody::new(daemon.console, "viewer"));
    let operator = Somebody::new(daemon.console, "operator");
    let out = one.post("/sign-out", "");
    assert!(out.status == 303 && out.head.contains("__Host-wmrelay=; ") && out.head.contains("Max-Age=0"), "{out:?}");
    assert_eq!((one.get("/").status, other.get("/").status), (303, 200));
    assert_eq!(operator.post("/users/sign-out", "user=viewer").status, 303);
    assert_eq!(other.get("/").status, 303);

    // The name comes back as text, the password not at all.
    let wrong = sign_in_with(daemon.console, "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E", "offen", "/");
    let page = wrong.text();
    assert_eq!(wrong.status, 401);
    assert!(page.contains("Name or password is wrong.") && !page.contains("<script>") && !page.contains("offen"), "{page}");
    assert!(page.contains("&quot;&gt;&lt;script&gt;"), "{page}");
    let tried: Vec<u16> = (0..12).map(|_| sign_in_with(daemon.console, "operator", "offen", "/").status).collect();
    assert_eq!((tried[0], tried[11]), (401, 429), "{tried:?}");
    assert!(daemon.log().contains("nobody was signed in at the console") && !daemon.log().contains("offen"));
}

#[test]
fn what_comes_from_outside_is_escaped() {
    let (_folder, file) = accounts();
    let title = "<script>alert(1)</script>&\\\"'";
    let daemon =
        launch(&format!("[[publishing_point]]\nname = \"a\"\ntitle = \"{title}\"\nsource = {{ type = \"demo\" }}\n"), &file);
    let operator = Somebody::new(daemon.console, "operator");
    let page = operator.get("/").text();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;'") && !page.contains("<script>alert"), "{page}");
    let hostile = "%22%3E%3Cimg%20src%3Dx%3E";
    for path in ["/firewall?viewers=10&site=", "/firewall?client_net=", "/firewall?server=", "/viewers?done=", "/sign-in?next="] {
        let page = operator.get(&format!("{path}{hostile}")).text();
        assert!(!page.contains("<img src=x"), "{path}: {page}");
    }
}

#[test]
fn without_users_it_is_for_this_machine_and_says_what_to_do() {
    let daemon = Launch::new("").listen(["127.0.0.1:0", "0.0.0.0:0", "127.0.0.1:0"]).console().start();
    assert!(daemon.console.ip().is_loopback(), "{}", daemon.console);
    let page = ask(daemon.console, "GET", "/sign-in", &[], None).text();
    assert!(page.contains("Nobody may sign in yet") && page.contains("wmrelay passwd --role operator"), "{page}");
    assert_eq!(sign_in_with(daemon.console, "operator", "geheim", "/").status, 401);
}
