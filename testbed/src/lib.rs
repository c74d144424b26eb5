//! The test host, and what is done on it: the demo, the system tests and the benchmark.
//!
//! A *test host* is a Debian 13 root filesystem with real systemd, booted by systemd-nspawn with
//! all capabilities, a private cgroup and network. In it our daemon is installed as an
//! operator would install it, and runs real nspawn containers. It needs root and package mirrors;
//! systemd need not be process 1 of the machine.
//!
//! The modules, the lowest first:
//! - [`bed`]: directories and locks on this machine; [`packages`]: downloads from its package mirror;
//! - [`rootfs`]: root filesystems, built once and kept; [`sources`]: the software that jobs compile;
//! - [`host`]: boots, enters and removes the test host ([`inner`] prepares what the boot needs, in its namespaces);
//! - [`net`]: the test host's internet; [`sim`]: the stand-in for GitHub that lives in it;
//! - [`api`], [`status`]: the daemon's answers, as its readers see them;
//! - [`journal`]: times of events in the host's journal;
//! - [`lab`]: a test host with the daemon, and what tests do with it; [`leftovers`]: what must not be there
//!   afterwards;
//! - [`hook`]: a hook at the stand-in, and the host's listener for its deliveries;
//! - [`browser`]: a real browser on the test host's network;
//! - [`prometheus`]: a real Prometheus on the same network;
//! - [`settle`]: waits for pools that are full and rest;
//! - [`dashboard`]: the Grafana dashboard; [`record`], [`pictures`]: the pictures of the documentation;
//! - [`checks`]: judges the files of this repository;
//! - [`setup`]: claims about the set-up itself;
//! - [`verify`] with [`claims`], [`attack`], [`chaos`], [`demo`], [`bench`]: the commands.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
pub mod attack;
pub mod bed;
pub mod bench;
pub mod binaries;
pub mod browser;
pub mod chaos;
pub mod checks;
pub mod claims;
pub mod config;
pub mod dashboard;
pub mod demo;
pub mod hook;
pub mod host;
pub mod image;
pub mod inner;
pub mod journal;
pub mod lab;
pub mod leftovers;
pub mod net;
pub mod older;
pub mod packages;
pub mod pictures;
pub mod prometheus;
pub mod qemu;
pub mod readings;
pub mod record;
pub mod release;
pub mod rootfs;
pub mod settle;
pub mod setup;
pub mod sim;
pub mod sources;
pub mod supervise;
mod units;
pub mod verify;
pub mod wait;
