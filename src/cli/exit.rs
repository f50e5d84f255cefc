//! Exit codes other than 0 for what went well, 1 for an error and 2 for wrong usage.

/// What a command was asked to see to is not so: not in sync, or waited for in vain.
pub const NOT_SO: u8 = 3;

/// Ends a command with a code of its own. The text goes to stderr, unless there is none.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Ended {
    pub code: u8,
    pub text: String,
}

/// The code and the words that a command ends with for this error.
pub fn of(error: &anyhow::Error) -> (u8, Option<String>) {
    match error.downcast_ref::<Ended>() {
        Some(ended) if ended.text.is_empty() => (ended.code, None),
        Some(ended) => (ended.code, Some(super::output::error_text(error))),
        None => (1, Some(super::output::error_text(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_ends_with_1_unless_it_says_otherwise() {
        assert_eq!(of(&anyhow::anyhow!("no")), (1, Some("no".to_owned())));
        let ended = |text: &str| anyhow::Error::from(Ended { code: NOT_SO, text: text.into() });
        assert_eq!(of(&ended("late")), (3, Some("late".to_owned())));
        assert_eq!(of(&ended("")), (3, None));
    }
}
