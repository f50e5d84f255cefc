//! Why a link did not come about, or ended.

use crate::net::NetError;

/// Why the link with a removed device ends; both sides read it.
pub(super) const NO_LONGER_PAIRED: &str = "the two devices are no longer paired";

/// Why a link did not come about, or ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("the other device ended the connection: {0}")]
    Goodbye(String),
    /// The other device has removed this one.
    #[error("the other device ended the connection: {NO_LONGER_PAIRED}")]
    Unpaired,
    /// This device has removed the other one.
    #[error("{NO_LONGER_PAIRED}")]
    Removed,
    #[error("the other device asks for too much at once")]
    Greedy,
    #[error("the other device sent over a further connection what does not belong there")]
    Misused,
    #[error("cannot find the address of {host}")]
    Resolve { host: String, source: std::io::Error },
}

impl LinkError {
    /// What a close frame says: one of its sentences has a meaning beyond its words.
    pub(super) fn closed(reason: String) -> Self {
        if reason == NO_LONGER_PAIRED { LinkError::Unpaired } else { LinkError::Goodbye(reason) }
    }

    /// Whether the other device does not know this one, or no longer.
    pub fn is_unpaired(&self) -> bool {
        matches!(self, LinkError::Unpaired | LinkError::Net(NetError::NotTrusted))
    }
}
