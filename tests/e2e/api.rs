//! The local API as a program uses it: plain HTTP on the socket and on the port for a browser.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use p2psync::api::FolderState;
use rusqlite::Connection;
use serde_json::Value;

use crate::harness::{Agent, FOLDER, World, wait_until};

/// Longest time that an answer or an event may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn socket(agent: &Agent) -> UnixStream {
    let stream = UnixStream::connect(agent.home.join("control.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that comes back, up to this text.
fn read_until(stream: &mut impl Read, until: &str) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while until.is_empty() || !text.contains(until) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => text.push_str(&String::from_utf8_lossy(&buffer[..length])),
        }
    }
    text
}

fn ask(mut stream: impl Read + Write, head: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    write!(stream, "{head}content-length: {length}\r\n\r\n{body}").unwrap();
    let answer = read_until(&mut stream, "");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{head}: {answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

fn http(agent: &Agent, method: &str, target: &str, body: &str) -> (u16, Value) {
    ask(socket(agent), &format!("{method} {target} HTTP/1.1\r\nhost: x\r\n"), body)
}

#[test]
fn a_program_asks_and_orders_over_http() {
    let world = World::new();
    let mut a = world.agent("a");
    a.start();
    let (status, found) = http(&a, "GET", "/v1/status", "");
    assert_eq!((status, found["name"].as_str(), &found["starting"]), (200, Some("a"), &Value::Bool(false)));
    let (status, found) = http(&a, "GET", &format!("/v1/folders/{FOLDER}"), "");
    assert_eq!((status, found["id"].as_str()), (200, Some(FOLDER)));
    a.write("a b.txt", "x");
    let target = format!("/v1/items?path={}", a.at("a%20b.txt").display());
    wait_until("the file is known", || match http(&a, "GET", &target, "") {
        (200, found) if found["state"] == "in_sync" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    for (method, target, body, status, code) in [
        ("GET", "/v1/folders/other", "", 404, "not_found"),
        ("GET", "/v1/peers/nobody", "", 404, "not_found"),
        ("POST", "/v1/folders/other/rescan", "", 404, "not_found"),
        ("POST", "/v1/restore", r#"{"path":"/nowhere","when":"latest"}"#, 404, "not_found"),
        ("POST", "/v1/restore", r#"{"path":"/nowhere"}"#, 400, "bad_request"),
        ("POST", "/v1/pairing/join", r#"{"code":"no code"}"#, 409, "refused"),
    ] {
        let (found, error) = http(&a, method, target, body);
        assert_eq!((found, error["error"]["code"].as_str()), (status, Some(code)), "{method} {target}: {error}");
    }
    let (status, done) = http(&a, "POST", &format!("/v1/folders/{FOLDER}/rescan"), "");
    assert_eq!((status, done["text"].as_str()), (200, Some("scanning")));
    let (status, done) = http(&a, "POST", "/v1/stop", "");
    assert_eq!((status, done["text"].as_str()), (200, Some("stopping")));
    assert!(a.wait_end().success());
}

#[test]
fn an_event_is_told_as_it_happens() {
    let world = World::new();
    let mut a = world.agent("a");
    a.start();
    wait_until("the first scan", || match a.folder()?.state {
        FolderState::Starting | FolderState::Scanning => Err("not yet".to_owned()),
        _ => Ok(()),
    });
    let mut stream = socket(&a);
    write!(stream, "GET /v1/events/stream HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let head = read_until(&mut stream, "event: following");
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    a.write("new.txt", "x");
    let told = read_until(&mut stream, "new.txt");
    assert!(told.contains("event: event\ndata: {"), "{told}");
}

#[test]
fn an_agent_answers_and_stops_while_its_folders_are_still_being_opened() {
    let world = World::new();
    let mut a = world.agent("a");
    // Each that cannot be opened holds the start up for seconds.
    for name in ["more", "yet-more"] {
        a.ok(&["folder", "add", world.path(name).to_str().unwrap()]);
    }
    a.start();
    a.stop();
    let indexes = fs::read_dir(a.home.join("index")).unwrap().map(|entry| entry.unwrap().path());
    let locked: Vec<Connection> = indexes
        .filter(|path| path.extension().is_some_and(|extension| extension == "db"))
        .map(|path| {
            let connection = Connection::open(path).unwrap();
            connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
            connection
        })
        .collect();
    assert_eq!(locked.len(), 3);
    a.launch();
    wait_until("it answers", || match a.status()? {
        status if status.running && status.starting => Ok(()),
        status => Err(format!("running {}, starting {}", status.running, status.starting)),
    });
    let (status, error) = http(&a, "POST", &format!("/v1/folders/{FOLDER}/rescan"), "");
    assert_eq!((status, error["error"]["code"].as_str()), (503, Some("starting")), "{error}");
    assert_eq!(http(&a, "POST", "/v1/stop", "").0, 200);
    assert!(a.wait_end().success());
    drop(locked);
    a.start();
    assert!(!a.status().unwrap().starting);
}

#[test]
fn the_port_for_a_browser_is_open_to_those_who_have_the_token_as_long_as_the_config_says_so() {
    let world = World::new();
    let mut a = world.agent("a");
    a.start();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = fs::read_to_string(a.home.join("config.toml")).unwrap();
    a.write_config(&format!("{config}\n[api]\nbrowser_port = {port}\n"));
    let connect = || TcpStream::connect(("127.0.0.1", port));
    wait_until("the port is open", || connect().map(drop).map_err(|e| e.to_string()));
    let token = fs::read_to_string(a.home.join("api-token")).unwrap();
    let here = format!("host: 127.0.0.1:{port}\r\n");
    let bearer = format!("authorization: Bearer {}\r\n", token.trim());
    let get = |headers: &str| ask(connect().unwrap(), &format!("GET /v1/status HTTP/1.1\r\n{headers}"), "");
    let (status, found) = get(&format!("{here}{bearer}"));
    assert_eq!((status, found["name"].as_str()), (200, Some("a")));
    for (headers, status) in [
        (here.clone(), 401),
        (format!("{here}authorization: Bearer {}\r\n", "0".repeat(64)), 401),
        (format!("host: evil.example:{port}\r\n{bearer}"), 403),
        (format!("{here}{bearer}origin: http://evil.example\r\n"), 403),
        (bearer.clone(), 403),
    ] {
        let (found, error) = get(&headers);
        assert_eq!(found, status, "{headers}: {error}");
    }
    a.write_config(&config);
    wait_until("the port is closed", || match connect() {
        Ok(_) => Err("still open".to_owned()),
        Err(_) => Ok(()),
    });
}
