//! What devices ask of Jobs: `get`, `start-next`, `<job>/get` and `<job>/update`.
//!
//! Every request has exactly one answer, on `accepted` or `rejected`; notifications that it causes follow behind.

use serde_json::{Map, Value};

use super::{
    Execution, ExecutionStatus, JobId, Kind, Outgoing, QoS, RejectCode, Service, StatusDetails,
    ThingName, job_wire,
    queue::{Patch, StepTimer},
    topic::Request,
};

/// Longest client token.
pub(super) const CLIENT_TOKEN_BYTES_MAX: usize = 64;
/// Most members of `statusDetails`.
const DETAILS_MAX: usize = 10;
/// Longest key of `statusDetails`.
const DETAIL_KEY_BYTES_MAX: usize = 128;
/// Longest value of `statusDetails`.
const DETAIL_VALUE_CHARS_MAX: usize = 1024;
/// Seven days: the longest time-out, in minutes.
pub(super) const TIMEOUT_MINUTES_MAX: u32 = 7 * 24 * 60;
/// A refusal repeats at most this much of a topic.
const TOPIC_ECHO_BYTES_MAX: usize = 512;

/// Why a request is refused.
struct Rejection {
    code: RejectCode,
    message: String,
    /// Whether the refusal shows the execution.
    show: Option<JobId>,
}

impl Rejection {
    fn new(code: RejectCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            show: None,
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(RejectCode::InvalidRequest, message)
    }
}

/// The members of a request; read one by one so that each defect has its own text.
struct Body(Map<String, Value>);

impl Body {
    fn text(&self, key: &str) -> Result<Option<&str>, Rejection> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Rejection::invalid(format!("{key} is not a string"))),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Rejection> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(Rejection::invalid(format!("{key} is not a boolean"))),
        }
    }

    /// A number, quoted or not: both are documented for `expectedVersion`.
    fn number(&self, key: &str) -> Result<Option<u64>, Rejection> {
        let number = match self.0.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(Rejection::invalid(format!("{key} is not a whole number"))),
        }
    }

    /// The step's time-out. -1, which stops it, is documented for updates only.
    fn step_timer(&self, may_stop: bool) -> Result<StepTimer, Rejection> {
        const KEY: &str = "stepTimeoutInMinutes";
        if may_stop && self.0.get(KEY).and_then(Value::as_i64) == Some(-1) {
            return Ok(StepTimer::Stop);
        }
        let Some(minutes) = self.number(KEY)? else {
            return Ok(StepTimer::Leave);
        };
        match u32::try_from(minutes) {
            Ok(minutes @ 1..=TIMEOUT_MINUTES_MAX) => Ok(StepTimer::Start(minutes)),
            _ => Err(Rejection::invalid(format!(
                "{KEY} is {minutes}, allowed are 1 to {TIMEOUT_MINUTES_MAX}"
            ))),
        }
    }

    fn details(&self) -> Result<Option<StatusDetails>, Rejection> {
        let map = match self.0.get("statusDetails") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(Rejection::invalid("statusDetails is not an object")),
        };
        if map.len() > DETAILS_MAX {
            return Err(Rejection::invalid(format!(
                "statusDetails has {} members, at most {DETAILS_MAX} are allowed",
                map.len()
            )));
        }
        for (key, value) in map {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'-');
            if key.is_empty() || key.len() > DETAIL_KEY_BYTES_MAX || !key.bytes().all(legal) {
                return Err(Rejection::invalid(
                    "a key of statusDetails is not 1 to 128 characters of a-z, A-Z, 0-9, ':', '_', '-'",
                ));
            }
            let Value::String(text) = value else {
                return Err(Rejection::invalid(format!(
                    "statusDetails.{key} is not a string"
                )));
            };
            let chars = text.chars().count();
            if !(1..=DETAIL_VALUE_CHARS_MAX).contains(&chars) || text.chars().any(char::is_control)
            {
                return Err(Rejection::invalid(format!(
                    "statusDetails.{key} is not 1 to {DETAIL_VALUE_CHARS_MAX} printable characters"
                )));
            }
        }
        Ok(Some(map.clone()))
    }
}

/// One Jobs request under way.
struct Asked<'a> {
    now_ms: u64,
    thing: &'a ThingName,
    topic: &'a str,
    token: Option<&'a str>,
}

impl Asked<'_> {
    fn reply(&self, level: &str, payload: Vec<u8>) -> Outgoing {
        Outgoing {
            to: self.thing.clone(),
            topic: format!("{}/{level}", self.topic).into(),
            payload: payload.into(),
            qos: QoS::AtLeastOnce,
            kind: Kind::Reply,
        }
    }

    fn accept(&self, payload: Vec<u8>) -> Outgoing {
        self.reply("accepted", payload)
    }
}

impl Service {
    pub(super) fn handle_jobs(
        &mut self,
        now_ms: u64,
        thing: &ThingName,
        topic: &str,
        request: Request<'_>,
        payload: &[u8],
        out: &mut Vec<Outgoing>,
    ) {
        let known = self.state.things.contains_key(thing);
        if known {
            self.count(thing).jobs_requests += 1;
        }
        let body = parse_body(payload, request);
        let token = match &body {
            Ok(body) => match body.0.get("clientToken") {
                Some(Value::String(token)) if token.len() <= CLIENT_TOKEN_BYTES_MAX => {
                    Some(token.as_str())
                }
                _ => None,
            },
            Err(_) => None,
        };
        let asked = Asked {
            now_ms,
            thing,
            topic,
            token,
        };
        let mut caused = Vec::new();
        let answer = if known {
            match &body {
                Ok(body) => self.answer_jobs(&asked, request, body, &mut caused),
                Err(rejection) => Err(Rejection::new(rejection.code, rejection.message.clone())),
            }
        } else {
            Err(Rejection::new(
                RejectCode::ResourceNotFound,
                format!("no thing is called {thing}"),
            ))
        };
        match answer {
            Ok(reply) => out.push(reply),
            Err(rejection) => {
                if known {
                    self.count(thing).rejected += 1;
                }
                if let Some(reply) = self.rejected(&asked, &rejection) {
                    out.push(reply);
                }
            }
        }
        out.append(&mut caused);
    }

    fn rejected(&self, asked: &Asked<'_>, rejection: &Rejection) -> Option<Outgoing> {
        if asked.topic.len() > TOPIC_ECHO_BYTES_MAX {
            return None;
        }
        let shown = rejection
            .show
            .as_ref()
            .and_then(|job| self.state.things.get(asked.thing)?.execution(job.as_str()));
        let payload = job_wire::rejected(
            asked.now_ms,
            asked.token,
            rejection.code,
            &rejection.message,
            shown,
        );
        Some(asked.reply("rejected", payload))
    }

    fn answer_jobs(
        &mut self,
        asked: &Asked<'_>,
        request: Request<'_>,
        body: &Body,
        caused: &mut Vec<Outgoing>,
    ) -> Result<Outgoing, Rejection> {
        if !self.admit(asked.now_ms, asked.thing) {
            return Err(Rejection::new(
                RejectCode::RequestThrottled,
                "too many requests of this thing; wait a second",
            ));
        }
        if let Some(token) = body.text("clientToken")?
            && token.len() > CLIENT_TOKEN_BYTES_MAX
        {
            return Err(Rejection::invalid(format!(
                "clientToken has {} bytes, at most {CLIENT_TOKEN_BYTES_MAX} are allowed",
                token.len()
            )));
        }
        match request {
            Request::PendingJobs => self.pending_jobs(asked),
            Request::StartNext => self.start_next(asked, body, caused),
            Request::DescribeNext => self.describe(asked, None, body),
            Request::DescribeJob(job) => self.describe(asked, Some(job), body),
            Request::UpdateJob(job) => self.update(asked, job, body, caused),
            Request::UnknownJobs
            | Request::DescribeStream(..)
            | Request::GetStream(..)
            | Request::UnknownStream(..) => Err(Rejection::new(
                RejectCode::InvalidTopic,
                "this topic names no request of Jobs",
            )),
        }
    }

    fn thing(&self, asked: &Asked<'_>) -> Result<&super::Thing, Rejection> {
        self.state.things.get(asked.thing).ok_or_else(|| {
            Rejection::new(
                RejectCode::ResourceNotFound,
                format!("no thing is called {}", asked.thing),
            )
        })
    }

    fn pending_jobs(&self, asked: &Asked<'_>) -> Result<Outgoing, Rejection> {
        let payload = job_wire::accepted_pending(asked.now_ms, asked.token, self.thing(asked)?);
        Ok(asked.accept(payload))
    }

    fn start_next(
        &mut self,
        asked: &Asked<'_>,
        body: &Body,
        caused: &mut Vec<Outgoing>,
    ) -> Result<Outgoing, Rejection> {
        let details = body.details()?;
        let step = body.step_timer(false)?;
        let next = self
            .thing(asked)?
            .next()
            .map(|(job, e)| (job.clone(), e.status));
        // One that is under way already is returned as it is.
        if let Some((job, ExecutionStatus::Queued)) = &next {
            self.check_available()?;
            let patch = Patch {
                status: ExecutionStatus::InProgress,
                details,
                step,
            };
            self.apply(asked.now_ms, asked.thing, job, patch, caused);
        }
        let execution = match &next {
            Some((job, _)) => self.thing(asked)?.pending.get_key_value(job),
            None => None,
        };
        Ok(asked.accept(self.execution_payload(asked, execution, true)))
    }

    fn describe(
        &self,
        asked: &Asked<'_>,
        job: Option<&str>,
        body: &Body,
    ) -> Result<Outgoing, Rejection> {
        let with_document = body.flag("includeJobDocument")?.unwrap_or(true);
        let number = body.number("executionNumber")?;
        let thing = self.thing(asked)?;
        let execution = match job {
            None => thing.next(),
            Some(job) => {
                let found = find(thing, job)?;
                if found.1.status.is_terminal() {
                    return Err(Rejection::new(
                        RejectCode::TerminalStateReached,
                        format!("job {job} is {} on this thing", found.1.status.as_str()),
                    ));
                }
                Some(found)
            }
        };
        if let Some((_, execution)) = execution {
            check_number(number, execution)?;
        }
        Ok(asked.accept(self.execution_payload(asked, execution, with_document)))
    }

    fn execution_payload(
        &self,
        asked: &Asked<'_>,
        execution: Option<(&JobId, &Execution)>,
        with_document: bool,
    ) -> Vec<u8> {
        let document = execution
            .filter(|_| with_document)
            .and_then(|(job, _)| self.document(asked.now_ms, job));
        job_wire::accepted_execution(asked.now_ms, asked.token, execution, document.as_deref())
    }

    fn update(
        &mut self,
        asked: &Asked<'_>,
        job: &str,
        body: &Body,
        caused: &mut Vec<Outgoing>,
    ) -> Result<Outgoing, Rejection> {
        let Some(word) = body.text("status")? else {
            return Err(Rejection::invalid("status is missing"));
        };
        let Some(status) = ExecutionStatus::parse(word) else {
            return Err(Rejection::invalid(format!(
                "status {:?} is unknown",
                word.chars().take(40).collect::<String>()
            )));
        };
        let details = body.details()?;
        let step = body.step_timer(true)?;
        let expected = body.number("expectedVersion")?;
        let number = body.number("executionNumber")?;
        let with_state = body.flag("includeJobExecutionState")?.unwrap_or(false);
        let with_document = body.flag("includeJobDocument")?.unwrap_or(false);

        let (job, execution) = find(self.thing(asked)?, job)?;
        let job = job.clone();
        check_number(number, execution)?;
        if let Some(expected) = expected
            && expected != execution.version
        {
            return Err(Rejection {
                show: Some(job),
                ..Rejection::new(
                    RejectCode::VersionMismatch,
                    format!(
                        "expectedVersion is {expected}, the execution has version {}",
                        execution.version
                    ),
                )
            });
        }
        if !execution.status.device_may_report(status) {
            return Err(Rejection {
                show: Some(job),
                ..Rejection::new(
                    RejectCode::InvalidStateTransition,
                    format!(
                        "{} may not follow {}",
                        status.as_str(),
                        execution.status.as_str()
                    ),
                )
            });
        }
        self.check_available()?;
        let patch = Patch {
            status,
            details,
            step,
        };
        self.apply(asked.now_ms, asked.thing, &job, patch, caused);
        let state = self.thing(asked)?.execution(job.as_str());
        let document = with_document.then(|| self.document(asked.now_ms, &job));
        Ok(asked.accept(job_wire::accepted_update(
            asked.now_ms,
            asked.token,
            state.filter(|_| with_state),
            document.flatten().as_deref(),
        )))
    }

    fn check_available(&self) -> Result<(), Rejection> {
        match &self.unavailable {
            None => Ok(()),
            // The reason may name paths of this machine: it is for the operator's log.
            Some(_) => Err(Rejection::new(
                RejectCode::InternalError,
                "the service cannot store its state now",
            )),
        }
    }
}

/// The rejection of a request that the service has not seen, for whoever stands in front of it.
pub(crate) fn refuse_jobs_request(
    now_ms: u64,
    thing: &ThingName,
    topic: &str,
    payload: &[u8],
    code: RejectCode,
) -> Outgoing {
    let body: Option<Value> = serde_json::from_slice(payload).ok();
    let token = body.as_ref().and_then(|b| b.get("clientToken")?.as_str());
    let asked = Asked {
        now_ms,
        thing,
        topic,
        token,
    };
    let payload = job_wire::rejected(now_ms, token, code, "refused on purpose", None);
    asked.reply("rejected", payload)
}

fn parse_body(payload: &[u8], request: Request<'_>) -> Result<Body, Rejection> {
    // A request that only asks needs no members, and an empty message is how some clients say so.
    if payload.is_empty() && !matches!(request, Request::UpdateJob(_)) {
        return Ok(Body(Map::new()));
    }
    match serde_json::from_slice(payload) {
        Ok(Value::Object(map)) => Ok(Body(map)),
        Ok(_) => Err(Rejection::invalid("the request is not a JSON object")),
        Err(error) => Err(Rejection::new(
            RejectCode::InvalidJson,
            format!(
                "the request is not valid JSON in UTF-8: line {} column {}",
                error.line(),
                error.column()
            ),
        )),
    }
}

fn find<'a>(thing: &'a super::Thing, job: &str) -> Result<(&'a JobId, &'a Execution), Rejection> {
    thing
        .pending
        .get_key_value(job)
        .or_else(|| thing.ended.get_key_value(job))
        .ok_or_else(|| {
            Rejection::new(
                RejectCode::ResourceNotFound,
                "this thing has no execution of such a job",
            )
        })
}

fn check_number(number: Option<u64>, execution: &Execution) -> Result<(), Rejection> {
    match number {
        None => Ok(()),
        Some(number) if number == execution.number => Ok(()),
        Some(number) => Err(Rejection::new(
            RejectCode::ResourceNotFound,
            format!("no execution has number {number}"),
        )),
    }
}
