//! `p2psync undo`, and `p2psync restore` of a directory as it was at a time.

use std::fmt::Write;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;

use super::arguments_past::GoingBack;
use super::context::{Context, find_folder};
use super::exit::misuse;
use super::output::{self, clean, count, name};
use crate::api::client::{self, ClientError};
use crate::api::{Reply, Request, RewindReport, RewindTo, WirePath};
use crate::config::Config;

/// Paths that are shown before it is done.
const SHOWN_MAX: usize = 10;
/// Time for the agent to do it: every file that comes back is copied. It goes on where nobody waits any more.
const DOING_TIME: Duration = Duration::from_secs(6 * 3600);

/// Takes back what another device did last to a folder.
pub fn undo(context: &Context, folder: Option<&str>, revert: bool, going: &GoingBack) -> anyhow::Result<()> {
    let config = context.config()?;
    let path = match folder {
        None if config.folders.len() > 1 => meant(context, &config, revert)?,
        word => find_folder(&config, word)?.path.clone(),
    };
    go_back(context, &path, &latest(revert), going)
}

/// The folder that is meant where none is named: the one that the current directory is in, else the one where what is
/// to be taken back happened last.
fn meant(context: &Context, config: &Config, revert: bool) -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().ok().and_then(|dir| context.path_in_folder(config, &dir).ok());
    if let Some(folder) = here.and_then(|dir| config.folder_at(&dir)) {
        return Ok(folder.path.clone());
    }
    let mut plans = Vec::new();
    for folder in &config.folders {
        match ask(context, &folder.path, &latest(revert), true) {
            Ok(plan) => plans.push((plan.to_ms.unwrap_or_default(), &folder.path)),
            // There is nothing to take back in this one.
            Err(error) if matches!(error.downcast_ref(), Some(ClientError::Refused(_))) => {}
            Err(error) => return Err(error),
        }
    }
    match plans.into_iter().max() {
        Some((_, path)) => Ok(path.clone()),
        None if revert => bail!("nothing was taken back in any folder, or more than is kept track of"),
        None => bail!(
            "as far as is kept track of, no other device has changed anything in any folder: nothing to take back"
        ),
    }
}

fn latest(revert: bool) -> RewindTo {
    if revert { RewindTo::BeforeRewind } else { RewindTo::BeforePeer { ended_ms: None } }
}

/// Says what taking back would do and, unless that was all, does it.
pub fn go_back(context: &Context, path: &Path, to: &RewindTo, going: &GoingBack) -> anyhow::Result<()> {
    let plan = ask(context, path, to, true)?;
    let has_steps = plan.bring_back + plan.set_aside + plan.rename > 0;
    if going.dry_run || !has_steps {
        return show(&plan, context.now_ms, going.json);
    }
    if !going.yes {
        if !io::stdin().is_terminal() {
            let told = text(&plan, context.now_ms);
            return Err(misuse(format!("{told}say --yes to do this, or --dry-run to see more")));
        }
        ask_whether(&text(&plan, context.now_ms))?;
    }
    let to = match to {
        // What was not told is not done.
        RewindTo::BeforePeer { .. } => RewindTo::BeforePeer { ended_ms: plan.to_ms },
        other => other.clone(),
    };
    let done = ask(context, path, &to, false)?;
    show(&done, context.now_ms, going.json)?;
    match done.failed.len() as u64 {
        0 => Ok(()),
        failed => bail!("{} could not be taken back", count(failed, "file", "files")),
    }
}

/// Tells the person at the terminal what would be done, and asks whether to go on; an error where not.
pub fn ask_whether(told: &str) -> anyhow::Result<()> {
    output::tell(&format!("{told}Go on? [y/N] "));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was done");
    }
    Ok(())
}

fn ask(context: &Context, path: &Path, to: &RewindTo, dry_run: bool) -> anyhow::Result<RewindReport> {
    let request = Request::Rewind { path: WirePath(path.to_owned()), to: to.clone(), dry_run };
    match client::ask(&context.home, &request, DOING_TIME) {
        Ok(Reply::Rewound(report)) => Ok(report),
        Ok(_) => bail!("the agent answered something else; it may be of another version: restart it"),
        Err(error) => Err(error.into()),
    }
}

fn show(report: &RewindReport, now_ms: i64, json: bool) -> anyhow::Result<()> {
    if json { output::print_json(report) } else { output::print(&text(report, now_ms)) }
}

/// What would be done or was done, in counts and with the first paths.
fn text(report: &RewindReport, now_ms: i64) -> String {
    let mut text = String::new();
    if let (Some(device), Some(to_ms)) = (&report.device, report.to_ms) {
        let ago = output::ago(to_ms, now_ms);
        let _ = writeln!(text, "The last that {} did in {}, {ago}:", clean(device), clean(&report.folder));
    } else if let Some(to_ms) = report.to_ms {
        let ago = output::ago(to_ms, now_ms);
        let _ = writeln!(text, "What was taken back in {}, {ago}:", clean(&report.folder));
    }
    let verbs = if report.dry_run { ["would come", "would go", "would get"] } else { ["came", "went", "got"] };
    let kinds = [
        (report.bring_back, format!("{} back as before", verbs[0])),
        (report.set_aside, format!("{} into the history", verbs[1])),
        (report.rename, format!("{} the former name back", verbs[2])),
    ];
    for (number, what) in kinds.iter().filter(|(number, _)| *number > 0) {
        let _ = writeln!(text, "{} {what}", count(*number, "file", "files"));
    }
    if report.bring_back + report.set_aside + report.rename == 0 {
        text.push_str("There is nothing to take back.\n");
    }
    for item in report.items.iter().filter(|item| item.what != "left").take(SHOWN_MAX) {
        let what = match &item.what[..] {
            "bring_back" => "back as before",
            "set_aside" => "into the history",
            _ => "renamed to",
        };
        let _ = writeln!(text, "  {}: {what} {}", name(&item.path), name(item.text.as_deref().unwrap_or_default()));
    }
    let shown = report.items.iter().filter(|item| item.what != "left").count().min(SHOWN_MAX) as u64;
    let rest = (report.bring_back + report.set_aside + report.rename).saturating_sub(shown);
    if rest > 0 {
        let _ = writeln!(text, "  and {} more", output::number(rest));
    }
    if report.left > 0 {
        let _ = writeln!(text, "{} as now:", count(report.left, "file stays", "files stay"));
    }
    for item in report.items.iter().filter(|item| item.what == "left").take(SHOWN_MAX) {
        let _ = writeln!(text, "  {}: {}", name(&item.path), clean(item.text.as_deref().unwrap_or_default()));
    }
    for item in report.failed.iter().take(SHOWN_MAX) {
        let _ = writeln!(text, "  failed: {}: {}", name(&item.path), clean(&item.text));
    }
    if !report.dry_run {
        text.push_str("'p2psync undo --revert' takes this back.\n");
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{RewindItem, WaitItem};

    #[test]
    fn what_would_be_done_is_told_in_counts_with_the_first_paths() {
        let item = |path: &str, what: &str, text: Option<&str>| RewindItem {
            path: path.into(),
            what: what.into(),
            text: text.map(Into::into),
        };
        let report = RewindReport {
            folder: "Docs".into(),
            path: "/docs".into(),
            dry_run: true,
            bring_back: 12,
            set_aside: 1,
            rename: 1,
            left: 1,
            items: vec![
                item("x", "left", Some("it was changed on this device since")),
                item("a", "bring_back", None),
                item("b", "set_aside", None),
                item("c", "rename", Some("d")),
            ],
            device: Some("desk".into()),
            to_ms: Some(0),
            ..RewindReport::default()
        };
        let told = "The last that desk did in Docs, 5 minutes ago:\n\
                    12 files would come back as before\n\
                    1 file would go into the history\n\
                    1 file would get the former name back\n  \
                      a: back as before\n  \
                      b: into the history\n  \
                      c: renamed to d\n  \
                      and 11 more\n\
                    1 file stays as now:\n  \
                      x: it was changed on this device since\n";
        assert_eq!(text(&report, 300_000), told);
        let failed = vec![WaitItem { path: "a".into(), text: "the disk is full".into() }];
        let reverted = text(&RewindReport { device: None, ..report.clone() }, 300_000);
        assert!(reverted.starts_with("What was taken back in Docs, 5 minutes ago:\n12 files"), "{reverted}");
        let done = RewindReport { dry_run: false, device: None, left: 0, items: Vec::new(), failed, ..report };
        let shown = text(&done, 300_000);
        assert!(
            shown.contains("12 files came back as before") && shown.contains("failed: a: the disk is full"),
            "{shown}"
        );
        assert!(shown.ends_with("'p2psync undo --revert' takes this back.\n"), "{shown}");
        let nothing = RewindReport { dry_run: true, ..RewindReport::default() };
        assert_eq!(text(&nothing, 0), "There is nothing to take back.\n");
    }
}
