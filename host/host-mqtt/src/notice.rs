//! Other ways by which a device hears of jobs: a topic of the operator's own, which the connection subscribes to for it.
//!
//! Whoever may publish there can have a device ask for a job, or hand it one; what comes of a job is decided as for any
//! other: by the target, its product, its versions, and the signature. Not here: what a job means.

use bytes::Bytes;
use host_runtime::agent::Command;
use host_runtime::mailbox::Input;

/// Most bytes of a topic, as AWS IoT allows for one of an application.
const TOPIC_MAX_BYTES: usize = 256;

/// The reserved name of a custom value: a job, in the shape of the reply to `$next/get` (`job-agent.custom`).
const JOB_DOCUMENT: &str = "job-document";

/// What a message brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brings {
    /// The word that there may be a job: the device asks the job service. What the message says is nobody's business.
    News,
    /// The job itself.
    Job,
}

/// A topic and what comes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    topic: String,
    brings: Brings,
}

impl Notice {
    /// A notice by this topic.
    ///
    /// # Errors
    /// What is wrong with the topic, in words.
    pub fn new(topic: &str, brings: Brings) -> Result<Self, String> {
        if topic.is_empty() || topic.len() > TOPIC_MAX_BYTES {
            return Err(format!(
                "a topic of {} bytes, expected 1 to {TOPIC_MAX_BYTES}",
                topic.len()
            ));
        }
        if topic.contains(['+', '#']) || topic.chars().any(char::is_control) {
            return Err("a topic with a wildcard or a control character".to_owned());
        }
        if topic.starts_with('$') {
            return Err("a topic of the services' own, which begin with `$`".to_owned());
        }
        Ok(Self {
            topic: topic.to_owned(),
            brings,
        })
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What a message is for the device.
    pub(crate) fn input(&self, payload: &Bytes) -> Input {
        match self.brings {
            Brings::News => Input::Command {
                command: Command::CheckForUpdate,
                reply: None,
            },
            Brings::Job => Input::Custom {
                name: JOB_DOCUMENT.to_owned(),
                bytes: payload.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_of_the_operators_own_is_taken_and_others_are_refused() {
        let long = "t".repeat(TOPIC_MAX_BYTES);
        for topic in ["t", "site/7/jobs", &long] {
            let notice = Notice::new(topic, Brings::News);
            assert_eq!(notice.unwrap().topic(), topic);
        }
        let too_long = format!("{long}t");
        for topic in [
            "",
            "site/+/jobs",
            "site/#",
            "a\nb",
            "$aws/things/t/jobs/notify",
            &too_long,
        ] {
            assert!(Notice::new(topic, Brings::News).is_err(), "{topic}");
        }
    }

    #[test]
    fn a_message_is_a_question_or_a_job() {
        let payload = Bytes::from_static(b"{}");
        let news = Notice::new("t", Brings::News).unwrap().input(&payload);
        assert!(matches!(
            news,
            Input::Command {
                command: Command::CheckForUpdate,
                reply: None
            }
        ));
        let job = Notice::new("t", Brings::Job).unwrap().input(&payload);
        assert!(
            matches!(job, Input::Custom { name, bytes } if name == "job-document" && bytes == payload)
        );
    }
}
