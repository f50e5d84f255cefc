//! What a device that shows a pairing code says in a link or QR code: `p2psync://pair?code=...&id=...&name=...&at=...`.
//!
//! The link tells where the device is and which key it has, so that it is found without multicast. It proves nothing:
//! the code does that for both sides, as it does when it is typed.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::bounds::{NAME_CHARS_MAX, clean_text};
use super::pairing_code::{CodeError, PairingCode};
use crate::core::id::DeviceId;

/// What every such link begins with.
const BEGINNING: &str = "p2psync://pair?";
/// Longest link in bytes: a name of 64 characters with all its bytes escaped, and all addresses.
pub const LINK_BYTES_MAX: usize = 2 * 1024;
/// Most addresses in a link: a few networks, IPv4 and IPv6 on each.
pub const LINK_ADDRESSES_MAX: usize = 8;

/// A code with the device that shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairingLink {
    pub code: PairingCode,
    pub device: DeviceId,
    /// What the device calls itself: for people.
    pub name: String,
    /// Where it can be reached, the likeliest first.
    pub addresses: Vec<SocketAddr>,
}

/// Why text is not a pairing link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("this is not a whole pairing link: {0}; copy it again from the other device")]
    Broken(&'static str),
    #[error(transparent)]
    Code(#[from] CodeError),
}

impl PairingLink {
    /// True where the text is meant to be a link, whole or not.
    pub fn is_meant(text: &str) -> bool {
        let text = text.trim_start();
        text.get(.."p2psync:".len()).is_some_and(|start| start.eq_ignore_ascii_case("p2psync:"))
    }
}

impl fmt::Display for PairingLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |text: String| text.replace('-', "");
        write!(f, "{BEGINNING}code={}", plain(self.code.to_string()))?;
        write!(f, "&id={}&name=", plain(self.device.to_string()))?;
        for byte in clean_text(&self.name, NAME_CHARS_MAX).bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    write!(f, "{}", char::from(byte))?
                }
                byte => write!(f, "%{byte:02X}")?,
            }
        }
        self.addresses.iter().take(LINK_ADDRESSES_MAX).try_for_each(|address| write!(f, "&at={address}"))
    }
}

impl FromStr for PairingLink {
    type Err = LinkError;

    /// Parts that a later version adds are skipped.
    fn from_str(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.len() > LINK_BYTES_MAX {
            return Err(LinkError::Broken("it is too long"));
        }
        let parts = text.strip_prefix(BEGINNING).ok_or(LinkError::Broken("it does not begin with p2psync://pair?"))?;
        let (mut code, mut device, mut name, mut addresses) = (None, None, String::new(), Vec::new());
        for (key, value) in parts.split('&').filter_map(|part| part.split_once('=')) {
            let value = unescape(value).ok_or(LinkError::Broken("a % in it is not followed by two digits"))?;
            match key {
                "code" => code = Some(value.parse::<PairingCode>()?),
                "id" => device = value.parse().ok(),
                "name" => name = clean_text(&value, NAME_CHARS_MAX),
                "at" => addresses.extend(value.parse::<SocketAddr>().ok().filter(is_reachable)),
                _ => {}
            }
        }
        addresses.truncate(LINK_ADDRESSES_MAX);
        Ok(Self {
            code: code.ok_or(LinkError::Broken("it has no code"))?,
            device: device.ok_or(LinkError::Broken("it names no device"))?,
            name,
            addresses,
        })
    }
}

/// Something can listen there.
fn is_reachable(address: &SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

/// Text with `%` and two hexadecimal digits for some bytes.
fn unescape(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(piece.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link(name: &str, addresses: &[&str]) -> PairingLink {
        PairingLink {
            code: PairingCode::generate([1, 2, 3, 4, 5]),
            device: DeviceId([7; 32]),
            name: name.into(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    proptest! {
        #[test]
        fn a_link_reads_back(name in "[^\\p{C}\\p{Z}]{0,64}", ports in proptest::collection::vec(1u16.., 0..8)) {
            let mut link = link(&clean_text(&name, NAME_CHARS_MAX), &[]);
            link.addresses = ports.iter().map(|port| SocketAddr::from(([192, 168, 1, 5], *port))).collect();
            let shown = link.to_string();
            prop_assert!(shown.len() <= LINK_BYTES_MAX);
            prop_assert_eq!(shown.parse(), Ok(link));
        }

        #[test]
        fn no_text_breaks_the_reader(text in "(p2psync://pair[?])?(code|id|name|at|=|&|%|[0-9a-z:.]){0,20}|\\PC{0,80}") {
            let _ = text.parse::<PairingLink>();
        }
    }

    #[test]
    fn the_form_of_a_link_is_stable() {
        let shown = link("Büro 2", &["192.168.1.5:7724", "[2001:db8::1]:7724"]).to_string();
        let id = DeviceId([7; 32]).to_string().replace('-', "");
        let code = PairingCode::generate([1, 2, 3, 4, 5]).to_string().replace('-', "");
        let expected =
            format!("p2psync://pair?code={code}&id={id}&name=B%C3%BCro%202&at=192.168.1.5:7724&at=[2001:db8::1]:7724");
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_broken_link_says_what_is_wrong_with_it() {
        let whole = link("desk", &["192.168.1.5:7724"]).to_string();
        assert!(
            PairingLink::is_meant(&whole) && PairingLink::is_meant(" P2PSYNC://x") && !PairingLink::is_meant("p2ps")
        );
        let code = PairingCode::generate([1, 2, 3, 4, 5]).to_string();
        let cases = [
            ("p2psync://open?x=1".to_owned(), "does not begin"),
            ("p2psync://pair?id=x".to_owned(), "no code"),
            (format!("p2psync://pair?code={code}"), "no device"),
            (format!("p2psync://pair?code={code}&id=ABC"), "no device"),
            (format!("p2psync://pair?code={code}&name=%zz"), "two digits"),
            (format!("{whole}&x={}", "y".repeat(LINK_BYTES_MAX)), "too long"),
            ("p2psync://pair?code=ABC".to_owned(), "letters and digits"),
        ];
        for (text, said) in cases {
            let error = text.parse::<PairingLink>().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn what_is_no_place_to_dial_is_left_out_and_what_is_unknown_is_skipped() {
        let whole = format!("{}&at=0.0.0.0:1&at=x:2&at=224.0.0.1:3&at=10.0.0.1:0&new=1&", link("d", &["10.0.0.1:5"]));
        assert_eq!(whole.parse(), Ok(link("d", &["10.0.0.1:5"])));
        let many = "&at=10.0.0.1:9".repeat(50);
        let parsed: PairingLink = format!("{}{many}", link("d", &[])).parse().unwrap();
        assert_eq!(parsed.addresses.len(), LINK_ADDRESSES_MAX);
    }
}
