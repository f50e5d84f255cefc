//! What can go wrong with an index: is it missing, damaged, of another version, or is the disk in trouble?

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the index could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("there is no index at {}", path.display())]
    Missing { path: PathBuf },
    #[error("the index {} was written by a newer version (format {found}; known: {known})", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("the index {} is of an older format ({found}); start the agent to bring it up to date", path.display())]
    Older { path: PathBuf, found: i64 },
    #[error("the index {} is damaged: {what}", path.display())]
    Corrupt { path: PathBuf, what: String },
    #[error("a transaction on the index {} was {what}", path.display())]
    Transaction { path: PathBuf, what: &'static str },
    #[error("the disk with the index {} is full: free some space there", path.display())]
    Full { path: PathBuf },
    #[error(
        "the index {} may not be written: check the permissions of it and its directory, and whether its disk is \
         mounted read-only",
        path.display()
    )]
    ReadOnly { path: PathBuf },
    #[error("the index {} was removed or replaced while it was in use", path.display())]
    Gone { path: PathBuf },
    #[error("the index {} cannot be used", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
    #[error("cannot make the index {} durable", path.display())]
    Sync { path: PathBuf, source: std::io::Error },
}

/// Trouble inside this module, before it is known which file it is about.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(rusqlite::Error),
    /// A row that no version of this program can have written.
    Bad(&'static str),
    Transaction(&'static str),
    /// What is written goes into files that nobody can open any more.
    Gone,
}

pub(super) type Res<T> = Result<T, Fault>;

impl IndexError {
    /// True where the index has to be set aside and rebuilt.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, IndexError::Corrupt { .. })
    }

    /// True where the folder has no index yet.
    pub fn is_missing(&self) -> bool {
        matches!(self, IndexError::Missing { .. })
    }

    /// True where the disk has no room for the index to grow.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, IndexError::Full { .. })
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Sql(error)
    }
}

impl Fault {
    /// The error for the caller, with the file it is about.
    pub(super) fn at(self, path: &Path) -> IndexError {
        let path = path.to_path_buf();
        match self {
            Fault::Bad(what) => IndexError::Corrupt { path, what: what.into() },
            Fault::Transaction(what) => IndexError::Transaction { path, what },
            Fault::Sql(source) if is_damage(&source) => IndexError::Corrupt { path, what: source.to_string() },
            Fault::Gone => IndexError::Gone { path },
            Fault::Sql(source) => match source.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => IndexError::Full { path },
                Some(ErrorCode::ReadOnly) => IndexError::ReadOnly { path },
                _ => IndexError::Database { path, source },
            },
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::InvalidColumnType(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::Utf8Error(..) => true,
        // No write of this program breaks a constraint of an index that is in order.
        other => matches!(
            other.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation)
        ),
    }
}
