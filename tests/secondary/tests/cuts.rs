//! Power cuts of the MCU, kills of the host and swaps of the plugin, at every request of the duties that mark, restart,
//! try, confirm and take back; and at random over whole updates. `OTAD_SOAK` asks for more of them.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use host_mcu_sim::{MS, Profile, Timing, sample};
use pal_sdk::Plugin;
use pal_serial_mcu::sub;
use secondary::{BODY_BYTES, Bench, End, Hit, Trouble, config};

/// `main` codes of failures (`wit/pal/types.wit`).
const BAD_STATE: u8 = 0xe8;

/// Milliseconds from a request's first byte to what happens: on the line, in the server's hands, answered, while the
/// server of before still lives, while the bootloader runs, when the new image is up.
const DELAYS_MS: [u64; 6] = [0, 6, 30, 200, 290, 420];

/// A gateway whose MCU holds a small image that is sent and not marked yet.
fn sent(server: &Profile, slow_flash: bool) -> Bench {
    let mut config = config();
    config.server = server.clone();
    config.factory.primary = vec![sample::image("1.0.0", 2_000)];
    if slow_flash {
        config.timing.flash = Timing::slow_flash(115_200).flash;
    }
    let mut bench = Bench::with(config, &[("soak_ms", "600")]);
    bench.file = sample::image("2.0.0", 1_000);
    bench.send().unwrap();
    bench.sent_ns.clear();
    bench
}

/// Servers that differ in what a second mark does, and flashes that differ in what a cut leaves of the first one.
fn benches() -> impl Iterator<Item = (Profile, bool)> {
    [Profile::zephyr_3_4(), Profile::zephyr_4_4()]
        .into_iter()
        .flat_map(|server| [(server.clone(), false), (server, true)])
}

/// One of so many is tried where nobody asks for more: a prime, so that each trouble and delay has its turn.
const STRIDE: usize = 11;

/// Does something undisturbed, and again with trouble at each of its requests; `check` judges how it ended.
fn at_each_request(
    troubles: &[Trouble],
    delays_ms: &[u64],
    prepare: impl Fn(&Profile, bool) -> Bench,
    act: impl Fn(&mut Bench) -> End,
    check: impl Fn(&Bench, &End) -> bool,
) {
    let stride = if rounds(0) > 0 { 1 } else { STRIDE };
    let mut number = 0;
    for (server, slow_flash) in benches() {
        let mut calm = prepare(&server, slow_flash);
        let end = act(&mut calm);
        assert!(check(&calm, &end), "undisturbed: {end:?}");
        let requests = std::mem::take(&mut calm.sent_ns);
        assert!(requests.len() > 3, "{requests:?}");
        for (at_ns, trouble, delay_ms) in product(&requests, troubles, delays_ms) {
            number += 1;
            if number % stride != 0 {
                continue;
            }
            let mut bench = prepare(&server, slow_flash);
            bench.trouble = Some((at_ns + delay_ms * MS, trouble));
            let end = act(&mut bench);
            let (hit, runs) = (bench.hit, bench.runs());
            assert!(
                check(&bench, &end),
                "{number}, slow flash {slow_flash}: {trouble:?} at {at_ns} + {delay_ms} ms, {hit:?}: {end:?}, {runs:?}"
            );
        }
    }
    assert!(number > 100, "{number}");
}

fn product<'a>(
    requests: &'a [u64],
    troubles: &'a [Trouble],
    delays_ms: &'a [u64],
) -> impl Iterator<Item = (u64, Trouble, u64)> {
    requests.iter().flat_map(move |at_ns| {
        troubles.iter().flat_map(move |trouble| {
            let with_delay = move |delay_ms: &u64| (*at_ns, *trouble, *delay_ms);
            delays_ms.iter().map(with_delay)
        })
    })
}

fn update(bench: &mut Bench) -> End {
    let end = bench.go_on_through_trouble();
    bench.end(end)
}

/// How an image that the bootloader took back is told.
fn went_back(end: &End) -> bool {
    matches!(
        end,
        End::WentBack | End::Failed("self-test" | "commit", BAD_STATE, sub::NOT_RUNNING)
    )
}

#[test]
fn a_power_cut_at_any_request_of_an_update_reverts_what_is_in_test_and_nothing_else() {
    at_each_request(
        &[Trouble::PowerCut],
        &DELAYS_MS,
        sent,
        update,
        |bench, end| {
            let may_revert = matches!(bench.hit, Some(Hit::InTest | Hit::Starting));
            *end == End::Committed || may_revert && went_back(end)
        },
    );
}

#[test]
fn a_host_killed_at_any_request_of_an_update_goes_on_to_its_commit() {
    let kills = [0, 150, 600].map(|away_ms| Trouble::Kill { away_ms });
    at_each_request(&kills, &DELAYS_MS[..3], sent, update, |_, end| {
        *end == End::Committed
    });
}

#[test]
fn a_plugin_swapped_at_any_request_of_an_update_goes_on_to_its_commit() {
    at_each_request(&[Trouble::Swap], &DELAYS_MS, sent, update, |bench, end| {
        *end == End::Committed && bench.mcu.view().stats.starts == 2
    });
}

/// What a busy host decided on an answer it sends long after it: the old server may be gone by then.
#[test]
fn a_host_killed_after_its_reset_and_busy_then_sends_no_reset_to_an_image_in_test() {
    let marked = || {
        let mut bench = sent(&Profile::zephyr_4_4(), false);
        bench.duty("activate", |p| p.activate([0; 32])).unwrap();
        bench.sent_ns.clear();
        bench
    };
    let mut calm = marked();
    let starts = calm.mcu.view().stats.starts;
    let at_start = calm.drive(|p| p.reset(), |b| b.mcu.view().stats.starts > starts);
    assert_eq!(at_start, Err(None));
    let reset_ns = calm.sent_ns.last().unwrap();
    for busy_ms in (6..260).step_by(4) {
        let mut bench = marked();
        bench.trouble = Some((reset_ns + 6 * MS, Trouble::Kill { away_ms: 0 }));
        bench.stall = Some((reset_ns + busy_ms * MS, 500));
        let end = bench
            .persist("reset", |p| p.reset())
            .and_then(|()| bench.finish());
        assert_eq!(bench.hit, Some(Hit::Marked));
        assert_eq!(bench.end(end), End::Committed, "{busy_ms}");
        assert_eq!(bench.mcu.view().stats.starts, starts + 1, "{busy_ms}");
    }
}

#[test]
fn an_image_is_taken_back_whatever_happens_at_any_request_of_it() {
    let troubles = [
        Trouble::PowerCut,
        Trouble::Kill { away_ms: 0 },
        Trouble::Kill { away_ms: 600 },
        Trouble::Swap,
    ];
    for is_started in [false, true] {
        let marked = |server: &Profile, slow_flash| {
            let mut bench = sent(server, slow_flash);
            bench.duty("activate", |p| p.activate([0; 32])).unwrap();
            if is_started {
                bench.duty("reset", |p| p.reset()).unwrap();
            }
            bench.sent_ns.clear();
            bench
        };
        let take_back = |bench: &mut Bench| match bench.persist("reject", |p| p.reject()) {
            Ok(()) => End::WentBack,
            Err(end) => end,
        };
        at_each_request(&troubles, &DELAYS_MS, marked, take_back, |bench, end| {
            let slots = bench.mcu.view().slots;
            *end == End::WentBack
                && bench.runs() == ("1.0.0".to_owned(), true)
                && slots.iter().all(|slot| slot.version == "1.0.0")
        });
    }
}

/// Rounds that are asked for.
fn rounds(few: u64) -> u64 {
    std::env::var("OTAD_SOAK")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(few)
}

#[test]
fn power_cuts_and_kills_at_any_instant_end_with_the_right_image() {
    let bench = |seed| {
        let mut config = config();
        config.seed = seed;
        config.timing.flash = Timing::slow_flash(115_200).flash;
        Bench::new(config)
    };
    for seed in 1..=rounds(12).max(1) {
        let mut calm = bench(seed);
        let began_ns = calm.now_ns;
        assert_eq!(calm.update(), End::Committed, "seed {seed}, undisturbed");
        let takes_ms = (calm.now_ns - began_ns) / MS;
        let mut bench = bench(seed);
        // A number that looks like chance and is the same every time.
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let at_ns = bench.now_ns + (mixed % takes_ms) * MS;
        let away_ms = mixed % 2_000;
        let trouble = match seed % 3 {
            0 => Trouble::Swap,
            1 => Trouble::PowerCut,
            _ => Trouble::Kill { away_ms },
        };
        bench.trouble = Some((at_ns, trouble));
        let end = bench.update_through_trouble();
        assert!(bench.hit.is_some(), "seed {seed}: {trouble:?} did not come");
        let runs = bench.runs();
        if trouble == Trouble::PowerCut && went_back(&end) {
            assert_eq!(runs, ("1.0.0".to_owned(), true), "seed {seed}: {end:?}");
        } else {
            assert_eq!(end, End::Committed, "seed {seed}");
            assert_eq!(runs, ("2.0.0".to_owned(), true), "seed {seed}");
        }
        // Nothing is bricked: the next job works.
        bench.trouble = None;
        bench.job = "job-2";
        bench.file = sample::image("2.0.0", BODY_BYTES - 1000);
        bench.fake.world().staged.clear();
        bench.fake.world().staged_verified = false;
        assert_eq!(bench.update(), End::Committed, "seed {seed}, the job after");
    }
}
