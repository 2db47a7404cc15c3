//! What an operator is told of a device's waiting and of its past jobs: `otad why`, `otad history`.
//!
//! Numbers of the runtime and statuses of the job service become words, and codes get their meaning and cure from
//! `explain`. Where the facts come from (the daemon, or the state directory of a stopped one) is the command line's
//! business.

pub mod job;
pub mod time;
pub mod why;

use serde_json::{Value, json};

use crate::explain::{Code, Question};

/// What the codes in a text or of a failure mean, and what to do; the first one that is known.
fn explained(question: &Question) -> Option<Code> {
    question.answer(None).into_iter().last()
}

/// A failure in words: what it was, what it means, what to do.
#[must_use]
pub fn failure(main: u64, sub: u64) -> Value {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let pair = Question::Pair(number(main), number(sub));
    match explained(&pair) {
        Some(code) => json!({ "name": code.name, "meaning": code.meaning, "cure": code.cure }),
        None => Value::Null,
    }
}
