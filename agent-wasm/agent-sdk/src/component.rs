//! The exports of the world, round an orchestrator and its desk.

use std::marker::PhantomData;

use agent_core::code::HostErr;
use agent_core::jobs::News;
use agent_core::settings::Settings;
use agent_core::types::{Failure, Outcome};

use crate::bindings::exports::ota::agent::job_agent::{
    AgentStatus, Blob, Command, Context, Description, Event, Guest, StartInfo, Turn,
};
use crate::bindings::ota::agent::os::{self, Level};
use crate::{Desk, Orchestrator, Step};

/// Where the one agent of an instance sits.
pub type Seat<A> = Option<(A, Desk)>;

/// Finds the seat; `export_agent!` implements it.
pub trait Instance: Orchestrator {
    /// Do something there.
    fn with<R>(f: impl FnOnce(&mut Seat<Self>) -> R) -> R;
}

/// What is exported.
#[derive(Debug)]
pub struct Component<A>(PhantomData<A>);

/// The one encoding of saved states: nothing at all.
const SCHEMA: u32 = 1;

impl<A: Instance> Guest for Component<A> {
    fn describe() -> Description {
        Description {
            name: A::NAME.to_owned(),
            version: A::VERSION.to_owned(),
            schemas: vec![SCHEMA],
        }
    }

    fn start(context: Context, info: StartInfo) -> Result<Turn, Failure> {
        log_panics();
        let settings = Settings::read(&info.config)?;
        for unknown in &settings.unknown {
            os::log(Level::Warn, &format!("unknown setting: {unknown}"));
        }
        let mut desk = Desk::new(settings.thing.clone(), info.seed, context.now_ms);
        let mut agent = A::new(settings);
        settle(&mut agent, &mut desk);
        let turn = desk.turn(agent.place(), None);
        A::with(|seat| *seat = Some((agent, desk)));
        Ok(turn)
    }

    fn handle(context: Context, event: Event) -> Turn {
        seated::<A, _>(|agent, desk| {
            desk.set_now(context.now_ms);
            let refused = on_event(agent, desk, event);
            settle(agent, desk);
            desk.turn(agent.place(), refused)
        })
    }

    fn status() -> AgentStatus {
        seated::<A, _>(|agent, desk| desk.status(agent.place()))
    }

    fn snapshot(_: Context) -> Blob {
        Blob {
            schema: SCHEMA,
            bytes: Vec::new(),
        }
    }
}

/// A panic traps without a word; say it, and its place, through the host's log first.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        os::log(Level::Error, &info.to_string());
    }));
}

/// The contract starts an instance first; a host that does not gets a trap.
fn seated<A: Instance, R>(f: impl FnOnce(&mut A, &mut Desk) -> R) -> R {
    A::with(|seat| match seat {
        Some((agent, desk)) => f(agent, desk),
        None => panic!("called before start"),
    })
}

fn on_event<A: Orchestrator>(agent: &mut A, desk: &mut Desk, event: Event) -> Option<Failure> {
    let cannot = |what: &str| Some(Failure::new(HostErr::Unsupported.code() as u8, 0, what));
    match event {
        Event::Connected(_) => desk.set_connected(true),
        Event::Disconnected(_) => desk.set_connected(false),
        Event::Messages(messages) => {
            for message in messages {
                on_message(agent, desk, &message.topic, &message.payload);
                settle(agent, desk);
            }
        }
        Event::Done(completion) => desk.end(completion.token, completion.outcome),
        Event::TargetRestarted(file) => desk.restarted(agent.place(), file),
        Event::Timeout => desk.time_up(agent.place()),
        Event::Command(Command::CheckForUpdate) => {
            if desk.step() == Step::IDLE {
                desk.begin(Step::ASK);
            }
        }
        Event::Command(Command::UserAbort) if may_go_back(agent, desk) => desk.abort(),
        Event::Command(_) => return cannot("this agent does not follow that command now"),
        Event::Custom(custom) => return cannot(&format!("no value is called {}", custom.name)),
        // It fetches nothing by URL, tells no progress but blocks, and asks for one block at a time.
        Event::Progress(_) | Event::HttpResponse(_) | Event::Allowance(_) => {}
    }
    None
}

/// Whether there is a job that can still be given up.
fn may_go_back<A: Orchestrator>(agent: &A, desk: &Desk) -> bool {
    let is_over = matches!(
        desk.step(),
        Step::ASK | Step::IDLE | Step::UNDO | Step::REPORT
    );
    !is_over && agent.way_back().is_some()
}

fn on_message<A: Orchestrator>(agent: &mut A, desk: &mut Desk, topic: &str, payload: &[u8]) {
    let Some(news) = desk.service.on_message(topic, payload) else {
        return agent.on_message(desk, topic, payload);
    };
    match (desk.step(), news) {
        (Step::ASK, News::Job(job)) => {
            let taken = agent.on_job(&job);
            desk.job = Some(job.job_id);
            match taken {
                Ok(step) => desk.begin(step),
                Err(status) => desk.finish(status),
            }
        }
        (Step::ASK, News::BadJob(job, error)) => {
            desk.job = Some(job);
            desk.finish(error.into());
        }
        (Step::ASK, News::NoJob) => desk.begin(Step::IDLE),
        (Step::IDLE, News::Notified(_)) => desk.begin(Step::ASK),
        // Another one is next: this one was withdrawn. What is marked for boot goes on until its status is refused.
        (step, News::Notified(next))
            if next != desk.job && step.state < Step::RESTARTS && may_go_back(agent, desk) =>
        {
            desk.fail(None);
        }
        (Step::REPORT, News::Taken) => desk.begin(Step::ASK),
        (_, News::Taken) => desk.taken(),
        (_, News::Refused(code)) => desk.refuse(code),
        _ => {}
    }
}

/// Does what is due and tells what was over at once, until nothing more follows.
fn settle<A: Orchestrator>(agent: &mut A, desk: &mut Desk) {
    loop {
        if desk.take_due() {
            let file = agent.place().map(|(file, ..)| file);
            match (desk.step(), file) {
                (Step::ASK, _) => desk.ask(),
                (Step::IDLE, _) => {}
                (Step::UNDO, Some(file)) => match agent.way_back() {
                    Some(call) => desk.call(call, file),
                    None => back(desk),
                },
                (
                    Step {
                        call: Some(call), ..
                    },
                    Some(file),
                ) => desk.call(call, file),
                (Step { call: Some(_), .. }, None) => back(desk),
                (step, _) if step.tells() => desk.update(),
                _ => agent.go(desk),
            }
        } else if let Some(outcome) = desk.take_ended() {
            match outcome {
                _ if desk.step() == Step::UNDO => back(desk),
                Outcome::Failed(failure) => desk.fail(Some(failure.into())),
                outcome => agent.on_done(desk, outcome),
            }
        } else {
            return;
        }
    }
}

/// The target is back where it was.
fn back(desk: &mut Desk) {
    desk.begin(if desk.status.is_some() {
        Step::REPORT
    } else {
        Step::ASK
    });
}
