//! Ignore rules, which may come from a peer, and paths to be matched. Layout: the rules; after each zero byte a path.

use std::time::Duration;

use p2psync::core::ignore::{IGNORE_FILE, LINE_BYTES_MAX, Rules};
use p2psync::core::path::RelPath;
use rustix::time::{ClockId, clock_gettime};

use super::{check, memory};

/// Rules of one line take as much as a matcher takes at least.
const MEMORY_BYTES_MIN: usize = 8 * 1024 * 1024;
/// How many times their text rules may take in memory.
const MEMORY_PER_BYTE_MAX: usize = 4096;
/// Time of the processor for what a fuzzer can write, with the slowest build there is: far below where a user would
/// notice, and independent of what else the machine does.
const CPU_MAX: Duration = Duration::from_secs(20);

pub fn run(data: &[u8]) {
    let mut parts = data.split(|b| *b == 0);
    let text = parts.next().unwrap_or_default();
    let before = cpu_time();
    let ((rules, errors), peak) = memory::peak(|| Rules::parse(text));
    assert!(peak <= MEMORY_BYTES_MIN + MEMORY_PER_BYTE_MAX * text.len(), "{peak} bytes of memory for {}", text.len());
    let lines: Vec<&[u8]> = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).split(|b| *b == b'\n').collect();
    for error in errors {
        check::error_text(&error.to_string());
        assert!((1..=lines.len()).contains(&(error.line as usize)), "an error in line {}", error.line);
    }
    let built_in = Rules::default();
    let mut own = vec![IGNORE_FILE.as_bytes().to_vec()];
    own.extend(parts.map(<[u8]>::to_vec));
    for path in own.iter().filter_map(|bytes| RelPath::parse(bytes).ok()) {
        for is_dir in [false, true] {
            matched(&rules, &path, is_dir, &lines);
            if text.is_empty() {
                assert_eq!(rules.is_ignored(&path, is_dir), built_in.is_ignored(&path, is_dir));
            }
        }
    }
    let took = cpu_time().saturating_sub(before);
    assert!(took <= CPU_MAX, "{took:?} for {} bytes", data.len());
}

fn matched(rules: &Rules, path: &RelPath, is_dir: bool, lines: &[&[u8]]) {
    let hit = rules.is_ignored(path, is_dir);
    let mut above: Vec<RelPath> = path.ancestors().collect();
    above.reverse();
    let from_above = above.iter().find_map(|directory| rules.is_ignored_itself(directory, true));
    assert_eq!(hit, from_above.or_else(|| rules.is_ignored_itself(path, is_dir)));
    let Some(hit) = hit else { return };
    assert_ne!(path.as_bytes(), IGNORE_FILE.as_bytes(), "the rules ignore themselves");
    let Some(line) = hit.line else { return };
    let text = lines.get(line as usize - 1).expect("a hit is in a line that there is");
    assert!(text.len() <= LINE_BYTES_MAX + 1 && !text.starts_with(b"#"));
    assert_eq!(std::str::from_utf8(text).map(str::trim_end), Ok(&*hit.pattern));
}

/// What this thread has computed so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
