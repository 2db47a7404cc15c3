//! The settings that an agent understands: one table with key, default and limits, and the policy of each target.
//!
//! The host passes settings as text (`job-agent.config`). An unknown key is a warning, a bad value refuses the start.
//! What a setting does is written in its row; nothing else in the crate knows a default.

use alloc::{string::String, vec::Vec};

use crate::jobs::ThingName;
use crate::text::push_decimal;
use crate::types::{Config, Failure, FileId, Setting, Target, cut};

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
}

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

const fn number(key: Key, name: &'static str, (default, min, max): (u64, u64, u64)) -> Number {
    Number {
        key,
        name,
        default,
        min,
        max,
    }
}

/// All numbers of a device, in the order of [`Key`].
pub const NUMBERS: [Number; 16] = [
    // bytes in a block; the service takes 256 to 131072.
    number(Key::BlockSize, "block_size", (4096, 256, 131_072)),
    // blocks asked for in one request; times block_size at most 131072, what the service sends for one request.
    number(Key::BlocksPerRequest, "blocks_per_request", (31, 1, 512)),
    // time for an answer of the services before a request is repeated.
    number(
        Key::RequestTimeout,
        "request_timeout_ms",
        (10_000, 10, 10 * MINUTE_MS),
    ),
    // longest back-off between repeated requests and statuses.
    number(Key::RetryMax, "retry_max_ms", (5 * MINUTE_MS, 10, DAY_MS)),
    // block requests in a row without a good block before the job fails.
    number(Key::MomentumMax, "momentum_max", (32, 1, 10_000)),
    // blocks between two progress statuses; at most the blocks of a file.
    number(Key::StatusFrequency, "status_frequency", (64, 1, 1_048_576)),
    // time between questions for a job while idle, 0 = only notifications.
    number(Key::PollInterval, "poll_interval_ms", (0, 0, 30 * DAY_MS)),
    // fileType of images that are activated and tested; all others end with their installation.
    number(
        Key::FirmwareFileType,
        "firmware_file_type",
        (0, 0, u32::MAX as u64),
    ),
    // time from the restart to the verdict of the self-test; it includes coming back on line.
    number(
        Key::SelfTestDeadline,
        "self_test_deadline_ms",
        (5 * MINUTE_MS, 10, 30 * DAY_MS),
    ),
    // time for a target to come back after a reset.
    number(
        Key::RestartDeadline,
        "restart_deadline_ms",
        (5 * MINUTE_MS, 10, DAY_MS),
    ),
    // time between reminders of a deferred activation or an open offer; each asks whether the job still stands.
    number(
        Key::ActivationReminder,
        "activation_reminder_ms",
        (HOUR_MS, 10, 30 * DAY_MS),
    ),
    // longest deferral of an activation before the job fails.
    number(
        Key::ActivationDeadline,
        "activation_deadline_ms",
        (7 * DAY_MS, 10, 365 * DAY_MS),
    ),
    // time for an operation of the host without an end and without progress.
    number(
        Key::OperationDeadline,
        "operation_deadline_ms",
        (30 * MINUTE_MS, 10, DAY_MS),
    ),
    // tries of a step after which a target or the service gives the same answer once more.
    number(Key::UpdateAttempts, "update_attempts", (3, 1, 100)),
    // time for the answer to a custom job before it counts as nobody's, 0 = do not ask.
    number(Key::CustomAnswer, "custom_answer_ms", (10_000, 0, DAY_MS)),
    // time for a custom job from taken to finished.
    number(
        Key::CustomJobDeadline,
        "custom_job_deadline_ms",
        (DAY_MS, 10, 365 * DAY_MS),
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

/// A choice among words, and what may stand there. The first word is the default.
struct Choice {
    name: &'static str,
    words: &'static [&'static str],
}

const fn choice(name: &'static str, words: &'static [&'static str]) -> Choice {
    Choice { name, words }
}

const CHOICES: [Choice; 4] = [
    choice("foreign_jobs", &["refuse", "leave"]),
    choice("on_job", &["accept", "ask", "ignore"]),
    choice("protocols", &["mqtt"]),
    choice("reply_subscriptions", &["never", "always"]),
];

const NO_OR_YES: &[&str] = &["false", "true"];

const TARGET_CHOICES: [Choice; 5] = [
    choice("activation", &["immediate", "deferred"]),
    choice("allow_downgrade", NO_OR_YES),
    choice("self_test", &["auto", "external"]),
    choice("firmware", NO_OR_YES),
    // The host's business: it refuses such a target at `create` (0xdd). Known here, so that it is no warning.
    choice("no_revert_allowed", NO_OR_YES),
];

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
        let mut numbers = [0; NUMBERS.len()];
        let mut words = [UNSET; CHOICES.len()];
        let mut unknown = Vec::new();
        read(
            &config.settings,
            false,
            &mut numbers,
            &CHOICES,
            &mut words,
            &mut unknown,
        )?;
        fit_window(&mut numbers)?;
        for (number, row) in numbers.iter_mut().zip(&NUMBERS) {
            // What was read is one more than what was set.
            if *number == 0 {
                *number = row.default;
            } else {
                *number -= 1;
            }
        }
        let mut targets: Vec<TargetPolicy> = Vec::new();
        for target in &config.targets {
            let policy = read_target(target, &numbers, &mut unknown)?;
            let mut at = targets.len();
            for (place, other) in targets.iter().enumerate().rev() {
                if other.file == policy.file {
                    return Err(bad("targets", &target.name, "each file id once"));
                }
                if other.file > policy.file {
                    at = place;
                }
            }
            targets.insert(at, policy);
        }
        Ok(Self {
            thing,
            numbers,
            leave_foreign_jobs: words[0] == 1,
            on_job: match words[1] {
                1 => OnJob::Ask,
                2 => OnJob::Ignore,
                _ => OnJob::Accept,
            },
            subscribe_replies: words[3] == 1,
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

/// Reads numbers, each plus one so that 0 stays "not set", and choices.
fn read(
    settings: &[Setting],
    of_target: bool,
    numbers: &mut [u64],
    choices: &[Choice],
    words: &mut [u8],
    unknown: &mut Vec<String>,
) -> Result<(), Failure> {
    for Setting { key, value } in settings {
        let row = NUMBERS
            .iter()
            .zip(&mut *numbers)
            .find(|(row, _)| row.name == key);
        // A target has two deadlines of its own.
        let row = row.filter(|(row, _)| {
            !of_target || matches!(row.key, Key::SelfTestDeadline | Key::RestartDeadline)
        });
        let choice = choices
            .iter()
            .zip(&mut *words)
            .find(|(choice, _)| choice.name == key);
        if let Some((row, number)) = row {
            *number = read_number(row, value)? + 1;
        } else if let Some((choice, word)) = choice {
            let Some(place) = choice.words.iter().position(|word| word == value) else {
                let mut allowed = String::new();
                for word in choice.words {
                    if !allowed.is_empty() {
                        allowed.push_str(" or ");
                    }
                    allowed.push_str(word);
                }
                return Err(bad(key, value, &allowed));
            };
            *word = place as u8;
        } else {
            unknown.push(key.clone());
        }
    }
    Ok(())
}

fn read_number(row: &Number, value: &str) -> Result<u64, Failure> {
    let mut number = (!value.is_empty()).then_some(0u64);
    for byte in value.bytes() {
        let digit = u64::from(byte.wrapping_sub(b'0'));
        number = number.and_then(|number| number.checked_mul(10)?.checked_add(digit));
        if digit > 9 {
            number = None;
        }
    }
    if let Some(number) = number
        && row.min <= number
        && number <= row.max
    {
        return Ok(number);
    }
    let mut allowed = String::new();
    push_decimal(&mut allowed, row.min);
    allowed.push_str(" to ");
    push_decimal(&mut allowed, row.max);
    Err(bad(row.name, value, &allowed))
}

/// A window that was set must fit one answer of the service with these blocks; the default shrinks until it does.
fn fit_window(numbers: &mut [u64; NUMBERS.len()]) -> Result<(), Failure> {
    let [block_size, window, ..] = numbers;
    // Both are set plus one, and a block has 256 bytes at least.
    let block = if *block_size == 0 {
        NUMBERS[0].default
    } else {
        *block_size - 1
    };
    let fits = WINDOW_MAX_BYTES / block.max(1);
    if *window == 0 {
        *window = fits.min(NUMBERS[1].default) + 1;
    } else if *window - 1 > fits {
        let mut value = String::new();
        push_decimal(&mut value, *window - 1);
        return Err(bad(
            "blocks_per_request",
            &value,
            "times block_size at most 131072",
        ));
    }
    Ok(())
}

fn read_target(
    target: &Target,
    device: &[u64; NUMBERS.len()],
    unknown: &mut Vec<String>,
) -> Result<TargetPolicy, Failure> {
    let mut numbers = [0; NUMBERS.len()];
    let mut words = [UNSET; TARGET_CHOICES.len()];
    read(
        &target.settings,
        true,
        &mut numbers,
        &TARGET_CHOICES,
        &mut words,
        unknown,
    )?;
    let own = |key: Key| {
        let number = numbers[key as usize];
        if number == 0 {
            device[key as usize]
        } else {
            number - 1
        }
    };
    Ok(TargetPolicy {
        file: target.file,
        name: String::from(cut(&target.name, 64)),
        deferred: words[0] == 1,
        allow_downgrade: words[1] == 1,
        external_test: words[2] == 1,
        self_test_deadline_ms: own(Key::SelfTestDeadline),
        restart_deadline_ms: own(Key::RestartDeadline),
        firmware: (words[3] != UNSET).then_some(words[3] == 1),
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
