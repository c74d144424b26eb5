//! The network link of a slot: a veth, addressed over rtnetlink and removed by name.
//!
//! Neither end uses DHCP or networkd, because they would take seconds and would be one more service
//! to trust.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::Path;

use capctl::caps::Cap;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::error::{OrRefuse, Refusal, RootError};
use super::sandbox;
use crate::config::Place;

/// Name of the veth in the container.
const GUEST_LINK: &str = "host0";
/// Prefix length of a link's network: network, host, container and broadcast address.
const PREFIX: u8 = 30;

/// Gives the host's end its address.
pub(crate) fn address_host(place: &Place<'_>) -> Result<(), RootError> {
    let (veth, host) = (place.veth(), place.host_address());
    let operation = || format!("address {veth} as {host}/{PREFIX}");
    in_thread(|| {
        sandbox::lower(&[Cap::NET_ADMIN])?;
        disable_ipv6(&veth);
        run(address(&veth, host, None))
    })
    .or_refuse(Refusal::Network, operation)
}

/// Gives the container's end its address, and the container its route.
pub(crate) fn address_container(place: &Place<'_>, netns: File) -> Result<(), RootError> {
    let (host, guest) = (place.host_address(), place.guest_address());
    let ids = place.uid_first()..=place.uid_first() + (Place::UIDS - 1);
    // A separate thread enters the container's namespace and ends there. No later file or socket of
    // this program can be created in it by mistake.
    in_thread(move || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        sandbox::lower(&[Cap::NET_ADMIN])?;
        disable_ipv6(GUEST_LINK);
        allow_ping(ids);
        run(address(GUEST_LINK, guest, Some(host)))
    })
    .or_refuse(Refusal::Network, || {
        format!("address {GUEST_LINK} in the container as {guest}/{PREFIX}")
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

/// Sets up one end. Only the container's end has a gateway.
fn address(
    link: &str,
    address: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
) -> impl AsyncFnOnce(Handle) -> io::Result<()> {
    let link = link.to_owned();
    async move |handle: Handle| {
        let up = async |index| {
            let message = LinkUnspec::new_with_index(index).up().build();
            handle.link().set(message).execute().await
        };
        let index = if_nametoindex(link.as_str())?;
        let add = handle.address().add(index, address.into(), PREFIX);
        add.replace().execute().await.map_err(io::Error::other)?;
        up(index).await.map_err(io::Error::other)?;
        let Some(gateway) = gateway else {
            return Ok(());
        };
        up(if_nametoindex("lo")?).await.map_err(io::Error::other)?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .build();
        let add = handle.route().add(route).replace().execute();
        add.await.map_err(io::Error::other)
    }
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
fn in_thread(work: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
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
