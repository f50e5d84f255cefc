//! Identities: devices, folders, index epochs and runs.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// A device: its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DeviceId(pub [u8; 32]);

/// Random id of one life of an index; made anew whenever an index is created or found to be rolled back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct EpochId(pub u64);

/// Random id of one start of an agent within an epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RunId(pub u64);

/// Name of a shared folder, the same on all its devices: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FolderId(Box<str>);

/// Why text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("a device id has 56 letters and digits, this has {0}")]
    DeviceLength(usize),
    #[error("{0:?} does not occur in a device id")]
    DeviceCharacter(char),
    #[error("the device id has a typing error (its check character does not fit)")]
    DeviceCheck,
    #[error("a folder id has 1 to 64 characters out of A-Z a-z 0-9 . _ -")]
    Folder,
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// 52 characters carry 256 bits; 4 check characters follow.
const DEVICE_CHARS: usize = 56;
const GROUP_CHARS: usize = 7;
/// Characters of the short form.
const SHORT_CHARS: usize = 7;
/// Bytes of an id that these stand for, and a little more.
const SHORT_BYTES: usize = 5;

impl DeviceId {
    /// Stands for "no device": the author of content that was simply found on a disk.
    pub const NONE: DeviceId = DeviceId([0; 32]);

    /// The first 7 characters, enough for people to tell their own devices apart.
    pub fn short(&self) -> String {
        base32(&self.0[..SHORT_BYTES])[..SHORT_CHARS].iter().map(|b| *b as char).collect()
    }

    fn characters(&self) -> Vec<u8> {
        let mut chars = base32(&self.0);
        let check = Sha256::new().chain_update(b"p2psync device id check").chain_update(self.0).finalize();
        chars.extend(check[..4].iter().map(|b| BASE32[(b & 31) as usize]));
        chars
    }
}

/// Groups of seven characters, the last four of which are check characters.
impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, group) in self.characters().chunks(GROUP_CHARS).enumerate() {
            if i > 0 {
                f.write_str("-")?;
            }
            f.write_str(std::str::from_utf8(group).unwrap_or_default())?;
        }
        Ok(())
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for DeviceId {
    type Err = IdError;

    /// Reads the displayed form; case, blanks and dashes do not matter, `0` `1` `8` are read as `O` `I` `B`.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut values = Vec::with_capacity(DEVICE_CHARS);
        for c in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            let upper = match c.to_ascii_uppercase() {
                '0' => 'O',
                '1' => 'I',
                '8' => 'B',
                other => other,
            };
            let value = BASE32.iter().position(|b| *b as char == upper).ok_or(IdError::DeviceCharacter(c))?;
            values.push(value as u8);
        }
        if values.len() != DEVICE_CHARS {
            return Err(IdError::DeviceLength(values.len()));
        }
        let mut id = [0u8; 32];
        for (bit, value) in
            values[..52].iter().flat_map(|v| (0..5).rev().map(move |s| v >> s & 1)).take(256).enumerate()
        {
            id[bit / 8] |= value << (7 - bit % 8);
        }
        let id = DeviceId(id);
        let spelled: Vec<u8> = values.iter().map(|v| BASE32[*v as usize]).collect();
        if id.characters() == spelled { Ok(id) } else { Err(IdError::DeviceCheck) }
    }
}

impl FolderId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FolderId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let dots_only = text.bytes().all(|b| b == b'.');
        if text.is_empty() || text.len() > 64 || dots_only || !text.bytes().all(fits) {
            return Err(IdError::Folder);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for FolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RFC 4648 base32 without padding.
pub fn base32(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            out.push(BASE32[(bits >> held & 31) as usize]);
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        out.push(BASE32[(bits << (5 - held) & 31) as usize]);
    }
    out
}

/// Lower-case hexadecimal, for file names and logs.
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_device_id_reads_back_and_every_single_typing_error_is_noticed(bytes: [u8; 32], at in 0usize..56, other in 0usize..32) {
            let id = DeviceId(bytes);
            let shown = id.to_string();
            prop_assert_eq!(shown.parse::<DeviceId>(), Ok(id));
            prop_assert_eq!(shown.to_lowercase().replace('-', " ").parse::<DeviceId>(), Ok(id));
            let mut chars: Vec<u8> = shown.bytes().filter(|b| *b != b'-').collect();
            if chars[at] != BASE32[other] {
                chars[at] = BASE32[other];
                let typo = String::from_utf8(chars).unwrap();
                prop_assert_ne!(typo.parse::<DeviceId>().ok(), Some(id));
            }
        }
    }

    #[test]
    fn base32_matches_the_rfc() {
        assert_eq!(base32(b"foobar"), b"MZXW6YTBOI");
    }

    #[test]
    fn folder_ids_can_name_a_file_safely() {
        for bad in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(bad.parse::<FolderId>(), Err(IdError::Folder));
        }
        assert_eq!("default".parse::<FolderId>().unwrap().as_str(), "default");
    }
}
