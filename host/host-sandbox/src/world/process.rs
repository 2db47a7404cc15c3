//! The process of a world and the programs round it: starts, cuts, launchers, deeds of the operator, what happens when.

use host_cloud::service::JobId;
use host_runtime::agent::Command;
use host_runtime::mailbox::Input;
use host_runtime::ports::commands::CommandEnd;
use host_runtime::ports::state_dir::FileStateDir;
use host_runtime::ports::workers::Reply;

use super::{Happening, World, build, job_id};
use crate::ailment::Spell;
use crate::boot::Image;
use crate::ground::CutKind;
use crate::scenario::{Deed, Quality, When};
use crate::trace::Event;
use crate::wire::{Programs, Wire};

/// Time from the start of the process to its connection.
const CONNECT_MS: u64 = 100;

/// Time that a service manager takes to start the process again, and a machine to boot.
const RESTART_MS: u64 = 500;
const BOOT_MS: u64 = 5000;

/// Time that an operator waits for the answer to an order.
const ANSWER_MS: u64 = 10_000;

/// Time that an operator's program takes.
const PROGRAM_MS: u64 = 50;

/// Starts in a row of a process that is cut while it starts: there are no more cuts than that in any run.
const STARTS_MAX: u32 = 1000;

impl World<'_> {
    pub(super) fn happen(&mut self) {
        let now_ms = self.ground.now_ms();
        while let Some(entry) = self.happenings.first_entry() {
            if entry.key().0 > now_ms {
                return;
            }
            let (process, happening) = entry.remove();
            if process.is_some_and(|process| process != self.starts) {
                continue;
            }
            match happening {
                Happening::ToCloud(packet) => self.reach_cloud(&packet),
                Happening::ToDevice(packet, qos) => self.reach_device(packet, qos),
                Happening::Subscribed {
                    session,
                    filter,
                    on,
                } => self.reach_broker(session, filter, on),
                Happening::Range(token, answer) => self.range_ends(token, answer),
                Happening::Done(token) => {
                    if self.pending.contains(&token) {
                        self.done(token, Ok(()));
                    }
                }
                Happening::LinkUp => self.link_up(),
                Happening::LinkDown => self.link_down(),
                // Another order since then is the one that counts.
                Happening::Order(command, orders) => {
                    if self.orders == orders {
                        self.order(command);
                    }
                }
                Happening::ProgramEnds(reply, code) => reply(CommandEnd {
                    code: Some(code),
                    stdout: Vec::new(),
                    detail: String::new(),
                }),
                Happening::Dies { target, since_ms } => self.dies(target, since_ms),
            }
        }
    }

    pub(super) fn next_deed_ms(&self) -> Option<u64> {
        let (when, _) = self.prepared.scenario.deeds.get(self.deeds_done)?;
        match when {
            When::At(ms) => Some(*ms),
            When::Then(ms) => Some(self.last_deed_ms + ms),
            When::AfterEnd(ms) => self.over_since_ms.map(|since| since + ms),
            When::InState(_) => None,
        }
    }

    /// Do the next deed if its time has come.
    pub(super) fn do_deed(&mut self) -> bool {
        let Some((when, deed)) = self.prepared.scenario.deeds.get(self.deeds_done) else {
            return false;
        };
        let now_ms = self.ground.now_ms();
        if self.is_job_to_come() && self.over_since_ms.is_none() && self.jobs_are_over() {
            self.over_since_ms = Some(now_ms);
        }
        let due = match when {
            When::At(_) | When::Then(_) | When::AfterEnd(_) => {
                self.next_deed_ms().is_some_and(|at| at <= now_ms)
            }
            When::InState(state) => self
                .device
                .as_ref()
                .is_some_and(|device| device.agent_state() == *state),
        };
        if !due {
            return false;
        }
        self.deeds_done += 1;
        self.last_deed_ms = now_ms;
        self.ground.note(|| Event::Note(format!("{deed:?}")));
        match deed {
            Deed::Cancel(force) => {
                let id = job_id(self.jobs).parse::<JobId>();
                let cancelled = id
                    .ok()
                    .and_then(|id| self.service.cancel(now_ms, &id, *force, None).ok());
                // A job that has ended cannot be cancelled, and need not be.
                self.answer(cancelled.unwrap_or_default());
            }
            Deed::NextJob => self.give_job(),
            Deed::StaleHint => self.hint_at_nothing(),
            Deed::Order(command) => self.order(command.clone()),
            Deed::JumpWall(seconds) => self.ground.jump_wall(*seconds),
            Deed::Cut(kind) => self.ground.cut_now(*kind),
        }
        true
    }

    pub(super) fn order(&mut self, command: Command) {
        self.last_order = Some((self.ground.now_ms(), command.clone()));
        self.orders += 1;
        let reply = None;
        self.tell(Input::Command { command, reply });
    }

    /// The process ends; what it had under way is nobody's any more.
    pub(super) fn end_process(&mut self) {
        self.device = None;
        self.mcus.close();
        self.connected = false;
        self.pending.clear();
        self.ranges.clear();
        self.wire = Wire::new(&self.ground);
        self.programs = Programs::new(&self.ground);
    }

    /// Start the process, after a cut or because it asked for that: the launcher first.
    pub(super) fn start(&mut self) {
        for _ in 0..STARTS_MAX {
            self.take_cut();
            self.end_process();
            self.starts += 1;
            self.ground.note(|| Event::Started(self.starts));
            // What a command starts does not end with this process.
            let stays = self.prepared.scenario.by_command && self.plant.running(0).is_some();
            if !stays && !self.launch(0) && self.ground.is_off().is_none() {
                // The launcher has nothing to start; the invariants have seen it.
                return;
            }
            if self.ground.is_off().is_some() {
                continue;
            }
            let now = self.context();
            let made = build::device(self).and_then(|mut device| {
                device.start(now).map_err(|error| error.to_string())?;
                Ok(device)
            });
            if self.ground.is_off().is_some() {
                continue;
            }
            match made {
                Ok(device) => self.device = Some(device),
                Err(error) => {
                    let at_ms = now.now_ms;
                    self.plant
                        .judge(|_, found| found.add("starts again", at_ms, error));
                    return;
                }
            }
            let at = now.now_ms + CONNECT_MS;
            self.schedule(at, Some(self.starts), Happening::LinkUp);
            return;
        }
    }

    /// The process has ended: whoever gave an order and had no answer gives it again; so does who sees that it was
    /// forgotten, for the medium took nothing at that time.
    pub(super) fn order_again(&mut self, answered: bool) {
        let Some((at_ms, command)) = self.last_order.take() else {
            return;
        };
        let ailing = |spell: &Spell| (spell.from_ms..spell.until_ms).contains(&at_ms);
        let answer_by = at_ms + ANSWER_MS;
        let now_ms = self.ground.now_ms();
        if !answered && now_ms < answer_by {
            self.schedule(answer_by, None, Happening::Order(command, self.orders));
        } else if self.prepared.scenario.spells.iter().any(ailing) {
            self.schedule(
                now_ms + ANSWER_MS,
                None,
                Happening::Order(command, self.orders),
            );
        }
    }

    /// What a cut leaves behind.
    pub(super) fn take_cut(&mut self) {
        let Some(cut) = self.ground.is_off() else {
            return;
        };
        self.cuts.push(cut);
        self.ground.note(|| Event::Cut(cut));
        self.device = None;
        self.ground.switch_on();
        self.order_again(false);
        let pause = match cut.kind {
            CutKind::Kill => RESTART_MS,
            CutKind::Power => BOOT_MS,
        };
        if cut.kind == CutKind::Power && self.options.shared_power {
            self.mcus.cut_power();
        }
        self.ground.set_now(self.ground.now_ms() + pause);
        if cut.kind == CutKind::Power {
            let lost = self.disk.cut(&mut self.cut_random);
            self.ground.note(|| Event::Lost(lost));
            self.plant.look_after_cut();
        }
        // A launcher that was cut is started again by its service manager.
        for target in self.first_commanded()..self.plant.count() {
            if cut.kind == CutKind::Power || self.plant.running(target).is_none() {
                self.launch(target);
            }
        }
    }

    /// Let the launcher of a target start something that stays up; false if there is nothing, or the power goes.
    pub(super) fn launch(&mut self, target: usize) -> bool {
        let state = FileStateDir::over(self.files());
        loop {
            let Ok(Some(quality)) = self.plant.launch(target, &state) else {
                return false;
            };
            match quality {
                // The service manager starts it again, until the launcher goes back.
                Quality::NeverStarts => self.ground.set_now(self.ground.now_ms() + RESTART_MS),
                Quality::Dies(after_ms) => {
                    let since_ms = self.ground.now_ms();
                    let dies = Happening::Dies { target, since_ms };
                    self.schedule(since_ms + after_ms, None, dies);
                    return true;
                }
                _ => return true,
            }
        }
    }

    pub(super) fn dies(&mut self, target: usize, since_ms: u64) {
        let running = self.plant.running(target);
        let dying = |image: &Image| {
            let known = self.prepared.known.get(&image.sha256);
            known.is_some_and(|known| matches!(known.quality, Quality::Dies(_)))
        };
        if !running.is_some_and(|r| r.since_ms == since_ms && dying(&r.image)) {
            return;
        }
        self.ground
            .note(|| Event::Note(format!("target {target} dies")));
        if target < self.first_commanded() {
            self.end_process();
            self.ground.set_now(self.ground.now_ms() + RESTART_MS);
            self.start();
        } else {
            self.launch(target);
        }
    }

    /// An operator's program: `restart TARGET` or `health TARGET`.
    pub(super) fn program(&mut self, argv: &[String], reply: Reply<CommandEnd>) {
        let target = argv.get(1).and_then(|name| self.plant.find(name));
        let code = match (argv.first().map(String::as_str), target) {
            (Some("restart"), Some(target)) => i32::from(!self.launch(target)),
            (Some("health"), Some(target)) => i32::from(!self.plant.check_health(target)),
            _ => 127,
        };
        let at = self.ground.now_ms() + PROGRAM_MS;
        let process = Some(self.starts);
        self.schedule(at, process, Happening::ProgramEnds(reply, code));
    }
}
