//! The short code that a person carries from one device to the other: `XXXX-XXXX`.
//!
//! Two characters are public and find the device that shows the code, five are the secret, the last one is a check
//! character over all, so that a typing error is noticed before anything is sent and does not use up the code.

use std::fmt;
use std::str::FromStr;

/// Digits and letters without `I L O U`, which are read as `1 1 0 V`.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CODE_CHARS: usize = 8;
const NAMEPLATE_CHARS: usize = 2;
const GROUP_CHARS: usize = 4;

/// A pairing code.
#[derive(Clone, PartialEq, Eq)]
pub struct PairingCode([u8; CODE_CHARS]);

/// The public part of a code, which the device that shows it announces.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nameplate([u8; NAMEPLATE_CHARS]);

/// Why text is not a pairing code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    #[error("a pairing code has 8 letters and digits, this has {0}")]
    Length(usize),
    #[error("{0:?} does not occur in a pairing code")]
    Character(char),
    #[error("the pairing code has a typing error; nothing was sent, so it can be typed again")]
    Check,
}

impl PairingCode {
    /// A code made of random bytes, of which it uses 35 bits.
    pub fn generate(random: [u8; 5]) -> Self {
        let bits = random.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
        let mut values = [0u8; CODE_CHARS];
        for (i, value) in values.iter_mut().take(CODE_CHARS - 1).enumerate() {
            *value = (bits >> (5 * i) & 31) as u8;
        }
        if let Some((check, values)) = values.split_last_mut() {
            *check = check_value(values);
        }
        Self(values.map(|v| ALPHABET[usize::from(v)]))
    }

    pub fn nameplate(&self) -> Nameplate {
        Nameplate([self.0[0], self.0[1]])
    }

    /// What both sides feed to SPAKE2.
    pub(super) fn password(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for PairingCode {
    type Err = CodeError;

    /// Case, blanks and dashes do not matter, and look-alikes are taken for what they look like.
    fn from_str(text: &str) -> Result<Self, CodeError> {
        let mut values = Vec::with_capacity(CODE_CHARS);
        for c in text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '-' | '\u{2010}'..='\u{2015}' | '_')) {
            let folded = match c.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                'U' => 'V',
                other => other,
            };
            let value = ALPHABET.iter().position(|a| char::from(*a) == folded).ok_or(CodeError::Character(c))?;
            values.push(value as u8);
        }
        let values = <[u8; CODE_CHARS]>::try_from(values).map_err(|v| CodeError::Length(v.len()))?;
        match values.split_last() {
            Some((check, rest)) if check_value(rest) == *check => Ok(Self(values.map(|v| ALPHABET[usize::from(v)]))),
            _ => Err(CodeError::Check),
        }
    }
}

impl fmt::Display for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, c) in self.0.iter().enumerate() {
            if i == GROUP_CHARS {
                f.write_str("-")?;
            }
            write!(f, "{}", char::from(*c))?;
        }
        Ok(())
    }
}

/// Without the secret: a code shall not end up in a log.
impl fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairingCode({}..)", self.nameplate())
    }
}

impl Nameplate {
    /// A nameplate from a peer.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let plate = <[u8; NAMEPLATE_CHARS]>::try_from(bytes).ok()?;
        plate.iter().all(|b| ALPHABET.contains(b)).then_some(Self(plate))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Nameplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{}", char::from(*b)))
    }
}

impl fmt::Debug for Nameplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The values as coefficients of a polynomial over GF(32), taken at a generator of its multiplicative group: every
/// single wrong character and every swap of two characters changes the result.
fn check_value(values: &[u8]) -> u8 {
    values.iter().fold(0, |sum, value| times_x(sum ^ value))
}

/// Multiplication by x modulo x^5 + x^2 + 1.
fn times_x(value: u8) -> u8 {
    let shifted = value << 1;
    if shifted & 32 == 0 { shifted } else { shifted ^ 0b100101 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_code_reads_back_however_it_is_typed(random: [u8; 5]) {
            let code = PairingCode::generate(random);
            let shown = code.to_string();
            prop_assert_eq!(shown.len(), 9);
            let spaced = format!(" {} ", shown.replace('-', " "));
            let alike = shown.replace('0', "o").replace('1', "l").replace('V', "u");
            for typed in [shown.clone(), shown.to_lowercase(), spaced, alike] {
                prop_assert_eq!(typed.parse::<PairingCode>(), Ok(code.clone()));
            }
        }

        #[test]
        fn every_single_typing_error_and_every_swap_is_noticed(random: [u8; 5], at in 0usize..8, other in 0usize..32, with in 0usize..8) {
            let code = PairingCode::generate(random);
            let mut mistyped = code.0;
            mistyped[at] = ALPHABET[other];
            let mut swapped = code.0;
            swapped.swap(at, with);
            for wrong in [mistyped, swapped] {
                let parsed = std::str::from_utf8(&wrong).unwrap().parse::<PairingCode>();
                prop_assert_eq!(parsed, if wrong == code.0 { Ok(code.clone()) } else { Err(CodeError::Check) });
            }
        }
    }

    #[test]
    fn what_is_not_a_code_is_refused_with_the_reason() {
        assert_eq!("ABC".parse::<PairingCode>(), Err(CodeError::Length(3)));
        assert_eq!("0000-000!".parse::<PairingCode>(), Err(CodeError::Character('!')));
        assert_eq!(CodeError::Character('\u{1b}').to_string(), r"'\u{1b}' does not occur in a pairing code");
        assert_eq!("0000-0001".parse::<PairingCode>(), Err(CodeError::Check));
        assert_eq!(format!("{:?}", "0000-0000".parse::<PairingCode>().unwrap()), "PairingCode(00..)");
    }
}
