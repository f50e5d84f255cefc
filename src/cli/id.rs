//! `p2psync id`.

use super::context::Context;
use super::output;

/// Prints the device id alone.
pub fn run(context: &Context) -> anyhow::Result<()> {
    let id = context.device_id()?;
    output::print(&format!("{id}\n"))
}
