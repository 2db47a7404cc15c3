//! The cap in virtual time: what comes in, who gets how much.

use super::*;

/// Of a request by stream, in bytes: 8 blocks of 16 KiB.
const REQUEST: u64 = REQUEST_MAX_BYTES;

/// Step of the clock, in milliseconds.
const STEP_MS: u64 = 5;

/// How a device gets its image.
#[derive(Clone, Copy)]
enum Way {
    /// Ranges, asked for as soon as they may be; each costs a head too.
    Ranges,
    /// By stream, at the pace that the agent was told; each block costs an envelope of so many per mille.
    Stream { envelope: u64 },
    /// Ranges, but the target takes only so many bytes a second.
    Slow(u64),
}

struct Device {
    seat: Seat,
    way: Way,
    /// Bytes of requests that are paid for by waiting, in thousandths.
    saved: u64,
    received: u64,
}

struct Table {
    bandwidth: Bandwidth,
    devices: Vec<Device>,
    now: Context,
}

impl Table {
    fn new(cap: Cap) -> Self {
        Self {
            bandwidth: Bandwidth::new(cap),
            devices: Vec::new(),
            now: Context {
                now_ms: 1_000_000,
                wall_s: Some(8 * 3600),
            },
        }
    }

    fn join(&mut self, way: Way) {
        let mut seat = self.bandwidth.seat(Arc::new(|| {}));
        seat.receives(self.now, true);
        self.devices.push(Device {
            seat,
            way,
            saved: 0,
            received: 0,
        });
    }

    /// Lets so many seconds go by; bytes that each device has received in them.
    fn run(&mut self, seconds: u64) -> Vec<u64> {
        let before: Vec<u64> = self.devices.iter().map(|d| d.received).collect();
        for _ in 0..seconds * 1000 / STEP_MS {
            self.now.now_ms += STEP_MS;
            self.now.wall_s = Some(8 * 3600 + (self.now.now_ms - 1_000_000) / 1000);
            for device in &mut self.devices {
                device.step(self.now);
            }
        }
        let after = self.devices.iter().map(|d| d.received);
        after
            .zip(before)
            .map(|(after, before)| after - before)
            .collect()
    }
}

impl Device {
    fn step(&mut self, now: Context) {
        match self.way {
            Way::Ranges => {
                while self.seat.take(now, REQUEST + 512) {
                    self.received += REQUEST + 512;
                }
            }
            Way::Slow(rate) => {
                self.saved += rate * STEP_MS;
                if self.saved >= REQUEST * 1000 && self.seat.take(now, REQUEST) {
                    self.saved -= REQUEST * 1000;
                    self.received += REQUEST;
                }
            }
            Way::Stream { envelope } => {
                self.saved += self.seat.allowance(now).min(RATE_MAX_BYTES_PER_S) * STEP_MS;
                while self.saved >= REQUEST * 1000 {
                    self.saved -= REQUEST * 1000;
                    for _ in 0..8 {
                        let message = REQUEST / 8 * (1000 + envelope) / 1000;
                        self.seat.on_bytes(now, message);
                        self.seat.on_payload(REQUEST / 8);
                        self.received += message;
                    }
                }
            }
        }
    }
}

#[test]
fn a_cap_is_kept_to_two_per_cent_on_both_planes_and_used() {
    for rate in [20_000, 1_000_000, 12_500_000] {
        for way in [
            Way::Ranges,
            Way::Stream { envelope: 5 },
            Way::Stream { envelope: 30 },
            // Blocks of 256 bytes.
            Way::Stream { envelope: 200 },
        ] {
            let mut table = Table::new(Cap::new(Some(rate), Vec::new()));
            table.join(way);
            let first = table.run(60)[0];
            // Of the first request nobody knows what its envelopes will be.
            let unknown = match way {
                Way::Stream { envelope } => REQUEST * envelope / 1000,
                Way::Ranges | Way::Slow(_) => 0,
            };
            let most = rate * 60 * 102 / 100 + unknown;
            assert!(first <= most, "{first} of {rate} at once");
            let seconds = 600;
            let then = table.run(seconds)[0];
            let whole = rate * seconds;
            assert!(then <= whole * 102 / 100, "{then} of {whole}");
            assert!(then >= whole * 95 / 100, "{then} of {whole}");
        }
    }
}

#[test]
fn devices_that_receive_share_alike_whatever_plane_they_use() {
    let mut table = Table::new(Cap::new(Some(3_000_000), Vec::new()));
    for way in [Way::Ranges, Way::Stream { envelope: 30 }, Way::Ranges] {
        table.join(way);
    }
    let got = table.run(60);
    for bytes in &got {
        assert!((57_000_000..=61_200_000).contains(bytes), "{got:?}");
    }
    table.devices.remove(1);
    table.run(2);
    let got = table.run(60);
    for bytes in &got {
        assert!((85_500_000..=91_800_000).contains(bytes), "{got:?}");
    }
}

#[test]
fn a_slow_target_leaves_its_share_to_the_others() {
    let mut table = Table::new(Cap::new(Some(4_000_000), Vec::new()));
    table.join(Way::Slow(100_000));
    table.join(Way::Ranges);
    table.run(20);
    let got = table.run(60);
    assert!(got[0] >= 60 * 90_000, "{got:?}");
    assert!(got[1] >= 60 * 3_500_000, "{got:?}");
    assert!(got[0] + got[1] <= 60 * 4_080_000, "{got:?}");
}

#[test]
fn the_table_of_the_day_is_followed_within_seconds() {
    let noon = Span::new(8 * 60 + 1, 8 * 60 + 2, Some(100_000)).unwrap();
    let pause = Span::new(8 * 60 + 2, 8 * 60 + 3, Some(0)).unwrap();
    let mut table = Table::new(Cap::new(Some(1_000_000), vec![noon, pause]));
    table.join(Way::Ranges);
    let minutes: Vec<u64> = (0..4).map(|_| table.run(60)[0]).collect();
    assert!(
        (57_000_000..=61_200_000).contains(&minutes[0]),
        "{minutes:?}"
    );
    assert!((5_700_000..=7_200_000).contains(&minutes[1]), "{minutes:?}");
    assert!(minutes[2] <= 2 * REQUEST, "{minutes:?}");
    assert!(
        (56_000_000..=61_200_000).contains(&minutes[3]),
        "{minutes:?}"
    );
}

#[test]
fn without_a_cap_nothing_waits_and_nobody_owes() {
    let mut table = Table::new(Cap::default());
    table.join(Way::Stream { envelope: 30 });
    let seat = &mut table.devices[0].seat;
    for _ in 0..1000 {
        assert!(seat.take(table.now, REQUEST));
        seat.on_bytes(table.now, REQUEST);
    }
    assert_eq!((seat.debt_bytes(), seat.wait_ms(REQUEST)), (0, 1));
    assert_eq!(seat.allowance(table.now), NO_CAP);
}

#[test]
fn a_device_that_rests_has_no_share_and_saves_nothing_up() {
    let mut table = Table::new(Cap::new(Some(100_000), Vec::new()));
    table.join(Way::Ranges);
    table.join(Way::Ranges);
    table.run(10);
    let now = table.now;
    table.devices[1].seat.receives(now, false);
    let resting = table.devices.remove(1);
    let got = table.run(60)[0];
    assert!(got >= 60 * 95_000, "{got}");
    assert_eq!(resting.seat.deadline_ms(), None);
    table.devices.push(resting);
    let now = table.now;
    assert!(
        !table.devices[1].seat.take(now, REQUEST),
        "nothing was saved"
    );
    // Asking made it one that receives.
    assert!(table.devices[1].seat.deadline_ms().is_some());
}

#[test]
fn who_begins_wakes_the_others_for_their_smaller_share() {
    let woken = Arc::new(Mutex::new(0));
    let bandwidth = Bandwidth::new(Cap::new(Some(100_000), Vec::new()));
    let now = Context {
        now_ms: 5,
        wall_s: None,
    };
    let count = Arc::clone(&woken);
    let mut first = bandwidth.seat(Arc::new(move || *count.lock().unwrap() += 1));
    first.receives(now, true);
    assert_eq!(first.allowance(now), 100_000);
    let before = *woken.lock().unwrap();
    let mut second = bandwidth.seat(Arc::new(|| {}));
    second.receives(now, true);
    assert!(*woken.lock().unwrap() > before);
    assert_eq!(first.allowance(now), 50_000);
    drop(second);
    let later = Context {
        now_ms: 5 + LOOK_EVERY_MS,
        wall_s: None,
    };
    assert_eq!(first.allowance(later), 100_000);
}
