//! The word that was probably meant: help for whoever mistyped a name.

/// Longest word, in characters, that is compared: longer ones are not names that someone typed.
const WORD_CHARS_MAX: usize = 128;
/// A word that is the start of a known one is taken for it from this length on, in characters.
const START_CHARS_MIN: usize = 3;

/// The known word that is nearest to this one, if any is near enough to have been meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = letters(word);
    if typed.is_empty() || typed.len() > WORD_CHARS_MAX {
        return None;
    }
    let bound = (typed.len() / 3).max(1);
    let fitting = known.into_iter().filter_map(|candidate| {
        let letters = letters(candidate);
        if letters.is_empty() || letters.len() > WORD_CHARS_MAX {
            return None;
        }
        let is_start = typed.len() >= START_CHARS_MIN && letters.starts_with(&typed);
        let distance = if is_start { 1 } else { distance(&typed, &letters) };
        (distance <= bound).then_some((distance, candidate))
    });
    // Of equally near ones the first: the order of the known words is the user's own.
    fitting.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

fn letters(word: &str) -> Vec<char> {
    word.trim().chars().flat_map(char::to_lowercase).collect()
}

/// How many letters are missing, too many, wrong, or swapped with their neighbour.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (last[j + 1] + 1).min(row[j] + 1).min(last[j] + usize::from(x != y));
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mistyped_word_is_recognised() {
        let known = ["Photos", "Documents", "desk", "Büro"];
        let cases = [
            ("Pohtos", Some("Photos")),
            ("photo", Some("Photos")),
            ("doc", Some("Documents")),
            ("dekk", Some("desk")),
            ("buro", Some("Büro")),
            ("x", None),
            ("music", None),
            ("", None),
        ];
        for (word, meant) in cases {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }

    proptest! {
        #[test]
        fn a_distance_is_symmetric_and_zero_only_for_equal_words(a in "[a-d]{0,6}", b in "[a-d]{0,6}") {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
        }
    }
}
