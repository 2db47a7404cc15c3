//! Connections over a pipe, byte by byte, while the clock stands still unless everybody waits.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::watch,
    task::JoinHandle,
    time::Instant,
};

use super::*;
use crate::{
    core::Core,
    endpoint::{
        connection::{End, serve},
        hub::Kick,
        policy::Identity,
        protocol::Violation,
    },
    fault::{Fault, FaultPlan, Faults, NoFaults},
    limits::Limits,
    operator::Operator,
    service::ImageId,
};

/// A core without listeners.
struct World {
    core: Arc<Core>,
    _dir: tempfile::TempDir,
    _stop: watch::Sender<bool>,
}

impl World {
    async fn new() -> Self {
        Self::with(Box::new(NoFaults)).await
    }

    async fn with(faults: Box<dyn Faults>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let core = Core::open(dir.path(), Limits::Aws, faults).unwrap();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(Arc::clone(&core).run_timers(stopped.clone()));
        tokio::spawn(Arc::clone(&core).run_store(stopped));
        core.ensure_thing(&thing("gw")).await.unwrap();
        Self {
            core,
            _dir: dir,
            _stop: stop,
        }
    }

    /// A connection whose pipe holds that many bytes.
    fn connect(&self, pipe: usize) -> (DuplexStream, JoinHandle<End>) {
        let (near, far) = duplex(pipe);
        let served = serve(far, Identity::Open, Arc::clone(&self.core));
        (near, tokio::spawn(served))
    }

    /// A connection that is past CONNECT.
    async fn client(&self, id: &str, keep_alive: u16) -> (DuplexStream, JoinHandle<End>) {
        let (mut io, end) = self.connect(64 * 1024);
        io.write_all(&connect(id, keep_alive)).await.unwrap();
        let mut connack = [0; 4];
        io.read_exact(&mut connack).await.unwrap();
        assert_eq!(connack, [0x20, 2, 0, 0]);
        (io, end)
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    [&[first, body.len() as u8], body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn connect(id: &str, keep_alive: u16) -> Vec<u8> {
    let head = [b"\x00\x04MQTT\x04\x02", &keep_alive.to_be_bytes()[..]].concat();
    packet(0x10, &[head, text(id)].concat())
}

fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&text(topic), payload].concat())
}

fn subscribe(id: u8, filter: &str, qos: u8) -> Vec<u8> {
    packet(0x82, &[&[0, id], &text(filter)[..], &[qos]].concat())
}

/// Reads until this much has come.
async fn read(io: &mut DuplexStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    io.read_exact(&mut bytes).await.unwrap();
    bytes
}

const PING: [u8; 2] = [0xc0, 0];
const PONG: [u8; 2] = [0xd0, 0];

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_ended_after_one_and_a_half_times_its_keep_alive() {
    let world = World::new().await;
    let start = Instant::now();
    let (mut io, end) = world.client("gw", 10).await;
    tokio::time::sleep_until(start + Duration::from_secs(14)).await;
    io.write_all(&PING).await.unwrap();
    assert_eq!(read(&mut io, 2).await, PONG);
    assert!(matches!(end.await.unwrap(), End::KeepAlive));
    assert_eq!(start.elapsed().as_secs(), 14 + 15);
}

#[tokio::test(start_paused = true)]
async fn without_a_keep_alive_silence_ends_after_half_an_hour() {
    let world = World::new().await;
    let start = Instant::now();
    let (_io, end) = world.client("gw", 0).await;
    assert!(matches!(end.await.unwrap(), End::KeepAlive));
    assert_eq!(start.elapsed().as_secs(), 1800);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_says_connect_is_ended() {
    let world = World::new().await;
    let start = Instant::now();
    let (mut io, end) = world.connect(1024);
    io.write_all(&connect("gw", 60)[..5]).await.unwrap();
    assert!(matches!(end.await.unwrap(), End::NoConnect));
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_protocol_level_is_refused_with_its_code() {
    let world = World::new().await;
    let (mut io, end) = world.connect(1024);
    let mut five = connect("gw", 60);
    five[8] = 5;
    io.write_all(&five).await.unwrap();
    assert_eq!(read(&mut io, 4).await, [0x20, 2, 0, 1]);
    assert!(matches!(end.await.unwrap(), End::Violation(_)));
}

#[tokio::test(start_paused = true)]
async fn a_second_client_of_the_same_id_takes_over() {
    let world = World::new().await;
    let (_first, end) = world.client("gw", 60).await;
    let (mut second, _end) = world.client("gw", 60).await;
    assert!(matches!(end.await.unwrap(), End::Kicked(Kick::TakenOver)));
    second.write_all(&PING).await.unwrap();
    assert_eq!(read(&mut second, 2).await, PONG);
    let stats = world.core.stats();
    assert_eq!((stats.connections, stats.connected), (2, 1));
    assert_eq!(stats.things[&thing("gw")].traffic.connections, 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_and_does_not_read_is_not_served_on_and_ends_while_others_are() {
    let world = World::new().await;
    let operator = Operator::new(Arc::clone(&world.core), None, None, None, None, None);
    operator
        .create_update(update(&vec![7; 1024 * 1024]))
        .await
        .unwrap();
    let request = publish(
        "$aws/things/gw/streams/s/get/json",
        br#"{"f":0,"l":4096,"n":32}"#,
    );
    let (mut greedy, end) = world.client("greedy", 60).await;
    let writer = tokio::spawn(async move {
        // Far more than the cloud may take in without an answer being read; the pipe is full long before.
        for _ in 0..10_000 {
            if greedy.write_all(&request).await.is_err() {
                break;
            }
        }
        greedy
    });
    let (mut other, _end) = world.client("other", 600).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let served = world.core.stats().stream_requests;
    assert!((1..=4).contains(&served), "{served} requests of 128 KiB");
    other.write_all(&PING).await.unwrap();
    assert_eq!(read(&mut other, 2).await, PONG);
    assert!(matches!(end.await.unwrap(), End::KeepAlive));
    writer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_acknowledges_gets_a_hundred_messages_and_the_rest_later() {
    let world = World::new().await;
    let (mut reader, _end) = world.client("reader", 6000).await;
    reader.write_all(&subscribe(1, "t", 1)).await.unwrap();
    assert_eq!(read(&mut reader, 5).await, [0x90, 3, 0, 1, 1]);
    let (mut writer, _end) = world.client("writer", 6000).await;
    for id in 1..=101_u8 {
        let body = [&text("t")[..], &[0, id], b"x"].concat();
        writer.write_all(&packet(0x32, &body)).await.unwrap();
        assert_eq!(read(&mut writer, 4).await, [0x40, 2, 0, id]);
    }
    let one = packet(0x32, &[&text("t")[..], &[0, 1], b"x"].concat());
    let hundred = read(&mut reader, 100 * one.len()).await;
    assert_eq!(hundred[..one.len()], one);
    reader.write_all(&PING).await.unwrap();
    assert_eq!(read(&mut reader, 2).await, PONG, "no 101st message");
    reader.write_all(&[0x40, 2, 0, 7]).await.unwrap();
    let last = read(&mut reader, one.len()).await;
    assert_eq!(last[..2], one[..2]);
}

#[tokio::test(start_paused = true)]
async fn a_will_is_published_unless_the_client_says_goodbye() {
    let world = World::new().await;
    let (mut reader, _end) = world.client("reader", 6000).await;
    reader.write_all(&subscribe(1, "will/+", 0)).await.unwrap();
    read(&mut reader, 5).await;
    for (topic, goodbye) in [("will/a", true), ("will/b", false)] {
        let (mut io, end) = world.connect(1024);
        let head = b"\x00\x04MQTT\x04\x06\x00\x3c".to_vec();
        let body = [head, text("w"), text(topic), text("gone")].concat();
        io.write_all(&packet(0x10, &body)).await.unwrap();
        read(&mut io, 4).await;
        if goodbye {
            io.write_all(&[0xe0, 0]).await.unwrap();
            assert!(matches!(end.await.unwrap(), End::Disconnected));
        } else {
            drop(io);
            assert!(matches!(end.await.unwrap(), End::Closed));
        }
    }
    let want = publish("will/b", b"gone");
    assert_eq!(read(&mut reader, want.len()).await, want);
}

#[tokio::test(start_paused = true)]
async fn a_will_under_reserved_topics_is_not_accepted() {
    let world = World::new().await;
    let (mut io, end) = world.connect(1024);
    let head = b"\x00\x04MQTT\x04\x06\x00\x3c".to_vec();
    let topic = text("$aws/things/gw/jobs/j/update");
    let body = [head, text("w"), topic, text("{}")].concat();
    io.write_all(&packet(0x10, &body)).await.unwrap();
    assert_eq!(read(&mut io, 4).await, [0x20, 2, 0, 5]);
    assert!(matches!(end.await.unwrap(), End::Forbidden(_)));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_cloud_neither_reads_nor_writes_until_it_goes_on() {
    let world = World::new().await;
    let (mut io, _end) = world.client("gw", 6000).await;
    let start = Instant::now();
    world.core.hub.stall(start + Duration::from_secs(60));
    io.write_all(&PING).await.unwrap();
    // What was on its way when the stall began may still be taken; what it asks for waits.
    io.write_all(&PING).await.unwrap();
    assert_eq!(read(&mut io, 4).await, [PONG, PONG].concat());
    assert_eq!(start.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_cut_on_purpose_ends_everybody_right_behind_the_block_it_names() {
    let plan = FaultPlan::new(1, [Fault::CutAfterBlock(2)]);
    let world = World::with(Box::new(plan)).await;
    let operator = Operator::new(Arc::clone(&world.core), None, None, None, None, None);
    let image = vec![9; 8 * 256];
    operator.create_update(update(&image)).await.unwrap();
    let (_bystander, bystander_end) = world.client("bystander", 60).await;
    let (mut io, end) = world.client("gw", 60).await;
    let get = "$aws/things/gw/streams/s/get/json";
    let ask = publish(get, br#"{"f":0,"l":256,"n":8}"#);
    io.write_all(&ask).await.unwrap();
    for end in [end, bystander_end] {
        assert!(matches!(end.await.unwrap(), End::Kicked(Kick::Cut)));
    }
    let mut got = Vec::new();
    io.read_to_end(&mut got).await.unwrap();
    let got = String::from_utf8_lossy(&got).into_owned();
    assert_eq!(got.matches("\"p\":").count(), 2);
    assert!(got.contains("\"i\":1") && !got.contains("\"i\":2"));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_too_long_ends_at_its_time_and_the_device_is_told() {
    let world = World::new().await;
    let operator = Operator::new(Arc::clone(&world.core), None, None, None, None, None);
    let mut timed = update(b"x");
    timed.timeout_minutes = Some(2);
    operator.create_update(timed).await.unwrap();
    let (mut io, _end) = world.client("gw", 6000).await;
    let filter = "$aws/things/gw/jobs/notify-next";
    io.write_all(&subscribe(1, filter, 0)).await.unwrap();
    read(&mut io, 5).await;
    let start = Instant::now();
    let report = "$aws/things/gw/jobs/AFR_OTA-u/update";
    let begun = publish(report, br#"{"status":"IN_PROGRESS"}"#);
    io.write_all(&begun).await.unwrap();
    // The reply comes at once, with QoS 1; the notification two minutes later.
    let head = read(&mut io, 2).await;
    read(&mut io, usize::from(head[1])).await;
    assert_eq!(start.elapsed().as_secs(), 0);
    let head = read(&mut io, 2).await;
    let notice = read(&mut io, usize::from(head[1])).await;
    assert!(notice[2..].starts_with(filter.as_bytes()));
    assert!(!String::from_utf8_lossy(&notice).contains("execution"));
    assert_eq!(start.elapsed().as_secs(), 120);
    let view = operator.show(&"AFR_OTA-u".parse().unwrap()).unwrap();
    assert_eq!(view.executions[0].status.as_str(), "TIMED_OUT");
}

#[tokio::test(start_paused = true)]
async fn what_breaks_the_protocol_ends_only_that_client() {
    let world = World::new().await;
    type Check = fn(&End) -> bool;
    let rows: [(&str, Vec<u8>, Check); 6] = [
        (
            "QoS 2",
            packet(0x34, &[&text("t")[..], &[0, 1]].concat()),
            |e| matches!(e, End::Violation(Violation::QoS2)),
        ),
        ("a wildcard topic", publish("a/+", b""), |e| {
            matches!(e, End::Violation(Violation::Topic))
        }),
        ("a bad filter", subscribe(1, "a/#/b", 0), |e| {
            matches!(e, End::Violation(Violation::Topic))
        }),
        (
            "nine filters",
            {
                let nine = [text("f"), vec![0]].concat().repeat(9);
                packet(0x82, &[vec![0, 1], nine].concat())
            },
            |e| matches!(e, End::TooManyFilters(9)),
        ),
        ("a huge packet", vec![0x30, 0xff, 0xff, 0x7f], |e| {
            matches!(e, End::Violation(Violation::TooLarge))
        }),
        ("noise", vec![0xff; 32], |e| matches!(e, End::Violation(_))),
    ];
    let (mut bystander, _end) = world.client("bystander", 6000).await;
    for (what, bytes, check) in rows {
        let (mut io, end) = world.client("c", 60).await;
        io.write_all(&bytes).await.unwrap();
        let end = end.await.unwrap();
        assert!(check(&end), "{what}: {end}");
    }
    bystander.write_all(&PING).await.unwrap();
    assert_eq!(read(&mut bystander, 2).await, PONG);
}

/// The state cannot be opened from now on: a directory lies in its place.
pub(super) fn break_disk(core: &Core) {
    let state = core.dir().join("state.redb");
    core.close_store_for_tests();
    std::fs::rename(&state, core.dir().join("aside")).unwrap();
    std::fs::create_dir(&state).unwrap();
}

fn mend_disk(core: &Core) {
    let state = core.dir().join("state.redb");
    std::fs::remove_dir(&state).unwrap();
    std::fs::rename(core.dir().join("aside"), &state).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_leaves_a_report_unacknowledged_until_it_works_again() {
    let world = World::new().await;
    let operator = Operator::new(Arc::clone(&world.core), None, None, None, None, None);
    operator.create_update(update(b"x")).await.unwrap();
    let (mut io, _end) = world.client("gw", 6000).await;
    break_disk(&world.core);
    let topic = "$aws/things/gw/jobs/AFR_OTA-u/update";
    let report = |id: u8, status: &str| {
        let payload = format!("{{\"status\":\"{status}\"}}");
        packet(
            0x32,
            &[&text(topic)[..], &[0, id], payload.as_bytes()].concat(),
        )
    };
    io.write_all(&report(1, "IN_PROGRESS")).await.unwrap();
    io.write_all(&PING).await.unwrap();
    assert_eq!(read(&mut io, 2).await, PONG, "neither PUBACK nor reply");
    // From now on the service says that it cannot.
    io.write_all(&report(2, "SUCCEEDED")).await.unwrap();
    assert_eq!(read(&mut io, 4).await, [0x40, 2, 0, 2]);
    let mut head = read(&mut io, 3).await;
    let length = usize::from(head[1] & 0x7f) + (usize::from(head[2]) << 7);
    head.extend(read(&mut io, length).await);
    let rejected = String::from_utf8_lossy(&head).into_owned();
    assert!(rejected.contains("InternalError"), "{rejected}");
    let error = operator.thing_create(&thing("late")).await.unwrap_err();
    assert_eq!(error.code(), "unavailable");
    // The disk is back, and the next attempt keeps what was said in between.
    mend_disk(&world.core);
    while operator.thing_create(&thing("late")).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    io.write_all(&report(3, "SUCCEEDED")).await.unwrap();
    assert_eq!(read(&mut io, 4).await, [0x40, 2, 0, 3]);
    let stored = std::fs::read(world.core.dir().join("state.redb")).unwrap();
    let stored = String::from_utf8_lossy(&stored);
    assert!(stored.contains("\"SUCCEEDED\"") && stored.contains("late"));
}

#[tokio::test(start_paused = true)]
async fn what_is_done_while_the_disk_fails_is_in_force_and_told_as_such() {
    let world = World::new().await;
    let operator = Operator::new(Arc::clone(&world.core), None, None, None, None, None);
    break_disk(&world.core);
    let error = operator.create_update(update(b"x")).await.unwrap_err();
    assert_eq!(error.code(), "unstored", "{error}");
    assert_eq!(operator.list()[0].job_id.as_str(), "AFR_OTA-u");
}

#[tokio::test(start_paused = true)]
async fn images_of_a_deletion_that_is_stored_later_go_then() {
    let world = World::new().await;
    let operator = Operator::new(Arc::clone(&world.core), None, None, None, None, None);
    operator.create_update(update(b"x")).await.unwrap();
    let image = world
        .core
        .dir()
        .join("images")
        .join(ImageId::of(b"x").as_str());
    assert!(image.exists());
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(Arc::clone(&world.core).run_images(stopped));
    break_disk(&world.core);
    let job = operator.list()[0].job_id.clone();
    let error = operator.delete_job(&job, true).await.unwrap_err();
    assert_eq!(error.code(), "unstored", "{error}");
    assert!(image.exists(), "what is on disk may still name it");
    mend_disk(&world.core);
    while image.exists() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_gone_before_its_thing_whatever_the_disk_does() {
    let world = World::new().await;
    let operator = Operator::new(Arc::clone(&world.core), None, None, None, None, None);
    let gw = thing("gw");
    let old = operator.thing_create(&gw).await.unwrap();
    break_disk(&world.core);
    let error = operator.delete_thing(&gw, false).await.unwrap_err();
    assert_eq!(error.code(), "unstored", "{error}");
    // The cloud may end here.
    assert!(!old.private_key_path.exists() && !old.certificate_path.exists());
    mend_disk(&world.core);
    let new = loop {
        match operator.thing_create(&gw).await {
            Ok(new) => break new,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    assert_ne!(new.fingerprint, old.fingerprint);
    let certificates = operator.describe_thing(&gw).unwrap().thing.certificates;
    assert_eq!(certificates, [new.fingerprint]);
    // A key that cannot be removed keeps its thing.
    std::fs::remove_file(&new.private_key_path).unwrap();
    std::fs::create_dir(&new.private_key_path).unwrap();
    let error = operator.delete_thing(&gw, false).await.unwrap_err();
    assert!(error.to_string().contains("gw.key"), "{error}");
    assert!(world.core.is_thing(&gw));
}
