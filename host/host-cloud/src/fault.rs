//! Faults on purpose: a port between the service and whoever carries its messages.
//!
//! [`Faults`] sees every request before the service and every message after it, and may swallow, repeat, corrupt or
//! answer. The service has no branch for any of this. Sans-I/O like the service, seeded where it draws lots. Cutting and
//! stalling connections is the endpoint's matter; a plan can only ask for a cut.

use crate::service::{Kind, Outgoing, RejectCode, ThingName, refuse_jobs_request, split_thing};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The service sees it.
    Pass,
    /// It is lost.
    Drop,
    /// It is answered like this, and the service never sees it.
    Answer(Outgoing),
}

/// Stands between the service and its messages.
pub trait Faults: Send {
    /// A request has arrived.
    fn incoming(&mut self, now_ms: u64, from: &ThingName, topic: &str, payload: &[u8]) -> Verdict;

    /// A message is about to leave; what is to leave goes into `out`.
    fn outgoing(&mut self, now_ms: u64, message: Outgoing, out: &mut Vec<Outgoing>);

    /// Whether all connections are to be cut now; asked after each request, and true once for each cut.
    fn take_cut(&mut self) -> bool {
        false
    }
}

/// No fault at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFaults;

impl Faults for NoFaults {
    fn incoming(&mut self, _: u64, _: &ThingName, _: &str, _: &[u8]) -> Verdict {
        Verdict::Pass
    }

    fn outgoing(&mut self, _: u64, message: Outgoing, out: &mut Vec<Outgoing>) {
        out.push(message);
    }
}

/// One fault of a [`FaultPlan`]. Blocks are counted from 1, over all things, since the plan was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This block is lost.
    DropBlock(u64),
    /// This block comes twice.
    DuplicateBlock(u64),
    /// The last byte of this block's message is flipped.
    CorruptBlock(u64),
    /// This many of 100 blocks are lost.
    DropBlocksPercent(u8),
    /// This many of 100 blocks come twice.
    DuplicateBlocksPercent(u8),
    /// This many of 100 replies and notifications of Jobs are lost.
    DropJobsPercent(u8),
    /// All connections are cut right behind this block.
    CutAfterBlock(u64),
    /// The next so many updates of executions are rejected.
    RejectUpdates(u32, RejectCode),
    /// Until this time, in milliseconds since the epoch, nothing is heard or said.
    SilenceUntil(u64),
}

/// A list of faults; empty, it is [`NoFaults`].
#[derive(Clone, Debug)]
pub struct FaultPlan {
    faults: Vec<Fault>,
    random: u64,
    blocks: u64,
    cut: bool,
}

impl FaultPlan {
    /// A plan whose lots are drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self {
            faults: faults.into_iter().collect(),
            random: seed,
            blocks: 0,
            cut: false,
        }
    }

    /// Draws whether something with this chance happens (SplitMix64).
    fn lot(&mut self, percent: u8) -> bool {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % 100 < u64::from(percent)
    }

    fn silent(&self, now_ms: u64) -> bool {
        self.faults
            .iter()
            .any(|fault| matches!(fault, Fault::SilenceUntil(until) if now_ms < *until))
    }

    fn block(&mut self, mut message: Outgoing, out: &mut Vec<Outgoing>) {
        self.blocks += 1;
        let mut copies = 1;
        let mut lots = Vec::new();
        for fault in &self.faults {
            match fault {
                Fault::DropBlock(nth) if *nth == self.blocks => copies = 0,
                Fault::DuplicateBlock(nth) if *nth == self.blocks => copies = 2,
                Fault::CorruptBlock(nth) if *nth == self.blocks => {
                    let mut bytes = message.payload.to_vec();
                    if let Some(last) = bytes.last_mut() {
                        *last ^= 0xff;
                    }
                    message.payload = bytes.into();
                }
                Fault::CutAfterBlock(nth) if *nth == self.blocks => self.cut = true,
                Fault::DropBlocksPercent(percent) => lots.push((*percent, 0)),
                Fault::DuplicateBlocksPercent(percent) => lots.push((*percent, 2)),
                _ => {}
            }
        }
        for (percent, then) in lots {
            // A block that is lost cannot come twice.
            if self.lot(percent) && copies != 0 {
                copies = then;
            }
        }
        for _ in 0..copies {
            out.push(message.clone());
        }
    }
}

impl Faults for FaultPlan {
    fn incoming(&mut self, now_ms: u64, from: &ThingName, topic: &str, payload: &[u8]) -> Verdict {
        if self.silent(now_ms) {
            return Verdict::Drop;
        }
        let is_update = split_thing(topic)
            .is_some_and(|(_, rest)| rest.starts_with("jobs/") && rest.ends_with("/update"));
        if is_update {
            for fault in &mut self.faults {
                if let Fault::RejectUpdates(left @ 1.., code) = fault {
                    *left -= 1;
                    return Verdict::Answer(refuse_jobs_request(
                        now_ms, from, topic, payload, *code,
                    ));
                }
            }
        }
        Verdict::Pass
    }

    fn outgoing(&mut self, now_ms: u64, message: Outgoing, out: &mut Vec<Outgoing>) {
        // Behind a cut nothing of the same answer is delivered any more.
        if self.silent(now_ms) || self.cut {
            return;
        }
        let is_jobs =
            split_thing(&message.topic).is_some_and(|(_, rest)| rest.starts_with("jobs/"));
        match message.kind {
            Kind::Block => self.block(message, out),
            Kind::Reply | Kind::Notification => {
                let percent = self.faults.iter().find_map(|fault| match fault {
                    Fault::DropJobsPercent(percent) if is_jobs => Some(*percent),
                    _ => None,
                });
                if !percent.is_some_and(|percent| self.lot(percent)) {
                    out.push(message);
                }
            }
        }
    }

    fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::QoS;

    fn message(kind: Kind, rest: &str) -> Outgoing {
        Outgoing {
            to: ThingName::new("gw").unwrap(),
            topic: format!("$aws/things/gw/{rest}").into(),
            payload: vec![1, 2, 3].into(),
            qos: QoS::AtMostOnce,
            kind,
        }
    }

    /// How often each of `count` blocks leaves.
    fn copies(plan: &mut FaultPlan, count: usize) -> Vec<usize> {
        (0..count)
            .map(|_| {
                let mut out = Vec::new();
                plan.outgoing(0, message(Kind::Block, "streams/s/data/cbor"), &mut out);
                out.len()
            })
            .collect()
    }

    #[test]
    fn the_nth_block_is_lost_doubled_or_corrupted() {
        let faults = [Fault::DropBlock(2), Fault::DuplicateBlock(3)];
        assert_eq!(copies(&mut FaultPlan::new(1, faults), 4), [1, 0, 2, 1]);
        let mut plan = FaultPlan::new(1, [Fault::CorruptBlock(1)]);
        let mut out = Vec::new();
        plan.outgoing(0, message(Kind::Block, "streams/s/data/cbor"), &mut out);
        assert_eq!(out[0].payload[..], [1, 2, 0xfc]);
    }

    #[test]
    fn lots_are_drawn_from_the_seed_and_fall_about_as_often_as_they_should() {
        let plan = || FaultPlan::new(7, [Fault::DropBlocksPercent(20)]);
        let once = copies(&mut plan(), 1000);
        assert_eq!(copies(&mut plan(), 1000), once);
        let lost = once.iter().filter(|c| **c == 0).count();
        assert!((150..250).contains(&lost), "{lost}");
        let all = copies(&mut FaultPlan::new(7, [Fault::DropBlocksPercent(100)]), 50);
        assert!(all.iter().all(|c| *c == 0));
        let none = copies(&mut FaultPlan::new(7, [Fault::DropBlocksPercent(0)]), 50);
        assert!(none.iter().all(|c| *c == 1));
    }

    #[test]
    fn a_cut_is_asked_for_once_and_nothing_follows_the_block() {
        let mut plan = FaultPlan::new(1, [Fault::CutAfterBlock(2)]);
        assert_eq!(copies(&mut plan, 3), [1, 1, 0]);
        assert!(plan.take_cut());
        assert!(!plan.take_cut());
        assert_eq!(copies(&mut plan, 2), [1, 1]);
    }

    #[test]
    fn updates_are_rejected_as_often_as_asked_with_their_token() {
        let mut plan = FaultPlan::new(1, [Fault::RejectUpdates(1, RejectCode::RequestThrottled)]);
        let gw = ThingName::new("gw").unwrap();
        let topic = "$aws/things/gw/jobs/j/update";
        let get = plan.incoming(0, &gw, "$aws/things/gw/jobs/j/get", b"");
        assert_eq!(get, Verdict::Pass);
        let payload = br#"{"status":"FAILED","clientToken":"u1"}"#;
        let Verdict::Answer(answer) = plan.incoming(5000, &gw, topic, payload) else {
            panic!("not answered");
        };
        assert_eq!(&*answer.topic, "$aws/things/gw/jobs/j/update/rejected");
        let json: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(json["code"], "RequestThrottled");
        assert_eq!(json["clientToken"], "u1");
        assert_eq!(json["timestamp"], 5);
        assert_eq!(plan.incoming(0, &gw, topic, payload), Verdict::Pass);
    }

    #[test]
    fn silence_goes_both_ways_until_it_ends() {
        let mut plan = FaultPlan::new(1, [Fault::SilenceUntil(100)]);
        let gw = ThingName::new("gw").unwrap();
        let topic = "$aws/things/gw/jobs/get";
        assert_eq!(plan.incoming(99, &gw, topic, b""), Verdict::Drop);
        assert_eq!(plan.incoming(100, &gw, topic, b""), Verdict::Pass);
        let mut out = Vec::new();
        plan.outgoing(99, message(Kind::Notification, "jobs/notify"), &mut out);
        assert_eq!(out, []);
        plan.outgoing(100, message(Kind::Notification, "jobs/notify"), &mut out);
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn only_messages_of_jobs_are_lost_by_that_fault() {
        let mut plan = FaultPlan::new(1, [Fault::DropJobsPercent(100)]);
        let mut out = Vec::new();
        plan.outgoing(0, message(Kind::Reply, "jobs/get/accepted"), &mut out);
        plan.outgoing(0, message(Kind::Reply, "streams/s/rejected/cbor"), &mut out);
        assert_eq!(out.len(), 1);
    }
}
