//! Users and groups in the files of an image: passwd, group, shadow and gshadow.
//!
//! `systemd-sysusers --root` would do the same, but it joins paths as text and follows links (`prefix_roota`
//! in sysusers.c). A link in an image would let root write the host's own passwd.

use std::io;

use super::tree::Tree;

/// User that jobs run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JobUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

const NAME: &str = "runner";

/// Returns the image's user `runner`, or creates it with uid and gid `id`.
pub(super) fn ensure_runner(tree: &Tree, id: u32) -> io::Result<JobUser> {
    let passwd = tree.read("etc/passwd")?.unwrap_or_default();
    if let Some(found) = find(&passwd)? {
        return Ok(found);
    }
    let group = tree.read("etc/group")?.unwrap_or_default();
    for (file, text) in [("etc/passwd", &passwd), ("etc/group", &group)] {
        let id = id.to_string();
        if let Some(other) = text
            .lines()
            .find(|line| line.split(':').nth(2) == Some(id.as_str()) && !is_runners(line))
        {
            return Err(io::Error::other(format!(
                "{file} gives id {id} to {}; create user runner in the image",
                other.split(':').next().unwrap_or_default()
            )));
        }
    }
    let lines = [
        (
            "etc/passwd",
            0o644,
            format!("{NAME}:x:{id}:{id}::/home/runner:/bin/bash"),
        ),
        ("etc/group", 0o644, format!("{NAME}:x:{id}:")),
        // No password, and no date of expiry.
        ("etc/shadow", 0o640, format!("{NAME}:!*:::::::")),
        ("etc/gshadow", 0o640, format!("{NAME}:!*::")),
    ];
    for (file, mode, line) in lines {
        add_lines(tree, file, mode, &[line])?;
    }
    Ok(JobUser { uid: id, gid: id })
}

/// Group whose members build for the Nix daemon. Nix's installers use the same name and ids.
const BUILD_GROUP: &str = "nixbld";
const BUILD_GID: u32 = 30_000;
/// Number of build users, and so the maximum number of builds at once.
const BUILD_USERS: u32 = 32;

/// Creates the build users, unless the image has their group.
pub(super) fn ensure_build_users(tree: &Tree) -> io::Result<()> {
    let group = tree.read("etc/group")?.unwrap_or_default();
    if group.lines().any(|line| is_of(line, BUILD_GROUP)) {
        return Ok(());
    }
    let gid = BUILD_GID.to_string();
    if group
        .lines()
        .any(|line| line.split(':').nth(2) == Some(&gid))
    {
        return Err(io::Error::other(format!(
            "etc/group gives id {gid} to another group; create group {BUILD_GROUP} and its members in \
             the image"
        )));
    }
    let names: Vec<String> = (1..=BUILD_USERS)
        .map(|number| format!("{BUILD_GROUP}{number}"))
        .collect();
    let users: Vec<String> = (BUILD_GID + 1..)
        .zip(&names)
        .map(|(uid, name)| format!("{name}:x:{uid}:{gid}::/var/empty:/usr/sbin/nologin"))
        .collect();
    let locked: Vec<String> = names
        .iter()
        .map(|name| format!("{name}:!*:::::::"))
        .collect();
    add_lines(tree, "etc/passwd", 0o644, &users)?;
    add_lines(tree, "etc/shadow", 0o640, &locked)?;
    let members = names.join(",");
    add_lines(
        tree,
        "etc/gshadow",
        0o640,
        &[format!("{BUILD_GROUP}:!*::{members}")],
    )?;
    // The group comes last, because its presence means that the rest is done.
    add_lines(
        tree,
        "etc/group",
        0o644,
        &[format!("{BUILD_GROUP}:x:{gid}:{members}")],
    )
}

/// Adds user `runner` to a group of the image.
pub(super) fn add_to_group(tree: &Tree, group: &str) -> io::Result<()> {
    for (file, required) in [("etc/group", true), ("etc/gshadow", false)] {
        let text = tree.read(file)?.unwrap_or_default();
        let Some(whole) = with_member(&text, group) else {
            if required {
                return Err(io::Error::other(format!(
                    "{file} does not have the group {group}"
                )));
            }
            continue;
        };
        if whole != text {
            let (mode, uid, gid) = tree.attributes(file)?.unwrap_or((0o644, 0, 0));
            tree.owned_file(file, mode, uid, gid, &whole)?;
        }
    }
    Ok(())
}

/// Returns the text with `runner` among the members of the group, which are the last field of its line.
fn with_member(text: &str, group: &str) -> Option<String> {
    let line = text.lines().find(|line| is_of(line, group))?;
    let (_, members) = line.rsplit_once(':')?;
    if members.split(',').any(|member| member == NAME) {
        return Some(text.to_owned());
    }
    let comma = if members.is_empty() { "" } else { "," };
    let lines = text.lines().map(|each| {
        if each == line {
            format!("{line}{comma}{NAME}\n")
        } else {
            format!("{each}\n")
        }
    });
    Some(lines.collect())
}

/// Adds lines to an existing file, except lines with a name that it has already.
fn add_lines(tree: &Tree, file: &str, mode: u32, lines: &[String]) -> io::Result<()> {
    let Some(text) = tree.read(file)? else {
        return Ok(());
    };
    let mut whole = text.clone();
    for line in lines {
        let name = line.split(':').next().unwrap_or_default();
        if !text.lines().any(|line| is_of(line, name)) {
            whole = with_line(&whole, line);
        }
    }
    if whole == text {
        return Ok(());
    }
    let (mode, uid, gid) = tree.attributes(file)?.unwrap_or((mode, 0, 0));
    tree.owned_file(file, mode, uid, gid, &whole)
}

fn is_of(line: &str, name: &str) -> bool {
    line.split(':').next() == Some(name)
}

fn is_runners(line: &str) -> bool {
    is_of(line, NAME)
}

fn find(passwd: &str) -> io::Result<Option<JobUser>> {
    let Some(line) = passwd.lines().find(|line| is_runners(line)) else {
        return Ok(None);
    };
    let mut fields = line.split(':').skip(2);
    let mut id = || fields.next()?.parse().ok();
    match (id(), id()) {
        (Some(uid), Some(gid)) if uid != 0 => Ok(Some(JobUser { uid, gid })),
        _ => Err(io::Error::other(format!(
            "etc/passwd has {line:?}, which cannot be the user of jobs"
        ))),
    }
}

fn with_line(text: &str, line: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{text}{end}{line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_runner_keeps_its_ids() {
        let passwd = "root:x:0:0::/root:/bin/sh\nrunner:x:1000:100::/home/runner:/bin/sh\n";
        let found = find(passwd).unwrap();
        assert_eq!(
            found,
            Some(JobUser {
                uid: 1000,
                gid: 100
            })
        );
        assert_eq!(find("runners:x:1:1::/:/bin/sh\n").unwrap(), None);
    }

    #[test]
    fn a_member_is_added_once() {
        let text = "root:x:0:\ndocker:x:990:\ndockers:x:991:a";
        let once = with_member(text, "docker").unwrap();
        assert_eq!(once, "root:x:0:\ndocker:x:990:runner\ndockers:x:991:a\n");
        assert_eq!(with_member(&once, "docker").unwrap(), once);
        assert_eq!(
            with_member(text, "dockers").unwrap(),
            "root:x:0:\ndocker:x:990:\ndockers:x:991:a,runner\n"
        );
        assert_eq!(with_member(text, "missing"), None);
    }

    #[test]
    fn a_runner_with_the_uid_of_root_is_refused() {
        assert!(find("runner:x:0:0::/root:/bin/sh\n").is_err());
        assert!(find("runner:x\n").is_err());
    }

    #[test]
    fn a_line_is_added_to_a_file_without_a_last_newline() {
        assert_eq!(with_line("a", "b"), "a\nb\n");
        assert_eq!(with_line("a\n", "b"), "a\nb\n");
    }
}
