//! From upload to commit and back, as a client sees it; the refusals of the marks; the states without an application.

use smp_core::code::{image_rc, rc};

use super::*;
use crate::boot::BootMode;

#[test]
fn an_update_is_listed_as_real_servers_list_it() {
    let mut desk = Desk::new(config());
    assert_eq!(desk.list(), "0:1.0.0 AC");
    desk.upload(&sample::image(NEW, 4000));
    assert_eq!(desk.list(), "0:1.0.0 AC | 1:2.0.0 ");
    let hash = desk.hash_of(1);
    desk.mark(&hash, false);
    assert_eq!(desk.list(), "0:1.0.0 AC | 1:2.0.0 P");
    desk.reset();
    assert_eq!(desk.list(), "0:2.0.0 A | 1:1.0.0 C");
    desk.confirm();
    assert_eq!(desk.list(), "0:2.0.0 AC | 1:1.0.0 ");
    desk.reset();
    assert_eq!(desk.list(), "0:2.0.0 AC | 1:1.0.0 ");
}

#[test]
fn an_update_that_nobody_confirms_goes_back_at_the_next_reset() {
    let mut desk = Desk::new(config());
    desk.try_image(&sample::image(NEW, 4000));
    desk.reset();
    assert_eq!(desk.list(), "0:1.0.0 AC | 1:2.0.0 ");
}

#[test]
fn a_permanent_mark_is_listed_as_such() {
    let mut desk = Desk::new(config());
    desk.upload(&sample::image(NEW, 4000));
    let hash = desk.hash_of(1);
    desk.mark(&hash, true);
    assert_eq!(desk.list(), "0:1.0.0 AC | 1:2.0.0 P!");
    desk.reset();
    assert_eq!(desk.list(), "0:2.0.0 AC | 1:1.0.0 ");
}

#[test]
fn a_power_cut_on_trial_goes_back() {
    let mut desk = Desk::new(config());
    desk.try_image(&sample::image(NEW, 4000));
    desk.mcu.power_cut(desk.now_ns);
    desk.wait_up();
    assert_eq!(desk.list(), "0:1.0.0 AC | 1:2.0.0 ");
}

#[test]
fn while_a_test_is_pending_uploads_erases_and_confirmations_are_refused() {
    for (profile, name) in [
        (Profile::zephyr_3_4(), "3.4"),
        (Profile::zephyr_4_4(), "4.4"),
    ] {
        let mut desk = Desk::new(config_of(profile));
        let file = sample::image(NEW, 4000);
        desk.upload(&file);
        let hash = desk.hash_of(1);
        desk.mark(&hash, false);
        let codes = [
            (
                refusal_of(desk.upload_piece(&file, 0, 256)),
                image_rc::NO_FREE_SLOT,
            ),
            (desk.refusal(&Request::Erase(None)), image_rc::NO_FREE_SLOT),
            (refusal_of(desk.confirm()), image_rc::ALREADY_PENDING),
        ];
        for (refusal, code) in codes {
            assert_eq!(refusal, Refusal::image(code), "{name}");
        }
        // Idempotent, and no way to make it permanent.
        desk.mark(&hash, false);
        desk.mark(&hash, true);
        assert_eq!(desk.list(), "0:1.0.0 AC | 1:2.0.0 P");
    }
}

#[test]
fn on_trial_uploads_and_erases_are_refused() {
    let mut desk = Desk::new(config());
    let file = sample::image(NEW, 4000);
    desk.try_image(&file);
    let refused = Refusal::image(image_rc::NO_FREE_SLOT);
    assert_eq!(refusal_of(desk.upload_piece(&file, 0, 256)), refused);
    assert_eq!(desk.refusal(&Request::Erase(None)), refused);
    assert_eq!(desk.refusal(&Request::Erase(Some(0))), refused);
}

#[test]
fn marks_of_no_image_are_refused() {
    let mut desk = Desk::new(config());
    let neither = Request::State {
        hash: None,
        confirm: false,
    };
    assert_eq!(
        desk.refusal(&neither),
        Refusal::image(image_rc::INVALID_HASH)
    );
    let unknown = desk.mark(&[7; 32], false);
    assert_eq!(
        refusal_of(unknown),
        Refusal::image(image_rc::HASH_NOT_FOUND)
    );
    // In version 1 the code of the group is lost.
    desk.version = Version::V1;
    let unknown = desk.mark(&[7; 32], false);
    assert_eq!(refusal_of(unknown), Refusal::generic(rc::UNKNOWN));
}

#[test]
fn a_test_of_what_runs_confirms_it_on_old_servers_and_is_refused_by_new_ones() {
    for (profile, refused) in [
        (Profile::zephyr_3_4(), false),
        (Profile::zephyr_4_4(), true),
    ] {
        let mut desk = Desk::new(config_of(profile));
        desk.try_image(&sample::image(NEW, 4000));
        let hash = desk.hash_of(0);
        let answer = desk.mark(&hash, false);
        assert_eq!(matches!(answer, Reply::Refused(_)), refused);
        let list = desk.list();
        assert_eq!(list == "0:2.0.0 AC | 1:1.0.0 ", !refused, "{list}");
    }
}

#[test]
fn the_same_image_in_both_slots_never_swaps() {
    let mut desk = Desk::new(config_of(Profile::zephyr_3_4()));
    desk.upload(&sample::image(OLD, 3000));
    let hash = desk.hash_of(1);
    desk.mark(&hash, false);
    assert_eq!(desk.list(), "0:1.0.0 AC | 1:1.0.0 ");
}

#[test]
fn a_damaged_image_is_listed_and_marked_and_refused_at_the_start() {
    let mut desk = Desk::new(config());
    let mut file = sample::image(NEW, 4000);
    file[2000] ^= 1;
    desk.upload(&file);
    let hash = desk.hash_of(1);
    desk.mark(&hash, false);
    assert_eq!(desk.list(), "0:1.0.0 AC | 1:2.0.0 P");
    desk.reset();
    assert_eq!(desk.list(), "0:1.0.0 AC");
    assert_eq!(desk.mcu.view().stats.actions, [BootAction::Refused]);
}

#[test]
fn the_old_server_answers_for_a_while_after_the_reset_was_answered() {
    let mut desk = Desk::new(config());
    desk.upload(&sample::image(NEW, 4000));
    let hash = desk.hash_of(1);
    desk.mark(&hash, false);
    assert_eq!(desk.ask(&RESET), Reply::Nothing);
    desk.pass(200 * MS);
    assert_eq!(desk.list(), "0:1.0.0 AC | 1:2.0.0 P");
    desk.pass(60 * MS);
    assert_eq!(desk.mcu.state(), State::Starting);
    assert_eq!(desk.try_ask(&Request::Images), None);
    desk.wait_up();
    assert_eq!(desk.list(), "0:2.0.0 A | 1:1.0.0 C");
}

#[test]
fn a_swap_takes_the_time_of_its_flash() {
    let mut config = config();
    config.timing = Timing::slow_flash(1_000_000);
    let mut desk = Desk::new(config);
    desk.upload(&sample::image(NEW, 4000));
    let hash = desk.hash_of(1);
    desk.mark(&hash, false);
    desk.ask(&RESET);
    desk.pass(300 * MS);
    let begin_ns = desk.now_ns;
    desk.wait_up();
    // Four sectors, three erases each, and both trailers: 14 of 85 ms at least.
    let took_ms = (desk.now_ns - begin_ns) / MS;
    assert!((1_190..1_600).contains(&took_ms), "{took_ms}");
    assert_eq!(desk.list(), "0:2.0.0 A | 1:1.0.0 C");
}

#[test]
fn an_image_that_never_answers_is_left_by_a_hardware_reset() {
    let mut desk = Desk::new(config());
    desk.try_image(&sample::with_body(NEW, b"mcu-sim:silent and then nothing"));
    assert_eq!(desk.mcu.state(), State::Silent);
    assert_eq!(desk.try_ask(&Request::Images), None);
    desk.mcu.hardware_reset(desk.now_ns);
    desk.wait_up();
    assert_eq!(desk.list(), "0:1.0.0 AC | 1:2.0.0 ");
}

#[test]
fn an_image_that_crashes_goes_back_by_itself() {
    let mut desk = Desk::new(config());
    desk.try_image(&sample::with_body(NEW, b"mcu-sim:crash"));
    desk.pass(2_000 * MS);
    desk.wait_up();
    assert_eq!(desk.list(), "0:1.0.0 AC | 1:2.0.0 ");
}

#[test]
fn an_image_that_confirms_itself_stays() {
    let mut config = config();
    config.behaviours = vec![(NEW.to_owned(), Behaviour::ConfirmsItself)];
    let mut desk = Desk::new(config);
    desk.try_image(&sample::image(NEW, 4000));
    assert_eq!(desk.list(), "0:2.0.0 AC | 1:1.0.0 ");
}

#[test]
fn bootloaders_without_a_way_back_are_what_they_say() {
    for mode in [
        BootMode::DirectXip,
        BootMode::RamLoad,
        BootMode::SingleApplication,
    ] {
        let mut desk = Desk::new(Config { mode, ..config() });
        let hash = desk.hash_of(0);
        let answer = desk.mark(&hash, true);
        assert_eq!(
            refusal_of(answer),
            Refusal::generic(rc::UNSUPPORTED),
            "{mode:?}"
        );
    }
    let mut desk = Desk::new(Config {
        mode: BootMode::OverwriteOnly,
        ..config()
    });
    desk.try_image(&sample::image(NEW, 4000));
    assert_eq!(desk.list(), "0:2.0.0 AC");
    let mode = Request::Bootloader(Some("mode"));
    let told = Reply::BootloaderMode {
        mode: 2,
        no_downgrade: false,
    };
    assert_eq!(desk.ask(&mode), told);
}

#[test]
fn the_recovery_answers_where_there_is_nothing_to_start() {
    let mut config = config();
    config.factory = Factory::default();
    let mut desk = Desk::new(config.clone());
    assert_eq!(desk.mcu.state(), State::Stuck);
    assert_eq!(desk.try_ask(&Request::Images), None);

    config.recovery = Some(Profile::recovery_3_4());
    let mut desk = Desk::new(config);
    assert_eq!(desk.mcu.state(), State::Recovering);
    // Version 2 is not heard.
    assert_eq!(desk.try_ask(&Request::Images), None);
    desk.version = Version::V1;
    let images = desk.images();
    assert!(images.iter().all(ImageState::is_empty_slot), "{images:?}");
    for request in [
        Request::Echo("x"),
        Request::Parameters,
        Request::Erase(None),
    ] {
        assert_eq!(desk.refusal(&request), Refusal::generic(rc::UNSUPPORTED));
    }
    let marked = refusal_of(desk.mark(&[1; 32], false));
    assert_eq!(marked, Refusal::generic(rc::UNSUPPORTED), "it has no marks");
    assert_eq!(desk.ask(&Request::ConsoleEcho(false)), Reply::Nothing);
    // A build number is glued to the version.
    desk.upload(&sample::image("1.2.3+4", 500));
    assert_eq!(desk.images()[0].version, "1.2.34");
    // It writes the primary slot, and the application is there after a reset.
    desk.upload(&sample::image(NEW, 4000));
    desk.reset();
    desk.version = Version::V2;
    assert_eq!(desk.list(), "0:2.0.0 AC");
}

#[test]
fn a_reset_into_the_recovery_gets_there_once() {
    let mut config = config();
    config.recovery = Some(Profile::recovery_4_4());
    let mut desk = Desk::new(config);
    desk.ask(&Request::Reset {
        force: false,
        boot_mode: Some(1),
    });
    desk.pass(300 * MS);
    desk.wait_up();
    assert_eq!(desk.mcu.state(), State::Recovering);
    let sizes = desk.ask(&Request::Parameters);
    assert!(
        matches!(sizes, Reply::Parameters(sizes) if sizes.buf_size == 1024 && sizes.buf_count == 1)
    );
    assert_eq!(desk.list(), "0:1.0.0 ");
    desk.reset();
    assert_eq!(desk.mcu.state(), State::Serving);
}

#[test]
fn a_second_image_has_slots_and_marks_of_its_own() {
    let mut config = config();
    config.geometry = Geometry::new(1024, 16 * 1024, 2).unwrap();
    config.factory.primary.push(sample::image("5.0.0", 2000));
    // Three images with all their flags do not fit 384 bytes: that server says so.
    assert_eq!(Desk::new(config.clone()).images().len(), 2);
    config.server.buf_size = 1024;
    let mut desk = Desk::new(config);
    let file = sample::image("6.0.0", 200);
    let answer = desk.ask(&Request::Upload(Upload {
        offset: Some(0),
        data: Some(&file),
        size: Some(file.len() as u64),
        image: Some(1),
        ..Upload::default()
    }));
    let whole = Reply::Upload {
        offset: file.len() as u64,
        matches: None,
    };
    assert_eq!(answer, whole);
    let images = desk.images();
    let new = images
        .iter()
        .find(|image| image.version == "6.0.0")
        .unwrap();
    assert_eq!((new.image, new.slot), (1, 1));
    desk.mark(&new.hash, false);
    desk.reset();
    let view = desk.mcu.view();
    assert_eq!(view.slot(1, Slot::Primary).unwrap().version, "6.0.0");
    assert_eq!(view.slot(0, Slot::Primary).unwrap().version, OLD);
}

fn refusal_of(reply: Reply) -> Refusal {
    match reply {
        Reply::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}
