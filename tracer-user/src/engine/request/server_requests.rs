//! All connections of the traced processes: each event goes to its connection.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use tracer_common::limits::MAX_CONNECTIONS;

use super::connection::{Connection, Outcome};
use super::piece::Piece;
use super::propagators::Propagators;
use crate::model::{ConnectionId, MonotonicNs, OutOfStep, RequestEnding, SocketAction, SocketEvent};

/// Connections that are remembered at one time: twice what the programs keep, because one whose end was lost is not announced.
const MOST_CONNECTIONS: usize = 2 * MAX_CONNECTIONS as usize;

/// Turns what sockets do into requests that are over. It does not look at the clock, and asks nobody: the same events give the same
/// requests.
#[derive(Debug)]
pub struct ServerRequests {
    /// By process and descriptor, with the time of the last event. Descriptors are chosen by the kernel, and lowest first.
    connections: FxHashMap<(u32, u32), (Connection, MonotonicNs)>,
    most: usize,
    last: MonotonicNs,
    /// What callers' traces are read from.
    propagators: Arc<Propagators>,
}

impl Default for ServerRequests {
    fn default() -> Self {
        Self {
            connections: FxHashMap::default(),
            most: MOST_CONNECTIONS,
            last: MonotonicNs(0),
            propagators: Arc::default(),
        }
    }
}

impl ServerRequests {
    /// None so far; the traces of callers are read from these headers.
    pub fn reading(propagators: Propagators) -> Self {
        Self { propagators: Arc::new(propagators), ..Self::default() }
    }

    /// Takes one event; what comes of it goes to `out`.
    pub fn event(&mut self, event: SocketEvent, out: &mut impl FnMut(Outcome)) {
        let SocketEvent { connection: id, thread, time, was_before, has_lost, action, .. } = event;
        self.last = self.last.max(time);
        let key = (id.process, id.descriptor);
        if let Some((known, _)) = self.connections.get_mut(&key) {
            if known.id().opened > id.opened {
                // Late, of the one that had the descriptor before.
                return;
            }
            if known.id() != id {
                // Its end was lost.
                known.close(time, out);
                self.connections.remove(&key);
            }
        }
        if !self.connections.contains_key(&key) {
            if self.connections.len() >= self.most {
                self.forget_oldest(out);
            }
            // Of one whose beginning was not told nobody knows where it is.
            let is_new = action == SocketAction::Accepted && !was_before;
            self.connections.insert(key, (Connection::new(id, !is_new, Arc::clone(&self.propagators)), time));
        }
        let Some((connection, last)) = self.connections.get_mut(&key) else { return };
        *last = time;
        if has_lost {
            connection.lose_step(OutOfStep::LostRecord, time, out);
        }
        match action {
            SocketAction::Accepted => {}
            SocketAction::Read { length, bytes } => connection.read(time, thread, Piece::new(&bytes, length), out),
            SocketAction::Written { length, bytes } => connection.write(time, Piece::new(&bytes, length), out),
            SocketAction::Closed => {
                connection.close(time, out);
                self.connections.remove(&key);
            }
        }
    }

    /// A process has ended, or executes another program: what it was asked is not answered any more.
    pub fn process_ended(&mut self, process: u32, time: MonotonicNs, out: &mut impl FnMut(Outcome)) {
        self.last = self.last.max(time);
        self.end_those(|id| id.process == process, RequestEnding::ProcessEnded, time, out);
    }

    /// The stream has ended.
    pub fn finish(&mut self, out: &mut impl FnMut(Outcome)) {
        self.end_those(|_| true, RequestEnding::StillOpen, self.last, out);
    }

    fn end_those(
        &mut self,
        is_meant: impl Fn(ConnectionId) -> bool,
        ending: RequestEnding,
        time: MonotonicNs,
        out: &mut impl FnMut(Outcome),
    ) {
        let meant = self.connections.iter().filter(|(_, (connection, _))| is_meant(connection.id()));
        let mut meant: Vec<_> = meant.map(|(key, _)| *key).collect();
        // The order of a table is nobody's business.
        meant.sort_unstable();
        for key in meant {
            if let Some((mut connection, _)) = self.connections.remove(&key) {
                connection.end(ending, time, out);
            }
        }
    }

    /// Forgets the one that has been silent for longest.
    fn forget_oldest(&mut self, out: &mut impl FnMut(Outcome)) {
        let oldest = self.connections.iter().min_by_key(|(key, (_, last))| (*last, **key));
        let Some(key) = oldest.map(|(key, _)| *key) else { return };
        if let Some((mut connection, _)) = self.connections.remove(&key) {
            connection.lose_step(OutOfStep::TooMany, self.last, out);
        }
    }
}

#[cfg(test)]
#[path = "server_requests_tests.rs"]
mod tests;
