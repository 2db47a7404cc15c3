//! The job service as an orchestrator talks to it: one question or status under way at a time, its answer told by the
//! client token.
//!
//! ```text
//! start_next ------> News::Job | NoJob | BadJob | Refused
//! update ----------> News::Taken | Refused
//! (any time) ------> News::Notified
//! ```
//!
//! For orchestrators of other people's making; the one in [`crate::agent`] has several questions under way and times
//! their answers. Not here: when to ask, how long to wait, what to do with a job.

use alloc::string::String;

use crate::code::{JobsErr, OtaErr, OtadErr};
use crate::document::{JobExecution, ParseError, Reply, ReplyError, parse_reply};
use crate::stream::Rejection;
use crate::types::{Failure, Version};

use super::{
    ClientTokens, JobId, ReplyToken, Status, ThingName, Topic, VersionWord, classify, job_request,
    parse_answer, topic as make,
};

/// Something to publish: topic, then payload.
pub type Message = (String, String);

/// What the service says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// The next job, which has begun.
    Job(JobExecution<'a>),
    /// There is no job.
    NoJob,
    /// There is one that cannot be read; it can be told FAILED.
    BadJob(JobId, ParseError),
    /// The status was taken.
    Taken,
    /// The question or status was refused.
    Refused(JobsErr),
    /// The next job is this one now, or there is none.
    Notified(Option<JobId>),
}

impl From<Option<Version>> for VersionWord {
    /// 0 where it is not known.
    fn from(version: Option<Version>) -> Self {
        Self(version.map_or(0, Version::word))
    }
}

impl From<ParseError> for Status {
    /// The job was not taken because its document is defective.
    fn from(error: ParseError) -> Self {
        Self::Failed {
            main: OtaErr::JobParserError.code(),
            sub: error.code(),
        }
    }
}

impl From<Failure> for Status {
    /// An operation failed.
    fn from(failure: Failure) -> Self {
        Self::Failed {
            main: failure.main.into(),
            sub: failure.sub,
        }
    }
}

impl From<Rejection> for Status {
    /// The stream service refused a request.
    fn from(rejection: Rejection) -> Self {
        Self::Failed {
            main: OtadErr::StreamRejected.code(),
            sub: rejection.code.code(),
        }
    }
}

/// One thing's side of the conversation.
#[derive(Clone, Debug)]
pub struct JobService {
    thing: ThingName,
    tokens: ClientTokens,
    asked: ReplyToken,
}

impl JobService {
    /// Nothing is asked yet. The seed is another one at every start, so that late answers of a former one match nothing.
    #[must_use]
    pub const fn new(thing: ThingName, seed: u64) -> Self {
        Self {
            thing,
            tokens: ClientTokens::new(seed),
            asked: ReplyToken::Absent,
        }
    }

    /// The thing.
    #[must_use]
    pub const fn thing(&self) -> &ThingName {
        &self.thing
    }

    /// What to subscribe to after each connection.
    #[must_use]
    pub fn filters(&self) -> [String; 5] {
        [
            (Topic::NotifyNext, ""),
            (Topic::StartNextAccepted, ""),
            (Topic::StartNextRejected, ""),
            (Topic::UpdateAccepted, "+"),
            (Topic::UpdateRejected, "+"),
        ]
        .map(|(topic, name)| make(&self.thing, topic, name))
    }

    /// Asks for the next job and begins it in one step. A job that has begun already comes again.
    pub fn start_next(&mut self) -> Message {
        let token = self.tokens.draw();
        self.asked = ReplyToken::Ours(token);
        let topic = make(&self.thing, Topic::StartNext, "");
        (topic, job_request(token))
    }

    /// Tells the status of a job, also once more: to be sent with QoS 1 unless it is mere progress.
    pub fn update(&mut self, job: &JobId, status: &Status) -> Message {
        let token = self.tokens.draw();
        self.asked = ReplyToken::Ours(token);
        let topic = make(&self.thing, Topic::Update, job.as_str());
        (topic, status.payload(token))
    }

    /// Reads a message; none if it is not of the job service, cannot be read, or answers something else than what was
    /// asked last.
    #[must_use]
    pub fn on_message<'a>(&self, topic: &str, payload: &'a [u8]) -> Option<News<'a>> {
        let asked = |token: &ReplyToken| *token == self.asked;
        let (topic, _) = classify(&self.thing, topic)?;
        match topic {
            Topic::StartNextAccepted => match parse_reply(payload) {
                Ok(Reply::Job(job)) if asked(&job.token) => Some(News::Job(job)),
                Ok(Reply::NoJob(token)) if asked(&token) => Some(News::NoJob),
                Ok(Reply::Job(_) | Reply::NoJob(_)) => None,
                // Whose answer it is stands in what cannot be read.
                Err(ReplyError { error, job_id }) => Some(News::BadJob(job_id?, error)),
            },
            Topic::NotifyNext => match parse_reply(payload) {
                Ok(Reply::Job(job)) => Some(News::Notified(Some(job.job_id))),
                Ok(Reply::NoJob(_)) => Some(News::Notified(None)),
                Err(ReplyError { job_id, .. }) => Some(News::Notified(Some(job_id?))),
            },
            Topic::UpdateAccepted => {
                let answer = parse_answer(payload).ok()?;
                asked(&answer.token).then_some(News::Taken)
            }
            Topic::UpdateRejected | Topic::StartNextRejected => {
                let answer = parse_answer(payload).ok()?;
                asked(&answer.token).then_some(News::Refused(answer.code))
            }
            Topic::NextGet
            | Topic::NextAccepted
            | Topic::NextRejected
            | Topic::Notify
            | Topic::PendingAccepted
            | Topic::PendingRejected
            | Topic::StartNext
            | Topic::JobGet
            | Topic::JobAccepted
            | Topic::JobRejected
            | Topic::Update
            | Topic::StreamGet(_)
            | Topic::StreamData(_)
            | Topic::StreamRejected(_)
            | Topic::StreamDescribe(_)
            | Topic::StreamDescription(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use super::*;

    fn service() -> JobService {
        JobService::new(ThingName::new("t").unwrap(), 0xff)
    }

    const ACCEPTED: &str = "$aws/things/t/jobs/start-next/accepted";

    #[test]
    fn the_next_job_is_asked_for_and_begun_in_one_message() {
        let (topic, payload) = service().start_next();
        assert_eq!(topic, "$aws/things/t/jobs/start-next");
        assert_eq!(payload, r#"{"clientToken":"u0-000000ff"}"#);
    }

    #[test]
    fn only_the_answer_to_the_last_question_counts() {
        let mut service = service();
        let job = |number: u32| {
            format!(
                r#"{{"execution":{{"jobId":"j","status":"IN_PROGRESS","jobDocument":{{}}}},"clientToken":"u{number}-000000ff"}}"#
            )
        };
        let none = r#"{"clientToken":"u1-000000ff"}"#;
        assert_eq!(service.on_message(ACCEPTED, job(0).as_bytes()), None);
        service.start_next();
        service.start_next();
        assert_eq!(service.on_message(ACCEPTED, job(0).as_bytes()), None);
        let answer = job(1);
        let Some(News::Job(found)) = service.on_message(ACCEPTED, answer.as_bytes()) else {
            panic!("it is the answer");
        };
        assert_eq!(
            (found.job_id.to_string().as_str(), found.document),
            ("j", "{}")
        );
        assert_eq!(
            service.on_message(ACCEPTED, none.as_bytes()),
            Some(News::NoJob)
        );
        let other = "$aws/things/tt/jobs/start-next/accepted";
        assert_eq!(service.on_message(other, none.as_bytes()), None);
    }

    #[test]
    fn a_status_is_taken_or_refused_by_its_token() {
        let mut service = service();
        let job = JobId::new("j").unwrap();
        let (topic, payload) = service.update(&job, &Status::Aborted { code: 19 });
        assert_eq!(topic, "$aws/things/t/jobs/j/update");
        assert!(payload.ends_with(r#","clientToken":"u0-000000ff"}"#));
        let rows = [
            (
                "accepted",
                r#"{"clientToken":"u0-000000ff"}"#,
                Some(News::Taken),
            ),
            ("accepted", r#"{"clientToken":"u1-000000ff"}"#, None),
            ("accepted", "{}", None),
            (
                "rejected",
                r#"{"clientToken":"u0-000000ff","code":"InvalidStateTransition"}"#,
                Some(News::Refused(JobsErr::InvalidStateTransition)),
            ),
            ("rejected", "no JSON", None),
        ];
        for (end, payload, news) in rows {
            let topic = format!("$aws/things/t/jobs/j/update/{end}");
            let found = service.on_message(&topic, payload.as_bytes());
            assert_eq!(found, news, "{end} {payload}");
        }
    }

    #[test]
    fn a_notice_names_the_next_job_and_a_job_that_cannot_be_read_its_id() {
        let mut service = service();
        let notice = "$aws/things/t/jobs/notify-next";
        let rows = [
            (r#"{"timestamp":1}"#, Some(News::Notified(None))),
            (
                r#"{"execution":{"jobId":"j","jobDocument":{}}}"#,
                Some(News::Notified(Some(JobId::new("j").unwrap()))),
            ),
            (
                r#"{"execution":{"jobId":"j"}}"#,
                Some(News::Notified(Some(JobId::new("j").unwrap()))),
            ),
            ("{", None),
        ];
        for (payload, news) in rows {
            assert_eq!(
                service.on_message(notice, payload.as_bytes()),
                news,
                "{payload}"
            );
        }
        service.start_next();
        let without_document = br#"{"execution":{"jobId":"j"},"clientToken":"u0-000000ff"}"#;
        assert!(matches!(
            service.on_message(ACCEPTED, without_document),
            Some(News::BadJob(id, _)) if id.as_str() == "j"
        ));
    }
}
