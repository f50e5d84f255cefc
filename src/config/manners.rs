//! How considerate the agent is: what of the network, the battery and the user's attention it takes.

use serde::Deserialize;
use serde_spanned::Spanned;

use super::ConfigError;
use super::parse::Reader;

/// Least cap in KiB per second: below it answers would come too late to be waited for.
const CAP_KIB_S_MIN: u32 = 16;
const MINUTES_PER_DAY: u16 = 24 * 60;

/// Most bytes per second for contents; `None` where there is no cap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caps {
    pub upload_bytes_s: Option<u64>,
    pub download_bytes_s: Option<u64>,
}

/// Caps for all peers together, and others for some hours of the day.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    pub usual: Caps,
    pub quiet: Option<(Hours, Caps)>,
}

/// Some hours of each day, in minutes since midnight, local time. They may go over midnight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hours {
    pub from_minute: u16,
    pub to_minute: u16,
}

/// What else the agent leaves be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manners {
    /// Nothing is synced while the computer runs on battery.
    pub pause_on_battery: bool,
    /// Nothing is synced while the network is paid for by volume.
    pub pause_on_metered: bool,
    /// Scans that nobody asked for leave processor and disk to others first.
    pub gentle_scans: bool,
    /// Tell the user on the desktop what needs him.
    pub notifications: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self { pause_on_battery: false, pause_on_metered: false, gentle_scans: true, notifications: true }
    }
}

impl Limits {
    /// The caps at this minute of the day.
    pub fn at(&self, minute: u16) -> Caps {
        match self.quiet {
            Some((hours, caps)) if hours.contain(minute) => caps,
            _ => self.usual,
        }
    }

    /// Minutes from this minute of the day until the quiet hours begin or end, at least one.
    pub fn minutes_to_change(&self, minute: u16) -> Option<u16> {
        let (hours, _) = self.quiet?;
        let until = |edge: u16| match (edge + MINUTES_PER_DAY - minute % MINUTES_PER_DAY) % MINUTES_PER_DAY {
            0 => MINUTES_PER_DAY,
            minutes => minutes,
        };
        Some(until(hours.from_minute).min(until(hours.to_minute)))
    }
}

impl Hours {
    fn contain(self, minute: u16) -> bool {
        if self.from_minute <= self.to_minute {
            (self.from_minute..self.to_minute).contains(&minute)
        } else {
            minute >= self.from_minute || minute < self.to_minute
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    upload_kib_s: Option<Spanned<u32>>,
    download_kib_s: Option<Spanned<u32>>,
    quiet_hours: Option<Spanned<String>>,
    quiet_upload_kib_s: Option<Spanned<u32>>,
    quiet_download_kib_s: Option<Spanned<u32>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawManners {
    pause_on_battery: Option<bool>,
    pause_on_metered: Option<bool>,
    gentle_scans: Option<bool>,
}

impl Reader<'_> {
    pub(super) fn limits(&self, raw: &RawLimits) -> Result<Limits, ConfigError> {
        let usual = self.caps(raw.upload_kib_s.as_ref(), raw.download_kib_s.as_ref())?;
        let quiet = self.caps(raw.quiet_upload_kib_s.as_ref(), raw.quiet_download_kib_s.as_ref())?;
        let hours = match &raw.quiet_hours {
            Some(text) => Some(parse_hours(text.get_ref()).ok_or_else(|| {
                self.fault(
                    text.span(),
                    "not some hours of the day",
                    "write them like \"08:00-18:00\" or \"22:30-06:00\"",
                )
            })?),
            None => None,
        };
        let quiet_key = raw.quiet_upload_kib_s.as_ref().or(raw.quiet_download_kib_s.as_ref());
        if let (None, Some(key)) = (hours, quiet_key) {
            return Err(self.fault(key.span(), "these caps have no hours", "add quiet_hours = \"08:00-18:00\""));
        }
        // What the quiet hours say nothing about is as usual.
        let quiet = Caps {
            upload_bytes_s: if raw.quiet_upload_kib_s.is_some() { quiet.upload_bytes_s } else { usual.upload_bytes_s },
            download_bytes_s: if raw.quiet_download_kib_s.is_some() {
                quiet.download_bytes_s
            } else {
                usual.download_bytes_s
            },
        };
        Ok(Limits { usual, quiet: hours.map(|hours| (hours, quiet)) })
    }

    pub(super) fn caps(
        &self,
        upload: Option<&Spanned<u32>>,
        download: Option<&Spanned<u32>>,
    ) -> Result<Caps, ConfigError> {
        let cap = |value: Option<&Spanned<u32>>| match value.map(|v| (*v.get_ref(), v.span())) {
            None | Some((0, _)) => Ok(None),
            Some((kib, span)) if kib < CAP_KIB_S_MIN => {
                let advice = format!("use at least {CAP_KIB_S_MIN}, or 0 for no cap; 'p2psync pause' stops everything");
                Err(self.fault(span, format!("{kib} KiB per second is too little to get anything across"), advice))
            }
            Some((kib, _)) => Ok(Some(u64::from(kib) * 1024)),
        };
        Ok(Caps { upload_bytes_s: cap(upload)?, download_bytes_s: cap(download)? })
    }
}

pub(super) fn manners(raw: &RawManners, notifications: Option<bool>) -> Manners {
    let usual = Manners::default();
    Manners {
        pause_on_battery: raw.pause_on_battery.unwrap_or(usual.pause_on_battery),
        pause_on_metered: raw.pause_on_metered.unwrap_or(usual.pause_on_metered),
        gentle_scans: raw.gentle_scans.unwrap_or(usual.gentle_scans),
        notifications: notifications.unwrap_or(usual.notifications),
    }
}

fn parse_hours(text: &str) -> Option<Hours> {
    let (from, to) = text.split_once('-')?;
    let (from_minute, to_minute) = (parse_minute(from.trim())?, parse_minute(to.trim())?);
    (from_minute != to_minute).then_some(Hours { from_minute, to_minute })
}

/// Minutes since midnight of a time such as `08:30`.
pub fn parse_minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let is_short = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    if !is_short(hour) || minute.len() != 2 || !is_short(minute) {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    (minute < 60 && hour * 60 + minute <= MINUTES_PER_DAY).then_some((hour * 60 + minute) % MINUTES_PER_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_may_go_over_midnight() {
        let day = parse_hours("08:00-18:00").unwrap();
        assert!(day.contain(8 * 60) && day.contain(12 * 60) && !day.contain(18 * 60) && !day.contain(0));
        let night = parse_hours("22:30 - 6:00").unwrap();
        assert!(night.contain(23 * 60) && night.contain(0) && !night.contain(6 * 60) && !night.contain(12 * 60));
        assert_eq!(parse_hours("18:00-24:00").map(|h| h.to_minute), Some(0));
        for text in ["", "8-18", "08:00", "08:00-08:00", "25:00-26:00", "08:60-09:00", "-1:00-2:00", "+8:00-9:00"] {
            assert_eq!(parse_hours(text), None, "{text}");
        }
    }

    #[test]
    fn other_caps_hold_in_the_quiet_hours() {
        let caps = |bytes| Caps { upload_bytes_s: Some(bytes), download_bytes_s: None };
        let limits = Limits { usual: caps(9), quiet: Some((parse_hours("08:00-18:00").unwrap(), caps(1))) };
        assert_eq!((limits.at(9 * 60), limits.at(20 * 60)), (caps(1), caps(9)));
        let next = |minute| limits.minutes_to_change(minute).unwrap();
        // At the end of each wait the caps are others.
        assert_eq!([next(0), next(8 * 60), next(17 * 60 + 59), next(18 * 60)], [8 * 60, 10 * 60, 1, 14 * 60]);
        assert_eq!(Limits::default().minutes_to_change(5), None);
    }
}
