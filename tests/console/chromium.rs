//! The console as a browser shows it, with and without a script, on a wide screen and a narrow one.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::accounts::accounts;
use crate::support::browser::Browser;
use crate::support::daemon::{Daemon, Launch};
use crate::support::process::Process;
use crate::support::viewer::Viewer;
use crate::support::{Need, ready, wait_for, wait_until};
use crate::visitor::launch;

const BROWSER: [Need; 2] = [Need::Program("chromium"), Need::Program("chromedriver")];

/// Where the pictures go, if anybody wants them.
pub(super) fn pictures() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("WMRELAY_TEST_PICTURES")?);
    std::fs::create_dir_all(&folder).unwrap();
    Some(folder)
}

/// A port that nothing has, for settings that have to name one.
fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

/// Runs a probe from this machine.
fn probe(daemon: &Daemon) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wmrelay"));
    let control = daemon.control.port().to_string();
    command.args(["probe", "127.0.0.1", "--viewers", "2", "--user", "operator", "--insecure", "--control", &control]);
    command.env("WMRELAY_PASSWORD", "geheim");
    let said = Process::start(command).finish(Duration::from_secs(60));
    assert!(said.stdout.contains("OPEN"), "{}{}", said.stdout, said.stderr);
}

/// A daemon whose firewall can be planned: viewers can reach it. With the address by which this machine does.
fn reachable(file: &Path) -> (Daemon, SocketAddr) {
    let port = free_port();
    let listen: &'static str = format!("0.0.0.0:{port}").leak();
    let settings = "[[publishing_point]]\nname = \"demo\"\ntitle = \"The built-in picture\"\nsource = { type = \"demo\" }\n\
                    [[publishing_point]]\nname = \"cam1\"\nsource = { type = \"push\" }\n";
    let launch = Launch::new(settings).listen([listen, "127.0.0.1:0", "127.0.0.1:0"]);
    let daemon = launch.control(format!("users_file = {file:?}")).console().start();
    (daemon, SocketAddr::from(([127, 0, 0, 1], port)))
}

fn sign_in_by_hand(browser: &Browser, console: SocketAddr) {
    browser.open(&format!("https://{console}/viewers"));
    assert!(browser.url().ends_with("/sign-in?next=/viewers"), "{}", browser.url());
    browser.write("input[name=user]", "operator");
    browser.write("input[name=password]", "geheim");
    browser.click("main button");
    browser.wait_for_text("h1", "Viewers");
}

/// What is wrong with a page for those who see little, or not at all, or have a small screen.
const AUDIT: &str = r#"
    const faults = [], width = arguments.length ? arguments[0] : innerWidth;
    const colour = (text) => { const n = text.match(/[\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
    const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
    const ground = (element) => {
        const layers = [];
        for (let e = element; e; e = e.parentElement) {
            const c = colour(getComputedStyle(e).backgroundColor);
            layers.push(c);
            if (c[3] === 1) break;
        }
        const canvas = matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
        return layers.reverse().reduce((below, top) => over(top, below), canvas);
    };
    const light = (c) => [0, 1, 2].map((i) => { const v = c[i] / 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; })
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
    let texts = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const element = node.parentElement, box = element.getBoundingClientRect(), style = getComputedStyle(element);
        if (!node.data.trim() || box.width <= 1 || box.height <= 1 || style.visibility === 'hidden') continue;
        texts += 1;
        const back = ground(element), contrast = ratio(over(colour(style.color), back), back);
        if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(2)} of "${node.data.trim()}"`);
    }
    if (texts < 5) faults.push(`${texts} texts were looked at`);
    for (const field of document.querySelectorAll('input:not([type=hidden]), select, textarea')) {
        if (!field.labels.length && !field.getAttribute('aria-label')) faults.push(`no label of ${field.name}`);
        const back = ground(field.parentElement), own = ground(field), style = getComputedStyle(field);
        if (ratio(colour(style.color), own) < 4.5) faults.push(`contrast of the field ${field.name}`);
        if (field.type !== 'checkbox' && ratio(colour(style.borderTopColor), back) < 3) faults.push(`border of ${field.name}`);
    }
    for (const image of document.querySelectorAll('img')) if (!image.hasAttribute('alt')) faults.push(`no alt of ${image.src}`);
    for (const button of document.querySelectorAll('button, a')) if (!button.textContent.trim()) faults.push('a button without words');
    const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
    if (new Set(ids).size !== ids.length) faults.push(`ids twice: ${ids}`);
    if (document.querySelectorAll('h1').length !== 1) faults.push('not one h1');
    if (document.documentElement.lang !== 'en') faults.push('no lang');
    if (!document.title) faults.push('no title');
    if (document.documentElement.scrollWidth > innerWidth) faults.push(`${document.documentElement.scrollWidth} wide of ${innerWidth}`);
    const foreign = performance.getEntriesByType('resource').filter((entry) => new URL(entry.name).origin !== location.origin);
    if (foreign.length) faults.push(`fetched elsewhere: ${foreign.map((entry) => entry.name)}`);
    return faults;
"#;

fn audit(browser: &Browser, page: &str, size: &str) {
    for scheme in ["light", "dark"] {
        browser.colours(scheme);
        let faults = browser.run(AUDIT);
        assert_eq!(faults.as_array().map(Vec::len), Some(0), "{page}, {size}, {scheme}: {faults}");
        if let Some(folder) = pictures() {
            browser.picture(&folder.join(format!("{page}-{size}-{scheme}.png")));
        }
    }
}

/// Browsers write errors of pages and of what these load.
fn assert_no_complaints(browser: &Browser, page: &str) {
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{page}: {complaints:?}");
}

#[test]
fn an_operator_sees_a_viewer_come_and_sends_it_away() {
    if !ready("an_operator_sees_a_viewer_come_and_sends_it_away", &BROWSER) {
        return;
    }
    let (_folder, file) = accounts();
    let (daemon, mms) = reachable(&file);
    let browser = Browser::start(1280, 900, true);
    sign_in_by_hand(&browser, daemon.console);
    browser.wait_for_text("#sessions", "Nobody watches.");
    browser.run("window.sameDocument = true;");
    let viewer = Viewer::tcp(mms, "demo");
    browser.wait_for_text("#sessions", "demo");
    assert_eq!(browser.run("return window.sameDocument === true"), true, "it came without a reload");
    let session = browser.text("#sessions tbody th");

    // Whoever did not mean it goes back.
    browser.click(&format!("#kick-{session}"));
    browser.wait_for_text("h1", &format!("End session {session}?"));
    browser.click("main form a");
    browser.wait_for_text("#sessions", "demo");
    assert!(viewer.ended().is_none());
    browser.click(&format!("#kick-{session}"));
    browser.wait_for_text("h1", &format!("End session {session}?"));
    browser.click("main button");
    browser.wait_for_text(".notice", "The session is ended.");
    wait_for("the viewer's end", Duration::from_secs(10), || viewer.ended());
    browser.wait_for_text("#sessions", "Nobody watches.");
    browser.wait_for_text("#ended", "an operator ended it");
    // A reload by hand does not tell it again.
    wait_until("the address without what was done", Duration::from_secs(10), || browser.url().ends_with("/viewers"));
    browser.click("#ended th a");
    browser.wait_for_text("ol.steps", "it was sent the first packet of media");

    // The firewall, for ten.
    browser.click("nav a[href='/firewall']");
    browser.wait_for_text("h1", "Firewall");
    browser.write("input[name=site]", "Head office");
    browser.click("form.fields button");
    browser.wait_for_text(".sheet h2", "Head office");
    let plan = browser.text(".sheet pre");
    assert!(plan.contains("1024-1033") && plan.contains("10 viewers"), "{plan}");
    browser.click("nav a[href='/probe']");
    browser.wait_for_text(".how", "wmrelay probe 127.0.0.1 --viewers 10");
    browser.wait_for_text("#probes", "None has reported yet.");
    probe(&daemon);
    browser.wait_for_text("#probes", "OPEN");
    assert!(browser.text("#probes").contains("2 viewers of 127.0.0.1"));
    browser.click("nav a[href='/users']");
    browser.wait_for_text("tbody", "operator");
    assert_no_complaints(&browser, "the way through");

    browser.click(".who button");
    browser.wait_for_text("h1", "Sign in");
    browser.open(&format!("https://{}/viewers", daemon.console));
    browser.wait_for_text("h1", "Sign in");
}

#[test]
fn what_is_live_moves_nothing_from_under_anybodys_hands() {
    if !ready("what_is_live_moves_nothing_from_under_anybodys_hands", &[BROWSER[0], BROWSER[1], Need::Program("ffmpeg")]) {
        return;
    }
    let (_folder, file) = accounts();
    let point = |name: &str| format!("[[publishing_point]]\nname = \"{name}\"\nsource = {{ type = \"demo\" }}\n");
    let daemon = launch(&format!("{}{}", point("a"), point("b")), &file);
    let browser = Browser::start(1280, 900, true);
    sign_in_by_hand(&browser, daemon.console);
    browser.open(&format!("https://{}/", daemon.console));
    let seen = |script: &str| wait_until(script, Duration::from_secs(60), || browser.run(&format!("return {script}")) == true);
    let cards = |count: usize| seen(&format!("document.querySelectorAll('.card').length === {count}"));
    cards(2);
    // Both come by themselves: at first there are none, and the script asks again.
    seen("[...document.images].filter((image) => image.src.includes('at=') && image.naturalWidth > 0).length === 2");
    browser.run(
        "window.card = [...document.querySelectorAll('.card')].find((card) => card.querySelector('h2').textContent === 'b');
         [window.still, window.summary] = [window.card.querySelector('img'), window.card.querySelector('summary')];
         window.summary.click(); window.summary.focus();",
    );
    // The first one goes: what is left is the other one with its picture, open, and still at hand.
    let settings = daemon.folder().join("wmrelay.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace(&point("a"), "")).unwrap();
    assert_eq!(daemon.command(&["reload"]).1, Some(0));
    cards(1);
    let same = browser.run(
        "return [document.querySelector('.card') === window.card, document.querySelector('img.still') === window.still,
            window.still.src.includes('point=b&at='), document.querySelector('.card details').open,
            document.activeElement === window.summary];",
    );
    assert_eq!(same, serde_json::json!([true, true, true, true, true]));

    // While words are selected they stay as they are.
    browser.run("getSelection().selectAllChildren(document.querySelector('.card h2'));");
    std::fs::write(&settings, text.replace(&point("a"), &point("c"))).unwrap();
    assert_eq!(daemon.command(&["reload"]).1, Some(0));
    browser.run(
        "window.asked = 0; const ask = window.fetch; window.fetch = (...what) => { if (!what[1].method) window.asked += 1; return ask(...what); };",
    );
    seen("window.asked >= 3");
    assert_eq!(browser.run("return document.querySelectorAll('.card').length"), 1);
    browser.run("getSelection().removeAllRanges();");
    cards(2);
    assert_eq!(browser.run("return document.querySelectorAll('.card')[1] === window.card"), true);
}

#[test]
fn without_a_script_it_does_the_same() {
    if !ready("without_a_script_it_does_the_same", &BROWSER) {
        return;
    }
    let (_folder, file) = accounts();
    let (daemon, mms) = reachable(&file);
    let viewer = Viewer::tcp(mms, "demo");
    viewer.wait_for_packets(1, Duration::from_secs(20));
    let browser = Browser::start(1280, 900, false);
    sign_in_by_hand(&browser, daemon.console);
    let session = browser.text("#sessions tbody th");
    browser.click(&format!("#kick-{session}"));
    browser.wait_for_text("h1", &format!("End session {session}?"));
    browser.click("main button");
    browser.wait_for_text(".notice", "The session is ended.");
    // With a script the address would be without it by now.
    assert!(browser.url().ends_with("?done=kicked"), "{}", browser.url());
    wait_for("the viewer's end", Duration::from_secs(10), || viewer.ended());
}

#[test]
fn all_can_read_it_on_any_screen() {
    if !ready("all_can_read_it_on_any_screen", &BROWSER) {
        return;
    }
    let (_folder, file) = accounts();
    let (daemon, mms) = reachable(&file);
    let over_tcp = Viewer::tcp(mms, "demo");
    let over_udp: Vec<_> = [4960, 4961, 4965].into_iter().map(|port| Viewer::udp(mms, "demo", port, None)).collect();
    over_tcp.wait_for_packets(1, Duration::from_secs(20));
    over_udp.iter().for_each(|viewer| viewer.wait_for_packets(1, Duration::from_secs(20)));
    probe(&daemon);
    // One that is over.
    let gone = Viewer::tcp(mms, "demo");
    gone.wait_for_packets(1, Duration::from_secs(20));
    drop(gone);
    let pages: BTreeMap<&str, &str> = [
        ("streams", "/"),
        ("sources", "/sources"),
        ("viewers", "/viewers"),
        ("session", "/viewers/1"),
        ("session-end", "/viewers/1/kick"),
        ("source-disconnect", "/sources/disconnect?point=demo"),
        ("load", "/load"),
        ("ports", "/leases"),
        ("firewall", "/firewall?viewers=10&site=Head+office&side=viewer&for=text"),
        ("firewall-wrong", "/firewall?viewers=many"),
        ("probe", "/probe"),
        ("users", "/users"),
    ]
    .into();
    for (size, width, height) in [("wide", 1280, 900), ("narrow", 390, 844)] {
        let browser = Browser::start(width, height, true);
        browser.open(&format!("https://{}/", daemon.console));
        browser.wait_for_text("h1", "Sign in");
        audit(&browser, "sign-in", size);
        sign_in_by_hand(&browser, daemon.console);
        let session = browser.find_all("#sessions tbody th a").len();
        assert_eq!(session, 4, "{}", browser.text("#sessions"));
        for (page, path) in &pages {
            browser.open(&format!("https://{}{path}", daemon.console));
            // Pictures are part of it.
            wait_until("all pictures", Duration::from_secs(60), || {
                browser.run("return [...document.images].every((image) => image.complete)") == true
            });
            assert_no_complaints(&browser, page);
            audit(&browser, page, size);
        }
        browser.open(&format!("https://{}/none", daemon.console));
        audit(&browser, "not-found", size);
        // Where there is no such page the browser says so, and nothing else.
        let complaints = browser.complaints();
        assert!(complaints.iter().all(|complaint| complaint.contains("404")), "{complaints:?}");
    }
}
