use super::*;
use crate::config::{ByteSize, Capability, Device, Egress, PoolConfig, ProxyConfig};

const GOOD: &str = r#"
host = "runner-01"
[github]
url = "https://github.com/acme/widgets"
token_file = "/run/agenix/github-runner"
[network]
block = "10.200.0.0/24"
resolvers = ["9.9.9.9"]
[pools.ci]
labels = ["self-hosted", "ci"]
max_runners = 4
image = { kind = "directory", path = "/var/lib/runner-images/debian" }
[pools.big]
labels = ["big"]
offset = 4
max_runners = 2
image = { kind = "nixos", system = "/nix/store/abc-nixos-system" }
layer = { kind = "disk", size = "40 GiB" }
limits = { memory = "6 GiB", cpu = 1.5 }
timeouts = { job = "2h" }
"#;

fn keys(text: &str) -> Vec<String> {
    parse(Path::new("config.toml"), text)
        .expect_err("the file has mistakes")
        .list
        .into_iter()
        .map(|mistake| mistake.key)
        .collect()
}

#[test]
fn the_pages_of_a_scope_are_on_the_server_of_its_url() {
    for (url, server) in [
        ("https://github.com/acme/widgets", "https://github.com"),
        ("https://www.github.com/acme", "https://github.com"),
        ("https://acme.ghe.com/widgets", "https://acme.ghe.com"),
        ("https://ghe.example:8443/acme", "https://ghe.example:8443"),
    ] {
        let text = GOOD.replacen("https://github.com/acme/widgets", url, 1);
        let config = parse(Path::new("config.toml"), &text).unwrap();
        assert_eq!(config.scopes[0].server_url, server);
    }
}

#[test]
fn an_enterprise_has_runner_groups_and_needs_a_token() {
    let url = "https://github.com/enterprises/acme";
    let text = GOOD.replacen("https://github.com/acme/widgets", url, 1);
    let text = text.replacen(
        "max_runners = 4",
        "max_runners = 4\nrunner_group = \"fast\"",
        1,
    );
    let config = parse(Path::new("config.toml"), &text).unwrap();
    assert_eq!(config.scopes[0].scope.to_string(), "enterprises/acme");
    assert_eq!(config.scopes[0].api_url.as_str(), "https://api.github.com/");
    let app = "app = { id = 1, key_file = \"/run/agenix/app\" }";
    let token = "token_file = \"/run/agenix/github-runner\"";
    assert!(text.contains(token));
    assert_eq!(keys(&text.replacen(token, app, 1)), ["github.app"]);
}

#[test]
fn the_pace_of_registrations_is_a_whole_number_from_1_to_1000() {
    let pace = |text: &str| {
        let config = parse(Path::new("config.toml"), text);
        config.map(|config| config.scopes[0].mints_per_minute)
    };
    let with = |value: &str| {
        let key = format!("[github]\nmints_per_minute = {value}");
        GOOD.replacen("[github]", &key, 1)
    };
    assert_eq!(pace(GOOD).unwrap(), 150);
    assert_eq!(pace(&with("1000")).unwrap(), 1000);
    for wrong in ["0", "1001", "1.5", "\"fast\""] {
        assert_eq!(keys(&with(wrong)), ["github.mints_per_minute"], "{wrong}");
    }
}

/// Returns the keys that are wrong after one change to a valid file.
fn change(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    keys(&GOOD.replacen(from, to, 1))
}

#[test]
fn a_valid_file_is_read_with_its_defaults() {
    let config = parse(Path::new("config.toml"), GOOD).unwrap();
    assert_eq!(config.scopes[0].api_url.as_str(), "https://api.github.com/");
    let [big, ci] = &config.pools[..] else {
        panic!("the file has two pools")
    };
    assert_eq!((ci.min_idle, ci.min_spare, ci.offset), (1, 1, 0));
    assert_eq!(big.layer.size(), ByteSize(40 << 30));
    assert_eq!(big.limits.cpu.unwrap().quota(), "150%");
    let place = config.place(&"big-2".parse().unwrap()).unwrap();
    assert_eq!(place.number(), 5);
    assert_eq!(place.guest_address().to_string(), "10.200.0.22");
    assert_eq!(place.uid_first(), 0x1000_0000 + 5 * 65_536);
    assert!(config.place(&"big-3".parse().unwrap()).is_none());
}

#[test]
fn a_total_below_the_limit_of_one_runner_is_a_mistake() {
    let limits = "limits = { memory = \"6 GiB\", cpu = 1.5 }";
    let with = |total: &str| format!("{limits}\ntotal = {total}");
    let good = GOOD.replacen(
        limits,
        &with(r#"{ memory = "6 GiB", cpu = 1.5, tasks = 4096 }"#),
        1,
    );
    let config = parse(Path::new("config.toml"), &good).unwrap();
    assert_eq!(config.pools[0].total.memory, Some(ByteSize(6 << 30)));
    assert_eq!(
        change(
            limits,
            &with(r#"{ memory = "5 GiB", cpu = 1, tasks = 4095 }"#)
        ),
        [
            "pools.big.total.memory",
            "pools.big.total.cpu",
            "pools.big.total.tasks"
        ]
    );
}

#[test]
fn every_mistake_is_reported_at_once() {
    let found = keys(
        r#"
hots = "x"
[github]
url = "ftp://github.com"
api_url = "http://10.0.0.1"
token_file = "token"
[network]
block = "10.200.0.1/24"
resolvers = ["127.0.0.53"]
[pools.CI]
labels = []
max_runners = "four"
image = { kind = "docker" }
timeouts = { job = "9 days" }
"#,
    );
    for key in [
        "hots",
        "host",
        "github.url",
        "github.api_url",
        "github.token_file",
        "network.block",
        "network.resolvers",
        "pools.CI.(name)",
        "pools.CI.labels",
        "pools.CI.max_runners",
        "pools.CI.image.kind",
        "pools.CI.timeouts.job",
    ] {
        assert!(found.iter().any(|found| found == key), "{key} in {found:?}");
    }
}

#[test]
fn each_mistake_names_its_key() {
    let table: &[(&str, &str, &str)] = &[
        ("host = \"runner-01\"", "host = \"Runner_01\"", "host"),
        ("offset = 4", "offset = 3", "pools.big.offset"),
        ("offset = 4", "offset = 63", "pools.big.max_runners"),
        (
            "max_runners = 4",
            "max_runners = 4\nmin_idle = 5",
            "pools.ci.max_runners",
        ),
        (
            "max_runners = 4",
            "max_runners = 1000",
            "pools.ci.max_runners",
        ),
        (
            "max_runners = 4",
            "max_runners = 4\nmin_idle = 0",
            "pools.ci.min_idle",
        ),
        ("\"9.9.9.9\"", "\"10.200.0.9\"", "network.resolvers"),
        ("\"9.9.9.9\"", "", "network.resolvers"),
        ("10.200.0.0/24", "8.8.8.0/24", "network.block"),
        ("[\"big\"]", "[\"big\", \"BIG\"]", "pools.big.labels"),
        ("[\"big\"]", "[\"a,b\"]", "pools.big.labels"),
        (
            "[\"big\"]",
            "[\"big\"]\nrunner_group = \"other\"",
            "pools.big.runner_group",
        ),
        ("\"40 GiB\"", "\"40\"", "pools.big.layer.size"),
        ("\"6 GiB\"", "6", "pools.big.limits.memory"),
        ("1.5", "0", "pools.big.limits.cpu"),
        ("\"2h\"", "\"2\"", "pools.big.timeouts.job"),
        (
            "job = \"2h\"",
            "registration = \"90s\"",
            "pools.big.timeouts.registration",
        ),
        (
            "/nix/store/abc-nixos-system",
            "/srv/abc",
            "pools.big.image.system",
        ),
        (
            "/run/agenix/github-runner",
            "/nix/store/token",
            "github.token_file",
        ),
        (
            "/var/lib/runner-images/debian",
            "/var/lib/../x",
            "pools.ci.image.path",
        ),
        ("acme/widgets", "enterprises", "github.url"),
        ("acme/widgets", "enterprises/acme/settings", "github.url"),
        ("acme/widgets", "orgs/acme", "github.url"),
        ("acme/widgets", "orgs/acme/repositories", "github.url"),
        (
            "[network]",
            "[network]\nuid_base = 600000",
            "network.uid_base",
        ),
        (
            "[network]",
            "[network]\nuid_base = 1878917120",
            "pools.ci.max_runners",
        ),
    ];
    for (from, to, key) in table {
        let found = change(from, to);
        assert!(
            found.iter().any(|found| found == key),
            "{to}: {key} in {found:?}"
        );
    }
}

#[test]
fn a_pool_with_nix_needs_valid_caches_keys_and_a_registration() {
    let registration = r#"system = "/nix/store/abc-nixos-system", registration = "/nix/store/def-closure-info/registration""#;
    let nix = r#"
nix = true
substituters = ["https://cache.example.org", "http://10.0.0.5"]
trusted_public_keys = ["cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="]"#;
    let good = GOOD
        .replace(r#"system = "/nix/store/abc-nixos-system""#, registration)
        .replace("offset = 4", &format!("offset = 4{nix}"));
    let config = parse(Path::new("config.toml"), &good).unwrap();
    let [big, ci] = &config.pools[..] else {
        panic!("the file has two pools")
    };
    assert_eq!(ci.nix, None);
    let found = big.nix.as_ref().unwrap();
    assert_eq!(found.substituters.len(), 2);
    assert_eq!(
        found.registration.as_deref(),
        Some(Path::new("/nix/store/def-closure-info/registration"))
    );
    // A store elsewhere on the host is at its usual path in the container.
    let elsewhere = good.replace("/nix/store", "/srv/store").replace(
        "kind = \"nixos\",",
        "kind = \"nixos\", store = \"/srv/store\",",
    );
    let config = parse(Path::new("config.toml"), &elsewhere).unwrap();
    assert_eq!(config.pools[0].nix, big.nix);
    assert_ne!(
        config.pools[0].generation(),
        PoolConfig {
            nix: None,
            ..config.pools[0].clone()
        }
        .generation()
    );

    for (from, to, key) in [
        (
            registration,
            r#"system = "/nix/store/abc-nixos-system""#,
            "pools.big.image.registration",
        ),
        (
            "/nix/store/def-",
            "/srv/def-",
            "pools.big.image.registration",
        ),
        ("nix = true", "nix = false", "pools.big.substituters"),
        ("nix = true", "", "pools.big.trusted_public_keys"),
        ("nix = true", "nix = \"yes\"", "pools.big.nix"),
        (
            "http://10.0.0.5",
            "ssh://10.0.0.5",
            "pools.big.substituters",
        ),
        ("org-1:", "org-1", "pools.big.trusted_public_keys"),
    ] {
        assert!(good.contains(from), "{from}");
        let found = keys(&good.replacen(from, to, 1));
        assert!(found.iter().any(|found| found == key), "{to}: {found:?}");
    }
}

#[test]
fn the_api_url_follows_from_the_web_address() {
    for (web, api) in [
        ("https://github.com/acme", "https://api.github.com/"),
        ("https://acme.ghe.com/acme/x", "https://api.acme.ghe.com/"),
        (
            "https://git.example.com/acme/x",
            "https://git.example.com/api/v3",
        ),
    ] {
        assert_eq!(github::scope(web).unwrap().1.as_str(), api);
    }
}

#[test]
fn a_mistake_names_the_text_to_write() {
    let text = parse(Path::new("config.toml"), "host = 3")
        .unwrap_err()
        .to_string();
    assert!(text.starts_with("config.toml: "), "{text}");
    assert!(text.contains("write: host = \"runner-01\""), "{text}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,400}", at in 0..GOOD.len()) {
        let _ = parse(Path::new("config.toml"), &text);
        if GOOD.is_char_boundary(at) {
            let _ = parse(Path::new("config.toml"), &format!("{}{text}{}", &GOOD[..at], &GOOD[at..]));
        }
    }
}

#[test]
fn a_pool_reaches_the_internet_by_default() {
    let with = |line: &str| {
        let text = GOOD.replacen("max_runners = 4", &format!("max_runners = 4\n{line}"), 1);
        let config = parse(Path::new("config.toml"), &text).unwrap();
        let ci = config
            .pools
            .into_iter()
            .find(|pool| pool.name.to_string() == "ci");
        ci.map(|pool| (pool.egress, pool.allow.len())).unwrap()
    };
    assert_eq!(with(""), (Egress::Internet, 0));
    assert_eq!(with("allow = [\"10.0.0.5:443\"]"), (Egress::Internet, 1));
    let list = "allow = [\"10.0.0.5:443\", \"192.168.7.0/24:53/udp\"]";
    assert_eq!(
        with(&format!("egress = \"listed\"\n{list}")),
        (Egress::Listed, 2)
    );
    assert_eq!(
        with(&format!("egress = \"none\"\n{list}")),
        (Egress::None, 2)
    );
}

#[test]
fn an_allow_list_that_cannot_work_is_a_mistake() {
    for lines in [
        "allow = [\"10.0.0.5\"]",
        "allow = [\"10.0.0.5:0\"]",
        "allow = [\"127.0.0.1:80\"]",
        "allow = [\"169.254.169.254:80\"]",
        "allow = [\"0.0.0.0/0:443\"]",
        "allow = [\"0.0.0.0:443\"]",
        "allow = [\"255.255.255.255:9\"]",
        "allow = [\"239.1.1.1:9/udp\"]",
        // A slot, and a network with all slots.
        "allow = [\"10.200.0.2:80\"]",
        "allow = [\"10.0.0.0/8:80\"]",
        "allow = [\"10.0.0.5:80\", \"10.0.0.5/32:80/tcp\"]",
        // No runner can reach GitHub.
        "egress = \"listed\"",
        "egress = \"none\"\nallow = []",
        "egress = \"none\"\nallow = [\"10.0.0.5:53/udp\"]",
    ] {
        let lines = format!("max_runners = 4\n{lines}");
        assert_eq!(
            change("max_runners = 4", &lines),
            ["pools.ci.allow"],
            "{lines}"
        );
    }
    let many: Vec<String> = (1..=65)
        .map(|port| format!("\"10.0.0.5:{port}\""))
        .collect();
    let lines = format!("max_runners = 4\nallow = [{}]", many.join(", "));
    assert_eq!(change("max_runners = 4", &lines), ["pools.ci.allow"]);
    assert_eq!(
        change("max_runners = 4", "max_runners = 4\negress = \"lan\""),
        ["pools.ci.egress"]
    );
}

#[test]
fn an_api_token_needs_a_tcp_address() {
    let host = "host = \"runner-01\"";
    let with = |lines: &str| format!("{host}\n{lines}");
    let listen = "listen = [\"127.0.0.1:9817\"]";
    let token = "api_token_file = \"/run/agenix/api\"";
    assert_eq!(change(host, &with(token)), ["api_token_file"]);
    let stored = format!("{listen}\napi_token_file = \"/nix/store/x-token\"");
    assert_eq!(change(host, &with(&stored)), ["api_token_file"]);
    let notes = |lines: &str| {
        let text = GOOD.replacen(host, &with(lines), 1);
        parse(Path::new("config.toml"), &text).unwrap().notes()
    };
    assert_eq!(notes(&format!("{listen}\n{token}")), [] as [&str; 0]);
    let open = notes("listen = [\"0.0.0.0:9817\"]");
    assert!(
        open.len() == 1 && !open[0].contains("in the clear"),
        "{open:?}"
    );
    let clear = notes(&format!("listen = [\"[::]:9817\"]\n{token}"));
    assert!(
        clear.len() == 1 && clear[0].contains("in the clear"),
        "{clear:?}"
    );
}

#[test]
fn a_reserve_is_a_size_or_follows_from_the_host() {
    let reserve = |text: &str| {
        let text = GOOD.replacen("[network]", &format!("{text}\n[network]"), 1);
        parse(Path::new("config.toml"), &text).map(|config| config.reserve)
    };
    assert_eq!(reserve("").unwrap(), ReserveConfig::default());
    let both = reserve("[reserve]\ndisk = \"5 GiB\"\nmemory = \"1 GiB\"").unwrap();
    assert_eq!(both.disk, Some(ByteSize(5 << 30)));
    assert_eq!(both.memory, Some(ByteSize(1 << 30)));
    let wrong = reserve("[reserve]\ndisk = 5\nmemory = \"1073741824\"\npids = 7").unwrap_err();
    let keys: Vec<String> = wrong.list.into_iter().map(|mistake| mistake.key).collect();
    assert_eq!(keys, ["reserve.disk", "reserve.memory", "reserve.pids"]);
}

/// Lists that `nix/module/assertions` has from this program.
const ACCESS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../nix/module/access.json");

#[test]
fn the_nixos_module_opens_and_refuses_the_same_as_this_program() {
    let proxy = ProxyConfig {
        url: "http://198.51.100.9:3128".parse().unwrap(),
        no_proxy: Vec::new(),
        credentials_file: None,
    };
    let of_proxy: BTreeSet<&str> = proxy.environment().iter().map(|(name, _)| *name).collect();
    let access = serde_json::json!({
        "capabilities": Capability::ALL.map(Capability::as_str),
        "container_parents": binds::GUEST_PARENTS,
        "container_trees": binds::GUEST_TREES,
        "devices": Device::ALL.map(Device::path),
        "host_trees": binds::HOST_TREES,
        "open_variables": environment::NOT_RESERVED,
        "proxy_variables": of_proxy,
        "reserved_variable_prefixes": environment::RESERVED_PREFIXES,
        "reserved_variables": environment::RESERVED,
    });
    let now = serde_json::to_string_pretty(&access).unwrap() + "\n";
    if std::env::var_os("RECORD").is_some() {
        std::fs::write(ACCESS, &now).unwrap();
    }
    let recorded = std::fs::read_to_string(ACCESS).unwrap();
    assert_eq!(
        now, recorded,
        "if the change is intended, run the tests with RECORD=1 and check nix/module/assertions"
    );
}
