//! What is kept of jobs over ends, kills, torn files and full disks.

use super::book::{RETRY_MS, SENT_MAX_BYTES, WORDS_AFTER_MS};
use super::*;
use crate::agent::FileStatus;
use crate::testing::{FakeState, StepWorkers, desk};
use crate::types::Version;

const DEVICE: &str = "pump-1";
const FILE: &str = "devices/pump-1/history";

struct Bench {
    state: Arc<FakeState>,
    workers: Arc<StepWorkers>,
    events: EventRing,
    history: History,
    now: Context,
}

impl Bench {
    fn new() -> Self {
        Self::on(Arc::default())
    }

    fn on(state: Arc<FakeState>) -> Self {
        let workers = Arc::new(StepWorkers::default());
        let desk = desk(DEVICE, &state, &workers);
        let events = EventRing::load(Arc::clone(&desk)).unwrap();
        let history = History::load(desk, &events).unwrap();
        let mut bench = Self {
            state,
            workers,
            events,
            history,
            now: Context {
                now_ms: 1000,
                wall_s: Some(1_900_000_000),
            },
        };
        bench.settle();
        bench
    }

    /// The process is killed: what was not written is gone.
    fn killed(self) -> Self {
        Self::on(self.state)
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            self.events.poll(self.now.now_ms);
            self.history.poll(self.now.now_ms);
            if !self.workers.run_one() {
                return;
            }
        }
        panic!("it never settles");
    }

    fn status(&mut self, job: Option<&str>, phase: u8, done: u64, received: u64) {
        let file = FileStatus {
            file: 0,
            phase,
            done,
            total: 512,
            version: (phase > 3).then_some(Version {
                major: 1,
                minor: 1,
                ..Version::default()
            }),
        };
        let status = AgentStatus {
            job_id: job.map(str::to_owned),
            files: job.map(|_| file).into_iter().collect(),
            received,
            ..AgentStatus::default()
        };
        let target = |_| Some(("main".to_owned(), Some("1.0.0".to_owned())));
        self.history.on_status(self.now, &status, target);
        self.settle();
    }

    fn event(&mut self, sequence: u64, job: &str, document: &str) -> ApplicationEvent {
        let event = ApplicationEvent {
            sequence,
            kind: event::JOB_ENDED,
            job_id: Some(job.to_owned()),
            file: None,
            failure: None,
            version: None,
            document: document.as_bytes().to_vec(),
        };
        self.history.on_event(self.now.wall_s, &event);
        self.settle();
        event
    }

    fn glance(status: &AgentStatus) -> Glance<'_> {
        static WAIT: Wait = Wait {
            reason: 1,
            detail: String::new(),
            since_ms: 0,
            tries: 0,
            gives_up_ms: None,
            last_error: None,
        };
        Glance {
            status,
            wait: Some(&WAIT),
            deadline_ms: None,
            connected: true,
            faults: 0,
            last_error: None,
        }
    }

    fn jobs(&self) -> Vec<JobRecord> {
        self.history.story().jobs
    }

    fn kept(&self) -> Story {
        read(&*self.state, DEVICE).unwrap()
    }
}

#[test]
fn a_job_is_kept_with_versions_bytes_repeats_and_its_end() {
    let mut bench = Bench::new();
    bench.status(Some("job-1"), 2, 0, 0);
    for _ in 0..512 {
        bench.history.on_block(4096);
    }
    bench.now.now_ms += 5000;
    bench.status(Some("job-1"), 4, 512, 520);
    bench.status(None, 4, 512, 520);
    bench.event(7, "job-1", r#"{"status":"SUCCEEDED"}"#);
    assert_eq!(bench.kept(), bench.history.story());
    let [job] = &bench.jobs()[..] else {
        panic!("{:?}", bench.jobs());
    };
    assert_eq!(
        (job.bytes, job.blocks_fetched, job.blocks_twice),
        (2 << 20, 520, 8)
    );
    assert_eq!((job.took_ms, job.restarts), (5000, 0));
    let end = job.end.as_ref().unwrap();
    assert_eq!(end.sent.as_deref(), Some(r#"{"status":"SUCCEEDED"}"#));
    assert_eq!(end.at_s, Some(1_900_000_000));
    let file = &job.files[0];
    assert_eq!(file.target, "main");
    assert_eq!(file.from.as_deref(), Some("1.0.0"));
    assert_eq!(file.to.as_deref(), Some("1.1.0"));
}

#[test]
fn a_killed_process_is_counted_and_its_counts_go_on() {
    let mut bench = Bench::new();
    bench.status(Some("job-1"), 2, 0, 0);
    for _ in 0..300 {
        bench.history.on_block(4096);
        bench.settle();
    }
    let mut bench = bench.killed();
    // 300 blocks are held; the new instance counts from 0.
    bench.status(Some("job-1"), 2, 300, 0);
    bench.status(Some("job-1"), 4, 512, 220);
    let mut bench = bench.killed();
    bench.status(Some("job-1"), 4, 512, 0);
    bench.event(3, "job-1", "{}");
    let [job] = &bench.jobs()[..] else {
        panic!("{:?}", bench.jobs());
    };
    assert_eq!(job.restarts, 2);
    assert_eq!(job.bytes, 1 << 20, "to the last mebibyte");
    assert_eq!((job.blocks_fetched, job.blocks_twice), (512, 0));
    assert!(job.end.is_some());
}

#[test]
fn an_end_that_only_the_event_ring_has_is_made_good_at_the_next_start() {
    let mut bench = Bench::new();
    bench.status(Some("job-1"), 2, 0, 0);
    let state = Arc::clone(&bench.state);
    let mut event = bench.event(9, "job-2", "{}");
    event.sequence = 10;
    event.job_id = Some("job-1".to_owned());
    bench.events.emit(Some(5), event);
    bench.settle();
    let bench = Bench::on(state);
    let ended: Vec<(String, u64)> = bench
        .jobs()
        .into_iter()
        .filter_map(|job| Some((job.job_id, job.end?.event)))
        .collect();
    assert_eq!(ended, [("job-1".to_owned(), 10), ("job-2".to_owned(), 9)]);
    assert_eq!(bench.jobs()[0].restarts, 0, "it was over");
}

#[test]
fn a_withdrawn_job_has_an_end_and_no_status() {
    let mut bench = Bench::new();
    bench.status(Some("job-1"), 2, 7, 9);
    bench.event(1, "job-1", "");
    let job = bench.jobs().remove(0);
    assert_eq!(job.end.unwrap().sent, None);
    assert_eq!(job.blocks_twice, 2);
}

#[test]
fn a_job_of_the_same_name_is_another_job() {
    let mut bench = Bench::new();
    for sequence in [1, 2] {
        bench.status(Some("job-1"), 2, 0, 0);
        bench.status(None, 2, 0, 0);
        bench.event(sequence, "job-1", "{}");
    }
    // Told twice is not ended twice.
    bench.event(2, "job-1", "{}");
    assert_eq!(bench.jobs().len(), 2);
    assert_eq!(bench.kept(), bench.history.story());
}

#[test]
fn the_oldest_jobs_make_room_and_the_file_stays_bounded() {
    let mut bench = Bench::new();
    for n in 1..=2 * JOBS_MAX as u64 {
        let job = format!("job-{n}");
        bench.status(Some(&job), 2, 0, 0);
        bench.event(n, &job, &"x".repeat(SENT_MAX_BYTES * 2));
        assert_eq!(bench.kept(), bench.history.story(), "{n}");
        let size = bench.state.load(FILE).unwrap().unwrap().len();
        // Records of the largest kind: the file is written anew at twice their size.
        assert!(size < 3 * FILE_MAX_BYTES, "{size}");
    }
    let jobs = bench.jobs();
    assert_eq!(jobs.len(), JOBS_MAX);
    assert_eq!(jobs[0].job_id, format!("job-{}", JOBS_MAX + 1));
    let sent = jobs[0].end.as_ref().unwrap().sent.as_ref().unwrap();
    assert_eq!(sent.len(), SENT_MAX_BYTES);
}

#[test]
fn wherever_the_file_is_cut_what_came_before_is_read() {
    let mut bench = Bench::new();
    for n in 1..=3 {
        let job = format!("job-{n}");
        bench.status(Some(&job), 2, 0, 0);
        bench.event(n, &job, "{}");
    }
    let whole = bench.state.load(FILE).unwrap().unwrap();
    let mut most = 0;
    for cut in 0..whole.len() {
        bench.state.store(FILE, &whole[..cut]).unwrap();
        let story = bench.kept();
        assert!(story.jobs.len() >= most, "cut {cut}");
        most = story.jobs.len();
        let mut other = Bench::on(Arc::clone(&bench.state));
        other.status(Some("job-9"), 2, 0, 0);
        assert_eq!(other.kept(), other.history.story(), "cut {cut}");
        assert_eq!(other.jobs().len(), most + 1, "cut {cut}");
    }
    assert_eq!(most, 3);
}

#[test]
fn a_flipped_bit_loses_its_record_and_nothing_else_and_that_is_said() {
    let mut bench = Bench::new();
    bench.status(Some("job-1"), 2, 0, 0);
    bench.event(1, "job-1", "{}");
    let whole = bench.state.load(FILE).unwrap().unwrap();
    for byte in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[byte] ^= 0x10;
        let (story, is_whole) = file::decode(&bytes);
        assert!(!is_whole, "byte {byte}");
        assert_eq!(story.jobs.len(), 1, "byte {byte}");
    }
    let middle = whole.len() / 2;
    let spoilt = [&whole[..20], b"#####", &whole[25..]].concat();
    bench.state.store(FILE, &spoilt).unwrap();
    assert!(
        bench
            .kept()
            .lost_bytes
            .is_some_and(|lost| lost < middle as u64)
    );
    // Once: the file is whole again when it has been loaded.
    let bench = Bench::on(bench.state);
    assert_eq!(bench.kept().lost_bytes, None);
    assert_eq!(bench.kept().jobs.len(), 1);
}

#[test]
fn of_a_job_whose_record_is_lost_only_its_end_is_said_to_be_known() {
    let mut bench = Bench::new();
    bench.status(Some("job-1"), 2, 0, 0);
    let event = bench.event(1, "job-1", "{}");
    bench.events.emit(Some(5), event);
    // Refused before it was taken: there is nothing more to be known.
    bench.event(2, "job-2", "{}");
    bench.settle();
    assert!(bench.jobs().iter().all(|job| !job.only_end));
    bench.state.store(FILE, b"damaged").unwrap();
    let bench = Bench::on(bench.state);
    let jobs = bench.jobs();
    assert_eq!(jobs.len(), 1);
    assert!(jobs[0].only_end && jobs[0].end.is_some());
    assert_eq!(jobs[0].began_s, None);
}

#[test]
fn a_full_disk_is_tried_again_and_nothing_is_lost_once_it_has_room() {
    let mut bench = Bench::new();
    bench.state.fail_with(Some(28));
    bench.status(Some("job-1"), 2, 0, 0);
    bench.event(1, "job-1", "{}");
    assert!(bench.history.is_quiet(), "a stop does not wait for it");
    assert_eq!(bench.kept(), Story::default());
    bench.state.fail_with(None);
    assert_eq!(
        bench.history.poll(bench.now.now_ms),
        Some(bench.now.now_ms + RETRY_MS)
    );
    bench.now.now_ms += RETRY_MS;
    bench.settle();
    assert_eq!(bench.kept(), bench.history.story());
    assert_eq!(bench.jobs().len(), 1);
}

#[test]
fn only_a_wait_that_lasts_is_written_down_and_only_once() {
    let mut bench = Bench::new();
    let mut status = AgentStatus::default();
    let writes = bench.state.writes();
    let until = bench.history.look(bench.now, &Bench::glance(&status));
    assert_eq!(until, Some(bench.now.now_ms + WORDS_AFTER_MS));
    // Another one before that: the time begins anew.
    bench.now.now_ms += WORDS_AFTER_MS - 1;
    status.state = 3;
    assert!(
        bench
            .history
            .look(bench.now, &Bench::glance(&status))
            .is_some()
    );
    bench.now.now_ms += WORDS_AFTER_MS;
    assert_eq!(bench.history.look(bench.now, &Bench::glance(&status)), None);
    bench.settle();
    assert_eq!(bench.state.writes(), writes + 1);
    let words = bench.kept().words.unwrap();
    assert_eq!(
        (words.state_name.as_str(), words.stopped),
        ("WaitingForJob", false)
    );
    assert_eq!(words.device, DEVICE);
    // The same again after a short other one: no news.
    assert_eq!(bench.history.look(bench.now, &Bench::glance(&status)), None);
    bench.settle();
    assert_eq!(bench.state.writes(), writes + 1);
}

#[test]
fn a_clean_stop_leaves_its_last_words_and_the_counts_of_the_job() {
    let mut bench = Bench::new();
    bench.status(Some("job-1"), 2, 0, 0);
    bench.history.on_block(4096);
    bench.now.now_ms += 700;
    bench
        .history
        .last_words(bench.now, &Bench::glance(&AgentStatus::default()));
    bench.settle();
    let story = bench.kept();
    assert!(story.words.unwrap().stopped);
    assert_eq!((story.jobs[0].bytes, story.jobs[0].took_ms), (4096, 700));
    assert_eq!(devices(&*bench.state).unwrap(), [DEVICE]);
}

#[test]
fn a_wall_clock_that_jumps_changes_no_duration() {
    let mut bench = Bench::new();
    bench.status(Some("job-1"), 2, 0, 0);
    bench.now.now_ms += 1000;
    bench.now.wall_s = Some(4_000_000_000);
    bench.status(Some("job-1"), 3, 0, 0);
    bench.now.now_ms += 1000;
    bench.now.wall_s = None;
    bench.status(Some("job-1"), 4, 0, 0);
    bench.event(1, "job-1", "{}");
    let job = bench.jobs().remove(0);
    assert_eq!(job.took_ms, 2000);
    assert_eq!(
        (job.began_s, job.end.unwrap().at_s),
        (Some(1_900_000_000), None)
    );
}

#[test]
fn faults_of_the_agent_are_counted_with_the_job_under_way() {
    let mut bench = Bench::new();
    let status = AgentStatus::default();
    let faults = |faults| Glance {
        faults,
        ..Bench::glance(&status)
    };
    bench.history.look(bench.now, &faults(2));
    bench.status(Some("job-1"), 2, 0, 0);
    bench.history.look(bench.now, &faults(2));
    assert_eq!(bench.jobs()[0].faults, 0);
    bench.history.look(bench.now, &faults(5));
    assert_eq!(bench.jobs()[0].faults, 3);
}
