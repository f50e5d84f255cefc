//! A log in a file that stays small: at a certain size it is set aside, and only the latest few are kept.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Size in bytes at which a new file is begun: some weeks of an ordinary agent.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Files kept beside the present one; a log takes no more than this and one times the size.
const OLD_FILES_KEPT: u32 = 4;
/// First line of every log, by which it is told from a file of the user's that must stay as it is.
const FIRST_LINE: &str = "# log of p2psync";

/// A log file, shared by all threads.
#[derive(Clone)]
pub struct LogFile(Arc<Mutex<Rotating>>);

struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl LogFile {
    /// Opens the log to add to it. A file that is there and no log of ours is refused.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, FILE_BYTES_MAX)
    }

    fn with_limit(path: &Path, bytes_max: u64) -> io::Result<Self> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir)?;
        }
        let (file, bytes) = open(path)?;
        Ok(Self(Arc::new(Mutex::new(Rotating { path: path.to_owned(), file, bytes, bytes_max }))))
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = LogFile;

    fn make_writer(&'a self) -> LogFile {
        self.clone()
    }
}

impl Write for LogFile {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.bytes + text.len() as u64 > log.bytes_max {
            // A log that can't be renamed only grows; what is to be said is not lost.
            let _ = log.begin_anew();
        }
        log.file.write_all(text)?;
        log.bytes += text.len() as u64;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).file.flush()
    }
}

impl Rotating {
    fn begin_anew(&mut self) -> io::Result<()> {
        // From the oldest on, each takes the name of the next; a name that something else has taken ends the line.
        for number in (0..OLD_FILES_KEPT).rev() {
            let (from, to) = (numbered(&self.path, number), numbered(&self.path, number + 1));
            if from.symlink_metadata().is_err() {
                continue;
            }
            check_is_log(&from).and_then(|()| check_is_log(&to))?;
            // An old log is never empty: what is was not put there by this program.
            if [&from, &to].iter().any(|path| std::fs::metadata(path).is_ok_and(|found| found.len() == 0)) {
                return Err(refusal(&to));
            }
            // A link is the user's, though it may lead to a log; that to the present one stays of use.
            if to.is_symlink() || (number > 0 && from.is_symlink()) {
                return Err(refusal(&to));
            }
            std::fs::rename(&from, &to)?;
        }
        (self.file, self.bytes) = open(&self.path)?;
        Ok(())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    match number {
        0 => path.to_owned(),
        _ => PathBuf::from(format!("{}.{number}", path.display())),
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    check_is_log(path)?;
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let mut bytes = file.metadata()?.len();
    if bytes == 0 {
        let line = format!("{FIRST_LINE}\n");
        file.write_all(line.as_bytes())?;
        bytes = line.len() as u64;
    }
    Ok((file, bytes))
}

/// Fails where something lies there that is neither empty nor a log of ours.
fn check_is_log(path: &Path) -> io::Result<()> {
    let found = match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let mut line = String::new();
    if found.is_file() && found.len() > 0 {
        BufReader::new(File::open(path)?.take(FIRST_LINE.len() as u64 + 1)).read_line(&mut line)?;
    }
    let is_log = found.is_file() && (found.len() == 0 || line.trim_end_matches('\n') == FIRST_LINE);
    if is_log { Ok(()) } else { Err(refusal(path)) }
}

fn refusal(path: &Path) -> io::Error {
    let text = format!("{} is there already and is no log of p2psync; choose another name", path.display());
    io::Error::new(io::ErrorKind::AlreadyExists, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_log_is_bounded_and_keeps_the_latest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/log");
        let mut log = LogFile::with_limit(&path, 60).unwrap();
        for i in 0..100 {
            writeln!(log, "line {i} with some words").unwrap();
        }
        let files: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|f| f.unwrap().path()).collect();
        assert_eq!(files.len() as u32, OLD_FILES_KEPT + 1);
        assert!(files.iter().all(|f| read(f).len() <= 60 && read(f).starts_with(FIRST_LINE)));
        assert!(read(&path).contains("line 99") && read(&numbered(&path, OLD_FILES_KEPT)).contains("line 9"));
    }

    #[test]
    fn a_log_goes_on_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for word in ["one", "two"] {
            writeln!(LogFile::open(&path).unwrap(), "{word}").unwrap();
        }
        assert_eq!(read(&path), format!("{FIRST_LINE}\none\ntwo\n"));
    }

    #[test]
    fn a_file_of_the_user_is_never_logged_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("letter");
        std::fs::write(&path, "dear aunt").unwrap();
        let error = LogFile::open(&path).err().unwrap();
        assert!(error.to_string().contains("letter") && read(&path) == "dear aunt");
        // Nor one that lies where an old log would go.
        let log_path = dir.path().join("log");
        std::fs::write(numbered(&log_path, 1), "dear aunt").unwrap();
        let mut log = LogFile::with_limit(&log_path, 40).unwrap();
        (0..10).for_each(|i| writeln!(log, "line {i} with some words").unwrap());
        assert_eq!(read(&numbered(&log_path, 1)), "dear aunt");
        assert!(read(&log_path).contains("line 9"));
    }

    #[test]
    fn an_empty_file_of_the_user_s_stays_where_an_old_log_would_go() {
        let dir = tempfile::tempdir().unwrap();
        let log_path = dir.path().join("log");
        for number in [1, 2] {
            std::fs::write(numbered(&log_path, number), "").unwrap();
            let mut log = LogFile::with_limit(&log_path, 40).unwrap();
            (0..10).for_each(|i| writeln!(log, "line {i} with some words").unwrap());
            assert_eq!(read(&numbered(&log_path, number)), "");
            assert!(read(&log_path).contains("line 9"));
            std::fs::remove_file(numbered(&log_path, number)).unwrap();
            std::fs::write(numbered(&log_path, 1), format!("{FIRST_LINE}\nolder\n")).unwrap();
        }
    }

    #[test]
    fn a_file_that_only_begins_like_a_log_and_a_link_are_the_user_s() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        std::fs::write(&path, format!("{FIRST_LINE} and how to read it\n")).unwrap();
        assert!(LogFile::open(&path).is_err());
        // Nor does an old log take the name of a link.
        let log_path = dir.path().join("log");
        std::os::unix::fs::symlink("nowhere", numbered(&log_path, 1)).unwrap();
        let mut log = LogFile::with_limit(&log_path, 40).unwrap();
        (0..10).for_each(|i| writeln!(log, "line {i} with some words").unwrap());
        assert_eq!(std::fs::read_link(numbered(&log_path, 1)).unwrap(), Path::new("nowhere"));
    }
}
