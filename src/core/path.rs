//! The only path type that crosses the network or the index: bytes, relative, impossible to construct wrong.

use std::cmp::Ordering;
use std::fmt;

/// Longest name of one component, in bytes: what every common file system can hold.
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Longest whole path, in bytes: several times Linux's PATH_MAX, yet a bounded frame.
pub const PATH_BYTES_MAX: usize = 32 * 1024;
/// Deepest nesting: bounds the work that one path can cause, which grows faster than its depth. Several times what
/// people and programs make.
pub const DEPTH_MAX: usize = 512;
/// Name of the agent's own directory in every shared folder; it never syncs.
pub const OWN_DIR: &str = ".p2psync";

/// Why bytes are not a path that may be synced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("empty path or component")]
    Empty,
    #[error("path has a '.' or '..' component")]
    Dots,
    #[error("path contains a NUL byte")]
    Nul,
    #[error("path component is longer than {COMPONENT_BYTES_MAX} bytes")]
    ComponentTooLong,
    #[error("path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    #[error("path is nested deeper than {DEPTH_MAX} directories")]
    TooDeep,
    #[error("name is reserved for p2psync's own directory")]
    Reserved,
}

/// A validated path relative to a folder's root: `/`-separated bytes, exactly as the disk has them.
///
/// Ordered component by component, so a directory sorts directly before all that is below it. [`RelPath::key`]
/// has the same order under `memcmp`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// Validates bytes from outside.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        check(bytes)?;
        Ok(Self(bytes.into()))
    }

    /// The path from its index key (see [`RelPath::key`]).
    pub fn from_key(key: &[u8]) -> Result<Self, PathError> {
        if key.contains(&b'/') {
            return Err(PathError::Nul);
        }
        let bytes: Box<[u8]> = key.iter().map(|b| if *b == 0 { b'/' } else { *b }).collect();
        check(&bytes)?;
        Ok(Self(bytes))
    }

    /// The path of `name` in the directory `self`.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self::parse(&bytes)
    }

    /// A sibling: the same directory, another name.
    pub fn with_file_name(&self, name: &[u8]) -> Result<Self, PathError> {
        match self.parent() {
            Some(parent) => parent.join(name),
            None => Self::parse(name),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    pub fn file_name(&self) -> &[u8] {
        self.components().next_back().unwrap_or_default()
    }

    /// The directory that holds this path; `None` directly below the root.
    pub fn parent(&self) -> Option<RelPath> {
        let cut = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0[..cut].into()))
    }

    /// All directories above, nearest first.
    pub fn ancestors(&self) -> impl Iterator<Item = RelPath> {
        std::iter::successors(self.parent(), RelPath::parent)
    }

    /// True where `self` lies below the directory `dir`, at any depth.
    pub fn is_below(&self, dir: &RelPath) -> bool {
        self.0.len() > dir.0.len() && self.0.starts_with(&dir.0) && self.0[dir.0.len()] == b'/'
    }

    /// The index key: `/` becomes NUL (which no path holds), so that byte order is component order.
    pub fn key(&self) -> Vec<u8> {
        self.0.iter().map(|b| if *b == b'/' { 0 } else { *b }).collect()
    }

    /// Keys of all that lies below this directory: from the first bound on, up to but without the second.
    pub fn keys_below(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut from, mut to) = (self.key(), self.key());
        from.push(0);
        to.push(1);
        (from, to)
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // As the keys compare, without making them. Neighbours mostly begin the same, so eight bytes at a time.
        let (words, other_words) = (self.0.as_chunks::<8>().0, other.0.as_chunks::<8>().0);
        let same = 8 * words.iter().zip(other_words).take_while(|(a, b)| a == b).count();
        let rest = self.0.iter().zip(&other.0).skip(same);
        match rest.into_iter().find(|(a, b)| a != b) {
            Some((b'/', _)) => Ordering::Less,
            Some((_, b'/')) => Ordering::Greater,
            Some((a, b)) => a.cmp(b),
            None => self.0.len().cmp(&other.0.len()),
        }
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// For people: control characters and what is not UTF-8 are escaped, so a hostile name can't forge a log line.
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
            }
            for b in chunk.invalid() {
                write!(f, "\\x{b:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

fn check(bytes: &[u8]) -> Result<(), PathError> {
    if bytes.is_empty() {
        return Err(PathError::Empty);
    }
    if bytes.len() > PATH_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    let mut depth = 0;
    for component in bytes.split(|b| *b == b'/') {
        check_component(component)?;
        depth += 1;
    }
    if depth > DEPTH_MAX { Err(PathError::TooDeep) } else { Ok(()) }
}

fn check_component(component: &[u8]) -> Result<(), PathError> {
    match component {
        b"" => return Err(PathError::Empty),
        b"." | b".." => return Err(PathError::Dots),
        _ => {}
    }
    if component.len() > COMPONENT_BYTES_MAX {
        return Err(PathError::ComponentTooLong);
    }
    if component.contains(&0) {
        return Err(PathError::Nul);
    }
    if folds_to_own_dir(component) {
        return Err(PathError::Reserved);
    }
    Ok(())
}

/// True for every spelling that some file system takes for `.p2psync`: other case, code points that HFS+ ignores,
/// trailing dots and blanks or a stream name on NTFS, and the 8.3 name that Windows would make of it.
fn folds_to_own_dir(component: &[u8]) -> bool {
    // Most names begin with an ASCII character that neither spelling begins with: no need to look at the rest.
    if component.first().is_some_and(|first| first.is_ascii() && !matches!(first, b'.' | b'p' | b'P')) {
        return false;
    }
    let ignorable = |c: &char| matches!(*c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}');
    let folded: String = String::from_utf8_lossy(component)
        .chars()
        .filter(|c| !ignorable(c))
        .flat_map(char::to_lowercase)
        .map(|c| if c == '\u{17f}' { 's' } else { c })
        .collect();
    let stem = folded.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    let short = stem.strip_prefix("p2psyn~").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    stem == OWN_DIR || short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_every_path_that_could_escape_or_confuse() {
        use PathError::*;
        let long = vec![b'x'; 256];
        let deep = vec!["d"; DEPTH_MAX + 1].join("/");
        let cases: &[(&[u8], PathError)] = &[
            (b"", Empty),
            (b"/a", Empty),
            (b"a/", Empty),
            (b"a//b", Empty),
            (b".", Dots),
            (b"a/../b", Dots),
            (b"a\0b", Nul),
            (&long, ComponentTooLong),
            (deep.as_bytes(), TooDeep),
            (b".p2psync", Reserved),
            (b"a/.P2PSync/b", Reserved),
            (".p2p\u{17f}ync".as_bytes(), Reserved),
            (".p2p\u{200c}sync".as_bytes(), Reserved),
            (b".p2psync. .", Reserved),
            (b".p2psync::$INDEX_ALLOCATION", Reserved),
            (b"P2PSYN~1", Reserved),
        ];
        for (bytes, error) in cases {
            assert_eq!(RelPath::parse(bytes).as_ref(), Err(error), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn keeps_exact_bytes_of_odd_but_legal_names() {
        for bytes in [&b"-rf"[..], b"a\nb", b"\xff\xfe", b"CON", b"aux.txt", b"...", b".p2psync2", &[b'n'; 255]] {
            assert_eq!(RelPath::parse(bytes).unwrap().as_bytes(), bytes);
        }
    }

    #[test]
    fn display_escapes_control_characters_and_bad_utf8() {
        assert_eq!(RelPath::parse(b"a\n\x1b\xffz").unwrap().to_string(), "a\\n\\u{1b}\\xffz");
    }

    proptest! {
        #[test]
        fn key_order_is_path_order(start in "[a-c]{0,20}", a in "[a-c/!-0]{1,12}", b in "[a-c/!-0]{1,12}") {
            let (a, b) = (format!("{start}{a}"), format!("{start}{b}"));
            if let (Ok(a), Ok(b)) = (RelPath::parse(a.as_bytes()), RelPath::parse(b.as_bytes())) {
                prop_assert_eq!(a.cmp(&b), a.key().cmp(&b.key()));
                prop_assert_eq!(RelPath::from_key(&a.key()).unwrap(), a.clone());
                let (from, to) = b.keys_below();
                prop_assert_eq!(a.is_below(&b), a.key() >= from && a.key() < to);
            }
        }
    }
}
