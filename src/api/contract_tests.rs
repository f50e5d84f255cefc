//! The OpenAPI document against what the server does: every operation is asked as the document says, and every answer
//! is what the document says.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};
use utoipa::PartialSchema;

use super::message::{Reply, Request};
use super::openapi::{document, variants};
use super::routes::{Call, DOCUMENT_PATH, Method, ROUTES};
use super::server::{Handler, Handling, Replies};
use super::testing::Running;

/// Answers every request as its route says, with values made from the schemas of the types.
struct Sampler {
    /// All that may be left out, is there.
    is_full: bool,
    asked: Mutex<BTreeSet<String>>,
}

impl Handler for Sampler {
    fn handle(self: Arc<Self>, request: Request, replies: Replies) -> Handling {
        let tag = tag_of(&request);
        let route = ROUTES.iter().find(|route| route.request == tag).unwrap();
        self.asked.lock().unwrap().insert(tag);
        let mut all: Vec<Reply> = route.replies.iter().map(|name| sample_reply(name, self.is_full)).collect();
        Box::pin(async move {
            let last = all.pop().unwrap();
            for reply in all {
                let _ = replies.send(reply).await;
            }
            last
        })
    }
}

fn tag_of(request: &Request) -> String {
    serde_json::to_value(request).unwrap()["request"].as_str().unwrap().to_owned()
}

/// What a type documents, it reads.
fn sample_reply(name: &str, is_full: bool) -> Reply {
    let schema = variants(&Reply::schema(), "reply").remove(name).unwrap_or_else(|| panic!("no reply {name}"));
    serde_json::from_value(sample(&schema, is_full)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A value of this schema, with everything in it or with what must be.
fn sample(schema: &Value, is_full: bool) -> Value {
    if let Some(target) = schema["$ref"].as_str() {
        return sample(resolve(target), is_full);
    }
    if let Some(one) = schema["enum"].as_array() {
        return one[0].clone();
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let null = choices.iter().find(|choice| choice["type"] == "null");
        let other = choices.iter().find(|choice| choice["type"] != "null").unwrap();
        return match null {
            Some(_) if !is_full => Value::Null,
            _ => sample(other, is_full),
        };
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(|kind| kind.as_str().unwrap()).collect(),
        kind => vec![kind.as_str().unwrap_or_else(|| panic!("no type in {schema}"))],
    };
    if kinds.contains(&"null") && !is_full {
        return Value::Null;
    }
    match kinds.into_iter().find(|kind| *kind != "null").unwrap() {
        "string" => json!("text"),
        "integer" => json!(7),
        "boolean" => json!(is_full),
        "array" if is_full => json!([sample(&schema["items"], is_full)]),
        "array" => json!([]),
        "object" => {
            let fields = schema["properties"].as_object().cloned().unwrap_or_default();
            let wanted = |name: &String| is_full || required(schema).contains(name);
            let fields = fields.iter().filter(|(name, _)| wanted(name));
            Value::Object(fields.map(|(name, schema)| (name.clone(), sample(schema, is_full))).collect())
        }
        other => panic!("no sample of {other}"),
    }
}

fn resolve(target: &str) -> &'static Value {
    let name = target.strip_prefix("#/components/schemas/").unwrap();
    let found = &document()["components"]["schemas"][name];
    assert!(found.is_object(), "{target} is not in the document");
    found
}

fn required(schema: &Value) -> Vec<String> {
    schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()).collect()
}

/// What is wrong with a value by this schema: type, missing fields, fields that are not documented.
fn faults(schema: &Value, value: &Value, place: &str) -> Vec<String> {
    if let Some(target) = schema["$ref"].as_str() {
        return faults(resolve(target), value, place);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[choice].as_array() {
            let all: Vec<Vec<String>> = choices.iter().map(|choice| faults(choice, value, place)).collect();
            return if all.iter().any(Vec::is_empty) { Vec::new() } else { all.concat() };
        }
    }
    if let Some(one) = schema["enum"].as_array() {
        return if one.contains(value) { Vec::new() } else { vec![format!("{place}: {value} is none of {one:?}")] };
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = match &schema["type"] {
        Value::Array(kinds) => kinds.contains(&kind.into()),
        found => found == kind,
    };
    if !fits {
        return vec![format!("{place}: {value} is not of the type {}", schema["type"])];
    }
    match value {
        Value::Array(items) => {
            let each = items.iter().enumerate();
            each.flat_map(|(n, item)| faults(&schema["items"], item, &format!("{place}[{n}]"))).collect()
        }
        Value::Object(fields) => object_faults(schema, fields, place),
        _ => Vec::new(),
    }
}

fn object_faults(schema: &Value, fields: &Map<String, Value>, place: &str) -> Vec<String> {
    let missing = required(schema).into_iter().filter(|name| !fields.contains_key(name));
    let mut faults: Vec<String> = missing.map(|name| format!("{place}.{name} is missing")).collect();
    for (name, value) in fields {
        match schema["properties"].get(name) {
            Some(schema) => faults.extend(self::faults(schema, value, &format!("{place}.{name}"))),
            None => faults.push(format!("{place}.{name} is not documented")),
        }
    }
    faults
}

/// Path and body of an operation, as its documentation says.
fn asked(path: &str, operation: &Value, is_full: bool) -> (String, String) {
    let (mut path, mut query) = (path.to_owned(), String::new());
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        let value = match sample(&parameter["schema"], true) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match parameter["in"].as_str().unwrap() {
            "path" => path = path.replace(&format!("{{{name}}}"), &value),
            _ if is_full || parameter["required"] == true => query.push_str(&format!("&{name}={value}")),
            _ => {}
        }
    }
    assert!(!path.contains('{'), "a part of {path} is not documented");
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    let body = if body.is_object() { sample(body, is_full).to_string() } else { String::new() };
    (if query.is_empty() { path } else { format!("{path}?{}", &query[1..]) }, body)
}

#[test]
fn every_operation_can_be_asked_and_answers_as_it_is_documented() {
    for is_full in [true, false] {
        let server = Running::start(Sampler { is_full, asked: Mutex::default() });
        for (path, methods) in document()["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let (target, body) = asked(path, operation, is_full);
                let (status, answer) = server.http(&method.to_uppercase(), &target, &body);
                assert_eq!(status, 200, "{method} {target} {body}: {answer}");
                let content = operation["responses"]["200"]["content"].as_object().unwrap();
                let (kind, schema) = content.iter().next().unwrap();
                let values: Vec<&str> = match kind.as_str() {
                    "application/json" => vec![&answer],
                    "text/event-stream" => answer.lines().filter_map(|line| line.strip_prefix("data: ")).collect(),
                    _ => answer.lines().collect(),
                };
                assert!(!values.is_empty(), "{target}");
                // The document is not described by itself.
                for value in values.into_iter().filter(|_| path != DOCUMENT_PATH) {
                    let value = serde_json::from_str(value).unwrap_or_else(|e| panic!("{target} {value}: {e}"));
                    assert_eq!(faults(&schema["schema"], &value, ""), [""; 0], "{method} {target}");
                }
            }
        }
        let known: BTreeSet<String> = variants(&Request::schema(), "request").into_keys().collect();
        assert_eq!(*server.handler.asked.lock().unwrap(), known, "every request has a route, and is reached by it");
    }
}

#[test]
fn what_a_command_sends_is_what_the_agent_hears() {
    struct Heard(Mutex<Option<Request>>);
    impl Handler for Heard {
        fn handle(self: Arc<Self>, request: Request, _: Replies) -> Handling {
            *self.0.lock().unwrap() = Some(request);
            Box::pin(async { Reply::Done { text: String::new() } })
        }
    }
    let server = Running::start(Heard(Mutex::default()));
    for (name, schema) in variants(&Request::schema(), "request") {
        for is_full in [true, false] {
            let mut value = sample(&schema, is_full);
            for hard in ["text", "/a b/%ff%25?&=+#\u{fc}\u{0}\n;", "%2f", ".."] {
                for (field, given) in value.as_object_mut().unwrap() {
                    // These take a few words only.
                    if given.is_string() && !["request", "when", "keep", "to"].contains(&field.as_str()) {
                        *given = hard.into();
                    }
                }
                let request: Request = serde_json::from_value(value.clone()).unwrap();
                server.ask(&request).unwrap_or_else(|e| panic!("{name} {request:?}: {e}"));
                assert_eq!(server.handler.0.lock().unwrap().take().as_ref(), Some(&request), "{name}");
            }
        }
    }
}

#[test]
fn a_folder_is_named_in_the_path_and_the_rest_in_query_or_body() {
    let call = |request: Request| Call::of(&request).unwrap();
    let rescan = call(Request::Rescan { folder: Some("a/b".into()) });
    assert_eq!((rescan.method, rescan.target.as_str()), (Method::Post, "/v1/folders/a%2fb/rescan"));
    assert_eq!(call(Request::Rescan { folder: None }).target, "/v1/rescan");
    assert_eq!(call(Request::Events { count: 5 }).target, "/v1/events?count=5");
    let join = call(Request::PairJoin { code: "x".into() });
    assert_eq!((join.target.as_str(), join.body.as_slice()), ("/v1/pairing/join", &br#"{"code":"x"}"#[..]));
}

#[test]
fn the_checks_of_this_test_find_what_is_wrong() {
    let schema = json!({ "type": "object", "required": ["a"], "properties": {
        "a": { "type": "integer" }, "b": { "type": ["string", "null"] }, "c": { "type": "array", "items": { "enum": ["x"] } },
    }});
    for (value, wrong) in [
        (json!({ "a": 1 }), ""),
        (json!({ "a": 1, "b": null, "c": ["x"] }), ""),
        (json!({ "b": "x" }), "missing"),
        (json!({ "a": "1" }), "not of the type"),
        (json!({ "a": 1, "b": true }), "not of the type"),
        (json!({ "a": 1, "d": 1 }), "not documented"),
        (json!({ "a": 1, "c": ["y"] }), "none of"),
        (json!([]), "not of the type"),
    ] {
        let found = faults(&schema, &value, "");
        assert_eq!(found.len(), usize::from(!wrong.is_empty()), "{value}: {found:?}");
        assert!(found.iter().all(|fault| fault.contains(wrong)), "{value}: {found:?}");
    }
}
