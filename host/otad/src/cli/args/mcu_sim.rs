//! The command line of the simulated MCU.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// `otad mcu-sim`.
#[derive(Debug, Args)]
pub struct McuSimArgs {
    /// Symbolic link to make to its pseudo terminal; it stays the same when the plug is pulled and put in.
    #[arg(long, value_name = "PATH")]
    pub link: Option<PathBuf>,
    /// Listen on TCP in place of a pseudo terminal; port 0 = any that is free.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "link")]
    pub tcp: Option<SocketAddr>,
    /// Keep the flash in this file, byte for byte; it is made if need be. In memory without it.
    #[arg(long, value_name = "FILE")]
    pub flash: Option<PathBuf>,
    /// Image (signed by imgtool or not) on a new flash, in place of a sample of version 1.0.0.
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Public key (PEM, ECDSA P-256) of the bootloader; without it only hashes are checked.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Which server the application has.
    #[arg(long, value_name = "NAME", default_value = "zephyr-4.4", value_parser = host_mcu_sim::Profile::names().collect::<Vec<_>>())]
    pub profile: String,
    /// Which server the bootloader has itself, for when there is nothing to start or a reset asks for it.
    #[arg(long, value_name = "NAME", value_parser = host_mcu_sim::Profile::names().collect::<Vec<_>>())]
    pub recovery: Option<String>,
    /// How the bootloader changes images.
    #[arg(long, value_name = "MODE", default_value = "swap-move", value_parser = host_mcu_sim::BootMode::ALL.map(host_mcu_sim::BootMode::name))]
    pub mode: String,
    /// Packets as they are, in place of lines of text.
    #[arg(long)]
    pub raw: bool,
    #[command(flatten)]
    /// Sizes.
    pub sizes: McuSizeArgs,
    #[command(flatten)]
    /// Times.
    pub times: McuTimeArgs,
    #[command(flatten)]
    /// Faults.
    pub faults: McuFaultArgs,
}

/// How large its parts are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sizes")]
pub struct McuSizeArgs {
    /// Bytes of one slot.
    #[arg(long, value_name = "BYTES", default_value_t = 512 << 10)]
    pub slot_size: u32,
    /// Bytes of one sector of the flash.
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    pub sector_size: u32,
    /// Pairs of slots.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub images: u8,
    /// Bytes of a packet buffer, in place of the server's own.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(128..))]
    pub buffer_size: Option<u16>,
    /// Packet buffers, in place of the server's own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    pub buffer_count: Option<u8>,
}

/// How long things take.
#[derive(Debug, Args)]
#[command(next_help_heading = "Times")]
pub struct McuTimeArgs {
    /// Bits per second of the line, whatever the client sets; 0 = no limit.
    #[arg(long, value_name = "BAUD", default_value_t = 115_200)]
    pub baud: u32,
    /// Milliseconds from a request to its answer, without flash.
    #[arg(long, value_name = "MS", default_value_t = 1)]
    pub turnaround: u32,
    /// Milliseconds to erase a sector.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub erase: u32,
    /// Microseconds to write 512 bytes.
    #[arg(long, value_name = "US", default_value_t = 0)]
    pub write: u32,
    /// Microseconds until a line's buffer is free again; there are two, and a client that writes without pause loses lines.
    #[arg(long, value_name = "US", default_value_t = 0)]
    pub line_drain: u32,
    /// Milliseconds from a start to the application, without a swap.
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pub boot: u32,
    /// Lose what the line brings while the flash erases and writes.
    #[arg(long)]
    pub deaf_while_flashing: bool,
}

/// What goes wrong on purpose.
#[derive(Debug, Args)]
#[command(next_help_heading = "Faults")]
pub struct McuFaultArgs {
    /// `EFFECT[=NUMBER]@REQUEST[*NTH]`, such as `lose-response@upload-last`; may be given several times.
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<host_mcu_sim::fault::Rule>,
    /// Packets in a thousand that are lost, either way.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1000))]
    pub lose: u16,
    /// Packets in a thousand that are damaged.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1000))]
    pub garble: u16,
    /// Answer lines in a thousand that a log line comes before.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=1000))]
    pub chatter: u16,
    /// Seed of all chance.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
}
