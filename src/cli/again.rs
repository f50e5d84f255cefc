//! After pairing: folders that the other device has or had, and that are not shared with it now, as after it was removed.

use super::context::Context;
use super::offers::{Dialogue, QUESTIONS_MAX};
use super::output::{self, clean};
use crate::api::KnownFolder;
use crate::config::{self, Config, Folder, Sharing};
use crate::core::id::DeviceId;

/// The device that was paired, and the folders in question.
pub struct Again<'a> {
    pub device: DeviceId,
    pub name: &'a str,
    pub folders: &'a [KnownFolder],
}

impl Again<'_> {
    /// Asks for each folder whether to share it, and shares those that are wanted.
    pub fn ask_each(&self, context: &Context, dialogue: &mut Dialogue) -> anyhow::Result<Vec<Folder>> {
        let mut shared = Vec::new();
        for (config, folder) in self.unshared(context)? {
            // Whoever is asked did not think of this folder, so nothing leaves the device at a mere Enter.
            let question = format!("{} [y/N] ", self.question(context, &folder));
            if is_wanted(&question, dialogue)? {
                shared.extend(self.share(context, &folder)?);
            } else {
                dialogue.say(&format!("Not shared. Later: {}\n", self.command(&config, &folder)))?;
            }
        }
        Ok(shared)
    }

    /// What to type for each of them, where nobody can be asked.
    pub fn hints(&self, context: &Context) -> anyhow::Result<String> {
        let hint = |(config, folder): &(Config, Folder)| {
            format!("{} To share it: {}\n", self.state(context, folder), self.command(config, folder))
        };
        Ok(self.unshared(context)?.iter().map(hint).collect())
    }

    /// What is told of one that is shared from now on.
    pub fn told(&self, folder: &Folder) -> String {
        format!("{} is shared with {} again.\n", clean(&folder.label), clean(self.name))
    }

    /// Those that are here and not shared yet; the other terminal of this device may have been quicker.
    fn unshared(&self, context: &Context) -> anyhow::Result<Vec<(Config, Folder)>> {
        let config = context.config()?;
        let found = self.folders.iter().filter_map(|known| known.id.parse().ok().and_then(|id| config.folder(&id)));
        let left = found.filter(|folder| !config.shares(folder, &self.device));
        Ok(left.map(|folder| (config.clone(), folder.clone())).collect())
    }

    fn state(&self, context: &Context, folder: &Folder) -> String {
        let is_offered = self.folders.iter().any(|known| known.id == folder.id.as_str() && known.offered);
        let place = output::short_path(&folder.path, context.home.user_dir());
        let (label, name) = (clean(&folder.label), clean(self.name));
        match is_offered {
            true => format!("'{label}' ({place}) is on {name} too, but not shared with it from here."),
            false => format!("'{label}' ({place}) was on {name} before, and is not shared with it now."),
        }
    }

    fn question(&self, context: &Context, folder: &Folder) -> String {
        format!("{} Share it with {}?", self.state(context, folder), clean(self.name))
    }

    fn sharing(&self, folder: &Folder) -> Sharing {
        match &folder.peers {
            Sharing::All => Sharing::All,
            Sharing::Only(ids) => Sharing::Only(ids.iter().copied().chain([self.device]).collect()),
        }
    }

    fn share(&self, context: &Context, folder: &Folder) -> anyhow::Result<Option<Folder>> {
        let changed = config::share_folder_with(&context.home, &folder.id, &self.device)?;
        Ok(changed.folder(&folder.id).cloned())
    }

    /// The command names all devices that are to have the folder, not only the new one.
    fn command(&self, config: &Config, folder: &Folder) -> String {
        let mut command = format!("p2psync folder share {}", output::quoted(config.word_of(folder)));
        if let Sharing::Only(ids) = self.sharing(folder) {
            for peer in ids.iter().filter_map(|id| config.peer(id)) {
                command.push_str(&format!(" --peer {}", output::quoted(&peer.name)));
            }
        }
        command
    }
}

/// True for yes, false for Enter, no and the end of the input.
fn is_wanted(question: &str, dialogue: &mut Dialogue) -> anyhow::Result<bool> {
    for _ in 0..QUESTIONS_MAX {
        dialogue.say(question)?;
        let Some(answer) = dialogue.hear()? else { return Ok(false) };
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "" | "n" | "no" => return Ok(false),
            _ => {}
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::style::Style;
    use crate::config::{NewFolder, NewPeer};
    use crate::home::Home;

    const DESK: DeviceId = DeviceId([3; 32]);
    const PHONE: DeviceId = DeviceId([4; 32]);

    fn context() -> (tempfile::TempDir, Context) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let home = Home::at(&root.join("home"), root.clone());
        for (id, name) in [(DESK, "desk"), (PHONE, "phone")] {
            config::add_peer(&home, &NewPeer { id, name: Some(name.into()), addresses: Vec::new() }).unwrap();
        }
        for (id, label) in [("d", "Docs"), ("m", "My Music")] {
            let peers = Sharing::Only(vec![PHONE]);
            let new = NewFolder { id: id.parse().unwrap(), label: label.into(), path: root.join(id), peers };
            config::add_folder(&home, &new).unwrap();
        }
        (dir, Context { home, now_ms: 0 })
    }

    fn known() -> [KnownFolder; 3] {
        let known = |id: &str, offered| KnownFolder { id: id.into(), label: id.into(), offered };
        [known("d", false), known("m", true), known("gone", true)]
    }

    fn talk(context: &Context, typed: &str) -> (Vec<Folder>, String) {
        let (mut input, mut output) = (typed.as_bytes(), Vec::new());
        let mut dialogue = Dialogue { input: &mut input, output: &mut output, style: Style::PLAIN };
        let again = Again { device: DESK, name: "desk", folders: &known() };
        let shared = again.ask_each(context, &mut dialogue).unwrap();
        (shared, String::from_utf8(output).unwrap())
    }

    #[test]
    fn yes_shares_a_folder_again_and_enter_leaves_it_with_the_command_for_later() {
        let (_dir, context) = context();
        let (shared, said) = talk(&context, "what\ny\n\n");
        assert!(said.starts_with(
            "'Docs' (~/d) was on desk before, and is not shared with it now. Share it with desk? [y/N] 'Docs'"
        ));
        assert_eq!((shared.len(), &shared[0].peers), (1, &Sharing::Only(vec![PHONE, DESK])));
        assert!(said.contains("'My Music' (~/m) is on desk too, but not shared with it from here."), "{said}");
        let later = "Not shared. Later: p2psync folder share m --peer phone --peer desk\n";
        assert!(said.ends_with(later), "{said}");
        // What is shared already is not asked for, and the end of the input shares nothing.
        let (shared, said) = talk(&context, "");
        assert!(shared.is_empty() && !said.contains("Docs") && said.contains("My Music"), "{said}");
    }

    #[test]
    fn without_a_terminal_the_commands_are_told() {
        let (_dir, context) = context();
        let again = Again { device: DESK, name: "desk", folders: &known() };
        let hints = again.hints(&context).unwrap();
        assert_eq!(hints.lines().count(), 2);
        assert!(hints.contains("now. To share it: p2psync folder share Docs --peer phone --peer desk\n"), "{hints}");
    }

    #[test]
    fn a_device_that_was_added_to_a_folder_meanwhile_keeps_it() {
        let (_dir, context) = context();
        let again = Again { device: DESK, name: "desk", folders: &known() };
        let (_, docs) = again.unshared(&context).unwrap().remove(0);
        let tablet = DeviceId([5; 32]);
        let new = NewPeer { id: tablet, name: Some("tablet".into()), addresses: Vec::new() };
        config::add_peer(&context.home, &new).unwrap();
        config::set_folder_peers(&context.home, &docs.id, &Sharing::Only(vec![PHONE, tablet])).unwrap();
        let shared = again.share(&context, &docs).unwrap().unwrap();
        assert_eq!(shared.peers, Sharing::Only(vec![PHONE, tablet, DESK]));
        // Once is enough.
        assert_eq!(again.share(&context, &docs).unwrap().unwrap().peers, shared.peers);
    }
}
