//! What a topic under `$aws/things/<thing>/` asks for.
//!
//! Only takes topics apart; who may use one is the endpoint's policy, what it does is in `jobs_api` and `stream_api`.

/// How a stream message is encoded: the last level of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// `json`
    Json,
    /// `cbor`
    Cbor,
}

impl Encoding {
    /// The topic level.
    #[must_use]
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Cbor => "cbor",
        }
    }

    fn parse(level: &str) -> Option<Self> {
        match level {
            "json" => Some(Self::Json),
            "cbor" => Some(Self::Cbor),
            _ => None,
        }
    }
}

/// A request as its topic names it; names inside are not checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// `jobs/get`
    PendingJobs,
    /// `jobs/start-next`
    StartNext,
    /// `jobs/$next/get`
    DescribeNext,
    /// `jobs/<job>/get`
    DescribeJob(&'a str),
    /// `jobs/<job>/update`
    UpdateJob(&'a str),
    /// Anything else under `jobs/`.
    UnknownJobs,
    /// `streams/<stream>/describe/<encoding>`
    DescribeStream(&'a str, Encoding),
    /// `streams/<stream>/get/<encoding>`
    GetStream(&'a str, Encoding),
    /// Anything else under `streams/<stream>/`.
    UnknownStream(&'a str, Encoding),
}

/// Splits `$aws/things/<thing>/<rest>`; `None` for every other topic. The thing's name is not checked.
#[must_use]
pub fn split_thing(topic: &str) -> Option<(&str, &str)> {
    let rest = topic.strip_prefix("$aws/things/")?;
    match rest.split_once('/') {
        Some((thing, rest)) => Some((thing, rest)),
        None => Some((rest, "")),
    }
}

/// Reads the part behind the thing; `None` for namespaces that are not ours (shadows and the like).
pub(super) fn parse(rest: &str) -> Option<Request<'_>> {
    let mut levels = rest.split('/');
    match levels.next()? {
        "jobs" => {
            let level = (levels.next(), levels.next(), levels.next());
            Some(match level {
                (Some("get"), None, None) => Request::PendingJobs,
                (Some("start-next"), None, None) => Request::StartNext,
                (Some("$next"), Some("get"), None) => Request::DescribeNext,
                (Some(job), Some("get"), None) => Request::DescribeJob(job),
                (Some(job), Some("update"), None) if job != "$next" => Request::UpdateJob(job),
                _ => Request::UnknownJobs,
            })
        }
        "streams" => {
            let stream = levels.next()?;
            let verb = levels.next()?;
            let encoding = levels.next().map(Encoding::parse);
            let over = levels.next().is_some();
            Some(match (verb, encoding) {
                ("describe", Some(Some(encoding))) if !over => {
                    Request::DescribeStream(stream, encoding)
                }
                ("get", Some(Some(encoding))) if !over => Request::GetStream(stream, encoding),
                (_, Some(Some(encoding))) => Request::UnknownStream(stream, encoding),
                _ => Request::UnknownStream(stream, Encoding::Json),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_of_the_service_is_recognised() {
        let rows = [
            ("jobs/get", Some(Request::PendingJobs)),
            ("jobs/start-next", Some(Request::StartNext)),
            ("jobs/$next/get", Some(Request::DescribeNext)),
            ("jobs/j1/get", Some(Request::DescribeJob("j1"))),
            ("jobs/j1/update", Some(Request::UpdateJob("j1"))),
            // A job may be called as a request is: the second level decides.
            ("jobs/get/get", Some(Request::DescribeJob("get"))),
            ("jobs/$next/update", Some(Request::UnknownJobs)),
            ("jobs/j1/update/accepted", Some(Request::UnknownJobs)),
            ("jobs/notify", Some(Request::UnknownJobs)),
            ("jobs", Some(Request::UnknownJobs)),
            (
                "streams/s/get/cbor",
                Some(Request::GetStream("s", Encoding::Cbor)),
            ),
            (
                "streams/s/describe/json",
                Some(Request::DescribeStream("s", Encoding::Json)),
            ),
            (
                "streams/s/data/cbor",
                Some(Request::UnknownStream("s", Encoding::Cbor)),
            ),
            (
                "streams/s/get/xml",
                Some(Request::UnknownStream("s", Encoding::Json)),
            ),
            (
                "streams/s/get/cbor/x",
                Some(Request::UnknownStream("s", Encoding::Cbor)),
            ),
            ("shadow/get", None),
            ("", None),
        ];
        for (rest, want) in rows {
            assert_eq!(parse(rest), want, "{rest}");
        }
    }

    #[test]
    fn the_thing_is_the_third_level() {
        assert_eq!(
            split_thing("$aws/things/gw/jobs/get"),
            Some(("gw", "jobs/get"))
        );
        assert_eq!(split_thing("$aws/things/gw"), Some(("gw", "")));
        assert_eq!(split_thing("$aws/events/x"), None);
        assert_eq!(split_thing("aws/things/gw/jobs/get"), None);
    }
}
