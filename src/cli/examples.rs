//! Examples for `--help`, the manual pages and docs/commands.md, and the shapes that `--json` prints.

/// What belongs to one command besides its options.
pub struct Usage {
    /// The words after `p2psync`; none for `p2psync` itself.
    pub command: &'static str,
    /// The words after `p2psync` of each example, and what it does.
    pub examples: &'static [(&'static str, &'static str)],
    /// What `--json` prints; empty where there is none.
    pub json: &'static str,
}

const fn usage(command: &'static str, examples: &'static [(&'static str, &'static str)], json: &'static str) -> Usage {
    Usage { command, examples, json }
}

const PEER_SHAPE: &str = r#"{"action": "added|removed|renamed", "device_id", "name", "addresses": [..]}"#;
const FOLDER_SHAPE: &str = r#"{"action": "added|removed|shared|paused|resumed|direction|select", "id", "label", "path", "peers": "all" or [device ids], "paused", "paused_until_ms", "direction", "only": null or [patterns]}"#;
const PAUSE_SHAPE: &str = r#"[{"action": "paused|resumed", and the rest as in 'folder list --json'}]"#;
const ORDER_SHAPE: &str =
    r#"{"action": "rescan|confirm-changes|reject-changes|override|revert", "folders": [ids], "text"}"#;

const REWIND_SHAPE: &str = r#"of a directory {"folder", "path", "dry_run", "bring_back", "set_aside", "rename", "left", "items": [{"path", "what", "text"}], "failed": [{"path", "text"}], "device", "from_ms", "to_ms"}"#;

/// All commands that have an example. A command that is missing here brings its own help text.
pub const USAGES: &[Usage] = &[
    usage(
        "",
        &[
            ("run", "start, and set up what is missing"),
            ("pair", "then meet your other device"),
            ("status", "see how things are"),
        ],
        "",
    ),
    usage(
        "run",
        &[("run", "in this terminal, until Ctrl-C"), ("run --log-file ~/p2psync.log", "with the log in a file")],
        "",
    ),
    usage(
        "status",
        &[
            ("status", "everything"),
            ("status --watch", "the same, live; q ends it, ? shows the keys"),
            ("status ~/P2PSync/report.odt", "all about one file"),
            ("status --problems", "all that is not in sync, each with its reason"),
            ("status --exit-code", "for scripts: code 3 where something is not in sync"),
        ],
        r#"{"device_id", "name", "running", "listening", "folders": [..], "peers": [..], "problems_total"}; with PATH {"path", "folder", "state", "explanation": [..], "since_ms", "next", "here", "peers": [..]}; with --problems [{"folder", "path", "state", "kind", "reasons": [..], "since_ms", "peer"}]"#,
    ),
    usage(
        "pair",
        &[
            ("pair", "show a code"),
            ("pair apple-guitar-lemon-zebra", "take the code that the other device shows"),
            ("pair K7QF-29XM --accept all --into ~/Sync", "without questions: take part in all its folders"),
        ],
        r#"a line {"event": "code", "code", "words", "link", "valid_seconds"} where a code is shown, then {"event": "paired", "device_id", "name", "folders": [labels], "offers": [{"id", "label"}], "accepted": [{"id", "label", "path"}], "again": [{"id", "label", "offered"}]}"#,
    ),
    usage(
        "pause",
        &[
            ("pause", "all folders, until 'p2psync resume'"),
            ("pause 1h30m", "all folders, for so long"),
            ("pause Photos until 18:00", "one folder, until then"),
        ],
        PAUSE_SHAPE,
    ),
    usage("resume", &[("resume", "all folders"), ("resume Photos", "one folder")], PAUSE_SHAPE),
    usage(
        "ignore test",
        &[
            ("ignore test notes/draft.tmp", "by which line of which file, if it is"),
            ("ignore test build/", "a directory that is not there yet"),
        ],
        r#"{"path", "folder", "ignored", "rule": {"source": "built_in|file|local|selection", "file", "line", "pattern"}, "text", "faults": [..]}"#,
    ),
    usage(
        "ignore list",
        &[(
            "ignore list Photos",
            "those of .p2pignore files, of this device's .p2pignore.local, and the built-in ones",
        )],
        r#"{"folder", "rules": [{"source", "file", "line", "pattern"}], "faults": [{"file", "line", "text"}]}"#,
    ),
    usage(
        "folder direction",
        &[
            ("folder direction Photos receive", "what is changed here stays here"),
            ("folder direction Photos both", "changes go both ways again"),
        ],
        FOLDER_SHAPE,
    ),
    usage(
        "folder override",
        &[("folder override Photos", "what is here takes the place of what others have")],
        ORDER_SHAPE,
    ),
    usage(
        "folder revert",
        &[
            ("folder revert Photos", "what was changed here goes into history"),
            ("folder revert Photos --yes", "without asking, as in a script"),
        ],
        ORDER_SHAPE,
    ),
    usage(
        "folder select",
        &[
            ("folder select Photos --only '2026/**' --only Best", "only that is fetched here"),
            ("folder select Photos --all", "all of it again"),
            ("folder select Photos", "what is wanted now"),
        ],
        FOLDER_SHAPE,
    ),
    usage(
        "peer add",
        &[(
            "peer add ZSX4HOS-7V6CCLW-DWHPNG3-HFIPXKE-EXN4IMZ-GPA66UQ-VOUWKQA-PWQTACX --name desktop --address desktop.example.org:7724",
            "a device that multicast does not reach",
        )],
        PEER_SHAPE,
    ),
    usage(
        "peer list",
        &[("peer list", "names, ids and whether they are connected")],
        r#"[{"device_id", "name", "addresses": [..], "connected", "address", "last_seen_ms", "version", "clock_ahead_ms", "trouble", "unpaired"}]"#,
    ),
    usage("peer remove", &[("peer remove desktop", "by name; files stay where they are")], PEER_SHAPE),
    usage("peer rename", &[("peer rename desktop 'living room'", "only on this device")], PEER_SHAPE),
    usage(
        "folder add",
        &[
            ("folder add ~/Documents", "share with every peer"),
            ("folder add ~/Photos --id photos --peer desktop", "take part in a folder of that id, with one peer only"),
        ],
        FOLDER_SHAPE,
    ),
    usage(
        "folder list",
        &[("folder list", "labels, ids, places and with whom they are shared")],
        r#"[{"id", "label", "path", "peers": "all" or [device ids], "paused"}]"#,
    ),
    usage(
        "folder accept",
        &[
            ("folder accept", "asks where to put what other devices share"),
            ("folder accept Photos ~/Pictures --merge", "this one, there, together with what is there"),
        ],
        r#"[{"action": "accepted", "id", "label", "path", "peers": [device ids], "paused"}]"#,
    ),
    usage("folder remove", &[("folder remove photos", "by id or label; its files stay where they are")], FOLDER_SHAPE),
    usage(
        "folder share",
        &[
            ("folder share photos --peer desktop --peer phone", "with these only"),
            ("folder share photos --peer all", "with all, also those paired later"),
        ],
        FOLDER_SHAPE,
    ),
    usage("folder pause", &[("folder pause photos", "nothing is scanned, sent or taken meanwhile")], FOLDER_SHAPE),
    usage("folder resume", &[("folder resume photos", "what changed meanwhile is synced now")], FOLDER_SHAPE),
    usage("folder rescan", &[("folder rescan", "all folders"), ("folder rescan photos", "one")], ORDER_SHAPE),
    usage("folder confirm-changes", &[("folder confirm-changes photos", "the held deletions are wanted")], ORDER_SHAPE),
    usage(
        "folder reject-changes",
        &[("folder reject-changes photos", "the held deletions were a mistake")],
        ORDER_SHAPE,
    ),
    usage(
        "log",
        &[("log", "the latest events"), ("log -n 200", "more of them")],
        r#"[{"time_ms", "folder", "kind", "path", "device", "text"}], oldest first"#,
    ),
    usage(
        "conflicts",
        &[("conflicts", "files that two devices changed at once")],
        r#"[{"folder", "path", "original", "mtime_ms", "bytes", "device", "live": null or {"mtime_ms", "bytes", "device"}, "mine": "copy|original" or null, "base": null or {"id", "mtime_ms", "bytes", "place"}, "place"}]"#,
    ),
    usage(
        "conflicts resolve",
        &[
            ("conflicts resolve report.odt --diff", "how the copy differs"),
            ("conflicts resolve report.odt --keep mine", "what was written on this device"),
            ("conflicts resolve report.odt --keep both", "the copy gets an ordinary name"),
            ("conflicts resolve notes.txt --keep merged.txt", "this file in place of both"),
            ("conflicts resolve notes.txt --tool merge.sh", "a program that merges LOCAL and REMOTE into OUTPUT"),
        ],
        r#"{"action": "resolve", "folder", "path", "original", "kept": "copy|original|both|file", "text"}"#,
    ),
    usage(
        "history",
        &[
            ("history ~/P2PSync/report.odt", "of one file"),
            ("history ~/P2PSync", "of everything in a directory"),
            ("history --usage", "how much space all of it takes"),
        ],
        r#"[{"id", "path", "folder", "displaced_ms", "mtime_ms", "placed_ms", "bytes", "displaced_by", "reason", "expires_ms", "only_on"}]; with --usage [{"folder", "id", "versions", "bytes", "oldest_ms", "days", "limit_bytes"}]"#,
    ),
    usage(
        "history prune",
        &[
            ("history prune --older-than 10d", "what was put there more than ten days ago"),
            ("history prune Photos --dry-run", "how much that would be"),
        ],
        r#"[{"folder", "before_ms", "dry_run", "versions", "bytes"}]"#,
    ),
    usage(
        "restore",
        &[
            ("restore ~/P2PSync/report.odt", "the version before the present one"),
            ("restore ~/P2PSync/report.odt@2d", "as it was two days ago"),
            ("restore ~/P2PSync/photos@3h", "the directory as it was three hours ago"),
        ],
        REWIND_SHAPE,
    ),
    usage(
        "undo",
        &[("undo --dry-run", "show what would be undone"), ("undo", "undo it"), ("undo --revert", "take that back")],
        REWIND_SHAPE,
    ),
    usage(
        "wait",
        &[
            ("wait", "until all other devices have everything"),
            ("wait report.odt --peers 1 --timeout 5m", "until one of them has this file"),
        ],
        r#"[{"path", "folder", "done", "wanted", "holding", "peers": [{"device_id", "name", "connected", "last_seen_ms", "holds", "missing_items", "refused_items", "missing": [{"path", "text"}]}], "upto", "trouble"}]"#,
    ),
    usage("id", &[("id", "for 'p2psync peer add' on another device")], r#"{"device_id", "short", "name"}"#),
    usage(
        "config check",
        &[("config check", "after a change by hand")],
        r#"{"path", "ok", "folders", "peers", "fault": null or {"line", "column", "what", "advice"}, "warnings": [{"key", "line", "what", "advice"}]}"#,
    ),
    usage(
        "config path",
        &[("config path", "for an editor: $EDITOR \"$(p2psync config path)\"")],
        r#"{"path", "exists"}"#,
    ),
    usage(
        "config show",
        &[("config show", "as it would be written in the file")],
        r#"[{"key", "value", "from": "file|environment|default", "line", "variable"}]"#,
    ),
    usage("config upgrade", &[("config upgrade", "needed only where 'p2psync config check' says so")], ""),
    usage("service install", &[("service install", "p2psync runs from now on whenever you are logged in")], ""),
    usage("service uninstall", &[("service uninstall", "it runs no more by itself")], ""),
    usage("service start", &[("service start", "now")], ""),
    usage("service stop", &[("service stop", "until the next login")], ""),
    usage(
        "service status",
        &[("service status", "")],
        r#"{"installed", "enabled", "active", "agent_running", "unit", "text"}"#,
    ),
    usage("service logs", &[("service logs", "the last 100 lines"), ("service logs -f", "and what follows")], ""),
    usage(
        "service print",
        &[
            ("service print", "for this system"),
            ("service print --system launchd", "for a Mac"),
            ("service print --system windows", "for the Task Scheduler"),
        ],
        "",
    ),
    usage(
        "doctor",
        &[
            ("doctor", "everything that can be looked at"),
            ("doctor --bundle report.json", "what developers need to know, and no more"),
        ],
        r#"{"worst": "ok|warn|fail", "checks": [{"area", "code", "result": "ok|warn|fail|unknown", "subject", "text", "remedy", "facts": {..}}]}"#,
    ),
    usage(
        "completions",
        &[
            ("completions bash", "save it as ~/.local/share/bash-completion/completions/p2psync"),
            ("completions fish", "save it as ~/.config/fish/completions/p2psync.fish"),
        ],
        "",
    ),
    usage("man", &[("man ./man1", "one page for each command")], ""),
];

/// The text under the options in `--help`.
pub fn help_text(usage: &Usage) -> String {
    let width = usage.examples.iter().map(|(words, _)| words.chars().count()).max().unwrap_or(0).min(EXAMPLE_COLUMNS);
    let mut text = String::from("Examples:\n");
    for (words, what) in usage.examples {
        let line = match (what.is_empty(), words.chars().count() > width) {
            (true, _) => format!("  p2psync {words}\n"),
            (_, true) => format!("  p2psync {words}\n    # {what}\n"),
            _ => format!("  p2psync {words:width$}   # {what}\n"),
        };
        text.push_str(&line);
    }
    if !usage.json.is_empty() {
        text.push_str(&format!("\nWith --json: {}\n", usage.json));
    }
    text
}

/// Widest example, in characters, with its explanation on the same line.
const EXAMPLE_COLUMNS: usize = 50;
