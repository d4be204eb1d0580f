//! As much of JSON Schema as the schema of the report uses. A word it does not know is a failure, so
//! that nothing in the schema goes unchecked.

use serde_json::Value;

/// Words that say nothing about a value.
const NOTES: [&str; 5] = ["$schema", "$defs", "title", "description", "propertyNames"];

/// Panics with the place where `value` is not as `schema`, a whole document, demands.
pub(crate) fn check(value: &Value, schema: &Value) {
    check_at("report", value, schema, schema);
}

fn check_at(at: &str, value: &Value, schema: &Value, root: &Value) {
    for (word, demand) in schema.as_object().expect("a schema is an object") {
        match word.as_str() {
            "$ref" => {
                let path = demand.as_str().and_then(|path| path.strip_prefix('#'));
                let target =
                    path.and_then(|path| root.pointer(path)).expect("the reference exists");
                check_at(at, value, target, root);
            }
            "const" => assert_eq!(value, demand, "{at}"),
            "enum" => assert!(demand.as_array().expect("a list").contains(value), "{at}: {value}"),
            "type" => check_type(at, value, demand),
            "minimum" => {
                let least = demand.as_f64().expect("a number");
                assert!(value.as_f64().is_none_or(|found| found >= least), "{at}: {value}");
            }
            // What is no object lacks none of an object's fields.
            "required" if !value.is_object() => {}
            "required" => {
                for name in demand.as_array().expect("a list") {
                    let name = name.as_str().expect("a name");
                    assert!(value.get(name).is_some(), "{at} has no {name}");
                }
            }
            "items" => {
                for (place, item) in value.as_array().expect("a list").iter().enumerate() {
                    check_at(&format!("{at}[{place}]"), item, demand, root);
                }
            }
            "properties" | "additionalProperties" => {}
            _ => assert!(NOTES.contains(&word.as_str()), "the schema's word {word} is not known"),
        }
    }
    if let Some(fields) = value.as_object() {
        for (name, field) in fields {
            check_field(&format!("{at}.{name}"), name, field, schema, root);
        }
    }
}

fn check_field(at: &str, name: &str, field: &Value, schema: &Value, root: &Value) {
    if let Some(names) = schema.get("propertyNames") {
        check_at(at, &Value::from(name), names, root);
    }
    let known = schema.get("properties").and_then(|properties| properties.get(name));
    match (known, schema.get("additionalProperties")) {
        (Some(demand), _) => check_at(at, field, demand, root),
        (None, Some(Value::Bool(false))) => panic!("{at} is not in the schema"),
        (None, Some(demand)) => check_at(at, field, demand, root),
        (None, None) => {}
    }
}

fn check_type(at: &str, value: &Value, demand: &Value) {
    let names = match demand {
        Value::Array(names) => names.clone(),
        name => vec![name.clone()],
    };
    let fits = names.iter().any(|name| match name.as_str().expect("a name") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the schema's type {other} is not known"),
    });
    assert!(fits, "{at} is {value} and should be {demand}");
}
