//! The thread that asks the agent and carries out wishes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use super::screen::Wish;
use crate::api::client::{self, ClientError};
use crate::api::{EventItem, Reply, Request, Status};
use crate::config;
use crate::core::id::FolderId;
use crate::engine;
use crate::home::Home;

/// How often to ask. The answer costs the agent a few milliseconds.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Events asked for: as many as the tallest screen shows.
const EVENTS_SHOWN_MAX: usize = 60;
/// What opens a directory with the program that the user has chosen for it.
const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// What the screen hears.
#[derive(Debug)]
pub enum News {
    /// How things are, or why that is not known.
    Looked(Result<Box<(Status, Vec<EventItem>)>, String>),
    /// What came of a wish.
    Done(String),
    /// It is to end.
    Ended,
}

/// Works until nobody listens any more.
pub fn spawn(home: Home, wishes: Receiver<Wish>, news: Sender<News>) -> std::io::Result<()> {
    let work = move || {
        let mut opened: Vec<Child> = Vec::new();
        loop {
            let looked = look(&home).map(Box::new).map_err(|error| format!("{error:#}"));
            if news.send(News::Looked(looked)).is_err() {
                return;
            }
            // What was opened and has ended is not to stay as a zombie; one that can't be asked has gone.
            opened.retain_mut(|child| child.try_wait().is_ok_and(|ended| ended.is_none()));
            let wish = match wishes.recv_timeout(ASK_EVERY) {
                Ok(wish) => wish,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let done = fulfil(&home, &wish, &mut opened).unwrap_or_else(|error| format!("{error:#}"));
            if news.send(News::Done(done)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("asks the agent".into()).spawn(work).map(drop)
}

/// Asks the agent, or reads the indexes where none runs.
fn look(home: &Home) -> anyhow::Result<(Status, Vec<EventItem>)> {
    let status = match client::ask(home, &Request::Status, ANSWER_TIME) {
        Ok(Reply::Status(status)) => status,
        Ok(_) => anyhow::bail!("the agent answered something else; it may be of another version: restart it"),
        Err(ClientError::NotRunning) => {
            let config = config::load(home)?;
            let status = engine::report::status(home, &config, None)?;
            return Ok((status, engine::report::events(home, &config, EVENTS_SHOWN_MAX, None)?));
        }
        Err(error) => return Err(error.into()),
    };
    match client::ask(home, &Request::Events { count: EVENTS_SHOWN_MAX }, ANSWER_TIME)? {
        Reply::Events(events) => Ok((status, events)),
        _ => Ok((status, Vec::new())),
    }
}

fn fulfil(home: &Home, wish: &Wish, opened: &mut Vec<Child>) -> anyhow::Result<String> {
    match wish {
        Wish::Pause { id, label, paused } => {
            let pause = if *paused { config::Pause::Open } else { config::Pause::No };
            config::set_pause(home, &[id.parse::<FolderId>()?], pause)?;
            let text = if *paused { format!("{label} is paused") } else { format!("{label} goes on") };
            match client::ask(home, &Request::Reload, ANSWER_TIME) {
                Ok(_) | Err(ClientError::NotRunning) => Ok(text),
                Err(error) => Err(anyhow::Error::from(error).context("saved, but the agent did not take it up")),
            }
        }
        Wish::Rescan { id, label } => {
            client::ask(home, &Request::Rescan { folder: Some(id.clone()) }, ANSWER_TIME)?;
            Ok(format!("scanning {label}"))
        }
        Wish::Open { id, label } => {
            let config = config::load(home)?;
            let path = config.folders.iter().find(|f| f.id.as_str() == id).map(|f| f.path.clone());
            let path = path.ok_or_else(|| anyhow::anyhow!("{label} is not in the config any more"))?;
            opened.push(open(&path)?);
            Ok(format!("opening {}", path.display()))
        }
    }
}

fn open(path: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new(OPENER);
    command.arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| anyhow::anyhow!("cannot open {} with {OPENER}: {error}", path.display()))
}
