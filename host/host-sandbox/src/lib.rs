//! The simulated world that agents and plugins are judged in: a gateway in virtual time, everything from one seed.
//!
//! ```
//! use host_sandbox::scenario::by_name;
//! use host_sandbox::{Options, explore};
//!
//! let plain = by_name("plain").expect("it is a standard one").prepare();
//! let report = explore::run(&plain, Options::native(7));
//! assert!(report.violations.is_empty());
//! ```
//!
//! See `README.md` for how to write a scenario, a fault and an invariant.

pub mod check;
pub mod coverage;
pub mod explore;
pub mod fault;
pub mod judge;
pub mod larder;
pub mod net;
pub mod random;
pub mod recipe;
pub mod scenario;
pub mod shrink;
pub mod swarm;
pub mod trace;

mod ailment;
mod boot;
mod disk;
mod ground;
mod guest;
mod mcu;
mod native;
mod pal;
mod plant;
mod signer;
mod store;
mod wire;
mod world;

pub use ailment::{Ailment, Spell};
pub use boot::{BootRecord, Image, Next};
pub use ground::{Cut, CutKind, Ground, Moment, Verb};
pub use guest::{LoadError, Shipped};
pub use mcu::{McuCut, McuInstant, McuTally};
pub use native::native_agent;
pub use pal::{Quirk, SETTLE_MS, native_pal};
pub use plant::THING;
pub use world::{JOB, NewBuild, Options, Report, StateMaker, Swap, World, WorldFiles};
