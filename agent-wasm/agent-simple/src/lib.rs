//! A simple orchestrator: a whole agent, made of agent-core's public parts by somebody who is not agent-core.
//!
//! ```text
//! start-next -> look -> create -> one block at a time, in JSON -> close -> install -> `ready` -> activate -> reset
//!            -> restarted: look -> `active` -> self-test -> commit -> SUCCEEDED
//! ```
//!
//! After a restart of the gateway job service and target are asked: a job that says `self_test` goes on behind the reset,
//! any other one from its first block. What it does not do stands in README.md.

#![cfg(target_family = "wasm")]

use agent_core::code::{OtaErr, OtadErr};
use agent_core::document::{FileEntry, JobExecution, parse_job};
use agent_core::jobs::{Encoding, SelfTest, Status};
use agent_core::settings::{Key, Settings, TargetPolicy};
use agent_core::stream::OneByOne;
use agent_core::types::{Call, FileId, Outcome, TargetState, Version};
use agent_sdk::{Desk, Orchestrator, Qos, Step};

const LOOK: Step = Step::call(0, 4, 0, 4, Call::State, 0x4e);
const CREATE: Step = Step::question(1, 4, 1, 4, 0x4e).within(300);
const BLOCK: Step = Step::question(2, 6, 2, 3, 0x0e);
const CLOSE: Step = Step::call(3, 7, 3, 4, Call::Close, 0x4e).within(1800);
const INSTALL: Step = Step::call(4, 11, 5, 4, Call::Install, 0x4e).within(1800);
const READY: Step = Step::question(5, 11, 6, 8, 0x52);
const ACTIVATE: Step = Step::call(6, 13, 7, 4, Call::Activate, 0x4e);
const RESET: Step = Step::call(7, 13, 8, 6, Call::Reset, 0x42);
const ACTIVE: Step = Step::question(8, 14, 9, 8, 0x52);
const TEST: Step = Step::call(9, 14, 9, 7, Call::SelfTest, 0x41);
const COMMIT: Step = Step::call(10, 15, 10, 4, Call::Commit, 0x4e);

struct File {
    policy: TargetPolicy,
    entry: FileEntry,
    blocks: OneByOne,
    /// The service knows that the image is tested: it may run.
    in_test: bool,
    was: Option<Version>,
    runs: Option<Version>,
}

struct Simple {
    settings: Settings,
    file: Option<File>,
}

agent_sdk::export_agent!(Simple);

impl File {
    fn accepted(&self) -> Status {
        Status::Accepted {
            running: self.runs.into(),
            updated_by: self.was.into(),
        }
    }

    fn on_state(&mut self, desk: &mut Desk, state: &TargetState) {
        self.runs = state.running;
        let is_new = state.code == 1 || self.in_test && state.runs_new == Some(true);
        match self.policy.check_version(self.was, self.runs) {
            _ if self.in_test && !is_new => desk.reject(OtadErr::RolledBack.code()),
            Err(code) if self.in_test => desk.reject(code.code()),
            // Committed already: only the service has not heard of it.
            Ok(()) if self.in_test && state.code == 2 => desk.finish(self.accepted()),
            Ok(()) if self.in_test => desk.tell(ACTIVE, Status::SelfTestActive(self.runs.into())),
            // An image in test that nobody has claimed: it goes back, and the job with it.
            _ if matches!(state.code, 1 | 4) => {
                self.in_test = true;
                desk.reject(OtaErr::ImageStateMismatch.code());
            }
            _ => {
                self.was = self.runs;
                desk.begin(CREATE);
            }
        }
    }
}

impl Orchestrator for Simple {
    const NAME: &'static str = "simple-orchestrator";
    const VERSION: &'static str = "0.1.0";

    fn new(settings: Settings) -> Self {
        let file = None;
        Self { settings, file }
    }

    fn on_job(&mut self, job: &JobExecution<'_>) -> Result<Step, Status> {
        self.file = None;
        let told = job.state.details;
        // The old image says `ready`, the new one `active`.
        let is_ready = told.self_test == Some(SelfTest::Ready);
        let was = told.updated_by.filter(|_| is_ready);
        let thing = self.settings.thing.clone();
        let block_size = self.settings.number32(Key::BlockSize);
        let (entry, blocks) =
            OneByOne::of_job(thing, parse_job(job.document)?, Encoding::Json, block_size)?;
        let (main, sub) = (OtadErr::UnknownFileId.code(), entry.file_id);
        let policy = self.settings.target(sub).cloned();
        self.file = Some(File {
            policy: policy.ok_or(Status::Failed { main, sub })?,
            entry,
            blocks,
            in_test: told.self_test.is_some(),
            was: was.map(|word| Version::from_word(word.0)),
            runs: None,
        });
        Ok(LOOK)
    }

    fn place(&self) -> Option<(FileId, u64, u64)> {
        self.file.as_ref().map(|file| file.blocks.place())
    }

    fn go(&mut self, desk: &mut Desk) {
        match (desk.step(), &self.file, desk.job()) {
            (CREATE, Some(file), Some(job)) => {
                let spec = file.entry.spec(job, file.blocks.grid().block_size());
                desk.create(&spec);
            }
            (BLOCK, Some(file), _) => {
                if file.blocks.next().0 == 0 || !desk.is_first_try() {
                    desk.subscribe(file.blocks.filters(), Qos::AtMostOnce);
                }
                desk.publish(file.blocks.request(), Qos::AtMostOnce);
            }
            _ => {}
        }
    }

    fn on_done(&mut self, desk: &mut Desk, outcome: Outcome) {
        let Some(file) = &mut self.file else { return };
        match (desk.step(), outcome) {
            (LOOK, Outcome::State(state)) => file.on_state(desk, &state),
            (CREATE, _) => desk.begin(BLOCK),
            (BLOCK, _) if file.blocks.on_written() => desk.begin(BLOCK),
            (BLOCK, _) => desk.begin(CLOSE),
            (CLOSE, Outcome::Verified(info)) => {
                match file.policy.check_version(file.was, info.version) {
                    Ok(()) => desk.begin(INSTALL),
                    Err(code) => desk.reject(code.code()),
                }
            }
            (INSTALL, _) => desk.tell(READY, Status::SelfTestReady(file.runs.into())),
            (READY, _) => {
                file.in_test = true;
                desk.begin(ACTIVATE);
            }
            (ACTIVATE, _) => desk.begin(RESET),
            (RESET, _) => desk.begin(LOOK),
            (ACTIVE, _) => desk.begin(TEST),
            (TEST, _) => desk.begin(COMMIT),
            (COMMIT, _) => desk.finish(file.accepted()),
            _ => {}
        }
    }

    fn on_message(&mut self, desk: &mut Desk, topic: &str, payload: &[u8]) {
        let Some(file) = self.file.as_ref().filter(|_| desk.step() == BLOCK) else {
            return;
        };
        match file.blocks.on_message(topic, payload) {
            Some(Ok(block)) => desk.write_block(file.entry.file_id, block.offset, &block.data),
            Some(Err(refusal)) if !refusal.may_pass() => desk.fail(Some(refusal.into())),
            _ => {}
        }
    }

    fn way_back(&self) -> Option<Call> {
        let file = self.file.as_ref()?;
        Some(if file.in_test {
            Call::Reject
        } else {
            Call::Abort
        })
    }
}
