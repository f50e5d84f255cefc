//! `p2psync conflicts resolve`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::arguments_past::Resolving;
use super::conflicts;
use super::context::{Context, absolute};
use super::exit::misuse;
use super::output::{self, clean};
use crate::api::{ConflictItem, Keep, Request, WirePath};
use crate::core::conflict;
use crate::core::path::RelPath;

/// Longest file in bytes that a difference is shown of: more is nothing to read.
const DIFF_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Lines around each difference.
const DIFF_CONTEXT_LINES: usize = 3;

const BASE_IS_EMPTY: &str =
    "The version that both came from is not known here, so BASE is empty: the tool shows every difference.\n";

/// A conflict, with the places of its files.
struct Conflict {
    item: ConflictItem,
    copy: PathBuf,
    original: PathBuf,
}

/// Settles a conflict, or shows what it is about.
pub fn run(context: &Context, how: &Resolving) -> anyhow::Result<()> {
    let conflict = find(context, &how.path)?;
    if how.diff {
        return output::print_raw(&diff(&conflict)?);
    }
    let keep = match (&how.keep, &how.tool) {
        (Some(word), _) => kept(&conflict, word)?,
        (None, Some(tool)) => return with_tool(context, &conflict, tool, how.json),
        (None, None) => return Err(misuse("say what to keep: --keep mine, theirs, both or a file")),
    };
    settle(context, &conflict, keep, None, how.json)
}

/// `told`: what to say once it is done, in place of the agent's words.
fn settle(context: &Context, conflict: &Conflict, keep: Keep, told: Option<String>, json: bool) -> anyhow::Result<()> {
    let kept = match &keep {
        Keep::Copy => "copy",
        Keep::Original => "original",
        Keep::Both => "both",
        Keep::File(_) => "file",
    };
    let done = context.order(&Request::Resolve { copy: WirePath(conflict.copy.clone()), keep })?;
    let done = told.unwrap_or(done);
    if json {
        let item = &conflict.item;
        return output::print_json(&json!({ "action": "resolve", "folder": item.folder, "path": item.path,
                                           "original": item.original, "kept": kept, "text": done }));
    }
    output::print(&format!("{}\n", clean(&done)))
}

/// The conflict that a path names: its copy, or its original where that has just one.
fn find(context: &Context, given: &Path) -> anyhow::Result<Conflict> {
    let config = context.config()?;
    let path = context.path_in_folder(&config, given)?;
    let folder = config.folder_at(&path).context("the path is in no folder")?;
    let below = path.strip_prefix(&folder.path).map(|below| below.as_os_str().as_bytes()).unwrap_or_default();
    let shown = RelPath::parse(below).context("this cannot be a conflict")?.to_string();
    let all = conflicts::all(context)?;
    let mut fitting: Vec<ConflictItem> =
        all.into_iter().filter(|c| c.folder == folder.label && (c.path == shown || c.original == shown)).collect();
    if let Some(exact) = fitting.iter().position(|c| c.path == shown) {
        fitting.swap(0, exact);
        fitting.truncate(1);
    }
    if fitting.len() > 1 {
        let copies = fitting.iter().map(|c| format!("  {}", conflicts::place(c, context.home.user_dir())));
        let copies: Vec<String> = copies.collect();
        let text = format!("{} has several conflict copies; say which one:\n{}", clean(&shown), copies.join("\n"));
        return Err(misuse(text));
    }
    let Some(item) = fitting.pop() else {
        let shown = clean(&given.to_string_lossy());
        return Err(misuse(format!("{shown} is in no conflict; 'p2psync conflicts' lists all")));
    };
    let copy = if item.path == shown { path.clone() } else { folder.path.join(&item.path) };
    let original = match RelPath::parse(below).ok().and_then(|path| conflict::original_of(&path)) {
        Some(original) if item.path == shown => folder.path.join(std::ffi::OsStr::from_bytes(original.as_bytes())),
        _ => path,
    };
    Ok(Conflict { item, copy, original })
}

/// What a word says is to be kept.
fn kept(conflict: &Conflict, word: &Path) -> anyhow::Result<Keep> {
    let is_copy_mine = match (conflict.item.mine.as_deref(), word.to_str()) {
        (_, Some("both")) => return Ok(Keep::Both),
        (Some(side), Some("mine")) => side == "copy",
        (Some(side), Some("theirs")) => side != "copy",
        (None, Some("mine" | "theirs")) => {
            return Err(misuse(format!(
                "it is not known which of the two was written here: give the path of the one to keep, {} or {}",
                output::quoted(&conflict.original.to_string_lossy()),
                output::quoted(&conflict.copy.to_string_lossy())
            )));
        }
        _ => {
            let file = absolute(word)?;
            if file == conflict.copy {
                return Ok(Keep::Copy);
            }
            if file == conflict.original {
                return Ok(Keep::Original);
            }
            if !file.is_file() {
                let word = clean(&word.to_string_lossy());
                let text = format!("--keep takes mine, theirs, both or a file, and there is no file {word}");
                return Err(misuse(text));
            }
            return Ok(Keep::File(WirePath(file)));
        }
    };
    Ok(if is_copy_mine { Keep::Copy } else { Keep::Original })
}

/// How the copy differs from the file.
fn diff(conflict: &Conflict) -> anyhow::Result<String> {
    let (file, copy) = (text_of(&conflict.original)?, text_of(&conflict.copy)?);
    if file == copy {
        return Ok("The two are the same.\n".to_owned());
    }
    let difference = similar::TextDiff::from_lines(&file, &copy);
    let names = (clean(&conflict.item.original), clean(&conflict.item.path));
    let shown = difference.unified_diff().context_radius(DIFF_CONTEXT_LINES).header(&names.0, &names.1).to_string();
    Ok(shown.split_inclusive('\n').map(clean_line).collect())
}

/// A line that can't do anything to a terminal.
fn clean_line(line: &str) -> String {
    let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
    let cells: Vec<String> = text.split('\t').map(clean).collect();
    format!("{}{end}", cells.join("\t"))
}

/// A file's text; empty where it is gone.
fn text_of(path: &Path) -> anyhow::Result<String> {
    let shown = clean(&path.to_string_lossy());
    let meta = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        meta => meta.with_context(|| format!("cannot look at {shown}"))?,
    };
    if !meta.is_file() {
        bail!("{shown} is no ordinary file, so there is no difference to show");
    }
    if meta.len() > DIFF_BYTES_MAX {
        bail!("{shown} is too large to show a difference ({})", output::bytes(meta.len()));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(DIFF_BYTES_MAX).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read {shown}"))?;
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => bail!("{shown} is not text; open both files with the program they are made with"),
    }
}

/// A directory for the files of a merge, removed when dropped.
struct Desk(PathBuf);

impl Desk {
    fn new(context: &Context) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("p2psync-merge-{}-{}", std::process::id(), context.now_ms));
        let made = std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(&dir);
        made.with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }

    /// A copy of a file, or an empty file where there is none.
    fn put(&self, name: &str, from: Option<&Path>) -> anyhow::Result<PathBuf> {
        let to = self.0.join(name);
        let mut file = File::create_new(&to).with_context(|| format!("cannot make {}", to.display()))?;
        if let Some(from) = from.filter(|from| from.is_file()) {
            let copied = File::open(from).and_then(|mut from| io::copy(&mut from, &mut file));
            copied.with_context(|| format!("cannot copy {}", from.display()))?;
        }
        file.flush()?;
        Ok(to)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Copies that were made above; what a tool may have added stays.
        for name in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_file(name.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// Has a program merge copies of the files, and keeps what it wrote where it ended well.
fn with_tool(context: &Context, conflict: &Conflict, tool: &str, as_json: bool) -> anyhow::Result<()> {
    let desk = Desk::new(context)?;
    let is_copy_mine = conflict.item.mine.as_deref() == Some("copy");
    let (mine, theirs) = match is_copy_mine {
        true => (&conflict.copy, &conflict.original),
        false => (&conflict.original, &conflict.copy),
    };
    let base = conflict.item.base.as_ref().map(|base| PathBuf::from(&base.place)).filter(|base| base.is_file());
    if base.is_none() && !as_json {
        output::tell(BASE_IS_EMPTY);
    }
    let name = conflict.original.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let local = desk.put(&format!("LOCAL-{name}"), Some(mine))?;
    let remote = desk.put(&format!("REMOTE-{name}"), Some(theirs))?;
    let base = desk.put(&format!("BASE-{name}"), base.as_deref())?;
    let merged = desk.put(&format!("OUTPUT-{name}"), None)?;
    let mut command = Command::new("sh");
    command.arg("-c").arg(tool).env("BASE", &base).env("LOCAL", &local).env("REMOTE", &remote);
    let status = command.env("OUTPUT", &merged).env("MERGED", &merged).status();
    let status = status.with_context(|| format!("cannot run {}", clean(tool)))?;
    if !status.success() {
        bail!("the tool ended with {status}; the conflict stays as it is");
    }
    if fs::metadata(&merged).map_or(0, |meta| meta.len()) == 0 {
        bail!("the tool has written nothing to OUTPUT; the conflict stays as it is");
    }
    // The file that the agent was given is gone in a moment.
    let told = format!(
        "{} is now what the tool has written; both versions of the conflict are in history",
        conflict.item.original
    );
    settle(context, conflict, Keep::File(WirePath(merged)), Some(told), as_json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(dir: &Path, mine: Option<&str>) -> Conflict {
        let item = ConflictItem { original: "a".into(), path: "copy".into(), ..ConflictItem::default() };
        let item = ConflictItem { mine: mine.map(str::to_owned), ..item };
        Conflict { item, copy: dir.join("copy"), original: dir.join("a") }
    }

    #[test]
    fn words_and_paths_say_what_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::write(root.join("merged"), "x").unwrap();
        let keep = |mine, word: &str| kept(&conflict(&root, mine), Path::new(word)).map_err(|e| e.to_string());
        assert_eq!(keep(Some("copy"), "mine"), Ok(Keep::Copy));
        assert_eq!(keep(Some("copy"), "theirs"), Ok(Keep::Original));
        assert_eq!(keep(Some("original"), "mine"), Ok(Keep::Original));
        assert_eq!(keep(None, "both"), Ok(Keep::Both));
        assert!(keep(None, "mine").unwrap_err().contains("not known which"));
        assert_eq!(keep(None, root.join("a").to_str().unwrap()), Ok(Keep::Original));
        assert_eq!(keep(None, root.join("copy").to_str().unwrap()), Ok(Keep::Copy));
        assert_eq!(keep(None, root.join("merged").to_str().unwrap()), Ok(Keep::File(WirePath(root.join("merged")))));
        assert!(keep(None, "mnie").unwrap_err().contains("there is no file mnie"));
    }

    #[test]
    fn a_difference_is_shown_of_text_only() {
        let dir = tempfile::tempdir().unwrap();
        let conflict = conflict(dir.path(), None);
        fs::write(&conflict.original, "one\ntwo\x1b[2J\tx\n").unwrap();
        fs::write(&conflict.copy, "one\nthree\n").unwrap();
        let shown = diff(&conflict).unwrap();
        assert_eq!(shown, "--- a\n+++ copy\n@@ -1,2 +1,2 @@\n one\n-two\\u{1b}[2J\tx\n+three\n");
        fs::write(&conflict.copy, b"\xff\x00").unwrap();
        assert!(diff(&conflict).unwrap_err().to_string().contains("not text"));
        fs::remove_file(&conflict.original).unwrap();
        fs::write(&conflict.copy, "new\n").unwrap();
        assert!(diff(&conflict).unwrap().contains("+new"));
    }
}
