//! `p2psync id`.

use super::context::Context;
use super::output;

/// Prints the device id alone.
pub fn run(context: &Context) -> anyhow::Result<()> {
    let id = context.prepare()?;
    output::print(&format!("{id}\n"))
}
