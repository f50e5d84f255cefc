//! The table of routes: which method and path stand for which [`Request`].
//!
//! To open a new request to the world, add its variant to [`Request`] and a line to [`ROUTES`]. All else follows from
//! the two: how the agent reads the request, how a command sends it ([`Call`]), and how it is documented. The fields of
//! the variant are found by name: first in the path (`{folder}`), then in the query of a GET or the JSON body of a
//! POST.

use serde_json::{Map, Value};

use super::message::{Request, WirePath};

/// Longest body of a request in bytes: a path and a few words.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Field that names the variant of a [`Request`].
const TAG: &str = "request";

/// All that can be asked. Where a request has several routes, the one with the most fields in its path is taken.
pub static ROUTES: [Route; 27] = [
    get("/v1/status", "status", &["status"]),
    get("/v1/folders", "folders", &["folders"]),
    get("/v1/folders/{folder}", "folder", &["folder"]),
    get("/v1/peers", "peers", &["peers"]),
    get("/v1/peers/{peer}", "peer", &["peer"]),
    get("/v1/items", "status_path", &["path"]).with(&[("path", Kind::Path)]),
    get("/v1/problems", "problems", &["problems"]),
    get("/v1/conflicts", "conflicts", &["conflicts"]),
    get("/v1/history", "history", &["history"]).with(&[("path", Kind::Path)]),
    get("/v1/history/usage", "history_usage", &["history_usage"]).with(&[("folder", Kind::Text)]),
    post("/v1/history/prune", "history_prune", &["pruned"]),
    get("/v1/events", "events", &["events"]).with(&[("count", Kind::Number)]),
    get("/v1/events/stream", "follow", &["following", "event", "missed"]).answering(Format::Events),
    post("/v1/reload", "reload", &["done"]),
    post("/v1/rescan", "rescan", &["done"]),
    post("/v1/folders/{folder}/rescan", "rescan", &["done"]),
    post("/v1/folders/{folder}/confirm-changes", "confirm", &["done"]),
    post("/v1/folders/{folder}/reject-changes", "reject", &["done"]),
    post("/v1/folders/{folder}/override", "override", &["done"]),
    post("/v1/folders/{folder}/revert", "revert", &["done"]),
    post("/v1/restore", "restore", &["done"]),
    post("/v1/conflicts/resolve", "resolve", &["done"]),
    post("/v1/rewind", "rewind", &["rewound"]),
    post("/v1/wait", "wait", &["waited"]),
    post("/v1/pairing", "pair_show", &["pair_code", "paired"]).answering(Format::Lines),
    post("/v1/pairing/join", "pair_join", &["paired"]),
    post("/v1/stop", "stop", &["done"]),
];
/// Where all that can be asked is described.
pub const DOCUMENT_PATH: &str = "/v1/openapi.json";

/// A way to ask for something.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub method: Method,
    /// With the names of fields in braces.
    pub path: &'static str,
    /// Name of the [`Request`] in JSON.
    pub request: &'static str,
    /// Names of the replies in JSON; where it answers with one value, that is the last.
    pub replies: &'static [&'static str],
    /// Fields in the query.
    pub query: &'static [(&'static str, Kind)],
    /// How it is answered where nobody says how.
    pub format: Format,
}

/// What a route does: ask, or act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    Get,
    Post,
}

/// How a field is written in a query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Text,
    Number,
    /// Percent-encoded bytes.
    Path,
}

/// How replies are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The value of the last reply alone, or an error with its status.
    Json,
    /// Every reply as it comes, one JSON object on a line each.
    Lines,
    /// Every reply as it comes, as server-sent events.
    Events,
}

/// A request as it goes over HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub body: Vec<u8>,
}

impl Route {
    const fn with(self, query: &'static [(&'static str, Kind)]) -> Self {
        Self { query, ..self }
    }

    const fn answering(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// Names of the fields in the path.
    pub fn path_fields(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }

    /// The request that these parts make, or what is wrong with them.
    pub fn request<'a>(
        &self,
        path: impl Iterator<Item = (&'a str, &'a str)>,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<Request, String> {
        let mut fields = match self.method {
            Method::Post if !body.is_empty() => {
                serde_json::from_slice(body).map_err(|e| format!("the body is not a JSON object: {e}"))?
            }
            _ => Map::new(),
        };
        for (name, value) in pairs(query.unwrap_or_default()) {
            let known = self.query.iter().find(|(known, _)| *known == name);
            let (name, kind) = known.ok_or_else(|| format!("there is no parameter '{name}' here"))?;
            fields.insert((*name).to_owned(), kind.read(name, value)?);
        }
        if let Some(twice) = fields.keys().find(|name| *name == TAG || self.path_fields().any(|f| f == *name)) {
            return Err(format!("the field '{twice}' is given by the address"));
        }
        let given: Vec<String> = fields.keys().cloned().collect();
        fields.extend(path.map(|(name, value)| (name.to_owned(), value.into())));
        fields.insert(TAG.to_owned(), self.request.into());
        let request: Request = serde_json::from_value(Value::Object(fields)).map_err(|e| e.to_string())?;
        let known = fields_of(&request);
        match given.iter().find(|name| !known.contains_key(*name)) {
            Some(name) => Err(format!("there is no field '{name}' here")),
            None => Ok(request),
        }
    }
}

impl Call {
    /// How to ask this; `None` where [`ROUTES`] lacks it.
    pub fn of(request: &Request) -> Option<Self> {
        let mut fields = fields_of(request);
        fields.retain(|_, value| !value.is_null());
        let tag = fields.remove(TAG)?;
        let fits = |route: &&Route| {
            route
                .path_fields()
                .all(|name| fields.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty()))
        };
        let routes = ROUTES.iter().filter(|route| tag == route.request).filter(fits);
        let route = routes.max_by_key(|route| route.path_fields().count())?;
        let mut target = String::new();
        for part in route.path.split('/').skip(1) {
            let field = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            let value = field.and_then(|name| fields.remove(name));
            target.push('/');
            target.push_str(&value.map_or_else(|| part.to_owned(), |value| encode(&plain(&value), false)));
        }
        let mut mark = '?';
        for (name, kind) in route.query {
            if let Some(value) = fields.remove(*name) {
                target.extend([&format!("{mark}{name}="), &encode(&plain(&value), *kind == Kind::Path)[..]]);
                mark = '&';
            }
        }
        let body = match route.method {
            Method::Post if !fields.is_empty() => serde_json::to_vec(&fields).ok()?,
            _ => Vec::new(),
        };
        Some(Self { method: route.method, target, body })
    }
}

impl Kind {
    fn read(self, name: &str, value: &str) -> Result<Value, String> {
        let spaced = value.replace('+', "%20");
        let bytes = || WirePath::try_from(spaced.clone()).map_err(|e| format!("in '{name}' {e}"));
        let text = || {
            let bytes = bytes()?.0.into_os_string();
            bytes.into_string().map_err(|_| format!("'{name}' is not text"))
        };
        match self {
            // A path in JSON is written just so.
            Self::Path => bytes().map(|path| String::from(path).into()),
            Self::Text => text().map(Value::from),
            Self::Number => {
                let number = text()?.parse::<u64>();
                number.map(Value::from).map_err(|_| format!("'{name}' is not a number"))
            }
        }
    }
}

const fn get(path: &'static str, request: &'static str, replies: &'static [&'static str]) -> Route {
    Route { method: Method::Get, path, request, replies, query: &[], format: Format::Json }
}

const fn post(path: &'static str, request: &'static str, replies: &'static [&'static str]) -> Route {
    Route { method: Method::Post, path, request, replies, query: &[], format: Format::Json }
}

/// Names and values of a query, as they are written.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn fields_of(request: &Request) -> Map<String, Value> {
    match serde_json::to_value(request) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// With all that means something in an address percent-encoded; `is_encoded` leaves `%` alone.
fn encode(text: &str, is_encoded: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            b'/' | b'%' if is_encoded => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02x}")),
        }
    }
    encoded
}
