//! Deliberate mistakes: the simulator has to catch each of them, else it proves nothing.
//!
//! Without the feature `testing` there is nothing of it in the program.

/// A mistake that a programmer could make.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bug {
    /// A missing root is taken for a folder whose files were all deleted.
    MissingRootIsDeletion,
}

impl Bug {
    /// All of them.
    pub const ALL: &[Bug] = &[Bug::MissingRootIsDeletion];
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
