//! The file: its head, its turns, its old ones.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use time::{Date, OffsetDateTime};

use super::line::{COLUMNS, date_and_time};
use crate::settings::AccessLog;

/// A file that could not be put away is tried again after so long.
const TURN_AGAIN: Duration = Duration::from_secs(60);

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    /// `None` after it could not be opened anew: the next line tries again.
    out: Option<BufWriter<File>>,
    /// Bytes in it.
    len: u64,
    /// The day of what is in it, UTC.
    day: Date,
    rotate_bytes: u64,
    rotate_daily: bool,
    keep: usize,
    /// Until then it grows on: it could not be put away.
    stays_until: Option<OffsetDateTime>,
}

impl LogFile {
    /// Opens it, or goes on with what is there.
    ///
    /// # Errors
    /// It cannot be opened or written.
    pub(super) fn open(path: &Path, settings: &AccessLog, now: SystemTime) -> io::Result<Self> {
        let now = OffsetDateTime::from(now);
        let mut file = Self {
            path: path.to_owned(),
            out: None,
            len: 0,
            day: now.date(),
            rotate_bytes: settings.rotate_bytes,
            rotate_daily: settings.rotate_daily,
            keep: settings.keep,
            stays_until: None,
        };
        file.begin(now)?;
        file.flush()?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a line, to another file if it is time for that; if the old one cannot be put away, to that.
    ///
    /// # Errors
    /// It was not written, or lines before it.
    pub(super) fn write(&mut self, line: &str, now: SystemTime) -> io::Result<()> {
        let now = OffsetDateTime::from(now);
        let is_full = self.rotate_bytes > 0 && self.len + line.len() as u64 > self.rotate_bytes;
        let is_old = self.rotate_daily && now.date() != self.day;
        // A clock that was set back must not keep it for long.
        let stays = self.stays_until.is_some_and(|until| now < until && until - now <= TURN_AGAIN);
        let mut flushed = Ok(());
        if self.out.is_some() && (is_full || is_old) && !stays {
            flushed = self.flush();
            let turned = self.turn();
            self.stays_until = turned.is_err().then(|| now + TURN_AGAIN);
            if let Err(error) = turned {
                tracing::warn!(file = %self.path.display(), %error, "the access log cannot be put away; it grows on");
            }
        }
        if self.out.is_none() {
            self.begin(now)?;
        }
        let Some(out) = &mut self.out else { return flushed };
        out.write_all(line.as_bytes())?;
        self.len += line.len() as u64;
        flushed
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        let result = out.flush();
        if result.is_err() {
            // What it holds is lost; what comes next is not to wait behind it.
            self.out.take().map(|out| out.into_parts());
        }
        result
    }

    /// Somebody moved the file away.
    pub(super) fn reopen(&mut self, now: SystemTime) -> io::Result<()> {
        let flushed = self.flush();
        self.out = None;
        flushed.and(self.begin(OffsetDateTime::from(now)))
    }

    /// Opens the file under its name and writes the head, which says what the columns are, also where others stand before it.
    fn begin(&mut self, now: OffsetDateTime) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let there = file.metadata()?;
        // What is in it may be of an earlier day: it is put away with the first line of this one.
        self.day = if there.len() > 0 { there.modified().map_or(now, OffsetDateTime::from).date() } else { now.date() };
        self.len = there.len();
        let head = format!(
            "#Software: wmrelay {}\n#Version: 1.0\n#Date: {}\n#Fields: {}\n",
            env!("CARGO_PKG_VERSION"),
            date_and_time(now),
            COLUMNS.join(" ")
        );
        let mut out = BufWriter::new(file);
        if self.is_torn() {
            out.write_all(b"\n")?;
            self.len += 1;
        }
        out.write_all(head.as_bytes())?;
        self.len += head.len() as u64;
        self.out = Some(out);
        Ok(())
    }

    /// Whether the file ends within a line, as after a crash or on a disk that was full. One that may not be read is taken as whole.
    fn is_torn(&self) -> bool {
        let mut last = [b'\n'];
        // Pipes have no length, and must not be opened for reading.
        if let Some(at) = self.len.checked_sub(1)
            && let Ok(file) = File::open(&self.path)
        {
            let _ = file.read_exact_at(&mut last, at);
        }
        last != *b"\n"
    }

    /// Puts the file away under the day of what is in it; where that fails, all stays as it is.
    fn turn(&mut self) -> io::Result<()> {
        let stem =
            format!("{}.{:04}{:02}{:02}", self.path.display(), self.day.year(), u8::from(self.day.month()), self.day.day());
        let free = (0..10_000_u32).map(|n| PathBuf::from(if n == 0 { stem.clone() } else { format!("{stem}-{n:04}") }));
        let away = free.into_iter().find(|path| !path.exists()).ok_or_else(|| io::Error::other("too many files of one day"))?;
        std::fs::rename(&self.path, away)?;
        self.out = None;
        self.forget_the_oldest();
        Ok(())
    }

    /// Keeps as many of those that were put away as the settings say. Who cannot be removed stays.
    fn forget_the_oldest(&self) {
        if self.keep == 0 {
            return;
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let Some(name) = self.path.file_name().and_then(|name| name.to_str()) else { return };
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        let ours = |file: &str| file.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_put_away);
        let mut files: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|file| ours(file)).collect();
        files.sort_unstable();
        for old in files.iter().take(files.len().saturating_sub(self.keep)) {
            if let Err(error) = std::fs::remove_file(folder.join(old)) {
                tracing::warn!(file = old, %error, "an old access log cannot be removed");
            }
        }
    }
}

/// `20240501` or `20240501-0001`.
fn is_put_away(suffix: &str) -> bool {
    let digits = |text: &str, len| text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
    match suffix.split_once('-') {
        Some((day, number)) => digits(day, 8) && digits(number, 4),
        None => digits(suffix, 8),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::access_log::line::{Names, line, visit};

    fn at(days: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(19_844 * 86_400 + days * 86_400)
    }

    fn settings(rotate_bytes: u64, rotate_daily: bool, keep: usize) -> AccessLog {
        AccessLog { file: None, rotate_bytes, rotate_daily, keep, hash_addresses: false }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_day_is_a_file_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        std::fs::write(folder.path().join("access.log.old"), "not ours").unwrap();
        let mut file = LogFile::open(&path, &settings(0, true, 2), at(0)).unwrap();
        let line = line(&visit(), &Names::Plain);
        for day in 0..5 {
            for _ in 0..2 {
                file.write(&line, at(day)).unwrap();
            }
        }
        file.flush().unwrap();
        assert_eq!(names(folder.path()), ["access.log", "access.log.20240503", "access.log.20240504", "access.log.old"]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 6);
        assert!(
            text.starts_with("#Software: wmrelay ") && text.contains("\n#Date: 2024-05-05 00:00:00\n#Fields: c-ip date time ")
        );
    }

    #[test]
    fn a_full_file_is_put_away_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let line = line(&visit(), &Names::Plain);
        let mut file = LogFile::open(&path, &settings(3000, false, 0), at(0)).unwrap();
        for _ in 0..30 {
            file.write(&line, at(0)).unwrap();
        }
        file.flush().unwrap();
        let names = names(folder.path());
        assert!(names.len() > 2 && names.contains(&"access.log.20240501-0001".to_owned()), "{names:?}");
        let texts = names.iter().map(|name| std::fs::read_to_string(folder.path().join(name)).unwrap());
        let lines = texts.inspect(|text| assert!(text.len() <= 3000 && text.starts_with('#') && text.ends_with('\n')));
        assert_eq!(lines.map(|text| text.lines().filter(|line| !line.starts_with('#')).count()).sum::<usize>(), 30);
    }

    #[test]
    fn who_moved_it_away_gets_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("moved"));
        let line = line(&visit(), &Names::Plain);
        let mut file = LogFile::open(&path, &settings(0, false, 0), at(0)).unwrap();
        file.write(&line, at(0)).unwrap();
        std::fs::rename(&path, &moved).unwrap();
        file.reopen(at(0)).unwrap();
        file.write(&line, at(0)).unwrap();
        file.flush().unwrap();
        for path in [&path, &moved] {
            assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 5, "{}", path.display());
        }
        // The folder is gone for a while.
        let gone = tempfile::tempdir().unwrap();
        let path = gone.path().join("deep").join("access.log");
        std::fs::create_dir(gone.path().join("deep")).unwrap();
        let mut file = LogFile::open(&path, &settings(0, false, 0), at(0)).unwrap();
        std::fs::remove_dir_all(gone.path().join("deep")).unwrap();
        assert!(file.reopen(at(0)).is_err() && file.write(&line, at(0)).is_err());
        std::fs::create_dir(gone.path().join("deep")).unwrap();
        file.write(&line, at(0)).unwrap();
        file.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 5);
    }

    #[test]
    fn what_cannot_be_put_away_grows_on_for_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let line = line(&visit(), &Names::Plain);
        let mut file = LogFile::open(&path, &settings(0, true, 0), at(0)).unwrap();
        file.write(&line, at(0)).unwrap();
        // Nothing can be put over a folder, and there is one at each name; not even root may do that.
        let taken = |n: u32| {
            let number = if n == 0 { String::new() } else { format!("-{n:04}") };
            folder.path().join(format!("access.log.20240501{number}"))
        };
        (0..10_000).for_each(|n| std::fs::create_dir(taken(n)).unwrap());
        for s in 0..60 {
            file.write(&line, at(1) + Duration::from_secs(s)).unwrap();
        }
        file.flush().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.lines().filter(|line| !line.starts_with('#')).count(), text.matches("#Fields").count()), (61, 1));
        std::fs::remove_dir(taken(7)).unwrap();
        file.write(&line, at(1) + Duration::from_secs(61)).unwrap();
        file.flush().unwrap();
        assert!(taken(7).is_file());
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 5);
    }

    #[test]
    fn a_torn_line_harms_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let line = line(&visit(), &Names::Plain);
        for (there, head) in [("192.0.2.1 2024-0", 2), ("192.0.2.1 2024-0\n", 2), ("", 1)] {
            std::fs::write(&path, there).unwrap();
            let mut file = LogFile::open(&path, &settings(0, false, 0), at(0)).unwrap();
            file.write(&line, at(0)).unwrap();
            file.flush().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.lines().nth(head - 1).unwrap().starts_with("#Software") && !text.contains("\n\n"), "{text}");
            assert_eq!(file.len, text.len() as u64);
        }
    }
}
