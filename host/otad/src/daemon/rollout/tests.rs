//! A roll-out over devices whose agents do nothing, until one is told that it has a connection.

use host_runtime::agent::{
    AgentInstance, AgentStatus, Context, Description, Event, StartInfo, Turn, Wait,
};
use host_runtime::device::{DeviceConfig, DevicePorts};
use host_runtime::engine::GuestFault;
use host_runtime::mailbox::Input;
use host_runtime::ports::clock::SystemClock;
use host_runtime::ports::commands::TokioCommands;
use host_runtime::ports::seed::SystemSeed;
use host_runtime::ports::state_dir::FileStateDir;
use host_runtime::ports::transport::Transport;
use host_runtime::ports::workers::BlockingPool;
use host_runtime::status::WAIT_JOB;
use host_runtime::supervisor::prepare;
use host_runtime::types::{Blob, Qos, Token};
use tempfile::TempDir;

use super::*;

/// An agent that waits for a job. A bad one breaks when it hears that there is a connection.
struct Still {
    is_bad: bool,
}

impl AgentInstance for Still {
    fn start(&mut self, _: Context, _: StartInfo) -> Result<Result<Turn, Failure>, GuestFault> {
        let wait = Wait {
            reason: WAIT_JOB,
            detail: String::new(),
            since_ms: 0,
            tries: 0,
            gives_up_ms: None,
            last_error: None,
        };
        Ok(Ok(Turn {
            wait: Some(wait),
            ..Turn::default()
        }))
    }
    fn handle(&mut self, _: Context, event: Event) -> Result<Turn, GuestFault> {
        match event {
            Event::Connected(_) if self.is_bad => Err(GuestFault::Trapped("unreachable".into())),
            _ => Ok(Turn::default()),
        }
    }
    fn status(&mut self) -> Result<AgentStatus, GuestFault> {
        Ok(AgentStatus::default())
    }
    fn snapshot(&mut self, _: Context) -> Result<Blob, GuestFault> {
        Ok(Blob {
            schema: 1,
            bytes: Vec::new(),
        })
    }
    fn memory_bytes(&mut self) -> usize {
        0
    }
}

fn build(label: &str, is_bad: bool) -> Arc<AgentBuild> {
    let description = Description {
        name: "still".into(),
        version: "1.0.0".into(),
        schemas: vec![1],
    };
    AgentBuild::native(label, description, move |_| Ok(Box::new(Still { is_bad })))
}

struct NoWire;

impl Transport for NoWire {
    fn subscribe(&mut self, _: Token, _: &str, _: Qos) {}
    fn unsubscribe(&mut self, _: Token, _: &str) {}
    fn publish(&mut self, _: Token, _: &str, _: Vec<u8>, _: Qos) {}
    fn http_get(&mut self, _: Token, _: &str, _: u64, _: u32) {}
    fn cancel(&mut self, _: Token) {}
}

fn devices(dir: &TempDir, names: &[&str]) -> Vec<DeviceHandle> {
    let device = |name: &&str| {
        let config = DeviceConfig {
            name: (*name).to_owned(),
            agent: build("old", false),
            former_agent: None,
            settings: Vec::new(),
            targets: Vec::new(),
            topics: vec![format!("$aws/things/{name}/")],
        };
        let ports = DevicePorts {
            state: Arc::new(FileStateDir::open(dir.path()).unwrap()),
            workers: Arc::new(BlockingPool::current()),
            commands: Arc::new(TokioCommands::current()),
            clock: Arc::new(SystemClock::new()),
            seed: Arc::new(SystemSeed::new().unwrap()),
        };
        let pending = prepare(config, ports).unwrap();
        pending.start(Box::new(NoWire)).unwrap()
    };
    names.iter().map(device).collect()
}

fn rollout(new: &Arc<AgentBuild>, trial: Duration) -> (Rollout, mpsc::Receiver<Value>) {
    let (items, told) = mpsc::channel(16);
    let build = Arc::clone(new);
    let rollout = Rollout {
        build,
        trial,
        items,
        kept: None,
    };
    (rollout, told)
}

async fn serve(devices: &[DeviceHandle]) -> Vec<String> {
    let mut labels = Vec::new();
    for device in devices {
        labels.push(device.status().await.agent.label);
    }
    labels
}

fn places(devices: &[DeviceHandle], new: &Arc<AgentBuild>) -> Vec<Place> {
    let place = |device: &DeviceHandle| (device.clone(), Arc::clone(new));
    devices.iter().map(place).collect()
}

#[tokio::test]
async fn one_device_comes_first_and_the_rest_once_the_build_has_proved_itself_there() {
    let dir = tempfile::tempdir().unwrap();
    let devices = in_order(devices(&dir, &["a", "b", "c"]), Some("c")).unwrap();
    let new = build("new", false);
    let places = places(&devices, &new);
    // Twice: devices that it serves are passed over.
    for first in ["serves", "served already"] {
        let (rollout, mut told) = rollout(&new, Duration::from_millis(1));
        rollout.swap_all(&places).await.unwrap();
        drop(rollout);
        let mut steps = Vec::new();
        while let Some(item) = told.recv().await {
            let text = |key: &str| item[key].as_str().unwrap().to_owned();
            steps.push((text("device"), text("what")));
        }
        let step = |device: &str, what: &str| (device.to_owned(), what.to_owned());
        assert_eq!(
            steps[..2],
            [step("c", first), step("c", "has proved itself")]
        );
        assert_eq!(steps.len(), 6, "{steps:?}");
        for device in ["a", "b"] {
            assert!(steps.contains(&step(device, first)), "{steps:?}");
            assert!(
                steps.contains(&step(device, "has proved itself")),
                "{steps:?}"
            );
        }
    }
    assert_eq!(serve(&devices).await, ["new", "new", "new"]);
}

#[tokio::test]
async fn the_same_bytes_signed_anew_are_another_build() {
    let dir = tempfile::tempdir().unwrap();
    let devices = devices(&dir, &["a"]);
    let bytes = build("new", false);
    for (manifest, what) in [("aa", "serves"), ("bb", "serves"), ("bb", "served already")] {
        let new = bytes.vouched(manifest, || {});
        let (rollout, mut told) = rollout(&bytes, Duration::from_millis(1));
        rollout.swap_all(&places(&devices, &new)).await.unwrap();
        assert_eq!(told.recv().await.unwrap()["what"], what, "{manifest}");
        let serves = devices[0].status().await.agent;
        assert_eq!(serves.manifest.as_deref(), Some(manifest));
    }
}

#[tokio::test]
async fn a_return_on_the_first_device_leaves_the_rest_alone() {
    let dir = tempfile::tempdir().unwrap();
    let devices = devices(&dir, &["a", "b"]);
    let new = build("new", true);
    let (rollout, mut told) = rollout(&new, TRIAL);
    let places = places(&devices, &new);
    let rolling = tokio::spawn(async move { rollout.swap_all(&places).await });
    assert_eq!(told.recv().await.unwrap()["what"], "serves");
    devices[0].mailbox().send(Input::Connected {
        session_present: false,
    });
    let refusal = rolling.await.unwrap().unwrap_err();
    assert_eq!(refusal.exit, "refused");
    assert!(refusal.text.contains("a: sent back"), "{}", refusal.text);
    assert!(refusal.text.contains("unreachable"), "{}", refusal.text);
    assert_eq!(serve(&devices).await, ["old", "old"]);
}

#[tokio::test]
async fn a_first_device_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = in_order(devices(&dir, &["a"]), Some("z")).unwrap_err();
    assert_eq!(refusal.exit, "nothing");
}

#[tokio::test]
async fn a_device_that_cannot_go_back_does_not_keep_the_rest_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let devices = devices(&dir, &["a", "b"]);
    let new = build("new", false);
    let (rollout, _told) = rollout(&new, Duration::from_millis(1));
    rollout.swap_all(&places(&devices, &new)).await.unwrap();
    devices[0].stop().await;
    let (items, mut told) = mpsc::channel(16);
    let refusal = roll_back(&devices, &items).await.unwrap_err();
    assert!(refusal.text.starts_with("a: "), "{}", refusal.text);
    assert_eq!(told.recv().await.unwrap()["device"], "b");
    assert_eq!(serve(&devices[1..]).await, ["old"]);
}
