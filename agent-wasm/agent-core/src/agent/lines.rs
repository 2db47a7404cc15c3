//! What the agent says to people: one row a line, and the texts of its own reasons.
//!
//! A row costs the guest its text and two bytes; a call costs a number. `#` stands for a number and `$` for a text of the
//! call.

use alloc::string::String;

use crate::code::{OtaErr, OtadErr};
use crate::settings::Key;
use crate::text::push_decimal;
use crate::types::{Failure, Level, Order};

use super::{Agent, said};

macro_rules! lines {
    ($( $name:ident = $level:ident $text:expr, )+) => {
        /// One line of the log.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
            $( $name, )+
        }

        const LEVELS: &[Level] = &[ $( Level::$level, )+ ];
        pub(super) const LINES: &str = concat!($( $text, "\n", )+);
    };
}

lines! {
    // The story of an agent.
    Greeting = Info concat!("otad-agent ", env!("CARGO_PKG_VERSION"), ", device $"),
    UnknownSetting = Warn "unknown setting ignored: $",
    GoingOn = Info "going on with job $",
    Ready = Info "agent ready, device $",
    Connected = Info "connected",
    Disconnected = Warn "disconnected, reason #: $",
    Suspended = Info "suspended by order",
    Resumed = Info "resumed by order",
    Refused = Warn "command refused: $",
    Target = Info "target # $",
    TargetSilent = Warn "target # is silent: $",
    Restarted = Info "target # has restarted",
    Emitted = Info "application event, kind #",
    JournalFailed = Warn "trying again: $",
    // Questions for jobs.
    Asking = Debug "asking for a job: $",
    AskingAgain = Warn "no answer to the job request, asking again",
    AskNotSent = Warn "the job request was not sent: $",
    AskRefused = Warn "the job service refused the job request: $",
    SubscribeFailed = Warn "the subscription failed: $",
    NoJob = Info "no job",
    Unreadable = Warn "job message not understood, parse error #",
    // A job before it begins.
    JobId = Info "job parameter [jobId: $]",
    Protocols = Info "job parameter [protocols: $]",
    Stream = Info "job parameter [streamname: $]",
    FilePath = Info "job parameter [filepath: $]",
    FileSize = Info "job parameter [filesize: #]",
    FileIdentity = Info "job parameter [fileid: #]",
    CertFile = Info "job parameter [certfile: $]",
    FileType = Info "job parameter [fileType: #]",
    Signature = Info "job parameter [$...]",
    Accepted = Info "job accepted, the transfer begins",
    Offered = Info "job $ is offered",
    OfferGone = Info "job $ is no longer offered",
    Deferred = Info "job $ was deferred",
    Declined = Info "job $ was declined",
    LeftAlone = Info "job $ is left alone",
    LeftToOthers = Info "job $ is left to others",
    RunByOthers = Info "job $ is run by others",
    JobRefused = Error "job $ refused",
    InSelfTest = Info "job $ is in self-test",
    Unclaimed = Warn "an uncommitted image that no job claims goes back",
    // The transfer.
    BlocksHeld = Info "file # is ready to receive",
    BlocksRequested = Info "blocks requested: $",
    MoreRequested = Debug "blocks requested: $",
    RequestNotSent = Warn "the block request was not sent: $",
    RequestRefused = Warn "the stream service refused the block request: $",
    RangeFailed = Warn "a range was answered with HTTP status #",
    RangeUnanswered = Warn "a range was not answered: $",
    PlaneChanged = Warn "the other protocol is taken",
    FirstBlock = Info "received file block #, size $",
    Block = Debug "received file block #, size $",
    BlockDropped = Debug "a block message was dropped: $",
    FinalBlock = Info "received the final block of file #",
    Verified = Info "file # is complete and its signature valid, signer $",
    // Operations on files, in the order of the deeds from `Create` on.
    Create = Info "creating file #",
    Reopen = Info "reopening file #",
    Close = Info "closing and verifying file #",
    Install = Info "installing file #",
    Activate = Info "activating file #",
    Reset = Info "restarting the target of file #",
    SelfTest = Info "testing file #",
    Commit = Info "committing file #",
    Reject = Info "rejecting file #",
    State = Info "asking for the image state of file #",
    Abort = Info "aborting file #",
    DeedFailed = Debug "an operation on file # failed: $",
    // Activation and verdict.
    StillDeferred = Info "the activation waits for an order",
    ActivationOrdered = Info "activation ordered, file #",
    TestBegins = Info "the self-test begins",
    TestAccepted = Info "self-test of file # accepted by order",
    TestRejected = Info "self-test of file # rejected by order",
    GroupSplit = Error "targets run different images: $",
    // Statuses and ends.
    Status = Info "status $",
    Progress = Debug "status $",
    StatusNotSent = Warn "the status was not sent: $",
    StatusRefused = Warn "the job service refused the status: $",
    StatusGivenUp = Error "the job service does not take the status",
    Acknowledged = Info "status acknowledged",
    Withdrawn = Warn "job $ withdrawn by the service",
    Failed = Error "job $ failed",
    Because = Error "because: $",
    Ended = Info "job $ has ended",
}

/// A reason in numbers: whose code, and that owner's number. Main 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Why {
    pub(super) main: u32,
    pub(super) sub: u32,
}

impl Why {
    pub(super) const fn new(main: u32, sub: u32) -> Self {
        Self { main, sub }
    }

    pub(super) const fn ota(code: OtaErr) -> Self {
        Self::new(code.code(), 0)
    }

    pub(super) const fn own(code: OtadErr, sub: u32) -> Self {
        Self::new(code.code(), sub)
    }

    pub(super) const fn is_some(self) -> bool {
        self.main != 0
    }

    /// The agent's own codes stand alone on the wire, a PAL's or the host's with its sub code in one word.
    pub(super) const fn word(self) -> u32 {
        if self.main < 0x80 {
            self.main
        } else {
            self.main << 24 | self.sub & 0x00ff_ffff
        }
    }

    /// What is said about a reason of our own.
    fn text(self) -> String {
        let mut text = String::new();
        let at = SAID.iter().position(|main| u32::from(*main) == self.main);
        if let Some(at) = at {
            said::push(&mut text, said::REASONS + at);
        }
        text
    }
}

macro_rules! texts {
    ($( $main:literal $text:literal, )+) => {
        /// The reasons of our own that something is said about, and what.
        const SAID: &[u8] = &[ $( $main, )+ ];
        pub(super) const TEXTS: &str = concat!($( $text, "\n", )+);
    };
}

texts! {
    0x0c "the job document is defective",
    0x0d "the job offers no protocol of this agent",
    0x0e "too many requests without an answer",
    0x0f "the new version is older than the running one",
    0x10 "the new version is the running one",
    0x11 "the running image is not what the job says",
    0x12 "the job service has closed the job",
    0x13 "given up by order",
    0x40 "no target is configured for this file id",
    0x41 "the self-test gave no verdict in time",
    0x42 "the target did not come back with the new image",
    0x44 "the stream service refuses the request",
    0x45 "the job service refuses the status",
    0x46 "the target went back to the old image by itself",
    0x48 "the new image could not be made permanent",
    0x49 "the activation was not ordered in time",
    0x4a "the target runs another version than the verified one",
    0x4c "the agent met a case that should be impossible",
    0x4d "no usable block came in time",
    0x4e "the host did not end the operation in time",
    0x50 "nobody finished the custom job in time",
    0x51 "the image stays, the job was closed by then",
    0x52 "the service does not answer",
    0x53 "the URL of the file does not work",
}

impl Agent {
    pub(super) fn note(&mut self, line: Line) {
        self.write_line(line, 0, "");
    }

    pub(super) fn note_number(&mut self, line: Line, number: u32) {
        self.write_line(line, number.into(), "");
    }

    pub(super) fn note_text(&mut self, line: Line, text: &str) {
        self.write_line(line, 0, text);
    }

    /// A line with a row of what is said.
    pub(super) fn note_said(&mut self, line: Line, row: usize) {
        let mut text = String::new();
        said::push(&mut text, row);
        self.write_line(line, 0, &text);
    }

    /// A line with what is said about a reason.
    pub(super) fn note_why(&mut self, line: Line, why: Why) {
        let detail = self.detail_of(why);
        self.write_line(line, 0, &detail);
    }

    /// A line about the job at hand.
    pub(super) fn note_job(&mut self, line: Line) {
        let id = String::from(self.job.text());
        self.write_line(line, 0, &id);
    }

    pub(super) fn write_line(&mut self, line: Line, number: u64, text: &str) {
        let level = LEVELS.get(line as usize).copied().unwrap_or(Level::Error);
        if !self.says(level) {
            return;
        }
        let mut template = String::new();
        said::push(&mut template, said::LINES + line as usize);
        let mut out = String::with_capacity(template.len() + text.len());
        for character in template.bytes() {
            match character {
                b'#' => push_decimal(&mut out, number),
                b'$' => out.push_str(text),
                other => out.push(char::from(other)),
            }
        }
        self.log(level, out);
    }

    /// Whether somebody wants to read lines of this level.
    pub(super) fn says(&self, level: Level) -> bool {
        level as u64 >= self.number(Key::LogLevel)
    }

    pub(super) fn log(&mut self, level: Level, text: String) {
        self.order_once(Order::Log { level, text });
    }

    /// Takes in what the host or an operator said about a failure, and keeps its text as long as it is the last one.
    pub(super) fn hear(&mut self, failure: &Failure) -> Why {
        self.heard.clone_from(failure);
        let why = Why::new(failure.main.into(), failure.sub);
        self.view.last_error = why;
        why
    }

    pub(super) fn detail_of(&self, why: Why) -> String {
        let heard = &self.heard;
        if u32::from(heard.main) == why.main && heard.sub == why.sub {
            heard.detail.clone()
        } else {
            why.text()
        }
    }

    pub(super) fn failure_of(&self, why: Why) -> Failure {
        Failure::new(why.main as u8, why.sub, &self.detail_of(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::ops::{Deed, VERBS};

    #[test]
    fn the_lines_of_the_deeds_stand_in_their_order() {
        assert_eq!(
            VERBS.lines().count(),
            Deed::Abort as usize + 1 - Deed::Create as usize
        );
        for (at, verb) in VERBS.lines().enumerate() {
            let text = LINES.lines().nth(Line::Create as usize + at).unwrap();
            let word = if verb == "state" {
                "asking"
            } else {
                &verb[..3]
            };
            assert!(
                text.starts_with(&word[..3]) || verb == "self-test" || verb == "reset",
                "{text}"
            );
        }
    }

    #[test]
    fn a_row_has_one_line_and_no_characters_that_a_byte_cannot_hold() {
        assert_eq!(LINES.lines().count(), LEVELS.len());
        assert_eq!(LINES.matches('\n').count(), LEVELS.len());
        assert_eq!(
            LINES.lines().nth(Line::Ended as usize),
            Some("job $ has ended")
        );
        assert_eq!(TEXTS.matches('\n').count(), SAID.len());
        assert!(LINES.is_ascii());
    }

    #[test]
    fn every_reason_of_ours_has_a_text_or_is_said_elsewhere() {
        let elsewhere = [0x43, 0x47, 0x4b, 0x4f];
        for code in OtadErr::ALL.iter().map(|code| code.code()) {
            let said = elsewhere.contains(&code);
            assert_eq!(Why::new(code, 0).text().is_empty(), said, "{code:#x}");
        }
    }

    #[test]
    fn our_own_codes_stand_alone_on_the_wire() {
        assert_eq!(Why::ota(OtaErr::SameFirmwareVersion).word(), 0x10);
        assert_eq!(Why::new(0xe8, 0x0123_4567).word(), 0xe823_4567);
    }
}
