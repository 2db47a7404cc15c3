//! Nothing but bytes that were read back and verified is ever activated.

use super::world::{FILE, Setup, World, main_of};
use crate::plugin::ExaminedImage;
use crate::target::{VerifiedRef, VersionReader};
use crate::types::{Outcome, code};

fn activate(world: &mut World, image: &VerifiedRef) -> Outcome {
    world.run(|t, _, token| t.activate(token, image))
}

fn install(world: &mut World, image: &VerifiedRef) -> Outcome {
    world.run(|t, _, token| t.install(token, image))
}

#[test]
fn one_flipped_bit_after_the_write_gives_no_proof() {
    let image = World::image(3000, 2);
    for bit in [0, 7, 1024 * 8, image.len() * 8 - 1] {
        for staged in [false, true] {
            let mut world = World::new(Setup {
                staged,
                ..Setup::default()
            });
            world.create("job-1", &image);
            world.write_all(&image);
            match world.staging.file() {
                Some(file) => file.flip(bit),
                None => world.slots[1].flip(bit),
            }
            let blamed = [code::PLUGIN_FAILED, code::STORAGE][usize::from(staged)];
            assert_eq!(main_of(&world.close()), blamed, "bit {bit}");
            assert_eq!(
                world.targets.verified(FILE).unwrap_err().main,
                code::NOT_VERIFIED
            );
            assert_eq!(world.phase(), "closed");
        }
    }
}

#[test]
fn a_file_with_missing_blocks_is_not_closed() {
    let mut world = World::direct();
    let image = World::image(5000, 2);
    assert_eq!(main_of(&world.close()), code::NOT_FOUND);
    world.create("job-1", &image);
    world.write_blocks(&image, 1..5);
    let Outcome::Failed(failure) = world.close() else {
        panic!("it closed");
    };
    assert_eq!((failure.main, failure.sub), (code::FILE_CLOSE, 2));
    // It was not locked: the rest may come.
    world.write_blocks(&image, [0, 5].into_iter());
    assert!(matches!(world.close(), Outcome::Verified(_)));
}

#[test]
fn a_proof_is_worth_nothing_once_the_bytes_are_released_or_verified_anew() {
    let mut world = World::direct();
    let image = World::image(500, 2);
    world.deliver("job-1", &image);
    let first = world.targets.verified(FILE).unwrap();
    assert!(matches!(world.close(), Outcome::Verified(_)));
    assert_eq!(main_of(&install(&mut world, &first)), code::NOT_VERIFIED);
    let second = world.targets.verified(FILE).unwrap();
    assert_eq!(install(&mut world, &second), Outcome::Nothing);
    assert_eq!(world.abort(), Outcome::Nothing);
    assert_eq!(main_of(&activate(&mut world, &second)), code::NOT_VERIFIED);
    world.create("job-2", &image);
    assert_eq!(main_of(&install(&mut world, &second)), code::NOT_VERIFIED);
    world.write_all(&image);
    world.close();
    assert_eq!(main_of(&install(&mut world, &second)), code::NOT_VERIFIED);
}

#[test]
fn a_proof_of_before_a_restart_is_worth_nothing_until_the_bytes_are_read_again() {
    let mut world = World::direct();
    let image = World::image(500, 2);
    world.deliver("job-1", &image);
    let old = world.targets.verified(FILE).unwrap();
    world.restart();
    assert_eq!(
        world.targets.verified(FILE).unwrap_err().main,
        code::NOT_VERIFIED
    );
    assert_eq!(main_of(&install(&mut world, &old)), code::NOT_VERIFIED);
    assert!(matches!(world.close(), Outcome::Verified(_)));
    assert_eq!(world.install(), Outcome::Nothing);
}

#[test]
fn bytes_that_changed_behind_the_lock_are_found_when_they_are_read_again() {
    let mut world = World::direct();
    world.deliver("job-1", &World::image(500, 2));
    world.restart();
    world.slots[1].flip(11);
    assert_eq!(main_of(&world.close()), code::PLUGIN_FAILED);
    // Not even another image with a good signature.
    let mut world = World::direct();
    let image = World::image(500, 2);
    let other = World::image(500, 3);
    let signature = world.spec("job-1", &other).signature;
    world.deliver("job-1", &image);
    world.restart();
    world.slots[1].fill(&other);
    world.swap_signature(&signature);
    assert_eq!(main_of(&world.close()), code::SIGNATURE);
}

#[test]
fn activate_needs_install_before_it() {
    let mut world = World::direct();
    world.deliver("job-1", &World::image(500, 2));
    assert_eq!(main_of(&world.activate()), code::BUSY);
    assert_eq!(world.install(), Outcome::Nothing);
    assert_eq!(world.activate(), Outcome::Nothing);
}

#[test]
fn a_closed_file_takes_no_blocks() {
    let mut world = World::direct();
    let image = World::image(500, 2);
    world.deliver("job-1", &image);
    assert_eq!(main_of(&world.write_block(&image, 0)), code::BUSY);
    world.restart();
    world.reopen("job-1");
    assert_eq!(main_of(&world.write_block(&image, 0)), code::BUSY);
}

#[test]
fn an_image_for_another_product_or_without_trailer_gives_no_proof() {
    let mut world = World::new(Setup {
        product: Some("other".into()),
        ..Setup::default()
    });
    let image = World::image(500, 2);
    world.create("job-1", &image);
    world.write_all(&image);
    assert_eq!(main_of(&world.close()), code::WRONG_PRODUCT);
    let mut world = World::direct();
    let raw = vec![7; 500];
    world.create("job-1", &raw);
    world.write_all(&raw);
    assert_eq!(main_of(&world.close()), code::WRONG_PRODUCT);
    assert!(world.targets.verified(FILE).is_err());
}

#[test]
fn the_plugin_reads_version_and_product_where_the_operator_says_so() {
    let mut world = World::new(Setup {
        version_from: VersionReader::Plugin,
        product: Some("app".into()),
        ..Setup::default()
    });
    let image = vec![7; 500];
    world.create("job-1", &image);
    world.write_all(&image);
    world.truth.lock().unwrap().examined = ExaminedImage {
        version: Some(super::double::version(6)),
        product: Some("app".into()),
    };
    let Outcome::Verified(info) = world.close() else {
        panic!("not verified");
    };
    assert_eq!(info.version, Some(super::double::version(6)));
    world.truth.lock().unwrap().examined.product = None;
    assert_eq!(main_of(&world.close()), code::WRONG_PRODUCT);
}

#[test]
fn an_unsigned_image_passes_only_under_the_development_setting_and_is_marked() {
    let image = World::image(500, 2);
    let mut world = World::new(Setup {
        allow_unsigned: true,
        ..Setup::default()
    });
    let mut spec = world.spec("job-1", &image);
    spec.signature_kind.clear();
    spec.signature.clear();
    let end = world.run(|t, _, token| t.create(token, spec));
    assert_eq!(end, Outcome::Nothing);
    world.write_all(&image);
    let Outcome::Verified(info) = world.close() else {
        panic!("not verified");
    };
    assert_eq!(info.signer, host_crypto::UNSIGNED);
    let warnings = &world.targets.report()[0].warnings;
    assert!(
        warnings.iter().any(|w| w.contains("unsigned")),
        "{warnings:?}"
    );
}

#[test]
fn a_target_whose_new_images_nobody_tests_says_so() {
    for (health, is_asked) in [(false, false), (true, false), (false, true)] {
        let world = World::new(Setup {
            health,
            is_asked,
            ..Setup::default()
        });
        let warnings = &world.targets.report()[0].warnings;
        let warned = warnings.iter().find(|w| w.contains("counts as good"));
        assert_eq!(warned.is_some(), !health && !is_asked, "{warnings:?}");
        // And what to do about it.
        assert!(
            warned.is_none_or(|w| w.contains("set `health`")),
            "{warnings:?}"
        );
    }
}

#[test]
fn reading_back_tells_progress_and_is_cancelled_by_abort() {
    let mut world = World::direct();
    let image = World::image(500, 2);
    world.create("job-1", &image);
    world.write_all(&image);
    world.bench.hold(true);
    let crate::types::Started::Pending(close) = world.start(|t, _, token| t.close(token, FILE))
    else {
        panic!("over at once");
    };
    assert_eq!(main_of(&world.close()), code::BUSY);
    let crate::types::Started::Pending(abort) = world.start(|t, _, token| t.abort(token, FILE))
    else {
        panic!("did not wait");
    };
    world.bench.hold(false);
    world.bench.run_all();
    assert_eq!(world.finish(abort), Outcome::Nothing);
    assert_eq!(main_of(&world.ended(close).unwrap()), code::CANCELLED);
    assert!(world.targets.verified(FILE).is_err());
    assert_eq!(world.phase(), "none");
}

#[test]
fn a_worker_that_dies_is_an_end_and_not_a_wait() {
    let mut world = World::direct();
    let image = World::image(500, 2);
    world.create("job-1", &image);
    world.write_all(&image);
    world.bench.hold(true);
    let crate::types::Started::Pending(close) = world.start(|t, _, token| t.close(token, FILE))
    else {
        panic!("over at once");
    };
    world.poll();
    world.bench.lose_all();
    world.bench.hold(false);
    assert_eq!(main_of(&world.finish(close)), code::STORAGE);
    // Nobody knows whether it was made durable.
    assert_eq!(main_of(&world.close()), code::STORAGE);
    assert_eq!(world.reopen("job-1"), Outcome::Held(vec![0]));
    world.write_all(&image);
    assert!(matches!(world.close(), Outcome::Verified(_)));
}
