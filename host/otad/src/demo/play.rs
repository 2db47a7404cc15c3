//! Plays a scenario on its stage: creates the job, follows it, does what the script says, looks at the end.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use host_cloud::CloudStats;
use host_cloud::operator::wire::{CreateJob, CreateUpdate, FileSpec, ImageInput};
use host_cloud::service::{JobId, JobView, Protocol, SigKey, Signature, ThingName};
use host_crypto::{SigningKey, hex};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::Options;
use super::daemon::{Daemon, LogLine};
use super::judge::{Found, Verdict, judge};
use super::program;
use super::scenario::{Act, Image, Job, Milestone, Scenario};
use super::stage::{self, OLD_VERSION, Stage, THING, failed};
use super::timeline::{Seen, Timeline};
use crate::control::client::Client;
use crate::control::protocol::{Request, Verb};
use crate::exit::{Exit, Failed};
use crate::progress::say;

/// A scenario that takes longer hangs.
const PLAY_MAX: Duration = Duration::from_secs(180);

/// After the job's end the daemon comes to rest, and the targets run what they should.
const SETTLE_MAX: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Events on their way to the timeline.
const EVENTS_MAX: usize = 64;

pub(super) async fn play(
    scenario: &Scenario,
    dir: &Path,
    options: Options,
) -> Result<Verdict, Failed> {
    let stage = Stage::set(scenario, dir, options.carrier, options.broker).await?;
    let place = match &stage.broker {
        Some(broker) => format!("answers at {}", broker.url),
        None => "listens".to_owned(),
    };
    say(&format!(
        "cloud {place}, version {OLD_VERSION} runs, starting the daemon"
    ));
    let (mut daemon, lines) = Daemon::start(&stage.config, options.verbose)?;
    daemon.ready().await?;
    say("connected");
    let bystanders = Bystanders::look(scenario, &stage, dir)?;
    let mut timeline = Timeline::new(stage.targets[target_of(scenario)]);
    if matches!(scenario.job, Job::Group(_)) {
        timeline.tell_others(&stage.targets);
    }
    let job = create(scenario, &stage, dir).await?;
    timeline.note(&format!("job {job} created"));
    let followed = tokio::time::timeout(
        PLAY_MAX,
        follow(scenario, &stage, &daemon, dir, &job, lines, &mut timeline),
    );
    let mut complaints = match followed.await {
        Ok(complaints) => complaints?,
        Err(_) => vec![format!("no end after {} s", PLAY_MAX.as_secs())],
    };
    complaints.extend(settle(scenario, &stage, &daemon, dir).await);
    complaints.extend(bystanders.compare()?);
    complaints.extend(processes(scenario, &stage, dir));
    complaints.extend(carriers(scenario, &stage.cloud.stats()));
    let view = show(&stage, &job)?;
    let status = daemon.status().await?;
    let found = Found {
        status: job_status(&view),
        reason: job_reason(&view),
        printed: stage.printed(dir),
        reported: reported(&stage, &status),
        complaints,
    };
    print_end(&stage, &status);
    daemon.stop().await?;
    stage.cloud.shutdown().await;
    Ok(judge(&scenario.end, &timeline.seen(), found))
}

fn target_of(scenario: &Scenario) -> usize {
    match &scenario.job {
        Job::Image(image) | Job::Agent(image) => usize::try_from(image.file_id).unwrap_or(0),
        // The gateway's own software is the last to go.
        Job::Group(_) | Job::Document(_) => 0,
    }
}

fn thing() -> Result<ThingName, Failed> {
    THING.parse().map_err(|e| failed("thing name", &e))
}

/// What the operator does.
async fn create(scenario: &Scenario, stage: &Stage, dir: &Path) -> Result<JobId, Failed> {
    let operator = stage.cloud.operator();
    match &scenario.job {
        Job::Document(text) => {
            let document = serde_json::from_str(text).map_err(|e| failed("job document", &e))?;
            let job_id: JobId = "foreign-1".parse().map_err(|e| failed("job id", &e))?;
            let job = CreateJob {
                job_id,
                things: vec![thing()?],
                document,
                description: String::new(),
                timeout_minutes: None,
                plan: Default::default(),
            };
            let view = operator.create_job(job).await;
            Ok(view.map_err(|e| failed("creating the job", &e))?.job_id)
        }
        Job::Image(_) | Job::Agent(_) | Job::Group(_) => {
            let files: Result<Vec<_>, _> = scenario
                .job
                .images()
                .iter()
                .map(|image| sign(image, stage, dir))
                .collect();
            let mut update = CreateUpdate::new(vec![thing()?], files?);
            update.protocols = scenario.protocols.to_vec();
            let created = operator.create_update(update).await;
            Ok(created
                .map_err(|e| failed("creating the update", &e))?
                .job_id)
        }
    }
}

fn sign(image: &Image, stage: &Stage, dir: &Path) -> Result<FileSpec, Failed> {
    let signer = stage
        .cloud
        .code_signing()
        .map_err(|e| failed("signing key", &e))?;
    let key =
        SigningKey::from_pem(&signer.private_key_pem).map_err(|e| failed("signing key", &e))?;
    let mut bytes = stage.new_image(dir, image)?;
    let (hashed, signature) = key
        .sign_stream(&bytes[..])
        .map_err(|e| failed("signing the image", &e))?;
    say(&format!(
        "image {} of {} bytes, SHA-256 {}…, signed",
        image.version,
        bytes.len(),
        &hex(hashed.sha256())[..16]
    ));
    if image.tampered {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        say(&format!("bit 0 of byte {middle} is turned over"));
    }
    Ok(FileSpec {
        file_id: u8::try_from(image.file_id).unwrap_or(0),
        image: ImageInput::Bytes(bytes.into()),
        sha256: None,
        file_type: None,
        file_path: format!("app-{}", image.version),
        cert_file: String::new(),
        signature: Some(Signature {
            key: SigKey::Sha256Ecdsa,
            base64: BASE64.encode(signature),
        }),
    })
}

/// Until the job has ended and the script is through; returns the script's complaints.
async fn follow(
    scenario: &Scenario,
    stage: &Stage,
    daemon: &Daemon,
    dir: &Path,
    job: &JobId,
    mut lines: mpsc::Receiver<LogLine>,
    timeline: &mut Timeline,
) -> Result<Vec<String>, Failed> {
    let mut events = spawn_events(&daemon.client);
    let mut changes = stage
        .cloud
        .operator()
        .watch(job)
        .map_err(|e| failed("watching the job", &e))?;
    let (notes, mut noted) = mpsc::channel(EVENTS_MAX);
    let script = run_script(scenario, stage, daemon, dir, job, timeline.watch(), notes);
    tokio::pin!(script);
    let mut complaints = None;
    let mut ended = false;
    let mut look = tokio::time::interval(LOOK_EVERY);
    while complaints.is_none() || !ended {
        tokio::select! {
            Some(line) = lines.recv() => timeline.on_line(&line),
            Some(name) = events.recv() => timeline.on_event(&name),
            Some(note) = noted.recv() => timeline.note(&note),
            change = changes.next(), if !ended => ended = change.is_none(),
            result = &mut script, if complaints.is_none() => complaints = Some(result?),
            _ = look.tick() => {
                if let Ok(status) = daemon.status().await {
                    let target = &status["targets"][target_of(scenario)];
                    let number = |key: &str| target[key].as_u64().unwrap_or(0);
                    timeline.on_held(number("held"), number("size"));
                }
            }
        }
    }
    // What the daemon has said before the job's end reached the cloud is in the pipe.
    tokio::time::sleep(LOOK_EVERY).await;
    while let Ok(line) = lines.try_recv() {
        timeline.on_line(&line);
    }
    timeline.note("job ended");
    // From here on nobody waits for lines; they go to the log file only.
    tokio::spawn(async move { while lines.recv().await.is_some() {} });
    Ok(complaints.unwrap_or_default())
}

/// The names of the application's events as they come.
fn spawn_events(client: &Client) -> mpsc::Receiver<String> {
    let (names, received) = mpsc::channel(EVENTS_MAX);
    let client = client.clone();
    tokio::spawn(async move {
        let verb = Verb::Events {
            after: 0,
            follow: true,
        };
        let request = Request::new(verb);
        let result = client.stream(&request, |event| {
            let name = event["name"].as_str().unwrap_or("").to_owned();
            // A full channel loses names, and the scenario will say so.
            drop(names.try_send(name));
        });
        if let Err(e) = result.await {
            tracing::debug!("events: {e}");
        }
    });
    received
}

async fn run_script(
    scenario: &Scenario,
    stage: &Stage,
    daemon: &Daemon,
    dir: &Path,
    job: &JobId,
    mut seen: watch::Receiver<Seen>,
    notes: mpsc::Sender<String>,
) -> Result<Vec<String>, Failed> {
    let mut complaints = Vec::new();
    for act in scenario.script {
        let note = match act {
            Act::AwaitHeldPercent(percent) => {
                wait(&mut seen, |s| s.held_percent >= *percent).await?;
                continue;
            }
            Act::AwaitEvent(name) => {
                wait(&mut seen, |s| s.events.iter().any(|e| e == name)).await?;
                continue;
            }
            Act::CutMs(ms) => {
                notes
                    .send(format!("the line is cut for {ms} ms"))
                    .await
                    .ok();
                stage.proxy.set_up(false);
                tokio::time::sleep(Duration::from_millis(*ms)).await;
                stage.proxy.set_up(true);
                "the line is back".to_owned()
            }
            Act::EndHttp => {
                if let Some(proxy) = &stage.http_proxy {
                    proxy.set_up(false);
                }
                "the image server is gone".to_owned()
            }
            Act::Cancel => {
                let cancelled = stage.cloud.operator().cancel(job, true, None).await;
                cancelled.map_err(|e| failed("cancelling the job", &e))?;
                "cancelled by the operator".to_owned()
            }
            Act::Decline(reason) => {
                let verb = Verb::Decline {
                    job: job.to_string(),
                    reason: Some((*reason).to_owned()),
                };
                daemon.client.call(&Request::new(verb)).await?;
                format!("declined: {reason}")
            }
            Act::CheckOldRuns => {
                if !stage.is_old(dir) {
                    complaints.push(format!("version {OLD_VERSION} does not run any more"));
                    continue;
                }
                format!("version {OLD_VERSION} still runs")
            }
            Act::Activate => {
                daemon.client.call(&Request::new(Verb::Activate)).await?;
                "activated by the owner".to_owned()
            }
        };
        notes.send(note).await.ok();
    }
    Ok(complaints)
}

async fn wait(
    seen: &mut watch::Receiver<Seen>,
    until: impl FnMut(&Seen) -> bool,
) -> Result<(), Failed> {
    match seen.wait_for(until).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Failed::new(Exit::Failed, "the timeline ended too soon")),
    }
}

/// Wait until the daemon is idle and what it reports is what the programs printed.
async fn settle(scenario: &Scenario, stage: &Stage, daemon: &Daemon, dir: &Path) -> Option<String> {
    let expected: Vec<Option<String>> = scenario
        .end
        .versions
        .iter()
        .map(|v| Some((*v).to_owned()))
        .collect();
    let settled = async {
        loop {
            if let Ok(status) = daemon.status().await
                && status["state_name"] == "WaitingForJob"
                && status["job_id"].is_null()
                && reported(stage, &status) == expected
                && stage.printed(dir) == expected
            {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    match tokio::time::timeout(SETTLE_MAX, settled).await {
        Ok(()) => None,
        Err(_) => Some(format!(
            "the daemon did not come to rest within {} s",
            SETTLE_MAX.as_secs()
        )),
    }
}

/// Whether the image came the way it should: by what was to carry it, and by nothing else.
fn carriers(scenario: &Scenario, stats: &CloudStats) -> Vec<String> {
    let images = scenario.job.images();
    if images.is_empty() {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for (protocol, name, count) in [
        (Protocol::Mqtt, "blocks over MQTT", stats.blocks),
        (Protocol::Http, "ranges over HTTP", stats.ranges),
    ] {
        let some = scenario.carried_by.contains(&protocol) && !scenario.end.passed.is_empty();
        if some && count == 0 || !scenario.carried_by.contains(&protocol) && count > 0 {
            complaints.push(format!("{count} {name} were sent"));
        }
    }
    let json_wanted = if scenario.json {
        stats.stream_requests
    } else {
        0
    };
    if stats.json_requests != json_wanted {
        complaints.push(format!(
            "{} of {} requests for blocks were in JSON",
            stats.json_requests, stats.stream_requests
        ));
    }
    // What is held is not fetched again: by both ways together little more than the image comes. What was under way when
    // the server went comes once more.
    let whole: u64 = images.iter().map(|image| image.size_bytes as u64).sum();
    if stats.range_bytes > whole + whole / 2 {
        complaints.push(format!("{} bytes came in ranges", stats.range_bytes));
    }
    complaints
}

/// Whether each program runs, the new version in another process than the old one, which has ended, and one that nothing was
/// activated for in its own.
fn processes(scenario: &Scenario, stage: &Stage, dir: &Path) -> Vec<String> {
    let is_left_alone = scenario.end.avoided.contains(&Milestone::Activated);
    let mut complaints = Vec::new();
    for ((target, first), version) in stage.programs().zip(scenario.end.versions) {
        let now = program::running(dir, target);
        if now.is_none() {
            complaints.push(format!("the program of {target} does not run"));
        }
        if *version != OLD_VERSION && program::lives(first) {
            complaints.push(format!("the old program of {target} still runs"));
        }
        if is_left_alone && now != Some(first) {
            complaints.push(format!("the program of {target} was started anew"));
        }
    }
    complaints
}

fn reported(stage: &Stage, status: &Value) -> Vec<Option<String>> {
    (0..stage.printing())
        .map(|i| {
            let version = &status["targets"][i]["running_version"];
            version.as_str().map(str::to_owned)
        })
        .collect()
}

fn print_end(stage: &Stage, status: &Value) {
    for (i, name) in stage.targets.iter().enumerate() {
        let target = &status["targets"][i];
        say(&format!(
            "target {name} (file {i}) runs version {}, image {}",
            target["running_version"].as_str().unwrap_or("unknown"),
            target["image_state"].as_str().unwrap_or("unknown")
        ));
    }
    let stats = stage.cloud.stats();
    let broker = stage.cloud.broker();
    let connections = broker.map_or(stats.connections, |b| b.borrow().connections);
    say(&format!(
        "the cloud has sent {} blocks over {connections} connection(s), and {} ranges by URL; {} requests for blocks were \
         in JSON",
        stats.blocks, stats.ranges, stats.json_requests
    ));
}

fn show(stage: &Stage, job: &JobId) -> Result<JobView, Failed> {
    let view = stage.cloud.operator().show(job);
    view.map_err(|e| failed("looking at the job", &e))
}

fn job_status(view: &JobView) -> String {
    let execution = view.executions.first();
    execution.map_or_else(String::new, |e| e.status.as_str().to_owned())
}

fn job_reason(view: &JobView) -> String {
    let details = view.executions.first().map(|e| &e.status_details);
    let reason = details
        .and_then(|d| d.get("reason"))
        .and_then(Value::as_str);
    reason.unwrap_or("").to_owned()
}

/// Targets that the job is not for: their files and their program must stay as they are.
struct Bystanders {
    before: Vec<(std::path::PathBuf, Vec<u8>)>,
}

impl Bystanders {
    fn look(scenario: &Scenario, stage: &Stage, dir: &Path) -> Result<Self, Failed> {
        let mut before = Vec::new();
        for (i, target) in stage.targets.iter().enumerate() {
            let is_meant = |image: &Image| usize::try_from(image.file_id) == Ok(i);
            if i == target_of(scenario) || scenario.job.images().iter().any(is_meant) {
                continue;
            }
            let files = stage::files(dir, target);
            let pid = dir.join(format!("{target}.pid"));
            for path in [files.slot_a, files.slot_b, files.record, files.tries, pid] {
                let bytes = std::fs::read(&path).map_err(|e| failed("reading a bystander", &e))?;
                before.push((path, bytes));
            }
        }
        Ok(Self { before })
    }

    fn compare(self) -> Result<Vec<String>, Failed> {
        let mut complaints = Vec::new();
        for (path, before) in self.before {
            let now = std::fs::read(&path).map_err(|e| failed("reading a bystander", &e))?;
            if now != before {
                complaints.push(format!("{} was touched", path.display()));
            }
        }
        Ok(complaints)
    }
}
