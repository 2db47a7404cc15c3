//! Whole updates: what the list says at each point, on servers of different age, and every way in which one goes back.

use host_mcu_sim::talk::Talk;
use host_mcu_sim::{Behaviour, Config, MS, Profile, State, sample};
use smp_core::client::{ClientError, Order};
use smp_core::reply::{ImageState, Reply};

use super::{NEW, OLD, config, config_of, file, hash_of};

/// `1.0.0 AC | 2.0.0 P`, by slot.
fn told(images: &[ImageState]) -> String {
    let one = |image: &ImageState| {
        let flags = [
            (image.active, 'A'),
            (image.confirmed, 'C'),
            (image.pending, 'P'),
        ];
        let flags: String = flags
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, flag)| *flag)
            .collect();
        format!("{} {flag}", image.version, flag = flags)
    };
    let all: Vec<String> = images
        .iter()
        .map(|image| one(image).trim_end().to_owned())
        .collect();
    all.join(" | ")
}

fn list(talk: &mut Talk) -> String {
    told(&talk.images().unwrap())
}

/// Uploads and marks for test.
fn arm(talk: &mut Talk, file: &[u8]) {
    talk.upload(file).unwrap();
    talk.ask(Order::Test(hash_of(file))).unwrap();
}

#[test]
fn an_update_is_tested_reverted_tested_again_and_confirmed_on_servers_of_every_age() {
    for profile in [Profile::zephyr_3_4(), Profile::zephyr_4_4()] {
        let mut talk = Talk::new(config_of(profile), 2).unwrap();
        let file = file();
        arm(&mut talk, &file);
        assert_eq!(list(&mut talk), "1.0.0 AC | 2.0.0 P");
        assert_eq!(told(&talk.restart().unwrap()), "2.0.0 A | 1.0.0 C");
        assert_eq!(told(&talk.restart().unwrap()), "1.0.0 AC | 2.0.0");
        // The refused image lies there still: no second upload.
        talk.ask(Order::Test(hash_of(&file))).unwrap();
        assert_eq!(told(&talk.restart().unwrap()), "2.0.0 A | 1.0.0 C");
        let confirmed = talk.ask(Order::Confirm).unwrap();
        assert!(matches!(&confirmed, Reply::Images(images) if told(images) == "2.0.0 AC | 1.0.0"));
        assert_eq!(told(&talk.restart().unwrap()), "2.0.0 AC | 1.0.0");
    }
}

#[test]
fn the_old_server_is_not_mistaken_for_the_new_one_right_after_a_reset() {
    let mut config = config();
    config.timing.boot_ns = 3000 * MS;
    let mut talk = Talk::new(config, 1).unwrap();
    arm(&mut talk, &file());
    assert_eq!(told(&talk.restart().unwrap()), "2.0.0 A | 1.0.0 C");
}

#[test]
fn a_confirmation_is_asked_for_again_and_a_mark_is_not() {
    let rules = ["lose-response@state-write", "lose-response@state-write*2"];
    let mut talk = Talk::new(super::with_rules(&rules), 1).unwrap();
    let file = file();
    talk.upload(&file).unwrap();
    let marked = talk.ask(Order::Test(hash_of(&file)));
    assert_eq!(marked, Err(ClientError::Silent));
    assert_eq!(list(&mut talk), "1.0.0 AC | 2.0.0 P");
    talk.restart().unwrap();
    talk.ask(Order::Confirm).unwrap();
    assert_eq!(list(&mut talk), "2.0.0 AC | 1.0.0");
}

/// Why a mark is not asked for again.
#[test]
fn a_mark_that_comes_again_after_a_power_cut_would_confirm_the_image_or_be_refused() {
    for (profile, then) in [
        (Profile::zephyr_3_4(), "2.0.0 AC | 1.0.0"),
        (Profile::zephyr_4_4(), "2.0.0 A | 1.0.0 C"),
    ] {
        let mut config = config_of(profile);
        config.rules = vec!["power-cut=100@state-write".parse().unwrap()];
        let mut talk = Talk::new(config, 1).unwrap();
        let file = file();
        arm(&mut talk, &file);
        talk.pass(2000 * MS);
        assert_eq!(list(&mut talk), "2.0.0 A | 1.0.0 C");
        talk.ask(Order::Test(hash_of(&file))).ok();
        assert_eq!(list(&mut talk), then);
    }
}

#[test]
fn a_power_cut_on_trial_and_one_in_the_swap_end_as_the_marks_say() {
    let mut talk = Talk::new(config(), 1).unwrap();
    arm(&mut talk, &file());
    talk.restart().unwrap();
    let now_ns = talk.now_ns();
    talk.mcu().power_cut(now_ns);
    talk.pass(2000 * MS);
    assert_eq!(list(&mut talk), "1.0.0 AC | 2.0.0");
    let cut = Config {
        rules: vec!["cut-at-operation=20@boot*2".parse().unwrap()],
        ..config()
    };
    let mut talk = Talk::new(cut, 1).unwrap();
    arm(&mut talk, &file());
    assert_eq!(told(&talk.restart().unwrap()), "2.0.0 A | 1.0.0 C");
    assert_eq!(talk.mcu().view().stats.cuts, 1);
}

#[test]
fn an_image_that_never_answers_is_left_by_the_reset_line() {
    let mut config = config();
    config.behaviours = vec![(NEW.to_owned(), Behaviour::Silent)];
    let mut talk = Talk::new(config, 1).unwrap();
    arm(&mut talk, &file());
    assert_eq!(talk.restart(), Err(ClientError::Silent));
    assert_eq!(talk.mcu().state(), State::Silent);
    let now_ns = talk.now_ns();
    talk.mcu().hardware_reset(now_ns);
    talk.pass(2000 * MS);
    assert_eq!(list(&mut talk), "1.0.0 AC | 2.0.0");
}

#[test]
fn an_image_that_crashes_is_back_to_the_old_one_by_itself() {
    let mut config = config();
    config.behaviours = vec![(NEW.to_owned(), Behaviour::Crashes { after_ns: 200 * MS })];
    let mut talk = Talk::new(config, 1).unwrap();
    arm(&mut talk, &file());
    talk.restart().unwrap();
    talk.pass(2000 * MS);
    assert_eq!(list(&mut talk), "1.0.0 AC | 2.0.0");
}

#[test]
fn an_image_that_confirms_itself_is_listed_so() {
    let mut config = config();
    config.behaviours = vec![(NEW.to_owned(), Behaviour::ConfirmsItself)];
    let mut talk = Talk::new(config, 1).unwrap();
    arm(&mut talk, &file());
    assert_eq!(told(&talk.restart().unwrap()), "2.0.0 AC | 1.0.0");
}

#[test]
fn an_image_of_another_key_is_listed_and_marked_and_gone_after_the_start() {
    let (own, foreign) = (sample::Signer::of_seed(1), sample::Signer::of_seed(2));
    let mut config = config();
    config.factory.primary = vec![own.image(OLD, &[1; 2000])];
    config.key = Some(own.key());
    let mut talk = Talk::new(config, 1).unwrap();
    arm(&mut talk, &foreign.image(NEW, &[2; 5000]));
    assert_eq!(list(&mut talk), "1.0.0 AC | 2.0.0 P");
    assert_eq!(told(&talk.restart().unwrap()), "1.0.0 AC");
}

#[test]
fn a_test_that_is_pending_cannot_be_called_off_and_ends_by_two_restarts() {
    let mut talk = Talk::new(config(), 1).unwrap();
    arm(&mut talk, &file());
    for order in [Order::Erase(None), Order::Confirm] {
        assert!(matches!(talk.ask(order), Err(ClientError::Refused(_))));
    }
    assert!(matches!(talk.upload(&file()), Err(ClientError::Refused(_))));
    talk.restart().unwrap();
    assert!(matches!(talk.upload(&file()), Err(ClientError::Refused(_))));
    assert_eq!(told(&talk.restart().unwrap()), "1.0.0 AC | 2.0.0");
}

#[test]
fn going_back_by_testing_the_old_image_does_not_go_back() {
    let mut talk = Talk::new(config(), 1).unwrap();
    let old = talk.images().unwrap().remove(0).hash;
    arm(&mut talk, &file());
    talk.restart().unwrap();
    talk.ask(Order::Test(old)).unwrap();
    talk.restart().unwrap();
    assert_eq!(told(&talk.restart().unwrap()), "2.0.0 AC | 1.0.0");
}

#[test]
fn an_image_that_runs_already_never_swaps() {
    let mut talk = Talk::new(config_of(Profile::zephyr_3_4()), 1).unwrap();
    let same = sample::image(OLD, 3000);
    // It is in the other slot then, and "test" picks the first slot that has this hash.
    let done = talk.upload(&same);
    assert!(done.is_ok(), "{done:?}");
    talk.ask(Order::Test(hash_of(&same))).unwrap();
    assert_eq!(told(&talk.restart().unwrap()), "1.0.0 AC | 1.0.0");
    assert!(talk.mcu().view().stats.actions.is_empty());
}
