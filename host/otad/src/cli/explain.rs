//! `otad explain`: what a code in a job's status means and what to do.

use serde_json::{Value, json};

use super::args::ExplainArgs;
use crate::exit::{Exit, Failed, Verb};
use crate::explain::{CLASSES, Code, Question, UNKNOWN, all};
use crate::progress::say;

pub(super) fn follow(args: &ExplainArgs) -> Verb {
    let class = args.class.as_deref();
    if let Some(class) = class
        && !CLASSES.iter().any(|known| known.0 == class)
    {
        let names: Vec<&str> = CLASSES.iter().map(|known| known.0).collect();
        return Err(Failed::new(
            Exit::Usage,
            format!("--class {class:?}: expected one of {}", names.join(", ")),
        ));
    }
    let text = args.code.join(" ");
    if text.is_empty() {
        list(class, args.json);
        return Ok(Exit::Done);
    }
    let codes = Question::read(&text).answer(class);
    if args.json {
        let codes: Vec<Value> = codes.iter().map(as_json).collect();
        say(&Value::from(codes).to_string());
    } else {
        codes.iter().for_each(print);
    }
    match codes.is_empty() {
        true => Err(Failed::new(
            Exit::Nothing,
            format!("{text}: {UNKNOWN}; `otad explain` lists every code"),
        )),
        false => Ok(Exit::Done),
    }
}

fn as_json(code: &Code) -> Value {
    json!({
        "class": code.class,
        "code": code.code,
        "name": code.name,
        "meaning": code.meaning,
        "cure": code.cure,
    })
}

/// The number as statuses print it.
fn hex(code: &Code) -> String {
    match u8::try_from(code.code) {
        Ok(byte) => format!("{byte:#04x}"),
        Err(_) => "-".to_owned(),
    }
}

fn print(code: &Code) {
    say(&format!(
        "{} {} {} ({})",
        hex(code),
        code.code,
        code.name,
        code.class
    ));
    say(&format!("    {}", code.meaning));
    say(&format!("    do: {}", code.cure));
}

fn list(class: Option<&str>, json: bool) {
    let codes: Vec<Code> = all()
        .filter(|c| class.is_none_or(|class| c.class == class))
        .collect();
    if json {
        let codes: Vec<Value> = codes.iter().map(as_json).collect();
        return say(&Value::from(codes).to_string());
    }
    for (name, about, function) in CLASSES {
        let codes: Vec<&Code> = codes.iter().filter(|c| c.class == name).collect();
        if codes.is_empty() {
            continue;
        }
        let function = match function {
            "" => String::new(),
            function => format!(" ({function})"),
        };
        say(&format!("{name}: {about}{function}"));
        for code in codes {
            let (hex, number, name) = (hex(code), code.code, code.name);
            say(&format!("  {hex} {number:>3}  {name:<36} {}", code.meaning));
        }
    }
}
