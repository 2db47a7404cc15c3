//! Pre-signed URLs: an HMAC-SHA256 over path and end of validity, with a key of the cloud's own that survives restarts.

use std::path::Path;

use aws_lc_rs::hmac;

use crate::{
    error::CloudError,
    file::{self, PRIVATE},
    service::{ImageId, UrlSource, hex},
};

/// File name of the key in the directory of keys.
const KEY: &str = "images.key";
/// Bytes of the key: those of the digest.
const KEY_BYTES: usize = 32;
/// Where images lie.
const PREFIX: &str = "/images/";

/// Makes URLs and checks them.
pub(crate) struct Signer {
    key: hmac::Key,
    /// `https://host:port`.
    base: String,
    valid_s: u32,
}

/// Why a URL opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// No path of ours.
    NotFound,
    /// Its parameters are not there or cannot be read.
    Malformed,
    /// It was not made by this cloud, or changed since.
    Signature,
    /// Its time is over.
    Expired,
}

impl Signer {
    /// Finds or makes the key in a directory.
    pub(crate) fn open(pki: &Path, base: String, valid_s: u32) -> Result<Self, CloudError> {
        let path = pki.join(KEY);
        let key = match file::read_if_there(&path)? {
            Some(key) if key.len() == KEY_BYTES => key,
            Some(key) => {
                return Err(CloudError::Damaged {
                    path: path.display().to_string(),
                    reason: format!("it has {} bytes, expected {KEY_BYTES}", key.len()),
                });
            }
            None => {
                let mut key = vec![0; KEY_BYTES];
                getrandom::fill(&mut key).map_err(|e| CloudError::Random(e.to_string()))?;
                file::write_atomic(&path, &key, PRIVATE)?;
                key
            }
        };
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            base,
            valid_s,
        })
    }

    /// Path and query of an image, valid until a second since the epoch.
    fn signed(&self, image: &ImageId, until_s: u64) -> String {
        let tag = hmac::sign(&self.key, text(image.as_str(), until_s).as_bytes());
        let signature = hex(tag.as_ref());
        format!("{PREFIX}{image}?Expires={until_s}&Signature={signature}")
    }

    /// Which image a path and query open now.
    pub(crate) fn check(
        &self,
        path: &str,
        query: Option<&str>,
        now_ms: u64,
    ) -> Result<ImageId, Denied> {
        let name = path.strip_prefix(PREFIX).ok_or(Denied::NotFound)?;
        let image = ImageId::try_from(name.to_owned()).map_err(|_| Denied::NotFound)?;
        let (mut until, mut signature) = (None, None);
        for pair in query.unwrap_or_default().split('&') {
            let slot = match pair.split_once('=') {
                Some(("Expires", value)) => (&mut until, value),
                Some(("Signature", value)) => (&mut signature, value),
                // Whatever else stands there was not signed and changes nothing.
                Some(_) | None => continue,
            };
            if slot.0.replace(slot.1).is_some() {
                return Err(Denied::Malformed);
            }
        }
        let until_s: u64 = until
            .and_then(|text| text.parse().ok())
            .ok_or(Denied::Malformed)?;
        let tag = signature.and_then(unhex).ok_or(Denied::Malformed)?;
        hmac::verify(&self.key, text(name, until_s).as_bytes(), &tag)
            .map_err(|_| Denied::Signature)?;
        if now_ms / 1000 >= until_s {
            return Err(Denied::Expired);
        }
        Ok(image)
    }
}

impl UrlSource for Signer {
    fn url(&self, now_ms: u64, image: &ImageId) -> String {
        let until_s = now_ms / 1000 + u64::from(self.valid_s);
        format!("{}{}", self.base, self.signed(image, until_s))
    }
}

/// What is signed: no two images and times have the same text.
fn text(image: &str, until_s: u64) -> String {
    format!("GET\n{PREFIX}{image}\n{until_s}")
}

fn unhex(text: &str) -> Option<[u8; KEY_BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != KEY_BYTES * 2 {
        return None;
    }
    let mut bytes = [0; KEY_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn signer(dir: &Path) -> Signer {
        Signer::open(dir, "https://cloud:8444".into(), 60).unwrap()
    }

    fn split(url: &str) -> (&str, Option<&str>) {
        let rest = url.strip_prefix("https://cloud:8444").unwrap();
        let (path, query) = rest.split_once('?').unwrap();
        (path, Some(query))
    }

    #[test]
    fn a_url_opens_its_image_until_its_time_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let image = ImageId::of(b"image");
        let url = signer(dir.path()).url(NOW_MS, &image);
        let (path, query) = split(&url);
        let again = signer(dir.path());
        assert_eq!(again.check(path, query, NOW_MS), Ok(image.clone()));
        assert_eq!(again.check(path, query, NOW_MS + 59_999), Ok(image));
        assert_eq!(
            again.check(path, query, NOW_MS + 60_000),
            Err(Denied::Expired)
        );
    }

    #[test]
    fn a_url_that_was_touched_opens_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let other_dir = tempfile::tempdir().unwrap();
        let signer = signer(dir.path());
        let image = ImageId::of(b"image");
        let url = signer.url(NOW_MS, &image);
        let (path, query) = split(&url);
        let query = query.unwrap();
        let later = query.replace("Expires=1700000060", "Expires=1700009999");
        let twice = format!("{query}&Expires=1700000060");
        let short = &query[..query.len() - 1];
        let other = format!("/images/{}", ImageId::of(b"other"));
        let rows = [
            (path, Some(later.as_str()), Denied::Signature),
            (other.as_str(), Some(query), Denied::Signature),
            (path, Some(twice.as_str()), Denied::Malformed),
            (path, Some(short), Denied::Malformed),
            (path, Some("Expires=x&Signature=y"), Denied::Malformed),
            (path, None, Denied::Malformed),
            ("/", Some(query), Denied::NotFound),
            ("/images/../../etc/passwd", Some(query), Denied::NotFound),
            ("/images/", Some(query), Denied::NotFound),
        ];
        for (path, query, denied) in rows {
            assert_eq!(
                signer.check(path, query, NOW_MS),
                Err(denied),
                "{path} {query:?}"
            );
        }
        let other = Signer::open(other_dir.path(), String::new(), 60).unwrap();
        assert_eq!(
            other.check(path, Some(query), NOW_MS),
            Err(Denied::Signature)
        );
    }

    #[test]
    fn a_key_of_another_length_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(KEY), b"short").unwrap();
        let Err(error) = Signer::open(dir.path(), String::new(), 60) else {
            panic!("taken");
        };
        assert!(error.to_string().contains("images.key"), "{error}");
    }
}
