//! Known faults of this field, each of which the judges of an agent must find.
//!
//! With the feature `mutants` (of no build that ships) the setting `mutant` chooses one by its name; a build without it has
//! not one instruction of them. Each stands at one place in the code, as `if mutant!(…)`. The names are append-only: seeds
//! that found one are written down. Not here: who finds them (`tests/faults`).

/// Asks whether a fault is chosen; `false` at compile time in a build without the feature.
macro_rules! mutant {
    ($name:ident) => {
        cfg!(feature = "mutants") && $crate::mutant::Mutant::$name.is_chosen()
    };
}

macro_rules! mutants {
    ($( $name:ident $word:literal $what:literal; )+) => {
        /// One fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutant {
            $( #[allow(dead_code, reason = "named where it strikes")] $name, )+
        }

        /// All of them: name in the setting `mutant`, and what went wrong where.
        pub const MUTANTS: &[(&str, &str)] = &[$( ($word, $what), )+];
    };
}

mutants! {
    DoubledRequests "doubled-requests" "a duplicate block is answered by another request (amazon-freertos 3109)";
    LostReplyHangs "lost-reply-hangs" "a question without an answer is not asked again (amazon-freertos 875)";
    StatusSentOnce "status-sent-once" "a status without an answer is not sent again (thin-edge 2150)";
    SameJobFromZero "same-job-from-zero" "the job at hand, shown again, begins from zero (aws-iot-ota 1.8)";
    CommitUntested "commit-untested" "the self-test is passed before it has begun (C agent, quirk 17)";
    CancelUnnoticed "cancel-unnoticed" "a job that is gone is worked on (amazon-freertos 77, rustot 89)";
    SmallBitmap "small-bitmap" "blocks beyond the bitmap look like duplicates (esp-aws-iot 148; quirk 1)";
    ResumeStops "resume-stops" "a transfer that paused does not go on (ota-for-aws-iot-embedded-sdk 503)";
    DuplicateFails "duplicate-fails" "a duplicate block fails the job (C agent, quirk 14)";
    LateBlockFails "late-block-fails" "a block after the last one fails the job (C agent, quirk 14b)";
    OtherFileTaken "other-file-taken" "the file of a block is not compared (C agent, quirk 15)";
    RejectionUnheard "rejection-unheard" "nothing is heard on rejected topics (ota-for-aws-iot-embedded-sdk 490)";
    RefusalUntold "refusal-untold" "a job that cannot be read is dropped without a word (C agent, quirk 20)";
    ReconnectForgets "reconnect-forgets" "what was asked before a reconnect is waited for (amazon-freertos 3005)";
    HintIsCancel "hint-is-cancel" "a notification without a job ends the job at hand (rustot 95)";
    ProgressForgotten "progress-forgotten" "after a restart all blocks are fetched again (ota-for-aws-iot-embedded-sdk 206)";
    GatewayFirst "gateway-first" "the gateway restarts before the other targets are done (Mender Orchestrator's order)";
    NoGoingBack "no-going-back" "a failed test is reported, and the image stays (mender-mcu 179)";
    SameVersion "same-version" "the version that runs is taken again (iot-reference-esp32 120)";
    TrapOnRepeat "trap-on-repeat" "a status that is repeated crashes the agent (amazon-freertos 3110)";
    Impatient "impatient" "the request timer is shorter than the round trip (amazon-freertos 2683)";
    BlockSizeMixed "block-size-mixed" "the offset of a block is counted in another size (ota-for-aws-iot-embedded-sdk 503)";
    WallClockTimer "wall-clock-timer" "timers go by the wall clock (thin-edge 2896)";
    GivesUpAsking "gives-up-asking" "after some silent questions the agent never asks again (Mender, hub 8299)";
    NoBackOff "no-back-off" "what fails is repeated at once (C agent, quirk 7)";
    NamelessStatus "nameless-status" "a status goes to jobs//update (C agent, quirk 14b)";
    HalfBack "half-back" "only the first target goes back (Mender Orchestrator's roll-back)";
    JournalLost "journal-lost" "the journal is never stored (aws-iot-device-sdk-embedded-C 1643)";
    ReportedUncommitted "reported-uncommitted" "the end is told, and the image is not committed (thin-edge 2495)";
    AcceptedUnheard "accepted-unheard" "the end is told once and not waited for (rustot 93)";
}

#[cfg(feature = "mutants")]
mod chosen {
    use core::sync::atomic::{AtomicUsize, Ordering};

    use super::{MUTANTS, Mutant};
    use crate::types::Config;

    /// Number of the chosen one plus 1. A component has one agent.
    static CHOSEN: AtomicUsize = AtomicUsize::new(0);

    /// Choose what the settings name.
    pub(crate) fn choose(config: &Config) {
        let setting = config.settings.iter().find(|of| of.key == "mutant");
        let place = setting.and_then(|of| MUTANTS.iter().position(|(word, _)| *word == of.value));
        CHOSEN.store(place.map_or(0, |at| at + 1), Ordering::Relaxed);
    }

    impl Mutant {
        pub(crate) fn is_chosen(self) -> bool {
            CHOSEN.load(Ordering::Relaxed) == self as usize + 1
        }
    }
}

#[cfg(feature = "mutants")]
pub(crate) use chosen::choose;

#[cfg(not(feature = "mutants"))]
impl Mutant {
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn is_chosen(self) -> bool {
        false
    }
}
