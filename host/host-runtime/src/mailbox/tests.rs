//! What a full mailbox keeps, drops, replaces and refuses.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn mailbox() -> (Mailbox, Arc<AtomicU32>) {
    let wakes = Arc::new(AtomicU32::new(0));
    let wake: Wake = {
        let wakes = Arc::clone(&wakes);
        Arc::new(move || {
            wakes.fetch_add(1, Ordering::SeqCst);
        })
    };
    (Mailbox::new(wake), wakes)
}

fn message(topic: &str, size: usize, qos: Qos) -> Input {
    Input::Message {
        topic: topic.to_owned(),
        payload: Bytes::from(vec![0; size]),
        qos,
    }
}

/// Everything in it, as text.
fn drain(mailbox: &Mailbox) -> Vec<String> {
    std::iter::from_fn(|| mailbox.take())
        .map(|input| format!("{input:?}"))
        .collect()
}

#[test]
fn inputs_come_out_in_order_and_each_one_wakes() {
    let (mailbox, wakes) = mailbox();
    mailbox.send(Input::Connected {
        session_present: true,
    });
    mailbox.send(message("a/data", 3, Qos::AtMostOnce));
    mailbox.send(Input::Done {
        token: 7,
        outcome: Outcome::Nothing,
    });
    assert_eq!(wakes.load(Ordering::SeqCst), 3);
    let wanted = [
        "Connected(true)",
        "Message(a/data, 3 bytes)",
        "Done(7, Nothing)",
    ];
    assert_eq!(drain(&mailbox), wanted);
    assert!(mailbox.is_empty());
}

#[test]
fn a_full_mailbox_drops_qos_0_messages_and_counts_them() {
    let (mailbox, _) = mailbox();
    for _ in 0..MESSAGES_MAX + 5 {
        mailbox.send(message("data", 1, Qos::AtMostOnce));
    }
    let counters = mailbox.counters();
    assert_eq!(counters.received, (MESSAGES_MAX + 5) as u64);
    assert_eq!(counters.dropped, 5);
    assert_eq!(counters.waiting, MESSAGES_MAX as u64);
    assert_eq!(drain(&mailbox).len(), MESSAGES_MAX);
    assert_eq!(mailbox.counters().waiting, 0);
}

#[test]
fn a_mailbox_is_full_by_bytes_too() {
    let (mailbox, _) = mailbox();
    let size = MESSAGE_MAX_BYTES;
    let fit = MESSAGE_BYTES_MAX / (size + "data".len());
    for _ in 0..fit + 1 {
        mailbox.send(message("data", size, Qos::AtMostOnce));
    }
    assert_eq!(mailbox.counters().dropped, 1);
    assert_eq!(drain(&mailbox).len(), fit);
    // And it has room again.
    mailbox.send(message("data", size, Qos::AtMostOnce));
    assert_eq!(drain(&mailbox).len(), 1);
}

#[test]
fn a_message_at_the_size_limit_is_taken_and_a_larger_one_is_dropped() {
    let (mailbox, _) = mailbox();
    mailbox.send(message("t", MESSAGE_MAX_BYTES, Qos::AtLeastOnce));
    mailbox.send(message("t", MESSAGE_MAX_BYTES + 1, Qos::AtLeastOnce));
    assert_eq!(mailbox.counters().dropped, 1);
    assert_eq!(drain(&mailbox).len(), 1);
}

#[test]
fn in_a_full_mailbox_a_qos_1_message_replaces_the_older_one_of_its_topic() {
    let (mailbox, _) = mailbox();
    mailbox.send(message("notify-next", 1, Qos::AtLeastOnce));
    for _ in 0..MESSAGES_MAX - 1 {
        mailbox.send(message("data", 1, Qos::AtMostOnce));
    }
    mailbox.send(message("notify-next", 2, Qos::AtLeastOnce));
    let left = drain(&mailbox);
    assert_eq!(left.len(), MESSAGES_MAX);
    assert_eq!(left[0], "Message(data, 1 bytes)");
    assert_eq!(left[MESSAGES_MAX - 1], "Message(notify-next, 2 bytes)");
    assert_eq!(mailbox.counters().dropped, 1);
}

#[test]
fn in_a_full_mailbox_a_new_qos_1_message_takes_the_place_of_a_block() {
    let (mailbox, _) = mailbox();
    for _ in 0..MESSAGES_MAX {
        mailbox.send(message("data", 1, Qos::AtMostOnce));
    }
    mailbox.send(message("update/accepted", 1, Qos::AtLeastOnce));
    let left = drain(&mailbox);
    assert_eq!(left.len(), MESSAGES_MAX);
    assert_eq!(left[MESSAGES_MAX - 1], "Message(update/accepted, 1 bytes)");
}

#[test]
fn even_qos_1_messages_of_many_topics_are_bounded() {
    let (mailbox, _) = mailbox();
    for n in 0..MESSAGES_MAX + 3 {
        mailbox.send(message(&format!("t{n}"), 1, Qos::AtLeastOnce));
    }
    let left = drain(&mailbox);
    assert_eq!(left.len(), MESSAGES_MAX);
    assert_eq!(left[0], "Message(t3, 1 bytes)");
}

#[test]
fn control_inputs_pass_a_mailbox_full_of_messages() {
    let (mailbox, _) = mailbox();
    for _ in 0..MESSAGES_MAX {
        mailbox.send(message("data", 1, Qos::AtMostOnce));
    }
    for token in 1..=1000 {
        mailbox.send(Input::Done {
            token,
            outcome: Outcome::Nothing,
        });
    }
    mailbox.send(Input::TargetRestarted(1));
    assert_eq!(drain(&mailbox).len(), MESSAGES_MAX + 1001);
}

#[test]
fn one_command_too_many_is_refused_at_once_and_the_waiting_ones_stay() {
    let (mailbox, _) = mailbox();
    let answer = Arc::new(Mutex::new(None));
    for _ in 0..COMMANDS_MAX {
        mailbox.send(Input::Command {
            command: Command::Suspend,
            reply: None,
        });
    }
    mailbox.send(Input::Command {
        command: Command::Resume,
        reply: Some(Box::new({
            let answer = Arc::clone(&answer);
            move |result: Result<(), Failure>| *answer.lock().unwrap() = Some(result)
        })),
    });
    let failure = answer.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(failure.main, code::LIMIT);
    assert_eq!(drain(&mailbox).len(), COMMANDS_MAX);
}

#[test]
fn only_the_last_of_what_says_the_same_again_is_kept() {
    let (mailbox, _) = mailbox();
    for rate in [1, 2, 3] {
        mailbox.send(Input::Allowance(rate));
    }
    for file in [0, 1, 0] {
        mailbox.send(Input::TargetRestarted(file));
    }
    for n in 0..100 {
        mailbox.send(Input::Custom {
            name: "job-document".into(),
            bytes: Bytes::from(vec![0; n]),
        });
    }
    let wanted = [
        "Allowance(3)",
        "TargetRestarted(1)",
        "TargetRestarted(0)",
        "Custom(job-document, 99 bytes)",
    ];
    assert_eq!(drain(&mailbox), wanted);
}

#[test]
fn a_flapping_connection_leaves_the_newest_changes() {
    let (mailbox, _) = mailbox();
    for n in 0..100 {
        mailbox.send(Input::Disconnected {
            reason: n,
            detail: String::new(),
        });
        mailbox.send(Input::Connected {
            session_present: false,
        });
    }
    let left = drain(&mailbox);
    assert_eq!(left.len(), CONNECTION_CHANGES_MAX);
    assert_eq!(left[14..], ["Disconnected(99, )", "Connected(false)"]);
}

#[test]
fn a_closed_mailbox_answers_commands_and_keeps_nothing() {
    let (mailbox, _) = mailbox();
    let answers = Arc::new(Mutex::new(Vec::new()));
    let command = || Input::Command {
        command: Command::Suspend,
        reply: Some(Box::new({
            let answers = Arc::clone(&answers);
            move |result: Result<(), Failure>| answers.lock().unwrap().push(result)
        })),
    };
    mailbox.send(command());
    mailbox.send(message("data", 1, Qos::AtMostOnce));
    mailbox.close();
    mailbox.send(command());
    mailbox.send(message("data", 1, Qos::AtMostOnce));
    assert!(mailbox.is_empty());
    let answers = std::mem::take(&mut *answers.lock().unwrap());
    let details: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.unwrap_err().detail)
        .collect();
    assert_eq!(details, ["the device has ended"; 2]);
}

#[test]
fn messages_come_out_together_up_to_what_an_event_tells() {
    let sizes = |mailbox: &Mailbox, most| -> Vec<usize> {
        let messages = mailbox.take_messages(most);
        messages.iter().map(|(_, payload)| payload.len()).collect()
    };
    let (mailbox, _) = mailbox();
    assert!(sizes(&mailbox, 64).is_empty());
    for size in 1..=EVENT_MESSAGES_MAX + 3 {
        mailbox.send(message("t", size, Qos::AtMostOnce));
    }
    mailbox.send(Input::TargetRestarted(1));
    mailbox.send(message("t", 1, Qos::AtLeastOnce));
    let all: Vec<usize> = (1..=EVENT_MESSAGES_MAX + 3).collect();
    assert_eq!(sizes(&mailbox, 64), all[..EVENT_MESSAGES_MAX]);
    assert_eq!(sizes(&mailbox, 2), all[EVENT_MESSAGES_MAX..][..2]);
    assert_eq!(sizes(&mailbox, 64), all[EVENT_MESSAGES_MAX + 2..]);
    // Nothing passes what lies between.
    assert!(sizes(&mailbox, 64).is_empty());
    assert_eq!(drain(&mailbox).len(), 2);

    // By bytes: topics count, a large one comes alone.
    let half = EVENT_BYTES_MAX / 2 - 1;
    for size in [half, half, 1, EVENT_BYTES_MAX + 1, 1] {
        mailbox.send(message("t", size, Qos::AtMostOnce));
    }
    assert_eq!(sizes(&mailbox, 64), [half, half]);
    assert_eq!(sizes(&mailbox, 64), [1]);
    assert_eq!(sizes(&mailbox, 64), [EVENT_BYTES_MAX + 1]);
    assert_eq!(mailbox.counters().waiting, 1);
    assert_eq!(sizes(&mailbox, 64), [1]);
    let counters = mailbox.counters();
    assert_eq!((counters.waiting, counters.dropped), (0, 0));
}
