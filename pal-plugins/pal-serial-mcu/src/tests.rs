//! Whole updates and what goes wrong in them, against a small MCU in virtual time.

mod mcu;
mod network;

use std::collections::VecDeque;

use pal_sdk::fake::Fake;
use pal_sdk::{
    Answer, Blob, Duty, Failure, Plugin, Setting, TargetState, Transfer, Version, code, state,
};
use smp_core::code::{Refusal, group, os, rc};
use smp_core::frame::{Decoder, Framing};
use smp_core::header::Header;

use crate::{SerialMcu, sub};
use mcu::{Mcu, OnReset, image};

/// Something that happens to the target.
type Spoil = fn(&mut Bench);

/// So long without progress, and the host takes a duty for hung.
const STALL_MS: u64 = 600_000;

struct Bench {
    fake: Fake,
    mcu: Mcu,
    decoder: Decoder,
    plugin: SerialMcu<Fake>,
    pulses: u32,
    /// Packets so far; before the one of that number something happens.
    packets: u32,
    at_packet: Option<(u32, Spoil)>,
    /// How long its answers take.
    answer_ms: u64,
    /// How long its application's own test takes beside that, and answers of it that are on their way.
    test_ms: u64,
    late: VecDeque<(u64, Vec<u8>)>,
}

fn setting(key: &str, value: &str) -> Setting {
    Setting {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

fn plugin(fake: &Fake, settings: &[(&str, &str)], saved: Option<Blob>) -> SerialMcu<Fake> {
    let settings = settings.iter().map(|(k, v)| setting(k, v)).collect();
    SerialMcu::open(fake.clone(), settings, saved).unwrap()
}

fn bench() -> Bench {
    let fake = Fake::new(Vec::new());
    Bench {
        plugin: plugin(&fake, &[], None),
        fake,
        mcu: Mcu::new(),
        decoder: Decoder::new(Framing::Console, 380),
        pulses: 0,
        packets: 0,
        at_packet: None,
        answer_ms: 5,
        test_ms: 0,
        late: VecDeque::new(),
    }
}

fn transfer(size: usize) -> Transfer {
    Transfer {
        job_id: "job-1".to_owned(),
        file_id: 1,
        size: size as u64,
        signature: vec![1, 2, 3],
        ..Transfer::default()
    }
}

impl Bench {
    /// Runs a duty to its end; the host steps it when it wakes.
    fn run(
        &mut self,
        begin: impl FnOnce(&mut SerialMcu<Fake>) -> Result<Duty, Failure>,
    ) -> Result<Answer, Failure> {
        let mut duty = begin(&mut self.plugin)?;
        let end = self.fake.world().now_ms + 3_600_000;
        let (mut progress, mut moved_ms) = ((0, 0), self.fake.world().now_ms);
        loop {
            let working = match duty {
                Duty::Finished(answer) => return Ok(answer),
                Duty::Working(working) => working,
            };
            assert!(working.done >= progress.0, "{progress:?}: {working:?}");
            if (working.done, working.total) != progress {
                progress = (working.done, working.total);
                moved_ms = self.fake.world().now_ms;
            }
            let still_ms = self.fake.world().now_ms - moved_ms;
            assert!(still_ms < STALL_MS, "no progress for {still_ms} ms");
            let sleep = working.wake.after_ms.map_or(0, u64::from);
            assert!(sleep > 0 || working.wake == pal_sdk::Wake::default());
            let input = self.serve();
            let now_ms = self.fake.world().now_ms;
            let arrives_ms = self.late.front().map_or(u64::MAX, |(at_ms, _)| *at_ms);
            let passes = if input {
                self.answer_ms
            } else {
                sleep.min(arrives_ms.saturating_sub(now_ms)).max(1)
            };
            self.fake.world().now_ms += passes;
            assert!(now_ms < end, "an hour");
            duty = self.plugin.step(65_536)?;
        }
    }

    /// The target's side of the line; whether it has said something.
    fn serve(&mut self) -> bool {
        let (now_ms, output, resets) = {
            let mut world = self.fake.world();
            (
                world.now_ms,
                std::mem::take(&mut world.line_output),
                world.resets,
            )
        };
        if resets > self.pulses {
            self.pulses = resets;
            self.mcu.boot();
        }
        let mut packets = Vec::new();
        self.decoder.push(now_ms, &output, &mut packets);
        for packet in packets {
            self.packets += 1;
            if let Some((number, act)) = self.at_packet
                && number == self.packets
            {
                self.at_packet = None;
                act(self);
            }
            if let Some(answer) = self.mcu.handle(now_ms, &packet) {
                let wire = Framing::Console.encode(&answer);
                let is_test = Header::parse(&packet).is_some_and(|h| h.group == group::USER);
                let late_ms = if is_test { self.test_ms } else { 0 };
                self.late.push_back((now_ms + late_ms, wire));
            }
        }
        while let Some((_, wire)) = self.late.pop_front_if(|(at_ms, _)| *at_ms <= now_ms) {
            self.fake.world().line_input.extend(wire);
        }
        !self.fake.world().line_input.is_empty()
    }

    fn stage(&mut self, file: &[u8]) {
        let mut world = self.fake.world();
        world.staged = file.to_vec();
        world.staged_verified = true;
    }

    /// Up to the mark: created, installed, activated.
    fn arm(&mut self, file: &[u8]) {
        self.stage(file);
        self.run(|p| p.create(transfer(file.len()))).unwrap();
        self.run(SerialMcu::install).unwrap();
        self.run(|p| p.activate([0; 32])).unwrap();
    }

    fn said(&self, what: &str) -> bool {
        let world = self.fake.world();
        world.log.iter().any(|(_, text)| text.contains(what))
    }

    fn state(&mut self) -> TargetState {
        match self.run(SerialMcu::state).unwrap() {
            Answer::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    /// The host died: a new instance with what the last `suspend` gave.
    fn restart(&mut self, saved: Option<Blob>, size: usize) {
        self.plugin = plugin(&self.fake, &[], saved);
        self.run(|p| p.reopen(transfer(size))).unwrap();
    }
}

fn major(major: u8) -> Version {
    Version {
        major,
        ..Version::default()
    }
}

#[test]
fn an_update_goes_from_the_file_to_a_committed_image() {
    let mut bench = bench();
    let file = image(2, 20_000, b"pump");
    bench.stage(&file);
    bench.run(|p| p.create(transfer(file.len()))).unwrap();
    let Answer::Info(info) = bench.run(SerialMcu::examine).unwrap() else {
        panic!("no info");
    };
    assert_eq!(info.version, Some(major(2)));
    assert_eq!(info.product.as_deref(), Some("pump"));
    bench.run(SerialMcu::install).unwrap();
    assert_eq!(bench.mcu.board.slots[1], file);
    assert!(!bench.mcu.board.pending, "install marks nothing");
    bench.run(|p| p.activate([0; 32])).unwrap();
    assert_eq!(bench.state().code, state::ARMED);
    bench.run(SerialMcu::reset).unwrap();
    let now = bench.state();
    assert_eq!(now.code, state::PENDING_COMMIT);
    assert_eq!((now.running, now.runs_new), (Some(major(2)), Some(true)));
    bench.run(SerialMcu::self_test).unwrap();
    bench.run(SerialMcu::commit).unwrap();
    assert_eq!(bench.state().code, state::VALID);
    assert!(bench.mcu.board.confirmed);
    assert_eq!(bench.mcu.board.boots, 1);
    // Each again: nothing changes, and above all nothing restarts.
    bench.run(|p| p.activate([0; 32])).unwrap();
    bench.run(SerialMcu::reset).unwrap();
    bench.run(SerialMcu::commit).unwrap();
    assert_eq!(bench.mcu.board.boots, 1);
    assert_eq!(
        bench.run(SerialMcu::reject).unwrap_err().sub,
        sub::COMMITTED
    );
}

#[test]
fn a_push_ahead_of_the_end_marks_nothing_and_ends_only_when_the_file_is_verified() {
    let mut bench = bench();
    let file = image(2, 20_000, b"pump");
    bench.run(|p| p.create(transfer(file.len()))).unwrap();
    let mut duty = bench.plugin.install().unwrap();
    let mut steps_after_the_end = 0;
    while let Duty::Working(working) = duty {
        let input = bench.serve();
        let mut world = bench.fake.world();
        world.now_ms += if input { 5 } else { 20 };
        // A slow download: a hundred bytes a turn.
        let held = (world.staged.len() + 100).min(file.len());
        world.staged = file[..held].to_vec();
        if held == file.len() && working.done == working.total && working.total > 0 {
            steps_after_the_end += 1;
            world.staged_verified = steps_after_the_end > 50;
        }
        drop(world);
        assert!(steps_after_the_end <= 100);
        duty = bench.plugin.step(65_536).unwrap();
    }
    assert!(steps_after_the_end > 50);
    assert_eq!(bench.mcu.board.slots[1], file);
    assert!(!bench.mcu.board.pending);
    assert_eq!(bench.mcu.board.erases, 1);
}

#[test]
fn a_rejected_image_is_reverted_by_a_restart_and_erased() {
    let mut bench = bench();
    let file = image(2, 8000, b"pump");
    bench.arm(&file);
    bench.run(SerialMcu::reset).unwrap();
    bench.run(SerialMcu::reject).unwrap();
    assert_eq!(bench.mcu.board.slots[0][20], 1);
    assert!(bench.mcu.board.confirmed && !bench.mcu.board.pending);
    assert!(bench.mcu.board.slots[1].is_empty());
    assert_eq!(bench.state().runs_new, Some(false));
    // Nor does an instance say that the bootloader refused it which was not there.
    let saved = bench.plugin.suspend().unwrap();
    assert_eq!(saved.bytes.len(), 33);
    bench.restart(Some(saved), file.len());
    assert_eq!(bench.state().code, state::INVALID);
    assert!(!bench.said("refused"));
}

#[test]
fn a_mark_is_taken_back_by_running_the_new_image_once() {
    let mut bench = bench();
    bench.arm(&image(2, 8000, b"pump"));
    bench.run(SerialMcu::reject).unwrap();
    assert_eq!(bench.mcu.board.boots, 2);
    assert_eq!(bench.mcu.board.slots[0][20], 1);
    assert!(bench.mcu.board.confirmed && !bench.mcu.board.pending);
}

#[test]
fn an_image_that_the_bootloader_refuses_is_invalid() {
    let mut bench = bench();
    bench.mcu.board.refuses_signature = true;
    bench.arm(&image(2, 8000, b"pump"));
    bench.run(SerialMcu::reset).unwrap();
    let now = bench.state();
    assert_eq!((now.code, now.runs_new), (state::INVALID, Some(false)));
    assert_eq!(
        bench.run(SerialMcu::self_test).unwrap_err().sub,
        sub::NOT_RUNNING
    );
    assert!(bench.said("refused"));
}

#[test]
fn a_power_cut_in_the_test_reverts_and_is_seen() {
    let mut bench = bench();
    let file = image(2, 8000, b"pump");
    bench.arm(&file);
    bench.run(SerialMcu::reset).unwrap();
    let saved = bench.plugin.suspend().unwrap();
    bench.mcu.boot();
    bench.fake.world().now_ms += 60_000;
    assert_eq!(
        bench.run(SerialMcu::commit).unwrap_err().sub,
        sub::NOT_RUNNING
    );
    // Also for an instance that was not there.
    bench.restart(Some(saved), file.len());
    assert_eq!(bench.state().code, state::INVALID);
}

#[test]
fn a_new_image_that_never_answers_is_reset_by_the_line_and_reverts() {
    let mut bench = bench();
    bench.mcu.board.new_is_dumb = true;
    bench.arm(&image(2, 8000, b"pump"));
    let failure = bench.run(SerialMcu::reset).unwrap_err();
    assert_eq!(failure.main, code::UNREACHABLE);
    assert_eq!(bench.state().code, state::UNKNOWN);
    assert_eq!(
        bench.run(SerialMcu::self_test).unwrap_err().main,
        code::UNREACHABLE
    );
    bench.run(SerialMcu::reject).unwrap();
    assert!(bench.mcu.board.confirmed);
    assert_eq!(bench.mcu.board.slots[0][20], 1);
}

#[test]
fn a_target_that_is_not_fit_is_not_created() {
    let rows: &[(Spoil, usize, u8)] = &[
        (|_| {}, 70_000, code::TOO_LARGE),
        (|b| b.mcu.board.mode = Some(2), 8000, code::NO_REVERT),
        (|b| b.mcu.board.mode = Some(-1), 8000, code::NO_REVERT),
        (|b| b.mcu.board.mode = Some(7), 8000, code::NO_REVERT),
        (|b| b.mcu.board.recovery = true, 8000, code::NO_REVERT),
        (
            |b| b.mcu.board.confirmed = false,
            8000,
            code::BAD_IMAGE_STATE,
        ),
        (
            |b| {
                b.mcu.board.slots[1] = image(9, 100, b"pump");
                b.mcu.board.pending = true;
            },
            8000,
            code::BAD_IMAGE_STATE,
        ),
        (
            |b| b.fake.world().line_plugged = false,
            8000,
            code::UNREACHABLE,
        ),
        (
            |b| b.mcu.board.deaf = Some((group::IMAGE, Some(smp_core::code::image::SLOTS))),
            8000,
            code::UNREACHABLE,
        ),
    ];
    for (spoil, size, main) in rows {
        let mut bench = bench();
        spoil(&mut bench);
        let failure = bench.run(|p| p.create(transfer(*size))).unwrap_err();
        assert_eq!(failure.main, *main, "{failure}");
    }
    // By name it is taken; a server without that command is, too.
    let mut bench = bench();
    bench.mcu.board.mode = Some(2);
    bench.plugin = plugin(&bench.fake, &[("allow_no_revert", "overwrite")], None);
    bench.run(|p| p.create(transfer(8000))).unwrap();
    bench.mcu.board.mode = Some(-1);
    bench.plugin = plugin(&bench.fake, &[("allow_no_revert", "unknown")], None);
    bench.run(|p| p.create(transfer(8000))).unwrap();
    bench.mcu.board.mode = None;
    bench.plugin = plugin(&bench.fake, &[], None);
    bench.run(|p| p.create(transfer(8000))).unwrap();
}

#[test]
fn a_bootloader_that_reverts_is_taken_without_a_word() {
    // Swaps by a scratch area, by moving and by an offset, and from either slot in place.
    for mode in [1, 3, 9, 5] {
        let mut bench = bench();
        bench.mcu.board.mode = Some(mode);
        let end = bench.run(|p| p.create(transfer(8000)));
        assert!(end.is_ok(), "mode {mode}: {end:?}");
    }
}

#[test]
fn a_bootloader_that_is_not_told_is_not_taken_for_one_that_reverts() {
    let denied = Refusal::generic(rc::DENIED);
    let busy = Refusal::generic(rc::BUSY);
    // Recovery, whose answer to the echo would tell it, has no command for the mode either.
    for (command, mode) in [(os::BOOTLOADER, Some(3)), (os::ECHO, None)] {
        let mut bench = bench();
        bench.mcu.board.garbled = Some((group::OS, command));
        bench.mcu.board.mode = mode;
        assert!(!told_bootloader(&mut bench));
    }
    for (refusals, fine) in [
        (vec![denied], false),
        (vec![busy, busy], false),
        (vec![busy], true),
    ] {
        let mut bench = bench();
        bench.mcu.board.mode_refusals = refusals;
        assert_eq!(told_bootloader(&mut bench), fine);
    }
}

/// Whether `create` goes well; if not, because of what the bootloader does not tell.
fn told_bootloader(bench: &mut Bench) -> bool {
    match bench.run(|p| p.create(transfer(8000))) {
        Ok(_) => true,
        Err(failure) => {
            let told = (failure.main, failure.sub);
            assert_eq!(told, (code::BAD_IMAGE_STATE, sub::BOOTLOADER), "{failure}");
            false
        }
    }
}

#[test]
fn a_server_of_version_one_is_met_at_every_start_of_the_host() {
    let mut bench = bench();
    bench.mcu = Mcu::of_version_one();
    assert_eq!(bench.state().code, state::VALID);
    let file = image(2, 8000, b"pump");
    bench.arm(&file);
    bench.restart(None, file.len());
    bench.run(SerialMcu::reset).unwrap();
    assert_eq!(bench.state().code, state::PENDING_COMMIT);
}

#[test]
fn a_swap_under_way_is_not_cut_by_a_reset_of_a_host_that_was_killed_after_it() {
    let mut bench = bench();
    let file = image(2, 8000, b"pump");
    bench.arm(&file);
    bench.mcu.board.swap_ms = 60_000;
    bench.mcu.boot();
    bench.restart(None, file.len());
    bench.run(SerialMcu::reset).unwrap();
    assert_eq!((bench.mcu.board.boots, bench.pulses), (1, 0));
    assert_eq!(bench.state().code, state::PENDING_COMMIT);
}

#[test]
fn a_target_that_is_too_busy_to_list_its_images_is_not_reset_in_its_test() {
    let mut bench = bench();
    let file = image(2, 8000, b"pump");
    bench.arm(&file);
    bench.run(SerialMcu::reset).unwrap();
    // The host was killed, and does not know that the new image runs.
    bench.restart(None, file.len());
    bench.mcu.board.busy_lists = 2;
    bench.run(SerialMcu::reset).unwrap();
    assert_eq!((bench.mcu.board.boots, bench.pulses), (1, 0));
    assert_eq!(bench.state().code, state::PENDING_COMMIT);
}

#[test]
fn a_target_that_is_busy_for_a_moment_tells_its_state_and_one_that_stays_so_tells_none() {
    let mut bench = bench();
    bench.mcu.board.busy_lists = 3;
    assert_eq!(bench.state().code, state::VALID);
    bench.mcu.board.busy_lists = u32::MAX;
    assert_eq!(bench.state().code, state::UNKNOWN);
}

#[test]
fn a_target_that_answers_and_does_not_list_its_images_is_restarted_only_to_go_back() {
    let refused = |code| Err(Refusal::generic(code));
    for lists in [refused(rc::UNKNOWN), refused(rc::DENIED), Ok(Vec::new())] {
        for on_reset in [OnReset::Restarts, OnReset::Refuses, OnReset::Ignores] {
            let mut bench = bench();
            let file = image(2, 8000, b"pump");
            bench.mcu.board.new_lists = Some(lists.clone());
            bench.arm(&file);
            bench.mcu.boot();
            bench.mcu.board.on_reset = on_reset;
            // The host was killed, and does not know that the new image runs.
            bench.restart(None, file.len());
            let failure = bench.run(SerialMcu::reset).unwrap_err();
            let told = (failure.main, failure.sub);
            assert_eq!(told, (code::BAD_IMAGE_STATE, sub::NOTHING_ACTIVE));
            assert_eq!((bench.mcu.board.boots, bench.pulses), (1, 0));
            bench.run(SerialMcu::reject).unwrap();
            let is_pulsed = on_reset != OnReset::Restarts;
            assert_eq!(bench.pulses, u32::from(is_pulsed), "{on_reset:?}");
            assert_eq!(bench.mcu.board.slots[0][20], 1);
            assert!(bench.mcu.board.confirmed);
        }
    }
}

#[test]
fn a_target_that_refuses_to_restart_and_stays_unclear_is_reset_by_its_line_once() {
    let mut bench = bench();
    let file = image(2, 8000, b"pump");
    bench.mcu.board.new_lists = Some(Ok(Vec::new()));
    bench.arm(&file);
    bench.mcu.boot();
    bench.mcu.board.on_reset = OnReset::Refuses;
    bench.restart(None, file.len());
    // The line leads nowhere.
    bench.pulses = u32::MAX;
    let failure = bench.run(SerialMcu::reject).unwrap_err();
    let told = (failure.main, failure.sub);
    assert_eq!(told, (code::BAD_IMAGE_STATE, sub::NOTHING_ACTIVE));
    assert_eq!(bench.fake.world().resets, 1);
}

#[test]
fn a_target_that_starts_the_image_before_the_mark_is_answered_is_marked_and_not_marked_again() {
    let mut bench = bench();
    let file = image(2, 8000, b"pump");
    bench.stage(&file);
    bench.run(|p| p.create(transfer(file.len()))).unwrap();
    bench.run(SerialMcu::install).unwrap();
    // A look, and then the mark: done, and the power goes before the answer. Another mark would be a confirmation.
    bench.at_packet = Some((bench.packets + 2, |b| {
        b.mcu.board.pending = true;
        b.mcu.boot();
    }));
    bench.run(|p| p.activate([0; 32])).unwrap();
    bench.run(SerialMcu::reset).unwrap();
    assert_eq!(bench.state().code, state::PENDING_COMMIT);
    assert!(!bench.mcu.board.confirmed);
    assert_eq!(bench.mcu.board.boots, 1);
    // Known as marked from then on: going back by itself is no success.
    bench.mcu.boot();
    bench.fake.world().now_ms += 60_000;
    assert_eq!(bench.state().code, state::INVALID);
}

#[test]
fn a_target_that_answers_and_keeps_no_mark_is_not_called_silent() {
    let mut bench = bench();
    let file = image(2, 8000, b"pump");
    bench.stage(&file);
    bench.run(|p| p.create(transfer(file.len()))).unwrap();
    bench.run(SerialMcu::install).unwrap();
    let told = |failure: Failure| (failure.main, failure.sub);
    bench.mcu.board.keeps_no_mark = true;
    let failure = bench.run(|p| p.activate([0; 32])).unwrap_err();
    assert_eq!(told(failure), (code::ACTIVATE_FAILED, sub::NOT_MARKED));
    bench.mcu.board.keeps_no_mark = false;
    bench.run(|p| p.activate([0; 32])).unwrap();
    bench.run(SerialMcu::reset).unwrap();
    bench.mcu.board.keeps_no_mark = true;
    let failure = bench.run(SerialMcu::commit).unwrap_err();
    assert_eq!(told(failure), (code::COMMIT_FAILED, sub::NOT_MARKED));
}

#[test]
fn a_target_that_restarts_while_it_is_asked_about_its_bootloader_is_asked_again() {
    let mut bench = bench();
    bench.mcu.board.mode = Some(2);
    // Its images, the echo, and then the bootloader.
    bench.at_packet = Some((3, |b| {
        b.mcu.boot();
        b.mcu.board.up_at += 30_000;
    }));
    let failure = bench.run(|p| p.create(transfer(8000))).unwrap_err();
    assert_eq!(failure.main, code::NO_REVERT, "{failure}");
}

#[test]
fn a_target_that_restarts_in_its_test_is_said_to_run_another_image() {
    let mut bench = bench();
    bench.arm(&image(2, 8000, b"pump"));
    bench.run(SerialMcu::reset).unwrap();
    // The list, and then an echo.
    bench.at_packet = Some((bench.packets + 2, |b| b.mcu.boot()));
    let failure = bench.run(SerialMcu::self_test).unwrap_err();
    assert_eq!(failure.sub, sub::NOT_RUNNING, "{failure}");
}

#[test]
fn an_application_that_lists_and_does_not_answer_its_test_is_not_called_silent() {
    for (group, number) in [(group::OS, sub::ECHO), (group::USER, sub::TEST_COMMAND)] {
        let mut bench = bench();
        let tested = [("test_command", "64:1")];
        bench.plugin = plugin(&bench.fake, &tested, None);
        bench.arm(&image(2, 8000, b"pump"));
        bench.run(SerialMcu::reset).unwrap();
        bench.mcu.board.deaf = Some((group, None));
        let failure = bench.run(SerialMcu::self_test).unwrap_err();
        let told = (failure.main, failure.sub);
        assert_eq!(told, (code::BAD_IMAGE_STATE, number), "{failure}");
    }
}

#[test]
fn a_test_of_the_application_takes_its_time_and_is_begun_again_once_at_most() {
    for (timeout_ms, fine, tests) in [("10000", true, 1), ("1000", false, 2)] {
        let mut bench = bench();
        let tested = [
            ("test_command", "64:1"),
            ("test_timeout_ms", timeout_ms),
            ("soak_ms", "1000"),
        ];
        bench.plugin = plugin(&bench.fake, &tested, None);
        bench.arm(&image(2, 8000, b"pump"));
        bench.run(SerialMcu::reset).unwrap();
        bench.test_ms = 2000;
        let end = bench.run(SerialMcu::self_test);
        assert_eq!(end.is_ok(), fine, "{end:?}");
        assert_eq!(bench.mcu.board.tests, tests);
    }
}

#[test]
fn a_dumb_target_without_a_reset_line_is_waited_for_and_then_reported() {
    let mut bench = bench();
    bench.mcu.board.new_is_dumb = true;
    bench.arm(&image(2, 8000, b"pump"));
    bench.run(SerialMcu::reset).unwrap_err();
    bench.pulses = u32::MAX;
    let failure = bench.run(SerialMcu::reject).unwrap_err();
    assert_eq!(failure.main, code::UNREACHABLE);
    // Its watchdog wakes up.
    bench.mcu.boot();
    bench.run(SerialMcu::reject).unwrap();
    assert!(bench.mcu.board.confirmed);
}

#[test]
fn a_long_wait_for_a_target_is_not_taken_for_a_hung_duty() {
    let mut bench = bench();
    bench.mcu.board.new_is_dumb = true;
    let patient = [("swap_timeout_ms", "1200000")];
    bench.plugin = plugin(&bench.fake, &patient, None);
    bench.arm(&image(2, 8000, b"pump"));
    bench.pulses = u32::MAX;
    let begun_ms = bench.fake.world().now_ms;
    let failure = bench.run(SerialMcu::reset).unwrap_err();
    assert_eq!(failure.main, code::UNREACHABLE);
    assert!(bench.fake.world().now_ms - begun_ms >= 1_200_000);
    // Silent from the start: once for what may be under way, and once more after the line was pulsed.
    bench.plugin = plugin(&bench.fake, &patient, None);
    let begun_ms = bench.fake.world().now_ms;
    bench.run(SerialMcu::reject).unwrap_err();
    assert!(bench.fake.world().now_ms - begun_ms >= 2_400_000);
}

#[test]
fn a_push_goes_on_where_a_killed_host_left_it() {
    let mut bench = bench();
    let file = image(2, 20_000, b"pump");
    bench.stage(&file);
    bench.run(|p| p.create(transfer(file.len()))).unwrap();
    bench.plugin.install().unwrap();
    while bench.mcu.board.written < 10_000 {
        bench.serve();
        bench.fake.world().now_ms += 5;
        bench.plugin.step(65_536).unwrap();
    }
    bench.restart(None, file.len());
    bench.run(SerialMcu::install).unwrap();
    assert_eq!(bench.mcu.board.erases, 1);
    assert_eq!(bench.mcu.board.written, file.len() as u64);
}

#[test]
fn a_host_killed_between_mark_and_reset_finds_the_target_armed() {
    let mut bench = bench();
    let file = image(2, 8000, b"pump");
    bench.arm(&file);
    bench.restart(None, file.len());
    assert_eq!(bench.state().code, state::ARMED);
    bench.run(|p| p.activate([0; 32])).unwrap();
    bench.run(SerialMcu::reset).unwrap();
    bench.restart(None, file.len());
    // Begun again after the restart of the target: not reset once more.
    bench.run(SerialMcu::reset).unwrap();
    assert_eq!(bench.state().code, state::PENDING_COMMIT);
    assert_eq!(bench.mcu.board.boots, 1);
}

#[test]
fn a_target_that_loses_power_in_mid_push_gets_the_file_again() {
    let mut bench = bench();
    let file = image(2, 20_000, b"pump");
    bench.stage(&file);
    bench.run(|p| p.create(transfer(file.len()))).unwrap();
    bench.at_packet = Some((bench.packets + 20, |b| b.mcu.boot()));
    bench.run(SerialMcu::install).unwrap();
    assert_eq!(bench.mcu.board.slots[1], file);
    assert_eq!(bench.mcu.board.erases, 2);
}

#[test]
fn a_flash_error_is_met_by_erasing_once_and_then_it_is_an_error() {
    let file = image(2, 20_000, b"pump");
    for (failing, fine) in [(1, true), (9, false)] {
        let mut bench = bench();
        bench.stage(&file);
        bench.run(|p| p.create(transfer(file.len()))).unwrap();
        bench.mcu.board.failing_writes = failing;
        match bench.run(SerialMcu::install) {
            Ok(_) => assert!(fine),
            Err(failure) => {
                assert!(!fine);
                assert_eq!(
                    (failure.main, failure.sub),
                    (code::BLOCK_FAILED, sub::UPLOAD)
                );
            }
        }
    }
}

#[test]
fn what_is_sent_again_over_a_slow_line_is_progress() {
    let file = image(2, 60_000, b"pump");
    let mut bench = bench();
    bench.stage(&file);
    bench.run(|p| p.create(transfer(file.len()))).unwrap();
    bench.answer_ms = 15_000;
    // Near the end of the first upload, which takes longer than a duty may stand still.
    bench.at_packet = Some((bench.packets + 170, |b| b.mcu.board.failing_writes = 1));
    let begun_ms = bench.fake.world().now_ms;
    bench.run(SerialMcu::install).unwrap();
    assert!(bench.at_packet.is_none());
    assert_eq!(bench.mcu.board.erases, 2);
    assert!(bench.fake.world().now_ms - begun_ms > 2 * STALL_MS);
}

#[test]
fn a_line_unplugged_in_mid_push_is_opened_again() {
    let mut bench = bench();
    let file = image(2, 20_000, b"pump");
    bench.stage(&file);
    bench.run(|p| p.create(transfer(file.len()))).unwrap();
    bench.plugin.install().unwrap();
    let mut turns = 0;
    loop {
        turns += 1;
        bench.fake.world().line_plugged = !(30..60).contains(&turns);
        bench.serve();
        bench.fake.world().now_ms += 100;
        if let Duty::Finished(_) = bench.plugin.step(65_536).unwrap() {
            break;
        }
        assert!(turns < 10_000);
    }
    assert_eq!(bench.mcu.board.slots[1], file);
    assert_eq!(bench.mcu.board.erases, 1);
}

#[test]
fn a_line_that_is_away_is_tried_twice_a_second_whatever_is_waited_for() {
    let mut bench = bench();
    let file = image(2, 20_000, b"pump");
    bench.run(|p| p.create(transfer(file.len()))).unwrap();
    bench.fake.world().staged = file[..2000].to_vec();
    bench.plugin.install().unwrap();
    // All that is there was sent, and more of the file is waited for.
    while bench.mcu.board.written < 1900 {
        bench.serve();
        bench.fake.world().now_ms += 5;
        bench.plugin.step(65_536).unwrap();
    }
    bench.fake.world().line_plugged = false;
    for _ in 0..10 {
        let Duty::Working(working) = bench.plugin.step(65_536).unwrap() else {
            panic!("it ended");
        };
        let ms = working.wake.after_ms.unwrap();
        assert!(ms <= 500, "{ms}");
        bench.fake.world().now_ms += u64::from(ms);
    }
}

#[test]
fn what_is_no_image_for_this_product_touches_nothing() {
    let mut bench = bench();
    bench.stage(&[0x55; 4000]);
    bench.run(|p| p.create(transfer(4000))).unwrap();
    assert_eq!(
        bench.run(SerialMcu::install).unwrap_err().sub,
        sub::NO_IMAGE
    );
    assert_eq!(bench.mcu.board.erases, 0);
    bench.plugin = plugin(&bench.fake, &[("product", "valve")], None);
    let file = image(2, 8000, b"pump");
    bench.stage(&file);
    bench.run(|p| p.create(transfer(file.len()))).unwrap();
    let failure = bench.run(SerialMcu::install).unwrap_err();
    assert_eq!(failure.sub, sub::OTHER_PRODUCT);
    assert_eq!(bench.mcu.board.erases, 0);
}

#[test]
fn an_encrypted_image_is_refused_as_one_before_anything_is_erased() {
    let file = image(2, 8000, b"pump");
    // AES-128 and AES-256; whole, and as far as its header.
    for (flags, held) in [(0x04, file.len()), (0x08, file.len()), (0x04, 100)] {
        let mut bench = bench();
        let mut file = file.clone();
        file[16] = flags;
        bench.stage(&file[..held]);
        bench.run(|p| p.create(transfer(file.len()))).unwrap();
        let failure = bench.run(SerialMcu::install).unwrap_err();
        let told = (failure.main, failure.sub);
        assert_eq!(told, (code::WRONG_PRODUCT, sub::NO_IMAGE));
        assert!(failure.detail.contains("encrypted"), "{failure}");
        assert_eq!(bench.mcu.board.erases, 0);
    }
}

#[test]
fn abort_cleans_the_slot_and_spares_what_is_in_use() {
    let mut bench = bench();
    let file = image(2, 8000, b"pump");
    bench.stage(&file);
    bench.run(SerialMcu::abort).unwrap();
    bench.run(|p| p.create(transfer(file.len()))).unwrap();
    bench.run(SerialMcu::install).unwrap();
    bench.run(SerialMcu::abort).unwrap();
    assert!(bench.mcu.board.slots[1].is_empty());
    // Nothing there is no error.
    bench.run(SerialMcu::abort).unwrap();
    bench.arm(&file);
    assert_eq!(
        bench.run(SerialMcu::abort).unwrap_err().main,
        code::ABORT_FAILED
    );
    assert_eq!(bench.mcu.board.slots[1], file);
}

#[test]
fn an_image_that_runs_already_is_neither_sent_nor_marked() {
    let mut bench = bench();
    let file = bench.mcu.board.slots[0].clone();
    bench.arm(&file);
    assert!(!bench.mcu.board.pending);
    assert_eq!(bench.mcu.board.written, 0);
    bench.run(SerialMcu::reset).unwrap();
    assert_eq!(bench.mcu.board.boots, 0);
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let rows = [
        ("framing", "cobs"),
        ("window", "0"),
        ("window", "9"),
        ("soak_ms", "3600001"),
        ("test_timeout_ms", "3600001"),
        ("silence_ms", "480001"),
        ("test_command", "1:0"),
        ("parity", "mark"),
        ("allow_no_revert", "yes"),
        ("colour", "red"),
    ];
    for (key, value) in rows {
        let fake = Fake::new(Vec::new());
        let failure = SerialMcu::open(fake, vec![setting(key, value)], None).unwrap_err();
        assert_eq!(failure.main, code::BAD_ARGUMENT, "{key}");
    }
    let fake = Fake::new(Vec::new());
    let blob = Blob {
        schema: 9,
        bytes: Vec::new(),
    };
    let failure = SerialMcu::open(fake, Vec::new(), Some(blob)).unwrap_err();
    assert_eq!(failure.main, code::SCHEMA);
}
