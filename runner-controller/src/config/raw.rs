//! The file as written. Unknown keys are refused, and numbers with a unit arrive as text.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) host: Option<String>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) run_dir: Option<PathBuf>,
    pub(super) layer_dir: Option<PathBuf>,
    pub(super) reconcile: Option<String>,
    #[serde(default)]
    pub(super) listen: Vec<String>,
    pub(super) github: Option<GitHub>,
    pub(super) network: Option<Network>,
    #[serde(default)]
    pub(super) pools: BTreeMap<String, Pool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GitHub {
    pub(super) url: Option<String>,
    pub(super) api_url: Option<String>,
    pub(super) api_version: Option<String>,
    #[serde(default)]
    pub(super) allow_plain_http: bool,
    pub(super) token_file: Option<PathBuf>,
    pub(super) timeout: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub(super) block: Option<String>,
    pub(super) resolvers: Option<Vec<String>>,
    pub(super) uid_base: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    pub(super) labels: Option<Vec<String>>,
    pub(super) runner_group: Option<String>,
    pub(super) offset: Option<i64>,
    pub(super) min_idle: Option<i64>,
    pub(super) min_spare: Option<i64>,
    pub(super) max_runners: Option<i64>,
    pub(super) image: Option<Image>,
    pub(super) layer: Option<Layer>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) timeouts: Timeouts,
    pub(super) work_folder: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Image {
    pub(super) kind: Option<String>,
    pub(super) path: Option<PathBuf>,
    pub(super) system: Option<PathBuf>,
    pub(super) store: Option<PathBuf>,
    pub(super) runner_root: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Layer {
    pub(super) kind: Option<String>,
    pub(super) size: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) memory: Option<String>,
    pub(super) cpu: Option<f64>,
    pub(super) tasks: Option<i64>,
    pub(super) io_weight: Option<i64>,
    pub(super) open_files: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timeouts {
    pub(super) boot: Option<String>,
    pub(super) registration: Option<String>,
    pub(super) spare_age: Option<String>,
    pub(super) idle_age: Option<String>,
    pub(super) job: Option<String>,
    pub(super) stop: Option<String>,
}
