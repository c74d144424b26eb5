//! The network link of a slot: a veth, addressed over rtnetlink and removed by name.
//!
//! Neither end uses DHCP or networkd, because they would take seconds and would be one more service
//! to trust.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::path::Path;

use capctl::caps::Cap;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::error::{OrRefuse, Refusal, RootError};
use super::sandbox;
use crate::config::Place;

/// Name of the veth in the container.
const GUEST_LINK: &str = "host0";
/// Prefix length of a link's network: network, host, container and broadcast address.
const PREFIX: u8 = 30;

/// Hardware address of an end.
type Mac = [u8; 6];

/// One end of a link, and the other end that it reaches.
struct End {
    link: String,
    address: Ipv4Addr,
    other: Ipv4Addr,
    other_mac: Mac,
}

/// Gives both ends their addresses, and the container its route.
///
/// Each end has a permanent entry for the other one, so no runner needs the neighbour table, which all network
/// namespaces share and one job can fill.
pub(crate) fn connect(place: &Place<'_>, netns: File) -> Result<(), RootError> {
    let (veth, host, guest) = (place.veth(), place.host_address(), place.guest_address());
    let host_mac = mac(&veth).or_refuse(Refusal::Network, || {
        format!("read the hardware address of {veth}")
    })?;
    let guest_end = End {
        link: GUEST_LINK.into(),
        address: guest,
        other: host,
        other_mac: host_mac,
    };
    let guest_mac = address_container(place, netns, guest_end)?;
    let operation = || format!("address {veth} as {host}/{PREFIX}");
    in_thread(|| {
        sandbox::lower(&[Cap::NET_ADMIN])?;
        disable_ipv6(&veth);
        run(address(End {
            link: veth.clone(),
            address: host,
            other: guest,
            other_mac: guest_mac,
        }))
    })
    .or_refuse(Refusal::Network, operation)
}

/// Gives the container's end its address, and the container its route. Returns the end's hardware address.
fn address_container(place: &Place<'_>, netns: File, end: End) -> Result<Mac, RootError> {
    let guest = end.address;
    let ids = place.uid_first()..=place.uid_first() + (Place::UIDS - 1);
    // A separate thread enters the container's namespace and ends there. No later file or socket of
    // this program can be created in it by mistake.
    in_thread(move || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        sandbox::lower(&[Cap::NET_ADMIN])?;
        disable_ipv6(GUEST_LINK);
        allow_ping(ids);
        let gateway = end.other;
        run(address(end))?;
        run(route(gateway))?;
        mac(GUEST_LINK)
    })
    .or_refuse(Refusal::Network, || {
        format!("address {GUEST_LINK} in the container as {guest}/{PREFIX}")
    })
}

/// Makes a veth whose one end is in a new network namespace, without systemd-nspawn. Returns the namespace,
/// which ends with its last file.
pub(crate) fn make(veth: &str) -> io::Result<File> {
    let host = File::open("/proc/self/ns/net")?;
    in_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        // The names are free in the new namespace. So the host never has a link of another name.
        run(async |handle: Handle| {
            let pair = LinkVeth::new(veth, GUEST_LINK).build();
            let made = handle.link().add(pair).execute().await;
            made.map_err(io::Error::other)?;
            let index = if_nametoindex(veth)?;
            let moved = LinkUnspec::new_with_index(index)
                .setns_by_fd(host.as_raw_fd())
                .build();
            let moved = handle.link().set(moved).execute().await;
            moved.map_err(io::Error::other)
        })?;
        File::open("/proc/thread-self/ns/net")
    })
}

/// Runs in a network namespace, in a thread that ends there.
pub(crate) fn within<T: Send>(
    netns: &File,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    in_thread(move || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        work()
    })
}

/// Removes a veth with both ends. An absent veth is not an error.
pub(crate) fn remove(veth: &str) -> io::Result<()> {
    if !exists(veth) {
        return Ok(());
    }
    let veth = veth.to_owned();
    in_thread(move || {
        run(async |handle: Handle| {
            let Ok(index) = if_nametoindex(veth.as_str()) else {
                return Ok(());
            };
            match handle.link().del(index).execute().await {
                Ok(()) => Ok(()),
                // The kernel removes a link when the container's namespace ends.
                Err(_) if !exists(&veth) => Ok(()),
                Err(why) => Err(io::Error::other(why)),
            }
        })
    })
}

/// Returns true if the host has an interface with this name.
pub(crate) fn exists(link: &str) -> bool {
    if_nametoindex(link).is_ok()
}

/// Sets up one end.
fn address(end: End) -> impl AsyncFnOnce(Handle) -> io::Result<()> {
    async move |handle: Handle| {
        let index = if_nametoindex(end.link.as_str())?;
        let add = handle.address().add(index, end.address.into(), PREFIX);
        add.replace().execute().await.map_err(io::Error::other)?;
        up(&handle, index).await?;
        let add = handle.neighbours().add(index, end.other.into());
        let add = add.link_layer_address(&end.other_mac).replace();
        add.execute().await.map_err(io::Error::other)
    }
}

/// Sets up the container's loopback interface and its route.
fn route(gateway: Ipv4Addr) -> impl AsyncFnOnce(Handle) -> io::Result<()> {
    async move |handle: Handle| {
        up(&handle, if_nametoindex("lo")?).await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .build();
        let add = handle.route().add(route).replace().execute();
        add.await.map_err(io::Error::other)
    }
}

async fn up(handle: &Handle, index: u32) -> io::Result<()> {
    let message = LinkUnspec::new_with_index(index).up().build();
    let set = handle.link().set(message).execute();
    set.await.map_err(io::Error::other)
}

/// Returns the hardware address of an interface.
fn mac(link: &str) -> io::Result<Mac> {
    let entries = getifaddrs()?.filter(|entry| entry.interface_name == link);
    let mut macs = entries.filter_map(|entry| entry.address?.as_link_addr()?.addr());
    macs.next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface {link}")))
}

/// Disables IPv6 on this link, so that it sends no router solicitations and no multicast.
///
/// The firewall drops IPv6 in any case. Other interfaces keep it, because jobs may use `::1`.
fn disable_ipv6(link: &str) {
    let setting = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    // A kernel without IPv6 does not have this file.
    if Path::new(&setting).exists() && fs::write(&setting, "1").is_err() {
        stdio::error(format_args!(
            "cannot write {setting}; the link sends IPv6 packets, which the firewall drops"
        ));
    }
}

/// Allows ping to every group of the container, through ICMP sockets (`ping_group_range`, ip-sysctl).
///
/// Root in the container may not open raw sockets, and only the host may change this setting.
fn allow_ping(groups: RangeInclusive<u32>) {
    let setting = "/proc/sys/net/ipv4/ping_group_range";
    if fs::write(setting, format!("{} {}", groups.start(), groups.end())).is_err() {
        stdio::error(format_args!(
            "cannot write {setting}; ping does not work in the container"
        ));
    }
}

/// Runs in a separate thread, because `setns` and netlink sockets act on the calling thread.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// Runs netlink requests in this thread's network namespace.
fn run(talk: impl AsyncFnOnce(Handle) -> io::Result<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let result = talk(handle).await;
        connection.abort();
        result
    })
}
