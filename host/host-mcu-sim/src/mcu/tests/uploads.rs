//! Uploads as real servers take them: the offset is theirs, the session is in memory, and its end is easily missed.

use smp_core::code::image_rc;

use super::*;

fn at(offset: u64) -> Reply {
    Reply::Upload {
        offset,
        matches: None,
    }
}

fn refused(code: u32) -> Reply {
    Reply::Refused(Refusal::image(code))
}

#[test]
fn the_answer_is_the_offset_that_the_server_expects_whatever_was_sent() {
    let mut desk = Desk::new(config());
    let file = sample::image(NEW, 4000);
    assert_eq!(desk.upload_piece(&file, 256, 256), at(0), "no session");
    assert_eq!(desk.upload_piece(&file, 0, 256), at(256));
    assert_eq!(desk.upload_piece(&file, 256, 256), at(512));
    assert_eq!(desk.upload_piece(&file, 256, 256), at(512), "again");
    assert_eq!(desk.upload_piece(&file, 1024, 256), at(512), "ahead");
    assert_eq!(desk.mcu.view().stats.uploaded_bytes, 512);
}

#[test]
fn the_same_file_goes_on_and_another_begins_anew() {
    let mut desk = Desk::new(config());
    let file = sample::image(NEW, 4000);
    desk.upload_piece(&file, 0, 256);
    desk.upload_piece(&file, 256, 256);
    assert_eq!(desk.upload_piece(&file, 0, 256), at(512));
    assert_eq!(
        desk.upload_piece(&sample::image("3.0.0", 4000), 0, 256),
        at(256)
    );
}

#[test]
fn a_name_may_be_a_part_of_a_digest_and_counts_with_its_length() {
    let mut desk = Desk::new(config());
    let file = sample::image(NEW, 4000);
    let mut begin = |name: &[u8]| {
        desk.ask(&Request::Upload(Upload {
            offset: Some(0),
            data: Some(&file[..256]),
            size: Some(file.len() as u64),
            sha: Some(name),
            ..Upload::default()
        }));
        desk.upload_piece(&file, 256, 256);
        let again = Upload {
            offset: Some(0),
            data: Some(&file[..256]),
            size: Some(file.len() as u64),
            sha: Some(&[7; 8]),
            ..Upload::default()
        };
        desk.ask(&Request::Upload(again))
    };
    assert_eq!(begin(&[7; 8]), at(512), "the same goes on");
    assert_eq!(begin(&[7; 32]), at(256), "longer is another");
}

#[test]
fn erasing_ends_the_session() {
    let mut desk = Desk::new(config());
    let file = sample::image(NEW, 4000);
    desk.upload_piece(&file, 0, 256);
    assert_eq!(desk.upload_piece(&file, 256, 256), at(512));
    assert_eq!(desk.ask(&Request::Erase(None)), Reply::Nothing);
    assert_eq!(desk.upload_piece(&file, 512, 256), at(0));
}

#[test]
fn the_session_ends_with_the_last_byte_and_with_a_reset() {
    let mut desk = Desk::new(config());
    let file = sample::image(NEW, 1000);
    desk.upload(&file);
    let last = file.len() / 256 * 256;
    assert_eq!(
        desk.upload_piece(&file, last, 256),
        at(0),
        "the last piece again"
    );
    assert_eq!(
        desk.list(),
        "0:1.0.0 AC | 1:2.0.0 ",
        "and it is still there"
    );
    // Who obeys that answer erases the image.
    desk.upload_piece(&file, 0, 256);
    assert_eq!(desk.list(), "0:1.0.0 AC");
    desk.mcu.power_cut(desk.now_ns);
    desk.wait_up();
    assert_eq!(desk.upload_piece(&file, 256, 256), at(0));
}

#[test]
fn a_server_that_checks_images_knows_a_whole_file_at_once() {
    let mut profile = Profile::zephyr_4_4();
    profile.has_image_check = true;
    let mut desk = Desk::new(config_of(profile));
    let file = sample::image(NEW, 1000);
    assert_eq!(desk.upload(&file), Some(true));
    desk.reset();
    let whole = Reply::Upload {
        offset: file.len() as u64,
        matches: Some(true),
    };
    assert_eq!(desk.upload_piece(&file, 0, 256), whole);
}

#[test]
fn a_digest_that_is_not_the_files_is_answered_and_nothing_is_undone() {
    let mut profile = Profile::zephyr_4_4();
    profile.has_image_check = true;
    let mut desk = Desk::new(config_of(profile));
    let file = sample::image(NEW, 100);
    let answer = desk.ask(&Request::Upload(Upload {
        offset: Some(0),
        data: Some(&file),
        size: Some(file.len() as u64),
        sha: Some(&[9; 32]),
        ..Upload::default()
    }));
    assert!(
        matches!(
            answer,
            Reply::Upload {
                matches: Some(false),
                ..
            }
        ),
        "{answer:?}"
    );
    assert_eq!(desk.list(), "0:1.0.0 AC | 1:2.0.0 ");
}

#[test]
fn what_an_upload_lacks_is_refused_by_name() {
    let mut desk = Desk::new(config());
    let file = sample::image(NEW, 100);
    let whole = Upload {
        offset: Some(0),
        data: Some(&file),
        size: Some(file.len() as u64),
        ..Upload::default()
    };
    let not_image = [1; 64];
    for (upload, code) in [
        (
            Upload {
                offset: None,
                ..whole
            },
            image_rc::INVALID_OFFSET,
        ),
        (
            Upload {
                size: None,
                ..whole
            },
            image_rc::INVALID_LENGTH,
        ),
        (
            Upload {
                data: Some(&file[..31]),
                ..whole
            },
            image_rc::INVALID_HEADER,
        ),
        (
            Upload {
                data: Some(&not_image),
                ..whole
            },
            image_rc::INVALID_MAGIC,
        ),
        (
            Upload {
                size: Some(1 << 20),
                ..whole
            },
            image_rc::TOO_LARGE,
        ),
        (
            Upload {
                size: Some(50),
                ..whole
            },
            image_rc::OVERRUN,
        ),
    ] {
        assert_eq!(desk.ask(&Request::Upload(upload)), refused(code), "{code}");
    }
    let older = sample::image("0.9.0", 100);
    let upgrade = Upload {
        data: Some(&older),
        upgrade: true,
        ..whole
    };
    let answer = desk.ask(&Request::Upload(upgrade));
    assert_eq!(answer, refused(image_rc::RUNNING_IS_NEWER));
}

#[test]
fn an_old_server_takes_any_size_and_fails_where_the_slot_ends() {
    let mut desk = Desk::new(config_of(Profile::zephyr_3_4()));
    let file = sample::image(NEW, 20_000);
    assert_eq!(desk.upload_piece(&file, 0, 256), at(256));
    let mut offset = 256;
    let refusal = loop {
        match desk.upload_piece(&file, offset, 256) {
            Reply::Upload { offset: next, .. } => offset = usize::try_from(next).unwrap(),
            other => break other,
        }
    };
    assert_eq!(refusal, refused(image_rc::FLASH_WRITE_FAILED));
    assert_eq!(offset, 16 * 1024);
    assert_eq!(
        desk.upload_piece(&file, offset, 256),
        at(0),
        "the session is gone"
    );
}

#[test]
fn a_partial_upload_is_not_listed_and_cannot_be_marked() {
    let mut desk = Desk::new(config());
    let file = sample::image(NEW, 4000);
    desk.upload_piece(&file, 0, 256);
    assert_eq!(desk.list(), "0:1.0.0 AC");
    let hash = &file[file.len() - 32..];
    assert_eq!(desk.mark(hash, false), refused(image_rc::HASH_NOT_FOUND));
}

#[test]
fn recovery_takes_whole_units_and_asks_for_the_rest() {
    let mut config = config();
    config.factory = Factory::default();
    config.recovery = Some(Profile::recovery_4_4());
    let mut desk = Desk::new(config);
    let file = sample::image(NEW, 4000);
    assert_eq!(desk.upload_piece(&file, 0, 501), at(500));
    let mut offset = 500;
    while offset < file.len() {
        let Reply::Upload { offset: next, .. } = desk.upload_piece(&file, offset, 501) else {
            panic!("at {offset}");
        };
        offset = usize::try_from(next).unwrap();
    }
    assert_eq!(&desk.mcu.slot_bytes(0, Slot::Primary)[..file.len()], file);
}

#[test]
fn recovery_writes_the_secondary_slot_where_the_number_says_so() {
    let mut config = config();
    config.recovery = Some(Profile::recovery_4_4());
    let mut desk = Desk::new(config);
    desk.ask(&Request::Reset {
        force: false,
        boot_mode: Some(1),
    });
    desk.pass(300 * MS);
    desk.wait_up();
    let file = sample::image(NEW, 200);
    desk.ask(&Request::Upload(Upload {
        offset: Some(0),
        data: Some(&file),
        size: Some(file.len() as u64),
        image: Some(2),
        ..Upload::default()
    }));
    desk.reset();
    assert_eq!(desk.list(), "0:1.0.0 AC | 1:2.0.0 ");
}

#[test]
fn erasing_an_empty_slot_is_an_error_of_old_servers_only() {
    for (profile, is_error) in [
        (Profile::zephyr_3_4(), true),
        (Profile::zephyr_4_4(), false),
    ] {
        let mut desk = Desk::new(config_of(profile));
        desk.upload(&sample::image(NEW, 1000));
        assert_eq!(desk.ask(&Request::Erase(Some(1))), Reply::Nothing);
        assert_eq!(desk.list(), "0:1.0.0 AC");
        let again = desk.ask(&Request::Erase(None));
        assert_eq!(again == refused(image_rc::UNKNOWN), is_error, "{again:?}");
    }
}

#[test]
fn sectors_are_erased_when_the_upload_comes_to_them_or_all_at_once() {
    let mut erases = Vec::new();
    for progressive in [false, true] {
        let mut profile = Profile::zephyr_4_4();
        profile.erases_progressively = progressive;
        let mut desk = Desk::new(config_of(profile));
        let file = sample::image(NEW, 8000);
        desk.upload_piece(&file, 0, 256);
        erases.push(desk.mcu.view().flash.erases);
        desk.upload(&file);
        assert_eq!(&desk.mcu.slot_bytes(0, Slot::Secondary)[..file.len()], file);
    }
    // The trailer's sector, and eight or one.
    assert_eq!(erases, [9, 2]);
}
