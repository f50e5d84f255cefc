//! Problems: per-path trouble that does not stop the folder. Every item that is not in sync has one, or a wait.

use std::fmt;

/// What kind of trouble an item has; decides when it is tried again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ProblemKind {
    /// The disk or the folder's share of it is full.
    NoSpace,
    /// Not allowed to read or write here.
    Permission,
    /// Another input or output error.
    Io,
    /// This device's file system cannot hold the name.
    Name,
    /// A socket, FIFO or device: not something that syncs.
    SpecialFile,
    /// The bytes that a peer sent were not what it announced.
    BadBytes,
    /// No connected device has the content.
    NoSource,
    /// All devices of the folder are connected, and none of them has the content.
    Lost,
    /// Something of the user's is in the way and has not been taken into the index yet.
    InTheWay,
    /// Suddenly empty or old after an unclean shutdown; not announced as an edit.
    Suspect,
    /// The file changes while it is being read.
    Busy,
}

/// A problem with its words for the user: what happened and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub kind: ProblemKind,
    pub text: String,
}

impl ProblemKind {
    pub const ALL: [ProblemKind; 11] = [
        ProblemKind::NoSpace,
        ProblemKind::Permission,
        ProblemKind::Io,
        ProblemKind::Name,
        ProblemKind::SpecialFile,
        ProblemKind::BadBytes,
        ProblemKind::NoSource,
        ProblemKind::Lost,
        ProblemKind::InTheWay,
        ProblemKind::Suspect,
        ProblemKind::Busy,
    ];

    /// Stable name, in the index and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            ProblemKind::NoSpace => "no_space",
            ProblemKind::Permission => "permission",
            ProblemKind::Io => "io",
            ProblemKind::Name => "name",
            ProblemKind::SpecialFile => "special_file",
            ProblemKind::BadBytes => "bad_bytes",
            ProblemKind::NoSource => "no_source",
            ProblemKind::Lost => "lost",
            ProblemKind::InTheWay => "in_the_way",
            ProblemKind::Suspect => "suspect",
            ProblemKind::Busy => "busy",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }

    /// True where the device will never hold the item as things are: it counts as declined, not as pending.
    pub fn is_declined(self) -> bool {
        matches!(self, ProblemKind::Name | ProblemKind::SpecialFile)
    }
}

impl Problem {
    pub fn new(kind: ProblemKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
