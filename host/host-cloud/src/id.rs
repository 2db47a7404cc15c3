//! Ids that must not collide: the one place that draws random numbers.

use crate::{
    error::CloudError,
    service::{JobId, NameError, StreamId},
};

/// What OTA updates' jobs and streams are called after at AWS.
pub const OTA_PREFIX: &str = "AFR_OTA-";

pub(crate) fn random_u64() -> Result<u64, CloudError> {
    getrandom::u64().map_err(|error| CloudError::Random(error.to_string()))
}

/// A random UUID, version 4.
fn uuid() -> Result<String, CloudError> {
    let (high, low) = (random_u64()?, random_u64()?);
    // Version 4 in the third group, variant 10 in the fourth (RFC 9562, section 5.4).
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    Ok(format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    ))
}

/// `AFR_OTA-<uuid>`
///
/// # Errors
/// The system has no random numbers.
pub fn stream_id() -> Result<StreamId, CloudError> {
    Ok(StreamId::new(&format!("{OTA_PREFIX}{}", uuid()?))?)
}

/// The job of an update: `AFR_OTA-<id>`; an id that has the prefix already is taken as it is, and a missing one is drawn.
///
/// # Errors
/// The id breaks the rules of job ids, or the system has no random numbers.
pub fn update_job_id(update_id: Option<&str>) -> Result<JobId, CloudError> {
    match update_id {
        Some(id) => Ok(job_id_of(id)?),
        None => Ok(job_id_of(&uuid()?)?),
    }
}

fn job_id_of(id: &str) -> Result<JobId, NameError> {
    if id.starts_with(OTA_PREFIX) {
        JobId::new(id)
    } else {
        JobId::new(&format!("{OTA_PREFIX}{id}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_has_its_form_and_does_not_repeat() {
        let (a, b) = (uuid().unwrap(), uuid().unwrap());
        assert_ne!(a, b);
        let groups: Vec<usize> = a.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert_eq!(a.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&a.as_bytes()[19]), "{a}");
        // The length of the real ones: 8 + 36.
        assert_eq!(stream_id().unwrap().as_str().len(), 44);
    }

    #[test]
    fn an_update_names_its_job() {
        assert_eq!(update_job_id(Some("7")).unwrap().as_str(), "AFR_OTA-7");
        let whole = update_job_id(Some("AFR_OTA-7")).unwrap();
        assert_eq!(whole.as_str(), "AFR_OTA-7");
        assert!(update_job_id(Some(&"x".repeat(56))).is_ok());
        assert!(update_job_id(Some(&"x".repeat(57))).is_err());
        assert!(update_job_id(Some("a/b")).is_err());
        assert!(
            update_job_id(None)
                .unwrap()
                .as_str()
                .starts_with("AFR_OTA-")
        );
    }
}
