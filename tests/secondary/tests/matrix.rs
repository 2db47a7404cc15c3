//! What may go wrong between a gateway and a secondary MCU, row by row, with its end. The rows have the order of the
//! failure matrix in the plugin's README.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use host_mcu_sim::fault::Chance;
use host_mcu_sim::{
    Behaviour, BootMode, Config, Framing, MS, Profile, Slot, State, Timing, sample,
};
use pal_sdk::{Plugin, state};
use pal_serial_mcu::sub;
use secondary::{BODY_BYTES, Bench, End, config};
use smp_core::header::Version;
use smp_core::request::Request;

/// `main` codes of failures (`wit/pal/types.wit`).
const UNREACHABLE: u8 = 0xd4;
const NO_REVERT: u8 = 0xdd;
const BAD_STATE: u8 = 0xe8;
const BLOCK_FAILED: u8 = 0xed;

fn bench(config: Config) -> Bench {
    Bench::new(config)
}

fn bench_with(config: Config, settings: &[(&str, &str)]) -> Bench {
    Bench::with(config, settings)
}

/// An update with these rules ends well.
fn check_survives(rules: &[&str]) -> Bench {
    let mut bench = rules.iter().fold(bench(config()), |b, rule| b.rule(rule));
    assert_eq!(bench.update(), End::Committed, "{rules:?}");
    bench
}

#[test]
fn an_undisturbed_update_is_committed_with_one_swap() {
    let bench = check_survives(&[]);
    assert_eq!(bench.mcu.view().stats.starts, 2);
    let size = bench.file.len() as u64;
    assert_eq!(bench.mcu.view().stats.uploaded_bytes, size, "sent once");
}

#[test]
fn a_lost_request_or_response_in_mid_upload_is_asked_for_again() {
    for rule in [
        "lose-request@upload*20",
        "lose-response@upload*20",
        "garble-response@upload*20",
        "repeat-response@upload*20",
        "delay-response=1500@upload*20",
        "lose-request@upload-first",
        "lose-response@upload-first",
    ] {
        let bench = check_survives(&[rule]);
        let size = bench.file.len() as u64;
        let sent = bench.mcu.view().stats.uploaded_bytes;
        assert!(sent < size + 1000, "{rule}: {sent} of {size}");
    }
}

#[test]
fn a_lost_final_response_is_found_in_the_list_and_nothing_is_sent_twice() {
    for profile in [Profile::zephyr_3_4(), Profile::zephyr_4_4()] {
        let mut config = config();
        config.server = profile;
        let mut bench = bench(config).rule("lose-response@upload-last");
        assert_eq!(bench.update(), End::Committed);
        let size = bench.file.len() as u64;
        assert_eq!(bench.mcu.view().stats.uploaded_bytes, size);
    }
}

#[test]
fn an_mcu_that_restarts_in_mid_upload_gets_the_file_again_three_times() {
    check_survives(&["power-cut@upload*30"]);
    check_survives(&["power-cut@upload*30", "power-cut@upload*80"]);
    let mut bench = bench(config()).rule("power-cut@upload*all");
    let End::Failed("install", BLOCK_FAILED | UNREACHABLE, _) = bench.update() else {
        panic!("an MCU that restarts at every request cannot be updated");
    };
    assert_eq!(bench.runs(), ("1.0.0".to_owned(), true));
}

/// Runs an install until so many bytes have been written, and kills the host there.
fn kill_in_push(bench: &mut Bench, bytes: u64) {
    let transfer = bench.transfer();
    bench.duty("create", |p| p.create(transfer)).unwrap();
    bench.stage_file();
    let end = bench.drive(
        |p| p.install(),
        |bench| bench.mcu.view().stats.uploaded_bytes >= bytes,
    );
    assert!(matches!(end, Err(None)), "it ended: {end:?}");
}

#[test]
fn a_host_killed_in_mid_push_repeats_a_chunk_at_most_where_the_mcu_remembers() {
    let mut bench = bench(config());
    kill_in_push(&mut bench, 15_000);
    bench.restart_host(None);
    let end = bench
        .duty("install", |p| p.install())
        .and_then(|_| bench.start_new())
        .and_then(|()| bench.finish());
    assert_eq!(bench.end(end), End::Committed);
    let size = bench.file.len() as u64;
    let sent = bench.mcu.view().stats.uploaded_bytes;
    assert!(sent <= size + 384, "{sent} of {size}");
}

#[test]
fn host_and_mcu_that_both_restart_in_mid_push_begin_anew() {
    let mut bench = bench(config());
    kill_in_push(&mut bench, 15_000);
    bench.mcu.power_cut(bench.now_ns);
    bench.restart_host(None);
    let end = bench
        .duty("install", |p| p.install())
        .and_then(|_| bench.start_new())
        .and_then(|()| bench.finish());
    assert_eq!(bench.end(end), End::Committed);
}

/// Somebody orders a restart into the recovery.
fn restart_into_recovery(bench: &mut Bench) {
    let reset = Request::Reset {
        force: false,
        boot_mode: Some(1),
    };
    let wire = Framing::Console.encode(&reset.encode(Version::V2, 200));
    bench.mcu.receive(bench.now_ns, &wire);
}

#[test]
fn an_upload_does_not_go_on_into_the_recovery() {
    // Before the first chunk, and in the midst of them.
    for (bytes, says_it_runs) in [(0, false), (0, true), (15_000, false), (15_000, true)] {
        let mut config = config();
        // Some are built with the echo, and with marks in the list.
        config.recovery = Some(Profile {
            has_echo: says_it_runs,
            recovery_lists_active: says_it_runs,
            ..Profile::recovery_4_4()
        });
        let mut bench = bench(config);
        let transfer = bench.transfer();
        bench.duty("create", |p| p.create(transfer)).unwrap();
        bench.stage_file();
        let before = bench.mcu.slot_bytes(0, Slot::Primary).to_vec();
        let mut is_ordered = false;
        let end = bench.drive(
            |p| p.install(),
            |bench| {
                let is_due = bench.mcu.view().stats.uploaded_bytes >= bytes;
                if is_due && !std::mem::replace(&mut is_ordered, true) {
                    restart_into_recovery(bench);
                }
                false
            },
        );
        assert_eq!(bench.mcu.state(), State::Recovering);
        assert!(bench.mcu.slot_bytes(0, Slot::Primary) == before, "{bytes}");
        let failure = end.unwrap_err().unwrap();
        let told = (failure.main, failure.sub);
        let expected = if says_it_runs {
            (NO_REVERT, 0)
        } else {
            (BAD_STATE, sub::NOTHING_ACTIVE)
        };
        assert_eq!(told, expected, "{failure}");
        // What the host does then brings one back that does not say that all is well.
        bench.go_back();
        let is_back = bench.mcu.state() == State::Serving;
        assert_eq!(is_back, !says_it_runs);
    }
}

#[test]
fn a_host_killed_between_test_and_reset_finds_the_mark_and_goes_on() {
    let mut bench = bench(config());
    bench.send().unwrap();
    bench.duty("activate", |p| p.activate([0; 32])).unwrap();
    bench.restart_host(None);
    assert_eq!(bench.state().code, state::ARMED);
    let end = bench
        .duty("reset", |p| p.reset())
        .and_then(|_| bench.finish());
    assert_eq!(bench.end(end), End::Committed);
    assert_eq!(bench.mcu.view().stats.starts, 2);
}

#[test]
fn a_host_killed_after_the_reset_asks_what_runs() {
    let mut bench = bench(config());
    bench.send().unwrap();
    bench.duty("activate", |p| p.activate([0; 32])).unwrap();
    let starts = bench.mcu.view().stats.starts;
    let end = bench.drive(
        |p| p.reset(),
        |bench| bench.mcu.view().stats.starts > starts,
    );
    assert!(matches!(end, Err(None)), "{end:?}");
    bench.restart_host(None);
    // The host begins the reset again: nothing is reset that has just come up.
    bench.duty("reset", |p| p.reset()).unwrap();
    let end = bench.finish();
    assert_eq!(bench.end(end), End::Committed);
    assert_eq!(bench.mcu.view().stats.starts, starts + 1);
}

#[test]
fn a_lost_answer_to_the_reset_is_no_error() {
    check_survives(&["lose-response@reset"]);
}

#[test]
fn a_reset_that_is_refused_is_forced() {
    check_survives(&["busy@reset"]);
}

#[test]
fn a_power_cut_in_the_swap_makes_it_longer_and_nothing_else() {
    for operation in [1, 5, 20, 50] {
        let mut config = config();
        config.timing.flash = Timing::slow_flash(115_200).flash;
        let mut bench = bench(config);
        bench.send().unwrap();
        bench.duty("activate", |p| p.activate([0; 32])).unwrap();
        let rule = format!("cut-at-operation={operation}@boot");
        let mut bench = bench.rule(&rule);
        let end = bench
            .duty("reset", |p| p.reset())
            .and_then(|_| bench.finish());
        let end = bench.end(end);
        assert!(
            matches!(end, End::Committed | End::WentBack),
            "{operation}: {end:?}"
        );
        assert!(bench.mcu.view().stats.starts > 2, "it was cut");
    }
}

#[test]
fn a_power_cut_in_the_test_reverts_and_is_told() {
    let mut bench = bench(config());
    bench.send().unwrap();
    bench.start_new().unwrap();
    assert_eq!(bench.state().code, state::PENDING_COMMIT);
    bench.mcu.power_cut(bench.now_ns);
    bench.now_ns += 30_000 * MS;
    bench.exchange();
    let told = bench.state();
    assert_eq!((told.code, told.runs_new), (state::INVALID, Some(false)));
    assert_eq!(bench.runs(), ("1.0.0".to_owned(), true));
    let End::Failed(_, BAD_STATE, sub::NOT_RUNNING) = bench
        .duty("self-test", |p| p.self_test())
        .expect_err("it does not run")
    else {
        panic!("another reason");
    };
}

#[test]
fn a_new_image_whose_server_is_dead_is_reset_by_the_line_and_goes_back() {
    let mut config = config();
    config.behaviours = vec![("2.0.0".to_owned(), Behaviour::Silent)];
    let mut bench = bench(config);
    let end = bench.update();
    assert!(
        matches!(end, End::Failed("reset", UNREACHABLE, 0) | End::WentBack),
        "{end:?}"
    );
    assert_eq!(bench.runs(), ("1.0.0".to_owned(), true));
}

#[test]
fn a_dead_server_without_a_reset_input_is_said_to_be_unreachable() {
    let mut config = config();
    config.behaviours = vec![("2.0.0".to_owned(), Behaviour::Silent)];
    let mut bench = bench(config);
    bench.wired = false;
    assert_eq!(bench.update(), End::Failed("reset", UNREACHABLE, 0));
    assert_eq!(bench.state().code, state::UNKNOWN);
}

#[test]
fn a_new_image_that_crashes_is_reverted_by_its_watchdog() {
    let mut config = config();
    let after_ns = 50 * MS;
    config.behaviours = vec![("2.0.0".to_owned(), Behaviour::Crashes { after_ns })];
    let mut bench = bench(config);
    let end = bench.update();
    assert_eq!(end, End::WentBack);
    assert_eq!(bench.runs(), ("1.0.0".to_owned(), true));
}

#[test]
fn an_image_that_crashes_later_fails_its_test() {
    let mut config = config();
    let after_ns = 3_000 * MS;
    config.behaviours = vec![("2.0.0".to_owned(), Behaviour::Crashes { after_ns })];
    let mut bench = bench_with(config, &[("soak_ms", "10000")]);
    let end = bench.update();
    assert!(matches!(end, End::Failed("self-test", ..)), "{end:?}");
    assert_eq!(bench.runs(), ("1.0.0".to_owned(), true));
}

#[test]
fn a_wrong_signature_is_refused_by_the_bootloader_and_told() {
    let mut config = config();
    let ours = sample::Signer::of_seed(1);
    config.key = Some(ours.key());
    config.factory.primary = vec![ours.image("1.0.0", &sample::noise("1.0.0", BODY_BYTES))];
    for wrong in [
        sample::Signer::of_seed(2).image("2.0.0", &sample::noise("2.0.0", BODY_BYTES)),
        sample::image("2.0.0", BODY_BYTES),
    ] {
        let mut bench = bench(config.clone());
        bench.file = wrong;
        assert_eq!(bench.update(), End::WentBack);
        let slot = bench.mcu.view();
        assert_eq!(slot.slot(0, Slot::Secondary), None, "erased at boot");
        assert_eq!(bench.runs(), ("1.0.0".to_owned(), true));
    }
    let mut bench = bench(config);
    bench.file = ours.image("2.0.0", &sample::noise("2.0.0", BODY_BYTES));
    assert_eq!(bench.update(), End::Committed);
}

#[test]
fn a_lost_answer_to_the_confirmation_is_looked_up() {
    // The second state write is the confirmation, the first the mark.
    check_survives(&["lose-response@state-write*2"]);
    check_survives(&["lose-request@state-write*2"]);
    check_survives(&["lose-response@state-write"]);
}

#[test]
fn a_list_that_is_refused_as_too_busy_is_asked_for_again() {
    // The first one is that of `create`, the second that of `install`.
    check_survives(&["busy@list"]);
    check_survives(&["busy@list*2"]);
}

#[test]
fn a_list_that_is_refused_for_good_fails_the_reset_and_restarts_nothing() {
    let mut bench = bench(config());
    bench.send().unwrap();
    bench.start_new().unwrap();
    let starts = bench.mcu.view().stats.starts;
    let mut bench = bench.rule("answer=1@list*all");
    // As after a kill: the new image is in its test, and nobody knows.
    bench.restart_host(None);
    let end = bench.duty("reset", |p| p.reset()).unwrap_err();
    assert_eq!(end, End::Failed("reset", BAD_STATE, sub::NOTHING_ACTIVE));
    assert_eq!(bench.mcu.view().stats.starts, starts);
}

#[test]
fn a_flash_error_is_met_by_erasing_once_and_a_second_one_ends_it() {
    check_survives(&["write-error@upload*40"]);
    let mut bench = bench(config()).rule("write-error@upload*all");
    let end = bench.update();
    assert!(
        matches!(end, End::Failed("install", BLOCK_FAILED, _)),
        "{end:?}"
    );
    assert_eq!(bench.runs(), ("1.0.0".to_owned(), true));
}

#[test]
fn a_match_of_false_is_not_believed_against_the_list() {
    // The upload is named by the job, not by the file's digest: what a server says about it means nothing.
    check_survives(&["no-match@upload-last"]);
}

#[test]
fn a_bootloader_that_recovers_is_refused() {
    let mut config = config();
    config.server = Profile::recovery_4_4();
    let mut bench = bench(config);
    let end = bench.update();
    assert!(
        matches!(end, End::Failed("create", NO_REVERT | BAD_STATE, _)),
        "{end:?}"
    );
    assert_eq!(bench.runs(), ("1.0.0".to_owned(), true));
}

#[test]
fn a_bootloader_without_revert_is_refused_unless_it_is_named() {
    let mut config = config();
    config.mode = BootMode::OverwriteOnly;
    let mut refused = bench(config.clone());
    assert_eq!(refused.update(), End::Failed("create", NO_REVERT, 0));
    assert_eq!(refused.mcu.view().stats.uploaded_bytes, 0);
    let mut other = bench_with(config.clone(), &[("allow_no_revert", "direct-xip")]);
    assert_eq!(other.update(), End::Failed("create", NO_REVERT, 0));
    let mut allowed = bench_with(config, &[("allow_no_revert", "overwrite")]);
    allowed.send().unwrap();
    allowed.start_new().unwrap();
    assert_eq!(allowed.runs().0, "2.0.0");
}

#[test]
fn a_line_that_is_pulled_out_in_mid_push_is_opened_again() {
    check_survives(&["unplug=3000@upload*30"]);
    check_survives(&["unplug=500@upload*10", "unplug=2000@upload*60"]);
}

#[test]
fn a_line_that_stays_away_in_mid_push_for_less_than_silence_ms_fails_nothing() {
    for rule in [
        "unplug=30000@upload*30",
        "unplug=55000@upload*30",
        "unplug=55000@upload-first",
        "unplug=30000@upload-last",
    ] {
        let mut bench = bench_with(config(), &[("silence_ms", "60000")]).rule(rule);
        assert_eq!(bench.update(), End::Committed, "{rule}");
        let size = bench.file.len() as u64;
        let sent = bench.mcu.view().stats.uploaded_bytes;
        assert!(sent < size + 1000, "{rule}: {sent} of {size}");
    }
    // Again and again.
    let rules = [10, 20, 30, 40, 50].map(|nth| format!("unplug=30000@upload*{nth}"));
    let bench = bench_with(config(), &[("silence_ms", "60000")]);
    let mut bench = rules.iter().fold(bench, |bench, rule| bench.rule(rule));
    assert_eq!(bench.update(), End::Committed);
}

#[test]
fn a_line_that_stays_away_is_named_and_not_called_silence() {
    let mut bench = bench(config()).rule("unplug=100000@upload*30");
    let end = bench.send().unwrap_err();
    assert_eq!(end, End::Failed("install", UNREACHABLE, 1), "1 = unplugged");
}

#[test]
fn an_mcu_that_is_silent_for_good_ends_the_push() {
    let mut bench = bench(config()).rule("silence@upload*20");
    assert_eq!(bench.update(), End::Failed("install", UNREACHABLE, 0));
    // By its reset input it was brought back.
    assert_eq!(bench.runs(), ("1.0.0".to_owned(), true));
}

#[test]
fn an_image_that_confirms_itself_is_a_success() {
    let mut config = config();
    config.behaviours = vec![("2.0.0".to_owned(), Behaviour::ConfirmsItself)];
    assert_eq!(bench(config).update(), End::Committed);
}

#[test]
fn one_frame_in_a_hundred_lost_or_damaged_costs_time_only() {
    for seed in 1..=5 {
        let mut config = config();
        config.seed = seed;
        config.chance = Chance::losing(10);
        let mut bench = bench(config);
        assert_eq!(bench.update(), End::Committed, "seed {seed}");
    }
}
