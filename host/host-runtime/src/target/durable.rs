//! The target's record on its way to the medium: stages change it in memory, a worker writes it down, and the operation
//! goes on when that is done. A record that cannot be written is what it was before.

use std::sync::{Arc, PoisonError};

use super::machine::Target;
use super::record::{self, TargetRecord};
use super::script::{Op, Running, Stage};
use super::work::{self, Report};
use crate::types::Failure;

impl Target {
    /// Let a worker do something; the operation goes on with the next stage when it has. Its number.
    pub(super) fn hand_over(
        &mut self,
        op: &mut Op,
        stage: Stage,
        work: impl FnOnce() -> Result<(), Failure> + Send + 'static,
    ) -> u64 {
        let (id, promise) = self.promise(true);
        op.running = Running::Report(stage, id);
        self.ports
            .workers
            .run(Box::new(move || promise.keep(Report::Done(work()))));
        id
    }

    /// Write the record down.
    pub(super) fn begin_store(&mut self, op: &mut Op) {
        let record = self.record.clone();
        let write = self.writing(record.clone());
        let id = self.hand_over(op, Stage::Store, write);
        self.storing = Some((id, record));
    }

    /// The work of writing a record of it down.
    pub(super) fn writing(
        &self,
        record: TargetRecord,
    ) -> impl FnOnce() -> Result<(), Failure> + Send + use<> {
        let (state, memo) = (Arc::clone(&self.ports.state), Arc::clone(&self.memo));
        let (device, name) = (Arc::clone(&self.device), self.config.name.clone());
        move || {
            let mut memo = memo.lock().unwrap_or_else(PoisonError::into_inner);
            record::store(&*state, &device, &name, &record, &mut memo)
                .map_err(|e| Failure::storage("write the transfer record", &e))
        }
    }

    /// The record was written, whether or not anybody still waits for the operation.
    pub(super) fn on_stored(&mut self, id: u64, report: &Report) {
        let Some((_, record)) = self.storing.take_if(|(storing, _)| *storing == id) else {
            return;
        };
        if matches!(report, Report::Done(Ok(()))) {
            self.stored = record;
        } else {
            self.record = self.stored.clone();
        }
    }

    /// Delete the staged file of the transfer before.
    pub(super) fn unstage(&mut self, op: &mut Op) {
        let Some(staging) = self.own.staging().cloned() else {
            return;
        };
        self.hand_over(op, Stage::Unstage, move || {
            let removed = staging.remove();
            removed.map_err(|e| Failure::storage("delete staging", &e))
        });
    }

    /// Delete or erase what a transfer that was thrown away has left.
    pub(super) fn begin_clean(&mut self, op: &mut Op) {
        self.plugin.drop_instance();
        let layout = std::mem::take(&mut op.leftover);
        let (state, map) = (Arc::clone(&self.ports.state), self.map_name());
        let staging = self.own.staging().cloned();
        self.hand_over(op, Stage::Clean, move || {
            work::clean(staging.as_deref(), &*state, &map, &layout)
        });
    }
}
