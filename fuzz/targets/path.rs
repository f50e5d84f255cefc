//! Paths from peers, disks and the index. Two of them, with a zero byte between.

use p2psync::core::path::{COMPONENT_BYTES_MAX, DEPTH_MAX, OWN_DIR, PATH_BYTES_MAX, RelPath};

use super::check;

pub fn run(data: &[u8]) {
    let mut parts = data.splitn(2, |b| *b == 0);
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let path = match RelPath::parse(first) {
        Ok(path) => path,
        Err(error) => return check::error_text(&error.to_string()),
    };
    keeps_the_rules(&path, first);
    let key = path.key();
    assert_eq!(RelPath::from_key(&key).as_ref(), Ok(&path));
    if let Ok(from) = RelPath::from_key(first) {
        assert_eq!(from.key(), first);
    }
    for above in path.ancestors() {
        check::path(&above);
        assert!(path.is_below(&above) && above < path);
        let (from, to) = above.keys_below();
        assert!(from <= key && key < to);
    }
    let name = path.with_file_name(path.file_name());
    assert_eq!(name.as_ref(), Ok(&path));
    if let Ok(other) = RelPath::parse(second) {
        assert_eq!(path.cmp(&other), key.cmp(&other.key()), "keys sort in another way than paths");
        let (from, to) = other.keys_below();
        assert_eq!(path.is_below(&other), from <= key && key < to);
        assert_eq!(path.is_below(&other), path.ancestors().any(|above| above == other));
    }
    if let Ok(joined) = path.join(second) {
        keeps_the_rules(&joined, joined.as_bytes());
        assert!(joined.is_below(&path));
    }
}

/// The rules once more, in other words than the program's.
fn keeps_the_rules(path: &RelPath, bytes: &[u8]) {
    assert_eq!(path.as_bytes(), bytes);
    assert!(!bytes.is_empty() && bytes.len() <= PATH_BYTES_MAX && !bytes.contains(&0));
    let names: Vec<&[u8]> = path.components().collect();
    assert!(names.len() <= DEPTH_MAX);
    for name in names {
        assert!(!name.is_empty() && name.len() <= COMPONENT_BYTES_MAX && name != b"." && name != b"..");
        assert!(!name.eq_ignore_ascii_case(OWN_DIR.as_bytes()), "the agent's own directory");
        let text = String::from_utf8_lossy(name);
        let bare = text.trim_end_matches(['.', ' ']);
        assert!(!bare.eq_ignore_ascii_case(OWN_DIR), "the agent's own directory, on some disks");
    }
    assert!(!path.to_string().chars().any(char::is_control), "a path that moves the cursor: {path:?}");
}
