//! What a folder's table may choose: until when it is paused, which way changes go, which part is wanted.

use serde_spanned::Spanned;

use super::ConfigError;
use super::parse::Reader;
use crate::core::direction::Direction;
use crate::core::selection::Selection;

impl Reader<'_> {
    /// A time, in ms since 1970: with its offset from UTC, or as the clock on the wall shows it.
    pub(super) fn time(&self, text: &Spanned<String>) -> Result<i64, ConfigError> {
        let word = text.get_ref().trim();
        let local = || {
            let civil: jiff::civil::DateTime = word.parse().ok()?;
            Some(civil.to_zoned(jiff::tz::TimeZone::system()).ok()?.timestamp())
        };
        let time = word.parse::<jiff::Timestamp>().ok().or_else(local);
        time.map(jiff::Timestamp::as_millisecond)
            .ok_or_else(|| self.fault(text.span(), "not a date and time", "write it like \"2026-11-23 18:00\""))
    }

    pub(super) fn direction(&self, word: &Spanned<String>) -> Result<Direction, ConfigError> {
        Direction::from_name(word.get_ref().trim()).ok_or_else(|| {
            let what = format!("\"{}\" is no direction", word.get_ref().escape_debug());
            self.fault(word.span(), what, "write \"both\", \"send\" (only from here) or \"receive\" (only to here)")
        })
    }

    pub(super) fn only(&self, patterns: &Spanned<Vec<String>>) -> Result<Selection, ConfigError> {
        Selection::parse(patterns.get_ref()).map_err(|error| {
            let advice = "write paths from the folder's root, such as \"Photos/2026/**\"";
            self.fault(patterns.span(), format!("this selects nothing: {error}"), advice)
        })
    }
}
