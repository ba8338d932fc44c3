//! Where in a file the viewers of a swarm begin.

use std::io;

use crate::playing::StartAt;

/// Where in a file viewers begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SwarmStart {
    /// Each anywhere, all places alike.
    Random,
    /// All at this time of the content.
    Time {
        /// Seconds.
        s: f64,
    },
}

impl SwarmStart {
    /// The place for one viewer of content of this length, seconds; the beginning where that is 0, as of broadcasts.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn place(self, duration_s: f64) -> io::Result<StartAt> {
        match self {
            Self::Time { s } => Ok(StartAt::Time { s }),
            Self::Random => {
                let mut bytes = [0; 4];
                getrandom::fill(&mut bytes).map_err(io::Error::other)?;
                Ok(StartAt::Time { s: duration_s * f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_places_are_all_over_the_content_and_nowhere_else() {
        let mut tenths = [0; 10];
        for _ in 0..1000 {
            let StartAt::Time { s } = SwarmStart::Random.place(3600.0).unwrap() else { panic!() };
            let tenth = tenths.iter_mut().enumerate().find(|(n, _)| s >= 0.0 && s < 360.0 * (*n as f64 + 1.0));
            *tenth.unwrap().1 += 1;
        }
        // 100 each, give or take 10: 30 is out of the question.
        assert!(tenths.iter().all(|count| *count > 30), "{tenths:?}");
        assert_eq!(SwarmStart::Random.place(0.0).unwrap(), StartAt::Time { s: 0.0 });
        assert_eq!(SwarmStart::Time { s: 5.5 }.place(0.0).unwrap(), StartAt::Time { s: 5.5 });
    }
}
