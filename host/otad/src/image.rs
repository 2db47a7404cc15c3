//! Images: append the trailer, read it, say what an image is. `otad image pack`, `otad image show`, `otad target init`.
//!
//! Not here: signatures; those belong to updates.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use host_crypto::Hasher;
use host_runtime::target::trailer::{TRAILER_BYTES, Trailer, TrailerError};
use host_runtime::types::Version;

use crate::exit::{Exit, Failed};

/// What an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// All its bytes, the trailer included.
    pub size: u64,
    /// Their digest.
    pub sha256: [u8; 32],
    /// What it says about itself; `None` = nothing, which is no error.
    pub trailer: Option<Trailer>,
}

/// Parse `major.minor.revision` or `major.minor.revision+build`.
///
/// # Errors
/// Worded: what is wrong with which part.
pub fn parse_version(text: &str) -> Result<Version, String> {
    let (numbers, build) = match text.split_once('+') {
        Some((numbers, build)) => (numbers, Some(build)),
        None => (text, None),
    };
    let parts: Vec<&str> = numbers.split('.').collect();
    let [major, minor, revision] = parts[..] else {
        return Err(format!(
            "\"{text}\" is no version: expected major.minor.revision, such as 1.1.0"
        ));
    };
    fn part<T: std::str::FromStr + std::fmt::Display>(
        name: &str,
        text: &str,
        max: T,
    ) -> Result<T, String> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| text.parse().ok())
            .flatten()
            .ok_or_else(|| format!("{name} is \"{text}\", expected 0 to {max}"))
    }
    Ok(Version {
        major: part("major", major, u8::MAX)?,
        minor: part("minor", minor, u8::MAX)?,
        revision: part("revision", revision, u16::MAX)?,
        build: build.map_or(Ok(0), |b| part("build", b, u32::MAX))?,
    })
}

/// Copy `from` to `to` and append the trailer; the mode is kept, so that a program stays executable.
///
/// # Errors
/// [`Exit::Refused`] if `from` has a trailer already; [`Exit::Usage`] for a name that does not fit; otherwise what the
/// files say.
pub fn pack(
    from: &Path,
    to: &Path,
    version: Version,
    product: &str,
    hardware: &str,
) -> Result<Facts, Failed> {
    let old = facts(from)?;
    if let Some(trailer) = &old.trailer {
        return Err(Failed::new(
            Exit::Refused,
            format!(
                "{}: has a trailer already, version {}; pack the program itself",
                from.display(),
                trailer.version
            ),
        ));
    }
    if old.size == 0 {
        return Err(Failed::new(
            Exit::Refused,
            format!("{}: is empty, there is nothing to pack", from.display()),
        ));
    }
    let bytes = Trailer {
        version,
        product: product.to_owned(),
        hardware: hardware.to_owned(),
        payload_bytes: old.size,
    }
    .encode()
    .map_err(|e| Failed::new(Exit::Usage, e.to_string()))?;
    let draft = draft_of(to);
    if is_same(from, &draft) {
        let text = format!(
            "{}: give it another name, for {} is put together there",
            from.display(),
            to.display()
        );
        return Err(Failed::new(Exit::Usage, text));
    }
    let write = || -> io::Result<()> {
        let mode = fs::metadata(from)?.permissions();
        // What a kill left may have a mode that nobody may write; if it stays, the next call says so.
        let _ = fs::remove_file(&draft);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        io::copy(&mut File::open(from)?, &mut file)?;
        file.write_all(&bytes)?;
        // Last: it may be one that nobody may write.
        file.set_permissions(mode)?;
        file.sync_all()?;
        fs::rename(&draft, to)
    };
    write().map_err(|e| {
        // Of a draft that cannot be removed the next try tells.
        let _ = fs::remove_file(&draft);
        failed(to, &e)
    })?;
    facts(to)
}

/// Whether both are names of one file.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Where a file is put together before it takes its name.
pub(crate) fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Read a whole image.
///
/// # Errors
/// [`Exit::Failed`]: what the file says; [`Exit::Unverified`]: a trailer that is damaged.
pub fn facts(path: &Path) -> Result<Facts, Failed> {
    let mut file = File::open(path).map_err(|e| failed(path, &e))?;
    let (size, sha256) = digest(&mut file).map_err(|e| failed(path, &e))?;
    let mut tail = Vec::new();
    let start = size.saturating_sub(TRAILER_BYTES as u64);
    file.seek(SeekFrom::Start(start))
        .and_then(|_| file.read_to_end(&mut tail))
        .map_err(|e| failed(path, &e))?;
    let trailer = match Trailer::decode(&tail, size) {
        Ok(trailer) => Some(trailer),
        Err(TrailerError::None) => None,
        Err(e) => {
            return Err(Failed::new(
                Exit::Unverified,
                format!("{}: {e}", path.display()),
            ));
        }
    };
    Ok(Facts {
        size,
        sha256,
        trailer,
    })
}

pub(crate) fn digest(file: &mut File) -> io::Result<(u64, [u8; 32])> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 64 * 1024];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, *hasher.finish().sha256())),
            Ok(n) => {
                size += n as u64;
                hasher.update(&buffer[..n]);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

pub(crate) fn failed(path: &Path, error: &io::Error) -> Failed {
    Failed::new(Exit::Failed, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_program_that_nobody_may_write_is_packed_whatever_an_earlier_try_left() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("app"), dir.path().join("app.img"));
        let fixed = |path: &Path| {
            fs::write(path, b"#!/bin/sh\nexit 0\n").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
        };
        fixed(&from);
        fixed(&draft_of(&to));
        let failed = pack(
            &draft_of(&to),
            &to,
            parse_version("1.0.0").unwrap(),
            "pump",
            "",
        );
        assert_eq!(failed.unwrap_err().exit, Exit::Usage);
        assert!(draft_of(&to).exists());
        let version = parse_version("1.0.0").unwrap();
        let facts = pack(&from, &to, version, "pump", "").unwrap();
        assert_eq!(facts.trailer.unwrap().version, version);
        let mode = fs::metadata(&to).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o555);
        assert!(!draft_of(&to).exists());
    }

    #[test]
    fn versions_are_parsed_within_their_limits() {
        let good = [
            ("1.1.0", (1, 1, 0, 0)),
            ("0.0.0", (0, 0, 0, 0)),
            ("255.255.65535+4294967295", (255, 255, 65535, u32::MAX)),
        ];
        for (text, (major, minor, revision, build)) in good {
            let version = Version {
                major,
                minor,
                revision,
                build,
            };
            assert_eq!(parse_version(text), Ok(version));
            assert_eq!(version.to_string(), text);
        }
        for text in [
            "",
            "1",
            "1.1",
            "1.1.0.0",
            "256.0.0",
            "1.-1.0",
            "1.1.x",
            "1.1.65536",
            "v1.0.0",
            "1.0.0+",
            "1.0.0+4294967296",
            "1. 1.0",
        ] {
            assert!(parse_version(text).is_err(), "{text}");
        }
    }

    fn program(dir: &Path) -> PathBuf {
        let path = dir.join("app");
        fs::write(&path, "#!/bin/sh\necho hello\nexit 3\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_packed_program_says_its_version_and_still_runs() {
        let dir = tempfile::tempdir().unwrap();
        let from = program(dir.path());
        let to = dir.path().join("app.img");
        let version = parse_version("1.2.3+4").unwrap();
        let packed = pack(&from, &to, version, "pump", "rev-b").unwrap();
        assert_eq!(packed, facts(&to).unwrap());
        let trailer = packed.trailer.unwrap();
        assert_eq!(
            (
                trailer.version,
                trailer.product.as_str(),
                trailer.hardware.as_str()
            ),
            (version, "pump", "rev-b")
        );
        assert_eq!(packed.size, facts(&from).unwrap().size + 128);
        // Through sh: another test's child may hold the file's descriptor for an instant (ETXTBSY).
        let status = std::process::Command::new("sh").arg(&to).status().unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(
            fs::metadata(&to).unwrap().permissions().mode() & 0o777,
            0o755
        );
    }

    #[test]
    fn what_cannot_be_packed_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let from = program(dir.path());
        let to = dir.path().join("app.img");
        let version = Version::default();
        pack(&from, &to, version, "", "").unwrap();
        let again = pack(&to, &dir.path().join("twice"), version, "", "").unwrap_err();
        assert_eq!(again.exit, Exit::Refused);
        let long = pack(&from, &to, version, &"p".repeat(49), "").unwrap_err();
        assert_eq!(long.exit, Exit::Usage);
        let empty = dir.path().join("empty");
        fs::write(&empty, "").unwrap();
        let nothing = pack(&empty, &to, version, "", "").unwrap_err();
        assert_eq!(nothing.exit, Exit::Refused);
        let missing = facts(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.exit, Exit::Failed);
    }

    #[test]
    fn a_damaged_trailer_is_not_shown_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("app.img");
        pack(&program(dir.path()), &to, Version::default(), "p", "").unwrap();
        let mut bytes = fs::read(&to).unwrap();
        let end = bytes.len();
        bytes[end - 100] ^= 1;
        fs::write(&to, bytes).unwrap();
        assert_eq!(facts(&to).unwrap_err().exit, Exit::Unverified);
    }
}
