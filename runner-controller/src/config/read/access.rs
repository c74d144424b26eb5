//! The keys of a pool that open devices and capabilities to its jobs (`devices`, `capabilities`).

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use super::section::Section;
use crate::config::access::{Capability, Device};

/// Reads the devices that jobs can open.
pub(super) fn devices(section: &mut Section<'_>) -> BTreeSet<Device> {
    set(section, "devices", &Device::ALL.map(Device::path))
}

/// Reads the capabilities that root in a container keeps.
pub(super) fn capabilities(section: &mut Section<'_>) -> BTreeSet<Capability> {
    set(
        section,
        "capabilities",
        &Capability::ALL.map(Capability::as_str),
    )
}

fn set<T>(section: &mut Section<'_>, key: &'static str, all: &[&str]) -> BTreeSet<T>
where
    T: FromStr + Ord,
    T::Err: Display,
{
    let open = format!("{key} = {all:?}, or some of them");
    let texts = section.texts(key, &format!("{all:?}")).unwrap_or_default();
    let read = texts.iter().filter_map(|text| match text.parse::<T>() {
        Ok(value) => Some(value),
        Err(wrong) => {
            section.wrong(key, wrong.to_string(), open.clone());
            None
        }
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Mistakes, parse, testing};

    fn with(lines: &str) -> Result<Config, Mistakes> {
        parse(Path::new("x"), &format!("{}{lines}\n", testing::TEXT))
    }

    #[test]
    fn a_pool_opens_nothing_that_it_does_not_name() {
        let config = with("").unwrap();
        assert!(config.pools[0].devices.is_empty() && config.pools[0].capabilities.is_empty());
        let opened = with(
            "devices = [\"/dev/kvm\", \"/dev/fuse\", \"/dev/net/tun\"]\ncapabilities = [\"CAP_NET_RAW\"]",
        )
        .unwrap();
        assert_eq!(opened.pools[0].devices, BTreeSet::from(Device::ALL));
        assert_eq!(
            opened.pools[0].capabilities,
            BTreeSet::from([Capability::NetRaw])
        );
        assert_ne!(opened.pools[0].generation(), config.pools[0].generation());
    }

    #[test]
    fn only_a_listed_device_or_capability_can_be_opened() {
        for (lines, key) in [
            ("devices = [\"/dev/sda\"]", "pools.ci.devices"),
            ("devices = [\"kvm\"]", "pools.ci.devices"),
            ("devices = [\"/dev/loop0\"]", "pools.ci.devices"),
            ("devices = \"/dev/kvm\"", "pools.ci.devices"),
            (
                "capabilities = [\"CAP_SYS_RAWIO\"]",
                "pools.ci.capabilities",
            ),
            ("capabilities = [\"cap_net_raw\"]", "pools.ci.capabilities"),
            ("capabilities = [5]", "pools.ci.capabilities"),
        ] {
            let list = with(lines).unwrap_err().list;
            let keys: Vec<&str> = list.iter().map(|mistake| mistake.key.as_str()).collect();
            assert_eq!(keys, [key], "{lines}");
        }
        let loops = with("devices = [\"/dev/loop-control\"]").unwrap_err();
        assert!(
            loops.list[0].wrong.contains("could not mount it"),
            "{loops}"
        );
    }
}
