//! The code that a person carries from one device to the other: four words, or in short `XXXX-XXXX`.
//!
//! Two characters are public and find the device that shows the code, five are the secret, the last one is a check
//! character over all, so that a typing error is noticed before anything is sent and does not use up the code. A word
//! stands for two characters; the first word is the public part.

use std::fmt;
use std::str::FromStr;

use super::pairing_words::{self, Found};

/// Digits and letters without `I L O U`, which are read as `1 1 0 V`.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CODE_CHARS: usize = 8;
const NAMEPLATE_CHARS: usize = 2;
const GROUP_CHARS: usize = 4;
/// Words of a code told in words, each of which stands for two characters.
const CODE_WORDS: usize = CODE_CHARS / 2;
/// Up to so many letters and digits are taken for the short form: four words have at least twelve, even if cut short.
const SHORT_CHARS_MAX: usize = CODE_CHARS + 2;
/// Longest text that is looked at, in bytes: four long words with much between them.
const TEXT_BYTES_MAX: usize = 256;
/// Most characters of a wrong word that are repeated to the user.
const SHOWN_CHARS_MAX: usize = 24;

/// A pairing code.
#[derive(Clone, PartialEq, Eq)]
pub struct PairingCode([u8; CODE_CHARS]);

/// The public part of a code, which the device that shows it announces.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nameplate([u8; NAMEPLATE_CHARS]);

/// Why text is not a pairing code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    #[error("a pairing code is four words, or 8 letters and digits; this is neither")]
    Neither,
    #[error("a pairing code is four words, or 8 letters and digits; this has {0} letters and digits")]
    Length(usize),
    #[error("a pairing code has four words, this has {0}")]
    Words(usize),
    #[error("{word:?} is not a word of pairing codes{}", suggestion(.close))]
    Word { word: String, close: Vec<&'static str> },
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

    /// The code as four words with dashes between them: easier to tell someone, and to type.
    pub fn words(&self) -> String {
        let words = self.0.chunks(2).map(|pair| {
            let number =
                pair.iter().fold(0, |number, c| number << 5 | u16::from(value_of(char::from(*c)).unwrap_or(0)));
            pairing_words::word(number)
        });
        words.collect::<Vec<_>>().join("-")
    }

    /// What both sides feed to SPAKE2.
    pub(super) fn password(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for PairingCode {
    type Err = CodeError;

    /// Takes both forms. Case, blanks and dashes do not matter; look-alikes are taken for what they look like, and a
    /// word with one slip for the only word near it, as long as the check character agrees.
    fn from_str(text: &str) -> Result<Self, CodeError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(CodeError::Neither);
        }
        let is_between = |c: char| c.is_whitespace() || matches!(c, '-' | '\u{2010}'..='\u{2015}' | '_' | ',' | '.');
        let parts: Vec<&str> = text.split(is_between).filter(|part| !part.is_empty()).collect();
        let chars = parts.iter().map(|part| part.chars().count()).sum::<usize>();
        let values = match parts.len() {
            _ if chars <= SHORT_CHARS_MAX => short_values(&parts.concat())?,
            1 => return Err(CodeError::Neither),
            _ => word_values(&parts)?,
        };
        match values.split_last() {
            Some((check, rest)) if check_value(rest) == *check => Ok(Self(values.map(|v| ALPHABET[usize::from(v)]))),
            _ => Err(CodeError::Check),
        }
    }
}

fn short_values(text: &str) -> Result<[u8; CODE_CHARS], CodeError> {
    let value = |c: char| value_of(c).ok_or(CodeError::Character(c));
    let values = text.chars().map(value).collect::<Result<Vec<_>, _>>()?;
    values.try_into().map_err(|values: Vec<u8>| CodeError::Length(values.len()))
}

fn word_values(words: &[&str]) -> Result<[u8; CODE_CHARS], CodeError> {
    if words.len() != CODE_WORDS {
        return Err(CodeError::Words(words.len()));
    }
    let mut values = [0; CODE_CHARS];
    for (pair, typed) in values.chunks_mut(2).zip(words) {
        let number = match pairing_words::find(&typed.to_lowercase()) {
            Found::Exact(number) | Found::Near(number) => number,
            Found::Unknown(close) => {
                return Err(CodeError::Word { word: typed.chars().take(SHOWN_CHARS_MAX).collect(), close });
            }
        };
        pair.copy_from_slice(&[(number >> 5 & 31) as u8, (number & 31) as u8]);
    }
    Ok(values)
}

/// The value of a character of the short form.
fn value_of(c: char) -> Option<u8> {
    let folded = match c.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        'U' => 'V',
        other => other,
    };
    (0..).zip(ALPHABET).find(|(_, a)| char::from(**a) == folded).map(|(value, _)| value)
}

fn suggestion(close: &[&str]) -> String {
    match close {
        [] => String::new(),
        words => format!("; did you mean {}?", words.join(" or ")),
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

    proptest! {
        #[test]
        fn words_read_back_however_they_are_typed(random: [u8; 5], at in 0usize..4) {
            let code = PairingCode::generate(random);
            let shown = code.words();
            let words: Vec<&str> = shown.split('-').collect();
            prop_assert_eq!(words.len(), 4);
            let cut = words.iter().map(|word| word.get(..4).unwrap_or(word)).collect::<Vec<_>>().join(" ");
            let blanks = format!("  {} ", shown.replace('-', "  "));
            // The letter does not occur in any word after another letter of its kind.
            let slip = words.iter().enumerate().map(|(i, word)| if i == at { format!("{word}q") } else { (*word).into() });
            let slip = slip.collect::<Vec<String>>().join(", ");
            for typed in [shown.clone(), shown.to_uppercase(), blanks, cut, slip] {
                prop_assert_eq!(typed.parse::<PairingCode>(), Ok(code.clone()), "{}", typed);
            }
        }

        #[test]
        fn what_anybody_types_is_a_code_or_refused(text in "[a-z -]{0,40}|\\PC{0,60}") {
            if let Ok(code) = text.parse::<PairingCode>() {
                prop_assert_eq!(code.words().parse(), Ok(code.clone()));
            }
        }

        #[test]
        fn words_in_another_order_are_noticed(random: [u8; 5], at in 0usize..4, with in 0usize..4) {
            let code = PairingCode::generate(random);
            let shown = code.words();
            let mut words: Vec<&str> = shown.split('-').collect();
            words.swap(at, with);
            let parsed = words.join(" ").parse::<PairingCode>();
            // Swapped words are four wrong characters at most: nearly always noticed, never taken for the same code.
            prop_assert!(parsed == Err(CodeError::Check) || words.join("-") == shown || parsed != Ok(code));
        }
    }

    #[test]
    fn a_word_that_is_none_is_named_with_those_that_come_close() {
        let error = |text: &str| text.parse::<PairingCode>().unwrap_err().to_string();
        assert_eq!(error("apple xylophone guitar zebra"), "\"xylophone\" is not a word of pairing codes");
        assert_eq!(
            error("apple bric guitar cra"),
            "\"cra\" is not a word of pairing codes; did you mean crab or craft or crane?"
        );
        assert_eq!(error("apple guitar zebra"), "a pairing code has four words, this has 3");
        assert_eq!(error("thankyouverymuch"), CodeError::Neither.to_string());
        assert_eq!(error(&"apple ".repeat(100)), CodeError::Neither.to_string());
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
