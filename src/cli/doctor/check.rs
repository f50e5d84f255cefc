//! One thing that was looked at.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

/// What came out. The order is that of badness.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    Ok,
    /// There is no way to tell.
    Unknown,
    Warn,
    Fail,
}

impl Outcome {
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Unknown => "unknown",
            Outcome::Warn => "warn",
            Outcome::Fail => "fail",
        }
    }

    /// Number of a terminal's colour.
    pub fn colour(self) -> u8 {
        match self {
            Outcome::Ok => 32,
            Outcome::Unknown => 36,
            Outcome::Warn => 33,
            Outcome::Fail => 31,
        }
    }
}

/// Something that may be told to anyone: it cannot hold a name, because it holds no text but the program's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(untagged)]
pub enum Fact {
    Number(u64),
    Flag(bool),
    Word(&'static str),
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What it is about, for people.
    pub area: &'static str,
    /// A stable name for programs.
    pub code: &'static str,
    pub outcome: Outcome,
    /// Which one; private.
    pub subject: Option<String>,
    /// Which one, as a number that tells nothing else.
    pub item: Option<usize>,
    /// What was found, in words; private.
    pub text: String,
    /// What to do about it, in words; private.
    pub remedy: Option<String>,
    /// What may be told to anyone.
    pub facts: BTreeMap<&'static str, Fact>,
}

impl Check {
    pub fn new(area: &'static str, code: &'static str, outcome: Outcome, text: impl Into<String>) -> Self {
        let (subject, item, remedy, facts) = (None, None, None, BTreeMap::new());
        Self { area, code, outcome, subject, item, text: text.into(), remedy, facts }
    }

    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    pub fn item(mut self, item: usize) -> Self {
        self.item = Some(item);
        self
    }

    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub fn fact(mut self, name: &'static str, fact: Fact) -> Self {
        self.facts.insert(name, fact);
        self
    }

    /// Everything, for programs on this device.
    pub fn json(&self) -> Value {
        json!({
            "area": self.area, "code": self.code, "result": self.outcome.word(), "subject": self.subject,
            "text": self.text, "remedy": self.remedy, "facts": self.facts,
        })
    }

    /// What may be told to anyone.
    pub fn public_json(&self) -> Value {
        json!({ "code": self.code, "result": self.outcome.word(), "item": self.item, "facts": self.facts })
    }
}
