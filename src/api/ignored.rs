//! What is told of ignore rules, as `--json` prints it. Stable as all answers are.

use serde::{Deserialize, Serialize};

/// Whether a path is ignored.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct IgnoreTest {
    pub path: String,
    /// Label of the folder that holds it.
    pub folder: String,
    pub ignored: bool,
    /// The rule that decided, also where it is one that takes another back.
    pub rule: Option<IgnoreRule>,
    /// The same in words.
    pub text: String,
    pub faults: Vec<IgnoreFault>,
}

/// All ignore rules of a folder.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct IgnoreRules {
    pub folder: String,
    pub rules: Vec<IgnoreRule>,
    pub faults: Vec<IgnoreFault>,
}

/// One ignore rule.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct IgnoreRule {
    /// "built_in", "file", "local" or "selection".
    pub source: String,
    /// The file it stands in, relative to the folder, and the line in it, from 1.
    pub file: Option<String>,
    pub line: Option<u32>,
    pub pattern: String,
}

/// A line of a file with rules, or such a file, that is not used.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct IgnoreFault {
    pub file: String,
    pub line: Option<u32>,
    pub text: String,
}
