//! Service files: the text that makes a system run the agent by itself.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use sha2::{Digest, Sha256};

use crate::core::id::hex;

/// Start of the line that tells a file made by us, with a sum of the rest, from one changed by hand.
const MADE_BY_US: &str = "p2psync service install, sum ";
/// Bytes of that sum: it tells changes, it guards against nobody.
const SUM_BYTES: usize = 8;

/// Systems that can run the agent in the background.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum System {
    /// Linux: a user unit
    #[cfg_attr(not(any(target_os = "macos", windows)), default)]
    Systemd,
    /// macOS: a launch agent
    #[cfg_attr(target_os = "macos", default)]
    Launchd,
    /// Windows: a task for the Task Scheduler
    #[cfg_attr(windows, default)]
    Windows,
}

/// What is to be run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    pub path: PathBuf,
    /// Where it is not the usual one.
    pub home: Option<PathBuf>,
    /// Where the system has no journal.
    pub log_file: PathBuf,
}

/// The service file for a system.
pub fn text(system: System, program: &Program) -> String {
    match system {
        System::Systemd => systemd(program),
        System::Launchd => launchd(program),
        System::Windows => windows(program),
    }
}

/// Whether a systemd unit is as we made it, whatever the version that made it.
pub fn is_unchanged(unit: &str) -> bool {
    let Some((first, rest)) = unit.split_once('\n') else { return false };
    first.split_once(MADE_BY_US).is_some_and(|(_, sum)| sum.trim() == sum_of(rest))
}

fn systemd(program: &Program) -> String {
    let mut command = quoted(&program.path);
    if let Some(home) = &program.home {
        let _ = write!(command, " --home {}", quoted(home));
    }
    let rest = format!(
        "# Changes belong into a drop-in: systemctl --user edit p2psync\n\
         [Unit]\n\
         Description=p2psync, keeps folders the same on your devices\n\
         Documentation=man:p2psync(1)\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={command} run\n\
         ExecReload=/bin/kill -HUP $MAINPID\n\
         Restart=on-failure\n\
         RestartSec=5\n\
         # The command line is wrong, which no restart puts right.\n\
         RestartPreventExitStatus=2\n\
         WatchdogSec=120\n\
         # A large index that is checked after a crash takes its time.\n\
         TimeoutStartSec=infinity\n\
         NoNewPrivileges=yes\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n"
    );
    format!("# {MADE_BY_US}{}\n{rest}", sum_of(&rest))
}

/// A word of a systemd command line: nothing in it is taken for a variable, a specifier or an escape.
fn quoted(path: &Path) -> String {
    let mut word = String::from("\"");
    for c in path.to_string_lossy().chars() {
        match c {
            '"' | '\\' => word.extend(['\\', c]),
            '%' | '$' => word.extend([c, c]),
            '\n' => word.push_str("\\n"),
            _ => word.push(c),
        }
    }
    word.push('"');
    word
}

fn launchd(program: &Program) -> String {
    let words: String = words(program).iter().map(|word| format!("    <string>{}</string>\n", escaped(word))).collect();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- Save as ~/Library/LaunchAgents/p2psync.plist, then: launchctl bootstrap gui/$(id -u) ~/Library/LaunchAgents/p2psync.plist -->
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>p2psync</string>
  <key>ProgramArguments</key>
  <array>
{words}  </array>
  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <dict>
    <key>SuccessfulExit</key>
    <false/>
  </dict>
  <key>ThrottleInterval</key>
  <integer>10</integer>
  <key>ProcessType</key>
  <string>Standard</string>
</dict>
</plist>
"#
    )
}

fn windows(program: &Program) -> String {
    let path = escaped(&program.path.to_string_lossy());
    let rest: Vec<String> = words(program).iter().skip(1).map(|word| windows_word(word)).collect();
    let arguments = escaped(&rest.join(" "));
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- Save as p2psync.xml, then: schtasks /Create /TN p2psync /XML p2psync.xml -->
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>p2psync, keeps folders the same on your devices</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Enabled>true</Enabled>
    </LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <Hidden>true</Hidden>
    <RestartOnFailure>
      <Interval>PT1M</Interval>
      <Count>999</Count>
    </RestartOnFailure>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{path}</Command>
      <Arguments>{arguments}</Arguments>
    </Exec>
  </Actions>
</Task>
"#
    )
}

/// The command line where there is no journal.
fn words(program: &Program) -> Vec<String> {
    let mut words = vec![program.path.to_string_lossy().into_owned()];
    if let Some(home) = &program.home {
        words.extend(["--home".to_owned(), home.to_string_lossy().into_owned()]);
    }
    words.extend(["run".to_owned(), "--log-file".to_owned(), program.log_file.to_string_lossy().into_owned()]);
    words
}

fn windows_word(word: &str) -> String {
    if word.contains([' ', '\t']) { format!("\"{word}\"") } else { word.to_owned() }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn sum_of(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes())[..SUM_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Program {
        Program {
            path: "/opt/p2p sync/p2psync".into(),
            home: Some("/home/me & co/100% $x".into()),
            log_file: "/var/log/p2psync.log".into(),
        }
    }

    #[test]
    fn the_systemd_unit_is_as_it_should_be() {
        insta::assert_snapshot!(text(System::Systemd, &program()));
    }

    #[test]
    fn the_launchd_agent_is_as_it_should_be() {
        insta::assert_snapshot!(text(System::Launchd, &program()));
    }

    #[test]
    fn the_windows_task_is_as_it_should_be() {
        insta::assert_snapshot!(text(System::Windows, &program()));
    }

    #[test]
    fn a_unit_changed_by_hand_is_told_from_one_of_ours() {
        let unit = text(System::Systemd, &program());
        assert!(is_unchanged(&unit));
        assert!(!is_unchanged(&unit.replace("WatchdogSec=120", "WatchdogSec=10")));
        assert!(!is_unchanged("[Service]\nExecStart=/bin/true\n"));
        assert!(!is_unchanged(""));
    }

    #[test]
    fn the_unit_of_the_package_is_the_one_that_install_writes() {
        let packaged = include_str!("../../../packaging/p2psync.service");
        let program = Program { path: super::super::PACKAGED_PROGRAM.into(), home: None, log_file: "/log".into() };
        let written = text(System::Systemd, &program);
        let rest = |unit: &str| unit.split_once('\n').map(|(_, rest)| rest.to_owned());
        assert_eq!(rest(packaged), rest(&written));
    }

    #[test]
    fn nothing_in_a_path_means_something_to_systemd() {
        assert_eq!(quoted(Path::new("/a b/\"c\"/100%/$HOME\\")), r#""/a b/\"c\"/100%%/$$HOME\\""#);
    }
}
