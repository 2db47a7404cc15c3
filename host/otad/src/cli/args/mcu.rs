//! The command line of the field engineer's verbs on an MCU.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ConfigArg;

/// Longest wait for a target that restarts, in seconds: a day.
pub(super) const RESET_WAIT_MAX_S: u64 = 24 * 60 * 60;

/// `otad mcu`.
#[derive(Debug, Subcommand)]
pub enum McuVerb {
    /// The images in the target's slots.
    #[command(subcommand)]
    Image(McuImageVerb),
    /// Send a text and have it sent back: shows that the line works, and how long an answer takes.
    #[command(after_help = "\
Example:
  otad mcu echo --port /dev/ttyACM0 hello

Exit code 3 if nothing answers; 5 from a bootloader's own server, which may have no echo.")]
    Echo {
        #[command(flatten)]
        /// The line.
        link: LinkArgs,
        /// What to send.
        #[arg(default_value = "otad")]
        text: String,
    },
    /// Restart the target and wait until it answers again.
    #[command(after_help = "\
An image that was marked for test is swapped in meanwhile, which takes a minute on real flash; one that runs on trial goes \
away.

Examples:
  otad mcu reset --port /dev/ttyACM0
  otad mcu reset --port tcp://10.0.0.7:4001 --timeout 300")]
    Reset {
        #[command(flatten)]
        /// The line.
        link: LinkArgs,
        /// Also if the application objects.
        #[arg(long)]
        force: bool,
        /// Into the bootloader's own server, where it has one.
        #[arg(long)]
        recovery: bool,
        /// Do not wait.
        #[arg(long)]
        no_wait: bool,
        /// Longest wait, in seconds.
        #[arg(
            long,
            value_name = "SECONDS",
            default_value_t = 180,
            value_parser = clap::value_parser!(u64).range(..=RESET_WAIT_MAX_S),
            conflicts_with = "no_wait"
        )]
        timeout: u64,
    },
}

/// `otad mcu image`.
#[derive(Debug, Subcommand)]
pub enum McuImageVerb {
    /// List the images: slot, version, what it is, hash.
    #[command(after_help = "\
Example:
  otad mcu image list --port /dev/ttyACM0")]
    List(LinkArgs),
    /// Upload an image into the slot that does not run. It is not started: see `image test`.
    #[command(after_help = "\
An upload that was interrupted goes on where it stopped, as long as the target was not restarted. An image that lies there \
already is not sent again.

Examples:
  otad mcu image upload --port /dev/ttyACM0 zephyr.signed.bin
  otad mcu image upload --port /tmp/mcu --json app.bin

Exit code 2 if that image runs already, 3 if the line failed (the same command goes on), 5 if the target refused, 6 if the \
file is not the image that it says.")]
    Upload {
        #[command(flatten)]
        /// The line.
        link: LinkArgs,
        /// The image, as imgtool signed it.
        file: PathBuf,
        /// Number of the image, for targets with several; for a bootloader's own server the number of the slot.
        #[arg(long, value_name = "N")]
        image: Option<u32>,
        /// Chunks under way at most; a larger window has to prove itself.
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
        window: u8,
    },
    /// Mark an image for test: it starts once at the next reset, and stays if it is confirmed then.
    #[command(after_help = "\
A mark cannot be taken back: the image starts at the next reset. Refused while another image runs on trial, for that would \
confirm it.

Examples:
  otad mcu image test --port /dev/ttyACM0             the image in the other slot
  otad mcu image test --port /dev/ttyACM0 3f2a91c4    the one whose hash begins so

Exit code 2 if there is no such image, or it runs already; 5 if it must not be tested now.")]
    Test {
        #[command(flatten)]
        /// The line.
        link: LinkArgs,
        /// First digits of its hash, at least four; without them the image that does not run.
        #[arg(value_parser = hash_digits)]
        hash: Option<String>,
    },
    /// Confirm the image that runs: it stays.
    #[command(after_help = "\
Example:
  otad mcu image confirm --port /dev/ttyACM0")]
    Confirm(LinkArgs),
    /// Erase the slot that does not run.
    #[command(after_help = "\
Example:
  otad mcu image erase --port /dev/ttyACM0")]
    Erase {
        #[command(flatten)]
        /// The line.
        link: LinkArgs,
        /// Number of the slot, in place of the one that does not run.
        #[arg(long, value_name = "N")]
        slot: Option<u32>,
    },
}

/// How the target is reached.
#[derive(Clone, Debug, Args)]
pub struct LinkArgs {
    /// Terminal device, or tcp://HOST:PORT.
    #[arg(long, value_name = "PORT", required_unless_present = "target")]
    pub port: Option<String>,
    /// Target of the configuration, by its name: its line is used.
    #[arg(long, value_name = "TARGET", conflicts_with = "port")]
    pub target: Option<String>,
    #[command(flatten)]
    /// Which configuration.
    pub config: ConfigArg,
    /// Which device; may be left out where there is one.
    #[arg(long, value_name = "THING")]
    pub device: Option<String>,
    /// Bits a second; 115200 if nobody says.
    #[arg(long, value_name = "BAUD", value_parser = clap::value_parser!(u32).range(1..))]
    pub baud: Option<u32>,
    /// Packets as they are, in place of lines of text.
    #[arg(long)]
    pub raw: bool,
    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Fewer digits would name an image by accident.
const HASH_DIGITS_MIN: usize = 4;

fn hash_digits(text: &str) -> Result<String, String> {
    if text.len() < HASH_DIGITS_MIN || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!(
            "give at least {HASH_DIGITS_MIN} hexadecimal digits of the hash"
        ));
    }
    Ok(text.to_ascii_lowercase())
}
