//! Notices that the config file was changed by hand or by a command.

use std::path::Path;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::shared::Order;

/// Watches the directory of the file (editors replace the file itself) for as long as the watcher lives.
pub fn start(file: &Path, orders: mpsc::Sender<Order>) -> notify::Result<RecommendedWatcher> {
    let name = file.file_name().map(|n| n.to_owned());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let is_change = match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            // A file that is only opened or half written is not to be read yet.
            EventKind::Modify(ModifyKind::Name(_)) => true,
            _ => false,
        };
        let is_ours = event.paths.iter().any(|p| p.file_name() == name.as_deref());
        if is_change && is_ours {
            // A full queue already holds an order to look at the file.
            let _ = orders.try_send(Order::ConfigChanged);
        }
    })?;
    let directory = file.parent().unwrap_or(Path::new("."));
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
