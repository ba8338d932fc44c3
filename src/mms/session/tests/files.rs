//! Files: true numbers, seeking with each client's habits, the end.

use super::{Rig, description};
use crate::mms::end::{CloseFile, ReportEndOfStream, StopPlaying};
use crate::mms::open::ReportOpenFile;
use crate::mms::ping::Pong;
use crate::mms::play::{ReportStartedPlaying, StartPlaying};
use crate::mms::select::{StreamEntry, StreamSwitch};
use crate::mms::session::Input;
use crate::viewing::{Acceleration, Answer, Content, Description};
use crate::wire::Hresult;

fn file() -> Description {
    Description { content: Content::File { duration_ms: 10_250, packets: 94 }, ..description() }
}

/// A rig that has the header of a file.
fn ready(udp: bool) -> Rig {
    let mut rig = Rig::new();
    rig.open = Some(Ok(file()));
    rig.open_all(udp);
    rig
}

fn start(incarnation: u32) -> StartPlaying {
    StartPlaying::live(incarnation)
}

#[test]
fn the_report_tells_the_truth() {
    let mut rig = Rig::new();
    rig.open = Some(Ok(file()));
    rig.connect(false);
    rig.open_file();
    let report: ReportOpenFile = rig.last(0);
    assert_eq!((report.attributes, report.packet_count), (0x0100_0000, 94));
    assert_eq!((report.duration_s, report.blocks), (10.25, 11));
    assert_eq!((report.packet_size, report.bit_rate, report.file_id), (1400, 1_000_000, 1));
}

#[test]
fn the_three_ways_to_name_a_place() {
    let mut rig = ready(false);
    let cases = [
        (StartPlaying { position_s: 3.25, ..start(10) }, "Time(3250) None"),
        (StartPlaying { position_s: f64::MAX, ..start(11) }, "Time(0) None"),
        // Open-source clients: position 0 and the packet that they mean.
        (StartPlaying { location: 17, frame_offset: 0x00FF_FFFF, ..start(12) }, "Packet(17) None"),
        (StartPlaying { location: 0, asf_offset: 5717, ..start(13) }, "Offset(5717) None"),
        (StartPlaying { position_s: f64::MAX, location: 0, asf_offset: 0, ..start(14) }, "Time(0) None"),
        (StartPlaying { position_s: 1e300, ..start(15) }, "Time(18446744073709551615) None"),
        (StartPlaying { frame_offset: 4000, ..start(16) }, "Time(0) Some(Time(4000))"),
        (StartPlaying { frame_offset: 0x8000_0FA0, ..start(17) }, "Time(0) Some(After(4000))"),
    ];
    for (request, place) in cases {
        let incarnation = request.incarnation;
        assert_eq!(rig.say(&request), ["Started".to_owned(), format!("play file {incarnation} {place}")]);
        assert_eq!(rig.say(&StopPlaying { incarnation }), ["stop", "End"]);
    }
    for position_s in [f64::NAN, -1.0, f64::INFINITY, f64::NEG_INFINITY] {
        rig.say(&StartPlaying { position_s, ..start(30) });
        assert_eq!(rig.last::<ReportStartedPlaying>(0).hr, Hresult::INVALID_ARGUMENT);
    }
    let wish = Acceleration { bandwidth: 700_000, duration_ms: 5000 };
    assert_eq!(rig.say(&StartPlaying { acceleration: Some(wish), ..start(31) }).len(), 2);
}

/// VLC: one incarnation for ever, a stop before each seek, packets received as the place to go on at.
#[test]
fn vlc_pauses_and_seeks() {
    let mut rig = ready(false);
    rig.say(&start(4));
    for location in [17, 40] {
        assert_eq!(rig.say(&StopPlaying { incarnation: 0x001F_FFFF }), ["stop", "End"]);
        assert_eq!(rig.say(&StopPlaying { incarnation: 0x001F_FFFF }), ["End"]);
        let play = format!("play file 4 Packet({location}) None");
        assert_eq!(rig.say(&StartPlaying { location, ..start(4) }), ["Started".to_owned(), play]);
    }
}

/// libmms: no stop, the next incarnation while it plays.
#[test]
fn a_seek_without_a_stop() {
    let mut rig = ready(false);
    rig.say(&start(4));
    let seek = StartPlaying { position_s: 5.0, ..start(5) };
    assert_eq!(rig.say(&seek), ["Started", "play file 5 Time(5000) None"]);
    assert_eq!(rig.say(&seek), ["Started"], "the same again is no seek");
}

#[test]
fn the_end_is_told_and_the_file_stays_open() {
    for udp in [false, true] {
        let mut rig = ready(udp);
        rig.say(&start(10));
        let told = rig.tell(Answer::Finished { incarnation: 10 });
        let told = if udp {
            assert_eq!(told, ["stop"]);
            rig.wait(100)
        } else {
            assert_eq!(told.first().map(String::as_str), Some("stop"));
            told
        };
        assert_eq!(told.last().map(String::as_str), Some("End"));
        assert_eq!(rig.last::<ReportEndOfStream>(0), ReportEndOfStream { hr: Hresult::OK, incarnation: 10 });
        // Told late, by a file that plays no more.
        assert!(rig.tell(Answer::Finished { incarnation: 10 }).is_empty());
        let again = rig.say(&StartPlaying { location: 3, ..start(11) });
        assert_eq!(again, ["Started", "play file 11 Packet(3) None"]);
        rig.say(&CloseFile);
    }
}

#[test]
fn a_seek_while_the_end_is_on_its_way_cancels_it() {
    let mut rig = ready(true);
    rig.say(&start(10));
    rig.tell(Answer::Finished { incarnation: 10 });
    assert_eq!(rig.say(&StartPlaying { location: 3, ..start(11) }), ["Started", "play file 11 Packet(3) None"]);
    assert!(rig.wait(1000).is_empty());
    // Nor does the old play's end, told late, end the new one.
    assert!(rig.tell(Answer::Finished { incarnation: 10 }).is_empty());
}

#[test]
fn who_pauses_a_file_may_go_for_a_meal() {
    let mut rig = ready(false);
    rig.say(&start(10));
    rig.say(&StopPlaying { incarnation: 10 });
    // Its player answers pings, and says nothing else.
    let pause = 3600 / 30;
    for n in 1..pause {
        assert_eq!(rig.wait(30_000), ["Ping"], "{n}");
        rig.say(&Pong);
    }
    assert_eq!(rig.wait(30_000).last().map(String::as_str), Some("close idle"));
    // One that answers nothing is gone sooner.
    let mut rig = ready(false);
    rig.say(&start(10));
    rig.say(&StopPlaying { incarnation: 10 });
    assert_eq!(rig.wait(200_000).last().map(String::as_str), Some("close unanswered"));
}

#[test]
fn a_file_that_breaks_ends_the_session() {
    let mut rig = ready(false);
    rig.say(&start(10));
    assert_eq!(rig.tell(Answer::Broken), ["stop", "End C00D0033", "close content_broken"]);
    assert!(rig.session.handle(rig.now, Input::Answer(Answer::Finished { incarnation: 10 })).is_ok());
}

#[test]
fn wishes_reach_the_relay() {
    let mut rig = ready(false);
    let only = |stream: u8, thinning: u16| StreamSwitch {
        claimed: 1,
        entries: vec![StreamEntry { thinning, ..StreamEntry::on(stream) }],
    };
    rig.say(&only(2, 1));
    let selected = rig.session.selected();
    assert_eq!((selected.streams.iter().collect::<Vec<_>>(), selected.thinned), (vec![2], selected.streams));
    rig.say(&only(2, 2));
    assert_eq!(rig.session.selected().streams.len(), 2, "who wants nothing gets all");
}
