//! Following a job from within the cloud's process.

use std::collections::VecDeque;

use tokio::sync::watch;

use super::Operator;
use crate::{
    error::CloudError,
    service::{Change, JobId, JobView},
};

/// A job's changes, one by one.
pub struct Watch {
    operator: Operator,
    job_id: JobId,
    changed: watch::Receiver<u64>,
    cursor: u64,
    waiting: VecDeque<Change>,
}

impl Watch {
    pub(super) fn new(
        operator: Operator,
        job_id: JobId,
        changed: watch::Receiver<u64>,
        cursor: u64,
    ) -> Self {
        Self {
            operator,
            job_id,
            changed,
            cursor,
            waiting: VecDeque::new(),
        }
    }

    /// The next change; `None` once every execution has ended and every change was given out.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Some(change);
            }
            self.changed.borrow_and_update();
            let job_id = &self.job_id;
            let (changes, ended) = self.operator.core.look(|service| {
                let changes = service.changes_after(self.cursor).unwrap_or_else(|| {
                    // Away too long: the job itself says where it stands; what lay between is gone.
                    (Vec::new(), service.change_cursor())
                });
                (changes, service.has_ended(job_id))
            });
            let (changes, cursor) = changes;
            self.cursor = cursor;
            let of_job = changes.into_iter().filter(|c| c.job_id == self.job_id);
            self.waiting.extend(of_job);
            if self.waiting.is_empty() && (ended || self.changed.changed().await.is_err()) {
                return None;
            }
        }
    }

    /// The job as it stands.
    ///
    /// # Errors
    /// It is gone.
    pub fn job(&self) -> Result<JobView, CloudError> {
        self.operator.show(&self.job_id)
    }
}
