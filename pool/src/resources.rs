//! Resources of the host, and the floors below which no runner starts.
//!
//! A shortage closes admission by name. Running jobs are left alone, because each has its own
//! limits. Admission opens again at a quarter more than the floor, so that it does not flutter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strum::{AsRefStr, Display, EnumString, VariantArray};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Resource that a host can run short of.
#[derive(AsRefStr, Display, EnumString, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Disk space for the daemon's records.
    StateBytes,
    /// Number of files beside the daemon's records.
    StateFiles,
    /// Disk space for the layers on disk.
    LayerBytes,
    /// Number of files beside the layers on disk.
    LayerFiles,
    /// Space for sockets and root's records.
    RunBytes,
    /// Number of files beside sockets and root's records.
    RunFiles,
    /// Available memory.
    Memory,
    /// Time in which not all tasks wait for memory.
    MemoryPressure,
    /// Processes and threads.
    Tasks,
    /// Open files of the host.
    OpenFiles,
    /// Open files of the daemon.
    OwnFiles,
    /// inotify instances of the host's root, which owns those of all containers.
    InotifyInstances,
    /// Connections that the host tracks.
    Connections,
    /// Pseudo terminals.
    Terminals,
    /// Requests of asynchronous I/O.
    AioRequests,
}

impl Resource {
    /// All resources, for metrics with a fixed set of labels.
    pub const ALL: &'static [Self] = Self::VARIANTS;
}

/// A filesystem as statvfs(3) shows it to an unprivileged process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filesystem {
    /// The path that was read, for the operator.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Bytes that are left.
    pub bytes_left: u64,
    /// Maximum number of files; 0 if the filesystem has none.
    pub files: u64,
    /// Number of files that are left.
    pub files_left: u64,
}

/// Amount of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The whole amount.
    pub whole: u64,
    /// The amount that is left.
    pub left: u64,
}

/// Readings of the host. A value that cannot be read is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readings {
    /// Filesystem of the records.
    pub state: Option<Filesystem>,
    /// Filesystem of the layers, if a pool has them on disk.
    pub layers: Option<Filesystem>,
    /// Filesystem of sockets and root's records.
    pub run: Option<Filesystem>,
    /// `MemTotal` and `MemAvailable`, in bytes.
    pub memory: Option<Share>,
    /// `full avg10` of the pressure stall information, in percent, rounded down.
    pub memory_stalled_percent: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<Share>,
    /// Open files of the host.
    pub open_files: Option<Share>,
    /// Open files of the daemon.
    pub own_files: Option<Share>,
    /// inotify instances of the host's root, without those of all configured slots while they are idle.
    /// The kernel does not tell the number that exists.
    pub inotify_instances: Option<Share>,
    /// Connections that the host tracks.
    pub connections: Option<Share>,
    /// Pseudo terminals outside of the host's reserve.
    pub terminals: Option<Share>,
    /// Requests of asynchronous I/O.
    pub aio_requests: Option<Share>,
}

/// Amounts to keep free. The default of an absent one follows from the size of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Free space on the disks of records and layers, in bytes.
    pub disk_bytes: Option<u64>,
    /// Free memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Size in bytes of the largest layer that a pool has on disk. The file of a layer begins empty and
    /// grows, so there must be room for the size that the job was promised.
    pub largest_layer_bytes: u64,
}

/// Resources that the host runs short of, each with the reason in words.
pub type Shortages = BTreeMap<Resource, String>;

/// A reading and its floor.
struct Gauge {
    resource: Resource,
    left: u64,
    floor: u64,
    /// Prints an amount with its unit.
    print: fn(u64) -> String,
    /// Names the whole: "of the host's memory".
    whole: String,
}

/// Returns the shortages after `readings`, given those before.
///
/// A value that cannot be read neither closes nor reopens admission. Settles: the same readings again
/// change nothing.
#[must_use]
pub fn shortages(readings: &Readings, reserve: &Reserve, before: &Shortages) -> Shortages {
    let gauges = gauges(readings, reserve);
    let mut short = before.clone();
    for gauge in &gauges {
        let reopen = gauge.floor.saturating_add(gauge.floor / 4);
        let was = before.contains_key(&gauge.resource);
        if gauge.left < gauge.floor || (was && gauge.left < reopen) {
            short.insert(gauge.resource, gauge.describe(reopen));
        } else {
            short.remove(&gauge.resource);
        }
    }
    short
}

impl Gauge {
    fn describe(&self, reopen: u64) -> String {
        let print = self.print;
        format!(
            "{} left {}, less than {}; runners start again at {}",
            print(self.left),
            self.whole,
            print(self.floor),
            print(reopen)
        )
    }
}

fn gauges(readings: &Readings, reserve: &Reserve) -> Vec<Gauge> {
    let mut gauges = disks(readings, reserve);
    let mut push = |resource, share: Share, floor: u64, print, whole: String| {
        gauges.push(Gauge {
            resource,
            left: share.left,
            floor,
            print,
            whole,
        });
    };
    if let Some(memory) = readings.memory {
        let floor = reserve.memory_bytes;
        let floor = floor.unwrap_or_else(|| part(memory.whole, MIB, GIB));
        let whole = "of the host's memory".into();
        push(Resource::Memory, memory, floor, bytes, whole);
    }
    if let Some(stalled) = readings.memory_stalled_percent {
        let worked = Share {
            whole: 100,
            left: 100_u64.saturating_sub(stalled),
        };
        let whole = "of the last ten seconds, in which not all waited for memory".into();
        let percent = |percent| format!("{percent} %");
        push(Resource::MemoryPressure, worked, 75, percent, whole);
    }
    let plain = |count: u64| count.to_string();
    if let Some(tasks) = readings.tasks {
        let whole = format!("of the host's {} processes and threads", tasks.whole);
        push(
            Resource::Tasks,
            tasks,
            part(tasks.whole, 1, 4096),
            plain,
            whole,
        );
    }
    if let Some(open) = readings.open_files {
        let whole = format!("of the host's {} open files", open.whole);
        let floor = part(open.whole, 1, 65_536);
        push(Resource::OpenFiles, open, floor, plain, whole);
    }
    if let Some(own) = readings.own_files {
        let whole = format!("of the daemon's {} open files", own.whole);
        // A start, a mint and a reconcile at the same time need a dozen.
        let floor = (own.whole / 4).min(256);
        push(Resource::OwnFiles, own, floor, plain, whole);
    }
    if let Some(instances) = readings.inotify_instances {
        let whole = format!(
            "for the host of {} inotify instances (fs.inotify.max_user_instances) when all slots are idle",
            instances.whole
        );
        push(Resource::InotifyInstances, instances, 32, plain, whole);
    }
    if let Some(connections) = readings.connections {
        let whole = format!("of the host's {} tracked connections", connections.whole);
        let floor = part(connections.whole, 1, 65_536);
        push(Resource::Connections, connections, floor, plain, whole);
    }
    if let Some(terminals) = readings.terminals {
        let whole = format!(
            "of the {} pseudo terminals outside of the host's reserve",
            terminals.whole
        );
        let floor = part(terminals.whole, 1, 512);
        push(Resource::Terminals, terminals, floor, plain, whole);
    }
    if let Some(requests) = readings.aio_requests {
        let whole = format!(
            "of the host's {} requests of asynchronous I/O (fs.aio-max-nr)",
            requests.whole
        );
        let floor = part(requests.whole, 1, 16_384);
        push(Resource::AioRequests, requests, floor, plain, whole);
    }
    gauges
}

fn disks(readings: &Readings, reserve: &Reserve) -> Vec<Gauge> {
    let kept = |disk: &Filesystem| {
        let own = reserve.disk_bytes;
        own.unwrap_or_else(|| part(disk.bytes, MIB, 256 * MIB))
    };
    let mut gauges = Vec::new();
    let mut push = |disk: &Filesystem, resources: [Resource; 2], floor: u64, most_files: u64| {
        let shares = [
            (disk.bytes_left, floor, bytes as fn(u64) -> String),
            (disk.files_left, few(disk.files, most_files), files),
        ];
        for (resource, (left, floor, print)) in resources.into_iter().zip(shares) {
            let whole = format!("on {}", disk.path);
            gauges.push(Gauge {
                resource,
                left,
                floor,
                print,
                whole,
            });
        }
    };
    if let Some(disk) = &readings.state {
        let both = [Resource::StateBytes, Resource::StateFiles];
        push(disk, both, kept(disk), 10_000);
    }
    if let Some(disk) = &readings.layers {
        let both = [Resource::LayerBytes, Resource::LayerFiles];
        let floor = kept(disk).saturating_add(reserve.largest_layer_bytes);
        push(disk, both, floor, 1000);
    }
    if let Some(disk) = &readings.run {
        let both = [Resource::RunBytes, Resource::RunFiles];
        push(disk, both, part(disk.bytes, MIB, 16 * MIB), 1000);
    }
    gauges
}

/// Returns a twentieth of the whole, within bounds.
fn part(whole: u64, least: u64, most: u64) -> u64 {
    (whole / 20).clamp(least, most)
}

/// Returns the same for files. Some filesystems have no maximum and report 0.
fn few(whole: u64, most: u64) -> u64 {
    if whole == 0 { 0 } else { part(whole, 10, most) }
}

fn bytes(count: u64) -> String {
    match count {
        ..MIB => format!("{} KiB", count >> 10),
        MIB..GIB => format!("{} MiB", count / MIB),
        GIB.. => format!("{}.{} GiB", count / GIB, count % GIB * 10 / GIB),
    }
}

fn files(count: u64) -> String {
    format!("{count} files")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn disk(bytes_left: u64) -> Filesystem {
        Filesystem {
            path: "/d".into(),
            bytes: 100 * GIB,
            bytes_left,
            files: 0,
            files_left: 0,
        }
    }

    fn memory(left: u64) -> Readings {
        Readings {
            memory: Some(Share {
                whole: 10 * GIB,
                left,
            }),
            ..Readings::default()
        }
    }

    fn names(short: &Shortages) -> Vec<String> {
        short.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_shortage_closes_admission_and_a_quarter_more_reopens_it() {
        let reserve = Reserve::default();
        // A twentieth of 10 GiB is 512 MiB.
        let mut short = Shortages::new();
        for (left, closed) in [
            (513, false),
            (511, true),
            (600, true),
            (639, true),
            (640, false),
            (513, false),
        ] {
            short = shortages(&memory(left * MIB), &reserve, &short);
            assert_eq!(
                short.contains_key(&Resource::Memory),
                closed,
                "{left} MiB: {short:?}"
            );
        }
        let short = shortages(&memory(300 * MIB), &reserve, &short);
        assert_eq!(
            short[&Resource::Memory],
            "300 MiB left of the host's memory, less than 512 MiB; runners start again at 640 MiB"
        );
    }

    #[test]
    fn a_value_that_cannot_be_read_changes_nothing() {
        let reserve = Reserve::default();
        let short = shortages(&memory(0), &reserve, &Shortages::new());
        assert_eq!(shortages(&Readings::default(), &reserve, &short), short);
        assert_eq!(
            shortages(&Readings::default(), &reserve, &Shortages::new()),
            Shortages::new()
        );
    }

    #[test]
    fn the_operator_sets_the_reserve_and_small_disks_keep_less() {
        let state = |filesystem: Filesystem, disk_bytes| {
            let readings = Readings {
                state: Some(filesystem),
                ..Readings::default()
            };
            let reserve = Reserve {
                disk_bytes,
                ..Reserve::default()
            };
            names(&shortages(&readings, &reserve, &Shortages::new()))
        };
        assert_eq!(state(disk(257 * MIB), None), [""; 0]);
        assert_eq!(state(disk(255 * MIB), None), ["state_bytes"]);
        assert_eq!(state(disk(255 * MIB), Some(0)), [""; 0]);
        assert_eq!(state(disk(19 * GIB), Some(20 * GIB)), ["state_bytes"]);
        let small = Filesystem {
            bytes: 40 * MIB,
            ..disk(3 * MIB)
        };
        assert_eq!(state(small.clone(), None), [""; 0]);
        assert_eq!(
            state(
                Filesystem {
                    bytes_left: MIB,
                    ..small
                },
                None
            ),
            ["state_bytes"]
        );
    }

    #[test]
    fn a_layer_needs_room_for_its_maximum_size() {
        let reserve = Reserve {
            largest_layer_bytes: 20 * GIB,
            ..Reserve::default()
        };
        let layers = |left| {
            let readings = Readings {
                layers: Some(disk(left)),
                ..Readings::default()
            };
            names(&shortages(&readings, &reserve, &Shortages::new()))
        };
        assert_eq!(layers(20 * GIB), ["layer_bytes"]);
        assert_eq!(layers(21 * GIB), [""; 0]);
    }

    #[test]
    fn files_count_if_the_filesystem_has_a_maximum() {
        let bounded = Filesystem {
            files: 1_000_000,
            files_left: 12,
            ..disk(90 * GIB)
        };
        let all = |filesystem: Filesystem| {
            let readings = Readings {
                state: Some(filesystem.clone()),
                layers: Some(filesystem.clone()),
                run: Some(filesystem),
                ..Readings::default()
            };
            names(&shortages(
                &readings,
                &Reserve::default(),
                &Shortages::new(),
            ))
        };
        assert_eq!(all(bounded), ["state_files", "layer_files", "run_files"]);
        // btrfs has no maximum, and reports 0 of 0.
        assert_eq!(all(disk(90 * GIB)), [""; 0]);
    }

    #[test]
    fn stalls_tasks_and_open_files_close_admission_too() {
        let share = |whole, left| Some(Share { whole, left });
        let readings = Readings {
            memory_stalled_percent: Some(26),
            tasks: share(32_768, 1000),
            open_files: share(1000, 10),
            own_files: share(64, 10),
            inotify_instances: share(128, 0),
            connections: share(262_144, 13_000),
            terminals: share(3072, 150),
            aio_requests: share(65_536, 3000),
            ..Readings::default()
        };
        let short = shortages(&readings, &Reserve::default(), &Shortages::new());
        assert_eq!(
            names(&short),
            [
                "memory_pressure",
                "tasks",
                "open_files",
                "own_files",
                "inotify_instances",
                "connections",
                "terminals",
                "aio_requests"
            ]
        );
        let better = Readings {
            memory_stalled_percent: Some(10),
            ..readings.clone()
        };
        let short = shortages(&better, &Reserve::default(), &short);
        assert!(short.contains_key(&Resource::MemoryPressure), "{short:?}");
        let good = Readings {
            memory_stalled_percent: Some(5),
            ..readings
        };
        let short = shortages(&good, &Reserve::default(), &short);
        assert!(!short.contains_key(&Resource::MemoryPressure), "{short:?}");
    }

    fn any_readings() -> impl Strategy<Value = Readings> {
        let share = || {
            proptest::option::of(
                (any::<u64>(), any::<u64>()).prop_map(|(whole, left)| Share { whole, left }),
            )
        };
        let disk = || {
            let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
            proptest::option::of(numbers.prop_map(|(bytes, bytes_left, files, files_left)| {
                Filesystem {
                    path: "/d".into(),
                    bytes,
                    bytes_left,
                    files,
                    files_left,
                }
            }))
        };
        let disks = (disk(), disk(), disk());
        let shares = (
            share(),
            share(),
            share(),
            share(),
            share(),
            share(),
            share(),
            share(),
        );
        (disks, shares, proptest::option::of(any::<u64>())).prop_map(
            |(
                (state, layers, run),
                (
                    memory,
                    tasks,
                    open_files,
                    own_files,
                    inotify_instances,
                    connections,
                    terminals,
                    aio_requests,
                ),
                memory_stalled_percent,
            )| Readings {
                state,
                layers,
                run,
                memory,
                memory_stalled_percent,
                tasks,
                open_files,
                own_files,
                inotify_instances,
                connections,
                terminals,
                aio_requests,
            },
        )
    }

    proptest! {
        /// The same readings twice change nothing, whatever was before. A host whose resources are all
        /// free is open.
        #[test]
        fn shortages_settle(readings in any_readings(), earlier in any_readings()) {
            let reserve = Reserve::default();
            let before = shortages(&earlier, &reserve, &Shortages::new());
            let once = shortages(&readings, &reserve, &before);
            prop_assert_eq!(&shortages(&readings, &reserve, &once), &once);
        }
    }
}
