//! The slot's veth: addressed at both ends by rtnetlink, found and removed by name.
//!
//! No DHCP and no networkd, on neither side: that would take seconds, and a service to trust.

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

/// The veth's name in the container.
const GUEST_LINK: &str = "host0";
/// Network, host, container, broadcast.
const PREFIX: u8 = 30;

/// Gives the host's end its address.
pub(crate) fn address_host(place: &Place<'_>) -> Result<(), RootError> {
    let (veth, host) = (place.veth(), place.host_address());
    let operation = || format!("address {veth} as {host}/{PREFIX}");
    in_thread(|| {
        sandbox::lower(&[Cap::NET_ADMIN])?;
        ipv6_off(&veth);
        run(address(&veth, host, None))
    })
    .or_refuse(Refusal::Network, operation)
}

/// Gives the container's end its address, and the container its route.
pub(crate) fn address_container(place: &Place<'_>, netns: File) -> Result<(), RootError> {
    let (host, guest) = (place.host_address(), place.guest_address());
    let ids = place.uid_first()..=place.uid_first() + (Place::UIDS - 1);
    // A thread of its own enters the container's namespace and ends there: nothing else of ours,
    // no later file or socket, can be there by mistake.
    in_thread(move || {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        sandbox::lower(&[Cap::NET_ADMIN])?;
        ipv6_off(GUEST_LINK);
        ping_for(ids);
        run(address(GUEST_LINK, guest, Some(host)))
    })
    .or_refuse(Refusal::Network, || {
        format!("address {GUEST_LINK} in the container as {guest}/{PREFIX}")
    })
}

/// Removes a veth if there is one. Its other end goes with it.
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
                // The kernel removes a link by itself when the container's namespace goes.
                Err(_) if !exists(&veth) => Ok(()),
                Err(why) => Err(io::Error::other(why)),
            }
        })
    })
}

/// True if the host has an interface of this name.
pub(crate) fn exists(link: &str) -> bool {
    if_nametoindex(link).is_ok()
}

/// Sets up one side; with a gateway it is the container's.
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

/// The rules drop IPv6 anyway; without it there are no router solicitations and no multicast from
/// each new link. Only this link: jobs may well use `::1`.
fn ipv6_off(link: &str) {
    let setting = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
    // A kernel without IPv6 has no such file, and needs none.
    if Path::new(&setting).exists() && fs::write(&setting, "1").is_err() {
        stdio::error(format_args!(
            "cannot write {setting}; the link keeps its IPv6 noise, which is dropped"
        ));
    }
}

/// Lets every group of the container ping, by ICMP sockets (`ping_group_range`, ip-sysctl): not even
/// its root may open raw ones, and what the network namespace has is only the host's to change.
fn ping_for(groups: RangeInclusive<u32>) {
    let setting = "/proc/sys/net/ipv4/ping_group_range";
    if fs::write(setting, format!("{} {}", groups.start(), groups.end())).is_err() {
        stdio::error(format_args!(
            "cannot write {setting}; nobody in the container can ping"
        ));
    }
}

/// Netlink sockets and `setns` belong to a thread.
fn in_thread(work: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    std::thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// Talks to the kernel from this thread and its network namespace.
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
