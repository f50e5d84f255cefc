//! `p2psync id`.

use serde_json::json;

use super::context::Context;
use super::output;
use super::peer::config_or_empty;

/// Prints the device id alone.
pub fn run(context: &Context, as_json: bool) -> anyhow::Result<()> {
    let id = context.device_id()?;
    if as_json {
        // A config with a mistake in it keeps nobody from learning the id.
        let name = config_or_empty(context).ok().map(|config| config.name);
        return output::print_json(&json!({ "device_id": id.to_string(), "short": id.short(), "name": name }));
    }
    output::print_raw(&format!("{id}\n"))
}
