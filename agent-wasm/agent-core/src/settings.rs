//! The settings that an agent understands: one table with key, default and limits, and the policy of each target.
//!
//! The host passes settings as text (`job-agent.config`). An unknown key is a warning, a bad value refuses the start.
//! What a setting does is written in its row; nothing else in the crate knows a default.

use alloc::{string::String, vec::Vec};

use crate::jobs::{Encoding, ThingName};
use crate::text::{place, push_decimal};
use crate::types::{Config, Failure, FileId, Setting, Target, Version, cut};
use crate::{code::OtaErr, document::Protocol};

/// Most targets of a device: the file ids of AWS go from 0 to 255.
pub const TARGETS_MAX_COUNT: usize = 256;

/// Most payload bytes that the stream service sends for one request.
pub const WINDOW_MAX_BYTES: u64 = 131_072;

/// One number: its default and limits.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// Value if it is not set.
    pub default: u32,
    /// Least value.
    pub min: u32,
    /// Greatest value.
    pub max: u64,
}

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

macro_rules! numbers {
    ($( $(#[$meta:meta])* $key:ident $name:literal = $default:expr, $min:literal..=$max:expr; )+) => {
        /// A number of the device: its place in [`NUMBERS`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Key {
            $( $(#[$meta])* $key, )+
        }

        /// All numbers of a device, in the order of [`Key`].
        pub static NUMBERS: [Number; COUNT] = [
            $( Number { default: $default as u32, min: $min, max: $max }, )+
        ];
        /// Their names in `config.settings`, unit last.
        const NAMES: &str = concat!($( $name, "\n", )+);
        const COUNT: usize = [$( Key::$key, )+].len();
    };
}

numbers! {
    /// Bytes in a block; the service takes 256 to 131072.
    BlockSize "block_size" = 4096, 256..=131_072;
    /// Blocks asked for in one request; times block_size at most 131072, what the service sends for one request.
    BlocksPerRequest "blocks_per_request" = 31, 1..=512;
    /// Most requests for blocks in flight at a time; 1 = one window a round trip, with the C agent's own bytes.
    RequestsInFlight "requests_in_flight" = 32, 1..=64;
    /// Time for an answer of the services before a request is repeated.
    RequestTimeout "request_timeout_ms" = 10_000, 10..=10 * MINUTE_MS;
    /// Longest back-off between repeated requests and statuses.
    RetryMax "retry_max_ms" = 5 * MINUTE_MS, 10..=DAY_MS;
    /// Block requests in a row without a good block before the job fails.
    MomentumMax "momentum_max" = 32, 1..=10_000;
    /// Blocks between two progress statuses; at most the blocks of a file.
    StatusFrequency "status_frequency" = 64, 1..=1_048_576;
    /// Time between questions for a job while idle, 0 = only notifications.
    PollInterval "poll_interval_ms" = 0, 0..=30 * DAY_MS;
    /// `fileType` of images that are activated and tested; all others end with their installation.
    FirmwareFileType "firmware_file_type" = 0, 0..=u32::MAX as u64;
    /// Time from the restart to the verdict of the self-test; it includes coming back on line.
    SelfTestDeadline "self_test_deadline_ms" = 5 * MINUTE_MS, 10..=30 * DAY_MS;
    /// Time for a target to come back after a reset.
    RestartDeadline "restart_deadline_ms" = 5 * MINUTE_MS, 10..=DAY_MS;
    /// Time between reminders of a deferred activation or an open offer; each asks whether the job still stands.
    ActivationReminder "activation_reminder_ms" = HOUR_MS, 10..=30 * DAY_MS;
    /// Longest deferral of an activation before the job fails.
    ActivationDeadline "activation_deadline_ms" = 7 * DAY_MS, 10..=365 * DAY_MS;
    /// Time for an operation of the host without an end and without progress.
    OperationDeadline "operation_deadline_ms" = 30 * MINUTE_MS, 10..=DAY_MS;
    /// Tries of a step after which a target or the service gives the same answer once more.
    UpdateAttempts "update_attempts" = 3, 1..=100;
    /// Time for the answer to a custom job before it counts as nobody's, 0 = do not ask.
    CustomAnswer "custom_answer_ms" = 10_000, 0..=DAY_MS;
    /// Time for a custom job from taken to finished.
    CustomJobDeadline "custom_job_deadline_ms" = DAY_MS, 10..=365 * DAY_MS;
    /// Lines of the log below this level are not made: 0 trace, 1 debug, 2 info, 3 warn, 4 error, 5 none at all.
    LogLevel "log_level" = 0, 0..=5;
}

/// What to do with a fresh job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnJob {
    /// Take it.
    Accept,
    /// Offer it to the application first.
    Ask,
    /// Leave it QUEUED.
    Ignore,
}

/// Choices among words: what may stand there, with line feeds between; the first word is the default. First those of the
/// device, then those of a target.
static CHOICES: [&str; 10] = [
    "refuse\nleave",
    "accept\nask\nignore",
    "mqtt,http\nhttp,mqtt\nmqtt\nhttp",
    "never\nalways",
    "cbor\njson",
    "immediate\ndeferred",
    NO_OR_YES,
    "auto\nexternal",
    NO_OR_YES,
    NO_OR_YES,
];
/// Their names. The last one is the host's business: it refuses such a target at `create` (0xdd). It is known here, so
/// that it is no warning.
const CHOICE_NAMES: &str = "foreign_jobs\non_job\nprotocols\nreply_subscriptions\nstream_encoding\n\
    activation\nallow_downgrade\nself_test\nfirmware\nno_revert_allowed";
const NO_OR_YES: &str = "false\ntrue";
/// Place of the first choice of a target.
const OF_TARGET: usize = 5;

/// A choice that was not made.
const UNSET: u8 = u8::MAX;

/// What one target allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPolicy {
    /// The target.
    pub file: FileId,
    /// Its name.
    pub name: String,
    /// `activation` = `deferred`: activate only when told.
    pub deferred: bool,
    /// `allow_downgrade`: neither a lower nor the same version is refused.
    pub allow_downgrade: bool,
    /// `self_test` = `external`: the verdict comes by command.
    pub external_test: bool,
    /// `self_test_deadline_ms`: the device's unless set.
    pub self_test_deadline_ms: u64,
    /// `restart_deadline_ms`: the device's unless set.
    pub restart_deadline_ms: u64,
    /// `firmware`: activated and tested whatever the file type (true), or never (false).
    pub firmware: Option<bool>,
}

/// All settings of a device, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The device.
    pub thing: ThingName,
    numbers: [u64; COUNT],
    /// `foreign_jobs` = `leave`.
    pub leave_foreign_jobs: bool,
    /// `on_job`.
    pub on_job: OnJob,
    /// `protocols`: for data, the preferred one first.
    pub protocols: &'static [Protocol],
    /// `reply_subscriptions` = `always`.
    pub subscribe_replies: bool,
    /// `stream_encoding`: of the messages of streams.
    pub stream_encoding: Encoding,
    /// The targets, by file id.
    pub targets: Vec<TargetPolicy>,
    /// Settings that were not understood, for the log.
    pub unknown: Vec<String>,
}

impl Settings {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// A failure 0xd0 that names the setting, its value and what is allowed. The operator is at fault.
    pub fn read(config: &Config) -> Result<Self, Failure> {
        let Ok(thing) = ThingName::new(&config.device) else {
            return Err(bad(
                "device",
                &config.device,
                "1 to 128 of a-z A-Z 0-9 : _ -",
            ));
        };
        if config.targets.len() > TARGETS_MAX_COUNT {
            return Err(bad("targets", "too many", "at most 256"));
        }
        let mut device = Values::new();
        let mut unknown = Vec::new();
        device.read(&config.settings, false, &mut unknown)?;
        device.fit_window()?;
        let mut targets: Vec<TargetPolicy> = Vec::new();
        for target in &config.targets {
            // A target has the device's numbers, unless it has its own.
            let mut own = device.clone();
            own.read(&target.settings, true, &mut unknown)?;
            match targets.binary_search_by_key(&target.file, |policy| policy.file) {
                Ok(_) => return Err(bad("targets", &target.name, "each file id once")),
                Err(at) => targets.insert(at, own.policy(target)),
            }
        }
        Ok(Self {
            thing,
            leave_foreign_jobs: device.words[0] == 1,
            on_job: match device.words[1] {
                1 => OnJob::Ask,
                2 => OnJob::Ignore,
                _ => OnJob::Accept,
            },
            protocols: match device.words[2] {
                1 => &[Protocol::Http, Protocol::Mqtt],
                2 => &[Protocol::Mqtt],
                3 => &[Protocol::Http],
                _ => &[Protocol::Mqtt, Protocol::Http],
            },
            subscribe_replies: device.words[3] == 1,
            stream_encoding: match device.words[4] {
                1 => Encoding::Json,
                _ => Encoding::Cbor,
            },
            numbers: device.numbers,
            targets,
            unknown,
        })
    }

    /// A number of the device.
    #[must_use]
    pub fn number(&self, key: Key) -> u64 {
        self.numbers[key as usize]
    }

    /// A number whose limits fit 32 bits.
    #[must_use]
    pub fn number32(&self, key: Key) -> u32 {
        u32::try_from(self.number(key)).unwrap_or(u32::MAX)
    }

    /// The policy of a target.
    #[must_use]
    pub fn target(&self, file: FileId) -> Option<&TargetPolicy> {
        self.targets.iter().find(|target| target.file == file)
    }
}

/// What was read: numbers by [`Key`], and of each choice the place of its word.
#[derive(Clone)]
struct Values {
    numbers: [u64; COUNT],
    words: [u8; CHOICES.len()],
}

impl Values {
    fn new() -> Self {
        let mut numbers = [0; COUNT];
        for (number, row) in numbers.iter_mut().zip(&NUMBERS) {
            *number = row.default.into();
        }
        // Unless it is set, it is made to fit.
        numbers[Key::BlocksPerRequest as usize] = 0;
        Self {
            numbers,
            words: [UNSET; CHOICES.len()],
        }
    }

    fn read(
        &mut self,
        settings: &[Setting],
        of_target: bool,
        unknown: &mut Vec<String>,
    ) -> Result<(), Failure> {
        for Setting { key, value } in settings {
            if let Some(at) = place(NAMES, key)
                // A target has two deadlines of its own.
                && (!of_target
                    || at == Key::SelfTestDeadline as usize
                    || at == Key::RestartDeadline as usize)
                && let (Some(number), Some(row)) = (self.numbers.get_mut(at), NUMBERS.get(at))
            {
                *number = read_number(row, key, value)?;
            } else if let Some(at) = place(CHOICE_NAMES, key)
                && (at >= OF_TARGET) == of_target
                && let (Some(word), Some(words)) = (self.words.get_mut(at), CHOICES.get(at))
            {
                *word = read_word(key, words, value)?;
            } else {
                unknown.push(key.clone());
            }
        }
        Ok(())
    }

    /// A window that was set must fit one answer of the service with these blocks; the default shrinks until it does.
    fn fit_window(&mut self) -> Result<(), Failure> {
        let [block_size, window, ..] = &mut self.numbers;
        let fits = WINDOW_MAX_BYTES / (*block_size).max(1);
        if *window == 0 {
            *window = fits.min(NUMBERS[Key::BlocksPerRequest as usize].default.into());
        } else if *window > fits {
            let mut value = String::new();
            push_decimal(&mut value, *window);
            let allowed = "times block_size at most 131072";
            return Err(bad("blocks_per_request", &value, allowed));
        }
        Ok(())
    }

    fn policy(&self, target: &Target) -> TargetPolicy {
        let [.., activation, downgrade, test, firmware, _] = self.words;
        TargetPolicy {
            file: target.file,
            name: String::from(cut(&target.name, 64)),
            deferred: activation == 1,
            allow_downgrade: downgrade == 1,
            external_test: test == 1,
            self_test_deadline_ms: self.numbers[Key::SelfTestDeadline as usize],
            restart_deadline_ms: self.numbers[Key::RestartDeadline as usize],
            firmware: (firmware != UNSET).then_some(firmware == 1),
        }
    }
}

fn read_number(row: &Number, name: &str, value: &str) -> Result<u64, Failure> {
    if let Ok(number) = crate::text::read_number(value.as_bytes(), 10)
        && u64::from(row.min) <= number
        && number <= row.max
    {
        return Ok(number);
    }
    let mut allowed = String::new();
    push_decimal(&mut allowed, row.min.into());
    allowed.push_str(" to ");
    push_decimal(&mut allowed, row.max);
    Err(bad(name, value, &allowed))
}

fn read_word(name: &str, words: &str, value: &str) -> Result<u8, Failure> {
    if let Some(place) = place(words, value) {
        return Ok(place as u8);
    }
    let mut allowed = String::new();
    for byte in words.bytes() {
        match byte {
            b'\n' => allowed.push_str(" or "),
            other => allowed.push(char::from(other)),
        }
    }
    Err(bad(name, value, &allowed))
}

fn bad(name: &str, value: &str, allowed: &str) -> Failure {
    let mut detail = String::from("setting ");
    detail.push_str(cut(name, 64));
    detail.push_str(" is '");
    detail.push_str(cut(value, 64));
    detail.push_str("', allowed: ");
    detail.push_str(allowed);
    Failure::new(0xd0, 0, &detail)
}

impl TargetPolicy {
    /// Whether a version may follow another one: for orchestrators of one's own. One that is not known is judged once it
    /// is.
    ///
    /// # Errors
    /// `DowngradeNotAllowed` or `SameFirmwareVersion`.
    pub fn check_version(&self, old: Option<Version>, new: Option<Version>) -> Result<(), OtaErr> {
        match new.zip(old).filter(|_| !self.allow_downgrade) {
            Some((new, old)) if new < old => Err(OtaErr::DowngradeNotAllowed),
            Some((new, old)) if new == old => Err(OtaErr::SameFirmwareVersion),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;
    use crate::types::Target;

    fn settings(pairs: &[(&str, &str)]) -> Vec<Setting> {
        pairs
            .iter()
            .map(|(key, value)| Setting {
                key: (*key).to_string(),
                value: (*value).to_string(),
            })
            .collect()
    }

    fn config(device: &[(&str, &str)], target: &[(&str, &str)]) -> Config {
        Config {
            device: "dev1".to_string(),
            settings: settings(device),
            targets: vec![Target {
                file: 0,
                name: "gateway".into(),
                settings: settings(target),
            }],
        }
    }

    fn refusal(device: &[(&str, &str)], target: &[(&str, &str)]) -> String {
        Settings::read(&config(device, target))
            .map(|_| ())
            .unwrap_err()
            .detail
    }

    #[test]
    fn every_default_is_within_its_limits() {
        for (row, name) in NUMBERS.iter().zip(NAMES.lines()) {
            let (min, default) = (u64::from(row.min), u64::from(row.default));
            assert!((min..=row.max).contains(&default), "{name}");
        }
    }

    #[test]
    fn every_number_works_at_its_limits_and_is_refused_one_past_them() {
        for (at, (row, name)) in NUMBERS.iter().zip(NAMES.lines()).enumerate() {
            let read = |value: u64| {
                Settings::read(&config(&[(name, &value.to_string())], &[]))
                    .map(|settings| settings.numbers[at])
            };
            // The window's limit hangs on the block size and has a test of its own.
            if at != Key::BlocksPerRequest as usize {
                assert_eq!(read(row.max), Ok(row.max), "{name}");
            }
            let min = u64::from(row.min);
            assert_eq!(read(min), Ok(min), "{name}");
            assert!(read(row.max + 1).is_err(), "{name}");
            assert!(min == 0 || read(min - 1).is_err(), "{name}");
        }
    }

    #[test]
    fn the_default_window_shrinks_with_larger_blocks_and_a_set_one_is_refused() {
        let window = |size: &str| {
            let read = Settings::read(&config(&[("block_size", size)], &[])).unwrap();
            read.number(Key::BlocksPerRequest)
        };
        assert_eq!(
            (window("256"), window("4096"), window("16384")),
            (31, 31, 8)
        );
        assert_eq!(window("131072"), 1);
        assert_eq!(
            refusal(&[("block_size", "16384"), ("blocks_per_request", "9")], &[]),
            "setting blocks_per_request is '9', allowed: times block_size at most 131072",
        );
    }

    #[test]
    fn every_choice_has_a_name() {
        assert_eq!(CHOICE_NAMES.lines().count(), CHOICES.len());
        assert_eq!(CHOICE_NAMES.lines().nth(OF_TARGET), Some("activation"));
    }

    #[test]
    fn a_bad_value_is_refused_with_what_is_allowed() {
        let rows = [
            (
                refusal(&[("on_job", "maybe")], &[]),
                "setting on_job is 'maybe', allowed: accept or ask or ignore",
            ),
            (
                refusal(&[("protocols", "ftp")], &[]),
                "setting protocols is 'ftp', allowed: mqtt,http or http,mqtt or mqtt or http",
            ),
            (
                refusal(&[("momentum_max", "-1")], &[]),
                "setting momentum_max is '-1', allowed: 1 to 10000",
            ),
            (
                refusal(&[], &[("activation", "")]),
                "setting activation is '', allowed: immediate or deferred",
            ),
            (
                refusal(&[], &[("allow_downgrade", "yes")]),
                "setting allow_downgrade is 'yes', allowed: false or true",
            ),
        ];
        for (got, expected) in rows {
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn an_unknown_key_is_kept_for_a_warning() {
        let read = Settings::read(&config(&[("colour", "red")], &[("shape", "round")])).unwrap();
        assert_eq!(read.unknown, ["colour", "shape"]);
    }

    #[test]
    fn a_target_takes_the_deadline_of_its_device_unless_it_has_its_own() {
        let device = [("self_test_deadline_ms", "7000")];
        let inherited = Settings::read(&config(&device, &[])).unwrap();
        assert_eq!(inherited.targets[0].self_test_deadline_ms, 7000);
        let own = Settings::read(&config(&device, &[("self_test_deadline_ms", "900")])).unwrap();
        assert_eq!(own.targets[0].self_test_deadline_ms, 900);
    }

    #[test]
    fn as_many_targets_as_are_allowed_are_taken_and_not_one_more() {
        let with = |count: usize| {
            let mut config = config(&[], &[]);
            let target = |file| Target {
                file,
                ..config.targets[0].clone()
            };
            let targets = (0..count as u32).map(target).collect();
            config.targets = targets;
            Settings::read(&config)
        };
        assert_eq!(with(TARGETS_MAX_COUNT).unwrap().targets.len(), 256);
        let refused = with(TARGETS_MAX_COUNT + 1).map(|_| ()).unwrap_err();
        assert_eq!(
            refused.detail,
            "setting targets is 'too many', allowed: at most 256"
        );
    }

    #[test]
    fn a_file_id_twice_and_an_illegal_thing_are_refused() {
        let mut twice = config(&[], &[]);
        twice.targets.push(twice.targets[0].clone());
        assert!(Settings::read(&twice).is_err());
        let mut thing = config(&[], &[]);
        thing.device = "a/b".to_string();
        assert!(Settings::read(&thing).is_err());
    }
}
