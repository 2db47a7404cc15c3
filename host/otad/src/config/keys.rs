//! Every number that can be set: key, unit, default, range, and why. One table, so that the reader, its messages, the
//! documentation and the tests at each limit cannot disagree.
//!
//! Not here: keys that are no numbers; those are in `words.rs`.

/// One number of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// The table it stands in.
    pub section: &'static str,
    /// Its key.
    pub key: &'static str,
    /// Unit, for messages.
    pub unit: &'static str,
    /// Value when it is not set; `None` = no number, what holds then stands in `about`.
    pub default: Option<u64>,
    /// Least value.
    pub min: u64,
    /// Greatest value.
    pub max: u64,
    /// What it does and why its limits are what they are.
    pub about: &'static str,
}

impl Number {
    /// What a reader goes on with where nothing is said: of a number without a default the least value.
    #[must_use]
    pub fn otherwise(&self) -> u64 {
        self.default.unwrap_or(self.min)
    }
}

const MINUTE_MS: u64 = 60 * 1000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

macro_rules! numbers {
    (@default) => { None };
    (@default $default:expr) => { Some($default) };
    ($($name:ident = $section:literal $key:literal [$unit:literal] $($default:expr)?, $min:expr => $max:expr, $about:literal;)*) => {
        $(
            #[doc = $about]
            pub const $name: Number = Number {
                section: $section, key: $key, unit: $unit, default: numbers!(@default $($default)?), min: $min, max: $max, about: $about,
            };
        )*
        /// All of them, in the order of the documentation.
        pub const NUMBERS: &[Number] = &[$($name),*];
    };
}

numbers! {
    PARK_AFTER_MS = "daemon" "park_after_ms" ["milliseconds"] MINUTE_MS, 0 => 30 * DAY_MS,
        "silence after which the agent of a device without a job is put away until something happens; 0 = never";
    CONNECTS_PER_S_MAX = "daemon" "connects_per_s_max" ["connections a second"] 50, 1 => 10_000,
        "connections that all devices together begin in a second, at the start and after their broker was gone";
    PORT = "device.mqtt" "port" ["port"] 8883, 1 => 65535,
        "TCP port of the endpoint; AWS IoT also listens on 443 with ALPN";
    KEEP_ALIVE_S = "device.mqtt" "keep_alive_s" ["seconds"] 60, 5 => 1200,
        "silence after which the connection is probed; AWS IoT takes at most 1200";
    CONNECT_TIMEOUT_MS = "device.mqtt" "connect_timeout_ms" ["milliseconds"] 20_000, 500 => 120_000,
        "how long name, TCP, TLS and CONNACK may take together";
    RECONNECT_MIN_MS = "device.mqtt" "reconnect_min_ms" ["milliseconds"] 500, 10 => HOUR_MS,
        "first delay before a reconnect; it doubles each time and has as much jitter again";
    RECONNECT_MAX_MS = "device.mqtt" "reconnect_max_ms" ["milliseconds"] 60_000, 10 => DAY_MS,
        "the delay stops doubling here";
    PUBLISH_FAILURES_MAX = "device.mqtt" "publish_failures_max" ["publishes"] 3, 1 => 1000,
        "failed publishes in a row after which the connection is made anew";
    BLOCK_SIZE = "device.agent" "block_size" ["bytes"] 4096, 256 => 131_072,
        "bytes of a block; the limits are those of MQTT file streams";
    BLOCKS_PER_REQUEST = "device.agent" "blocks_per_request" ["blocks"] 31, 1 => 512,
        "blocks of one request; times block_size at most 128 KiB (512 = 128 KiB / 256)";
    REQUESTS_IN_FLIGHT = "device.agent" "requests_in_flight" ["requests"] 32, 1 => 64,
        "most requests for blocks, or ranges, under way at once; how many is what the line needs. 32 of 128 KiB fill 100 Mbit/s at 200 ms, 1 is the C agent's way";
    REQUEST_TIMEOUT_MS = "device.agent" "request_timeout_ms" ["milliseconds"] 10_000, 10 => 10 * MINUTE_MS,
        "time for an answer of the services before a request is repeated";
    RETRY_MAX_MS = "device.agent" "retry_max_ms" ["milliseconds"] 5 * MINUTE_MS, 10 => DAY_MS,
        "longest back-off between repeated requests and statuses";
    MOMENTUM_MAX = "device.agent" "momentum_max" ["requests"] 32, 1 => 10_000,
        "block requests in a row without a good block after which the job fails";
    STATUS_FREQUENCY = "device.agent" "status_frequency" ["blocks"] 64, 1 => 1_048_576,
        "blocks between two progress reports; 1048576 is the most a file has";
    POLL_INTERVAL_MS = "device.agent" "poll_interval_ms" ["milliseconds"] 0, 0 => 30 * DAY_MS,
        "how often the service is asked for a job without being notified; 0 = never";
    FIRMWARE_FILE_TYPE = "device.agent" "firmware_file_type" ["file type"] 0, 0 => u32::MAX as u64,
        "the file type of images that are activated and tested";
    SELF_TEST_DEADLINE_MS = "device.agent" "self_test_deadline_ms" ["milliseconds"] 5 * MINUTE_MS, 10 => 30 * DAY_MS,
        "time from the restart to the verdict of the self-test, coming back on line included";
    RESTART_DEADLINE_MS = "device.agent" "restart_deadline_ms" ["milliseconds"] 5 * MINUTE_MS, 10 => DAY_MS,
        "how long a target may take to come back after its restart";
    ACTIVATION_REMINDER_MS = "device.agent" "activation_reminder_ms" ["milliseconds"] HOUR_MS, 10 => 30 * DAY_MS,
        "how often a deferred activation or an open offer is announced again";
    ACTIVATION_DEADLINE_MS = "device.agent" "activation_deadline_ms" ["milliseconds"] 7 * DAY_MS, 10 => 365 * DAY_MS,
        "longest deferral of an activation before the job fails";
    OPERATION_DEADLINE_MS = "device.agent" "operation_deadline_ms" ["milliseconds"] 30 * MINUTE_MS, 10 => DAY_MS,
        "time for an operation of the host without an end and without progress";
    UPDATE_ATTEMPTS = "device.agent" "update_attempts" ["attempts"] 3, 1 => 100,
        "tries of a step after which a target or the service gives the same answer once more";
    CUSTOM_ANSWER_MS = "device.agent" "custom_answer_ms" ["milliseconds"] 10_000, 0 => DAY_MS,
        "time for the answer to a custom job before it counts as nobody's; 0 = nobody is asked";
    CUSTOM_JOB_DEADLINE_MS = "device.agent" "custom_job_deadline_ms" ["milliseconds"] DAY_MS, 10 => 365 * DAY_MS,
        "time for a custom job from taken to finished";
    LOG_LEVEL = "device.agent" "log_level" ["level"], 0 => 5,
        "lines of the agent below this level are not made: 0 trace, 1 debug, 2 info, 3 warn, 4 error, 5 none at all; left out: as far as the daemon's log shows them";
    HTTP_CONNECTIONS_PER_HOST_MAX = "http" "connections_per_host_max" ["connections"] 32, 1 => 256,
        "ranges under way at one server; 32 of 128 KiB fill 100 Mbit/s at 200 ms";
    HTTP_RANGES_PER_DEVICE_MAX = "http" "ranges_per_device_max" ["ranges"] 64, 1 => 512,
        "ranges that one device may have asked for and not got; each takes up to 128 KiB of memory";
    HTTP_CONNECT_TIMEOUT_MS = "http" "connect_timeout_ms" ["milliseconds"] 20_000, 10 => 120_000,
        "how long name, TCP, proxy and TLS may take together";
    HTTP_HEAD_TIMEOUT_MS = "http" "head_timeout_ms" ["milliseconds"] 20_000, 10 => 10 * MINUTE_MS,
        "how long a server may take to begin its answer";
    HTTP_IDLE_TIMEOUT_MS = "http" "idle_timeout_ms" ["milliseconds"] 10_000, 10 => 10 * MINUTE_MS,
        "longest silence within an answer";
    HTTP_RANGE_TIMEOUT_MS = "http" "range_timeout_ms" ["milliseconds"] 2 * MINUTE_MS, 10 => HOUR_MS,
        "how long one range may take in all, redirects included; a server that trickles is left after it";
    BANDWIDTH_BYTES_PER_S = "bandwidth" "bytes_per_s" ["bytes a second"] 0, 0 => 1_000_000_000_000,
        "what all devices together may receive while they are updated; 0 = no cap";
    BANDWIDTH_AT_BYTES_PER_S = "bandwidth.at" "bytes_per_s" ["bytes a second"] 0, 0 => 1_000_000_000_000,
        "the same for a part of the day, from `from` to `to` in UTC; 0 = no cap";
    FILE_ID = "device.target" "file_id" ["file id"] 0, 0 => 255,
        "the fileid of job documents that selects this target; AWS has 0 to 255";
    SLOT_SIZE_BYTES = "device.target" "slot_size_bytes" ["bytes"] 64 << 20, 1 => 1 << 40,
        "largest image of this target; a slot's file grows as it is written";
    TRIES_MAX = "device.target" "tries_max" ["starts"] 3, 1 => 100,
        "how often `otad launch` starts an unconfirmed image before it goes back";
    SYNC_BYTES = "device.target" "sync_bytes" ["bytes"] 4 << 20, 65_536 => 1 << 30,
        "bytes that a power cut may take back at most; smaller means more fsync";
    TARGET_SELF_TEST_DEADLINE_MS = "device.target" "self_test_deadline_ms" ["milliseconds"] 5 * MINUTE_MS, 10 => 30 * DAY_MS,
        "as the device's, for this target alone";
    TARGET_RESTART_DEADLINE_MS = "device.target" "restart_deadline_ms" ["milliseconds"] 5 * MINUTE_MS, 10 => DAY_MS,
        "as the device's, for this target alone";
    DEADLINE_MS = "command" "deadline_ms" ["milliseconds"] 30_000, 10 => DAY_MS,
        "after this the command and all its children are killed, and it counts as failed";
    REGION_SIZE_BYTES = "device.target.region" "size_bytes" ["bytes"] 64 << 20, 1 => 1 << 40,
        "bytes of the region";
    LINE_BAUD = "device.target.line" "baud" ["bits a second"] 115_200, 50 => 20_000_000,
        "speed of the line; the default is that of nearly every console, the limits are those of common adapters";
    LINE_STOP_BITS = "device.target.line" "stop_bits" ["bits"] 1, 1 => 2,
        "stop bits of a character";
    RESET_OFFSET = "device.target.hardware_reset" "offset" ["line"] 0, 0 => 1023,
        "number of the line on its GPIO chip, as `gpioinfo` lists it";
    RESET_HOLD_MS = "device.target.hardware_reset" "hold_ms" ["milliseconds"] 100, 1 => 10_000,
        "how long the target is held in reset; more is no reset but a switch";
    VERSION_OFFSET = "device.target" "version_offset" ["bytes"] 0, 0 => 1 << 40,
        "where the version stands in the image: major u8, minor u8, revision u16, build u32, little-endian";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_lies_within_its_range_and_every_key_is_explained() {
        for n in NUMBERS {
            let is_within = |default| n.min <= default && default <= n.max;
            assert!(n.default.is_none_or(is_within), "{}", n.key);
            // Whoever reads how it is without it finds a number, or words.
            assert_eq!(
                n.default.is_none(),
                n.about.contains("left out: "),
                "{}",
                n.key
            );
            assert!(
                n.max <= i64::MAX as u64,
                "{}: TOML integers are 64 bits",
                n.key
            );
            assert!(n.about.len() > 10, "{}", n.key);
        }
    }

    #[test]
    fn no_key_stands_twice_in_a_section() {
        let mut names: Vec<_> = NUMBERS.iter().map(|n| (n.section, n.key)).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
