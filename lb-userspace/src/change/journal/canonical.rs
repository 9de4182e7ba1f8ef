//! Canonical bytes of a JSON value: no blanks, keys sorted.
//!
//! `serde_json` sorts keys only as long as no crate in the build asks for its
//! `preserve_order` feature; a hash chain can't hang on that, so it is done here.

use serde_json::Value;

/// The one way to write `value`.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            list(out, '{', '}', &entries, |out, (key, value)| {
                scalar(out, &Value::from(key.as_str()));
                out.push(':');
                write(out, value);
            });
        }
        Value::Array(items) => list(out, '[', ']', items, write),
        other => scalar(out, other),
    }
}

fn list<T>(out: &mut String, open: char, close: char, items: &[T], each: impl Fn(&mut String, &T)) {
    out.push(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        each(out, item);
    }
    out.push(close);
}

fn scalar(out: &mut String, value: &Value) {
    // `Display` of a Value is compact JSON and can't fail on a String.
    out.push_str(&value.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_at_every_depth_and_strings_escaped() {
        let value: Value =
            serde_json::from_str(r#"{ "b": [1, {"z": null, "a": "x\n\"y"}], "a": true }"#).unwrap();
        assert_eq!(
            text(&value),
            r#"{"a":true,"b":[1,{"a":"x\n\"y","z":null}]}"#
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        let value = json!({"empty": {}, "list": [], "n": u64::MAX, "i": -1, "s": "ü\u{1}"});
        assert_eq!(serde_json::from_str::<Value>(&text(&value)).unwrap(), value);
    }
}
