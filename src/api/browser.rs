//! The same routes on a port of this machine, for a browser.
//!
//! Architecture invariant: the port is open to every user and every web page on this machine, so nothing is answered
//! without the token, and nothing that a foreign page had a browser ask for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use super::reply::Failure;
use super::routes;

/// Random bytes in a token: nobody guesses them.
const TOKEN_BYTES: usize = 32;
/// Where a browser says which page it asks for.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whoever has it may give the agent orders.
#[derive(Clone)]
pub struct Token(String);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot {doing} the file of the API token {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// What a request needs to be let in at a port.
struct Gate {
    token: Token,
    port: u16,
}

/// How a request is let in.
#[derive(PartialEq, Eq, Debug)]
enum Entry {
    /// It has shown the token as programs do, or as a browser does that has it in a cookie.
    Known,
    /// The token was in the address: it goes into a cookie, and the browser on to the address without it.
    New { address: String },
}

impl Token {
    /// Reads the token, or makes one where there is none, or one that others could read.
    pub fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        let failed = |doing| move |source| TokenError::Io { doing, path: path.to_owned(), source };
        match read(path) {
            Ok(Some(token)) => return Ok(Self(token)),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("read")(error)),
        }
        let mut bytes = [0; TOKEN_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| failed("fill")(io::Error::other("no random bytes")))?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        write(path, &token).map_err(failed("write"))?;
        Ok(Self(token))
    }

    /// Compares in a time that tells nothing of where the two differ.
    fn is(&self, given: &str) -> bool {
        let (own, given) = (Sha256::digest(self.0.as_bytes()), Sha256::digest(given.as_bytes()));
        own.iter().zip(given.iter()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

/// These routes behind the checks for a port.
pub fn guarded(router: Router, token: Token, port: u16) -> Router {
    let gate = Arc::new(Gate { token, port });
    router.layer(from_fn(move |request: Request, next: Next| {
        let gate = Arc::clone(&gate);
        async move { gate.pass(request, next).await }
    }))
}

impl Gate {
    async fn pass(&self, request: Request, next: Next) -> Response {
        let mut response = match self.check(request.method(), request.uri(), request.headers()) {
            Ok(Entry::Known) => next.run(request).await,
            Ok(Entry::New { address }) => self.remembering(&address),
            Err(failure) => failure.into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        response
    }

    fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Entry, Failure> {
        let forbidden = |text: &str| Failure::new(StatusCode::FORBIDDEN, "not_allowed", text);
        // A name of another's that leads here would make this a part of that page's site.
        let host = only(headers, header::HOST).filter(|host| self.names().iter().any(|name| name == host));
        let host = host.ok_or_else(|| forbidden("use the address http://127.0.0.1 with the port of this agent"))?;
        let is_own = |origin: &str| origin.strip_prefix("http://") == Some(host);
        if headers.contains_key(header::ORIGIN) && !only(headers, header::ORIGIN).is_some_and(is_own) {
            return Err(forbidden("another web page may not ask this agent anything"));
        }
        if let Some(query) = uri.query()
            && let Some((_, given)) = routes::pairs(query).find(|(name, _)| *name == "token")
            && self.token.is(given)
            && *method == Method::GET
        {
            let rest: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("token=")).collect();
            let mark = if rest.is_empty() { "" } else { "?" };
            return Ok(Entry::New { address: format!("{}{mark}{}", uri.path(), rest.join("&")) });
        }
        let is_known = self.bearer(headers) || self.cookie(headers);
        if !is_known {
            let text = "the token is missing or wrong; it is in the file 'api-token' beside the config file";
            return Err(Failure::new(StatusCode::UNAUTHORIZED, "no_token", text));
        }
        // A cookie goes with what a page from another port of this machine asks for; a token in a header does not.
        let is_foreign = headers.get(FETCH_SITE).is_some_and(|site| site != "same-origin" && site != "none");
        if is_foreign && !self.bearer(headers) {
            return Err(forbidden("another web page may not ask this agent anything"));
        }
        Ok(Entry::Known)
    }

    /// What this port may be called.
    fn names(&self) -> [String; 3] {
        ["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{}", self.port))
    }

    fn bearer(&self, headers: &HeaderMap) -> bool {
        let given = only(headers, header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        given.is_some_and(|given| self.token.is(given))
    }

    fn cookie(&self, headers: &HeaderMap) -> bool {
        let name = self.cookie_name();
        let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(found, value)| found == name && self.token.is(value))
    }

    /// Cookies go to all ports of a host, so that several agents need names of their own.
    fn cookie_name(&self) -> String {
        format!("p2psync-{}", self.port)
    }

    fn remembering(&self, address: &str) -> Response {
        let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie_name(), self.token.0);
        // Two slashes at the start would name another host.
        let address = format!("/{}", address.trim_start_matches('/'));
        let mut response = StatusCode::SEE_OTHER.into_response();
        for (name, value) in [(header::SET_COOKIE, cookie), (header::LOCATION, address)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// The value of a header that may be there only once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// The token in a file; `None` where it is not whole, or not private.
fn read(path: &Path) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    let is_private = file.metadata()?.mode() & 0o077 == 0;
    let mut text = String::new();
    file.take(2 * TOKEN_BYTES as u64 + 2).read_to_string(&mut text)?;
    let token = text.trim_end().to_owned();
    let is_whole = token.len() == 2 * TOKEN_BYTES && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok((is_private && is_whole).then_some(token))
}

/// Beside it and renamed, so that there is never half a token.
fn write(path: &Path, token: &str) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const TOKEN: &str = "0123";
    const PORT: u16 = 7726;

    fn check(method: Method, uri: &str, headers: &[(&str, &str)]) -> Result<Entry, (u16, &'static str)> {
        let gate = Gate { token: Token(TOKEN.to_owned()), port: PORT };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let checked = gate.check(&method, &uri.parse().unwrap(), &map);
        checked.map_err(|failure| (failure.status.as_u16(), failure.code))
    }

    const HERE: (&str, &str) = ("host", "127.0.0.1:7726");
    const BEARER: (&str, &str) = ("authorization", "Bearer 0123");
    const COOKIE: (&str, &str) = ("cookie", "a=b; p2psync-7726=0123");

    #[test]
    fn the_token_lets_in_as_a_header_or_a_cookie() {
        for headers in [
            &[HERE, BEARER][..],
            &[HERE, COOKIE],
            &[("host", "localhost:7726"), COOKIE, ("origin", "http://localhost:7726")],
            &[("host", "[::1]:7726"), BEARER],
            &[HERE, COOKIE, ("sec-fetch-site", "same-origin")],
            &[HERE, COOKIE, ("sec-fetch-site", "none")],
        ] {
            for method in [Method::GET, Method::POST] {
                assert_eq!(check(method, "/v1/status", headers), Ok(Entry::Known), "{headers:?}");
            }
        }
    }

    #[test]
    fn without_the_token_nothing_is_answered() {
        for headers in [
            &[HERE][..],
            &[HERE, ("authorization", "Bearer 0124")],
            &[HERE, ("authorization", "Bearer ")],
            &[HERE, ("authorization", "0123")],
            &[HERE, BEARER, BEARER],
            &[HERE, ("cookie", "p2psync-7727=0123")],
            &[HERE, ("cookie", "p2psync-7726=01")],
        ] {
            assert_eq!(check(Method::GET, "/v1/status", headers), Err((401, "no_token")), "{headers:?}");
        }
        assert_eq!(check(Method::GET, "/v1/status?token=9", &[HERE]), Err((401, "no_token")));
        assert_eq!(check(Method::POST, "/v1/stop?token=0123", &[HERE]), Err((401, "no_token")));
    }

    #[test]
    fn another_name_of_the_port_is_refused() {
        for host in ["evil.example:7726", "127.0.0.1", "127.0.0.1:7727", "localhost.evil.example:7726", ""] {
            assert_eq!(
                check(Method::GET, "/v1/status", &[("host", host), BEARER]),
                Err((403, "not_allowed")),
                "{host}"
            );
        }
        assert_eq!(check(Method::GET, "/v1/status", &[BEARER]), Err((403, "not_allowed")));
        assert_eq!(check(Method::GET, "/v1/status", &[HERE, HERE, BEARER]), Err((403, "not_allowed")));
        assert_eq!(check(Method::GET, "/?token=0123", &[("host", "evil.example")]), Err((403, "not_allowed")));
    }

    #[test]
    fn another_page_is_refused() {
        for origin in ["http://evil.example", "https://127.0.0.1:7726", "http://127.0.0.1:3000", "null", ""] {
            for token in [BEARER, COOKIE] {
                let found = check(Method::POST, "/v1/stop", &[HERE, token, ("origin", origin)]);
                assert_eq!(found, Err((403, "not_allowed")), "{origin}");
            }
        }
        // The same machine by another of its names is another page.
        let found = check(Method::GET, "/v1/status", &[HERE, COOKIE, ("origin", "http://localhost:7726")]);
        assert_eq!(found, Err((403, "not_allowed")));
        for site in ["cross-site", "same-site"] {
            let found = check(Method::GET, "/v1/status", &[HERE, COOKIE, ("sec-fetch-site", site)]);
            assert_eq!(found, Err((403, "not_allowed")), "{site}");
        }
    }

    #[test]
    fn a_token_in_the_address_moves_into_a_cookie() {
        let entry = check(Method::GET, "/v1/events?token=0123&count=5", &[HERE]);
        assert_eq!(entry, Ok(Entry::New { address: "/v1/events?count=5".to_owned() }));
        let gate = Gate { token: Token(TOKEN.to_owned()), port: PORT };
        let response = gate.remembering("//evil.example/");
        assert_eq!(response.status(), 303);
        assert_eq!(response.headers()["location"], "/evil.example/");
        let cookie = response.headers()["set-cookie"].to_str().unwrap();
        assert_eq!(cookie, "p2psync-7726=0123; Path=/; HttpOnly; SameSite=Strict");
    }

    #[test]
    fn a_token_is_private_kept_and_made_anew_where_others_could_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-token");
        let load = || Token::load_or_create(&path).unwrap().0;
        let first = load();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!((first.len(), load()), (64, first.clone()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let second = load();
        assert_ne!(second, first);
        fs::write(&path, &second[..20]).unwrap();
        assert_ne!(load(), second);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
