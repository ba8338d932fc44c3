use super::*;
use crate::ingest::playlist::Medium;
use crate::ingest::{demo, stop, testing};
use crate::settings::Source;
use std::path::Path;
use tokio::time::sleep;
use tokio::time::timeout;

/// Shell scripts stand for ffmpeg; these tests run on the real clock, as children do, and wait for what must come.
struct Bench {
    relay: Arc<crate::relay::Relay>,
    collector: Arc<testing::Collector>,
    stopper: stop::Stopper,
    folder: tempfile::TempDir,
    _task: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn new(start: Start, script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Medium::BuiltIn(asf) = demo::medium() else { panic!() };
        // Less than the lead, so that nothing is held back.
        std::fs::write(folder.path().join("a.asf"), &asf[..20_000]).unwrap();
        let script = format!("cd '{}'; {script}", folder.path().display());
        let argv = vec!["sh".into(), "-c".into(), script];
        let linger = Duration::from_millis(50);
        let source = Source::Exec { argv: argv.clone(), start, linger };
        let (relay, collector) = testing::collecting(&[("cam", source)]);
        let (stopper, stop) = stop::channel();
        let point = relay.point("cam").unwrap();
        let task = tokio::spawn(run(point, Command { argv, start, linger }, stop));
        Self { relay, collector, stopper, folder, _task: task }
    }

    /// Waits until a file has so many lines; the script counts by writing them.
    async fn lines(&self, file: &str, count: usize) -> Vec<String> {
        let path = self.folder.path().join(file);
        wait_until(|| read(&path).lines().count() >= count).await;
        read(&path).lines().map(str::to_owned).collect()
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

async fn wait_until(mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), poll).await.expect("it never came");
}

fn is_running(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A dead grandchild is for init to reap, which may take its time.
    state.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z') && !rest.is_empty())
}

#[tokio::test]
async fn a_child_that_ends_is_run_again() {
    let bench = Bench::new(Start::Always, "echo run >> runs; echo hello >&2; cat a.asf");
    bench.lines("runs", 2).await;
    wait_until(|| bench.collector.packets().len() >= 20).await;
    // The same header again: viewers notice a pause, nothing else.
    assert_eq!(bench.collector.generations(), 1);
    let packets = bench.collector.packets();
    assert!(packets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "the timeline runs on");
    bench.stopper.stop().await;
}

#[tokio::test]
async fn a_stop_ends_the_child_and_its_children() {
    let bench = Bench::new(Start::Always, "echo $$ >> pids; sleep 1000 & echo $! >> pids; cat a.asf; wait");
    let pids = bench.lines("pids", 2).await;
    wait_until(|| !bench.collector.packets().is_empty()).await;
    assert!(pids.iter().all(|pid| is_running(pid)));
    bench.stopper.stop().await;
    wait_until(|| !pids.iter().any(|pid| is_running(pid))).await;
    // Reaped, not only dead.
    assert!(!Path::new(&format!("/proc/{}", pids[0])).exists());
    assert_eq!(bench.collector.losses(), 1);
}

#[tokio::test]
async fn children_of_a_child_that_has_ended_may_end_properly() {
    let script = "(trap 'sleep 0.3; echo clean >> ends; exit' TERM; echo up >> ups; while :; do sleep 0.01; done) >/dev/null 2>&1 & \
                  while ! test -e ups; do sleep 0.01; done; cat a.asf";
    let bench = Bench::new(Start::Always, script);
    assert_eq!(bench.lines("ends", 1).await, ["clean"]);
    bench.stopper.stop().await;
}

#[tokio::test]
async fn a_child_that_ignores_sigterm_is_killed() {
    let bench = Bench::new(Start::Always, "trap '' TERM PIPE; echo $$ >> pids; cat a.asf; while :; do sleep 1; done");
    let pids = bench.lines("pids", 1).await;
    wait_until(|| !bench.collector.packets().is_empty()).await;
    bench.stopper.stop().await;
    assert!(!is_running(&pids[0]));
}

#[tokio::test]
async fn a_watched_child_runs_while_somebody_watches() {
    let bench = Bench::new(Start::Watched, "echo $$ >> pids; cat a.asf; exec sleep 1000");
    tokio::task::yield_now().await;
    assert_eq!(read(&bench.folder.path().join("pids")), "");
    let watch = bench.relay.point("cam").unwrap().watch();
    let pids = bench.lines("pids", 1).await;
    wait_until(|| !bench.collector.packets().is_empty()).await;
    assert!(is_running(&pids[0]));
    drop(watch);
    wait_until(|| !is_running(&pids[0])).await;
    // Whoever comes next waits for the child, and gets nothing of what is over.
    wait_until(|| bench.relay.point("cam").unwrap().generation().is_none()).await;
    let _watch = bench.relay.point("cam").unwrap().watch();
    bench.lines("pids", 2).await;
    bench.stopper.stop().await;
}

#[tokio::test]
async fn what_is_no_asf_is_run_again_later() {
    let bench = Bench::new(Start::Always, "echo run >> runs; echo this is not ASF");
    bench.lines("runs", 2).await;
    assert!(bench.collector.packets().is_empty());
    bench.stopper.stop().await;
}

#[tokio::test]
async fn a_program_that_is_missing_is_tried_again() {
    let (relay, _) = testing::collecting(&[("cam", Source::Demo)]);
    let (stopper, stop) = stop::channel();
    let argv = vec!["no-such-program-here".to_owned()];
    let point = relay.point("cam").unwrap();
    let command = Command { argv, start: Start::Always, linger: Duration::ZERO };
    let task = tokio::spawn(run(point, command, stop));
    tokio::task::yield_now().await;
    assert!(!task.is_finished());
    stopper.stop().await;
    task.await.unwrap();
}

#[tokio::test]
async fn its_last_words_are_kept_and_watched_cycles_are_no_faults() {
    let bench = Bench::new(Start::Always, "echo run >> runs; echo 'rtsp://u:p@cam/1: 401 Unauthorized' >&2; exit 1");
    let fault = || bench.relay.point("cam").unwrap().source_health().last_fault;
    wait_until(|| fault().is_some_and(|fault| fault.in_a_row == 2)).await;
    assert_eq!(
        fault().unwrap().reason,
        "it said \"rtsp://…@cam/1: 401 Unauthorized\"; its output is of no use: the source ended before its ASF header was whole; exit status: 1"
    );
    bench.stopper.stop().await;
    let bench = Bench::new(Start::Watched, "echo run >> runs; cat a.asf; exec sleep 1000");
    let point = bench.relay.point("cam").unwrap();
    for round in 1..3 {
        let watch = point.watch();
        bench.lines("runs", round).await;
        wait_until(|| point.source_health().up).await;
        drop(watch);
        wait_until(|| point.generation().is_none()).await;
    }
    assert_eq!((point.source_health().restarts, point.source_health().last_fault), (0, None));
    bench.stopper.stop().await;
}

#[test]
fn arguments_are_not_told() {
    let argv = ["ffmpeg", "-i", "rtsp://u:p@cam/1", "-pw", "geheim", "/srv/a.mp4", "-y"].map(str::to_owned);
    for (line, shown) in [
        ("rtsp://u:p@cam/1: Connection refused", "rtsp://…@cam/1: Connection refused"),
        ("geheim is wrong", "… is wrong"),
        ("/srv/a.mp4: No such file", "/srv/a.mp4: No such file"),
        ("ffmpeg -y", "ffmpeg -y"),
    ] {
        assert_eq!(without_arguments(line, &argv), shown);
    }
}
