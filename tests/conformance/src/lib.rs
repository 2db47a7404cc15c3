//! agent-core judged from outside: cases as scripts of events, and of the actions that they must lead to.
//!
//! A case file (`cases/*.txt`) holds inputs (`> …`) and the agent's doings (`< …`) as one transcript. [`script`] reads
//! it, [`world`] plays the inputs to an agent and writes down what it orders, and the two transcripts are compared.
//! The world knows MQTT payloads, blocks and targets only as far as a script needs; it judges three things by itself,
//! whatever a script says: a waiting agent names a deadline, bytes are written where they belong, and no operation is
//! named twice. `OTAD_BLESS=1` writes what happened into the files: read the difference before you commit it.
//!
//! ```
//! let case = "case idle\n\n> start\n";
//! let file = conformance::script::parse("idle.txt", case)?;
//! assert_eq!(file.cases[0].name, "idle");
//! # Ok::<(), conformance::Error>(())
//! ```

pub mod input;
pub mod model;
pub mod render;
pub mod script;
pub mod world;

/// Why a case cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The script is no script.
    #[error("{file}:{line}: {what}")]
    Script {
        /// Case file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// The agent did what no script may allow.
    #[error("{0}")]
    Misbehaved(String),
}
