//! `p2psync doctor`.
use super::context::Context;
use std::path::Path;
pub fn run(_context: &Context, _json: bool, _bundle: Option<&Path>) -> anyhow::Result<()> {
    Ok(())
}
