//! The bootloader by what it leaves behind: every decision once, then a power cut before, within and after each of its
//! flash operations, as MCUboot's own simulator does it.

use super::*;
use crate::flash::{CutPoint, FlashTiming, Geometry, Medium};
use crate::random::Random;
use crate::sample;

const SECTOR: u32 = 512;
const OLD: &str = "1.0.0";
const NEW: &str = "2.0.0";

fn flash_with(secondary: &[u8]) -> Flash {
    let geometry = Geometry::new(SECTOR, 8 * SECTOR, 1).unwrap();
    let timing = FlashTiming {
        erase_sector_ns: 1000,
        write_byte_ns: 10,
    };
    let medium = Medium::in_memory(geometry.total_bytes());
    let mut flash = Flash::new(geometry, timing, medium, 5);
    flash.program(0, Slot::Primary, &sample::image(OLD, 900));
    flash.program(0, Slot::Secondary, secondary);
    flash
}

fn flash() -> Flash {
    flash_with(&sample::image(NEW, 1300))
}

/// Test-marked and started once.
fn on_trial() -> Flash {
    let mut flash = flash();
    mark(&mut flash, 0, Slot::Secondary, false).unwrap();
    assert_eq!(start_swap(&mut flash), BootAction::Tested);
    flash
}

fn start_swap(flash: &mut Flash) -> BootAction {
    start_in(flash, BootMode::SwapMove).1
}

fn start_in(flash: &mut Flash, mode: BootMode) -> (Option<Slot>, BootAction) {
    let started = start(flash, mode, None).unwrap();
    (started.active, started.actions[0])
}

/// Versions of both slots, with `+` for a valid and `-` for a damaged image.
fn slots(flash: &Flash) -> String {
    let one = |slot| match Image::find(flash.slot(0, slot)) {
        Some(image) if image.is_valid(None) => format!("{}+", image.version()),
        Some(image) => format!("{}-", image.version()),
        None => "none".to_owned(),
    };
    format!("{} {}", one(Slot::Primary), one(Slot::Secondary))
}

#[test]
fn without_a_mark_nothing_is_touched() {
    let mut flash = flash();
    assert_eq!(start_swap(&mut flash), BootAction::None);
    assert_eq!(flash.stats().erases, 0);
    assert_eq!(slots(&flash), "1.0.0+ 2.0.0+");
}

#[test]
fn a_test_runs_once_and_goes_back() {
    let mut flash = on_trial();
    assert_eq!(slots(&flash), "2.0.0+ 1.0.0+");
    assert_eq!(swap_type(&flash, 0), SwapType::Revert);
    assert!(!is_confirmed(&flash, 0, Slot::Primary));
    assert_eq!(start_swap(&mut flash), BootAction::Reverted);
    assert_eq!(slots(&flash), "1.0.0+ 2.0.0+");
    assert!(is_confirmed(&flash, 0, Slot::Primary));
    assert_eq!(start_swap(&mut flash), BootAction::None);
}

#[test]
fn a_rejected_image_can_be_tested_again_without_an_upload() {
    let mut flash = on_trial();
    start_swap(&mut flash);
    mark(&mut flash, 0, Slot::Secondary, false).unwrap();
    assert_eq!(start_swap(&mut flash), BootAction::Tested);
    assert_eq!(slots(&flash), "2.0.0+ 1.0.0+");
}

#[test]
fn a_confirmed_test_stays() {
    let mut flash = on_trial();
    confirm(&mut flash, 0, Slot::Primary).unwrap();
    assert_eq!(start_swap(&mut flash), BootAction::None);
    assert_eq!(slots(&flash), "2.0.0+ 1.0.0+");
}

#[test]
fn a_permanent_mark_stays_without_a_confirmation() {
    let mut flash = flash();
    mark(&mut flash, 0, Slot::Secondary, true).unwrap();
    assert_eq!(start_swap(&mut flash), BootAction::Upgraded);
    assert!(is_confirmed(&flash, 0, Slot::Primary));
    assert_eq!(start_swap(&mut flash), BootAction::None);
}

#[test]
fn a_test_mark_is_not_made_permanent_by_a_second_one() {
    let mut flash = flash();
    mark(&mut flash, 0, Slot::Secondary, false).unwrap();
    mark(&mut flash, 0, Slot::Secondary, true).unwrap();
    assert_eq!(swap_type(&flash, 0), SwapType::Test);
}

/// Reference section 1.6: going back by "test" of the old image goes forward in the end.
#[test]
fn testing_the_backup_while_on_trial_brings_the_new_image_back() {
    let mut flash = on_trial();
    mark(&mut flash, 0, Slot::Secondary, false).unwrap();
    assert_eq!(start_swap(&mut flash), BootAction::Tested);
    assert_eq!(slots(&flash), "1.0.0+ 2.0.0+");
    assert_eq!(start_swap(&mut flash), BootAction::Reverted);
    assert_eq!(slots(&flash), "2.0.0+ 1.0.0+");
    assert!(is_confirmed(&flash, 0, Slot::Primary));
}

#[test]
fn a_damaged_image_is_erased_and_the_old_one_stays() {
    let mut bytes = sample::image(NEW, 1300);
    bytes[600] ^= 1;
    let mut flash = flash_with(&bytes);
    mark(&mut flash, 0, Slot::Secondary, false).unwrap();
    assert_eq!(start_swap(&mut flash), BootAction::Refused);
    assert_eq!(slots(&flash), "1.0.0+ none");
    assert!(is_confirmed(&flash, 0, Slot::Primary));
}

#[test]
fn an_image_that_reaches_into_the_trailer_is_refused() {
    let limit = flash().geometry().image_bytes_max() as usize;
    let overhead = sample::image(NEW, 0).len();
    for (body, action) in [
        (limit - overhead, BootAction::Tested),
        (limit - overhead + 1, BootAction::Refused),
    ] {
        let mut flash = flash_with(&sample::image(NEW, body));
        mark(&mut flash, 0, Slot::Secondary, false).unwrap();
        assert_eq!(start_swap(&mut flash), action, "{body}");
    }
}

#[test]
fn a_signature_of_another_key_is_refused() {
    let (own, other) = (sample::Signer::of_seed(1), sample::Signer::of_seed(2));
    for (signer, action) in [(&own, BootAction::Tested), (&other, BootAction::Refused)] {
        let mut flash = flash_with(&signer.image(NEW, &[7; 700]));
        flash.program(0, Slot::Primary, &own.image(OLD, &[8; 700]));
        mark(&mut flash, 0, Slot::Secondary, false).unwrap();
        let started = start(&mut flash, BootMode::SwapMove, Some(&own.key())).unwrap();
        assert_eq!(started.actions, [action]);
        assert_eq!(started.active, Some(Slot::Primary));
    }
}

#[test]
fn modes_without_a_way_back_do_what_their_names_say() {
    let mut flash = flash();
    mark(&mut flash, 0, Slot::Secondary, false).unwrap();
    let upgraded = (Some(Slot::Primary), BootAction::Upgraded);
    assert_eq!(start_in(&mut flash, BootMode::OverwriteOnly), upgraded);
    assert_eq!(slots(&flash), "2.0.0+ none");
    assert!(is_confirmed(&flash, 0, Slot::Primary));

    let mut flash = self::flash();
    let highest = (Some(Slot::Secondary), BootAction::None);
    assert_eq!(start_in(&mut flash, BootMode::DirectXip), highest);
    assert_eq!(start_in(&mut flash, BootMode::RamLoad), highest);
    let first = (Some(Slot::Primary), BootAction::None);
    assert_eq!(start_in(&mut flash, BootMode::SingleApplication), first);
}

#[test]
fn in_place_with_a_way_back_an_unconfirmed_image_has_one_start() {
    let mode = BootMode::DirectXipRevert;
    let mut flash = flash();
    mark(&mut flash, 0, Slot::Secondary, false).unwrap();
    let tested = (Some(Slot::Secondary), BootAction::Tested);
    assert_eq!(start_in(&mut flash, mode), tested);
    let reverted = (Some(Slot::Primary), BootAction::Reverted);
    assert_eq!(start_in(&mut flash, mode), reverted);

    let mut flash = self::flash();
    mark(&mut flash, 0, Slot::Secondary, false).unwrap();
    start_in(&mut flash, mode);
    confirm(&mut flash, 0, Slot::Secondary).unwrap();
    let stays = (Some(Slot::Secondary), BootAction::None);
    assert_eq!(start_in(&mut flash, mode), stays);
}

/// Starts with a cut planned; whether it struck.
fn start_with_cut(flash: &mut Flash, mode: BootMode, count: u64, point: CutPoint) -> bool {
    flash.plan_cut(count, point);
    let started = start(flash, mode, None);
    let at_ns = flash.cut_at_ns();
    assert_eq!(started.is_err(), at_ns.is_some());
    flash.cut(at_ns.unwrap_or_else(|| flash.free_ns()));
    at_ns.is_some()
}

/// Cuts one start at each of its operations, in each of three ways; how many cuts there were. Then it starts until nothing
/// changes and must end with `expected`.
fn sweep(make: impl Fn() -> Flash, mode: BootMode, expected: &str) -> u64 {
    let mut cuts = 0;
    for point in [CutPoint::Before, CutPoint::Within, CutPoint::After] {
        for count in 1.. {
            let mut flash = make();
            if !start_with_cut(&mut flash, mode, count, point) {
                assert!(count > 20, "a sweep that sees nothing");
                break;
            }
            cuts += 1;
            settle(&mut flash, mode, expected, &format!("{point:?} {count}"));
        }
    }
    cuts
}

fn settle(flash: &mut Flash, mode: BootMode, expected: &str, what: &str) {
    for _ in 0..3 {
        let (active, _) = start_in(flash, mode);
        assert_eq!(active, Some(Slot::Primary), "{what}: bricked");
        assert!(!slots(flash).contains('-'), "{what}: {}", slots(flash));
    }
    assert_eq!(slots(flash), expected, "{what}");
    assert!(is_confirmed(flash, 0, Slot::Primary), "{what}");
    assert_eq!(start_in(flash, mode).1, BootAction::None, "{what}");
}

#[test]
fn a_cut_at_any_operation_of_a_test_ends_with_the_old_image() {
    let make = || {
        let mut flash = flash();
        mark(&mut flash, 0, Slot::Secondary, false).unwrap();
        flash
    };
    let cuts = sweep(make, BootMode::SwapMove, "1.0.0+ 2.0.0+");
    assert!(cuts > 90, "{cuts}");
}

#[test]
fn a_cut_at_any_operation_of_an_upgrade_ends_with_the_new_image() {
    let make = || {
        let mut flash = flash();
        mark(&mut flash, 0, Slot::Secondary, true).unwrap();
        flash
    };
    sweep(make, BootMode::SwapMove, "2.0.0+ 1.0.0+");
}

#[test]
fn a_cut_at_any_operation_of_a_revert_ends_with_the_old_image() {
    sweep(on_trial, BootMode::SwapMove, "1.0.0+ 2.0.0+");
}

#[test]
fn a_cut_at_any_operation_of_an_overwrite_ends_with_the_new_image() {
    let make = || {
        let mut flash = flash();
        mark(&mut flash, 0, Slot::Secondary, false).unwrap();
        flash
    };
    // The primary slot is not startable while it is copied: only the end counts.
    for point in [CutPoint::Before, CutPoint::Within, CutPoint::After] {
        for count in 1..100 {
            let mut flash = make();
            if !start_with_cut(&mut flash, BootMode::OverwriteOnly, count, point) {
                break;
            }
            start_in(&mut flash, BootMode::OverwriteOnly);
            assert!(slots(&flash).starts_with("2.0.0+"), "{point:?} {count}");
            assert_eq!(swap_type(&flash, 0), SwapType::None, "{point:?} {count}");
        }
    }
}

#[test]
fn many_cuts_in_a_row_never_brick() {
    let mut random = Random::new(3);
    for round in 0..200 {
        let mut flash = flash();
        mark(&mut flash, 0, Slot::Secondary, false).unwrap();
        for _ in 0..5 {
            let points = [CutPoint::Before, CutPoint::Within, CutPoint::After];
            let point = points[usize::try_from(random.below(3)).unwrap()];
            let count = 1 + random.below(40);
            start_with_cut(&mut flash, BootMode::SwapMove, count, point);
        }
        settle(
            &mut flash,
            BootMode::SwapMove,
            "1.0.0+ 2.0.0+",
            &format!("round {round}"),
        );
    }
}

#[test]
fn a_cut_while_marking_leaves_no_half_mark() {
    for point in [CutPoint::Before, CutPoint::Within, CutPoint::After] {
        for permanent in [false, true] {
            for count in 1..4 {
                let mut flash = flash();
                flash.plan_cut(count, point);
                let marked = mark(&mut flash, 0, Slot::Secondary, permanent);
                flash.cut(flash.cut_at_ns().unwrap_or_else(|| flash.free_ns()));
                let swap = swap_type(&flash, 0);
                let whole = if permanent {
                    SwapType::Permanent
                } else {
                    SwapType::Test
                };
                assert!(
                    swap == SwapType::None || swap == whole,
                    "{point:?} {count} {marked:?}: {swap:?}"
                );
                mark(&mut flash, 0, Slot::Secondary, permanent).unwrap();
                assert_eq!(swap_type(&flash, 0), whole);
            }
        }
    }
}
