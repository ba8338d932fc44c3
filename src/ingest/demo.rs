//! The built-in moving test picture.

use super::playlist::Medium;

// 320×240 at 25 frames/s, a key frame each second, and a tone of 440 Hz; WMV2 and WMA 2, which every player since 1999 decodes.
// 8 s are whole numbers of video frames (40 ms), of WMA blocks at 32 kHz (64 ms) and of the tone's periods, so the end joins
// the beginning. Cut from the middle of a longer piece, the first block already overlaps a tone, not the silence before it
// (the tone lags by one block, hence .064):
//
//   BX="-bitexact -flags:v +bitexact -flags:a +bitexact -fflags +bitexact -packet_size 1400"
//   ffmpeg -f lavfi -i testsrc2=size=320x240:rate=25 -f lavfi -i sine=frequency=440:sample_rate=32000 -t 24 \
//     -c:v wmv2 -b:v 170k -maxrate 190k -bufsize 100k -g 25 -keyint_min 25 -sc_threshold 1000000000 \
//     -c:a wmav2 -ac 1 -b:a 24k $BX -f asf whole.asf
//   ffmpeg -i whole.asf -ss 8.064 -t 8 -c copy $BX -f asf demo.asf          (FFmpeg 5.1)
//
// A stream copy does not know the video's rate: 194,000 bit/s was then written into the maximum bit rate of File Properties.
static ASF: &[u8] = include_bytes!("demo.asf");

/// The picture, to be played in a loop.
pub(super) const fn medium() -> Medium {
    Medium::BuiltIn(ASF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::{Event, Header, Reader, payloads};

    #[test]
    fn joins_its_own_beginning() {
        assert!(ASF.len() <= 250_000);
        let mut reader = Reader::new();
        reader.feed(ASF);
        reader.finish();
        let Some(Ok(Event::Header(header))) = reader.poll() else { panic!("no header") };
        assert_eq!((header.packet_size(), header.play_duration_ms()), (1400, Some(8000)));
        // Of each stream: first, last, objects.
        let mut times = [(u32::MAX, 0, 0); 3];
        while let Some(Ok(Event::Packets(packets))) = reader.poll() {
            for payload in
                packets.chunks_exact(1400).flat_map(|packet| payloads(packet).unwrap()).filter(|payload| payload.offset == 0)
            {
                let (first, last, count) = &mut times[usize::from(payload.stream)];
                let ms = payload.presentation_ms - Header::preroll_ms(&header);
                (*first, *last, *count) = ((*first).min(ms), (*last).max(ms), *count + 1);
            }
        }
        assert_eq!(times[1..], [(0, 7960, 200), (0, 7936, 125)]);
    }
}
