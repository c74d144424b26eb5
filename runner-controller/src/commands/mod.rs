//! The commands of the program. Each reads the configuration and asks the daemon, or acts on the host
//! itself.

mod apply;
mod check_config;
mod cleanup_all;
mod cleanup_github;
mod common;
mod docs;
mod doctor;
mod drain;
mod explain;
mod firewall;
mod history;
mod host_check;
mod jobs;
mod journal;
mod kept_logs;
mod logs;
mod plan;
mod run;
mod size;
mod status;
mod support_bundle;
mod table;
mod watch;
mod webhook_test;

pub use apply::apply;
pub use check_config::check_config;
pub use cleanup_all::cleanup_all_containers;
pub use cleanup_github::cleanup_github_runners;
pub use docs::docs;
pub use doctor::{DoctorOptions, doctor};
pub use drain::{drain, undrain};
pub use explain::{Subject, explain};
pub use firewall::firewall;
pub use history::{HistoryForm, history};
pub use jobs::jobs;
pub use logs::{LogOptions, LogTarget, logs};
pub use plan::plan;
pub use run::run;
pub use size::{SizeOptions, size};
#[cfg(any(test, fuzzing))]
pub(crate) use status::try_status;
pub use status::{StatusOptions, status, wait_until_ready};
pub use support_bundle::support_bundle;
pub use watch::watch;
pub use webhook_test::{WebhookTest, webhook_test};
