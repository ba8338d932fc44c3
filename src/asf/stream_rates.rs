//! What a header says about the rates of its streams, the usual and the highest.

use super::guids;
use super::header::{EXTENSION_HEAD_LEN, HEADER_HEAD_LEN, Header};
use super::objects::Object;
use super::properties::{ExtendedStream, Rates, stream_bit_rates};
use super::rewrite::objects;
use crate::wire::Cursor;

/// Rates of one stream, bits a second; 0 where the header does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamRates {
    /// The average of its packets.
    pub average: u32,
    /// The highest that is stated; never under the average.
    pub peak: u32,
}

impl Header {
    /// The rates of the streams, in the order of [`Header::streams`].
    ///
    /// The average is that of the Stream Bitrate Properties Object; the peak the higher of the two buckets of the Extended
    /// Stream Properties Object. Where neither says anything, both are what the stream's format says.
    ///
    /// Source: ASF 3.12 and 4.1.
    pub fn stream_rates(&self) -> Vec<StreamRates> {
        let (mut average, mut peak) = (Rates::default(), Rates::default());
        for object in objects(self.bytes(), HEADER_HEAD_LEN) {
            note(&object, &mut average, &mut peak);
            if object.guid == guids::HEADER_EXTENSION {
                objects(object.bytes, EXTENSION_HEAD_LEN).for_each(|object| note(&object, &mut average, &mut peak));
            }
        }
        let rates = self.streams().iter().map(|stream| {
            let (average, peak) = (average.of(stream.number), peak.of(stream.number));
            let known = average.or(peak).unwrap_or(stream.bit_rate);
            StreamRates { average: average.unwrap_or(known), peak: peak.unwrap_or(known).max(known) }
        });
        rates.collect()
    }
}

fn note(object: &Object<'_>, average: &mut Rates, peak: &mut Rates) {
    match object.guid {
        guids::STREAM_BITRATE_PROPERTIES => {
            // The header was read before: nothing in it is cut.
            let _ = stream_bit_rates(object.body(), |number, rate| average.note(number, rate));
        }
        guids::EXTENDED_STREAM_PROPERTIES => {
            let alternate = object.bytes.get(ExtendedStream::PEAK_RATE_AT..).unwrap_or_default();
            if let (Ok(stream), Ok(alternate)) = (ExtendedStream::parse(object), Cursor::new(alternate).u32("peak rate")) {
                peak.note(stream.number, stream.bit_rate.max(alternate));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asf::fabricate::{audio, bit_rates, extended_stream, extension, file_properties, header, video};

    #[test]
    fn peaks_and_averages() {
        let mut bursting = extended_stream(3, 90_000, 0, &video(3));
        bursting[52..56].copy_from_slice(&400_000_u32.to_le_bytes());
        let source = header(&[
            file_properties(1400, 2),
            audio(1),
            audio(2),
            video(4),
            video(5),
            extension(&[extended_stream(2, 63_000, 0, &[]), bursting, extended_stream(4, 200_000, 0, &[])]),
            bit_rates(&[(2, 64_900), (3, 100_000)]),
        ]);
        let source = Header::parse(&source).unwrap();
        let rates: Vec<_> = source.streams().iter().map(|s| s.number).zip(source.stream_rates()).collect();
        let rate = |average, peak| StreamRates { average, peak };
        assert_eq!(
            rates,
            [
                (1, rate(64_000, 64_000)),
                (2, rate(64_900, 64_900)),
                (4, rate(200_000, 200_000)),
                (5, rate(0, 0)),
                (3, rate(100_000, 400_000)),
            ]
        );
    }
}
