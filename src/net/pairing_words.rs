//! The words that a pairing code can be told in: 1,024 everyday words, each of ten bits.
//!
//! The list never changes, or devices of different versions would read different codes. The first four letters of a
//! word tell it from all others, no word begins another, and none turns into another by one slip of a finger.

/// One word to a line, sorted.
const LIST: &str = include_str!("pairing_words.txt");
/// Words in the list: ten bits each.
pub const WORDS: usize = 1024;
/// Letters from which on the beginning of a word stands for it.
const PREFIX_LETTERS_MIN: usize = 3;
/// Longest text that is compared with the words, in letters: the longest word has seven.
const LETTERS_MAX: usize = 16;
/// Most words that are suggested in place of an unknown one.
const SUGGESTIONS_MAX: usize = 3;

/// What a typed word stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// The number of the word that was typed, or begun.
    Exact(u16),
    /// The number of the one word from which the typed one differs by a slip of a finger.
    Near(u16),
    /// No word, or more than one: these come close.
    Unknown(Vec<&'static str>),
}

/// The word with this number, of which the lowest ten bits count.
pub fn word(number: u16) -> &'static str {
    LIST.lines().nth(usize::from(number) % WORDS).unwrap_or_default()
}

/// The number of the word that was typed, in small letters.
pub fn find(typed: &str) -> Found {
    let letters = typed.chars().count();
    if letters > LETTERS_MAX {
        return Found::Unknown(Vec::new());
    }
    let fitting = |fits: &dyn Fn(&str) -> bool| -> Vec<(u16, &'static str)> {
        (0..).zip(LIST.lines()).filter(|(_, word)| fits(word)).collect()
    };
    if let [(number, _)] = fitting(&|word| word == typed)[..] {
        return Found::Exact(number);
    }
    let begun = fitting(&|word| letters >= PREFIX_LETTERS_MIN && word.starts_with(typed));
    if let [(number, _)] = begun[..] {
        return Found::Exact(number);
    }
    let near = fitting(&|word| is_one_slip(typed, word));
    match near[..] {
        [(number, _)] if begun.is_empty() => Found::Near(number),
        _ => {
            let begun = begun.into_iter().filter(|word| !near.contains(word));
            Found::Unknown(near.iter().copied().chain(begun).map(|(_, word)| word).take(SUGGESTIONS_MAX).collect())
        }
    }
}

/// True where one letter is wrong, missing or too many, or two neighbours are swapped.
fn is_one_slip(typed: &str, word: &str) -> bool {
    let (typed, word): (Vec<char>, Vec<char>) = (typed.chars().collect(), word.chars().collect());
    let same = typed.iter().zip(&word).take_while(|(a, b)| a == b).count();
    let (a, b) = (typed.get(same..).unwrap_or_default(), word.get(same..).unwrap_or_default());
    match (a, b) {
        ([], []) => false,
        ([_, rest @ ..], whole) | (whole, [_, rest @ ..]) if rest == whole => true,
        ([_, a @ ..], [_, b @ ..]) if a == b => true,
        ([a1, a2, a @ ..], [b1, b2, b @ ..]) => a1 == b2 && a2 == b1 && a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_keeps_what_it_promises() {
        let words: Vec<&str> = LIST.lines().collect();
        assert_eq!(words.len(), WORDS);
        assert!(words.is_sorted());
        for (i, word) in words.iter().enumerate() {
            assert!((3..=7).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
            for other in &words[i + 1..] {
                let beginning = |word: &str| word.get(..4).unwrap_or(word).to_owned();
                assert_ne!(beginning(word), beginning(other), "{word} {other}");
                assert!(!other.starts_with(word), "{word} {other}");
                assert!(!is_one_slip(word, other), "{word} {other}");
            }
        }
    }

    #[test]
    fn the_list_is_the_one_that_all_devices_have() {
        let digest = ring::digest::digest(&ring::digest::SHA256, LIST.as_bytes());
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "43e93e7cea43d0dbe36f8517ecf77423d7d11cbf93d35869f658748a9c7e4f79");
    }

    #[test]
    fn every_word_is_found_by_itself_and_by_its_first_four_letters() {
        for number in 0..WORDS as u16 {
            let word = word(number);
            assert_eq!(find(word), Found::Exact(number));
            assert_eq!(find(word.get(..4).unwrap_or(word)), Found::Exact(number), "{word}");
        }
    }

    #[test]
    fn one_slip_is_put_right_where_just_one_word_is_near() {
        let number = |word| find(word);
        let Found::Exact(guitar) = number("guitar") else { panic!("not in the list") };
        for typed in ["giutar", "guiter", "guittar", "guitr", "uitar"] {
            assert_eq!(find(typed), Found::Near(guitar), "{typed}");
        }
        assert_eq!(find("xylophone"), Found::Unknown(vec![]));
        assert_eq!(find(&"a".repeat(1000)), Found::Unknown(vec![]));
        // Begins several.
        assert!(matches!(find("bri"), Found::Unknown(close) if close.contains(&"brick")));
    }

    #[test]
    fn a_slip_is_one_change_of_one_place() {
        for (a, b) in [("cat", "cut"), ("cat", "cats"), ("cats", "cat"), ("cat", "act"), ("", "a"), ("ab", "b")] {
            assert!(is_one_slip(a, b) && is_one_slip(b, a), "{a} {b}");
        }
        for (a, b) in [("cat", "cat"), ("cat", "cute"), ("abc", "cab"), ("", ""), ("", "ab"), ("abcd", "badc")] {
            assert!(!is_one_slip(a, b) && !is_one_slip(b, a), "{a} {b}");
        }
    }
}
