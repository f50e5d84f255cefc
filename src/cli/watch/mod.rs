//! `p2psync status --watch`: how things are, live, with keys to act on a folder.
//!
//! | file | does |
//! | --- | --- |
//! | `screen` | what is shown and selected, and what a key does to it; no terminal |
//! | `draw`, `rows` | puts it on a screen of any size |
//! | `agent` | a thread that asks the agent and carries out wishes, so that keys are heard while it answers |

mod agent;
mod draw;
mod rows;
mod screen;

use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::context::Context;
use super::exit::misuse;
use super::output;
use agent::News;
use draw::Palette;
use screen::{Key, Screen, Wish};

/// How long a key, news of the agent or a signal wait at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Times since something are told in seconds, so the screen changes that often without news, ms.
const REDRAW_MS: i64 = 1000;

/// Shows it until the user has seen enough. The terminal is as before afterwards, whatever happens.
pub fn run(context: &Context) -> anyhow::Result<()> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(misuse("'p2psync status --watch' needs a terminal; for programs there is 'p2psync status --json'"));
    }
    let (news, inbox) = channel();
    let (wishes, orders) = channel();
    end_on_signals(news.clone())?;
    agent::spawn(context.home.clone(), orders, news)?;
    // From here on a panic restores the terminal first, too.
    let mut terminal = ratatui::try_init().context("cannot take over the terminal")?;
    let shown = show(&mut terminal, &inbox, &wishes);
    let restored = ratatui::try_restore().context("cannot give back the terminal");
    shown.and(restored)
}

fn show(terminal: &mut DefaultTerminal, inbox: &Receiver<News>, wishes: &Sender<Wish>) -> anyhow::Result<()> {
    let palette = Palette { colour: output::has_colours(&io::stdout()) };
    let mut screen = Screen { now_ms: now_ms(), ..Screen::default() };
    let mut is_stale = true;
    loop {
        for news in inbox.try_iter() {
            if matches!(news, News::Ended) {
                return Ok(());
            }
            screen.take(news);
            is_stale = true;
        }
        let now_ms = now_ms();
        if is_stale || now_ms.abs_diff(screen.now_ms) >= REDRAW_MS.unsigned_abs() {
            screen.now_ms = now_ms;
            terminal.draw(|frame| draw::draw(frame, &screen, palette))?;
            is_stale = false;
        }
        if !event::poll(LOOK_EVERY)? {
            continue;
        }
        match event::read()? {
            Event::Key(pressed) if pressed.kind != KeyEventKind::Release => match key(pressed) {
                Some(Key::Quit) => return Ok(()),
                Some(key) => {
                    if let Some(wish) = screen.press(key) {
                        wishes.send(wish).context("the part that talks to the agent has ended")?;
                    }
                }
                None => continue,
            },
            Event::Resize(..) => {}
            _ => continue,
        }
        is_stale = true;
    }
}

/// What a key means.
fn key(pressed: KeyEvent) -> Option<Key> {
    let is_control = pressed.modifiers.contains(KeyModifiers::CONTROL);
    match pressed.code {
        KeyCode::Char('c' | 'd') if is_control => Some(Key::Quit),
        KeyCode::Char('l') if is_control => Some(Key::Redraw),
        _ if is_control => None,
        KeyCode::Char('q') => Some(Key::Quit),
        KeyCode::Up | KeyCode::Char('k') => Some(Key::Up),
        KeyCode::Down | KeyCode::Char('j') => Some(Key::Down),
        KeyCode::Char('p' | ' ') => Some(Key::Pause),
        KeyCode::Char('o') | KeyCode::Enter => Some(Key::Open),
        KeyCode::Char('r') => Some(Key::Rescan),
        KeyCode::Char('?' | 'h') => Some(Key::Help),
        KeyCode::Esc => Some(Key::Back),
        _ => None,
    }
}

/// A signal that would end the process ends the loop instead, which gives back the terminal.
fn end_on_signals(news: Sender<News>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut hang_up, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?)
    };
    let wait = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        // Where nobody listens any more the loop has ended already.
        let _ = news.send(News::Ended);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod picture;
#[cfg(test)]
mod tests;
