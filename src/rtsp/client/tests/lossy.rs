//! Datagrams lost and asked for again.

use super::*;

fn lossy(fragments: u16, permille: u64) -> Rig {
    let (description, packets) = content("live-asf-pipe.asf", true);
    let packets = packets.iter().cycle().take(5000).cloned().collect();
    let mut rig = Rig::new(UDP, (description, packets)).fragmented(fragments);
    rig.loss_permille = permille;
    rig.run(Duration::from_secs(120));
    assert_eq!((rig.end.clone(), rig.connections), (Some(ClientEnd::Ended), 1));
    rig
}

#[test]
fn five_percent_lost_are_made_good() {
    for fragments in [1, 2] {
        let rig = lossy(fragments, 50);
        let (came, stats) = (rig.received().len(), rig.client.stats());
        assert!(came >= 4995, "{came} of 5000 in {fragments}: {stats:?}");
        let rtp = 5000 * u64::from(fragments);
        assert!((rtp / 30..rtp / 14).contains(&stats.gaps), "{stats:?}");
        assert_eq!(stats.gaps, stats.recovered + stats.lost, "{stats:?}");
        assert!(stats.resend_requests > 0 && stats.recovered > stats.reordered, "{stats:?}");
        // In their order, none twice.
        let sequences: Vec<u32> = rig
            .events
            .iter()
            .filter_map(|event| match event {
                ClientEvent::Packet { sequence, settled, .. } => {
                    assert_eq!(*settled, sequence + 1);
                    Some(*sequence)
                }
                _ => None,
            })
            .collect();
        assert_eq!(sequences, (0..u32::try_from(came).unwrap()).collect::<Vec<_>>());
        let resent = rig.events.iter().filter(|event| matches!(event, ClientEvent::Packet { resent: true, .. })).count();
        assert!(resent > 0);
    }
}

#[test]
fn half_lost_is_survived() {
    let rig = lossy(2, 400);
    let stats = rig.client.stats();
    assert!(rig.received().len() > 2000 && stats.lost > 0, "{stats:?}");
    assert_eq!(stats.gaps, stats.recovered + stats.lost, "{stats:?}");
    // What came is sound.
    assert!(rig.received().iter().all(|packet| crate::asf::payloads(packet).is_ok()));
}
