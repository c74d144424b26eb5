//! A configuration for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{
    ByteSize, Config, Cpu, Egress, GitHubConfig, HistoryConfig, Image, Layer, LoginConfig,
    LogsConfig, Network, PoolConfig, ReserveConfig, RunnerLimits, Scope, SharedParts, Total,
};
use crate::pool::{Budget, DEFAULT_SCALE_DOWN_AFTER, Demand, OrderRules, ScopeId, Timeouts};

/// One pool `ci` of four slots.
pub(crate) fn config() -> Config {
    Config {
        host: "box".parse().unwrap(),
        scopes: vec![GitHubConfig {
            name: None,
            scope: Scope::Organization { org: "acme".into() },
            api_url: "https://api.github.com".parse().unwrap(),
            server_url: "https://github.com".into(),
            api_version: "2022-11-28".into(),
            login: LoginConfig::Token {
                file: "/etc/runner-controller/token".into(),
            },
            mints_per_minute: crate::pool::DEFAULT_MINTS_PER_MINUTE,
            timeout: Duration::from_secs(30),
            proxy: None,
            ca_file: None,
        }],
        network: Network {
            block: "10.200.0.0/16".parse().unwrap(),
            resolvers: vec!["9.9.9.9".parse().unwrap(), "1.1.1.1".parse().unwrap()],
            uid_base: 0x2000_0000,
        },
        pools: vec![pool("ci", 0)],
        state_dir: "/var/lib/runner-controller".into(),
        run_dir: "/run/runner-controller".into(),
        layer_dir: "/var/lib/runner-controller-layers".into(),
        reconcile: Duration::from_mins(1),
        reserve: ReserveConfig::default(),
        history: HistoryConfig::default(),
        logs: LogsConfig::default(),
        listen: Vec::new(),
        api_token_file: None,
        webhook: None,
        notify: None,
        traces: None,
        budget: Budget::default(),
        order: OrderRules::default(),
        observes: false,
    }
}

/// About the same, as it is written.
pub(crate) const TEXT: &str = r#"
host = "box"
[github]
url = "https://github.com/acme"
token_file = "/etc/runner-controller/token"
[network]
block = "10.200.0.0/16"
resolvers = ["9.9.9.9"]
[pools.ci]
labels = ["ci"]
max_runners = 4
image = { kind = "directory", path = "/var/lib/machines/ci" }
"#;

/// A pool of four slots.
pub(crate) fn pool(name: &str, offset: u32) -> PoolConfig {
    PoolConfig {
        name: name.parse().unwrap(),
        scope: ScopeId::new("https://api.github.com", "acme"),
        offset,
        labels: vec!["self-hosted".into(), name.into()],
        runner_group: "default".into(),
        demand: Demand::Fixed,
        scale_set: None,
        scale_down_after: DEFAULT_SCALE_DOWN_AFTER,
        min_idle: 1,
        min_spare: 1,
        max_runners: 4,
        schedule: Vec::new(),
        image: Image::Directory {
            path: "/var/lib/machines/ci".into(),
            runner_root: "/opt/actions-runner".into(),
        },
        layer: Layer::Tmpfs {
            size: ByteSize(2 << 30),
        },
        limits: RunnerLimits {
            memory: ByteSize(6 << 30),
            cpu: Some(Cpu { millicores: 1500 }),
            tasks: 4096,
            io_weight: 100,
            open_files: 65_536,
            shared: SharedParts::default(),
        },
        timeouts: Timeouts {
            boot: Duration::from_mins(1),
            registration: Duration::from_mins(2),
            spare_age: Duration::from_hours(1),
            idle_age: Duration::from_hours(2),
            job: Duration::from_hours(6),
            stop: Duration::from_secs(100),
        },
        docker: false,
        total: Total::default(),
        work_folder: "/home/runner/work".into(),
        egress: Egress::Internet,
        allow: Vec::new(),
        nix: None,
        proxy: None,
        environment: BTreeMap::new(),
        binds: Vec::new(),
        devices: BTreeSet::new(),
        capabilities: BTreeSet::new(),
    }
}

/// Reads a file. The error has the mistakes as `key: what is wrong`.
pub(crate) fn read(text: &str) -> Result<Config, Vec<String>> {
    super::parse(std::path::Path::new("x"), text).map_err(|mistakes| {
        let list = mistakes.list.into_iter();
        list.map(|mistake| format!("{}: {}", mistake.key, mistake.wrong))
            .collect()
    })
}
