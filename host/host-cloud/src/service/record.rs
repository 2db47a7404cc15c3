//! The state in pieces: what has changed since it was last stored, and how pieces become a state again.
//!
//! A store keeps rows of three columns: table, key, JSON. The service remembers which objects it has changed;
//! [`Service::take_changes`] gives their rows, and [`State::from_rows`] reads all rows back. Every row is checked when it
//! is read, and a row that points nowhere is a [`RowError`], not a smaller state.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Execution, GroupName, Job, JobId, STATE_SCHEMA, Service, State, Stream, StreamId, Thing,
    ThingName, state::Group,
};

/// Kinds of objects; each has a table of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// One row, `state`: schema and sequence.
    Meta,
    /// Things by name, without their executions.
    Things,
    /// Groups by name.
    Groups,
    /// Jobs by id.
    Jobs,
    /// Streams by id.
    Streams,
    /// Executions by `<thing>/<job>`.
    Executions,
}

impl Table {
    /// Every table, in the order in which rows can be read: what a row points to lies in a table before its own.
    pub const ALL: [Self; 6] = [
        Self::Meta,
        Self::Things,
        Self::Groups,
        Self::Jobs,
        Self::Streams,
        Self::Executions,
    ];

    /// What it is called in a store.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Things => "things",
            Self::Groups => "groups",
            Self::Jobs => "jobs",
            Self::Streams => "streams",
            Self::Executions => "executions",
        }
    }
}

/// Key of the only row of [`Table::Meta`].
const META: &str = "state";

/// One object of the state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Record {
    Meta,
    Thing(ThingName),
    Group(GroupName),
    Job(JobId),
    Stream(StreamId),
    Execution(ThingName, JobId),
}

/// A row to write, or to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// Where.
    pub table: Table,
    /// Which.
    pub key: String,
    /// What is to stand there; `None` = nothing.
    pub value: Option<Vec<u8>>,
}

/// Changes since the last time, and what the service needs to take them back.
#[derive(Debug, Default)]
pub struct Changes {
    /// The rows.
    pub rows: Vec<RowChange>,
    records: Vec<Record>,
}

/// Rows that do not make a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Written by a build that is too new or too old.
    #[error("the stored state has schema {found}, this build reads {known}")]
    Schema {
        /// In the store.
        found: u32,
        /// Of this build.
        known: u32,
    },
    /// A row is not what it should be.
    #[error("row {key:?} of table {table}: {reason}")]
    Row {
        /// Where.
        table: &'static str,
        /// Which.
        key: String,
        /// Why.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
struct MetaRow {
    schema: u32,
    sequence: u64,
}

#[derive(Serialize)]
struct ThingRowOut<'a> {
    created_at_ms: u64,
    certificates: &'a std::collections::BTreeSet<String>,
}

impl Record {
    fn row(&self, state: &State) -> RowChange {
        let (table, key, value) = match self {
            Self::Meta => {
                let meta = MetaRow {
                    schema: state.schema,
                    sequence: state.sequence,
                };
                (Table::Meta, META.to_owned(), Some(json(&meta)))
            }
            Self::Thing(name) => {
                let row = state.things.get(name).map(|thing| {
                    json(&ThingRowOut {
                        created_at_ms: thing.created_at_ms,
                        certificates: &thing.certificates,
                    })
                });
                (Table::Things, name.to_string(), row)
            }
            Self::Group(name) => {
                let row = state.groups.get(name).map(json);
                (Table::Groups, name.to_string(), row)
            }
            Self::Job(id) => (Table::Jobs, id.to_string(), state.jobs.get(id).map(json)),
            Self::Stream(id) => {
                let row = state.streams.get(id).map(json);
                (Table::Streams, id.to_string(), row)
            }
            Self::Execution(thing, job) => {
                let execution = state
                    .things
                    .get(thing)
                    .and_then(|t| t.execution(job.as_str()));
                // Neither alphabet has a slash.
                let key = format!("{thing}/{job}");
                (Table::Executions, key, execution.map(json))
            }
        };
        RowChange { table, key, value }
    }
}

impl Service {
    /// The rows that changed since the last call; every one of them must be stored, or none.
    pub fn take_changes(&mut self) -> Changes {
        let records: Vec<Record> = std::mem::take(&mut self.dirty).into_iter().collect();
        Changes {
            rows: records.iter().map(|r| r.row(&self.state)).collect(),
            records,
        }
    }

    /// Takes changes back that could not be stored: the next call of [`Service::take_changes`] has them again.
    pub fn put_changes_back(&mut self, changes: &Changes) {
        self.dirty.extend(changes.records.iter().cloned());
    }

    pub(super) fn touch(&mut self, record: Record) {
        self.revision += 1;
        self.dirty.insert(record);
    }
}

impl State {
    /// Every row of this state.
    #[must_use]
    pub fn rows(&self) -> Vec<RowChange> {
        let mut records = vec![Record::Meta];
        records.extend(self.things.keys().cloned().map(Record::Thing));
        records.extend(self.groups.keys().cloned().map(Record::Group));
        records.extend(self.jobs.keys().cloned().map(Record::Job));
        records.extend(self.streams.keys().cloned().map(Record::Stream));
        for (name, thing) in &self.things {
            let jobs = thing.executions().map(|(job, _)| job.clone());
            records.extend(jobs.map(|job| Record::Execution(name.clone(), job)));
        }
        records.iter().map(|record| record.row(self)).collect()
    }

    /// Reads a state from its rows, in the order of [`Table::ALL`]; none at all is an empty state.
    ///
    /// # Errors
    /// A row is not what it should be, or points to something that is not there.
    pub fn from_rows(
        rows: impl IntoIterator<Item = (Table, String, Vec<u8>)>,
    ) -> Result<Self, RowError> {
        let mut state = Self::default();
        let (mut any, mut meta) = (false, false);
        for (table, key, value) in rows {
            any = true;
            meta |= table == Table::Meta;
            state
                .take_row(table, &key, &value)
                .map_err(|reason| RowError::Row {
                    table: table.name(),
                    key,
                    reason,
                })?;
            if state.schema != STATE_SCHEMA {
                return Err(RowError::Schema {
                    found: state.schema,
                    known: STATE_SCHEMA,
                });
            }
        }
        if any && !meta {
            return Err(RowError::Row {
                table: Table::Meta.name(),
                key: META.to_owned(),
                reason: "it is missing".to_owned(),
            });
        }
        Ok(state)
    }

    fn take_row(&mut self, table: Table, key: &str, value: &[u8]) -> Result<(), String> {
        match table {
            Table::Meta => {
                let row: MetaRow = parse(value)?;
                (self.schema, self.sequence) = (row.schema, row.sequence);
            }
            Table::Things => {
                let thing: Thing = parse(value)?;
                self.things.insert(name(key)?, thing);
            }
            Table::Groups => {
                let group: Group = parse(value)?;
                if let Some(gone) = group.things.iter().find(|t| !self.things.contains_key(*t)) {
                    return Err(format!("its member {gone} is missing"));
                }
                self.groups.insert(name(key)?, group);
            }
            Table::Jobs => {
                let job: Job = parse(value)?;
                self.jobs.insert(name(key)?, job);
            }
            Table::Streams => {
                let stream: Stream = parse(value)?;
                if !self.jobs.contains_key(&stream.job) {
                    return Err(format!("its job {} is missing", stream.job));
                }
                self.streams.insert(name(key)?, stream);
            }
            Table::Executions => {
                let execution: Execution = parse(value)?;
                let (thing, job) = key.split_once('/').ok_or("it names no thing and job")?;
                let job: JobId = name(job)?;
                if !self.jobs.contains_key(&job) {
                    return Err(format!("its job {job} is missing"));
                }
                let thing = self.things.get_mut(thing);
                thing.ok_or("its thing is missing")?.insert(job, execution);
            }
        }
        Ok(())
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Text keys into memory: serde_json has no way to fail here.
    serde_json::to_vec(value).unwrap_or_default()
}

fn parse<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| error.to_string())
}

fn name<N>(key: &str) -> Result<N, String>
where
    N: std::str::FromStr<Err = super::NameError>,
{
    key.parse()
        .map_err(|error: super::NameError| error.to_string())
}
