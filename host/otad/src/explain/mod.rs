//! What a code in a job's status means and what to do about it: the troubleshooting page as data, behind `otad explain`.
//!
//! Numbers and names are the agent's; this room may not import them, so a test compares the two tables row by row.

/// One code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Whose it is; one of [`CLASSES`].
    pub class: &'static str,
    /// Its number.
    pub code: i64,
    /// Its name, as the C agent's `strerror` functions give it where it has one.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub cure: &'static str,
}

/// The classes: name, what it is, and the C agent's function that gives its names, if it has one.
pub const CLASSES: [(&str, &str, &str); 11] = [
    ("ota", "errors of the agent", "OTA_Err_strerror"),
    (
        "job-parse",
        "results of a job document",
        "OTA_JobParse_strerror",
    ),
    (
        "otad",
        "errors of this agent that the C agent has no number for",
        "",
    ),
    (
        "os",
        "errors of an operating-system port",
        "OTA_OsStatus_strerror",
    ),
    ("mqtt", "errors of MQTT", ""),
    ("http", "errors of HTTP", ""),
    ("host", "errors of the host", ""),
    ("pal", "errors of a target", "OTA_PalStatus_strerror"),
    ("jobs", "refusals of the job service", ""),
    ("stream", "refusals of the stream service", ""),
    ("signature", "why a signature does not hold", ""),
];

/// What the C agent's functions say of a number that they do not know.
pub const UNKNOWN: &str = "InvalidErrorCode";

const TABLE: &str = include_str!("codes.txt");

/// Every code, in the order of the table.
pub fn all() -> impl Iterator<Item = Code> {
    let rows = TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.filter_map(|line| {
        let mut cells = line.split(" | ");
        Some(Code {
            class: cells.next()?,
            code: cells.next()?.parse().ok()?,
            name: cells.next()?,
            meaning: cells.next()?,
            cure: cells.next()?,
        })
    })
}

/// What was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// One number, of any class.
    Number(i64),
    /// A name.
    Name(String),
    /// A main number and a second one, as a status has them.
    Pair(i64, i64),
}

impl Question {
    /// Read a number (decimal or hexadecimal), a name, or the reason of a job's status such as
    /// `0x000000e3: 0x00000005` or `aborted: 0xe4000005`.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let text = text.trim();
        if let Some(n) = number(text) {
            return unpack(n);
        }
        let numbers: Vec<i64> = text
            .split(|c: char| c.is_whitespace() || c == ':')
            .filter_map(number)
            .collect();
        match numbers[..] {
            [main, second] => Self::Pair(main, second),
            [one] => unpack(one),
            _ => Self::Name(text.to_owned()),
        }
    }

    /// The codes that it may mean, of one class or of all; the code of the second number, if any, follows its main one.
    #[must_use]
    pub fn answer(&self, class: Option<&str>) -> Vec<Code> {
        let of_class = |code: &Code| class.is_none_or(|class| code.class == class);
        match self {
            Self::Number(n) => all().filter(|c| c.code == *n && of_class(c)).collect(),
            Self::Name(name) => all()
                .filter(|c| c.name.eq_ignore_ascii_case(name) && of_class(c))
                .collect(),
            Self::Pair(main, second) => {
                let main = all().filter(|c| c.code == *main && is_main(c) && of_class(c));
                main.flat_map(|main| {
                    let class = second_class(&main);
                    let second = all().find(|c| Some(c.class) == class && c.code == *second);
                    std::iter::once(main).chain(second)
                })
                .collect()
            }
        }
    }
}

/// Whether a class has main numbers: one that a status begins with.
fn is_main(code: &Code) -> bool {
    !matches!(code.class, "job-parse" | "jobs" | "stream" | "signature") && code.code != 0
}

/// The class of the second number, where it has one.
fn second_class(main: &Code) -> Option<&'static str> {
    match main.name {
        "OtaErrJobParserError" => Some("job-parse"),
        "OtadErrStreamRejected" => Some("stream"),
        "OtadErrStatusRejected" => Some("jobs"),
        "OtaPalSignatureCheckFailed" | "OtaPalBadSignerCert" => Some("signature"),
        _ => None,
    }
}

/// A status may pack both numbers into one word: the main one in the highest byte.
fn unpack(n: i64) -> Question {
    match u32::try_from(n) {
        Ok(word) if word > 0xff => {
            Question::Pair(i64::from(word >> 24), i64::from(word & 0x00ff_ffff))
        }
        _ => Question::Number(n),
    }
}

fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if !digits.is_empty() && digits.len() <= 8 => {
            i64::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_whole_of_a_known_class_and_stands_once() {
        let rows = TABLE
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .count();
        let codes: Vec<Code> = all().collect();
        assert_eq!(codes.len(), rows);
        for (at, code) in codes.iter().enumerate() {
            assert!(CLASSES.iter().any(|c| c.0 == code.class), "{code:?}");
            assert!(
                !code.meaning.is_empty() && !code.cure.is_empty(),
                "{code:?}"
            );
            let again = codes[..at]
                .iter()
                .any(|c| c.class == code.class && (c.code == code.code || c.name == code.name));
            assert!(!again, "{code:?}");
        }
    }

    #[test]
    fn the_trust_stores_reasons_have_its_numbers() {
        use host_crypto::VerifyError as E;
        let text = String::new;
        let mismatch = E::Mismatch { entry: text() };
        let wrong_key = E::WrongKey {
            kind: "",
            key: "",
            entry: text(),
        };
        let rows = [
            (E::Missing, "Missing"),
            (E::Weak(text()), "Weak"),
            (E::UnknownKind(text()), "UnknownKind"),
            (mismatch, "Mismatch"),
            (wrong_key, "WrongKey"),
            (E::UnknownLabel(text()), "UnknownLabel"),
            (E::NoDefault, "NoDefault"),
        ];
        for (error, name) in rows {
            let question = Question::Pair(error.main().into(), error.sub().into());
            let named = question.answer(None);
            assert_eq!(named.last().map(|c| c.name), Some(name), "{error}");
        }
    }

    #[test]
    fn a_code_is_read_as_it_stands_in_a_status() {
        let rows = [
            ("227", Question::Number(0xe3)),
            ("0xe3", Question::Number(0xe3)),
            ("-1", Question::Number(-1)),
            ("0x000000e3: 0x00000005", Question::Pair(0xe3, 5)),
            ("rejected: 0x0000000f", Question::Number(15)),
            ("aborted: 0xe4000005", Question::Pair(0xe4, 5)),
            ("0xe4000005", Question::Pair(0xe4, 5)),
            ("OtaErrUserAbort", Question::Name("OtaErrUserAbort".into())),
            ("0x", Question::Name("0x".into())),
            ("0x123456789", Question::Name("0x123456789".into())),
            ("", Question::Name(String::new())),
        ];
        for (text, question) in rows {
            assert_eq!(Question::read(text), question, "{text}");
        }
    }

    #[test]
    fn the_second_number_is_explained_by_its_main_one() {
        let names = |text: &str| -> Vec<&str> {
            let codes = Question::read(text).answer(None);
            codes.iter().map(|c| c.name).collect()
        };
        assert_eq!(
            names("0x000000e3: 0x00000005"),
            ["OtaPalSignatureCheckFailed", "Mismatch"]
        );
        assert_eq!(
            names("0x0000000c: 0x00000003"),
            ["OtaErrJobParserError", "OtaJobParseErrZeroFileSize"]
        );
        assert_eq!(names("aborted: 0x00000013"), ["OtaErrUserAbort"]);
        assert_eq!(names("otaerruserabort"), ["OtaErrUserAbort"]);
        assert_eq!(names("0xff"), [""; 0]);
    }
}
