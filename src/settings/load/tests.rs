use std::fs;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::settings::{CameraLogin, FOREVER, LogFormat, OutsidePool, Oversize, Source, Start, Viewers, effective};

struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("conf.d")).unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    fn sources(&self) -> Sources {
        Sources { file: Some(self.0.path().join("w.toml")), ..Sources::default() }
    }

    /// All messages, one a line, without the folder's name.
    fn problems(&self, sources: &Sources) -> Vec<String> {
        let text = load(sources).unwrap_err().to_string();
        text.replace(&format!("{}/", self.0.path().display()), "").lines().map(String::from).collect()
    }

    fn warnings(&self) -> Vec<String> {
        let warnings = load(&self.sources()).unwrap().warnings;
        warnings.iter().map(|warning| warning.to_string().replace(&format!("{}/", self.0.path().display()), "")).collect()
    }
}

fn file(text: &str) -> Folder {
    Folder::new(&[("w.toml", text)])
}

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn nothing_said_is_the_built_in() {
    let loaded = load(&Sources::default()).unwrap();
    assert_eq!(loaded.settings, Settings::default());
    assert!(loaded.warnings.is_empty() && loaded.places.is_empty() && loaded.files.is_empty());
    assert_eq!(loaded.settings.publishing_points_or_demo()[0].source, Source::Demo);
    assert_eq!(load(&file("").sources()).unwrap().settings, Settings::default());
}

#[test]
fn the_sample_equals_the_built_in_and_its_examples_are_sound() {
    let sample = include_str!("../../../config/wmrelay.toml");
    let loaded = load(&file(sample).sources()).unwrap();
    assert_eq!(loaded.settings, Settings::default());
    assert!(loaded.warnings.is_empty());

    let example =
        |line: &str| line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with([' ', '#'])).map(String::from);
    let uncommented: Vec<String> = sample.lines().map(|line| example(line).unwrap_or_else(|| line.to_owned())).collect();
    let uncommented = uncommented.join("\n");
    let raw: Raw = toml::from_str(&uncommented).unwrap();
    let settings = load(&file(&uncommented).sources()).unwrap().settings;
    assert_eq!(settings.publishing_points.len(), 8);
    assert_eq!((settings.profiles.len(), settings.player_profiles.len()), (5, 1));
    assert_eq!(settings.publishing_points[0].source_timeout, Some(Duration::from_secs(120)));
    assert_eq!((settings.udp.max_datagram_v4, settings.udp.max_datagram_v6), (1400, 1400));
    assert!(settings.users_file.unwrap().ends_with("users") && settings.viewers_file.unwrap().ends_with("viewers"));
    assert!(settings.key_file.unwrap().ends_with("signing.keys"));
    assert!(settings.rtsp_tls.certificate.is_some() && settings.rtsp_tls.key.is_some());
    let access = &settings.publishing_points[0].access;
    assert_eq!((access.viewers, access.allow.len(), access.deny.len()), (Viewers::Signed, 2, 1));

    // Every key there is stands in the sample; the points' keys depend on the type of the source.
    let mut all = serde_json::to_value(&raw).unwrap();
    let points = all.as_object_mut().unwrap().remove("publishing_point").unwrap();
    let missing: Vec<String> = all
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(table, value)| match value.as_object() {
            Some(keys) => keys.iter().filter(|(_, value)| value.is_null()).map(|(key, _)| format!("{table}.{key}")).collect(),
            None if value.is_null() => vec![table.clone()],
            None => Vec::new(),
        })
        .collect();
    assert!(missing.is_empty(), "the sample lacks {missing:?}");
    let points = points.as_array().unwrap();
    for key in [
        "/name",
        "/source_timeout_s",
        "/access",
        "/allow",
        "/deny",
        "/source/paths",
        "/source/argv",
        "/source/start",
        "/source/linger_s",
        "/source/root",
        "/source/url",
        "/source/input",
        "/source/input_arguments",
        "/source/profile",
    ] {
        let shown = points.iter().any(|point| point.pointer(key).is_some_and(|value| !value.is_null()));
        assert!(shown, "the sample lacks {key}");
    }
}

#[test]
fn later_layers_beat_earlier_ones() {
    let folder = Folder::new(&[
        ("w.toml", "shards = 1\n[limits]\nviewers = 1\nidle_s = 1\n[mms]\nlisten = '127.0.0.1:1'\n[log]\nlevel = 'warn'"),
        ("conf.d/20-b.toml", "limits.viewers = 3\nlimits.viewers_per_point = 3"),
        ("conf.d/10-a.toml", "limits.viewers = 2\nshards = 2"),
        ("conf.d/.30-hidden.toml", "shards = 'no number'"),
        ("conf.d/30.toml.bak", "shards = 'no number'"),
    ]);
    let mut sources = folder.sources();
    sources.env = env(&[
        ("WMRELAY__LIMITS__VIEWERS_PER_POINT", "4"),
        ("WMRELAY__MMS__LISTEN", "127.0.0.1:2, [::1]:3"),
        ("WMRELAY__UDP__ENABLED", "false"),
        ("WMRELAY__UDP__OVERSIZE", "refuse"),
        ("WMRELAY__HTTP__LISTEN", ""),
        ("WMRELAY_PORT", "tcp://a container platform's own"),
        ("PATH", "/bin"),
    ]);
    sources.flags = vec![Flag { name: "--log-format", key: "log.format", value: "json".into() }];
    let Loaded { settings, places, files, .. } = load(&sources).unwrap();
    assert_eq!(settings.shards, 2);
    assert_eq!((settings.limits.viewers, settings.limits.viewers_per_point), (3, 4));
    assert_eq!(settings.limits.idle, Duration::from_secs(1));
    assert_eq!(settings.mms.addresses, ["127.0.0.1:2".parse().unwrap(), "[::1]:3".parse().unwrap()]);
    assert_eq!((settings.udp.enabled, settings.udp.oversize), (false, Oversize::Refuse));
    assert!(settings.http.addresses.is_empty());
    assert_eq!((settings.log.level.as_str(), settings.log.format), ("warn", LogFormat::Json));
    assert!(places["limits.viewers"].ends_with("conf.d/20-b.toml:1"));
    assert_eq!(places["mms.listen"], "environment variable WMRELAY__MMS__LISTEN");
    assert_eq!(places["log.format"], "--log-format");
    assert_eq!(files.len(), 3);

    sources.flags.push(Flag { name: "--mms-listen", key: "mms.listen", value: "*:4".into() });
    assert_eq!(load(&sources).unwrap().settings.mms, crate::settings::Listen::anywhere(4));
}

#[test]
fn publishing_points_are_merged_by_name() {
    let point = |name: &str, source: &str| format!("[[publishing_point]]\nname = '{name}'\nsource = {{ type = '{source}' }}\n");
    let folder = Folder::new(&[
        ("w.toml", &(point("a", "push") + &point("b", "push"))),
        ("conf.d/1.toml", &(point("c", "demo") + &point("a", "demo"))),
    ]);
    let points = load(&folder.sources()).unwrap().settings.publishing_points;
    let told: Vec<_> = points.iter().map(|point| (point.name.as_str(), point.source.clone())).collect();
    assert_eq!(told, [("a", Source::Demo), ("b", Source::Push), ("c", Source::Demo)]);

    let twice = file(&(point("a", "push") + &point("a", "demo")));
    let problems = twice.problems(&twice.sources());
    assert_eq!(
        problems,
        [
            "w.toml:4: publishing_point.name: the publishing point \"a\" was already defined at w.toml:1; names are unique in a file"
        ]
    );
    let capitals = file(&(point("a", "push") + &point("A", "demo")));
    assert!(
        capitals.problems(&capitals.sources())[0].starts_with("w.toml:5: publishing_point[1].name: \"A\" and \"a\" differ only")
    );
}

#[test]
fn sources_of_all_types() {
    let folder = file(
        "source_timeout_s = 0\n\
         [[publishing_point]]\nname = 'f'\nsource = { type = 'file', path = 'x.asf' }\n\
         [[publishing_point]]\nname = 'g'\nsource = { type = 'file', paths = ['/a.asf', 'b.asf'] }\nsource_timeout_s = 5\n\
         [[publishing_point]]\nname = 'e'\nsource = { type = 'exec', argv = ['cat', 'x'], start = 'watched' }\n",
    );
    let points = load(&folder.sources()).unwrap().settings.publishing_points;
    let base = folder.0.path();
    assert_eq!(
        points[0].source,
        Source::File { paths: vec![base.join("x.asf")], start: Start::Always, linger: Duration::from_secs(10) }
    );
    assert_eq!(points[0].source_timeout, None);
    assert_eq!(
        points[1].source,
        Source::File { paths: vec!["/a.asf".into(), base.join("b.asf")], start: Start::Always, linger: Duration::from_secs(10) }
    );
    assert_eq!(points[1].source_timeout, Some(Duration::from_secs(5)));
    let argv = vec!["cat".to_owned(), "x".to_owned()];
    assert_eq!(points[2].source, Source::Exec { argv, start: Start::Watched, linger: Duration::from_secs(10) });
    assert_eq!(folder.warnings().len(), 3);
    assert!(folder.warnings()[0].starts_with("w.toml:4: publishing_point[0].source.path: x.asf is not there"));
}

#[test]
fn all_mistakes_of_meaning_are_told() {
    let folder = file(
        "[mms]\nlisten = [\n'*:1755',\n'1755',\n]\n\
         [http]\nlisten = '0.0.0.0:1755'\n\
         [udp]\nclient_ports = '5000-1024'\nmax_datagram = 100\n\
         [window]\nseconds = 0\nbytes = 1\n\
         [access]\nviewers_deny = ['home']\n\
         [log]\nlevel = 'wmrelay=loud'\n\
         [[publishing_point]]\n\
         [[publishing_point]]\nname = 'publish'\nsource = { type = 'push', path = 'x' }\n\
         [[publishing_point]]\nname = 'x'\nsource = { type = 'file' }\n\
         [[publishing_point]]\nname = 'y'\nsource = { type = 'exec' }\n\
         [[publishing_point]]\nname = 'z'\nsource = { path = 'a' }\n",
    );
    let problems = folder.problems(&folder.sources());
    for start in [
        "w.toml:4: mms.listen[1]: \"1755\" is a port without an address",
        "w.toml:7: http.listen: 0.0.0.0:1755 takes the port of 0.0.0.0:1755 (mms.listen)",
        "w.toml:9: udp.client_ports: \"5000-1024\" ends before it begins",
        "w.toml:10: udp.max_datagram: 100 is not between 512 and 65507",
        "w.toml:12: window.seconds: ",
        "w.toml:13: window.bytes: ",
        "w.toml:15: access.viewers_deny[0]: \"home\" is not a network",
        "w.toml:17: log.level: ",
        "w.toml:18: publishing_point[0]: lacks `name`",
        "w.toml:18: publishing_point[0]: lacks `source`",
        "w.toml:20: publishing_point[1].name: \"publish\": \"publish\" is reserved",
        "w.toml:21: publishing_point[1].source.path: a source of type \"push\" has no `path`",
        "w.toml:24: publishing_point[2].source: lacks `path`",
        "w.toml:27: publishing_point[3].source: lacks `argv`",
        "w.toml:30: publishing_point[4].source: lacks `type`",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(start)), "{start:?} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), 15, "{problems:#?}");
}

#[test]
fn mistakes_of_all_layers_are_told_with_their_place() {
    let folder = Folder::new(&[("w.toml", "\nshard = 1"), ("conf.d/a.toml", "[udp]\nenabled = 'yes'")]);
    let mut sources = folder.sources();
    sources.env = env(&[
        ("WMRELAY__MMS__LISTN", "x"),
        ("WMRELAY__MMS", "x"),
        ("WMRELAY__", "x"),
        ("WMRELAY__LIMITS__VIEWERS", "many"),
        ("WMRELAY__UDP__OUTSIDE_POOL", "deny"),
        ("WMRELAY__PUBLISHING_POINT__0__NAME", "a"),
    ]);
    sources.flags = vec![Flag { name: "--log-format", key: "log.format", value: "jsn".into() }];
    let problems = folder.problems(&sources);
    for start in [
        "w.toml:2: shard: unknown key `shard`; did you mean `shards`?",
        "conf.d/a.toml:2: udp.enabled: invalid type: string \"yes\", expected true or false",
        "environment variable WMRELAY__MMS__LISTN: mms.listn: unknown key `listn`; did you mean `listen`?",
        "environment variable WMRELAY__MMS: mms: ",
        "environment variable WMRELAY__: unknown key",
        "environment variable WMRELAY__LIMITS__VIEWERS: limits.viewers: invalid type: string \"many\", expected a whole number",
        "environment variable WMRELAY__UDP__OUTSIDE_POOL: udp.outside_pool: unknown value \"deny\"; known here: \"refuse\", \"allow\"",
        "environment variable WMRELAY__PUBLISHING_POINT__0__NAME: publishing points are set in files",
        "--log-format: log.format: unknown value \"jsn\"; did you mean \"json\"?",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(start)), "{start:?} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), 9, "{problems:#?}");
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let folder = Folder::new(&[]);
    assert!(folder.problems(&folder.sources())[0].starts_with("w.toml: cannot be read: "));
}

#[test]
fn nothing_to_serve_is_refused() {
    let folder = file("mms.listen = []");
    assert!(folder.problems(&folder.sources())[0].starts_with("w.toml:1: mms.listen: is empty"));
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let demo = "[[publishing_point]]\nname = 'a'\nsource = { type = 'demo' }\n";
    let warned = |text: &str| -> Vec<String> {
        let warnings = Folder::new(&[("w.toml", &format!("{text}{demo}")), ("keys", "")]).warnings();
        warnings.iter().map(|warning| warning.split(": ").nth(1).unwrap().to_owned()).collect()
    };
    for (text, expected) in [
        ("access_log.rotate_daily = true\n", "access_log.rotate_daily"),
        ("access_log.hash_addresses = true\n", "access_log.hash_addresses"),
        ("access_log.rotate_bytes = 1000000\n", "access_log.rotate_bytes"),
        ("access_log.keep = 3\n", "access_log.keep"),
        ("access_log = { file = 'a.log', keep = 3, rotate_bytes = 0 }\n", "access_log.keep"),
        ("publish.create_limit = 3\n", "publish.create_limit"),
        ("signing.key_file = 'keys'\n", "signing.key_file"),
    ] {
        assert_eq!(warned(text), [expected], "{text}");
    }
    for text in [
        "access_log = { file = 'a.log', keep = 3, hash_addresses = true }\n",
        "access_log = { file = 'a.log', keep = 3, rotate_bytes = 0, rotate_daily = true }\n",
        "access_log.rotate_bytes = 0\n",
        "signing.key_file = 'keys'\naccess.viewers = 'signed'\n",
    ] {
        assert_eq!(warned(text), [""; 0], "{text}");
    }
}

#[test]
fn what_was_probably_not_meant_is_a_warning() {
    let folder = file(
        "admin.listen = '*:9755'\nlimits.joins_burst = 5\nlimits.idle_s = 0\nudp.max_datagram = 1500\nudp.client_ports = '1-2000'\n\
         users.file = 'nobody'\naccess.viewers_allow = '10.1.0.0/16'\naccess.viewers_deny = '10.0.0.0/8'\nhttp.listen = []\n\
         [[publishing_point]]\nname = 'a'\nsource = { type = 'push' }\n\
         [[publishing_point]]\nname = 'b'\nsource = { type = 'exec', argv = ['cat x'], linger_s = 5 }\n",
    );
    let warnings = folder.warnings();
    for start in [
        "w.toml:1: admin.listen: 0.0.0.0:9755 can be reached",
        "w.toml:2: limits.joins_burst: has no effect",
        "w.toml:3: limits.idle_s: ",
        "w.toml:4: udp.max_datagram: ",
        "w.toml:5: udp.client_ports: ports below 1024",
        "w.toml:6: users.file: nobody is not there",
        "w.toml:7: access.viewers_allow[0]: 10.1.0.0/16 is denied too",
        "w.toml:9: http.listen: is empty, so \"a\" is published by RTSP alone, which few encoders can",
        "w.toml:15: publishing_point[1].source.argv: ",
        "w.toml:15: publishing_point[1].source.linger_s: ",
    ] {
        assert!(warnings.iter().any(|warning| warning.starts_with(start)), "{start:?} is not in {warnings:#?}");
    }
    assert_eq!(warnings.len(), 10, "{warnings:#?}");
    assert_eq!(load(&folder.sources()).unwrap().settings.limits.idle, FOREVER);
    let no_users = file("[[publishing_point]]\nname = 'a'\nsource = { type = 'push' }\n");
    assert!(no_users.warnings()[0].contains("only this machine itself can publish \"a\""));
}

#[test]
fn what_nobody_could_sign_in_at_is_a_warning() {
    let folder = file("control.listen = '192.0.2.1:3898'\nconsole.listen = ['localhost:8443', '192.0.2.1:8443']\n");
    let warnings = folder.warnings();
    let starts = ["w.toml:1: control.listen: 192.0.2.1:3898 is not", "w.toml:2: console.listen: 192.0.2.1:8443 is not"];
    for (warning, start) in warnings.iter().zip(starts) {
        assert!(warning.starts_with(start), "{warnings:#?}");
    }
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(file("console.listen = '*:8443'\n").warnings().is_empty(), "narrowed to this machine");
}

#[test]
fn what_is_in_force_can_be_read_again() {
    let folder = file(
        "shards = 3\nmms.listen = ['*:1', 'localhost:2', '[::1]:3']\nadmin.listen = ''\nudp.client_ports = [1024, '2000-2010']\n\
         udp.outside_pool = 'allow'\nudp.max_datagram = 1400\nlimits.idle_s = 0\nsource_timeout_s = 0\nusers.file = 'u\"s\\ers'\n\
         access.publishers_allow = '10.0.0.0/8'\nlog.format = 'journald'\n\
         [[publishing_point]]\nname = 'Übung \"1\"'\nsource = { type = 'file', paths = ['a\\tb', 'c'] }\n\
         [[publishing_point]]\nname = 'e'\nsource_timeout_s = 7\nfallback = { slate = \"it's \\\"off\\\"\" }\nfallback_after_s = 9\nsource = { type = 'exec', argv = ['x', '\u{1F3A5}', \"\\u007F\\n\"], start = 'watched', linger_s = 3 }\n",
    );
    for sources in [folder.sources(), Sources::default()] {
        let loaded = load(&sources).unwrap();
        let text = effective(&loaded);
        let again = load(&file(&text).sources()).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(again.settings, loaded.settings, "{text}");
    }
    let text = effective(&load(&folder.sources()).unwrap());
    assert!(text.contains("outside_pool = \"allow\" # "), "{text}");
    assert!(text.lines().any(|line| line.starts_with("shards = 3 # ") && line.ends_with("w.toml:1")), "{text}");
    assert_eq!(load(&folder.sources()).unwrap().settings.udp.outside_pool, OutsidePool::Allow);
}

#[test]
fn files_and_other_servers_as_sources() {
    let text = |source: &str| format!("[[publishing_point]]\nname = 'a/'\nsource = {source}");
    let point = |source: &str| load(&file(&text(source)).sources()).unwrap().settings.publishing_points.remove(0);
    let archive = point("{ type = 'files', root = '/tmp' }");
    assert_eq!((archive.name.as_str(), archive.source), ("a", Source::Files { root: "/tmp".into() }));
    let mirror = point("{ type = 'pull', url = 'mms://h/x/' }");
    let (start, linger) = (Start::Always, Duration::from_secs(10));
    assert_eq!((mirror.name.as_str(), mirror.source), ("a", Source::Pull { url: "mms://h/x/".into(), start, linger }));
    for (source, word) in [
        ("{ type = 'files' }", "lacks `root`"),
        ("{ type = 'files', root = '' }", "lacks `root`"),
        ("{ type = 'files', root = '/tmp', path = 'x' }", "has no `path`"),
        ("{ type = 'pull' }", "lacks `url`"),
        ("{ type = 'pull', url = 'https://h/x' }", "does not begin with mms://"),
        ("{ type = 'pull', url = 'http:///x' }", "names no server"),
        ("{ type = 'pull', url = 'mmsh://u:secret@h:0/x?k=secret' }", "the port is not"),
        ("{ type = 'pull', url = 'mms:///x' }", "names no server"),
        ("{ type = 'pull', url = 'mms://h' }", "names nothing"),
        ("{ type = 'pull', url = 'mms://u:secret@h/x' }", "cannot be given"),
        ("{ type = 'pull', url = 'mms://h:99999/x' }", "the port is not"),
        ("{ type = 'pull', url = 'mms://[::1]:x/x' }", "the port is not"),
        ("{ type = 'pull', url = 'rtsp://u:secret@h:0/x?k=secret' }", "the port is not"),
        ("{ type = 'pull', url = 'rtspt://h' }", "names nothing"),
        ("{ type = 'pull', url = 'rtsp://u:secret@h/x/' }", "no folder is pulled"),
        ("{ type = 'pull', url = 'rtsps://h/x' }", "does not begin with mms://"),
        // Only a folder has a slash at the end of its name.
        ("{ type = 'pull', url = 'mms://h/x' }", "without / at its ends"),
    ] {
        let error = load(&file(&text(source)).sources()).unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains("secret"), "{source}: {error}");
    }
}

#[test]
fn secrets_in_urls_are_taken_and_not_shown() {
    for (url, shown, is_folder) in [
        ("http://cam:secret@h:8080/live?k=secret", "http://…@h:8080/live?…", false),
        ("mmsh://h", "mmsh://h", false),
        ("http://h/a/", "http://h/a/", true),
        ("http://h/a?k=secret/", "http://h/a?…", false),
        ("mms://h/live?k=secret", "mms://h/live?…", false),
        ("rtsp://cam:secret@h:8554/live?k=secret", "rtsp://…@h:8554/live?…", false),
        ("rtspt://h/live", "rtspt://h/live", false),
        ("RTSPU://h/live", "RTSPU://h/live", false),
    ] {
        let name = if is_folder { "a/" } else { "a" };
        let text = format!("[[publishing_point]]\nname = '{name}'\nsource = {{ type = 'pull', url = '{url}' }}");
        let loaded = load(&file(&text).sources()).unwrap();
        let source = &loaded.settings.publishing_points[0].source;
        assert!(matches!(source, Source::Pull { url: taken, .. } if taken == url) && source.is_folder() == is_folder, "{url}");
        let text = effective(&loaded);
        assert!(text.contains(shown) && !text.contains("secret"), "{text}");
    }
}

#[test]
fn templates_are_checked() {
    let text = |name: &str, more: &str| format!("[[publishing_point]]\nname = '{name}'\n{more}");
    let pull = "source = { type = 'pull', url = 'rtsp://nvr/{1}' }";
    let loaded = load(&file(&text("cam-*", pull)).sources()).unwrap();
    let point = &loaded.settings.publishing_points[0];
    assert!(matches!(point.source, Source::Pull { start: Start::Watched, .. }) && point.is_lender());
    assert_eq!((point.at_once, loaded.warnings.len()), (64, 0));
    let paths = "at_once = 1024\nsource = { type = 'file', paths = ['/srv/{2}/{1}.asf', 'b{1}'] }";
    let loaded = load(&file(&text("*/*", paths)).sources()).unwrap();
    assert_eq!((loaded.settings.publishing_points[0].at_once, loaded.warnings.len()), (1024, 0));
    let again = load(&file(&effective(&loaded)).sources()).unwrap();
    assert_eq!(again.settings, loaded.settings);
    for (name, more, line, words) in [
        ("cam", pull, 3, "publishing_point[0].source.url: {1} stands for what a `*` in the name matches, and \"cam\" has none"),
        ("cam-*", "source = { type = 'pull', url = 'mms://h/{2}{1}{0}' }", 3, "source.url: {2} stands for a `*` of that number"),
        ("cam-*", "source = { type = 'pull', start = 'always', url = 'mms://h/{1}' }", 3, "source.start: nobody knows"),
        ("cam-*", "source = { type = 'pull', url = 'mms://{1}/x' }", 3, "source.url: a {n} in front of the path"),
        ("cam-*", "source = { type = 'pull', url = 'http://u:{1}@h/x' }", 3, "source.url: a {n} in front of the path"),
        ("cam-*", "source = { type = 'pull', url = 'mms://h/{1}/' }", 3, "source.url: is a whole folder"),
        ("cam-*", "source = { type = 'push' }", 2, "name: \"cam-*\" has a `*` in it, which only"),
        ("cam-*", "source = { type = 'demo' }", 2, "which only"),
        ("cam-*", "source = { type = 'files', root = '/tmp' }", 2, "which only"),
        ("cam-*", "source = { type = 'exec', argv = ['{1}'] }", 3, "source.argv[0]: viewers would choose the program"),
        ("cam-*", "source = { type = 'exec', argv = ['/bin/sh', '-c', 'x {1}'] }", 3, "source.argv[2]: a shell would read"),
        ("cam-*", "source = { type = 'exec', argv = ['nice', 'bash', '-xc', 'x {1}'] }", 3, "source.argv[3]: a shell would read"),
        ("cam-*", "source = { type = 'exec', argv = ['bash', '-ce', 'x {1}'] }", 3, "source.argv[2]: a shell would read"),
        ("cam-*", "source = { type = 'exec', argv = ['sh', '-c', '--', 'x {1}'] }", 3, "source.argv[3]: a shell would read"),
        (
            "cam-*",
            "source = { type = 'exec', argv = ['busybox', 'sh', '-c', '-e', 'x {1}'] }",
            3,
            "source.argv[4]: a shell would",
        ),
        ("cam-*", "source = { type = 'exec', argv = ['python3', '-c', 'x {1}'] }", 3, "source.argv[2]: a shell would read"),
        ("cam-*", "source = { type = 'camera', url = 'rtsp://{1}/x' }", 3, "source.url: a {n} in front of the path"),
        ("cam-*", "source = { type = 'ffmpeg', input = 'http://h{1}/x' }", 3, "source.input: a {n} in front of the path"),
        (
            "cam-*",
            "source = { type = 'ffmpeg', input = 'x{1}', input_arguments = ['-f', 'lavfi'] }",
            3,
            "source.input: with `-f`",
        ),
        (
            "cam-*",
            "source = { type = 'ffmpeg', input = '/a/{1}', input_arguments = ['-ss', '{1}'] }",
            3,
            "a {n} is filled in only",
        ),
        ("cam-*", "source = { type = 'exec', argv = ['x', '{7}'] }", 3, "source.argv[1]: {7} stands"),
        ("cam-*", "source = { type = 'file', path = '/srv/{2}' }", 3, "source.path: {2} stands"),
        ("a**b", "source = { type = 'file', path = '/srv/{2}' }", 2, "name: \"a**b\": between two"),
        ("*a*b*c*d*", "source = { type = 'file', path = '/srv/{2}' }", 2, "has 5 `*`"),
        ("cam", "at_once = 5\nsource = { type = 'push' }", 3, "at_once: \"cam\" has no `*`"),
        ("cam-*", "at_once = 0\nsource = { type = 'pull', url = 'mms://h/{1}' }", 3, "at_once: 0 is not between 1 and 1024"),
        ("cam-*", "at_once = 1025\nsource = { type = 'pull', url = 'mms://h/{1}' }", 3, "at_once: 1025 is not"),
    ] {
        let folder = file(&text(name, more));
        let problems = folder.problems(&folder.sources());
        let at = format!("w.toml:{line}: publishing_point[0].");
        assert!(
            problems.iter().any(|problem| problem.starts_with(&at) && problem.contains(words)),
            "{at} {words}: {problems:#?}"
        );
    }
    for source in [
        "type = 'camera', url = 'rtsp://u:p@nvr/{1}'",
        "type = 'ffmpeg', input = 'rtsp://nvr/{1}'",
        "type = 'ffmpeg', input = '/srv/{1}.mp4'",
        "type = 'exec', argv = ['sh', '-c', 'x \"$1\"', 'x', 'v={1}']",
    ] {
        let loaded = load(&file(&text("cam-*", &format!("source = {{ {source} }}"))).sources()).unwrap();
        assert!(loaded.settings.publishing_points[0].is_lender(), "{source}");
    }
    let warned = file(&text("cam-*", "source = { type = 'exec', argv = ['x', '-i', '{1}', 'v={1}'] }")).warnings();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].starts_with("w.toml:3: publishing_point[0].source.argv[2]: begins with what viewers name"), "{warned:?}");
}

#[test]
fn lists_of_stations_are_checked() {
    let folder = Folder::new(&[
        ("w.toml", "[[stations]]\nfile = 's.txt'\nat_once = 7\nlinger_s = 3\naccess = 'all'\ndeny = '10.0.0.0/8'\n"),
        ("s.txt", ""),
    ]);
    let loaded = load(&folder.sources()).unwrap();
    let list = &loaded.settings.publishing_points[0];
    let source = Source::Stations { file: folder.0.path().join("s.txt"), linger: Duration::from_secs(3) };
    assert_eq!((&list.name[..], &list.source, list.at_once, list.access.deny.len()), ("s.txt", &source, 7, 1));
    assert!(loaded.warnings.is_empty() && list.is_lender());
    let text = effective(&loaded);
    assert!(text.contains("[[stations]] # ") && !text.contains("[[publishing_point]]"), "{text}");
    let again = load(&file(&text).sources()).unwrap().settings.publishing_points.remove(0);
    assert_eq!((again.source, again.at_once, &again.access), (source, 7, &list.access));
    let folder =
        file("[[stations]]\nfile = 's'\nat_once = 0\naccess = 'signed'\n[[stations]]\nfile = 's'\n[[stations]]\nat_once = 7\n");
    let problems = folder.problems(&folder.sources());
    for wanted in [
        "w.toml:3: stations[0].at_once: 0 is not",
        "w.toml:4: stations[0].access: \"signed\" of \"s\" needs keys",
        "w.toml:6: stations[1].file: s is named twice",
        "w.toml:7: stations[2]: lacks `file`",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(wanted)), "{wanted}: {problems:#?}");
    }
}

#[test]
fn hooks_are_checked() {
    let demo = "[[publishing_point]]\nname = 'demo'\nsource = { type = 'demo' }\n";
    let own =
        "[[publishing_point]]\nname = 'own'\nsource = { type = 'push' }\nhooks = { on_ready = [], on_gone = ['b', 'c d'] }\n";
    let folder = file(&format!("{demo}{own}[hooks]\non_ready = ['a', '$(x)']\ntimeout_s = 3\n"));
    let loaded = load(&folder.sources()).unwrap();
    let [demo, own] = &loaded.settings.publishing_points[..] else { panic!() };
    assert_eq!((&demo.commands, loaded.settings.hooks.timeout), (&loaded.settings.hooks.commands, Duration::from_secs(3)));
    assert_eq!((demo.commands.on_ready.len(), own.commands.on_ready.len(), own.commands.on_gone.len()), (2, 0, 2));
    let again = load(&file(&effective(&loaded)).sources()).unwrap().settings;
    assert_eq!(again, loaded.settings);
    let secret = "secret = 'a secret of sixteen'";
    let shown = effective(&load(&file(&format!("[hooks]\nurl = 'https://h/x?k=hidden'\n{secret}")).sources()).unwrap());
    assert!(shown.contains("# url: https://h/x?…") && !shown.contains("hidden") && !shown.contains("sixteen"), "{shown}");
    for (text, words) in [
        ("url = 'http://h/'".to_owned(), "w.toml:2: hooks.url: lacks `secret`"),
        ("url = 'http://h/'\nsecret = 'short'".into(), "w.toml:3: hooks.secret: is shorter"),
        (format!("url = 'h/x'\n{secret}"), "w.toml:2: hooks.url: \"h/x\" does not begin"),
        ("timeout_s = 0".into(), "w.toml:2: hooks.timeout_s: 0 is not"),
        ("on_ready = ['']".into(), "w.toml:2: hooks.on_ready: the program's name is empty"),
        ("on_gone = ['a', \"\\u0000\"]".into(), "w.toml:2: hooks.on_gone: an argument contains a NUL"),
        ("on_gone = 'a'".into(), "w.toml:2: hooks.on_gone: invalid type"),
    ] {
        let folder = file(&format!("[hooks]\n{text}\n"));
        let problems = folder.problems(&folder.sources());
        assert!(problems.len() == 1 && problems[0].starts_with(words), "{words}: {problems:#?}");
    }
    assert!(file("[hooks]\nsecret = 'x'\non_ready = ['a b']\n").warnings().len() == 2);
}

#[test]
fn profiles_replace_each_other_by_name() {
    let folder = Folder::new(&[
        (
            "w.toml",
            "[[profile]]\nname = 'Radio'\naudio = { codec = 'mp3', channels = 1 }\n\
             [[profile]]\nname = 'small'\nvideo = { codec = 'wmv1', bit_rate_kbps = 50, max_fps = 5 }\narguments = ['-threads', '1']\n\
             [[player_profile]]\nplayer = 'NSPlayer/4.'\nprotocol = 'mms'\nprofile = 'SMALL'\n\
             [[publishing_point]]\nname = 'cam'\nsource = { type = 'ffmpeg', input = 'rtsp://u:p@h/1', profile = 'small', start = 'watched' }\n\
             [[publishing_point]]\nname = 'file'\nsource = { type = 'ffmpeg', input = 'w.toml' }\n",
        ),
        ("conf.d/1.toml", "[[profile]]\nname = 'small'\naudio = { codec = 'wmav2' }\npacket_size = 700\ncopy = false"),
    ]);
    let loaded = load(&folder.sources()).unwrap();
    let settings = &loaded.settings;
    let names: Vec<_> = settings.profiles.iter().map(|profile| &*profile.name).collect();
    assert_eq!(names, ["wmp64", "wmp9", "wmp12", "Radio", "small"]);
    let [radio, small] = ["RADIO", "small"].map(|name| settings.profile(name).unwrap());
    assert_eq!(radio.audio.unwrap().channels, 1);
    assert_eq!((small.video, small.packet_size, small.copy, small.arguments.len()), (None, 700, false, 0));
    let Source::Ffmpeg { input, profile, start, .. } = &settings.publishing_points[0].source else { panic!() };
    assert_eq!((input.input.as_str(), profile.as_str(), *start), ("rtsp://u:p@h/1", "small", Start::Watched));
    // A path starts from the settings' folder, and the profile need not be said.
    let Source::Ffmpeg { input, profile, .. } = &settings.publishing_points[1].source else { panic!() };
    assert_eq!((input.input.clone(), profile.as_str()), (folder.0.path().join("w.toml").display().to_string(), "wmp9"));
    let page = effective(&loaded);
    assert!(page.contains("input = \"rtsp://…@h/1\"") && !page.contains("u:p@"), "{page}");
    // Read again it means the same.
    let again = load(&file(&page.replace("rtsp://…@", "rtsp://u:p@")).sources()).unwrap().settings;
    assert_eq!((&again.profiles, &again.player_profiles), (&settings.profiles, &settings.player_profiles));
    assert_eq!(again.publishing_points[0], settings.publishing_points[0]);
}

#[test]
fn mistakes_of_transcoding_are_told() {
    let folder = file(
        "[transcode]\nchildren = 0\nnice = 20\nmemory_bytes = 5\nffmpeg = ''\n\
         [[profile]]\nname = 'a b'\naudio = { codec = 'wma' }\n\
         [[profile]]\nname = 'none'\n\
         [[profile]]\nname = 'v'\nvideo = { bit_rate_kbps = 1, max_width = 9000 }\npacket_size = 10\n\
         [[profile]]\naudio = { codec = 'aac' }\n\
         [[player_profile]]\nprofile = 'wmp64'\n\
         [[player_profile]]\nprotocol = 'mmst'\nplayer = 'x'\nprofile = 'y'\n\
         [[publishing_point]]\nname = '1'\nsource = { type = 'ffmpeg', input = '-i' }\n\
         [[publishing_point]]\nname = '2'\nsource = { type = 'ffmpeg', input = 'gopher://h/', profile = 'wmp10' }\n\
         [[publishing_point]]\nname = '3'\nsource = { type = 'ffmpeg', argv = ['x'] }\n\
         [[publishing_point]]\nname = '4'\nsource = { type = 'push', input = 'x' }\n",
    );
    let mut found = folder.problems(&folder.sources());
    found.sort();
    for part in [
        "transcode.children: 0 is not between 1 and 1000",
        "transcode.nice: 20 is not between 0 and 19",
        "transcode.memory_bytes: 5 is too little",
        "transcode.ffmpeg: is empty",
        "profile[0].name: \"a b\" is not of 1 to 64 letters",
        "profile[2].packet_size: 10 is not between 256 and 65000",
        "profile[0].audio.codec: \"wma\" is not one of \"wmav1\"",
        "profile[1]: has neither `video` nor `audio`",
        "profile[2].video: lacks `codec`",
        "profile[2].video.bit_rate_kbps: 1 is not between 4 and 100000",
        "profile[2].video.max_width: 9000 is not between 16 and 8192",
        "profile[3]: lacks `name`",
        "player_profile[0]: has neither `player` nor `protocol`",
        "player_profile[1].protocol: \"mmst\" is no protocol",
        "player_profile[1].profile: there is no profile \"y\"",
        "publishing_point[0].source.input: begins with -",
        "publishing_point[1].source.input: gopher:// is not known here",
        "publishing_point[2].source.argv: a source of type \"ffmpeg\" has no `argv`",
        "publishing_point[2].source: lacks `input`",
        "publishing_point[3].source.input: a source of type \"push\" has no `input`",
    ] {
        assert!(found.iter().any(|line| line.starts_with("w.toml:") && line.contains(part)), "{part}: {found:#?}");
    }
}

#[test]
fn cameras_as_sources() {
    let text = |source: &str| format!("[[publishing_point]]\nname = 'cam'\nsource = {{ type = 'camera', {source} }}");
    let point = |source: &str| load(&file(&text(source)).sources()).unwrap().settings.publishing_points.remove(0).source;
    let camera = |url: &str, login: Option<(&str, &str)>, udp, start, seconds| Source::Camera {
        url: url.to_owned(),
        login: login.map(|(user, password)| CameraLogin { user: user.into(), password: password.into() }),
        udp,
        start,
        linger: Duration::from_secs(seconds),
    };
    assert_eq!(point("url = 'rtsp://h/x'"), camera("rtsp://h/x", None, false, Start::Always, 10));
    let source = "url = 'rtsp://h:8554/x?a=1', user = 'u', password = 'p', transport = 'udp', start = 'watched', linger_s = 3";
    assert_eq!(point(source), camera("rtsp://h:8554/x?a=1", Some(("u", "p")), true, Start::Watched, 3));
    for (source, word) in [
        ("start = 'always'", "lacks `url`"),
        ("url = 'rtsps://u:secret@h/x'", "not reached inside TLS"),
        ("url = 'http://h/x'", "does not begin with rtsp://"),
        ("url = 'rtsp:///x'", "names no camera"),
        ("url = 'rtsp://u:secret@h:0/x'", "the port is not"),
        ("url = 'rtsp://h/x', password = 'secret'", "lacks its `user`"),
        ("url = 'rtsp://h/x', transport = 'sctp'", "transport"),
        ("url = 'rtsp://h/x', argv = ['x']", "has no `argv`"),
    ] {
        let error = load(&file(&text(source)).sources()).unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains("secret"), "{source}: {error}");
    }
    let shown = effective(&load(&file(&text("url = 'rtsp://u:secret@h/x?k=secret', transport = 'udp'")).sources()).unwrap());
    assert!(shown.contains("url = \"rtsp://…@h/x?…\", transport = \"udp\"") && !shown.contains("secret"), "{shown}");
    let shown = effective(&load(&file(&text("url = 'rtsp://h/x', user = 'u', password = 'secret'")).sources()).unwrap());
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn inputs_that_come_to_a_port_are_had_once() {
    let point = |name: &str, input: &str, profile: &str| {
        format!("[[publishing_point]]\nname = '{name}'\nsource = {{ type = 'ffmpeg', input = {input}, profile = '{profile}' }}\n")
    };
    let warned = |text: String| {
        let warnings = file(&text).warnings();
        warnings.iter().map(|warning| warning.split(": ").skip(1).collect::<Vec<_>>().join(": ")).collect::<Vec<_>>()
    };
    let (udp, listens) = ("'udp://:5000'", "'rtmp://0.0.0.0:1935/live/a', input_arguments = ['-listen', '1']");
    assert_eq!(warned(point("a", udp, "wmp64")), [""; 0]);
    assert_eq!(warned(point("a", "'udp://239.0.0.1:5000'", "wmp9")), [""; 0]);
    let all = warned(point("a", listens, "wmp9"));
    assert!(all.len() == 1 && all[0].contains("all players get it in its own profile, \"wmp9\""), "{all:?}");
    let rule = "[[player_profile]]\nplayer = 'VLC'\nprofile = 'wmp9'\n";
    assert_eq!(warned(format!("{rule}{}", point("a", udp, "wmp64"))).len(), 1);
    assert_eq!(warned(point("a", udp, "wmp64") + &point("b", udp, "WMP64")), [""; 0], "one child for both");
    let radio = warned(point("a", udp, "wmp64") + &point("b", udp, "radio"));
    assert!(
        radio.len() == 1 && radio[0].starts_with("publishing_point[1].source.input: comes to the port of \"a\""),
        "{radio:?}"
    );
    let other = listens.replace("/a", "/b");
    assert_eq!(warned(point("a", listens, "wmp64") + &point("b", &other, "wmp64")).len(), 1);
    let template = warned(point("a-*", &listens.replace("/a", "/{1}"), "wmp64"));
    assert!(template.len() == 1 && template[0].contains("one name of the template"), "{template:?}");
}

#[test]
fn a_fallback_that_comes_too_late_is_a_warning() {
    let warned = |keys: &str| {
        let text = format!("[[publishing_point]]\nname = 'a'\nsource = {{ type = 'demo' }}\n{keys}");
        file(&text).warnings().iter().map(|warning| warning.split(": ").nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    let slate = "fallback = { slate = 'x' }\n";
    for (keys, expected) in [
        ("fallback_after_s = 30\nsource_timeout_s = 20\n", Some("fallback_after_s")),
        ("fallback_after_s = 20\nsource_timeout_s = 20\n", Some("fallback_after_s")),
        ("fallback_after_s = 19\nsource_timeout_s = 20\n", None),
        ("source_timeout_s = 3\n", Some("fallback")),
        ("fallback_after_s = 3600\nsource_timeout_s = 0\n", None),
    ] {
        let expected: Vec<_> = expected.map(|key| format!("publishing_point[0].{key}")).into_iter().collect();
        assert_eq!(warned(&format!("{slate}{keys}")), expected, "{keys}");
    }
    assert_eq!(warned("fallback_after_s = 3\n"), ["publishing_point[0].fallback_after_s"], "without a fallback");
}

#[test]
fn sound_that_ffmpeg_cannot_make_is_refused() {
    let of = |codec: &str, kbps: u32| {
        let text = format!("[[profile]]\nname = 'modem'\naudio = {{ codec = '{codec}', bit_rate_kbps = {kbps} }}\n");
        load(&file(&text).sources()).map(drop).map_err(|error| error.to_string())
    };
    for codec in ["wmav1", "wmav2"] {
        assert!(of(codec, 24).is_ok() && of(codec, 23).unwrap_err().contains("no Windows Media Audio below 24 kbit/s"));
    }
    assert!(of("mp3", 8).is_ok() && of("wmav2", 3).unwrap_err().contains("is not between 4 and"));
}
