//! What came of a case, and of all of them.

/// What is wrong with a component in one case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Case file and line.
    pub place: String,
    /// What is wrong, in words.
    pub what: String,
    /// What had happened to the component just before.
    pub input: String,
    /// What the case has there.
    pub expected: Vec<String>,
    /// What came.
    pub came: Vec<String>,
}

/// Why a case is not asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// The plugin is not, or has not, what the case `needs`.
    #[error("it needs a plugin that is or has: {0}")]
    Needs(String),
    /// The plugin's `reset` leaves it to its host to restart the target.
    #[error(
        "its reset leaves the restart to its host, and who starts such a target is not known here"
    )]
    HostResets,
    /// It is asked with `--exact`.
    #[error("it is about how the shipped agent does it")]
    Own,
    /// The component breaks, whatever it is asked.
    #[error("it broke in {0} cases and passed none")]
    Breaks(usize),
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// It does what it must not, or not what it must.
    Failed(Finding),
    /// The instance broke and is gone: a trap, a limit of fuel, memory, time or host calls.
    Broken(String),
    /// Not asked of this component.
    Skipped(Skip),
}

impl Verdict {
    /// Its name in reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "failed",
            Self::Broken(_) => "broken",
            Self::Skipped(_) => "skipped",
        }
    }
}

/// One case and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Name of the case.
    pub name: String,
    /// What it shows.
    pub purpose: String,
    /// Where it is written what it asks for.
    pub source: String,
    /// What came of it.
    pub verdict: Verdict,
    /// How long it took, in milliseconds of this machine.
    pub took_ms: u64,
}

/// All cases, in the order of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What came of each.
    pub cases: Vec<Judged>,
    /// How long all of it took, in milliseconds of this machine.
    pub took_ms: u64,
}

impl Report {
    /// How many cases ended so, by [`Verdict::name`].
    #[must_use]
    pub fn count(&self, verdict: &str) -> usize {
        let ended = self.cases.iter().map(|case| case.verdict.name());
        ended.filter(|name| *name == verdict).count()
    }

    /// Whether nobody tried to restart, commit or reject what a direct plugin had marked: the cases end before, as it leaves
    /// that to its host, and who starts its target is not known here.
    #[must_use]
    pub fn ends_before_a_start(&self) -> bool {
        let skipped = Verdict::Skipped(Skip::HostResets);
        self.cases.iter().any(|case| case.verdict == skipped)
    }

    /// Whether the component is fit: something was asked of it, and nothing failed.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        self.count("passed") > 0 && self.count("failed") == 0 && self.count("broken") == 0
    }
}
