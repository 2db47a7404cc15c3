//! The local control socket: how `otad status`, `suspend`, `commit` and their siblings talk to the daemon.
//!
//! A unix socket, JSON lines, a version in every line. One request a connection; the answer is one line, or a run of
//! `item` lines before it. Who may connect is a matter of the file's mode (0600, or 0660 for a configured group), and
//! the peer's credentials are checked besides. Not here: what the verbs do; the daemon hands in a [`server::Backend`].

pub mod client;
pub mod group;
pub mod protocol;
pub mod server;
pub mod view;
