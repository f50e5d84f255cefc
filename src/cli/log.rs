//! `p2psync log`.

use super::context::Context;
use super::output;
use crate::api::{EventItem, Reply, Request};
use crate::engine;

/// Prints the latest events, oldest first.
pub fn run(context: &Context, count: usize, json: bool) -> anyhow::Result<()> {
    let events = context.ask_or_read(
        &Request::Events { count },
        |reply| match reply {
            Reply::Events(events) => Some(events),
            _ => None,
        },
        |config| engine::report::events(&context.home, config, count, None),
    )?;
    if json {
        return output::print_json(&events);
    }
    if events.is_empty() {
        return output::print("Nothing has happened yet.\n");
    }
    // Names in it have no marks, so the terminal breaks the lines: what is copied is whole then.
    output::print_raw(&events.iter().map(line).collect::<String>())
}

fn line(event: &EventItem) -> String {
    let folder = event.folder.as_deref().map(|f| format!("[{}] ", output::clean(f))).unwrap_or_default();
    format!("{}  {folder}{}\n", output::local_time(event.time_ms), output::clean(&event.text))
}
