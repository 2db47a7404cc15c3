//! Uploads: whatever is lost, damaged, late, cut or restarted, the image ends in its slot or the error says why it cannot.

use host_mcu_sim::fault::Chance;
use host_mcu_sim::talk::Talk;
use host_mcu_sim::{Config, Framing, MS, Profile, State, Timing};
use smp_core::client::{ClientError, Order, Whole};
use smp_core::code::{Refusal, image_rc};
use smp_core::header::Version;
use smp_core::reply::{Parameters, Reply};
use smp_core::request::{Request, Upload};

use super::{
    FILE_BYTES, config, config_of, erases_of_one_upload, file, hash_of, holds, with_rules,
};

/// Largest chunk of a server with buffers of 384 bytes.
const CHUNK_BYTES: u64 = 352;

#[test]
fn nothing_that_happens_to_one_packet_costs_more_than_that_packet() {
    let (file, erases) = (file(), erases_of_one_upload());
    for request in ["upload-first", "upload*5", "upload*20", "upload-last"] {
        for effect in [
            "lose-request",
            "lose-response",
            "garble-response",
            "repeat-response",
            "delay-response=700",
            "delay-response=45000",
        ] {
            for window in [1, 3] {
                let rule = format!("{effect}@{request}");
                let mut talk = Talk::new(with_rules(&[&rule]), window).unwrap();
                talk.upload(&file).unwrap();
                let view = talk.mcu().view();
                assert!(holds(&view, &file), "{rule} {window}");
                assert_eq!(view.flash.erases, erases, "{rule} {window}: erased again");
                // What was written twice would show here: the server takes each byte once.
                assert_eq!(
                    view.stats.uploaded_bytes,
                    file.len() as u64,
                    "{rule} {window}"
                );
            }
        }
    }
}

#[test]
fn after_the_last_answer_was_lost_the_list_is_asked_and_not_one_chunk_is_sent_again_from_zero() {
    let file = file();
    let mut plain = Talk::new(config(), 1).unwrap();
    plain.upload(&file).unwrap();
    let mut talk = Talk::new(with_rules(&["lose-response@upload-last"]), 1).unwrap();
    talk.upload(&file).unwrap();
    let extra = talk.mcu().view().stats.answered - plain.mcu().view().stats.answered;
    assert_eq!(extra, 2, "the last chunk again, and the list");
}

#[test]
fn a_restart_of_the_target_begins_the_upload_anew_and_too_many_end_it() {
    let file = file();
    let mut talk = Talk::new(with_rules(&["power-cut=3@upload*12"]), 2).unwrap();
    talk.upload(&file).unwrap();
    let view = talk.mcu().view();
    assert!(holds(&view, &file));
    assert_eq!(view.stats.cuts, 1);
    let mut hopeless = Talk::new(with_rules(&["power-cut=3@upload*all"]), 2).unwrap();
    let error = hopeless.upload(&file).unwrap_err();
    assert!(
        matches!(error, ClientError::Restarts | ClientError::Silent),
        "{error}"
    );
    assert_eq!(hopeless.mcu().view().active_version(), Some("1.0.0"));
}

#[test]
fn somebody_else_who_uploads_in_between_does_not_get_into_the_image() {
    let (file, other) = (file(), host_mcu_sim::sample::image("7.0.0", FILE_BYTES));
    for (chunk, window) in [(64, 1), (256, 1), (256, 3)] {
        let mut talk = Talk::new(config(), window).unwrap();
        let mut is_over = false;
        let result = talk.upload_until(&file, |talk| {
            if !is_over && talk.client().uploaded() > 5000 {
                is_over = true;
                let first = Request::Upload(Upload {
                    offset: Some(0),
                    data: Some(&other[..chunk]),
                    size: Some(other.len() as u64),
                    ..Upload::default()
                });
                let frame = Framing::Console.encode(&first.encode(Version::V2, 200));
                let now_ns = talk.now_ns();
                talk.mcu().receive(now_ns, &frame);
            }
            false
        });
        assert!(
            matches!(result, Some(Ok(_))),
            "{chunk} {window}: {result:?}"
        );
        let erases = talk.mcu().view().flash.erases;
        assert!(
            erases > 2 * erases_of_one_upload(),
            "{erases}: begun three times"
        );
        // The hash is in the image's own trailer: only the bootloader reads all of it.
        talk.ask(Order::Test(hash_of(&file))).unwrap();
        talk.restart().unwrap();
        assert_eq!(
            talk.mcu().view().active_version(),
            Some("2.0.0"),
            "{chunk} {window}"
        );
    }
}

#[test]
fn another_client_goes_on_where_the_first_one_stopped() {
    let file = file();
    for window in [1, 3] {
        let mut talk = Talk::new(config(), window).unwrap();
        let end = talk.upload_until(&file, |talk| talk.client().uploaded() > 5000);
        assert_eq!(end, None);
        let before = talk.written_bytes();
        talk.renew_client();
        talk.upload(&file).unwrap();
        let view = talk.mcu().view();
        assert!(holds(&view, &file));
        assert_eq!(view.stats.uploaded_bytes, file.len() as u64);
        // What is left of the file and one chunk more, in the framing's own size.
        let rest = (file.len() - 5000) as u64 + CHUNK_BYTES;
        let most = rest * 527 / CHUNK_BYTES + 527;
        assert!(talk.written_bytes() - before <= most, "window {window}");
    }
}

#[test]
fn a_server_that_checks_images_knows_the_whole_file_at_once_also_after_a_power_cut() {
    let mut profile = Profile::zephyr_4_4();
    profile.has_image_check = true;
    let file = file();
    let mut talk = Talk::new(config_of(profile), 2).unwrap();
    let done = Reply::Upload {
        offset: file.len() as u64,
        matches: Some(true),
    };
    assert_eq!(talk.upload(&file), Ok(done.clone()));
    let now_ns = talk.now_ns();
    talk.mcu().power_cut(now_ns);
    talk.pass(1000 * MS);
    let before = talk.mcu().view().stats.answered;
    assert_eq!(talk.upload(&file), Ok(done));
    assert_eq!(talk.mcu().view().stats.answered - before, 1);
}

#[test]
fn a_mismatch_counts_only_where_the_name_is_the_files_digest() {
    let file = file();
    let config = || {
        let mut config = with_rules(&["no-match@upload-last"]);
        config.server.has_image_check = true;
        config
    };
    let mut talk = Talk::new(config(), 1).unwrap();
    assert_eq!(talk.upload(&file), Err(ClientError::Mismatch));
    let mut talk = Talk::new(config(), 1).unwrap();
    let mut source = Whole::new(&file);
    let mut plan = source.plan();
    plan.name_is_digest = false;
    assert!(talk.upload_as(plan, &mut source).is_ok());
}

#[test]
fn a_flash_that_fails_ends_the_upload_with_the_servers_own_code() {
    for (rule, code) in [
        ("write-error@upload*4", image_rc::FLASH_WRITE_FAILED),
        ("erase-error@upload-first", image_rc::FLASH_ERASE_FAILED),
    ] {
        let mut talk = Talk::new(with_rules(&[rule]), 1).unwrap();
        let refused = ClientError::Refused(Refusal::image(code));
        assert_eq!(talk.upload(&file()), Err(refused), "{rule}");
        // The session is gone with it; the next one is whole.
        talk.upload(&file()).unwrap();
        assert!(holds(&talk.mcu().view(), &file()), "{rule}");
    }
}

#[test]
fn an_old_recovery_is_found_in_version_one_and_takes_whole_units_of_each_chunk() {
    let file = file();
    let mut config = config_of(Profile::recovery_3_4());
    // A unit that no chunk is a multiple of.
    config.server.accepts_multiples_of = 56;
    let mut talk = Talk::new(config, 3).unwrap();
    talk.images().unwrap();
    assert_eq!(talk.client().version(), smp_core::header::Version::V1);
    let mut source = Whole::new(&file);
    let mut plan = source.plan();
    // Slot numbers of a recovery: 2 = the other slot; said in each request, or an old one writes anywhere.
    plan.image = Some(2);
    plan.repeat_image = true;
    talk.upload_as(plan, &mut source).unwrap();
    assert!(holds(&talk.mcu().view(), &file));
}

#[test]
fn no_packet_is_larger_than_the_servers_buffer_and_no_line_than_its_own() {
    for buf_size in [128, 200, 256, 383, 384, 385, 512, 1024, 2048, 4096] {
        let mut config = config();
        config.server.buf_size = buf_size;
        let mut talk = Talk::new(config, 3).unwrap();
        talk.upload(&file()).unwrap();
        let received = talk.mcu().view().received;
        assert_eq!(
            (received.long_lines, received.lost_packets),
            (0, 0),
            "{buf_size}"
        );
        assert!(holds(&talk.mcu().view(), &file()), "{buf_size}");
    }
}

#[test]
fn the_window_leaves_one_buffer_to_the_answer_and_a_server_that_tells_no_sizes_gets_little() {
    for buf_count in [1, 2, 3, 4] {
        let mut config = config();
        config.server.buf_count = buf_count;
        config.timing = Timing::slow_flash(115_200);
        let mut talk = Talk::new(config, 8).unwrap();
        talk.upload(&file()).unwrap();
        assert_eq!(talk.mcu().view().received.lost_packets, 0, "{buf_count}");
    }
    let mut config = config();
    (config.server.buf_size, config.server.has_params) = (256, false);
    let mut talk = Talk::new(config, 8).unwrap();
    assert!(matches!(
        talk.ask(Order::Parameters),
        Err(ClientError::Refused(_))
    ));
    talk.client().set_sizes(None);
    talk.upload(&file()).unwrap();
    assert!(holds(&talk.mcu().view(), &file()));
}

#[test]
fn log_lines_and_banners_on_the_line_cost_nothing() {
    let mut config = config();
    config.chance.log_line = 1000;
    let mut talk = Talk::new(config, 2).unwrap();
    talk.upload(&file()).unwrap();
    let view = talk.mcu().view();
    assert!(holds(&view, &file()));
    assert_eq!(view.stats.uploaded_bytes, file().len() as u64);
}

#[test]
fn two_line_buffers_that_are_slow_to_empty_are_survived() {
    for line_drain_ms in [5, 15, 30] {
        let mut config = config();
        config.timing.line_drain_ns = line_drain_ms * MS;
        let mut talk = Talk::new(config, 3).unwrap();
        talk.upload(&file())
            .unwrap_or_else(|e| panic!("{line_drain_ms} ms: {e}"));
        assert!(holds(&talk.mcu().view(), &file()), "{line_drain_ms} ms");
    }
}

#[test]
fn a_line_that_damages_loses_repeats_and_delays_by_chance_is_survived() {
    for seed in 1..=6 {
        let mut config = config();
        config.seed = seed;
        config.chance = Chance {
            garble: 20,
            lose_line: 10,
            repeat_response: 30,
            late_response: 30,
            late_ns: 900 * MS,
            log_line: 100,
            ..Chance::losing(20)
        };
        let mut talk = Talk::new(config, 3).unwrap();
        talk.upload(&file())
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(holds(&talk.mcu().view(), &file()), "seed {seed}");
    }
}

#[test]
fn a_plug_that_is_pulled_for_a_moment_is_survived() {
    let mut talk = Talk::new(with_rules(&["unplug=1500@upload*9"]), 2).unwrap();
    talk.upload(&file()).unwrap();
    assert!(holds(&talk.mcu().view(), &file()));
}

#[test]
fn a_target_that_falls_silent_for_good_ends_the_upload_in_two_minutes() {
    for request in ["upload-first", "upload*9"] {
        let rule = format!("silence@{request}");
        let mut talk = Talk::new(with_rules(&[&rule]), 2).unwrap();
        let begin_ns = talk.now_ns();
        assert_eq!(talk.upload(&file()), Err(ClientError::Silent), "{rule}");
        assert_eq!(talk.mcu().state(), State::Silent);
        let seconds = (talk.now_ns() - begin_ns) / (1000 * MS);
        assert!(seconds < 120, "{rule}: {seconds} s");
    }
}

#[test]
fn raw_framing_carries_uploads_as_well() {
    let mut config = Config {
        framing: Framing::Raw,
        ..config()
    };
    config.chance = Chance::losing(10);
    let mut talk = Talk::new(config, 2).unwrap();
    talk.upload(&file()).unwrap();
    assert!(holds(&talk.mcu().view(), &file()));
}

#[test]
fn sizes_are_asked_again_in_another_mode() {
    let mut config = config();
    config.recovery = Some(Profile::recovery_4_4());
    let mut talk = Talk::new(config, 2).unwrap();
    let application = Parameters {
        buf_size: 384,
        buf_count: 4,
    };
    assert_eq!(
        talk.ask(Order::Parameters),
        Ok(Reply::Parameters(application))
    );
    talk.ask(Order::Reset {
        force: false,
        boot_mode: Some(1),
    })
    .unwrap();
    talk.pass(1000 * MS);
    assert_eq!(talk.mcu().state(), State::Recovering);
    let recovery = Parameters {
        buf_size: 1024,
        buf_count: 1,
    };
    assert_eq!(talk.ask(Order::Parameters), Ok(Reply::Parameters(recovery)));
    // Echo is no probe: it is not there.
    assert!(matches!(
        talk.ask(Order::Echo("x".into())),
        Err(ClientError::Refused(_))
    ));
    assert!(talk.images().is_ok());
}

#[test]
fn a_file_larger_than_the_slot_is_refused_by_the_server_that_looks() {
    let large = host_mcu_sim::sample::image("3.0.0", 4 * FILE_BYTES);
    let mut talk = Talk::new(config(), 1).unwrap();
    let refused = ClientError::Refused(Refusal::image(image_rc::TOO_LARGE));
    assert_eq!(talk.upload(&large), Err(refused));
}
