//! Commands: how often and how long is asked, and what counts as an error.

use host_mcu_sim::fault::{Effect, Rule, Trigger};
use host_mcu_sim::talk::Talk;
use host_mcu_sim::{Config, MS, Profile};
use smp_core::client::{ClientError, Order};
use smp_core::code::{Refusal, rc};
use smp_core::header::Version;
use smp_core::reply::Reply;

use super::{config, config_of, with_rules};

const RESET: Order = Order::Reset {
    force: false,
    boot_mode: None,
};

#[test]
fn each_command_has_its_own_patience_and_number_of_tries() {
    // Order, what it is to the simulated MCU, tries, milliseconds of one try.
    let rows = [
        (Order::Echo("x".into()), Trigger::Echo, 3, 1_000),
        (Order::Images, Trigger::List, 3, 1_000),
        (Order::Test(vec![1; 32]), Trigger::StateWrite, 1, 5_000),
        (Order::Confirm, Trigger::StateWrite, 3, 5_000),
        (Order::Erase(None), Trigger::Erase, 2, 40_000),
    ];
    for (order, trigger, tries, ms) in rows {
        let rules = vec![Rule::always(Effect::LoseResponse, trigger)];
        let mut talk = Talk::new(Config { rules, ..config() }, 1).unwrap();
        let (begin_ns, before) = (talk.now_ns(), talk.mcu().view().received.packets);
        assert_eq!(
            talk.ask(order.clone()),
            Err(ClientError::Silent),
            "{order:?}"
        );
        let took_ms = (talk.now_ns() - begin_ns) / MS;
        assert_eq!(
            talk.mcu().view().received.packets - before,
            tries,
            "{order:?}"
        );
        let least_ms = tries * ms;
        assert!(
            (least_ms..least_ms + 200).contains(&took_ms),
            "{order:?}: {took_ms} ms"
        );
    }
}

#[test]
fn a_probe_asks_three_times_in_each_version_and_remembers_the_newer_one() {
    let rules = vec![Rule::always(Effect::LoseResponse, Trigger::List)];
    let mut talk = Talk::new(Config { rules, ..config() }, 1).unwrap();
    assert_eq!(talk.ask(Order::Probe), Err(ClientError::Silent));
    assert_eq!(talk.mcu().view().received.packets, 6);
    assert_eq!(talk.client().version(), Version::V2);
}

#[test]
fn a_server_that_drops_version_two_is_spoken_to_in_version_one() {
    let mut config = config_of(Profile::zephyr_3_4());
    config.server.ignores_v2 = true;
    let mut talk = Talk::new(config, 1).unwrap();
    talk.images().unwrap();
    assert_eq!(talk.client().version(), Version::V1);
    // Errors of a group come as generic ones then.
    let refused = ClientError::Refused(Refusal::generic(rc::UNKNOWN));
    assert_eq!(talk.ask(Order::Test(vec![9; 32])), Err(refused));
}

#[test]
fn a_reset_whose_answer_is_lost_is_a_reset_and_a_refused_one_is_not() {
    let mut talk = Talk::new(with_rules(&["lose-response@reset"]), 1).unwrap();
    assert_eq!(talk.ask(RESET), Ok(Reply::Nothing));
    talk.pass(1000 * MS);
    assert_eq!(talk.mcu().view().stats.starts, 2);
    let mut talk = Talk::new(with_rules(&["busy@reset"]), 1).unwrap();
    let busy = ClientError::Refused(Refusal::generic(rc::BUSY));
    assert_eq!(talk.ask(RESET), Err(busy));
    let forced = Order::Reset {
        force: true,
        boot_mode: None,
    };
    assert_eq!(talk.ask(forced), Ok(Reply::Nothing));
}

#[test]
fn a_late_answer_is_not_taken_for_the_answer_to_the_next_try() {
    let mut talk = Talk::new(with_rules(&["delay-response=1200@echo"]), 1).unwrap();
    let echo = |text: &str| Order::Echo(text.into());
    assert_eq!(talk.ask(echo("first")), Ok(Reply::Echo("first".into())));
    // The answer to the first try is on its way still.
    assert_eq!(talk.ask(echo("second")), Ok(Reply::Echo("second".into())));
}

#[test]
fn a_half_line_left_by_another_client_does_not_eat_the_probe() {
    let mut talk = Talk::new(config(), 1).unwrap();
    let now_ns = talk.now_ns();
    talk.mcu().receive(now_ns, b"\x06\tABAKAAAG");
    let before = talk.mcu().view().received.packets;
    talk.images().unwrap();
    assert_eq!(
        talk.mcu().view().received.packets - before,
        1,
        "the first try is answered"
    );
}

#[test]
fn erasing_what_is_empty_is_an_error_of_old_servers_that_the_list_explains() {
    let mut talk = Talk::new(config_of(Profile::zephyr_3_4()), 1).unwrap();
    let error = talk.ask(Order::Erase(None)).unwrap_err();
    let ClientError::Refused(refusal) = error else {
        panic!("{error}");
    };
    assert_eq!(refusal.code, rc::UNKNOWN);
    assert_eq!(talk.images().unwrap().len(), 1);
    let mut talk = Talk::new(config(), 1).unwrap();
    assert_eq!(talk.ask(Order::Erase(None)), Ok(Reply::Nothing));
}

#[test]
fn a_command_of_the_applications_own_that_nobody_knows_is_refused_as_such() {
    let mut talk = Talk::new(config(), 1).unwrap();
    let order = Order::Other {
        op: smp_core::header::op::READ,
        group: 77,
        id: 0,
        payload: vec![0xa0],
        wait_ms: 1_000,
    };
    let refused = ClientError::Refused(Refusal::generic(rc::UNSUPPORTED));
    assert_eq!(talk.ask(order), Err(refused));
}
