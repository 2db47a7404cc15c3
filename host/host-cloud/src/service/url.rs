//! URLs in job documents: stored as a placeholder, made whenever a document leaves, as AWS does.

use std::borrow::Cow;

use serde_json::Value;

use super::{ImageId, Job, JobId, Protocol, Service};

/// What stands in a stored document for the URL of a file.
pub(super) const PLACEHOLDER: &str = "${otad:presigned-url}";

/// `auth_scheme` of a pre-signed URL, in AWS's word: all that is needed stands in its query.
pub(super) const AUTH_SCHEME: &str = "aws.s3.presigned";

/// Makes URLs of images. Sans-I/O: the same time and image give the same URL.
pub trait UrlSource: Send + Sync {
    /// A URL that opens this image from now on, for as long as the source likes.
    fn url(&self, now_ms: u64, image: &ImageId) -> String;
}

impl Service {
    /// Lets updates be fetched by URL.
    pub fn serve_urls(&mut self, urls: std::sync::Arc<dyn UrlSource>) {
        self.urls = Some(urls);
    }

    /// A URL of an image, as a job document that leaves now would have it; none = there are no URLs.
    #[must_use]
    pub fn url(&self, now_ms: u64, image: &ImageId) -> Option<String> {
        self.urls.as_ref().map(|urls| urls.url(now_ms, image))
    }

    /// Whether updates may name this protocol.
    pub(super) fn serves(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Mqtt => true,
            Protocol::Http => self.urls.is_some(),
        }
    }

    /// The document of a job as a device gets it now.
    pub(super) fn document(&self, now_ms: u64, job: &JobId) -> Option<Cow<'_, Value>> {
        let job = self.state.jobs.get(job)?;
        // Whatever a job of another kind says is its owner's, whether it looks like ours or not.
        let files = job.stream.as_ref().and_then(|stream| {
            let stream = self.state.streams.get(stream)?;
            has_placeholder(job).then_some(&stream.files)
        });
        let Some(known) = files else {
            return Some(Cow::Borrowed(&job.document));
        };
        let mut document = job.document.clone();
        let files = document
            .pointer_mut("/afr_ota/files")
            .and_then(Value::as_array_mut);
        for file in files.into_iter().flatten() {
            let image = file["fileid"]
                .as_u64()
                .and_then(|id| known.get(&u8::try_from(id).ok()?));
            let Some(object) = file.as_object_mut() else {
                continue;
            };
            match (&self.urls, image) {
                (Some(urls), Some(file)) => {
                    let url = urls.url(now_ms, &file.image);
                    object.insert(MEMBER.to_owned(), Value::String(url));
                }
                // Started without URLs since then: the device takes the other protocol, or says that it cannot.
                _ => {
                    object.shift_remove(MEMBER);
                    object.shift_remove("auth_scheme");
                }
            }
        }
        Some(Cow::Owned(document))
    }
}

/// Key of the URL in a file of a job document.
pub(super) const MEMBER: &str = "update_data_url";

fn has_placeholder(job: &Job) -> bool {
    let files = job.document.pointer("/afr_ota/files");
    let files = files.and_then(Value::as_array);
    files
        .into_iter()
        .flatten()
        .any(|file| file[MEMBER] == PLACEHOLDER)
}
