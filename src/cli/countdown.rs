//! One line on the terminal that tells how much time is left.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time between two updates.
const TICK: Duration = Duration::from_secs(1);
/// Back to the beginning of the line, and nothing in it.
const CLEAR: &str = "\r\x1b[2K";

/// Shows the time that is left, until it is dropped.
pub struct Countdown {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Countdown {
    /// Begins where stderr is a terminal; elsewhere nothing is shown.
    pub fn start(seconds: u64) -> Option<Self> {
        if !std::io::stderr().is_terminal() {
            return None;
        }
        let (stop, stopped) = mpsc::channel();
        let end = Instant::now() + Duration::from_secs(seconds);
        let thread = thread::spawn(move || {
            loop {
                show(&format!("{CLEAR}{}", line(end.saturating_duration_since(Instant::now()))));
                match stopped.recv_timeout(TICK) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => break show(CLEAR),
                }
            }
        });
        Some(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Countdown {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It only prints; where it has failed, the line stays.
            let _ = thread.join();
        }
    }
}

fn show(text: &str) {
    let mut terminal = std::io::stderr().lock();
    // A terminal that is gone needs no countdown.
    let _ = terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush());
}

fn line(left: Duration) -> String {
    let seconds = left.as_secs();
    format!("Waiting for the other device: {}:{:02} left (Ctrl-C cancels) ", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_in_minutes_and_seconds() {
        assert!(line(Duration::from_secs(300)).contains(" 5:00 left"));
        assert!(line(Duration::from_millis(61_900)).contains(" 1:01 left"));
        assert!(line(Duration::ZERO).contains(" 0:00 left"));
    }
}
