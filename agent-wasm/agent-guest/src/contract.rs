//! The values of the contract that cross the edge by hand, as `wit/agent` declares them: names, types and their order.
//!
//! agent-core's own types are lifted and lowered without twins; `tests/versioning` compares this file with the contract.

use alloc::string::String;
use alloc::vec::Vec;

use agent_core::types::{
    AgentStatus, ApplicationEvent, Blob, Command, Config, Context, CustomAnswer, Description,
    Event, Failure, FileId, FileStatus, ImageInfo, InstantMs, JobResult, OfferAnswer, Outcome,
    Saved, Setting, StartInfo, Target, TargetState, Token, Turn, Version, Wait,
};

use crate::abi::{
    Extent, Fields, Kept, Layout, Lift, Lower, Place, Several, extent, record, several, variant,
};

/// What a call of `pal` answers.
pub(crate) enum Started {
    Done(Outcome),
    Pending(Token),
}

record! { [lift lower] Version { major: u8, minor: u8, revision: u16, build: u32, } }
record! { [lift lower] Failure { main: u8, sub: u32, detail: String, } }
record! { [lift lower] Blob { schema: u32, bytes: Vec<u8>, } }
record! { [lift] Setting { key: String, value: String, } }
record! {
    [lift] ImageInfo {
        size: u64,
        sha256: Vec<u8>,
        version: Option<Version>,
        product: Option<String>,
        signer: String,
    }
}
record! { [lift] TargetState { code: u8, running: Option<Version>, runs_new: Option<bool>, } }
variant! {
    Outcome {
        0 Nothing,
        1 Held(Vec<u8>),
        2 Verified(ImageInfo),
        3 State(TargetState),
        4 Other(Vec<u8>),
        5 Failed(Failure),
    }
}
variant! {
    Started {
        0 Done(Outcome),
        1 Pending(Token),
    }
}

record! { [lift] Context { now_ms: InstantMs, wall_s: Option<u64>, } }
record! { [lift] Target { file: FileId, name: String, settings: Vec<Setting>, } }
record! { [lift] Config { device: String, settings: Vec<Setting>, targets: Vec<Target>, } }
variant! {
    Saved {
        0 None,
        1 Journal(Blob),
        2 Snapshot(Blob),
    }
}
record! {
    [lift] StartInfo {
        config: Config,
        saved: Saved,
        schema: u32,
        seed: u64,
        outstanding: Vec<Token>,
        last_event: u64,
    }
}

variant! {
    OfferAnswer {
        0 Accept,
        1 Defer(u64),
        2 Reject(String),
    }
}
record! { [lift] JobResult { status: u8, details: Vec<(String, String)>, } }
variant! {
    CustomAnswer {
        0 Nobody,
        1 Taken,
        2 Document(Vec<u8>),
        3 Finished(JobResult),
    }
}
variant! {
    Command {
        0 CheckForUpdate,
        1 Suspend,
        2 Resume,
        3 Activate(FileId),
        4 TestResult { file: FileId, failure: Option<Failure>, },
        5 UserAbort,
        6 AnswerOffer { job_id: String, answer: OfferAnswer, },
        7 AnswerCustomJob { job_id: String, answer: CustomAnswer, },
        8 Shutdown { unsubscribe: bool, },
    }
}
several! {
    Event {
        0 Connected { session_present: bool, },
        1 Disconnected { reason: u32, detail: String, },
        [2 Message { topic: String, payload: Vec<u8>, }],
        3 Done { token: Token, outcome: Outcome, },
        4 Progress { token: Token, done: u64, total: u64, },
        5 HttpResponse { token: Token, status: u16, total: Option<u64>, body: Vec<u8>, },
        6 TargetRestarted(FileId),
        7 Timeout,
        8 Command(Command),
        9 Allowance(u64),
        10 Custom { name: String, bytes: Vec<u8>, },
    }
}

record! { [lower] Description { name: &'static str, version: &'static str, schemas: &'static [u32], } }
record! {
    [lower] FileStatus {
        file: FileId,
        phase: u8,
        done: u64,
        total: u64,
        version: Option<Version>,
    }
}
record! {
    [lower] AgentStatus {
        state: u8,
        job_id: Option<String>,
        files: Vec<FileStatus>,
        received: u64,
        processed: u64,
        dropped: u64,
    }
}
record! {
    [lower] Wait {
        reason: u32,
        detail: String,
        since: InstantMs,
        tries: u32,
        gives_up: Option<InstantMs>,
        last_error: Option<Failure>,
    }
}
record! {
    [lower] Turn {
        deadline: Option<InstantMs>,
        status: Option<AgentStatus>,
        wait: Option<Wait>,
        refused: Option<Failure>,
    }
}
record! {
    [lower] ApplicationEvent {
        sequence: u64,
        kind: u32,
        job_id: Option<String>,
        file: Option<FileId>,
        failure: Option<Failure>,
        version: Option<Version>,
        document: Vec<u8>,
    }
}
