//! Wires everything together.

pub mod agent;
pub mod report;
