//! The settings that an agent understands: one table with key, default and limits, and the policy of each target.
//!
//! The host passes settings as text (`job-agent.config`). An unknown key is a warning, a bad value refuses the start.
//! What a setting does is written in its row; nothing else in the crate knows a default.

use alloc::{string::String, vec::Vec};

use crate::jobs::ThingName;
use crate::text::push_decimal;
use crate::types::{Config, Failure, FileId, Setting, cut};

/// Most targets of a device: the file ids of AWS go from 0 to 255.
pub const TARGETS_MAX_COUNT: usize = 256;

/// Most payload bytes that the stream service sends for one request.
pub const WINDOW_MAX_BYTES: u64 = 131_072;

/// A number of the device, and the row of [`NUMBERS`] that describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Bytes in a block.
    BlockSize,
    /// Blocks asked for in one request.
    BlocksPerRequest,
    /// Time for an answer.
    RequestTimeout,
    /// Longest back-off.
    RetryMax,
    /// Requests without an answer.
    MomentumMax,
    /// Blocks between progress statuses.
    StatusFrequency,
    /// Time between polls.
    PollInterval,
    /// `fileType` of firmware.
    FirmwareFileType,
    /// Time for a self-test.
    SelfTestDeadline,
    /// Time for a restart.
    RestartDeadline,
    /// Time between reminders.
    ActivationReminder,
    /// Longest deferral.
    ActivationDeadline,
    /// Time for an operation of the host.
    OperationDeadline,
    /// Tries of a step that may be repeated.
    UpdateAttempts,
    /// Time for the answer to a custom job.
    CustomAnswer,
    /// Time for a custom job.
    CustomJobDeadline,
}

/// One number: its key in the configuration, default, limits and meaning.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// Which one.
    pub key: Key,
    /// Name in `config.settings`, unit last.
    pub name: &'static str,
    /// Value if it is not set.
    pub default: u64,
    /// Least value.
    pub min: u64,
    /// Greatest value.
    pub max: u64,
    /// What it is, and why the limits.
    pub what: &'static str,
}

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

const fn number(
    key: Key,
    name: &'static str,
    (default, min, max): (u64, u64, u64),
    what: &'static str,
) -> Number {
    Number {
        key,
        name,
        default,
        min,
        max,
        what,
    }
}

/// All numbers of a device, in the order of [`Key`].
pub const NUMBERS: [Number; 16] = [
    number(
        Key::BlockSize,
        "block_size",
        (4096, 256, 131_072),
        "bytes in a block; the service takes 256 to 131072",
    ),
    number(
        Key::BlocksPerRequest,
        "blocks_per_request",
        // 31 x 4096 is what fits one request beside its envelope; larger blocks lower the default, see `read`.
        (31, 1, 512),
        "blocks asked for in one request; times block_size at most 131072, what the service sends for one request",
    ),
    number(
        Key::RequestTimeout,
        "request_timeout_ms",
        (10_000, 10, 10 * MINUTE_MS),
        "time for an answer of the services before a request is repeated",
    ),
    number(
        Key::RetryMax,
        "retry_max_ms",
        (5 * MINUTE_MS, 10, DAY_MS),
        "longest back-off between repeated requests and statuses",
    ),
    number(
        Key::MomentumMax,
        "momentum_max",
        (32, 1, 10_000),
        "block requests in a row without a good block before the job fails",
    ),
    number(
        Key::StatusFrequency,
        "status_frequency",
        (64, 1, 1_048_576),
        "blocks between two progress statuses; at most the blocks of a file",
    ),
    number(
        Key::PollInterval,
        "poll_interval_ms",
        (0, 0, 30 * DAY_MS),
        "time between questions for a job while idle, 0 = only notifications",
    ),
    number(
        Key::FirmwareFileType,
        "firmware_file_type",
        (0, 0, u32::MAX as u64),
        "fileType of images that are activated and tested; all others end with their installation",
    ),
    number(
        Key::SelfTestDeadline,
        "self_test_deadline_ms",
        (5 * MINUTE_MS, 10, 30 * DAY_MS),
        "time from the restart to the verdict of the self-test; it includes coming back on line",
    ),
    number(
        Key::RestartDeadline,
        "restart_deadline_ms",
        (5 * MINUTE_MS, 10, DAY_MS),
        "time for a target to come back after a reset",
    ),
    number(
        Key::ActivationReminder,
        "activation_reminder_ms",
        (HOUR_MS, 10, 30 * DAY_MS),
        "time between reminders of a deferred activation or an open offer; each asks whether the job still stands",
    ),
    number(
        Key::ActivationDeadline,
        "activation_deadline_ms",
        (7 * DAY_MS, 10, 365 * DAY_MS),
        "longest deferral of an activation before the job fails",
    ),
    number(
        Key::OperationDeadline,
        "operation_deadline_ms",
        (30 * MINUTE_MS, 10, DAY_MS),
        "time for an operation of the host without an end and without progress",
    ),
    number(
        Key::UpdateAttempts,
        "update_attempts",
        (3, 1, 100),
        "tries of a step after which a target or the service gives the same answer once more",
    ),
    number(
        Key::CustomAnswer,
        "custom_answer_ms",
        (10_000, 0, DAY_MS),
        "time for the answer to a custom job before it counts as nobody's, 0 = do not ask",
    ),
    number(
        Key::CustomJobDeadline,
        "custom_job_deadline_ms",
        (DAY_MS, 10, 365 * DAY_MS),
        "time for a custom job from taken to finished",
    ),
];

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
    numbers: [u64; NUMBERS.len()],
    /// `foreign_jobs` = `leave`.
    pub leave_foreign_jobs: bool,
    /// `on_job`.
    pub on_job: OnJob,
    /// `reply_subscriptions` = `always`.
    pub subscribe_replies: bool,
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
        let thing = ThingName::new(&config.device)
            .map_err(|_| bad("device", &config.device, "1 to 128 of a-z A-Z 0-9 : _ -"))?;
        let mut settings = Self {
            thing,
            numbers: NUMBERS.map(|row| row.default),
            leave_foreign_jobs: false,
            on_job: OnJob::Accept,
            subscribe_replies: false,
            targets: Vec::new(),
            unknown: Vec::new(),
        };
        let mut window_is_set = false;
        for setting in &config.settings {
            window_is_set |= setting.key == "blocks_per_request";
            settings.read_device(setting)?;
        }
        settings.check_window(window_is_set)?;
        if config.targets.len() > TARGETS_MAX_COUNT {
            return Err(bad("targets", "too many", "at most 256"));
        }
        for target in &config.targets {
            let mut policy = settings.policy(target.file, &target.name);
            for setting in &target.settings {
                if !read_target(&mut policy, setting)? {
                    settings.unknown.push(setting.key.clone());
                }
            }
            if settings.target(target.file).is_some() {
                return Err(bad("targets", &target.name, "each file id once"));
            }
            settings.targets.push(policy);
        }
        settings.targets.sort_by_key(|target| target.file);
        Ok(settings)
    }

    /// A number of the device.
    #[must_use]
    pub fn number(&self, key: Key) -> u64 {
        self.numbers.get(key as usize).copied().unwrap_or(0)
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

    fn read_device(&mut self, setting: &Setting) -> Result<(), Failure> {
        let value = setting.value.as_str();
        for row in &NUMBERS {
            if row.name == setting.key {
                let number = read_number(row.name, value, row.min, row.max)?;
                if let Some(slot) = self.numbers.get_mut(row.key as usize) {
                    *slot = number;
                }
                return Ok(());
            }
        }
        match setting.key.as_str() {
            "foreign_jobs" => {
                self.leave_foreign_jobs = one_of(setting, &["refuse", "leave"])? == 1;
            }
            "on_job" => {
                self.on_job = match one_of(setting, &["accept", "ask", "ignore"])? {
                    0 => OnJob::Accept,
                    1 => OnJob::Ask,
                    _ => OnJob::Ignore,
                };
            }
            "protocols" => {
                one_of(setting, &["mqtt"])?;
            }
            "reply_subscriptions" => {
                self.subscribe_replies = one_of(setting, &["never", "always"])? == 1;
            }
            _ => self.unknown.push(setting.key.clone()),
        }
        Ok(())
    }

    fn check_window(&mut self, window_is_set: bool) -> Result<(), Failure> {
        let block_size = self.number(Key::BlockSize);
        let fits = WINDOW_MAX_BYTES / block_size;
        if self.number(Key::BlocksPerRequest) <= fits {
            return Ok(());
        }
        if window_is_set {
            let mut value = String::new();
            push_decimal(&mut value, self.number(Key::BlocksPerRequest));
            return Err(bad(
                "blocks_per_request",
                &value,
                "times block_size at most 131072",
            ));
        }
        if let Some(slot) = self.numbers.get_mut(Key::BlocksPerRequest as usize) {
            *slot = fits;
        }
        Ok(())
    }

    fn policy(&self, file: FileId, name: &str) -> TargetPolicy {
        TargetPolicy {
            file,
            name: String::from(cut(name, 64)),
            deferred: false,
            allow_downgrade: false,
            external_test: false,
            self_test_deadline_ms: self.number(Key::SelfTestDeadline),
            restart_deadline_ms: self.number(Key::RestartDeadline),
            firmware: None,
        }
    }
}

/// Reads one setting of a target; false if there is no such setting.
fn read_target(policy: &mut TargetPolicy, setting: &Setting) -> Result<bool, Failure> {
    match setting.key.as_str() {
        "activation" => policy.deferred = one_of(setting, &["immediate", "deferred"])? == 1,
        "allow_downgrade" => policy.allow_downgrade = read_bool(setting)?,
        "self_test" => policy.external_test = one_of(setting, &["auto", "external"])? == 1,
        "firmware" => policy.firmware = Some(read_bool(setting)?),
        // The host's business: it refuses such a target at `create` (0xdd). Known here, so that it is no warning.
        "no_revert_allowed" => {
            read_bool(setting)?;
        }
        "self_test_deadline_ms" => {
            policy.self_test_deadline_ms = read_deadline(setting, Key::SelfTestDeadline)?;
        }
        "restart_deadline_ms" => {
            policy.restart_deadline_ms = read_deadline(setting, Key::RestartDeadline)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn read_deadline(setting: &Setting, key: Key) -> Result<u64, Failure> {
    let row = &NUMBERS[key as usize];
    read_number(row.name, &setting.value, row.min, row.max)
}

fn read_bool(setting: &Setting) -> Result<bool, Failure> {
    Ok(one_of(setting, &["false", "true"])? == 1)
}

fn one_of(setting: &Setting, words: &[&str]) -> Result<usize, Failure> {
    words
        .iter()
        .position(|word| *word == setting.value)
        .ok_or_else(|| {
            let mut allowed = String::new();
            for word in words {
                if !allowed.is_empty() {
                    allowed.push_str(" or ");
                }
                allowed.push_str(word);
            }
            bad(&setting.key, &setting.value, &allowed)
        })
}

fn read_number(name: &str, value: &str, min: u64, max: u64) -> Result<u64, Failure> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits {
        value.parse::<u64>().ok()
    } else {
        None
    };
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| {
            let mut allowed = String::new();
            push_decimal(&mut allowed, min);
            allowed.push_str(" to ");
            push_decimal(&mut allowed, max);
            bad(name, value, &allowed)
        })
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
    fn the_rows_stand_in_the_order_of_their_keys_and_hold_their_defaults() {
        for (at, row) in NUMBERS.iter().enumerate() {
            assert_eq!(row.key as usize, at, "{}", row.name);
            assert!((row.min..=row.max).contains(&row.default), "{}", row.name);
        }
    }

    #[test]
    fn every_number_works_at_its_limits_and_is_refused_one_past_them() {
        for row in &NUMBERS {
            let read = |value: u64| Settings::read(&config(&[(row.name, &value.to_string())], &[]));
            // The window's limit hangs on the block size and has a test of its own.
            if row.key != Key::BlocksPerRequest {
                assert_eq!(
                    read(row.max).unwrap().number(row.key),
                    row.max,
                    "{}",
                    row.name
                );
            }
            assert_eq!(
                read(row.min).unwrap().number(row.key),
                row.min,
                "{}",
                row.name
            );
            assert!(
                row.max == u64::MAX || read(row.max + 1).is_err(),
                "{}",
                row.name
            );
            assert!(row.min == 0 || read(row.min - 1).is_err(), "{}", row.name);
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
    fn a_bad_value_is_refused_with_what_is_allowed() {
        let rows = [
            (
                refusal(&[("on_job", "maybe")], &[]),
                "setting on_job is 'maybe', allowed: accept or ask or ignore",
            ),
            (
                refusal(&[("protocols", "http")], &[]),
                "setting protocols is 'http', allowed: mqtt",
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
    fn a_file_id_twice_and_an_illegal_thing_are_refused() {
        let mut twice = config(&[], &[]);
        twice.targets.push(twice.targets[0].clone());
        assert!(Settings::read(&twice).is_err());
        let mut thing = config(&[], &[]);
        thing.device = "a/b".to_string();
        assert!(Settings::read(&thing).is_err());
    }
}
