//! One direction of one connection: a reader that gives bytes a due time, a bounded queue, and a writer.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::response::Cutter;
use super::{Direction, Filter, Shared, Sieve, Verdict};
use crate::deadline;
use crate::mqtt::Splitter;

/// Bytes that one direction of one connection may hold: the product of 200 ms and 1 Gbit/s is 25 MB. When it is full
/// the sender is not read any more, as with a real link.
const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes that are read at once, and so the grain of shaping.
const CHUNK_BYTES: usize = 16 * 1024;

#[derive(Default)]
struct Queue {
    chunks: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
    /// The reader has seen the end.
    ended: bool,
    /// The writer has given up.
    broken: bool,
}

#[derive(Default)]
struct Line {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Queue)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// Takes a connection into the account and starts its four threads.
pub(super) fn join(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    // Without it every small message waits for a delayed acknowledgement.
    let is_set = client
        .set_nodelay(true)
        .and_then(|()| server.set_nodelay(true));
    let (Ok(()), Ok(client_too), Ok(server_too)) = (is_set, client.try_clone(), server.try_clone())
    else {
        return;
    };
    let id = shared.change(|state| {
        state.accepted += 1;
        state.live.insert(state.accepted, [client_too, server_too]);
        state.accepted
    });
    let ways = [
        (Direction::Up, &client, &server),
        (Direction::Down, &server, &client),
    ];
    for (direction, from, to) in ways {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
            continue;
        };
        let line = Arc::new(Line::default());
        let (reading, writing) = (Arc::clone(&line), line);
        let (for_reader, for_writer) = (Arc::clone(shared), Arc::clone(shared));
        thread::spawn(move || read(direction, from, &reading, &for_reader));
        thread::spawn(move || {
            write(id, direction, to, &writing, &for_writer);
            // Whichever way ends first takes the entry out; a half-closed connection is not counted as live.
            for_writer.change(|state| state.live.remove(&id));
        });
    }
}

/// What one direction of one connection keeps to judge what goes through it.
enum Judge<'a> {
    Open,
    Messages(Splitter, &'a Filter),
    RangeResponses(Cutter<'a>),
}

impl<'a> Judge<'a> {
    fn new(direction: Direction, sieve: &'a Sieve) -> Self {
        match (sieve, direction) {
            (Sieve::Messages(filter), _) => Self::Messages(Splitter::default(), filter),
            (Sieve::RangeResponses(loss), Direction::Down) => {
                Self::RangeResponses(Cutter::new(loss))
            }
            (Sieve::Open, _) | (Sieve::RangeResponses(_), Direction::Up) => Self::Open,
        }
    }

    /// What goes on of these bytes, and whether the connection ends behind it.
    fn handle(&mut self, direction: Direction, bytes: &[u8]) -> (Vec<u8>, bool) {
        match self {
            Self::Open => (bytes.to_vec(), false),
            Self::Messages(splitter, filter) => match judge(direction, bytes, splitter, filter) {
                Some(passed) => (passed, false),
                None => (Vec::new(), true),
            },
            Self::RangeResponses(cutter) => match cutter.handle(bytes) {
                Some(left) => (bytes[..left].to_vec(), true),
                None => (bytes.to_vec(), false),
            },
        }
    }
}

fn read(direction: Direction, mut from: TcpStream, line: &Line, shared: &Shared) {
    let mut judge = Judge::new(direction, &shared.sieve);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let (bytes, is_last) = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => judge.handle(direction, &buffer[..count]),
        };
        if !bytes.is_empty() {
            let (due, free) = {
                let mut state = shared.lock();
                let delay = state.delay;
                let now = deadline::now();
                let link = &mut state.links[direction as usize];
                (link.send(now, bytes.len()) + delay, link.has_room_at())
            };
            if !push(line, (due, bytes)) || !await_room(line, free) {
                break;
            }
        }
        if is_last {
            break;
        }
    }
    line.change(|queue| queue.ended = true);
}

/// The bytes of all packets that pass; none = it is not MQTT, and the connection is given up.
fn judge(
    direction: Direction,
    bytes: &[u8],
    splitter: &mut Splitter,
    filter: &Filter,
) -> Option<Vec<u8>> {
    let mut passed = Vec::new();
    for packet in splitter.handle(bytes).ok()? {
        let times = match filter(direction, &packet) {
            Verdict::Drop => 0,
            Verdict::Pass => 1,
            Verdict::Repeat => 2,
        };
        for _ in 0..times {
            passed.extend_from_slice(packet.bytes());
        }
    }
    Some(passed)
}

/// Waits for room; false = the writer is gone.
fn push(line: &Line, chunk: (Instant, Vec<u8>)) -> bool {
    let mut queue = line.lock();
    while queue.bytes >= QUEUE_BYTES_MAX && !queue.broken {
        queue = line
            .changed
            .wait(queue)
            .unwrap_or_else(PoisonError::into_inner);
    }
    queue.bytes += chunk.1.len();
    queue.chunks.push_back(chunk);
    line.changed.notify_all();
    !queue.broken
}

/// Waits until the link takes more; false = the writer is gone.
fn await_room(line: &Line, at: Instant) -> bool {
    let mut queue = line.lock();
    loop {
        let left = at.saturating_duration_since(deadline::now());
        if left.is_zero() || queue.broken {
            return !queue.broken;
        }
        queue = line
            .changed
            .wait_timeout(queue, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}

fn write(id: u64, direction: Direction, mut to: TcpStream, line: &Line, shared: &Shared) {
    while let Some(bytes) = next_due(line) {
        if !await_flow(id, shared) || to.write_all(&bytes).is_err() {
            break;
        }
        shared.change(|state| {
            let index = direction as usize;
            let flow = &mut state.flows[index];
            flow.count(deadline::now(), bytes.len());
            if state.cut_at[index].is_some_and(|at| state.flows[index].bytes() >= at) {
                state.cut_at[index] = None;
                state.cut();
            }
        });
    }
    line.change(|queue| queue.broken = true);
    // The end of a forgotten connection is never told.
    await_flow(id, shared);
    // The other side may have closed first.
    let _gone = to.shutdown(Shutdown::Write);
}

/// The next chunk when it is due; none = the end.
fn next_due(line: &Line) -> Option<Vec<u8>> {
    let mut queue = line.lock();
    loop {
        let wait = match queue.chunks.front() {
            None if queue.ended => return None,
            None => None,
            Some((due, _)) => Some(due.saturating_duration_since(deadline::now())),
        };
        queue = match wait {
            None => line
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner),
            Some(left) if !left.is_zero() => {
                line.changed
                    .wait_timeout(queue, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            Some(_) => {
                let (_, bytes) = queue.chunks.pop_front()?;
                queue.bytes -= bytes.len();
                line.changed.notify_all();
                return Some(bytes);
            }
        };
    }
}

/// Waits while nothing moves; false = the proxy stops.
fn await_flow(id: u64, shared: &Shared) -> bool {
    let mut state = shared.lock();
    while (state.stalled || state.forgotten.contains(&id)) && !state.stopping {
        state = shared
            .changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner);
    }
    !state.stopping
}
