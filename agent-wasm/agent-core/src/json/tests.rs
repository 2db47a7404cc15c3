//! Rows of what is JSON and what is not, and a random walk over bytes.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

#[test]
fn what_rfc_8259_allows_is_taken_and_nothing_else() {
    let good = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "12",
        "-1.5e+10",
        "0.1E-2",
        "\"\"",
        "[]",
        "{}",
        " [ ] ",
        "[1,2]",
        "[[],{},[{}]]",
        r#"{"a":1,"b":[true,null]}"#,
        "\t\r\n {\"a\" : 1 , \"a\" : 2 } ",
        r#""\"\\\/\b\f\n\r\t\u0041\ud83d\ude00""#,
        "\"é\u{7f}\u{2028}\"",
    ];
    for text in good {
        assert!(parse(text).is_ok(), "{text}");
    }
    let bad = [
        "",
        " ",
        "nul",
        "nulls",
        "tru",
        "+1",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x10",
        "NaN",
        "\"",
        "\"a",
        "'a'",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{",
        "}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{1:1}",
        "{\"a\":1]",
        "{\"a\" 1}",
        "[]]",
        "{}x",
        "{}{}",
        "1 2",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\ude00\"",
        "\"\n\"",
        "\"\u{0}\"",
        "\u{feff}{}",
        "[1,,2]",
        "{\"a\":1,,\"b\":2}",
        "[\"a\":1]",
        "// x\n1",
        "\"\\",
    ];
    for text in bad {
        assert!(parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn an_error_names_the_byte_where_it_went_wrong() {
    let rows = [
        ("{\"a\":1} x", 8),
        ("[1,]", 3),
        ("tru", 0),
        ("[\"\n\"]", 2),
        ("{\"a\" 1}", 5),
    ];
    for (text, at) in rows {
        assert_eq!(parse(text), Err(JsonError(at)), "{text:?}");
    }
}

#[test]
fn nesting_is_taken_however_deep_it_is() {
    const LEVELS: usize = 64 * 1024;
    for (open, middle, close) in [
        ("[", "", "]"),
        ("{\"a\":", "1", "}"),
        (" [ {\"a\" : ", "[ ]", " } ] "),
    ] {
        let nested =
            |closed: usize| format!("{}{middle}{}", open.repeat(LEVELS), close.repeat(closed));
        assert!(parse(&nested(LEVELS)).is_ok(), "{open}");
        let short = nested(LEVELS - 1);
        assert_eq!(parse(&short), Err(JsonError(short.len())), "{open}");
        assert!(parse(&nested(LEVELS + 1)).is_err(), "{open}");
    }
    assert_eq!(parse("[{\"a\":[1}]"), Err(JsonError(8)));
    assert_eq!(parse("{\"a\":{\"b\":1]}"), Err(JsonError(11)));
}

#[test]
fn members_and_elements_are_walked_in_their_order() {
    let text = r#" { "a" : 1 , "b":{"c":[2,"x"]},"d\u0065" : [ ] , "" : null } "#;
    let members: Vec<(String, &str)> = parse(text)
        .unwrap()
        .walk()
        .map(|(key, value)| (key.text().unwrap(), value.raw()))
        .collect();
    let expected = [
        ("a", "1"),
        ("b", r#"{"c":[2,"x"]}"#),
        ("de", "[ ]"),
        ("", "null"),
    ];
    assert_eq!(
        members,
        expected.map(|(key, value)| (key.to_string(), value))
    );

    let elements: Vec<&str> = parse(r#"[1, "a,]" ,[3,4],{"x":5}]"#)
        .unwrap()
        .walk()
        .map(|(_, value)| value.raw())
        .collect();
    assert_eq!(elements, ["1", "\"a,]\"", "[3,4]", r#"{"x":5}"#]);
    for text in ["1", "null", "\"[1]\"", "{}", " [ ] "] {
        assert_eq!(parse(text).unwrap().walk().count(), 0, "{text}");
    }
}

#[test]
fn escapes_are_undone() {
    let rows = [
        (r#""plain é""#, "plain é"),
        (r#""\/a\\b\"""#, "/a\\b\""),
        (r#""\b\f\n\r\t""#, "\u{8}\u{c}\n\r\t"),
        (r#""x\u00e9\u20AC\ud83d\ude00y""#, "xé€😀y"),
        (r#""\u0000""#, "\0"),
    ];
    for (text, expected) in rows {
        assert_eq!(parse(text).unwrap().text().as_deref(), Some(expected));
    }
}

/// Texts that are JSON more often than not: JSON with a few bytes changed.
fn nearly_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_string()),
        Just("true".to_string()),
        Just("false".to_string()),
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,2})?([eE][+-]?[0-9])?",
        r#""([ a-z\PC]|\\[nrt"/\\]|\\u[0-9a-f]{4}){0,4}""#,
    ];
    let tree = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|all| format!("[{}]", all.join(" ,"))),
            prop::collection::vec(("[a-c]", inner), 0..4).prop_map(|all| {
                let members: Vec<String> = all
                    .iter()
                    .map(|(key, value)| format!("\"{key}\": {value}"))
                    .collect();
                format!("{{{}}}", members.join(", "))
            }),
        ]
    });
    let change = prop::collection::vec(
        (any::<prop::sample::Index>(), r#"[\[\]{}:,"\\a0-9eE.+ -]?"#),
        0..2,
    );
    (tree, change).prop_map(|(text, changes)| {
        let mut characters: Vec<String> = text.chars().map(String::from).collect();
        for (index, new) in changes {
            *index.get_mut(&mut characters) = new;
        }
        characters.concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn it_agrees_with_serde_json_on_what_is_json(text in nearly_json()) {
        let reference = serde_json::from_str::<serde_json::Value>(&text);
        prop_assert_eq!(parse(&text).is_ok(), reference.is_ok(), "{}", text);
    }

    #[test]
    fn it_agrees_with_serde_json_on_what_the_members_are(text in nearly_json()) {
        let reference = serde_json::from_str::<serde_json::Value>(&text);
        if let Ok(value) = parse(&text) && value.first() == b'{' {
            let mut found = serde_json::Map::new();
            for (key, inner) in value.walk() {
                let inner = serde_json::from_str(inner.raw()).unwrap();
                found.insert(key.text().unwrap(), inner);
            }
            prop_assert_eq!(serde_json::Value::from(found), reference.unwrap());
        }
    }

    #[test]
    fn a_string_of_any_characters_comes_back(text in any::<String>()) {
        let mut quoted = String::from("\"");
        crate::text::push_json_escaped(&mut quoted, &text);
        quoted.push('"');
        prop_assert_eq!(parse(&quoted).unwrap().text(), Some(text));
    }
}
