//! The file that a later run is compared with.
//!
//! JSON, so that anybody can draw it. A file of another format is refused, not guessed at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::figure::{Figure, Spread};
use crate::machine::Machine;

/// The format that this program writes and reads.
pub const FORMAT: u32 = 1;

/// A figure over all runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Its row.
    pub row: String,
    /// Which one.
    #[serde(flatten)]
    pub figure: Figure,
    /// Of what is judged.
    pub subject: Spread,
    /// Of what it is compared with.
    pub baseline: Spread,
    /// Of subject to baseline, sample by sample.
    pub ratio: Spread,
}

/// A row that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Which one.
    pub row: String,
    /// Why not.
    pub why: String,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// Where.
    pub machine: Machine,
    /// Runs of each row.
    pub runs: usize,
    /// Bytes of the images that were downloaded.
    pub image_bytes: usize,
    /// What was measured.
    pub measured: Vec<Measured>,
    /// What was not.
    pub skipped: Vec<Skipped>,
}

/// Why there is no file, or none that can be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The medium.
    #[error("{}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No such file was written here.
    #[error("{} is no file of figures; name one that `--out` wrote", path.display())]
    Shape {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// By another version.
    #[error("{} has format {found}, this program reads {FORMAT}; take the figures again", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// What stands in every format.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl Record {
    /// Writes it, in place of what was there.
    ///
    /// # Errors
    /// The medium's.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        let at = |source| RecordError::Io {
            path: path.to_owned(),
            source,
        };
        let mut text =
            serde_json::to_string_pretty(self).map_err(|error| at(io::Error::other(error)))?;
        text.push('\n');
        fs::write(path, text).map_err(at)
    }

    /// Reads one.
    ///
    /// # Errors
    /// It cannot be read, is something else, or of another format.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let path = path.to_owned();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(source) => return Err(RecordError::Io { path, source }),
        };
        match serde_json::from_slice(&text) {
            Ok(Head { format: FORMAT }) => {}
            Ok(Head { format: found }) => return Err(RecordError::Format { path, found }),
            Err(source) => return Err(RecordError::Shape { path, source }),
        }
        serde_json::from_slice(&text).map_err(|source| RecordError::Shape { path, source })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::figure::Of;

    pub(crate) fn spread(least: f64, median: f64, most: f64) -> Spread {
        Spread {
            median,
            least,
            most,
        }
    }

    pub(crate) fn record(measured: Vec<Measured>) -> Record {
        Record {
            format: FORMAT,
            machine: Machine {
                cores: 2,
                cpu: "Xeon".into(),
                kernel: "6.1".into(),
                profile: "release".into(),
                load: "0.10".into(),
            },
            runs: 7,
            image_bytes: 16 << 20,
            measured,
            skipped: Vec::new(),
        }
    }

    pub(crate) fn measured(name: &str, ratio: Spread) -> Measured {
        Measured {
            row: "loopback".into(),
            figure: Figure::rate(name, "MiB/s").held(Of::Ratio, 0.75, 1.0),
            subject: spread(1.5, 1.0 / 3.0, 2.5),
            baseline: spread(1.0, 2.0, 3.0),
            ratio,
        }
    }

    #[test]
    fn a_file_comes_back_as_it_went() {
        let dir = support::temp_dir("figures").unwrap();
        let path = dir.path().join("figures.json");
        let mut written = record(vec![measured("4 KiB", spread(0.5, 0.7, 0.9))]);
        written.measured[0].figure.bound = None;
        written
            .measured
            .push(measured("16 KiB", spread(0.1, 0.2, 0.3)));
        written.skipped.push(Skipped {
            row: "crypto".into(),
            why: "no openssl".into(),
        });
        written.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), written);
    }

    #[test]
    fn what_is_no_such_file_is_refused_in_words() {
        let dir = support::temp_dir("figures").unwrap();
        let path = dir.path().join("figures.json");
        let check = |text: &str, expected: &str| {
            fs::write(&path, text).unwrap();
            let error = Record::read(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("no JSON", "is no file of figures");
        check("{\"format\": 1}", "is no file of figures");
        check("{\"format\": 2, \"rows\": 3}", "has format 2");
        let missing = dir.path().join("none.json");
        let error = Record::read(&missing).unwrap_err();
        assert!(matches!(error, RecordError::Io { .. }), "{error}");
    }
}
