//! Everything that goes wrong on purpose, each seen from the client; and power cuts at every instant of an update.

use smp_core::code::{image_rc, rc};

use super::*;
use crate::random::Random;

fn with_rules(rules: &[&str]) -> Desk {
    let mut config = config();
    config.rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    Desk::new(config)
}

#[test]
fn lost_requests_are_not_done_and_lost_answers_are() {
    let file = sample::image(NEW, 1000);
    for (rule, written) in [
        ("lose-request@upload-first", 0),
        ("lose-response@upload-first", 256),
    ] {
        let mut desk = with_rules(&[rule]);
        desk.send(&Request::Upload(Upload {
            offset: Some(0),
            data: Some(&file[..256]),
            size: Some(file.len() as u64),
            ..Upload::default()
        }));
        assert_eq!(desk.next_packet(PATIENCE_NS), None, "{rule}");
        assert_eq!(desk.mcu.view().stats.uploaded_bytes, written, "{rule}");
    }
}

#[test]
fn a_damaged_answer_is_no_answer() {
    let mut desk = with_rules(&["garble-response@echo"]);
    assert_eq!(desk.try_ask(&Request::Echo("x")), None);
    assert_eq!(desk.ask(&Request::Echo("x")), Reply::Echo("x".to_owned()));
}

#[test]
fn an_answer_comes_twice_or_late() {
    let mut config = config();
    config.timing = Timing::line(1_000_000);
    config.rules = vec![
        "repeat-response@echo".parse().unwrap(),
        "delay-response=2000@list".parse().unwrap(),
    ];
    let mut desk = Desk::new(config);
    desk.pass(100 * MS);
    desk.send(&Request::Echo("2"));
    let first = desk.next_packet(PATIENCE_NS);
    assert!(first.is_some());
    assert_eq!(desk.next_packet(PATIENCE_NS), first);
    desk.send(&Request::Images);
    assert_eq!(desk.next_packet(1000 * MS), None);
    desk.send(&Request::Echo("overtakes"));
    let overtakes = desk.next_packet(500 * MS).unwrap();
    assert_eq!(Header::parse(&overtakes).unwrap().group, 0);
    let late = desk.next_packet(PATIENCE_NS).unwrap();
    assert_eq!(Header::parse(&late).unwrap().group, 1);
}

#[test]
fn a_busy_server_and_any_other_code_are_answered_and_nothing_is_done() {
    let mut desk = with_rules(&["busy@reset", "answer=5@erase"]);
    assert_eq!(desk.refusal(&RESET), Refusal::generic(rc::BUSY));
    desk.pass(1000 * MS);
    assert_eq!(desk.mcu.state(), State::Serving);
    assert_eq!(
        desk.refusal(&Request::Erase(None)),
        Refusal::generic(rc::NO_ENTRY)
    );
    desk.reset();
}

#[test]
fn a_flash_that_fails_ends_the_upload() {
    for (rule, code) in [
        ("write-error@upload*2", image_rc::FLASH_WRITE_FAILED),
        ("erase-error@upload", image_rc::FLASH_ERASE_FAILED),
    ] {
        let mut desk = with_rules(&[rule]);
        let file = sample::image(NEW, 1000);
        let mut answer = desk.upload_piece(&file, 0, 256);
        if answer
            == (Reply::Upload {
                offset: 256,
                matches: None,
            })
        {
            answer = desk.upload_piece(&file, 256, 256);
        }
        assert_eq!(answer, Reply::Refused(Refusal::image(code)), "{rule}");
        // Gone, and a new one works.
        let gone = Reply::Upload {
            offset: 0,
            matches: None,
        };
        assert_eq!(desk.upload_piece(&file, 256, 256), gone);
        desk.upload(&file);
        assert_eq!(desk.list(), "0:1.0.0 AC | 1:2.0.0 ");
    }
}

#[test]
fn the_last_piece_can_be_answered_with_no_match() {
    let mut desk = with_rules(&["no-match@upload-last"]);
    assert_eq!(desk.upload(&sample::image(NEW, 1000)), Some(false));
}

#[test]
fn the_list_can_give_another_hash_of_what_does_not_run() {
    let mut desk = with_rules(&["other-hash@list*2"]);
    let file = sample::image(NEW, 1000);
    desk.upload(&file);
    let told: Vec<_> = (0..3).map(|_| desk.hash_of(1)).collect();
    assert_eq!(told[0], told[2]);
    assert_ne!(told[0], told[1]);
}

#[test]
fn silence_lasts_until_the_power_is_cut() {
    let mut desk = with_rules(&["silence@state-write"]);
    let hash = desk.hash_of(0);
    assert_eq!(
        desk.try_ask(&Request::State {
            hash: Some(&hash),
            confirm: true
        }),
        None
    );
    desk.pass(60_000 * MS);
    assert_eq!(desk.try_ask(&Request::Images), None);
    desk.mcu.power_cut(desk.now_ns);
    desk.wait_up();
    assert_eq!(desk.list(), "0:1.0.0 AC");
}

#[test]
fn a_pulled_plug_loses_what_is_on_the_line_and_the_mcu_lives_on() {
    let mut desk = with_rules(&["unplug=5000@upload*2"]);
    let file = sample::image(NEW, 1000);
    desk.upload_piece(&file, 0, 256);
    assert_eq!(
        desk.try_ask(&Request::Echo("x")),
        Some(Reply::Echo("x".to_owned()))
    );
    desk.send(&Request::Upload(Upload {
        offset: Some(256),
        data: Some(&file[256..512]),
        ..Upload::default()
    }));
    assert_eq!(desk.next_packet(PATIENCE_NS), None);
    assert!(!desk.mcu.is_plugged());
    desk.pass(5_000 * MS);
    assert!(desk.mcu.is_plugged());
    let resumed = desk.upload_piece(&file, 0, 256);
    assert_eq!(
        resumed,
        Reply::Upload {
            offset: 256,
            matches: None
        }
    );
}

#[test]
fn log_lines_between_the_lines_of_an_answer_do_no_harm() {
    let mut config = config();
    config.chance.log_line = 1000;
    let mut desk = Desk::new(config);
    assert_eq!(desk.list(), "0:1.0.0 AC");
    assert!(String::from_utf8_lossy(&desk.seen).contains("still here"));
}

#[test]
fn chance_strikes_as_often_as_asked_and_repeats_itself() {
    let run = |seed| {
        let mut config = config();
        config.chance = Chance::losing(100);
        config.seed = seed;
        let mut desk = Desk::new(config);
        (0..400)
            .map(|_| desk.try_ask(&Request::Echo("c")).is_some())
            .collect::<Vec<_>>()
    };
    let answered = run(7);
    let lost = answered.iter().filter(|answered| !**answered).count();
    assert!((20..70).contains(&lost), "{lost} of 400");
    assert_eq!(run(7), answered);
    assert_ne!(run(8), answered);
}

#[test]
fn a_cut_in_a_swap_is_gone_on_with() {
    for count in [1, 4, 9, 17, 26] {
        let mut config = config();
        config.timing = Timing::slow_flash(1_000_000);
        let mut desk = Desk::new(config);
        desk.upload(&sample::image(NEW, 4000));
        let hash = desk.hash_of(1);
        desk.mark(&hash, false);
        desk.mcu
            .add_rule(Rule::once(Effect::CutAtOperation(count), Trigger::Boot));
        desk.reset();
        let list = desk.list();
        assert_eq!(list, "0:2.0.0 A | 1:1.0.0 C", "{count}");
        assert_eq!(desk.mcu.view().stats.cuts, 1, "{count}");
    }
}

/// Reference section 5, anchor 4, for the whole MCU: whenever the power fails in an update, an image runs afterwards, it is
/// the old one or the new one, whole, and without a confirmation the old one in the end.
#[test]
fn power_cuts_at_random_instants_of_an_update_never_brick() {
    let mut random = Random::new(11);
    let (old, new) = (sample::image(OLD, 3000), sample::image(NEW, 4000));
    let mut cut_in_swap = 0;
    for round in 0..60 {
        let mut config = config();
        config.timing = Timing::slow_flash(1_000_000);
        config.seed = round;
        let mut desk = Desk::new(config);
        desk.upload(&new);
        let hash = desk.hash_of(1);
        desk.mark(&hash, false);
        desk.send(&RESET);
        for _ in 0..=random.below(3) {
            desk.pass(random.below(3_500) * MS);
            cut_in_swap += u32::from(desk.mcu.state() == State::Starting);
            desk.mcu.power_cut(desk.now_ns);
        }
        desk.pass(20 * MS);
        desk.wait_up();
        assert_eq!(desk.mcu.state(), State::Serving, "round {round}");
        for _ in 0..2 {
            desk.mcu.power_cut(desk.now_ns);
            desk.pass(20 * MS);
            desk.wait_up();
        }
        for slot in [Slot::Primary, Slot::Secondary] {
            assert!(desk.mcu.is_whole(0, slot), "round {round}");
        }
        let held = |slot, file: &[u8]| desk.mcu.slot_bytes(0, slot).starts_with(file);
        assert!(
            held(Slot::Primary, &old) && held(Slot::Secondary, &new),
            "round {round}"
        );
    }
    assert!(cut_in_swap > 30, "{cut_in_swap}: the cuts miss the swap");
}

#[test]
fn a_flash_file_holds_at_any_time_what_the_flash_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.timing = Timing::slow_flash(1_000_000);
    config.flash_file = Some(folder.path().join("flash.bin"));
    let mut desk = Desk::new(config.clone());
    desk.upload(&sample::image(NEW, 4000));
    let hash = desk.hash_of(1);
    desk.mark(&hash, false);
    desk.ask(&RESET);
    // In the middle of the swap the process is gone, with what it held in memory.
    desk.pass(1_000 * MS);
    assert_eq!(desk.mcu.state(), State::Starting);
    let Desk { mcu, .. } = desk;
    drop(mcu);
    let mut desk = Desk::new(config);
    assert_eq!(desk.list(), "0:2.0.0 A | 1:1.0.0 C");
    assert_eq!(desk.mcu.view().stats.actions, [BootAction::Resumed]);
}
