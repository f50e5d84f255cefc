//! Deliberate mistakes: the simulator has to catch each of them, else it proves nothing.
//!
//! Without the feature `testing` there is nothing of it in the program.

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A mistake that a programmer could make.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$name,)*];
        }
    };
}

bugs! {
    /// Of two concurrent versions the one that is heard of last wins.
    WinnerByArrival,
    /// The loser of a conflict goes to history without a copy.
    NoConflictCopy,
    /// A deletion beats a concurrent edit.
    EditLosesToDelete,
    /// What a fresh index finds counts as written by somebody.
    FoundIsWritten,
    /// Tombstones go while some device has not applied them.
    TombstonesForgottenEarly,
    /// An index that was restored from a backup goes on as if nothing had happened.
    RollbackUnnoticed,
    /// A new index takes the epoch of the lost one, and its counts again.
    EpochUsedAgain,
    /// After a crash peers' entries are applied before a scan has told what the crash left.
    AppliedBeforeScan,
    /// The position in a peer's index moves on before its entries are stored.
    CursorAhead,
    /// What had no source when a connection was lost is not asked for again.
    RequeueForgotten,
    /// What was seen at a path while work was under way there is forgotten.
    SightingForgotten,
    /// A path whose target was not as expected is not looked at again.
    SurpriseForgotten,
    /// A file that a rule begins to cover is announced as deleted.
    IgnoredIsDeleted,
    /// Whatever stands at the target is taken for what was expected, before a swap and after it.
    NoCheckAroundSwap,
    /// What came out of a swap is taken for what was expected.
    NoCheckAfterSwap,
    /// New files are renamed over whatever stands there.
    RenameReplaces,
    /// A removed file is unlinked.
    RemoveUnlinks,
    /// New files are put in place before their bytes are durable.
    NoFileSync,
    /// Outcomes are reported before the directories are durable.
    NoDirectorySync,
    /// A file that changes while it is read is taken as it was read.
    ReadWhileWritten,
    /// A look in the same tick of the clock as a write is trusted.
    RacyTimesTrusted,
    /// A missing root is taken for a folder whose files were all deleted.
    MissingRootIsDeletion,
    /// What a crash left in history is not looked at.
    NothingRecovered,
    /// A displaced file is not looked at again, though a program may still write to it.
    NoSecondLook,
    /// Received bytes are used without a look at their hash.
    NothingVerified,
}

#[cfg(feature = "testing")]
thread_local! {
    static MADE: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Makes a mistake from now on in this thread, or none.
#[cfg(feature = "testing")]
pub fn make(bug: Option<Bug>) {
    MADE.set(bug);
}

/// True where this mistake is to be made.
#[cfg(feature = "testing")]
pub fn is(bug: Bug) -> bool {
    MADE.get() == Some(bug)
}

/// No mistakes.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub const fn is(_bug: Bug) -> bool {
    false
}
