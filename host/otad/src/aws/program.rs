//! The `aws` program: one call, its answer as JSON, its refusal by the code that AWS gives it.

use std::ffi::OsString;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Longest part of a refusal that is shown.
const SHOWN_CHARS: usize = 600;

/// How the program is called.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name or path.
    pub path: OsString,
    /// `--profile`, if one was named.
    pub profile: Option<String>,
    /// `--region`, once it is known.
    pub region: Option<String>,
}

/// Why a call gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It cannot be started.
    #[error(
        "the `aws` program cannot be started: {0}; install AWS CLI version 2, or write the documents with --aws-json"
    )]
    Missing(String),
    /// AWS refused.
    #[error("`aws {call}`: {text}")]
    Refused {
        /// Service and operation.
        call: String,
        /// Such as `ResourceNotFoundException`; none = the call did not come that far.
        code: Option<String>,
        /// What the program printed.
        text: String,
    },
    /// What came back is not what was expected.
    #[error("the answer of `aws {call}` has no {what}")]
    Answer {
        /// Service and operation.
        call: String,
        /// What is missing.
        what: String,
    },
}

impl CallError {
    /// The code that AWS gave.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => code.as_deref(),
            Self::Missing(_) | Self::Answer { .. } => None,
        }
    }

    /// Whether AWS may have done what it was asked although the call failed.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Missing(_) => false,
            Self::Refused { code, .. } => code.is_none(),
            Self::Answer { .. } => true,
        }
    }
}

impl Program {
    /// Its version line, such as `aws-cli/2.17.0 …`.
    ///
    /// # Errors
    /// It cannot be started or fails.
    pub fn version(&self) -> Result<String, CallError> {
        let (out, error) = self.run("--version", &["--version"])?;
        // Old ones print it to standard error.
        Ok(format!("{out}{error}").trim().to_owned())
    }

    /// One call with plain arguments; `Value::Null` if it answers nothing.
    ///
    /// # Errors
    /// AWS refused, or the answer is not JSON.
    pub fn call(&self, service: &str, operation: &str, more: &[&str]) -> Result<Value, CallError> {
        let call = format!("{service} {operation}");
        let mut arguments: Vec<&str> = Vec::new();
        if let Some(profile) = &self.profile {
            arguments.extend(["--profile", profile]);
        }
        if let Some(region) = &self.region {
            arguments.extend(["--region", region]);
        }
        arguments.extend(["--output", "json", service, operation]);
        arguments.extend(more);
        let (out, _) = self.run(&call, &arguments)?;
        if out.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&out).map_err(|e| CallError::Answer {
            call,
            what: format!("JSON: {e}"),
        })
    }

    /// One call with a whole input document.
    ///
    /// # Errors
    /// As [`Program::call`].
    pub fn call_with(
        &self,
        service: &str,
        operation: &str,
        document: &Value,
    ) -> Result<Value, CallError> {
        let document = document.to_string();
        self.call(service, operation, &["--cli-input-json", &document])
    }

    /// The region that the program takes where it is told none: as it does, of the environment before its configuration.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn own_region(&self) -> Result<Option<String>, CallError> {
        // `configure get` reads the configuration only, and --region beats the environment.
        let region = ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|region| !region.is_empty());
        match region {
            Some(region) => Ok(Some(region)),
            None => self.configured("region"),
        }
    }

    /// The plain text that a `configure get` prints; `None` if it has no such value.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn configured(&self, key: &str) -> Result<Option<String>, CallError> {
        let mut arguments = vec!["configure", "get", key];
        if let Some(profile) = &self.profile {
            arguments.extend(["--profile", profile]);
        }
        match self.run("configure get", &arguments) {
            Ok((out, _)) => Ok(Some(out.trim().to_owned()).filter(|text| !text.is_empty())),
            Err(CallError::Missing(why)) => Err(CallError::Missing(why)),
            Err(_) => Ok(None),
        }
    }

    fn run(&self, call: &str, arguments: &[&str]) -> Result<(String, String), CallError> {
        let output = Command::new(&self.path)
            .args(arguments)
            // Neither a pager nor a question: nobody is there to answer.
            .env("AWS_PAGER", "")
            .env("AWS_CLI_AUTO_PROMPT", "off")
            .stdin(Stdio::null())
            .output()
            .map_err(|e| CallError::Missing(e.to_string()))?;
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            return Ok((out, error));
        }
        let text: String = error.split_whitespace().collect::<Vec<_>>().join(" ");
        Err(CallError::Refused {
            call: call.to_owned(),
            code: code(&text),
            text: match text.is_empty() {
                true => format!("it ended with {} and said nothing", output.status),
                false => text.chars().take(SHOWN_CHARS).collect(),
            },
        })
    }
}

/// The word in `An error occurred (Word) when calling the … operation: …`.
fn code(text: &str) -> Option<String> {
    let rest = text.split_once("An error occurred (")?.1;
    let (code, _) = rest.split_once(')')?;
    Some(code.to_owned())
}

/// A member of an answer that must be text.
///
/// # Errors
/// It is not there.
pub fn text_of(call: &str, answer: &Value, pointer: &str) -> Result<String, CallError> {
    let found = answer.pointer(pointer).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| CallError::Answer {
        call: call.to_owned(),
        what: pointer.trim_start_matches('/').replace('/', "."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_refusal_is_taken_from_its_text() {
        let text = "An error occurred (NoSuchBucket) when calling the PutObject operation: no";
        assert_eq!(code(text).as_deref(), Some("NoSuchBucket"));
        assert_eq!(code("Could not connect to the endpoint URL"), None);
        assert_eq!(code("An error occurred (half"), None);
    }

    #[test]
    fn a_call_that_got_no_verdict_may_have_happened() {
        let refused = |code: Option<&str>| CallError::Refused {
            call: "iot create-stream".into(),
            code: code.map(str::to_owned),
            text: String::new(),
        };
        assert!(refused(None).may_have_happened());
        assert!(!refused(Some("LimitExceededException")).may_have_happened());
        assert!(!CallError::Missing(String::new()).may_have_happened());
    }

    #[test]
    fn a_program_that_is_not_there_says_what_to_do() {
        let program = Program {
            path: "/nowhere/aws".into(),
            profile: None,
            region: None,
        };
        let error = program.version().unwrap_err().to_string();
        assert!(error.contains("--aws-json"), "{error}");
    }
}
