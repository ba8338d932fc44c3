use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc;

use super::testing::{Claims, PATIENCE, Root, answer, archive, asf, packet};
use super::*;
use crate::asf::samples;

const VOD: &str = "vod-wmv2-wmav2-indexed.wmv";

/// A file of so many packets of 400 bytes.
fn long(packets: u32) -> Vec<u8> {
    let packets: Vec<_> =
        (0..packets).map(|number| packet(number * 100, &[(1, number % 10 == 0, number * 100 + 3000)])).collect();
    asf(Claims { flags: 2, data_len: None, file_packets: packets.len() as u64 }, &packets, &[])
}

/// Keeps the only reader busy until it is told to go on.
struct Busy(mpsc::Sender<()>);

impl Busy {
    fn new(archive: &Archive) -> Self {
        let (go, wait) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let task: pool::Task = Box::new(move |_| {
            begun.send(()).unwrap();
            let _ = wait.recv_timeout(PATIENCE);
        });
        assert!(archive.inner.pool.push_task(task).is_ok());
        begins.recv_timeout(PATIENCE).unwrap();
        Self(go)
    }

    fn end(self) {
        self.0.send(()).unwrap();
    }
}

#[test]
fn samples_read_in_blocks_are_whole() {
    let (archive, root) = (archive(8 << 20, 2), Root::new());
    for (name, count, size) in samples::STREAMS.into_iter().filter(|(name, ..)| !name.ends_with("mmsh")) {
        let file = archive.open_and_wait(root.path(), root.sample(name)).unwrap();
        assert_eq!(file.packets_per_block(), (32_768 / size) as u64);
        assert_eq!(file.blocks(), (count as u64).div_ceil(file.packets_per_block()));
        let bytes = samples::bytes(name);
        let data = &bytes[usize::try_from(file.description().data_start).unwrap()..];
        assert!(file.read_all() == data.chunks_exact(size).take(count).collect::<Vec<_>>(), "{name}");
        assert_eq!(file.block_and_wait(file.blocks()), Err(ReadError::PastTheEnd));
        assert_eq!(file.block_and_wait(u64::MAX), Err(ReadError::PastTheEnd));
    }
    let error = archive.open_and_wait(root.path(), root.sample("live-asf_stream-pipe.mmsh")).unwrap_err();
    assert!(error.to_string().contains("chunk-framed ASF ($H)"), "{error}");
    assert_eq!(archive.open_and_wait(root.path(), "none.asf").err(), Some(OpenError::NotFound));
    assert_eq!(archive.open_and_wait(&root.path().join(VOD), "").unwrap().description().packets, 94, "one file as the root");
}

#[test]
fn a_file_is_opened_once_for_all() {
    let (archive, root) = (archive(8 << 20, 4), Root::new());
    root.sample(VOD);
    let (sender, opened) = mpsc::channel();
    for _ in 0..50 {
        let sender = sender.clone();
        archive.open(root.path(), VOD, Box::new(move |file| sender.send(file.unwrap()).unwrap()));
    }
    let files: Vec<_> = (0..50).map(|_| opened.recv_timeout(PATIENCE).unwrap()).collect();
    assert!(files.iter().all(|file| Arc::ptr_eq(file, &files[0])));
    let packets = files[0].read_all();
    let reads = archive.counts().reads;
    drop(files);
    // The reader that told the last block may be about to let go of the file.
    let patience = pool::now() + PATIENCE;
    while !archive.inner.open_files().is_empty() {
        archive.inner.check_files();
        assert!(pool::now() < patience, "not closed with the last");
        std::thread::yield_now();
    }
    let again = archive.open_and_wait(root.path(), VOD).unwrap();
    assert!(again.read_all() == packets);
    assert_eq!(archive.counts().reads, reads, "its blocks are still there");
}

#[test]
fn one_read_for_all_who_wait() {
    let (archive, root) = (archive(8 << 20, 1), Root::new());
    let file = archive.open_and_wait(root.path(), root.sample(VOD)).unwrap();
    let busy = Busy::new(&archive);
    let (sender, told) = mpsc::channel();
    for _ in 0..100 {
        let sender = sender.clone();
        let lookup = file.block(3, || Box::new(move |block| sender.send(block.unwrap()).unwrap()));
        assert_eq!(lookup, Lookup::Pending);
    }
    assert!(told.try_recv().is_err());
    busy.end();
    let blocks: Vec<_> = (0..100).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    assert!(blocks.iter().all(|block| Arc::ptr_eq(block, &blocks[0]) && block.first() == 30));
    let counts = archive.counts();
    assert_eq!((counts.reads, counts.read_bytes, counts.hits, counts.cache_bytes), (1, 32_000, 0, 32_000));
    assert!(matches!(file.block(3, || unreachable!()), Lookup::Here(_)));
    assert_eq!(archive.counts().hits, 1);
}

/// As many searches as there are threads, and all of them after the same blocks, which others have queued.
#[test]
fn searches_and_reads_do_not_wait_for_one_another() {
    let (archive, root) = (archive(100_000, 3), Root::new());
    let file = {
        root.write("long.asf", &long(5000));
        archive.open_and_wait(root.path(), "long.asf").unwrap()
    };
    let (sender, told) = mpsc::channel();
    for round in 0..300_u64 {
        for number in 0..3 {
            let sender = sender.clone();
            let wake = || Box::new(move |block: Result<Arc<Block>, _>| sender.send(block.is_ok()).unwrap()) as Wake;
            assert!(!matches!(file.block((round * 7 + number) % file.blocks(), wake), Lookup::Failed(_)));
        }
        let sender = sender.clone();
        let ms = round * 1613 % 500_000;
        file.locate(Start::Time { ms }, Box::new(move |found| sender.send(found == Ok(ms / 1000 * 10)).unwrap()));
    }
    drop(sender);
    loop {
        match told.recv_timeout(PATIENCE) {
            Ok(right) => assert!(right),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("they wait for one another"),
        }
    }
    assert!(archive.counts().cache_bytes <= 100_000);
}

#[test]
fn the_cache_is_bounded_and_what_is_held_stays() {
    let (archive, root) = (archive(100_000, 2), Root::new());
    root.write("long.asf", &long(2000));
    let file = archive.open_and_wait(root.path(), "long.asf").unwrap();
    let held = file.block_and_wait(0).unwrap();
    let copy = held.packet(5).unwrap().to_vec();
    for number in 1..file.blocks() {
        file.block_and_wait(number).unwrap();
        assert!(archive.counts().cache_bytes <= 100_000);
    }
    assert_eq!(held.packet(5).unwrap(), copy, "evicted, but held");
    let reads = archive.counts().reads;
    assert!(!Arc::ptr_eq(&file.block_and_wait(0).unwrap(), &held));
    assert_eq!(archive.counts().reads, reads + 1, "it was evicted");
}

#[test]
fn foreseen_blocks_are_read_unless_the_readers_are_busy() {
    let (archive, root) = (archive(8 << 20, 1), Root::new());
    root.write("long.asf", &long(2000));
    let file = archive.open_and_wait(root.path(), "long.asf").unwrap();
    let busy = Busy::new(&archive);
    for number in 0..file.blocks() + 5 {
        file.prefetch(number);
        file.prefetch(number);
    }
    busy.end();
    // With one reader a search comes after all queued blocks.
    file.locate_and_wait(Start::Beginning).unwrap();
    assert_eq!(archive.counts().reads, 4, "four a reader, each once");
    assert!(matches!(file.block(3, || unreachable!()), Lookup::Here(_)));
    // One that is wanted after all while it is foreseen.
    let busy = Busy::new(&archive);
    file.prefetch(10);
    let (sender, told) = mpsc::channel();
    assert_eq!(file.block(10, || Box::new(move |block| sender.send(block.is_ok()).unwrap())), Lookup::Pending);
    busy.end();
    assert!(told.recv_timeout(PATIENCE).unwrap());
    file.locate_and_wait(Start::Beginning).unwrap();
    assert_eq!(archive.counts().reads, 5);
}

/// What changes a file, and what players of it are told.
#[test]
fn a_file_that_changes_is_faulted() {
    type Change = fn(&Root);
    let append: Change = |root| {
        use std::io::Write as _;
        std::fs::OpenOptions::new().append(true).open(root.path().join("a.asf")).unwrap().write_all(b"x").unwrap();
    };
    let truncate: Change = |root| {
        std::fs::OpenOptions::new().write(true).open(root.path().join("a.asf")).unwrap().set_len(5_000).unwrap();
    };
    let touch: Change = |root| {
        let file = std::fs::OpenOptions::new().write(true).open(root.path().join("a.asf")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    };
    let replace: Change = |root| {
        root.write("new", &long(300));
        std::fs::rename(root.path().join("new"), root.path().join("a.asf")).unwrap();
    };
    let remove: Change = |root| std::fs::remove_file(root.path().join("a.asf")).unwrap();
    let rename: Change = |root| std::fs::rename(root.path().join("a.asf"), root.path().join("b.asf")).unwrap();
    let become_fifo: Change = |root| {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        std::fs::remove_file(root.path().join("a.asf")).unwrap();
        mknodat(CWD, root.path().join("a.asf"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    };
    let changes = [
        ("appended to", append, ReadError::Changed, true),
        ("cut", truncate, ReadError::Changed, true),
        ("touched", touch, ReadError::Changed, true),
        ("replaced", replace, ReadError::Changed, true),
        ("removed", remove, ReadError::Vanished, true),
        ("a fifo", become_fifo, ReadError::Vanished, true),
        ("renamed", rename, ReadError::Vanished, false),
    ];
    for (what, change, error, read_sees_it) in changes {
        for by_read in [true, false] {
            if by_read && !read_sees_it {
                continue;
            }
            let (archive, root) = (archive(8 << 20, 1), Root::new());
            root.write("a.asf", &long(200));
            let file = archive.open_and_wait(root.path(), "a.asf").unwrap();
            let held = file.block_and_wait(0).unwrap();
            archive.inner.check_files();
            assert_eq!(file.fault(), None, "{what}");
            // One block is asked for before the change and read after it.
            let busy = Busy::new(&archive);
            let (sender, told) = mpsc::channel();
            if by_read {
                file.block(1, || Box::new(move |block| sender.send(block).unwrap()));
            }
            change(&root);
            busy.end();
            if by_read {
                assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Err(error.clone()), "{what}");
            } else {
                archive.inner.check_files();
            }
            assert_eq!(file.fault(), Some(error.clone()), "{what}, by read: {by_read}");
            assert_eq!(file.block_and_wait(0), Err(error.clone()), "{what}: also of what was in memory");
            assert_eq!(file.locate_and_wait(Start::Packet(60)), Err(error.clone()), "{what}");
            assert_eq!(archive.counts().cache_bytes, 0, "{what}");
            assert!(held.packet(3).is_some());
            file.prefetch(2);

            let new = archive.open_and_wait(root.path(), "a.asf");
            match what {
                "removed" | "renamed" => assert_eq!(new.err(), Some(OpenError::NotFound)),
                "a fifo" => assert_eq!(new.err(), Some(OpenError::NotAFile)),
                "replaced" => assert_eq!(new.unwrap().description().packets, 300),
                _ => assert!(!Arc::ptr_eq(&new.unwrap(), &file), "{what}"),
            }
        }
    }
}

/// A file is cut while it is read from end to end, again and again.
#[test]
fn a_file_cut_while_played_gives_no_wrong_bytes() {
    let root = Root::new();
    let whole = long(2000);
    let data_start = whole.len() - 2000 * 400;
    for round in 0..20 {
        let archive = archive(8 << 20, 2);
        let path = root.write("a.asf", &whole);
        let file = archive.open_and_wait(root.path(), "a.asf").unwrap();
        let cut = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(round * 40_000).unwrap();
                cut.store(true, Ordering::SeqCst);
            });
            let mut number = 0;
            let error = loop {
                let was_cut = cut.load(Ordering::SeqCst);
                match file.block_and_wait(number % file.blocks()) {
                    Ok(block) => {
                        let at = data_start + usize::try_from(block.first()).unwrap() * 400;
                        assert!(block.packet(block.first()).unwrap() == &whole[at..at + 400]);
                        // From memory, until a read or a check finds out.
                        if was_cut && number >= file.blocks() {
                            archive.inner.check_files();
                        }
                    }
                    Err(error) => break error,
                }
                number += 1;
            };
            assert_eq!(error, ReadError::Changed);
        });
    }
}

/// With its own clock the archive finds out by itself.
#[test]
fn open_files_are_looked_at_again_and_again() {
    let bounds = ArchiveBounds { cache_bytes: 8 << 20, readers: 1 };
    let archive = Archive::start_checking(bounds, Some(Duration::from_millis(1))).unwrap();
    let root = Root::new();
    let file = archive.open_and_wait(root.path(), root.sample(VOD)).unwrap();
    std::fs::remove_file(root.path().join(VOD)).unwrap();
    // Each answer comes from a thread that looks first when a look is due.
    let patience = pool::now() + PATIENCE;
    while file.fault().is_none() {
        let _ = file.locate_and_wait(Start::Beginning);
        assert!(pool::now() < patience, "nobody looks");
    }
    assert_eq!(file.fault(), Some(ReadError::Vanished));
}

#[test]
fn an_archive_that_ends_tells_all_who_wait() {
    let (archive, root) = (archive(8 << 20, 2), Root::new());
    root.write("long.asf", &long(2000));
    let file = archive.open_and_wait(root.path(), "long.asf").unwrap();
    let other = archive.clone();
    // With two readers one task runs at a time.
    let busy = Busy::new(&archive);
    let told = Arc::new(AtomicUsize::new(0));
    let (sender, answers) = mpsc::channel();
    for number in 0..20 {
        let (told, sender) = (told.clone(), sender.clone());
        file.locate(
            Start::Packet(number),
            Box::new(move |found| {
                told.fetch_add(1, Ordering::SeqCst);
                sender.send(found).unwrap();
            }),
        );
    }
    let opening = sender.clone();
    other.open(
        root.path(),
        "long.asf",
        Box::new(move |file| opening.send(file.map(|_| 0).map_err(|_| ReadError::Closed)).unwrap()),
    );
    drop(other);
    let threads: Vec<_> = std::mem::take(&mut *archive.threads.lock().unwrap());
    drop(archive);
    busy.end();
    for _ in 0..21 {
        assert_eq!(answers.recv_timeout(PATIENCE).unwrap(), Err(ReadError::Closed));
    }
    answer(|done| {
        std::thread::spawn(move || done(threads.into_iter().map(|thread| thread.join().is_ok()).collect::<Vec<_>>()));
    })
    .into_iter()
    .for_each(|ended: bool| assert!(ended));
    assert_eq!(file.block_and_wait(1), Err(ReadError::Closed));
    assert_eq!(file.locate_and_wait(Start::Packet(70)), Err(ReadError::Closed));
    file.prefetch(3);
    let inner = Arc::downgrade(file.archive());
    drop(file);
    assert_eq!(inner.strong_count(), 0, "nothing keeps it");
}

#[test]
fn a_panic_of_a_caller_ends_no_reader() {
    let (archive, root) = (archive(8 << 20, 1), Root::new());
    let file = archive.open_and_wait(root.path(), root.sample(VOD)).unwrap();
    let _ = file.block(0, || Box::new(|_| panic!("on purpose")));
    file.locate(Start::Beginning, Box::new(|_| panic!("on purpose")));
    assert_eq!(file.locate_and_wait(Start::Packet(40)), Ok(31));
}

/// Whoever waits for a read is told that it panicked, and the reader goes on.
#[test]
fn a_panic_of_a_read_is_told() {
    let (archive, root) = (archive(8 << 20, 1), Root::new());
    let file = archive.open_and_wait(root.path(), root.sample(VOD)).unwrap();
    let panics = || file.read_panics.store(true, Ordering::SeqCst);
    panics();
    assert_eq!(file.block_and_wait(0), Err(ReadError::Internal));
    panics();
    assert_eq!(file.locate_and_wait(Start::Packet(40)), Err(ReadError::Internal));
    assert_eq!((file.locate_and_wait(Start::Packet(40)), file.fault()), (Ok(31), None));
    assert_eq!(file.block_and_wait(0).unwrap().first(), 0);
}

/// A file is renamed and renamed back while one of its blocks is on its way.
#[test]
fn what_is_on_its_way_for_a_faulted_file_reaches_no_other() {
    let (archive, root) = (archive(8 << 20, 1), Root::new());
    let here = root.write("a.asf", &long(200));
    let away = root.path().join("b.asf");
    let file = archive.open_and_wait(root.path(), "a.asf").unwrap();
    let open_now = || archive.inner.open_now(Place::new(root.path(), "a.asf")).unwrap();
    let ask = |file: &Arc<AsfFile>| {
        let (sender, told) = mpsc::channel();
        let _ = file.block(1, || Box::new(move |block: Result<Arc<Block>, _>| sender.send(block.map(|_| ())).unwrap()));
        told
    };
    let busy = Busy::new(&archive);
    let before = ask(&file);
    std::fs::rename(&here, &away).unwrap();
    archive.inner.check_files();
    std::fs::rename(&away, &here).unwrap();
    let again = open_now();
    assert!(!Arc::ptr_eq(&again, &file) && Arc::ptr_eq(&again, &open_now()), "one is faulted, the other shared");
    let after = ask(&again);
    busy.end();
    assert_eq!(before.recv_timeout(PATIENCE).unwrap(), Err(ReadError::Vanished));
    assert_eq!(after.recv_timeout(PATIENCE).unwrap(), Ok(()));
    assert_eq!((file.fault(), again.fault()), (Some(ReadError::Vanished), None));
}
