//! As much of HTTP as the API of an agent on this machine needs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// An API that speaks JSON on a port of the loopback address.
pub struct Api {
    pub port: u16,
    pub key: String,
}

impl Api {
    pub fn get(&self, path: &str, bound: Duration) -> anyhow::Result<Value> {
        self.ask("GET", path, "", bound)
    }

    pub fn send(&self, method: &str, path: &str, body: &Value, bound: Duration) -> anyhow::Result<()> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.ask(method, path, &body, bound).map(drop)
    }

    /// The answer's body: null where it is none, or not JSON. The bound is for each wait of the socket.
    fn ask(&self, method: &str, path: &str, body: &str, bound: Duration) -> anyhow::Result<Value> {
        let shown = || format!("{method} {path}");
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).with_context(shown)?;
        stream.set_read_timeout(Some(bound))?;
        stream.set_write_timeout(Some(bound))?;
        // Version 1.0, so that the answer comes in one piece and ends with the connection.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{}\r\nX-API-Key: {}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            self.key,
            body.len()
        );
        stream.write_all(request.as_bytes()).with_context(shown)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).with_context(shown)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").with_context(shown).context("an answer without an end")?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            bail!("{} was answered with {status}: {}", shown(), body.trim());
        }
        Ok(serde_json::from_str(body).unwrap_or(Value::Null))
    }
}
