//! `p2psync pair`.

use std::time::Duration;

use super::context::Context;
use super::output::{self, clean};
use crate::api::client::{self, ClientError};
use crate::api::{Reply, Request};

/// Longest time for joining: finding the other device, and the handshake.
const JOIN_TIME: Duration = Duration::from_secs(120);

/// Shows a code and waits, or joins the device that shows this code. Ctrl-C closes the connection, which cancels.
pub fn run(context: &Context, code: Option<String>) -> anyhow::Result<()> {
    let (request, time) = match code {
        None => (Request::PairShow, None),
        Some(code) => (Request::PairJoin { code }, Some(JOIN_TIME)),
    };
    let mut trouble = Ok(());
    let answer = client::converse(&context.home, &request, time, |reply| {
        let text = match reply {
            Reply::PairCode { code, valid_seconds } => showing(&clean(&code), valid_seconds),
            Reply::Progress { text } => format!("{}\n", clean(&text)),
            _ => return,
        };
        if trouble.is_ok() {
            trouble = output::print(&text);
        }
    });
    trouble?;
    match answer {
        Ok(Reply::Paired { name, device_id, folders }) => output::print(&paired(&name, &device_id, &folders)),
        Ok(Reply::Done { text }) => output::print(&format!("{}\n", clean(&text))),
        Ok(_) => Ok(()),
        Err(error @ ClientError::NotRunning) => {
            Err(anyhow::Error::from(error).context("pairing needs the agent on both devices"))
        }
        Err(e) => Err(e.into()),
    }
}

fn showing(code: &str, valid_seconds: u64) -> String {
    let minutes = valid_seconds.div_ceil(60);
    format!(
        "Type this on the other device, within {}:\n\n    p2psync pair {code}\n\nWaiting for it (Ctrl-C cancels) ...\n",
        output::count(minutes, "minute", "minutes")
    )
}

fn paired(name: &str, device_id: &str, folders: &[String]) -> String {
    let short = device_id.split('-').next().unwrap_or_default();
    let labels: Vec<String> = folders.iter().map(|f| clean(f)).collect();
    let shared = match &labels[..] {
        [] => "No folder is shared with it yet: p2psync folder add PATH".to_owned(),
        labels => format!("Shared with it: {}. 'p2psync status' shows how it goes.", labels.join(", ")),
    };
    format!("Paired with {} ({}).\n{shared}\n", clean(name), clean(short))
}
