//! Keeps the log readable where a peer has the same line written again and again: after some of a kind the others are
//! counted, and told with the next one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::allowance::Allowance;

/// Lines of one kind about one peer or folder that are written without a pause.
pub const LINES_AT_ONCE: u32 = 20;
/// After that one more is written each such while.
pub const LINE_EVERY: Duration = Duration::from_secs(30);
/// Kinds of lines that are remembered; all are forgotten where there are more.
const KINDS_MAX: usize = 4096;

/// How much has been said about what.
pub struct Chatter<Subject> {
    said: BTreeMap<(Subject, &'static str), (Allowance, u64)>,
}

/// How many lines like one that is written were left out before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeftOut(u64);

impl<Subject: Ord> Chatter<Subject> {
    /// `None` where this line is to be left out.
    pub fn say(&mut self, subject: Subject, kind: &'static str, now: Instant) -> Option<LeftOut> {
        if self.said.len() >= KINDS_MAX {
            self.said.clear();
        }
        let new = || (Allowance::new(LINES_AT_ONCE, LINE_EVERY), 0);
        let (allowance, left_out) = self.said.entry((subject, kind)).or_insert_with(new);
        if allowance.take(now) {
            return Some(LeftOut(std::mem::take(left_out)));
        }
        *left_out += 1;
        None
    }
}

impl<Subject> Default for Chatter<Subject> {
    fn default() -> Self {
        Self { said: BTreeMap::new() }
    }
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(out, " ({count} more like this before it)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_some_lines_of_a_kind_the_others_are_counted_and_told_with_the_next() {
        let (mut chatter, now) = (Chatter::default(), Instant::now());
        let said: Vec<bool> = (0..LINES_AT_ONCE + 7).map(|_| chatter.say(1, "wrong data", now).is_some()).collect();
        assert_eq!(said.iter().filter(|said| **said).count(), LINES_AT_ONCE as usize);
        assert!(said[LINES_AT_ONCE as usize - 1] && !said[LINES_AT_ONCE as usize]);
        assert_eq!(chatter.say(1, "connected", now).unwrap().to_string(), "");
        assert_eq!(chatter.say(2, "wrong data", now).unwrap().to_string(), "");
        let later = chatter.say(1, "wrong data", now + LINE_EVERY).unwrap();
        assert_eq!(later.to_string(), " (7 more like this before it)");
        assert_eq!(chatter.say(1, "wrong data", now + LINE_EVERY), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut chatter, now) = (Chatter::default(), Instant::now());
        (0..3 * KINDS_MAX).for_each(|n| assert!(chatter.say(n, "x", now).is_some()));
        assert!(chatter.said.len() <= KINDS_MAX);
    }
}
