//! The operations of a target as scripts: which stages each runs through, as data.
//!
//! An operation is a queue of stages; a stage is over at once, or waits for a duty of the plugin, for work elsewhere or
//! for an operator's command. `stage.rs` says what each stage does; here stands only their order, but for `Store`, which
//! follows whatever has changed the record. A restart at any stage finds the record of a stage before it, and every
//! script may be begun again from its start.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use host_crypto::Verified;

use super::TargetEvent;
use super::duty::DutyRun;
use super::layout::Layout;
use super::record::Phase;
use super::swap::SwapReply;
use super::work::{ReadBack, Report};
use crate::plugin::ExaminedImage;
use crate::types::{FileSpec, ImageInfo, Outcome, TargetState, Token};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Create(Box<FileSpec>),
    Reopen,
    /// Bring a plugin that broke back, for the blocks that wait, or tell one that has come in the place of another of the
    /// transfer; nobody asked.
    Revive,
    Close,
    Install,
    Activate([u8; 32]),
    Reset,
    SelfTest,
    Commit,
    Reject,
    State,
    /// Look whether the target has restarted; nobody asked.
    Watch,
    Abort,
}

impl Kind {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Reopen => "reopen",
            Self::Revive => "revive",
            Self::Close => "close",
            Self::Install => "install",
            Self::Activate(_) => "activate",
            Self::Reset => "reset",
            Self::SelfTest => "self-test",
            Self::Commit => "commit",
            Self::Reject => "reject",
            Self::State => "state",
            Self::Watch => "watch",
            Self::Abort => "abort",
        }
    }

    /// Whether it may be given up at any point and begun again: it marks nothing and restarts nothing.
    pub(super) fn may_be_dropped(&self) -> bool {
        match self {
            Self::Reopen
            | Self::Revive
            | Self::Close
            | Self::Install
            | Self::SelfTest
            | Self::State
            | Self::Watch => true,
            Self::Create(_)
            | Self::Activate(_)
            | Self::Reset
            | Self::Commit
            | Self::Reject
            | Self::Abort => false,
        }
    }

    /// Whether another plugin build may not take over in the middle of it: the transfer cannot be reopened yet, or is
    /// being thrown away.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Create(_) | Self::Abort => true,
            Self::Reopen
            | Self::Revive
            | Self::Close
            | Self::Install
            | Self::Activate(_)
            | Self::Reset
            | Self::SelfTest
            | Self::Commit
            | Self::Reject
            | Self::State
            | Self::Watch => false,
        }
    }
}

/// A duty of the plugin's that a stage begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Create,
    Examine,
    Install,
    Activate([u8; 32]),
    Reset,
    SelfTest,
    Commit,
    Reject,
}

/// One stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Wait until no work of an earlier operation can touch storage or record any more.
    Drain,
    /// Make and open an instance, if there is none.
    Open,
    /// The same; without one the script goes on.
    TryOpen,
    /// Tell the instance of the transfer, if there is one and it does not know it.
    Attach,
    /// The same; one that refuses is left without it.
    TryAttach,
    /// Let the plugin throw its transfer away, if it can.
    Discard,
    /// Ask the target how it is.
    Ask,
    /// Refuse, or go on, by what the target said.
    Judge,
    /// Ask the target how it is after a verdict; without an answer the script goes on.
    Look,
    /// Replace the transfer of the record by a new one, or by none.
    Forget,
    /// Write the record down, off the device's task; if that fails it is what it was.
    Store,
    /// Delete the staged file of the transfer before.
    Unstage,
    /// A duty.
    Plugin(Verb),
    /// Ask where the file goes, and check it.
    Lay,
    /// Erase it.
    Erase,
    /// Begin the block map.
    LayMap,
    /// The transfer receives from now on.
    Receive,
    /// Blocks are taken from now on.
    OpenWindow,
    /// Read again what the block map holds since the last sync.
    Check,
    /// Receive on, and answer what is held.
    Resume,
    /// Nothing is written from now on.
    Lock,
    /// Make data durable, then the record that says `closed`.
    Flush,
    /// Read back, hash, verify.
    ReadBack,
    /// Compare with the target.
    Fit,
    /// The operator's own look at it.
    Inspect,
    /// Enter it into the list of what the launcher may start.
    List,
    /// The transfer is verified.
    Verify,
    /// Make the proof.
    Mint,
    /// The transfer is at least this far.
    Enter(Phase),
    /// Records may be written until the operation ends.
    OpenRecord,
    /// Restart the target as the operator configured.
    HostReset,
    /// The same, once more, for the old image; whether it works or not.
    RestartAnyway,
    /// Let this process be restarted.
    EndProcess,
    /// The operator's health check.
    Health,
    /// Ask the operator's command what runs.
    VersionCommand,
    /// Go on, or refuse, by what the target said once its plugin had committed.
    Confirm,
    /// The new image is the committed one.
    Settle,
    /// Erase or delete what a thrown-away transfer left.
    Clean,
}

impl Stage {
    /// Whether it calls the plugin.
    pub(super) fn is_plugins(self) -> bool {
        match self {
            Self::Attach
            | Self::TryAttach
            | Self::Discard
            | Self::Ask
            | Self::Look
            | Self::Plugin(_)
            | Self::Lay => true,
            Self::Drain
            | Self::Open
            | Self::TryOpen
            | Self::Judge
            | Self::Forget
            | Self::Store
            | Self::Unstage
            | Self::Erase
            | Self::LayMap
            | Self::Receive
            | Self::OpenWindow
            | Self::Check
            | Self::Resume
            | Self::Lock
            | Self::Flush
            | Self::ReadBack
            | Self::Fit
            | Self::Inspect
            | Self::List
            | Self::Verify
            | Self::Mint
            | Self::Enter(_)
            | Self::OpenRecord
            | Self::HostReset
            | Self::RestartAnyway
            | Self::EndProcess
            | Self::Health
            | Self::VersionCommand
            | Self::Confirm
            | Self::Settle
            | Self::Clean => false,
        }
    }
}

/// The stages of an operation. `old` is the phase of the target's transfer, if there is one.
pub(super) fn script(kind: &Kind, old: Option<Phase>, reader_is_plugin: bool) -> Vec<Stage> {
    use Stage as S;
    let in_test = old.is_some_and(Phase::in_test);
    let unfinished = old.is_some_and(|phase| phase <= Phase::Installed);
    let mut stages = vec![S::Drain];
    match kind {
        Kind::Create(_) => {
            stages.push(S::Open);
            if in_test {
                stages.push(S::TryAttach);
            } else if unfinished {
                stages.push(S::Discard);
            }
            stages.extend([S::Ask, S::Judge, S::Forget]);
            stages.extend([S::Plugin(Verb::Create), S::Lay, S::Erase]);
            stages.extend([S::LayMap, S::Receive, S::OpenWindow]);
        }
        Kind::Reopen => {
            let settled = old.is_some_and(Phase::is_settled);
            stages.push(S::Open);
            stages.push(if settled { S::TryAttach } else { S::Attach });
            if old == Some(Phase::Receiving) {
                stages.push(S::Check);
            }
            stages.push(S::Resume);
        }
        Kind::Revive => stages.extend([S::Open, S::Attach]),
        Kind::Close => {
            stages.extend([S::Lock, S::Flush, S::ReadBack]);
            if reader_is_plugin {
                stages.extend([S::Open, S::Attach, S::Plugin(Verb::Examine)]);
            }
            stages.extend([S::Fit, S::Inspect, S::List, S::Verify, S::Mint]);
        }
        Kind::Install => stages.extend([
            S::Open,
            S::Attach,
            S::Plugin(Verb::Install),
            S::Enter(Phase::Installed),
        ]),
        Kind::Activate(sha256) => stages.extend([
            S::Open,
            S::Attach,
            S::Enter(Phase::Activating),
            S::OpenRecord,
            S::Plugin(Verb::Activate(*sha256)),
            S::Enter(Phase::Activated),
        ]),
        Kind::Reset => stages.extend([
            S::Open,
            if in_test { S::Attach } else { S::TryAttach },
            S::OpenRecord,
            S::Plugin(Verb::Reset),
        ]),
        Kind::SelfTest => {
            stages.extend([S::Open, S::Attach, S::Plugin(Verb::SelfTest), S::Health]);
        }
        Kind::Commit => stages.extend([
            S::Open,
            S::Attach,
            S::Ask,
            S::Judge,
            S::Enter(Phase::Committing),
            S::OpenRecord,
            S::Plugin(Verb::Commit),
            // A fresh one, if it broke over what it saves.
            S::Open,
            S::TryAttach,
            S::Look,
            S::Confirm,
            S::Settle,
        ]),
        Kind::Reject => {
            stages.extend([S::Open, S::TryAttach]);
            if old == Some(Phase::Committed) {
                stages.extend([S::Ask, S::Judge]);
            }
            stages.extend([
                S::Enter(Phase::Rejecting),
                S::OpenRecord,
                S::Plugin(Verb::Reject),
                S::RestartAnyway,
                S::Enter(Phase::Rejected),
                S::Look,
            ]);
        }
        Kind::State => stages.extend([S::Open, S::TryAttach, S::Ask, S::Judge, S::VersionCommand]),
        Kind::Watch => stages.extend([S::Open, S::TryAttach, S::Ask]),
        Kind::Abort => stages.extend([S::TryOpen, S::Discard, S::Forget, S::Clean]),
    }
    stages
}

/// What an operation waits for.
#[derive(Debug)]
pub(super) enum Running {
    /// Nothing: the next stage may begin.
    Nothing,
    /// Work of earlier operations.
    Drain,
    /// A duty of the plugin's.
    Duty(Stage, DutyRun),
    /// A report with this number.
    Report(Stage, u64),
    /// The end of this process.
    ProcessEnd,
    /// The time at which the stage is begun.
    Pause(Stage, u64),
}

/// A target that the host has reset, until it is seen to have restarted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restart {
    /// When to look next.
    pub(super) next_at: u64,
    /// When to tell that it has restarted, whatever it says.
    pub(super) until: u64,
}

/// Who wants to know how the target is.
pub(super) enum Asker {
    /// The agent.
    Agent(Token),
    /// Whoever has put another build in.
    Operator(Question),
}

/// An operator's question, which gives way to what the agent wants and is put again.
pub(super) struct Question {
    pub(super) reply: SwapReply,
    /// How often it was put.
    pub(super) tries: u32,
}

/// An operation under way.
pub(super) struct Op {
    pub(super) kind: Kind,
    /// `None`: the agent is not told.
    pub(super) token: Option<Token>,
    /// Who else is told.
    pub(super) question: Option<Question>,
    pub(super) stages: VecDeque<Stage>,
    /// The stage that was entered last.
    pub(super) stage: Option<Stage>,
    pub(super) running: Running,
    /// The report that `running` waits for.
    pub(super) report: Option<Report>,
    /// What it will end with.
    pub(super) outcome: Outcome,
    /// Told after its end.
    pub(super) after: Vec<TargetEvent>,
    pub(super) progress_at: Option<u64>,
    pub(super) cancel: Arc<AtomicBool>,
    /// Bytes that the worker has read.
    pub(super) work_done: Arc<AtomicU64>,
    pub(super) read_back: Option<Box<ReadBack>>,
    /// What was read back fits the target.
    pub(super) fits: Option<Box<(Verified, ImageInfo)>>,
    pub(super) state: Option<TargetState>,
    /// What a plugin's `examine` said.
    pub(super) examined: Option<ExaminedImage>,
    /// Storage of a transfer that was thrown away.
    pub(super) leftover: Layout,
    /// When the host began to reset the target for this `reject`.
    pub(super) reset_at: Option<u64>,
    /// The medium was full, and what it held of a thrown-away transfer was given back before the record.
    pub(super) made_room: bool,
}

impl Op {
    pub(super) fn new(kind: Kind, token: Option<Token>, stages: Vec<Stage>) -> Self {
        Self {
            kind,
            token,
            question: None,
            stages: stages.into(),
            stage: None,
            running: Running::Nothing,
            report: None,
            outcome: Outcome::Nothing,
            after: Vec::new(),
            progress_at: None,
            cancel: Arc::default(),
            work_done: Arc::default(),
            read_back: None,
            fits: None,
            state: None,
            examined: None,
            leftover: Layout::default(),
            reset_at: None,
            made_room: false,
        }
    }
}
