//! `p2psync pair`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use ratatui::crossterm::terminal;
use serde_json::{Value, json};

use super::again::Again;
use super::context::Context;
use super::countdown::Countdown;
use super::exit::misuse;
use super::offers::{self, Dialogue, Ground, Offer};
use super::output::{self, clean};
use super::qr::Picture;
use super::style::Style;
use crate::api::client::{self, ClientError};
use crate::api::{Reply, Request, Status};
use crate::config::Folder;
use crate::net::pairing_code::PairingCode;
use crate::net::pairing_link::PairingLink;

/// Longest time for joining: finding the other device, and the handshake.
const JOIN_TIME: Duration = Duration::from_secs(120);

/// What to do and how to show it.
#[derive(Args, Debug)]
pub struct PairArguments {
    /// What the other device shows: its four words, the short code, or the link
    #[arg(value_name = "CODE")]
    pub code: Vec<String>,
    /// What becomes of the folders that the other device shares; asked for on a terminal
    #[arg(long, value_enum, value_name = "WHICH")]
    pub accept: Option<Accept>,
    /// Put folders that are accepted into this directory (your home directory if left out)
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// Show a QR code, however small the terminal is
    #[arg(long, conflicts_with = "no_qr")]
    pub qr: bool,
    /// Show no QR code
    #[arg(long)]
    pub no_qr: bool,
    /// Print JSON, one value on each line, for programs
    #[arg(long)]
    pub json: bool,
}

/// Which folders of the other device are wanted here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Accept {
    /// Each goes into a directory with its label as name; one that has files in it already is left out
    All,
    None,
}

/// Shows a code and waits, or joins the device that shows this code. Ctrl-C closes the connection, which cancels.
pub fn run(context: &Context, arguments: &PairArguments) -> anyhow::Result<()> {
    let typed = arguments.code.join(" ");
    let asked = read(&typed)?;
    let own = match context.ask(&Request::Status) {
        Ok(Reply::Status(status)) => status,
        Ok(_) => bail!("the agent answered something else; it may be of another version: restart it"),
        Err(error @ ClientError::NotRunning) => {
            return Err(anyhow::Error::from(error).context("pairing needs the agent on both devices"));
        }
        Err(error) => return Err(error.into()),
    };
    let (request, time) = match &asked {
        Asked::Show => (Request::PairShow, None),
        Asked::Code(code) => (Request::PairJoin { code: code.to_string() }, Some(JOIN_TIME)),
        Asked::Link(link) => (Request::PairJoin { code: link.to_string() }, Some(JOIN_TIME)),
    };
    if !arguments.json {
        output::print(&announcement(&asked, &own)?)?;
    }
    let mut trouble = Ok(());
    let mut countdown = None;
    let answer = client::converse(&context.home, &request, time, |reply| {
        if trouble.is_ok() {
            trouble = on_the_way(&reply, arguments);
        }
        if let Reply::PairCode { valid_seconds, .. } = reply
            && !arguments.json
        {
            countdown = Countdown::start(valid_seconds);
        }
    });
    drop(countdown);
    trouble?;
    match answer? {
        Reply::Paired { name, device_id, folders, offers, again } => {
            let offers = offers::of_device(&device_id, &name, &offers);
            if !arguments.json {
                output::print(&paired(&name, &device_id, &folders, &own))?;
            }
            let accepted = answer_offers(context, &offers, arguments)?;
            if let Ok(device) = device_id.parse() {
                share_again(context, &Again { device, name: &name, folders: &again }, arguments)?;
            }
            if arguments.json {
                let told: Vec<_> = offers.iter().map(Offer::as_told).collect();
                print_line(&json!({ "event": "paired", "device_id": device_id, "name": name, "folders": folders,
                                    "offers": told, "accepted": accepted, "again": again }))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What the user typed.
enum Asked {
    Show,
    Code(PairingCode),
    Link(PairingLink),
}

/// Looks at the code here, so that a typing error is told at once, whether an agent runs or not.
fn read(typed: &str) -> anyhow::Result<Asked> {
    let typed = typed.trim();
    Ok(match typed {
        "" => Asked::Show,
        link if PairingLink::is_meant(link) => Asked::Link(link.parse().map_err(mistyped)?),
        code => Asked::Code(code.parse().map_err(mistyped)?),
    })
}

fn mistyped(error: impl std::fmt::Display) -> anyhow::Error {
    misuse(error.to_string())
}

/// Who is about to pair with whom.
fn announcement(asked: &Asked, own: &Status) -> anyhow::Result<String> {
    let this = format!("{} ({})", clean(&own.name), short(&own.device_id));
    Ok(match asked {
        Asked::Show => format!("This device is {this}.\n"),
        Asked::Code(_) => format!("This device is {this}. Looking for the one that shows the code ...\n"),
        Asked::Link(link) if link.device.to_string() == own.device_id => {
            return Err(misuse("this is the link of this very device: open it on the other one"));
        }
        Asked::Link(link) => {
            format!("This device is {this}. Pairing with {} ({}) ...\n", clean(&link.name), link.device.short())
        }
    })
}

/// Shows what comes before the outcome.
fn on_the_way(reply: &Reply, arguments: &PairArguments) -> anyhow::Result<()> {
    match reply {
        Reply::PairCode { code, valid_seconds, words, link } if arguments.json => print_line(&json!({
            "event": "code", "code": code, "words": words, "link": link, "valid_seconds": valid_seconds
        })),
        Reply::PairCode { code, valid_seconds, words, link } => {
            let picture = if arguments.no_qr { None } else { picture(&clean(link), arguments.qr) };
            output::print(&showing(code, words, *valid_seconds))?;
            if let Some(picture) = picture {
                output::print_raw(&format!("\n{picture}"))?;
            }
            // On a terminal a countdown says that it is waited for.
            let waits = if std::io::stderr().is_terminal() { "" } else { "\nWaiting for it (Ctrl-C cancels) ...\n" };
            output::print(&format!("{}{waits}", by_link(link)))
        }
        Reply::Progress { text } if !arguments.json => output::print(&format!("{}\n", clean(text))),
        _ => Ok(()),
    }
}

/// The link as a QR code, where it can be seen or is asked for.
fn picture(link: &str, is_wanted: bool) -> Option<String> {
    let picture = Picture::of(link).filter(|_| !link.is_empty())?;
    let is_terminal = std::io::stdout().is_terminal();
    let (columns, lines) = terminal::size().ok().filter(|_| is_terminal).unwrap_or_default();
    let is_shown = is_wanted || (picture.fits(columns, lines) && has_blocks());
    is_shown.then(|| if is_terminal { picture.coloured() } else { picture.plain() })
}

/// Whether the terminal shows more than ASCII, as far as the surroundings tell.
fn has_blocks() -> bool {
    let said =
        ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    said.is_some_and(|locale| locale.to_lowercase().replace('-', "").contains("utf8"))
}

fn showing(code: &str, words: &str, valid_seconds: u64) -> String {
    let minutes = output::count(valid_seconds.div_ceil(60), "minute", "minutes");
    // An agent of another version may tell less.
    let first = if words.is_empty() { code } else { words };
    let mut text = format!("On the other device, within {minutes}:\n\n    p2psync pair {}\n", clean(first));
    if !words.is_empty() {
        text.push_str(&format!("\nIn short: {}\n", clean(code)));
    }
    text
}

fn by_link(link: &str) -> String {
    match clean(link) {
        link if link.is_empty() => link,
        link => format!("Where the devices do not find each other: p2psync pair '{link}'\n"),
    }
}

fn paired(name: &str, device_id: &str, folders: &[String], own: &Status) -> String {
    let labels: Vec<String> = folders.iter().map(|f| clean(f)).collect();
    let shared = match &labels[..] {
        [] => String::new(),
        labels => format!("Shared with it: {}. 'p2psync status' shows how it goes.\n", labels.join(", ")),
    };
    let (there, here) = (short(device_id), short(&own.device_id));
    format!(
        // The other may have to call it otherwise, where the name is taken there.
        "Paired with {} ({there}). This device is {} ({here}).\n{shared}",
        output::name(name),
        output::name(&own.name)
    )
}

/// Takes part in the folders of the other device that are wanted; returns those as JSON.
fn answer_offers(context: &Context, found: &[Offer], arguments: &PairArguments) -> anyhow::Result<Vec<Value>> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let into = arguments.into.as_deref().map(super::context::absolute).transpose()?;
    let accepted = match arguments.accept {
        Some(Accept::All) => accept_all(context, found, into.as_deref(), arguments.json)?,
        None if is_talking(arguments) => {
            let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout());
            let style = Style::of_stdout();
            let mut dialogue = Dialogue { input: &mut input, output: &mut output, style };
            offers::ask_each(context, found, into.as_deref(), &mut dialogue)?
        }
        _ => {
            for offer in found.iter().filter(|_| !arguments.json) {
                let command = offers::command(&offer.as_told());
                output::print(&format!("{} shares '{}': {command}\n", offer.from(), clean(&offer.label)))?;
            }
            Vec::new()
        }
    };
    if !accepted.is_empty() {
        context.reload();
    }
    for folder in accepted.iter().filter(|_| !arguments.json) {
        if let Some(offer) = found.iter().find(|offer| offer.id == folder.id) {
            output::print(&offers::accepted_text(context, folder, offer))?;
        }
    }
    Ok(accepted.iter().map(as_json).collect())
}

fn is_talking(arguments: &PairArguments) -> bool {
    !arguments.json && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

fn as_json(folder: &Folder) -> Value {
    json!({ "id": folder.id.as_str(), "label": folder.label, "path": folder.path.to_string_lossy() })
}

/// Asks which of the folders that the other device has or had it shall have again. Where nobody is asked, the commands
/// for it are told: `--accept` speaks of what comes here, not of what goes from here.
fn share_again(context: &Context, again: &Again, arguments: &PairArguments) -> anyhow::Result<()> {
    if again.folders.is_empty() || arguments.json {
        return Ok(());
    }
    if arguments.accept.is_some() || !is_talking(arguments) {
        return output::print(&again.hints(context)?);
    }
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout());
    let style = Style::of_stdout();
    let shared = again.ask_each(context, &mut Dialogue { input: &mut input, output: &mut output, style })?;
    if !shared.is_empty() {
        context.reload();
    }
    for folder in &shared {
        output::print(&again.told(folder))?;
    }
    Ok(())
}

/// Takes part in all of these folders, but puts none into a directory that has something in it: nobody was asked.
fn accept_all(context: &Context, found: &[Offer], into: Option<&Path>, is_silent: bool) -> anyhow::Result<Vec<Folder>> {
    let mut accepted = Vec::new();
    for offer in found {
        let config = context.config()?;
        if config.folder(&offer.id).is_some() {
            continue;
        }
        let place = offers::usual_place(&config, offer, into.unwrap_or(context.home.user_dir()));
        match offers::ground(&place)? {
            Ground::Holds(items) if !is_silent => output::print(&format!(
                "'{}' is left out. {} To do that: {} {} --merge\n",
                clean(&offer.label),
                offers::merging(context, offer, &place, items),
                offers::command(&offer.as_told()),
                output::short_path(&place, context.home.user_dir()),
            ))?,
            Ground::Free => {
                let folder = offers::accept(context, offer, &place);
                accepted.push(folder.with_context(|| format!("cannot take part in '{}'", clean(&offer.label)))?);
            }
            Ground::Holds(_) | Ground::Taken => {}
        }
    }
    Ok(accepted)
}

/// One JSON value on a line.
fn print_line(value: &Value) -> anyhow::Result<()> {
    output::print_raw(&format!("{value}\n"))
}

fn short(device_id: &str) -> String {
    clean(device_id.split('-').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_shown_in_words_and_in_short_with_a_link_for_other_networks() {
        let code = PairingCode::generate([1, 2, 3, 4, 5]);
        let shown = showing(&code.to_string(), &code.words(), 300) + &by_link("p2psync://pair?x");
        let expected = format!(
            "On the other device, within 5 minutes:\n\n    p2psync pair {}\n\nIn short: {code}\n\
             Where the devices do not find each other: p2psync pair 'p2psync://pair?x'\n",
            code.words()
        );
        assert_eq!(shown, expected);
        // Of an agent that knows neither words nor links.
        let shown = showing("K7QF-29XM", "", 60) + &by_link("");
        assert!(shown.contains("pair K7QF-29XM\n") && !shown.contains("In short"), "{shown}");
    }

    #[test]
    fn both_devices_are_named_after_pairing() {
        let own = Status { name: "desk".into(), device_id: "AAAAAAA-BBBBBBB".into(), ..Status::default() };
        let text = paired("lap\x1btop", "CCCCCCC-DDDDDDD", &["Photos".into()], &own);
        assert!(text.starts_with("Paired with lap\\u{1b}top (CCCCCCC). This device is desk (AAAAAAA).\n"));
        assert!(text.contains("Shared with it: Photos."));
    }

    #[test]
    fn what_is_typed_is_looked_at_before_the_agent_is_asked() {
        let code = PairingCode::generate([1, 2, 3, 4, 5]);
        assert!(matches!(read(" "), Ok(Asked::Show)));
        assert!(matches!(read(&code.words().replace('-', " ")), Ok(Asked::Code(read)) if read == code));
        let error = |typed: &str| read(typed).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error("apple xylophone guitar zebra").contains("\"xylophone\" is not a word"));
        assert!(error("p2psync://pair?code=").contains("letters and digits"));
    }
}
