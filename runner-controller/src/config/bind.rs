//! A directory of the host that all containers of a pool have.

use std::path::PathBuf;

/// Directory of the host that all containers of a pool have.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Bind {
    /// Directory on the host.
    pub from: PathBuf,
    /// Its path in a container.
    pub to: PathBuf,
    /// True if jobs cannot write to it.
    pub read_only: bool,
}

impl Bind {
    /// Returns the reason why the owner of the directory forbids this bind.
    ///
    /// On the mount of a writable directory, the job's user is the owner of the directory. A job could leave a
    /// program there that runs with the rights of its owner or group (setuid), so neither may be root's.
    #[must_use]
    pub fn wrong_owner(&self, uid: u32, gid: u32) -> Option<String> {
        let wrong = if uid == 0 {
            "belongs to root"
        } else if gid == 0 {
            "belongs to the group of root"
        } else {
            return None;
        };
        (!self.read_only).then(|| {
            format!(
                "{} {wrong}, so jobs cannot write to it; chown it to a user and a group that own nothing else",
                self.from.display()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_write_to_no_directory_of_root_or_of_its_group() {
        let mut bind = Bind {
            from: "/srv/x".into(),
            to: "/mnt".into(),
            read_only: true,
        };
        assert_eq!(bind.wrong_owner(0, 0), None);
        bind.read_only = false;
        assert!(bind.wrong_owner(0, 100).is_some());
        assert!(bind.wrong_owner(100, 0).is_some());
        assert_eq!(bind.wrong_owner(100, 100), None);
    }
}
