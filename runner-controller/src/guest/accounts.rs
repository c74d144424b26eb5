//! The job's user in an image's own files: passwd, group, shadow. The image's tools are not run, as
//! they are the image's.

use std::io;

use super::tree::Tree;

/// The job's user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Runner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

const NAME: &str = "runner";

/// Finds user `runner`, or makes it with uid and gid `id`.
pub(super) fn ensure_runner(tree: &Tree, id: u32) -> io::Result<Runner> {
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
                "{file} gives id {id} to {}; make user runner in the image yourself",
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
        // No password, and no date on which one would end.
        ("etc/shadow", 0o640, format!("{NAME}:!*:::::::")),
        ("etc/gshadow", 0o640, format!("{NAME}:!*::")),
    ];
    for (file, mode, line) in lines {
        let Some(text) = tree.read(file)? else {
            continue;
        };
        if text.lines().any(is_runners) {
            continue;
        }
        let (mode, uid, gid) = tree.attributes(file)?.unwrap_or((mode, 0, 0));
        tree.owned_file(file, mode, uid, gid, &with_line(&text, &line))?;
    }
    Ok(Runner { uid: id, gid: id })
}

fn is_runners(line: &str) -> bool {
    line.split(':').next() == Some(NAME)
}

fn find(passwd: &str) -> io::Result<Option<Runner>> {
    let Some(line) = passwd.lines().find(|line| is_runners(line)) else {
        return Ok(None);
    };
    let mut fields = line.split(':').skip(2);
    let mut id = || fields.next()?.parse().ok();
    match (id(), id()) {
        (Some(uid), Some(gid)) if uid != 0 => Ok(Some(Runner { uid, gid })),
        _ => Err(io::Error::other(format!(
            "etc/passwd has {line:?}, which is no user for jobs"
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
    fn a_runner_that_the_image_has_keeps_its_ids() {
        let passwd = "root:x:0:0::/root:/bin/sh\nrunner:x:1000:100::/home/runner:/bin/sh\n";
        let found = find(passwd).unwrap();
        assert_eq!(
            found,
            Some(Runner {
                uid: 1000,
                gid: 100
            })
        );
        assert_eq!(find("runners:x:1:1::/:/bin/sh\n").unwrap(), None);
    }

    #[test]
    fn a_runner_that_is_root_is_refused() {
        assert!(find("runner:x:0:0::/root:/bin/sh\n").is_err());
        assert!(find("runner:x\n").is_err());
    }

    #[test]
    fn a_line_is_added_to_a_file_without_a_last_newline() {
        assert_eq!(with_line("a", "b"), "a\nb\n");
        assert_eq!(with_line("a\n", "b"), "a\nb\n");
    }
}
