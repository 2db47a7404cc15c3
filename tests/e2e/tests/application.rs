//! Applications of other kinds than the example, within the test: what one does slowly, late or not at all changes
//! nothing for the agent, and the agent changes nothing for it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::mpsc as blocking;
use std::time::Duration;

use e2e::cloud::Signed;
use e2e::gateway::Lines;
use e2e::{Cloud, Gateway, Update, image};
use host_cloud::service::ThingName;
use otad::application::rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, QoS,
};
use otad::application::{
    Command, DeviceHandle, Failure, Gateway as Otad, SharedConnection, StoredEvent, event,
};
use support::binary::{code_cache, warm_code_cache};
use support::deadline::{Deadline, PATIENCE, pass};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const THING: &str = "app-2";

/// A topic of the application's own.
const PING: &str = "app-2/ping";
/// How many of them may wait for the test.
const PINGS: usize = 64;

/// Round trips of the application over the broker, while nothing must happen.
const ROUND_TRIPS: usize = 50;

/// Application, connection and agent, in this process.
struct App {
    otad: Otad,
    agent: DeviceHandle,
    shared: SharedConnection,
    options: MqttOptions,
    client: AsyncClient,
    connection: JoinHandle<()>,
    pings: mpsc::Sender<()>,
    pongs: mpsc::Receiver<()>,
    // Last, so that it outlives what runs on it.
    runtime: Runtime,
}

impl App {
    fn start(gateway: &Gateway) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let _on_it = runtime.enter();
        let warming = warm_code_cache().unwrap();
        let mut config = otad::config::load(&gateway.config()).unwrap();
        config.daemon.cache_dir = code_cache();
        let otad = Otad::open(config).unwrap();
        let own = otad.connection_config(THING).unwrap();
        let options = own.mqtt_options().unwrap();
        let (client, events) = AsyncClient::builder(options.clone()).capacity(64).build();
        let shared = SharedConnection::new(client.clone()).unwrap();
        let agent = otad.share(THING, &shared).unwrap();
        warming.done().unwrap();
        let (pings, pongs) = mpsc::channel(PINGS);
        let connection = runtime.spawn(connection(
            events,
            shared.clone(),
            agent.clone(),
            pings.clone(),
        ));
        Self {
            otad,
            agent,
            shared,
            options,
            client,
            connection,
            pings,
            pongs,
            runtime,
        }
    }

    /// Ends the connection and gives the agent another one.
    fn connect_anew(&mut self) {
        self.connection.abort();
        let builder = AsyncClient::builder(self.options.clone());
        let (client, events) = builder.capacity(64).build();
        self.shared = self.shared.renew(client.clone());
        self.client = client;
        self.connection = self.runtime.spawn(connection(
            events,
            self.shared.clone(),
            self.agent.clone(),
            self.pings.clone(),
        ));
    }

    /// Shuts the agent down and starts it again, over the connection that goes on.
    fn start_again(&mut self) {
        self.order(Command::Shutdown { unsubscribe: true });
        self.runtime.block_on(self.agent.stopped());
        assert_eq!(self.state(), "Stopped");
        let _on_it = self.runtime.enter();
        self.agent = self.otad.share(THING, &self.shared).unwrap();
    }

    fn state(&self) -> String {
        self.runtime.block_on(self.agent.status()).state_name
    }

    fn order(&self, command: Command) {
        self.runtime.block_on(self.agent.command(command)).unwrap();
    }

    /// Subscribes to its own topic and waits for the SUBACK: the client sends publishes and subscriptions from two
    /// queues, so that a message that is published next may leave first.
    fn listen(&self) {
        self.runtime.block_on(async {
            let asked = self.client.subscribe_tracked(PING, QoS::AtLeastOnce);
            let granted = asked.await.unwrap().wait_async();
            tokio::time::timeout(PATIENCE, granted)
                .await
                .unwrap()
                .unwrap();
        });
    }

    /// One message to itself and back, over the shared connection.
    fn round_trip(&mut self) {
        self.runtime.block_on(async {
            self.client
                .publish(PING, "ping", PublishOptions::new(QoS::AtLeastOnce))
                .await
                .unwrap();
            let pong = tokio::time::timeout(PATIENCE, self.pongs.recv()).await;
            assert_eq!(pong, Ok(Some(())), "the application's message is lost");
        });
    }

    fn round_trips(&mut self) {
        (0..ROUND_TRIPS).for_each(|_| self.round_trip());
    }

    /// Waits for an event of the agent without being its reader.
    fn wait_event(&self, kind: u32) -> StoredEvent {
        let find = async {
            let mut cursor = 0;
            loop {
                for stored in self.agent.events_after(cursor, 100).await {
                    cursor = stored.event.sequence;
                    if stored.event.kind == kind {
                        return stored;
                    }
                }
            }
        };
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, find).await })
            .unwrap()
    }
}

/// The application's connection: it subscribes to a topic of its own, and resumes the agent.
async fn connection(
    mut events: EventLoop,
    shared: SharedConnection,
    agent: DeviceHandle,
    pings: mpsc::Sender<()>,
) {
    while let Ok(event) = events.poll().await {
        shared.incoming(&event);
        match event {
            Event::Incoming(Packet::ConnAck(_)) => agent.command(Command::Resume).await.unwrap(),
            Event::Incoming(Packet::Publish(publish)) if publish.topic == PING.as_bytes() => {
                // The test may be over, or look at none of them.
                let _ = pings.try_send(());
            }
            _ => {}
        }
    }
}

fn by_hand(lines: &mut Lines) {
    lines.target().lines = "activation = \"deferred\"\nself_test = \"external\"\n".to_owned();
}

fn in_small_blocks(lines: &mut Lines) {
    lines.device().agent =
        "block_size = 1024\nblocks_per_request = 2\nrequests_in_flight = 1\nstatus_frequency = 16\n".to_owned();
}

fn new_image(size: usize) -> Vec<u8> {
    image::program("1.1.0", "exit 0", size)
}

fn gateway(cloud: &Cloud, change: fn(&mut Lines)) -> Gateway {
    let gateway = Gateway::with(cloud, &[THING], change);
    gateway.init(&image::program("1.0.0", "exit 0", 20_000));
    gateway
}

#[test]
fn an_update_goes_on_over_a_new_connection_that_is_given_on_resume() {
    const BLOCKS: u64 = 400;
    let cloud = Cloud::start();
    let gateway = gateway(&cloud, in_small_blocks);
    let mut app = App::start(&gateway);
    let job = cloud.update(THING, Update::of(new_image(BLOCKS as usize * 1024)));
    cloud.wait_received(&job, 32);
    app.order(Command::Suspend);
    assert_eq!(app.state(), "Suspended", "before its connection is closed");
    app.connect_anew();
    assert_eq!(
        cloud.wait_end(&job).as_pair(),
        ("SUCCEEDED", "accepted  v1.1.0")
    );
    let stats = cloud.stats();
    assert_eq!((stats.connections, stats.connected), (2, 1));
    assert!(
        stats.blocks <= BLOCKS + 4,
        "{} blocks were sent, at most a window is fetched twice",
        stats.blocks
    );
}

#[test]
fn an_agent_that_was_shut_down_is_started_again_and_does_its_job_and_the_next() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud, in_small_blocks);
    let mut app = App::start(&gateway);
    let job = cloud.update(THING, Update::of(new_image(400 * 1024)));
    cloud.wait_received(&job, 32);
    app.start_again();
    assert_eq!(
        cloud.wait_end(&job).as_pair(),
        ("SUCCEEDED", "accepted  v1.1.0")
    );
    app.start_again();
    let next = Update::of(image::program("1.2.0", "exit 0", 20_000));
    assert_eq!(
        cloud.wait_end(&cloud.update(THING, next)).as_pair(),
        ("SUCCEEDED", "accepted  v1.2.0")
    );
    assert_eq!(cloud.stats().connections, 1);
}

#[test]
fn an_application_that_sleeps_does_not_slow_the_agent_down() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud, by_hand);
    let app = App::start(&gateway);
    let (wake, sleep) = blocking::sync_channel::<()>(1);
    let agent = app.agent.clone();
    let application = app.runtime.spawn(async move {
        let mut handled = Vec::new();
        while let Some(stored) = agent.next_event().await {
            let file = stored.event.file.unwrap_or(0);
            handled.push(stored.event.kind);
            match stored.event.kind {
                // A callback that blocks its thread.
                event::RECEIVED_JOB => tokio::task::block_in_place(|| sleep.recv()).unwrap(),
                event::ACTIVATE => agent.command(Command::Activate(file)).await.unwrap(),
                event::START_TEST => {
                    let failure = None;
                    let verdict = Command::TestResult { file, failure };
                    agent.command(verdict).await.unwrap();
                }
                event::JOB_ENDED => break,
                _ => {}
            }
        }
        handled
    });
    let job = cloud.update(THING, Update::of(new_image(200_000)));
    // The image is there and verified while the callback still sleeps over the first event.
    app.wait_event(event::ACTIVATE);
    assert!(!application.is_finished());
    wake.send(()).unwrap();
    assert_eq!(cloud.wait_end(&job).status, "SUCCEEDED");
    let handled = app
        .runtime
        .block_on(async { tokio::time::timeout(PATIENCE, application).await })
        .unwrap()
        .unwrap();
    let news = [
        event::RECEIVED_JOB,
        event::ACTIVATE,
        event::START_TEST,
        event::JOB_ENDED,
    ];
    let handled: Vec<u32> = handled
        .into_iter()
        .filter(|kind| news.contains(kind))
        .collect();
    assert_eq!(handled, news);
}

#[test]
fn what_the_application_does_not_answer_nobody_answers_for_it() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud, by_hand);
    let mut app = App::start(&gateway);
    app.listen();
    let job = cloud.update(THING, Update::of(new_image(20_000)));
    app.wait_event(event::ACTIVATE);
    app.round_trips();
    assert_eq!(app.state(), "WaitingForActivation");
    assert!(!gateway.path("launch.log").exists(), "nothing is restarted");
    app.order(Command::Activate(0));
    app.wait_event(event::START_TEST);
    app.round_trips();
    assert_eq!(app.state(), "Testing", "nobody else gives a verdict");
    let failure = Some(Failure::new(0, 7, "the pump does not turn"));
    app.order(Command::TestResult { file: 0, failure });
    let ended = cloud.wait_end(&job);
    assert_eq!(ended.status, "FAILED", "{ended:?}");
    app.wait_event(event::ROLLED_BACK);
}

#[test]
fn the_applications_own_messages_flow_while_an_update_is_received() {
    let cloud = Cloud::start();
    let gateway = gateway(&cloud, |lines| {
        by_hand(lines);
        in_small_blocks(lines);
    });
    let mut app = App::start(&gateway);
    app.listen();
    app.round_trip();
    cloud.update(THING, Update::of(new_image(400 * 1024)));
    app.wait_event(event::RECEIVED_JOB);
    let received = |app: &App| app.agent.events().after(0, 100);
    let mut round_trips = 0;
    while !received(&app)
        .iter()
        .any(|stored| stored.event.kind == event::ACTIVATE)
    {
        app.round_trip();
        round_trips += 1;
    }
    // 200 requests of two blocks each: were messages to wait for blocks, there would be next to none.
    assert!(round_trips >= 40, "only {round_trips} round trips");
    assert_eq!(cloud.stats().connections, 1);
}

/// A guest's messages come by a task of another thread's, whatever the number of cores.
#[test]
fn devices_of_one_connection_may_live_on_runtimes_of_their_own() {
    let things = ["owner", "guest", "another"];
    let cloud = Cloud::start_with(|config| config.plain = Some(([127, 0, 0, 1], 0).into()));
    let gateway = Gateway::with(&cloud, &things, |lines| {
        let (owner, guests) = lines.devices.split_first_mut().unwrap();
        owner.port = cloud.running().plain_addr().unwrap().port();
        owner.mqtt = "tls = false\n".to_owned();
        for guest in guests {
            guest.connection_of = Some(owner.thing.clone());
        }
    });
    gateway.init(&image::program("1.0.0", "", 6000));
    let runtime = || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    };
    let (main, threads) = (runtime(), things.map(|_| runtime()));
    let warming = warm_code_cache().unwrap();
    let mut config = otad::config::load(&gateway.config()).unwrap();
    config.daemon.cache_dir = code_cache();
    let otad = {
        let _on_it = main.enter();
        Otad::open(config).unwrap()
    };
    let connect = |(thing, thread): (&&str, &Runtime)| {
        let _there = thread.enter();
        otad.connect(thing).unwrap()
    };
    let devices: Vec<_> = things.iter().zip(&threads).map(connect).collect();
    warming.done().unwrap();
    // It comes whole and is refused then: nothing is started in this process.
    let update = Update {
        signed: Signed::Before(vec![1]),
        ..Update::of(image::program("1.1.0", "", 6000))
    };
    let job = cloud.update_all(&things, update);
    let deadline = Deadline::after(PATIENCE);
    while cloud.counts(&job).get("FAILED") != Some(&things.len()) {
        assert!(deadline.left().is_some(), "{:?}", cloud.counts(&job));
        pass(Duration::from_millis(20));
    }
    let stats = cloud.stats();
    for thing in things {
        let blocks = stats.things[&ThingName::new(thing).unwrap()].service.blocks;
        assert_eq!(blocks, 2, "{thing}");
    }
    assert_eq!(stats.connections, 1);
    for device in devices {
        main.block_on(device.handle.stop());
    }
    main.block_on(otad.disconnect());
}
