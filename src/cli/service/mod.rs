//! `p2psync service`: the agent in the background, looked after by the system.

mod systemd;
mod unit;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::arguments::ServiceCommand;
use super::context::Context;
use super::output;
use crate::api::Request;
use crate::api::client::ClientError;
use systemd::{NAME, Systemd};
use unit::Program;

pub use unit::System;

/// Where a package puts the unit, with the program in the usual place.
const PACKAGED_UNIT: &str = "/usr/lib/systemd/user/p2psync.service";
const PACKAGED_PROGRAM: &str = "/usr/bin/p2psync";

/// Carries out a `service` command.
pub fn run(context: &Context, command: &ServiceCommand) -> anyhow::Result<()> {
    if let ServiceCommand::Print { system } = command {
        return output::print_raw(&unit::text(*system, &program(context)?));
    }
    if System::default() != System::Systemd {
        bail!("on this system the service is set up by hand: 'p2psync service print' prints the file and says how");
    }
    match command {
        ServiceCommand::Install { replace } => install(context, *replace),
        ServiceCommand::Uninstall => uninstall(context),
        ServiceCommand::Start => start(context),
        ServiceCommand::Stop => stop(context),
        ServiceCommand::Status { json } => status(context, *json),
        ServiceCommand::Logs { follow, lines } => logs(*follow, *lines),
        ServiceCommand::Print { .. } => Ok(()),
    }
}

fn program(context: &Context) -> anyhow::Result<Program> {
    let path = std::env::current_exe().context("cannot find out where the p2psync program is")?;
    let home = context.home.one_directory().map(Path::to_owned);
    Ok(Program { path, home, log_file: context.home.log_file() })
}

/// The user's service manager, or what to do where there is none.
fn reach(context: &Context) -> anyhow::Result<Systemd> {
    let program = program(context)?;
    Systemd::reach().map_err(|why| {
        let home = program.home.iter().map(|h| format!(" --home '{}'", h.display())).collect::<String>();
        let line = format!("{}{home} run --log-file {}", program.path.display(), program.log_file.display());
        anyhow::anyhow!(
            "the system's service manager cannot be used here ({why}). Let something else start p2psync instead:\n  \
             your desktop's list of programs that start at login, with the command\n    {line}\n  \
             or 'crontab -e', with the line\n    @reboot {line}"
        )
    })
}

fn install(context: &Context, replace: bool) -> anyhow::Result<()> {
    let systemd = reach(context)?;
    no_other_agent(context, &systemd)?;
    let program = program(context)?;
    let is_packaged = program.path == Path::new(PACKAGED_PROGRAM) && program.home.is_none();
    let mut kept = None;
    if !(is_packaged && Path::new(PACKAGED_UNIT).exists() && !systemd.own_unit().exists()) {
        kept = systemd.write_unit(&unit::text(System::Systemd, &program), replace)?;
    }
    systemd.order(&["daemon-reload"])?;
    systemd.order(&["enable", NAME])?;
    // A running one goes on as the new program.
    order(&systemd, "restart")?;
    let kept: String = kept
        .iter()
        .map(|old: &PathBuf| format!("The service file from before is kept as {}.\n", old.display()))
        .collect();
    output::print(&format!(
        "p2psync runs in the background now, and whenever you are logged in.\n{kept}\
         To have it run from boot on, also when you are not: loginctl enable-linger\n\
         'p2psync status' shows how things are, 'p2psync service logs' what it says.\n"
    ))
}

fn uninstall(context: &Context) -> anyhow::Result<()> {
    let systemd = reach(context)?;
    systemd.installed_unit()?;
    systemd.order(&["disable", "--now", NAME])?;
    let kept = systemd.remove_unit()?;
    systemd.order(&["daemon-reload"])?;
    let kept: String =
        kept.iter().map(|old| format!("Your changed service file is kept as {}.\n", old.display())).collect();
    output::print(&format!(
        "p2psync no longer runs by itself. Your folders, key and settings stay as they are.\n{kept}"
    ))
}

fn start(context: &Context) -> anyhow::Result<()> {
    let systemd = reach(context)?;
    systemd.installed_unit()?;
    no_other_agent(context, &systemd)?;
    order(&systemd, "start")?;
    output::print("p2psync runs. 'p2psync status' shows how things are.\n")
}

fn stop(context: &Context) -> anyhow::Result<()> {
    let systemd = reach(context)?;
    systemd.installed_unit()?;
    systemd.order(&["stop", NAME])?;
    output::print("p2psync has stopped. It starts again at the next login, or with: p2psync service start\n")
}

/// Starts or restarts the service; it counts as started when the agent says that it is ready.
fn order(systemd: &Systemd, verb: &str) -> anyhow::Result<()> {
    systemd.order(&[verb, NAME]).context("the service is set up but does not start; 'p2psync service logs' says why")
}

/// A service can't run beside an agent that someone has started in a terminal.
fn no_other_agent(context: &Context, systemd: &Systemd) -> anyhow::Result<()> {
    if !systemd.is_active() && is_agent_running(context) {
        bail!(
            "p2psync is running already, started by hand: stop it first (Ctrl-C where it was started), then try again"
        );
    }
    Ok(())
}

fn is_agent_running(context: &Context) -> bool {
    !matches!(context.ask(&Request::Status), Err(ClientError::NotRunning))
}

fn status(context: &Context, as_json: bool) -> anyhow::Result<()> {
    let running = is_agent_running(context);
    let (unit, enabled, active, manager) = match Systemd::reach() {
        Ok(systemd) => (systemd.installed_unit().ok(), systemd.is_enabled(), systemd.is_active(), true),
        Err(_) => (None, false, false, false),
    };
    let text = match (unit.is_some(), enabled, active, running) {
        _ if !manager => "the system's service manager cannot be used here; 'p2psync service install' says what to do",
        (false, .., true) => "not set up as a service; an agent started by hand is running",
        (false, ..) => "not set up; 'p2psync service install' does that",
        (true, true, true, _) => "set up and running",
        (true, false, true, _) => "running, but it won't start at the next login: p2psync service install",
        (true, _, false, true) => "set up, but an agent started by hand is running instead",
        (true, _, false, false) => {
            "set up, but not running; 'p2psync service start' starts it, 'p2psync service logs' \
                                    says why it ended"
        }
    };
    if as_json {
        return output::print_json(&json!({
            "installed": unit.is_some(), "enabled": enabled, "active": active, "agent_running": running,
            "unit": unit.map(|u| u.to_string_lossy().into_owned()), "text": text,
        }));
    }
    let place: String =
        unit.iter().map(|unit| format!("Service file: {}\n", output::clean(&unit.to_string_lossy()))).collect();
    output::print(&format!("The service is {text}.\n{place}").replace("The service is the system", "The system"))
}

fn logs(follow: bool, lines: u32) -> anyhow::Result<()> {
    let mut command = Command::new("journalctl");
    command.args(["--user", "--unit", NAME, "--no-pager", "--lines", &lines.to_string()]);
    if follow {
        command.arg("--follow");
    }
    let ended = command.stdin(Stdio::null()).status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("journalctl could not show the log ({status})"),
        Err(e) => {
            bail!("there is no journal on this system ({e}); look where the agent was told to log with --log-file")
        }
    }
}
