//! User name and password, for brokers that know their clients by them. The password is shown nowhere: not by `Debug`,
//! not in an error.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::error::MqttError;

const WHAT: &str = "password file";

/// Largest user name and password: MQTT 3.1.1 counts their bytes in two (section 1.5.3 and 3.1.3.5).
pub(crate) const LOGIN_MAX_BYTES: usize = 65_535;

/// Largest file that a password is read from: one line, and the line's end.
const FILE_MAX_BYTES: u64 = LOGIN_MAX_BYTES as u64 + 2;

/// What CONNECT says about who this is, beside the client certificate or in its place.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// User name; without a password also AWS IoT's place for SDK metrics.
    pub user_name: String,
    password: Option<String>,
}

impl Login {
    /// A user name and nothing that proves it.
    #[must_use]
    pub fn name(user_name: impl Into<String>) -> Self {
        Self {
            user_name: user_name.into(),
            password: None,
        }
    }

    /// A user name with its password.
    #[must_use]
    pub fn new(user_name: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user_name: user_name.into(),
            password: Some(password.into()),
        }
    }

    /// A user name whose password is the first line of a file.
    ///
    /// # Errors
    /// The file cannot be read, is larger than a password may be, is no text, or begins with an empty line.
    pub fn from_file(user_name: impl Into<String>, path: &Path) -> Result<Self, MqttError> {
        let unreadable = |source| MqttError::Unreadable {
            what: WHAT,
            path: path.to_owned(),
            source,
        };
        let unusable = |why: String| MqttError::Unusable {
            what: WHAT,
            path: path.to_owned(),
            why,
        };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        if bytes.len() as u64 > FILE_MAX_BYTES {
            let why =
                format!("it has more than {FILE_MAX_BYTES} bytes, the most of a password's file");
            return Err(unusable(why));
        }
        let text =
            String::from_utf8(bytes).map_err(|_| unusable("it is no UTF-8 text".to_owned()))?;
        match text.lines().next() {
            Some(password) if !password.is_empty() => Ok(Self::new(user_name, password)),
            Some(_) | None => Err(unusable(
                "its first line, the password, is empty".to_owned(),
            )),
        }
    }

    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user_name", &self.user_name)
            .field("has_password", &self.password.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn from_bytes(bytes: &[u8]) -> Result<Login, MqttError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, bytes).unwrap();
        Login::from_file("pump", &path)
    }

    #[test]
    fn the_password_is_the_first_line_and_is_never_shown() {
        for text in ["s3cret", "s3cret\n", "s3cret\r\nand a remark\n"] {
            let login = from_bytes(text.as_bytes()).unwrap();
            assert_eq!(login.password(), Some("s3cret"));
            assert!(!format!("{login:?}").contains("s3cret"));
        }
    }

    #[test]
    fn a_file_that_holds_no_password_is_named_and_not_quoted() {
        let longest = vec![b'x'; LOGIN_MAX_BYTES];
        assert!(from_bytes(&longest).is_ok());
        for (bytes, words) in [
            (b"".to_vec(), "is empty"),
            (b"\ns3cret".to_vec(), "is empty"),
            (vec![0xff, b's'], "no UTF-8"),
            (vec![b'x'; LOGIN_MAX_BYTES + 3], "more than 65537 bytes"),
        ] {
            let told = from_bytes(&bytes).unwrap_err().to_string();
            assert!(
                told.contains("password file /") && told.contains(words),
                "{told}"
            );
            assert!(!told.contains("s3cret"), "{told}");
        }
        let told = Login::from_file("pump", Path::new("/nonexistent/password")).unwrap_err();
        assert!(told.to_string().contains("cannot be read"), "{told}");
    }
}
