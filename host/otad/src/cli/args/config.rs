//! The command line of `otad config`.

use clap::Subcommand;

use super::ConfigArg;

/// `otad config`.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Check the file, and the files and programs that it names.
    Check {
        #[command(flatten)]
        /// Which configuration.
        config: ConfigArg,
    },
    /// List every number that can be set: key, unit, default, range.
    Keys,
}
