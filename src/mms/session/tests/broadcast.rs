//! A broadcast whose source changes or ends while it is watched.

use super::Rig;
use crate::mms::block::ReadBlock;
use crate::mms::end::{ReportEndOfStream, ReportStreamChange, StopPlaying};
use crate::mms::open::{OpenFile, Token};
use crate::mms::play::StartPlaying;
use crate::mms::select::StreamSwitch;
use crate::mms::testing::{asf_header, description};
use crate::viewing::{Answer, Content, Description};

const NOTHING: [&str; 0] = [];

/// One fragment of header, one stream.
fn other() -> Description {
    Description {
        header: asf_header(800, &[3], 700),
        packet_size: 800,
        bit_rate: 64_000,
        streams: [3].into_iter().collect(),
        content: Content::Live,
        ssrc: 0,
    }
}

#[test]
fn change_over_tcp_holds_media() {
    let mut rig = Rig::playing(false);
    let changed = rig.tell(Answer::NewGeneration(other()));
    assert_eq!(changed, ["stop", "End 00000001", "Change", "header 0 pi 255 0C"]);
    let change: ReportStreamChange = rig.last(1);
    assert_eq!(change, ReportStreamChange { packet_size: 800, header_size: 700, bit_rate: 64_000 });
    assert_eq!(rig.last::<ReportEndOfStream>(2).incarnation, 10);
    assert_eq!(rig.wait(4_000), NOTHING);
    assert_eq!(rig.say(&StreamSwitch::all([3].into_iter().collect())), ["Switched"]);
    assert_eq!(rig.session.selected().streams.iter().collect::<Vec<_>>(), [3]);
    assert_eq!(rig.say(&StartPlaying::live(11)), ["Started", "play 11"]);
    assert_eq!(rig.wait(20_000), NOTHING);
}

#[test]
fn media_is_not_held_for_ever() {
    let mut rig = Rig::playing(false);
    rig.tell(Answer::NewGeneration(other()));
    assert_eq!(rig.wait(5_000), ["play 255"]);
    assert_eq!(rig.say(&StartPlaying::live(11)), ["Started", "incarnation 11"]);
}

#[test]
fn a_second_change_while_media_is_held() {
    let mut rig = Rig::playing(false);
    rig.tell(Answer::NewGeneration(other()));
    let changed = rig.tell(Answer::NewGeneration(description()));
    assert_eq!(changed[..3], ["End 00000001", "Change", "header 0 pi 255 04"], "nothing plays, so nothing is stopped");
    assert_eq!(rig.wait(4_999), NOTHING, "the hold begins anew");
    assert_eq!(rig.wait(1), ["play 255"]);
}

#[test]
fn change_over_udp_waits_for_the_client() {
    let mut rig = Rig::playing(true);
    // Packets on their way get a moment.
    assert_eq!(rig.tell(Answer::NewGeneration(other())), ["stop"]);
    assert_eq!(rig.wait(99), NOTHING);
    assert_eq!(rig.wait(1), ["End 00000001", "Change"]);
    assert_eq!(rig.say(&StartPlaying::live(11)), ["Started C00D002B"], "first the header");
    assert_eq!(rig.say(&ReadBlock { incarnation: 2 }), ["Block", "udp header 0 pi 2 0C"]);
    assert_eq!(rig.say(&StreamSwitch::all([3].into_iter().collect())), ["Switched"]);
    assert_eq!(rig.say(&StartPlaying::live(11)), ["Started", "play 11"]);
}

#[test]
fn nobody_plays_when_the_change_comes() {
    // Paused: told with the next StartPlaying, since a change has meaning only while streaming.
    for udp in [false, true] {
        let mut rig = Rig::playing(udp);
        rig.say(&StopPlaying { incarnation: 10 });
        assert_eq!(rig.tell(Answer::NewGeneration(other())), NOTHING);
        let log = rig.say(&StartPlaying::live(11));
        assert_eq!(log[..3], ["Started", "End 00000001", "Change"]);
        assert_eq!(log.len(), if udp { 3 } else { 4 });
        if udp {
            rig.say(&ReadBlock { incarnation: 3 });
        }
        assert_eq!(rig.say(&StartPlaying::live(12)), ["Started", "play 12"]);
    }
}

#[test]
fn a_stop_between_change_and_its_report() {
    let mut rig = Rig::playing(true);
    rig.tell(Answer::NewGeneration(other()));
    assert_eq!(rig.say(&StopPlaying { incarnation: 10 }), ["End"]);
    assert_eq!(rig.wait(1_000), NOTHING);
    assert_eq!(rig.say(&StartPlaying::live(11)), ["Started", "End 00000001", "Change"]);
}

#[test]
fn a_start_while_the_end_is_on_its_way() {
    let mut rig = Rig::playing(true);
    assert_eq!(rig.tell(Answer::Ended), ["stop"]);
    assert_eq!(rig.say(&StartPlaying::live(11)), ["Started"]);
    assert_eq!(rig.wait(100), ["End"]);
    assert_eq!(rig.last::<ReportEndOfStream>(0).incarnation, 11);
}

#[test]
fn the_end_is_owed_until_it_is_told() {
    let mut rig = Rig::playing(true);
    assert!(rig.session.owes_end());
    assert_eq!(rig.tell(Answer::Ended), ["stop"]);
    assert!(rig.session.owes_end(), "packets on their way go first");
    rig.wait(50);
    assert_eq!(rig.tell(Answer::Ended), NOTHING, "the daemon stops meanwhile, which gives no more time");
    assert_eq!(rig.wait(50), ["End"]);
    assert!(!rig.session.owes_end());
    // What would have followed a change does not.
    let mut rig = Rig::playing(true);
    rig.tell(Answer::NewGeneration(other()));
    assert!(rig.session.owes_end());
    rig.tell(Answer::Ended);
    assert_eq!(rig.wait(100), ["End"]);
    let mut rig = Rig::playing(false);
    rig.say(&StopPlaying { incarnation: 10 });
    assert!(!rig.session.owes_end(), "it has said so itself");
}

#[test]
fn the_end_and_the_close_behind_it() {
    let mut rig = Rig::playing(false);
    assert_eq!(rig.tell(Answer::Ended), ["stop", "End"]);
    assert_eq!(rig.tell(Answer::Ended), NOTHING, "told once");
    assert_eq!(rig.say(&StartPlaying::live(11)), ["Started C00D0033"]);
    assert_eq!(rig.tell(Answer::NewGeneration(other())), NOTHING, "too late");
    assert_eq!(rig.wait(29_999), NOTHING);
    assert_eq!(rig.wait(1), ["close ended"]);
}

#[test]
fn an_end_during_a_pause_or_a_hold() {
    let mut rig = Rig::playing(false);
    rig.say(&StopPlaying { incarnation: 10 });
    assert_eq!(rig.tell(Answer::Ended), NOTHING);
    assert_eq!(rig.wait(30_000).last().map(String::as_str), Some("close ended"));
    let mut rig = Rig::playing(false);
    rig.tell(Answer::NewGeneration(other()));
    assert_eq!(rig.tell(Answer::Ended), ["End"]);
    assert_eq!(rig.wait(5_000), NOTHING, "nothing is held any more");
}

#[test]
fn another_point_may_be_opened_after_the_end() {
    let mut rig = Rig::playing(false);
    rig.tell(Answer::Ended);
    let open = OpenFile { incarnation: 11, name: "other".into(), token: Token::None };
    assert_eq!(rig.say(&open), ["open other", "Opened"]);
    rig.say(&ReadBlock { incarnation: 3 });
    assert_eq!(rig.say(&StartPlaying::live(12)), ["Started", "play 12"]);
    assert_eq!(rig.wait(31_000), ["Ping"], "the time after the end does not run on");
}
