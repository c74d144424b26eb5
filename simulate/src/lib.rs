//! The real controller and the real GitHub client over a simulated host, disk, network and GitHub. A seed gives
//! one history, and a history that violates an invariant can be played again.
//!
//! ```text
//! history     plays one history: the daemons one after the other, the steps of the world, the end
//! daemon      one daemon: the real loop, its environment, and the mutations of them
//! world       the models, wired together by events
//!   host        systemd's units, their containers, root's records
//!   sockets     the slots' sockets, and systemd's copies of them
//!   github      registrations, jobs, scale sets, the REST API and its limits
//!   deliveries  GitHub's deliveries of its jobs, and the host's record of them
//!   network     between the daemon and GitHub
//!   disk        the daemon's records
//!   jobs        the jobs that workflows ask for
//!   supervisor  starts and stops the daemon, tells it events and commands
//!   injector    draws faults by the seed, starts and ends them
//!   observer    checks the invariants from the events alone
//! ```
//! A model has its own state and its own random numbers. It knows the vocabulary (`event`, `fault`, `api`), the
//! `schedule`, and no other model.

pub mod history;
pub mod invariant;
pub mod mutation;

pub mod fault;

mod api;
mod clock;
mod configs;
mod daemon;
mod deliveries;
mod disk;
mod event;
mod github;
mod host;
mod injector;
mod jobs;
mod network;
mod observer;
mod random;
mod schedule;
mod sockets;
mod supervisor;
mod unavailable;
mod world;
