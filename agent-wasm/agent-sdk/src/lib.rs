//! For agents of one's own: the world `ota:agent/agent` for an orchestrator that does one thing after the other.
//!
//! An orchestrator says which step follows which (`Orchestrator`), in agent-core's words. What every such agent has to do
//! besides is here: values across the edge, the conversation with the job service, the operation that a step waits for,
//! deadlines and repetitions, the way back when something fails, the status and the wait that a call leaves behind.
//!
//! ```text
//!            on_job ─▶ step ─▶ go, or the step's call ─▶ (host) ─▶ on_done, on_message ─▶ Desk::begin(step) ─▶ …
//! start-next ─┘  ▲      └── failed, in vain, withdrawn ─▶ way_back ─▶ FAILED ─┐           └── Desk::finish(SUCCEEDED) ─┐
//!                └───────────────────────── once it is taken ─────────────────┴────────────────────────────────────────┘
//! ```
//!
//! Nothing is saved: after a restart, a swap or a trap the job is asked for again, and the orchestrator has to look where
//! its target is. Not here: any decision about a job. Native builds of this crate are empty.

#![cfg(target_family = "wasm")]

use agent_core::document::JobExecution;
use agent_core::jobs::Status;
use agent_core::settings::Settings;
use agent_core::types::{Call, FileId, Outcome};

/// What `wit/agent` becomes; [`Desk`] uses it.
#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    reason = "generated from wit/agent, which holds the documentation"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/agent",
        world: "agent",
        pub_export_macro: true,
        default_bindings_module: "agent_sdk::bindings",
        runtime_path: "wit_bindgen::rt",
        with: {
            "ota:agent/types@0.1.0/failure": agent_core::types::Failure,
            "ota:agent/types@0.1.0/setting": agent_core::types::Setting,
            "ota:agent/types@0.1.0/version": agent_core::types::Version,
            "ota:agent/types@0.1.0/image-info": agent_core::types::ImageInfo,
            "ota:agent/types@0.1.0/target-state": agent_core::types::TargetState,
            "ota:agent/types@0.1.0/outcome": agent_core::types::Outcome,
            "ota:agent/pal@0.1.0/file-spec": agent_core::types::FileSpec,
            "ota:agent/job-agent@0.1.0/config": agent_core::types::Config,
            "ota:agent/job-agent@0.1.0/target": agent_core::types::Target,
        },
    });
}

mod component;
mod desk;
mod step;

pub use bindings::ota::agent::transport::Qos;
pub use component::{Component, Instance, Seat};
pub use desk::Desk;
pub use step::Step;

/// An agent that does one thing after the other.
pub trait Orchestrator: Sized {
    /// Kebab-case.
    const NAME: &'static str;
    /// Semver text.
    const VERSION: &'static str;

    /// A new one.
    fn new(settings: Settings) -> Self;

    /// A job has begun, perhaps long ago: which step comes first.
    ///
    /// # Errors
    /// How it ends without a step.
    fn on_job(&mut self, job: &JobExecution<'_>) -> Result<Step, Status>;

    /// The target of the job, blocks held, and blocks in all.
    fn place(&self) -> Option<(FileId, u64, u64)>;

    /// Do what a step without a call is about, perhaps once more.
    fn go(&mut self, desk: &mut Desk);

    /// The step is done: its operation is over, its status is taken, its reset has brought the target up again. What
    /// failed leads to the way back by itself.
    fn on_done(&mut self, desk: &mut Desk, outcome: Outcome);

    /// A message of this device that is not the job service's.
    fn on_message(&mut self, desk: &mut Desk, topic: &str, payload: &[u8]);

    /// How the target gets back to what it was: `Abort` as long as nothing is marked for boot, then `Reject`; none once
    /// there is no way back.
    fn way_back(&self) -> Option<Call>;
}

/// Makes an [`Orchestrator`] the agent of this component.
#[macro_export]
macro_rules! export_agent {
    ($agent:ty) => {
        #[allow(unsafe_code, reason = "the exported functions are generated")]
        const _: () = {
            ::std::thread_local! {
                static SEAT: ::core::cell::RefCell<$crate::Seat<$agent>> =
                    const { ::core::cell::RefCell::new(None) };
            }

            impl $crate::Instance for $agent {
                fn with<R>(f: impl ::core::ops::FnOnce(&mut $crate::Seat<Self>) -> R) -> R {
                    SEAT.with_borrow_mut(f)
                }
            }

            type Exported = $crate::Component<$agent>;
    $crate::bindings::export!(Exported with_types_in $crate::bindings);
        };
    };
}
