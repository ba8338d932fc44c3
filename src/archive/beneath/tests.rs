use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use rustix::fs::{FileType, mknodat};

use super::*;
use crate::archive::testing::{PATIENCE, Root};

const WAYS: [(&str, Resolve); 2] = [("kernel", by_kernel), ("walk", by_walk)];

fn open(root: &Path, name: &str, resolve: Resolve) -> Result<String, OpenError> {
    let (file, _) = Place::new(root, name).open_by(resolve)?;
    Ok(std::io::read_to_string(file).unwrap())
}

/// A root with a file, a folder with a file, and a secret beside the root.
fn roots() -> (Root, PathBuf) {
    let outer = Root::new();
    let root = outer.path().join("root");
    std::fs::create_dir_all(root.join("sub/deep")).unwrap();
    outer.write("secret", b"secret");
    outer.write("root/a.asf", b"a");
    outer.write("root/sub/deep/b c.asf", b"b");
    (outer, root)
}

#[test]
fn names_inside_the_root() {
    let (_outer, root) = roots();
    for (way, resolve) in WAYS {
        assert_eq!(open(&root, "a.asf", resolve), Ok("a".into()), "{way}");
        assert_eq!(open(&root, "sub/deep/b c.asf", resolve), Ok("b".into()), "{way}");
        assert_eq!(open(&root.join("a.asf"), "", resolve), Ok("a".into()), "{way}: the root is the file");
        assert_eq!(open(&root, "", resolve), Err(OpenError::NotAFile), "{way}");
        assert_eq!(open(&root, "sub", resolve), Err(OpenError::NotAFile), "{way}");
        let long = "x".repeat(5000);
        for name in ["b.asf", "sub/a.asf", "a.asf/x", "no/such", &long, "a.asf\0", "\0"] {
            assert_eq!(open(&root, name, resolve), Err(OpenError::NotFound), "{way} {name:?}");
        }
        assert_eq!(open(&root.join("a.asf"), "a.asf", resolve), Err(OpenError::NotFound), "{way}");
        assert_eq!(open(&root.join("none"), "a.asf", resolve), Err(OpenError::NotFound), "{way}");
    }
}

#[test]
fn no_name_leads_out() {
    let (outer, root) = roots();
    symlink("../secret", root.join("out")).unwrap();
    symlink(outer.path().join("secret"), root.join("absolute")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("/", root.join("slash")).unwrap();
    symlink("circle", root.join("circle")).unwrap();
    symlink("/dev/zero", root.join("zero")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    let secret = outer.path().join("secret");
    let names = [
        "../secret",
        "sub/../../secret",
        "sub/../a.asf",
        "./a.asf",
        "/a.asf",
        "//a.asf",
        "sub//deep/b c.asf",
        "a.asf/",
        "/",
        "..",
        ".",
        "out",
        "absolute",
        "up/secret",
        "up/root/a.asf",
        "slash/etc/passwd",
        "circle",
        "zero",
        "magic/etc/passwd",
        secret.to_str().unwrap(),
    ];
    for (way, resolve) in WAYS {
        for name in names {
            assert_eq!(open(&root, name, resolve), Err(OpenError::NotFound), "{way} {name}");
        }
    }
}

#[test]
fn links_inside_the_root() {
    let (_outer, root) = roots();
    symlink("a.asf", root.join("link.asf")).unwrap();
    symlink("deep", root.join("sub/link")).unwrap();
    symlink("../a.asf", root.join("sub/back.asf")).unwrap();
    for name in ["link.asf", "sub/link/b c.asf", "sub/back.asf"] {
        assert!(open(&root, name, by_kernel).is_ok(), "{name}");
        assert_eq!(open(&root, name, by_walk), Err(OpenError::NotFound), "{name}: none is followed without the kernel's help");
    }
}

/// Nothing is opened that would wait for a peer, or notice.
#[test]
fn only_regular_files() {
    let (_outer, root) = roots();
    mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    // Only root may make devices: the system's own serve in their place.
    let mut places =
        vec![(root.clone(), "fifo"), (root.clone(), "socket"), (PathBuf::from("/dev"), "zero"), (PathBuf::from("/dev/zero"), "")];
    if mknodat(CWD, root.join("device"), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 5)).is_ok() {
        assert!(root.join("device").metadata().unwrap().file_type().is_char_device());
        places.push((root, "device"));
    }
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        for (way, resolve) in WAYS {
            for (root, name) in &places {
                assert_eq!(open(root, name, resolve), Err(OpenError::NotAFile), "{way} {name}");
            }
        }
        done.send(()).unwrap();
    });
    finished.recv_timeout(PATIENCE).expect("an opening blocks, or a wrong one was made");
}

#[test]
fn mode_bits_keep_out() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_outer, root) = roots();
    std::fs::set_permissions(root.join("a.asf"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let expected = if rustix::process::geteuid().is_root() { Ok("a".into()) } else { Err(OpenError::Denied) };
    for (way, resolve) in WAYS {
        assert_eq!(open(&root, "a.asf", resolve), expected, "{way}");
    }
}

/// Somebody swaps a folder for a link to the outside again and again; the secret is never read.
#[test]
fn races_lead_nowhere() {
    let (outer, root) = roots();
    std::fs::create_dir(outer.path().join("evil")).unwrap();
    outer.write("evil/x.asf", b"secret");
    std::fs::create_dir(root.join("real")).unwrap();
    outer.write("root/real/x.asf", b"x");
    symlink("../evil", root.join("link")).unwrap();
    symlink("real", root.join("now")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (now, spare) = (root.join("now"), root.join("spare"));
            while !stop.load(Ordering::Relaxed) {
                // A folder that is a link out one moment, a link inside the next, a folder at last.
                for target in ["../evil", "real"] {
                    symlink(target, &spare).unwrap();
                    std::fs::rename(&spare, &now).unwrap();
                }
                std::fs::remove_file(&now).unwrap();
                std::fs::rename(root.join("real"), &now).unwrap();
                std::fs::rename(&now, root.join("real")).unwrap();
                symlink("real", &now).unwrap();
            }
        });
        for round in 0..4000 {
            for (way, resolve) in WAYS {
                match open(&root, "now/x.asf", resolve) {
                    Ok(text) => assert_eq!(text, "x", "{way}, round {round}"),
                    Err(OpenError::NotFound | OpenError::Io(_)) => (),
                    Err(other) => panic!("{way}: {other}"),
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(open(&root, "now/x.asf", by_kernel), Ok("x".into()), "the last round left it sound");
}
