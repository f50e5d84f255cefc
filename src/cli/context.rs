//! What all commands need: the home, the time, the config, and the agent if one runs.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::exit::misuse;
use super::output::{self, clean};
use crate::api::client::{self, ClientError};
use crate::api::{Reply, Request};
use crate::config::{self, Config, ConfigError, Folder, Peer};
use crate::core::id::DeviceId;
use crate::core::nearest::nearest;
use crate::engine;
use crate::home::Home;

/// Time for an agent to answer: it reads an index for some answers, maybe from a slow disk.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Labels in one message; more would bury what it says.
const LABELS_NAMED_MAX: usize = 8;

/// Where a command acts.
pub struct Context {
    pub home: Home,
    /// Milliseconds since 1970 UTC.
    pub now_ms: i64,
}

impl Context {
    pub fn new(home: Option<&Path>) -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { home: Home::find(home)?, now_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX) })
    }

    /// This device's id; its key is made where there is none.
    pub fn device_id(&self) -> anyhow::Result<DeviceId> {
        self.home.create()?;
        engine::agent::device_id(&self.home)
    }

    /// Makes the config with the first folder where there is none.
    pub fn set_up(&self) -> anyhow::Result<()> {
        let folder = self.home.default_folder();
        self.home.create()?;
        if config::create(&self.home, Some(&folder))? {
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        Ok(())
    }

    pub fn config(&self) -> Result<Config, ConfigError> {
        config::load(&self.home)
    }

    /// Asks the agent; the error tells a missing one apart.
    pub fn ask(&self, request: &Request) -> Result<Reply, ClientError> {
        client::ask(&self.home, request, ANSWER_TIME)
    }

    /// Asks the agent, or reads the index where none runs. `pick` takes the wanted value out of the reply.
    pub fn ask_or_read<T>(
        &self,
        request: &Request,
        pick: impl FnOnce(Reply) -> Option<T>,
        read: impl FnOnce(&Config) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        match self.ask(request) {
            Ok(reply) => {
                pick(reply).context("the agent answered something else; it may be of another version: restart it")
            }
            Err(ClientError::NotRunning) => read(&self.config()?),
            Err(other) => Err(other.into()),
        }
    }

    /// Asks for something to be done and returns the agent's words.
    pub fn order(&self, request: &Request) -> anyhow::Result<String> {
        match self.ask(request)? {
            Reply::Done { text } => Ok(text),
            _ => Ok("Done.".to_owned()),
        }
    }

    /// Tells a running agent that the config has changed. The change itself is made, so trouble is only reported.
    pub fn reload(&self) {
        match self.ask(&Request::Reload) {
            Ok(_) | Err(ClientError::NotRunning) => {}
            Err(error) => {
                output::tell(&format!("p2psync: saved, but the running agent did not take it up: {error}\n"));
            }
        }
    }

    /// The path of an entry as its folder's config spells it; where the words name a path in no folder, an error.
    pub fn path_in_folder(&self, config: &Config, given: &Path) -> anyhow::Result<PathBuf> {
        let path = absolute(given)?;
        if config.folder_at(&path).is_some() {
            return Ok(path);
        }
        // The same place may be reached through links on either side.
        for folder in &config.folders {
            if let Ok(rest) = path.strip_prefix(config::resolve(&folder.path)) {
                return Ok(if rest.as_os_str().is_empty() { folder.path.clone() } else { folder.path.join(rest) });
            }
        }
        let shown = clean(&given.to_string_lossy());
        Err(misuse(format!("{shown} is in none of your folders; 'p2psync folder list' shows them")))
    }
}

/// The absolute path, without `.` and `..`. Its last component is not followed: it may be a link that is synced.
pub fn absolute(given: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(given).with_context(|| format!("cannot make {} absolute", given.display()))?;
    let has_dots = path.components().any(|c| c == std::path::Component::ParentDir);
    match (has_dots, path.parent(), path.file_name()) {
        (true, Some(parent), Some(name)) => Ok(config::resolve(parent).join(name)),
        (true, ..) => Ok(config::resolve(&path)),
        (false, ..) => Ok(path.components().collect()),
    }
}

/// The peer with this name, id or short id.
pub fn find_peer<'a>(config: &'a Config, word: &str) -> anyhow::Result<&'a Peer> {
    config.find_peer(word).ok_or_else(|| unknown("peer", word, config.peers.iter().map(|p| p.name.as_str())))
}

/// The folder with this id, label or path, or the only one.
pub fn find_folder<'a>(config: &'a Config, word: Option<&str>) -> anyhow::Result<&'a Folder> {
    let Some(word) = word else {
        return match &config.folders[..] {
            [] => Err(misuse("there is no folder yet; 'p2psync folder add PATH' makes one")),
            [only] => Ok(only),
            several => {
                let labels: Vec<String> = several.iter().map(|f| clean(&f.label)).take(LABELS_NAMED_MAX).collect();
                let rest = if several.len() > labels.len() { ", ..." } else { "" };
                let labels = labels.join(", ");
                let text = "('p2psync folder list' shows them)";
                Err(misuse(format!("there are several folders: say which, of {labels}{rest} {text}")))
            }
        };
    };
    if let Some(folder) = config.folders.iter().find(|f| f.id.as_str() == word) {
        return Ok(folder);
    }
    let path = absolute(Path::new(word)).ok();
    let mut fitting = config.folders.iter().filter(|f| f.label == word || Some(&f.path) == path.as_ref());
    match (fitting.next(), fitting.next()) {
        (Some(folder), None) => Ok(folder),
        (Some(_), Some(_)) => {
            let word = clean(word);
            Err(misuse(format!(
                "several folders are labelled '{word}': give the id ('p2psync folder list' shows them)"
            )))
        }
        (None, _) => {
            let known = config.folders.iter().flat_map(|f| [f.label.as_str(), f.id.as_str()]);
            Err(unknown("folder", word, known))
        }
    }
}

/// What is said of a name that nothing has: which, what was meant, and where all are shown.
fn unknown<'a>(kind: &str, word: &str, known: impl Iterator<Item = &'a str>) -> anyhow::Error {
    let meant = nearest(word, known).map(|name| format!("did you mean '{}'? ", clean(name))).unwrap_or_default();
    misuse(format!("there is no {kind} '{}'; {meant}'p2psync {kind} list' shows all", clean(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NewFolder, NewPeer, Sharing};

    /// A home with folders at `docs` (id `d`), and at `link`, which leads to `real` (id `l`); both labelled alike.
    fn context() -> (tempfile::TempDir, Context) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/sub")).unwrap();
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).unwrap();
        let home = Home::at(&root.join("home"), root.clone());
        for (id, name) in [("d", "docs"), ("l", "link")] {
            let id = id.parse().unwrap();
            config::add_folder(
                &home,
                &NewFolder { id, label: "same".into(), path: root.join(name), peers: Sharing::All },
            )
            .unwrap();
        }
        (dir, Context { home, now_ms: 0 })
    }

    #[test]
    fn a_folder_is_found_by_id_label_or_path() {
        let (_dir, context) = context();
        let config = context.config().unwrap();
        assert_eq!(find_folder(&config, Some("d")).unwrap().id.as_str(), "d");
        let path = context.home.user_dir().join("link");
        assert_eq!(find_folder(&config, path.to_str()).unwrap().id.as_str(), "l");
        let message = |word| find_folder(&config, word).unwrap_err().to_string();
        assert!(message(Some("same")).contains("several folders are labelled"));
        assert!(message(Some("x")).contains("no folder 'x'"));
        assert!(message(Some("smae")).contains("did you mean 'same'?"));
        assert!(message(None).contains("say which, of same, same"), "{}", message(None));
        let only = config::remove_folder(&context.home, &"l".parse().unwrap()).unwrap();
        assert_eq!(find_folder(&only, None).unwrap().id.as_str(), "d");
        assert_eq!(find_folder(&only, Some("same")).unwrap().id.as_str(), "d");
    }

    #[test]
    fn a_peer_is_found_by_name_id_or_short_id() {
        let (_dir, context) = context();
        let id = DeviceId([3; 32]);
        let peer = NewPeer { id, name: Some("desk".into()), addresses: Vec::new() };
        let config = config::add_peer(&context.home, &peer).unwrap();
        for word in ["desk", &id.to_string(), &id.short().to_lowercase()] {
            assert_eq!(find_peer(&config, word).unwrap().id, id, "{word}");
        }
        assert!(find_peer(&config, "phone").is_err());
        assert!(find_peer(&config, "dekk").unwrap_err().to_string().contains("did you mean 'desk'?"));
    }

    #[test]
    fn a_path_is_spelled_as_its_folder_is() {
        let (_dir, context) = context();
        let (config, root) = (context.config().unwrap(), context.home.user_dir().to_owned());
        let spelled = |given: &str| context.path_in_folder(&config, &root.join(given)).ok();
        assert_eq!(spelled("docs/gone.txt"), Some(root.join("docs/gone.txt")));
        assert_eq!(spelled("real/sub/x"), Some(root.join("link/sub/x")));
        assert_eq!(spelled("real/sub/../x"), Some(root.join("link/x")));
        assert_eq!(spelled("real"), Some(root.join("link")));
        assert_eq!(spelled("elsewhere"), None);
    }

    #[test]
    fn a_missing_agent_means_reading_the_index() {
        let (_dir, context) = context();
        let read = context.ask_or_read(&Request::Status, |_| None, |config| Ok(config.folders.len()));
        assert_eq!(read.unwrap(), 2);
        context.reload();
        assert!(context.order(&Request::Rescan { folder: None }).unwrap_err().to_string().contains("not running"));
    }
}
