//! `p2psync folder accept`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::context::{Context, absolute};
use super::exit::misuse;
use super::offers::{self, Dialogue, Ground, Offer};
use super::output::{self, clean};
use super::style::Style;
use crate::api::{Reply, Request};
use crate::config::Folder;

/// Which folder, and where to put it.
#[derive(Args, Debug)]
pub struct AcceptArguments {
    /// Label or id of the folder; may be left out if just one is offered
    #[arg(value_name = "LABEL")]
    pub label: Option<String>,
    /// The directory; it is made if missing
    pub path: Option<PathBuf>,
    /// Put it into a directory that has files in it, without being asked
    #[arg(long)]
    pub merge: bool,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// Takes part in folders that connected peers share with this device.
pub fn run(context: &Context, arguments: &AcceptArguments) -> anyhow::Result<()> {
    let reply = context.ask(&Request::Status).map_err(anyhow::Error::from);
    let Reply::Status(status) = reply.context("taking part in a folder needs the agent")? else {
        bail!("the agent answered something else; it may be of another version: restart it");
    };
    let offered = offers::of_peers(&status.peers);
    if let Some(told) = arguments.label.as_deref().and_then(|word| is_here(context, &offered, word).transpose()) {
        return Err(misuse(told?));
    }
    let chosen = choose(&offered, arguments.label.as_deref())?;
    if chosen.is_empty() {
        return nothing(arguments.json);
    }
    let is_talking = !arguments.json && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let accepted = match (&chosen[..], &arguments.path) {
        ([offer], Some(path)) => vec![at(context, offer, &absolute(path)?, arguments.merge)?],
        (chosen, None) if is_talking => {
            let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout());
            let style = Style::of_stdout();
            let mut dialogue = Dialogue { input: &mut input, output: &mut output, style };
            offers::ask_each(context, chosen, None, &mut dialogue)?
        }
        ([offer], None) => {
            let place = offers::usual_place(&context.config()?, offer, context.home.user_dir());
            vec![at(context, offer, &place, arguments.merge)?]
        }
        (several, _) => {
            return Err(misuse(format!("several folders are offered, so say which: {}", labels(several))));
        }
    };
    if !accepted.is_empty() {
        context.reload();
    }
    if arguments.json {
        return output::print_json(&accepted.iter().map(as_json).collect::<Vec<_>>());
    }
    for folder in &accepted {
        if let Some(offer) = chosen.iter().find(|offer| offer.id == folder.id) {
            output::print(&offers::accepted_text(context, folder, offer))?;
        }
    }
    Ok(())
}

fn nothing(as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return output::print_raw("[]\n");
    }
    output::print(
        "No connected device shares a folder that is not here. On the other device: p2psync folder share FOLDER --peer NAME\n",
    )
}

/// What to say of a folder that is here already, as far as nothing else of that name is offered.
fn is_here(context: &Context, offered: &[Offer], word: &str) -> anyhow::Result<Option<String>> {
    let is_named = |id: &str, label: &str| id == word || label == word;
    if offered.iter().any(|offer| is_named(offer.id.as_str(), &offer.label)) {
        return Ok(None);
    }
    let config = context.config()?;
    let folder = config.folders.iter().find(|folder| is_named(folder.id.as_str(), &folder.label));
    Ok(folder.map(|folder| {
        let (label, place) = (clean(&folder.label), output::short_path(&folder.path, context.home.user_dir()));
        let word = config.word_of(folder);
        format!(
            "{label} is here already, at {place}; 'p2psync folder share {word} --peer NAME' shares it with another device"
        )
    }))
}

/// The offer with this label or id, or all.
fn choose(offered: &[Offer], word: Option<&str>) -> anyhow::Result<Vec<Offer>> {
    let Some(word) = word else { return Ok(offered.to_vec()) };
    if let Some(offer) = offered.iter().find(|offer| offer.id.as_str() == word) {
        return Ok(vec![offer.clone()]);
    }
    let fitting: Vec<Offer> = offered.iter().filter(|offer| offer.label == word).cloned().collect();
    match &fitting[..] {
        [_] => Ok(fitting),
        [] => {
            let instead = match offered {
                [] => "'p2psync status' shows what is".to_owned(),
                offered => format!("there are: {}", labels(offered)),
            };
            let word = clean(word);
            Err(misuse(format!("no connected device shares a folder '{word}' that is not here; {instead}")))
        }
        several => {
            let ids: Vec<String> = several.iter().map(|offer| offer.id.to_string()).collect();
            let (word, ids) = (clean(word), ids.join(", "));
            Err(misuse(format!("several folders are labelled '{word}': give the id, one of {ids}")))
        }
    }
}

fn labels(offers: &[Offer]) -> String {
    offers.iter().map(|offer| clean(&offer.label)).collect::<Vec<_>>().join(", ")
}

/// Takes part at this place, where that needs no further word.
fn at(context: &Context, offer: &Offer, place: &Path, merge: bool) -> anyhow::Result<Folder> {
    match offers::ground(place)? {
        Ground::Taken => Err(misuse(format!("{} is not a directory", clean(&place.to_string_lossy())))),
        Ground::Holds(items) if !merge => {
            let told = offers::merging(context, offer, place, items);
            Err(misuse(format!("{told} If that is meant, add --merge")))
        }
        Ground::Free | Ground::Holds(_) => offers::accept(context, offer, place),
    }
}

fn as_json(folder: &Folder) -> serde_json::Value {
    let peers = match &folder.peers {
        crate::config::Sharing::All => json!("all"),
        crate::config::Sharing::Only(ids) => json!(ids.iter().map(ToString::to_string).collect::<Vec<_>>()),
    };
    json!({ "action": "accepted", "id": folder.id.as_str(), "label": folder.label,
            "path": folder.path.to_string_lossy(), "peers": peers, "paused": folder.paused })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::DeviceId;

    fn offer(id: &str, label: &str) -> Offer {
        Offer { id: id.parse().unwrap(), label: label.into(), peers: vec![(DeviceId([3; 32]), "desk".into())] }
    }

    #[test]
    fn a_folder_is_chosen_by_label_or_id_and_what_is_not_clear_is_said() {
        let offered = [offer("p", "Photos"), offer("m", "Music"), offer("n", "Music")];
        let ids = |word| choose(&offered, word).map(|c| c.iter().map(|o| o.id.to_string()).collect::<Vec<_>>());
        assert_eq!(ids(Some("Photos")).unwrap(), ["p"]);
        assert_eq!(ids(Some("n")).unwrap(), ["n"]);
        assert_eq!(ids(None).unwrap().len(), 3);
        assert!(ids(Some("Music")).unwrap_err().to_string().ends_with("one of m, n"));
        assert!(ids(Some("Foto")).unwrap_err().to_string().contains("there are: Photos, Music, Music"));
    }

    #[test]
    fn a_directory_with_files_is_taken_only_if_that_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let context = Context { home: crate::home::Home::at(&root.join("home"), root.clone()), now_ms: 0 };
        let peer = crate::config::NewPeer { id: DeviceId([3; 32]), name: Some("desk".into()), addresses: Vec::new() };
        crate::config::add_peer(&context.home, &peer).unwrap();
        let place = root.join("Photos");
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("a"), "x").unwrap();
        let refused = at(&context, &offer("p", "Photos"), &place, false).unwrap_err().to_string();
        assert!(refused.contains("holds 1 item already") && refused.ends_with("add --merge"), "{refused}");
        assert_eq!(at(&context, &offer("p", "Photos"), &place, true).unwrap().path, place);
        let told = |offered: &[Offer], word| is_here(&context, offered, word).unwrap();
        assert!(told(&[], "Photos").unwrap().contains("'p2psync folder share Photos --peer NAME'"));
        assert_eq!((told(&[], "Music"), told(&[offer("q", "Photos")], "Photos")), (None, None));
    }
}
