//! The port for a browser: open as long as the config says so.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::api::browser::Token;
use crate::api::{self, Handler};
use crate::home::Home;

/// The port that is open, if one is.
#[derive(Default)]
pub struct BrowserPort {
    port: Option<NonZeroU16>,
    serving: JoinSet<()>,
}

impl BrowserPort {
    /// Opens this port in place of another. One that cannot be opened is no reason to sync nothing; it is tried again
    /// when the config is read the next time.
    pub async fn set(&mut self, port: Option<NonZeroU16>, home: &Home, handler: Arc<dyn Handler>) {
        if self.port == port {
            return;
        }
        self.port = None;
        self.serving.shutdown().await;
        let Some(port) = port else { return };
        match open(port, home).await {
            Ok((listener, token)) => {
                tracing::info!(%port, token = %home.token_file().display(), "a browser can ask this agent");
                self.serving.spawn(api::serve_browser(listener, handler, token));
                self.port = Some(port);
            }
            Err(error) => tracing::error!(%port, "the port for a browser cannot be opened: {error:#}"),
        }
    }
}

async fn open(port: NonZeroU16, home: &Home) -> anyhow::Result<(TcpListener, Token)> {
    let token = Token::load_or_create(&home.token_file())?;
    Ok((TcpListener::bind((Ipv4Addr::LOCALHOST, port.get())).await?, token))
}
