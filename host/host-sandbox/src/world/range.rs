//! Ranges of images by URL: what their server answers, and what goes wrong there.
//!
//! The host's HTTP client is not in here, only what it lets an agent see: a status, a size, bytes of a 206, or a failure.

use host_cloud::service::{ImageId, UrlSource};
use host_runtime::mailbox::Input;
use host_runtime::types::{Failure, Token, code};

use super::{Happening, World};
use crate::net::{OutageKind, UrlTrouble};

/// Where all images are.
const SERVER: &str = "https://images.example/";

/// Time after which the host gives a range up that trickles, in milliseconds: its longest (`host-http`).
const SLOW_MS: u64 = 120_000;

/// `failure.main` of what the host's client finds out, as `wit/agent` numbers it: no connection that it trusts.
const INIT_FAILED: u8 = 0xc0;

/// An answer that is none to the question: another range, redirects without end.
const REQUEST_FAILED: u8 = 0xc2;

/// Makes a new URL at each time, as AWS does.
pub(super) struct Urls;

impl UrlSource for Urls {
    fn url(&self, now_ms: u64, image: &ImageId) -> String {
        format!("{SERVER}{}?signed={now_ms}", image.as_str())
    }
}

/// What comes of a range.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Response {
        status: u16,
        total: Option<u64>,
        body: Vec<u8>,
    },
    Failed(Failure),
}

impl Answer {
    fn status(status: u16) -> Self {
        Self::Response {
            status,
            total: None,
            body: Vec::new(),
        }
    }

    fn failed(main: u8, detail: &str) -> Self {
        Self::Failed(Failure::new(main, 0, detail))
    }
}

impl World<'_> {
    /// The device asks for a range.
    pub(super) fn range(&mut self, token: Token, url: &str, offset: u64, length: u32) {
        let trouble = self.url_trouble();
        let (answer, takes_ms) = match trouble {
            Some(UrlTrouble::Expired) => (Answer::status(403), 0),
            Some(UrlTrouble::Fails) => (Answer::status(503), 0),
            Some(UrlTrouble::Whole) => (Answer::status(200), 0),
            Some(UrlTrouble::Range) => {
                let failed = Answer::failed(REQUEST_FAILED, "another range");
                (failed, 0)
            }
            Some(UrlTrouble::Redirects) => {
                let failed = Answer::failed(REQUEST_FAILED, "more than 3 redirects");
                (failed, 0)
            }
            Some(UrlTrouble::Slow) => {
                let failed = Answer::failed(code::TIMED_OUT, "the range takes too long");
                (failed, SLOW_MS)
            }
            Some(UrlTrouble::Refused) => {
                let failed = Answer::failed(INIT_FAILED, "no trust in the server");
                (failed, 0)
            }
            Some(UrlTrouble::Short | UrlTrouble::Other) | None => {
                (self.part(url, offset, length, trouble), 0)
            }
        };
        self.ranges.insert(token);
        let latency_ms = self.prepared.scenario.weather.latency_ms;
        let at_ms = self.ground.now_ms() + 2 * latency_ms + takes_ms;
        let process = Some(self.starts);
        self.schedule(at_ms, process, Happening::Range(token, answer));
    }

    fn url_trouble(&self) -> Option<UrlTrouble> {
        let now = self.ground.now_ms();
        self.prepared.scenario.outages.iter().find_map(|outage| {
            match (outage.from_ms..outage.until_ms).contains(&now) {
                true => match outage.kind {
                    OutageKind::Url(trouble) => Some(trouble),
                    OutageKind::Disconnected
                    | OutageKind::HalfOpen
                    | OutageKind::SilentCloud
                    | OutageKind::Unavailable => None,
                },
                false => None,
            }
        })
    }

    /// A part of an image.
    fn part(&mut self, url: &str, offset: u64, length: u32, trouble: Option<UrlTrouble>) -> Answer {
        let name = url
            .strip_prefix(SERVER)
            .and_then(|rest| rest.split('?').next());
        let id = name.and_then(|name| ImageId::try_from(name.to_owned()).ok());
        let Some(image) = id.and_then(|id| self.prepared.image(&id)) else {
            return Answer::status(404);
        };
        let total = image.len() as u64;
        let from = usize::try_from(offset.min(total)).unwrap_or(image.len());
        let rest = image.get(from..).unwrap_or_default();
        let mut body = rest.to_vec();
        body.truncate(length as usize);
        let block_bytes = self.prepared.scenario.block_bytes();
        self.blocks_sent += body.len().div_ceil(block_bytes) as u64;
        if trouble == Some(UrlTrouble::Short) {
            body.truncate(body.len() / 2);
        }
        Answer::Response {
            status: 206,
            total: Some(total + u64::from(trouble == Some(UrlTrouble::Other))),
            body,
        }
    }

    /// What the device hears of a range, if it still wants to.
    pub(super) fn range_ends(&mut self, token: Token, answer: Answer) {
        if !self.ranges.remove(&token) {
            return;
        }
        match answer {
            Answer::Response {
                status,
                total,
                body,
            } => self.tell(Input::HttpResponse {
                token,
                status,
                total,
                body: body.into(),
            }),
            Answer::Failed(failure) => self.done(token, Err(failure)),
        }
    }
}
