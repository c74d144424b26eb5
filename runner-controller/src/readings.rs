//! Readings of the host's resources and of the runners' links, every few seconds. The core decides on them.
//!
//! All of them come from /proc or from one call, and none needs a privilege.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource as Bound, getrlimit};
use nix::sys::statvfs::statvfs;
use tokio::sync::mpsc;

use crate::config::{
    AioRequests, Config, Connections, Layer, Place, Terminals, UserTable, setting_path,
};
use crate::pool::{Filesystem, Readings, Reserve, Share, Shortages, SlotId, shortages};
use crate::world::Event;

/// Interval between readings. A container takes longer to fill any of the resources.
const INTERVAL: Duration = Duration::from_secs(2);
/// Minimum time between two readings of the links for each slot. The kernel takes up to 4 µs for each link, so a host with
/// a thousand slots reads them every 10 s, and spends 0.04 % of a core on it. One with at most 200 slots reads them each time.
const LINKS_INTERVAL: Duration = Duration::from_millis(10);

/// Returns the amounts that the configuration keeps free.
fn reserve(config: &Config) -> Reserve {
    Reserve {
        disk_bytes: config.reserve.disk.map(|size| size.0),
        memory_bytes: config.reserve.memory.map(|size| size.0),
        largest_layer_bytes: disk_layers(config).max().unwrap_or_default(),
    }
}

fn disk_layers(config: &Config) -> impl Iterator<Item = u64> {
    config.pools.iter().filter_map(|pool| match &pool.layer {
        Layer::Disk { size } => Some(size.0),
        Layer::Tmpfs { .. } => None,
    })
}

/// Returns the shortages now. The daemon applies them before any other event, so that no runner starts
/// on a host that is short.
#[must_use]
pub(crate) fn event(config: &Config) -> Event {
    Event::Shortages(shortages_now(config))
}

/// Returns the shortages now, without those that a quarter more than the floor would end.
#[must_use]
pub(crate) fn shortages_now(config: &Config) -> Shortages {
    shortages(&read(config), &reserve(config), &Shortages::new())
}

/// Sends an event after each change, until the channel closes. Blocks, so it needs a thread.
pub(crate) fn watch(config: &Config, events: &mpsc::Sender<Event>) {
    let reserve = reserve(config);
    let mut sent: Option<Shortages> = None;
    let mut bare: BTreeSet<SlotId> = BTreeSet::new();
    let slots = u32::try_from(config.slots_count()).unwrap_or(u32::MAX);
    let mut links_read: Option<Instant> = None;
    while !events.is_closed() {
        if links_read.is_none_or(|at| at.elapsed() >= LINKS_INTERVAL.saturating_mul(slots)) {
            links_read = Some(Instant::now());
            let before = std::mem::replace(&mut bare, links_without_address(config));
            // The core counts readings in a row, so each of them is sent while there is such a link.
            if !(before.is_empty() && bare.is_empty()) {
                let _ = events.blocking_send(Event::LinksWithoutAddress(bare.clone()));
            }
        }
        let now = shortages(
            &read(config),
            &reserve,
            sent.as_ref().unwrap_or(&Shortages::new()),
        );
        if sent.as_ref() != Some(&now) {
            sent = Some(now.clone());
            // The loop ends if the channel is closed.
            let _ = events.blocking_send(Event::Shortages(now));
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Returns the slots whose links exist and have no address.
fn links_without_address(config: &Config) -> BTreeSet<SlotId> {
    let text = |path: &str| fs::read_to_string(path).ok();
    // A reading that fails says nothing about any link.
    match (text("/proc/net/dev"), text("/proc/net/route")) {
        (Some(links), Some(routes)) => bare(config.slots(), &links, &routes),
        (_, _) => BTreeSet::new(),
    }
}

/// Returns the slots whose link is in `/proc/net/dev` and not in `/proc/net/route`.
///
/// The kernel adds a route with a link's address and removes both together. A runner that started under another
/// `network.block` has another route than the configured one.
fn bare(slots: impl Iterator<Item = SlotId>, links: &str, routes: &str) -> BTreeSet<SlotId> {
    let names = |text: &str| -> BTreeSet<String> {
        let first = |line: &str| {
            let mut words = line.split([':', ' ', '\t']);
            words.find(|word| !word.is_empty()).map(str::to_owned)
        };
        text.lines().filter_map(first).collect()
    };
    let (links, with_route) = (names(links), names(routes));
    let is_bare = |slot: &SlotId| {
        let link = Place::veth_of(slot);
        links.contains(&link) && !with_route.contains(&link)
    };
    slots.filter(is_bare).collect()
}

fn read(config: &Config) -> Readings {
    let text = |path: &str| fs::read_to_string(path).ok();
    Readings {
        state: filesystem(&config.state_dir),
        layers: disk_layers(config)
            .next()
            .and_then(|_| filesystem(&config.layer_dir)),
        run: filesystem(&config.run_dir),
        memory: text("/proc/meminfo").as_deref().and_then(memory),
        memory_stalled_percent: text("/proc/pressure/memory").as_deref().and_then(stalled),
        tasks: tasks(
            text("/proc/loadavg").as_deref(),
            &["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].map(text),
        ),
        open_files: text("/proc/sys/fs/file-nr").as_deref().and_then(open_files),
        own_files: own_files(descriptors()),
        inotify_instances: inotify_instances(
            config,
            text(&UserTable::INOTIFY_INSTANCES.path()).as_deref(),
        ),
        connections: used(
            text("/proc/sys/net/netfilter/nf_conntrack_count").as_deref(),
            text(&setting_path(Connections::SYSCTL)).as_deref(),
        ),
        terminals: terminals(
            config,
            text("/proc/sys/kernel/pty/nr").as_deref(),
            text(&setting_path(Terminals::SYSCTL)).as_deref(),
            text(&setting_path(Terminals::RESERVE)).as_deref(),
        ),
        aio_requests: used(
            text("/proc/sys/fs/aio-nr").as_deref(),
            text(&setting_path(AioRequests::SYSCTL)).as_deref(),
        ),
    }
}

/// Returns the memory of this machine in bytes.
#[must_use]
pub(crate) fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    memory(&text).map(|memory| memory.whole)
}

fn filesystem(path: &Path) -> Option<Filesystem> {
    let seen = statvfs(path).ok()?;
    let bytes = |blocks| seen.fragment_size().saturating_mul(blocks);
    Some(Filesystem {
        path: path.display().to_string(),
        bytes: bytes(seen.blocks()),
        bytes_left: bytes(seen.blocks_available()),
        files: seen.files(),
        files_left: seen.files_available(),
    })
}

/// Parses total and available memory in bytes (`proc_meminfo(5)`).
fn memory(meminfo: &str) -> Option<Share> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(Share {
        whole: field("MemTotal:")?,
        left: field("MemAvailable:")?,
    })
}

/// Parses the share of time in which all tasks waited for memory, in percent ("PSI - Pressure Stall
/// Information" in the kernel's documentation).
fn stalled(pressure: &str) -> Option<u64> {
    let full = pressure
        .lines()
        .find_map(|line| line.strip_prefix("full "))?;
    let average = full
        .split(' ')
        .find_map(|field| field.strip_prefix("avg10="))?;
    average.split('.').next()?.parse().ok()
}

/// Parses the number of existing tasks, in the fourth field of `loadavg`. The lower bound holds.
fn tasks(loadavg: Option<&str>, bounds: &[Option<String>]) -> Option<Share> {
    let existing = loadavg?.split(' ').nth(3)?.split('/').nth(1)?;
    let existing: u64 = existing.parse().ok()?;
    let number = |text: &String| text.trim().parse::<u64>().ok();
    let whole = bounds.iter().flatten().filter_map(number).min()?;
    Some(Share {
        whole,
        left: whole.saturating_sub(existing),
    })
}

/// Parses `file-nr`: allocated files, unused files (always 0), and the maximum.
fn open_files(file_nr: &str) -> Option<Share> {
    let numbers: Vec<u64> = file_nr
        .split_whitespace()
        .map_while(|number| number.parse().ok())
        .collect();
    let [allocated, _, whole] = numbers[..] else {
        return None;
    };
    Some(Share {
        whole,
        left: whole.saturating_sub(allocated),
    })
}

/// Returns the inotify instances that all configured slots leave when they are idle.
fn inotify_instances(config: &Config, maximum: Option<&str>) -> Option<Share> {
    let whole: u64 = maximum?.trim().parse().ok()?;
    let idle = UserTable::INOTIFY_INSTANCES.idle * config.slots_count();
    Some(Share {
        whole,
        left: whole.saturating_sub(idle),
    })
}

/// Parses the number of existing objects and their maximum.
fn used(existing: Option<&str>, maximum: Option<&str>) -> Option<Share> {
    let existing: u64 = existing?.trim().parse().ok()?;
    let whole: u64 = maximum?.trim().parse().ok()?;
    Some(Share {
        whole,
        left: whole.saturating_sub(existing),
    })
}

/// Parses the number of existing pseudo terminals, their maximum, and the reserve. Containers can use the reserve
/// if it has room for the parts of all slots.
fn terminals(
    config: &Config,
    existing: Option<&str>,
    maximum: Option<&str>,
    reserve: Option<&str>,
) -> Option<Share> {
    let all = used(existing, maximum)?;
    let reserve: u64 = reserve?.trim().parse().ok()?;
    if reserve >= Terminals::host_reserve(config) {
        return Some(all);
    }
    Some(Share {
        whole: all.whole.saturating_sub(reserve),
        left: all.left.saturating_sub(reserve),
    })
}

/// Returns the number of this process's descriptors. Since Linux 6.2 it is the size of their directory. A walk over
/// 900 of them takes 0.4 ms.
fn descriptors() -> io::Result<u64> {
    let told = fs::metadata("/proc/self/fd")?.len();
    if told > 0 {
        return Ok(told);
    }
    let open = fs::read_dir("/proc/self/fd")?.count() as u64;
    // The walk itself took one.
    Ok(open.saturating_sub(1))
}

/// Returns the daemon's open files. If reading them gets no descriptor, none is left.
fn own_files(open: io::Result<u64>) -> Option<Share> {
    let (whole, _) = getrlimit(Bound::RLIMIT_NOFILE).ok()?;
    let open = match open {
        Ok(open) => open,
        Err(error) if error.raw_os_error() == Some(Errno::EMFILE as i32) => whole,
        Err(_) => return None,
    };
    Some(Share {
        whole,
        left: whole.saturating_sub(open),
    })
}

/// List of the kernel's security modules.
const SECURITY_MODULES: &str = "/sys/kernel/security/lsm";

/// Returns the protections that this host lacks, in words. A list that cannot be read lacks nothing.
#[must_use]
pub(crate) fn lacking_protections() -> Vec<String> {
    let modules = fs::read_to_string(SECURITY_MODULES).unwrap_or_default();
    lacking_in(&modules)
        .map(str::to_owned)
        .into_iter()
        .collect()
}

fn lacking_in(modules: &str) -> Option<&'static str> {
    let modules = modules.trim();
    let has_landlock = modules.split(',').any(|module| module == "landlock");
    (!modules.is_empty() && !has_landlock).then_some(
        "this kernel has no Landlock, so only owners and modes protect files from root's programs",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_landlock_is_noted_once_for_the_host() {
        assert_eq!(lacking_in("lockdown,capability,landlock,yama\n"), None);
        assert_eq!(lacking_in(""), None);
        let note = lacking_in("lockdown,capability,yama\n").unwrap();
        assert!(note.contains("no Landlock"), "{note}");
    }

    #[test]
    fn files_of_the_kernel_are_parsed_as_documented() {
        let meminfo =
            "MemTotal:       24587652 kB\nMemFree:  123 kB\nMemAvailable:   20971520 kB\n";
        let read = memory(meminfo).unwrap();
        assert_eq!((read.whole, read.left), (24_587_652 << 10, 20 << 30));
        let pressure = "some avg10=1.50 avg60=0.00 avg300=0.00 total=2\nfull avg10=27.99 avg60=3.00 avg300=0.00 total=1\n";
        assert_eq!(stalled(pressure), Some(27));
        let bounds = [Some("4194304\n".to_owned()), Some("191000\n".to_owned())];
        let read = tasks(Some("0.20 0.18 0.12 1/1000 11206\n"), &bounds).unwrap();
        assert_eq!((read.whole, read.left), (191_000, 190_000));
        let read = used(Some("12000\n"), Some("262144\n")).unwrap();
        assert_eq!((read.whole, read.left), (262_144, 250_144));
        assert_eq!(used(None, Some("1")), None);
        let config = crate::config::testing::config();
        let read = |maximum, reserve| {
            let read = terminals(&config, Some("6\n"), Some(maximum), Some(reserve)).unwrap();
            (read.whole, read.left)
        };
        assert_eq!(read("4096\n", "1024\n"), (3072, 3066));
        let reserve = Terminals::host_reserve(&config).to_string();
        assert_eq!(read("65536\n", &reserve), (65_536, 65_530));
        let read = open_files("1184\t0\t9223372036854775807\n").unwrap();
        assert_eq!(read.left, 9_223_372_036_854_775_807 - 1184);
    }

    #[test]
    fn a_link_without_a_route_has_no_address() {
        let links = "Inter-|   Receive\n face |bytes\n    lo: 0 0\nrc-ci-1: 9 9\nrc-ci-2:9 9\n";
        let routes = "Iface\tDestination\nrc-ci-1\t0000C80A\n";
        let slots = || crate::config::testing::config().slots().collect::<Vec<_>>();
        let found = bare(slots().into_iter(), links, routes);
        assert_eq!(found, BTreeSet::from(["ci-2".parse().unwrap()]));
        assert!(bare(slots().into_iter(), links, links).is_empty());
    }

    #[test]
    fn other_text_gives_no_reading() {
        for text in [
            "",
            "MemTotal: 1 kB",
            "MemTotal: x kB\nMemAvailable: 2 kB",
            "full avg10=",
            "1 2",
        ] {
            assert_eq!(memory(text), None, "{text}");
            assert_eq!(stalled(text), None, "{text}");
            assert_eq!(open_files(text), None, "{text}");
            assert_eq!(tasks(Some(text), &[Some("5".into())]), None, "{text}");
        }
        assert_eq!(tasks(Some("0 0 0 1/5 1"), &[None, None]), None);
        assert_eq!(filesystem(Path::new("/no/such/directory")), None);
    }

    #[test]
    fn the_resources_of_this_machine_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let seen = filesystem(dir.path()).unwrap();
        assert!(seen.bytes >= seen.bytes_left && seen.bytes > 0, "{seen:?}");
        let mut config = crate::config::testing::config();
        config.state_dir = dir.path().to_owned();
        let seen = read(&config);
        assert!(seen.memory.is_some() && seen.tasks.is_some(), "{seen:?}");
        assert!(
            seen.own_files.is_some_and(|own| own.left < own.whole),
            "{seen:?}"
        );
    }

    #[test]
    fn a_daemon_that_gets_no_descriptor_has_none_left() {
        let none = io::Error::from_raw_os_error(Errno::EMFILE as i32);
        assert_eq!(own_files(Err(none)).map(|own| own.left), Some(0));
        assert_eq!(own_files(Err(io::ErrorKind::NotFound.into())), None);
    }

    #[test]
    fn inotify_instances_of_idle_slots_are_taken() {
        let config = crate::config::testing::config();
        let idle = 8 * config.slots_count();
        let read = inotify_instances(&config, Some("128\n")).unwrap();
        assert_eq!((read.whole, read.left), (128, 128_u64.saturating_sub(idle)));
        assert_eq!(inotify_instances(&config, None), None);
    }

    #[test]
    fn each_change_is_one_event() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = crate::config::testing::config();
        config.state_dir = dir.path().to_owned();
        config.reserve.memory = Some(crate::config::ByteSize(u64::MAX));
        let (sender, mut events) = mpsc::channel(8);
        let watching = std::thread::spawn(move || watch(&config, &sender));
        let Event::Shortages(shortages) = events.blocking_recv().unwrap() else {
            panic!("an event of another kind")
        };
        assert!(
            shortages.contains_key(&crate::pool::Resource::Memory),
            "{shortages:?}"
        );
        drop(events);
        watching.join().unwrap();
    }
}
