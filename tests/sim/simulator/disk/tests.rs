//! The disk itself.
