//! The test host, and what is done on it: the demo, the system tests and the benchmark.
//!
//! A *test host* is a Debian 13 root filesystem with real systemd, booted by systemd-nspawn with
//! all capabilities, a private cgroup and network. In it our daemon is installed as an
//! operator would install it, and runs real nspawn containers. It needs root and package mirrors;
//! systemd need not be process 1 of the machine.
//!
//! The rooms, from the ground up:
//! - [`bed`]: directories and locks on this machine; [`packages`]: downloads from its package mirror;
//! - [`rootfs`]: root filesystems, built once and kept; [`sources`]: the software that jobs compile;
//! - [`host`]: boots, enters and removes the test host ([`inner`] is what runs on the way in);
//! - [`net`]: the test host's internet; [`sim`]: the stand-in for GitHub that lives in it;
//! - [`api`], [`status`]: what the daemon says of itself, as its readers see it;
//! - [`journal`]: what the host's journal says happened when;
//! - [`lab`]: all that with our daemon on top, and the verbs that tests are written in;
//!   [`leftovers`]: what must not be there afterwards;
//! - [`settle`]: waits for pools that are full and rest;
//! - [`checks`]: judges the files of this repository;
//! - [`setup`]: claims about the set-up itself;
//! - [`verify`] with [`claims`], [`attack`], [`chaos`], [`demo`], [`bench`]: the commands.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod api;
pub mod attack;
pub mod bed;
pub mod bench;
pub mod binaries;
pub mod chaos;
pub mod checks;
pub mod claims;
pub mod config;
pub mod demo;
pub mod host;
pub mod image;
pub mod inner;
pub mod journal;
pub mod lab;
pub mod leftovers;
pub mod net;
pub mod older;
pub mod packages;
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
