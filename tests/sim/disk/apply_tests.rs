//! The real apply on this disk.
