//! The demo's twenty jobs: each plants marks, works, and looks for the marks of other jobs.

use github_sim::{JobSpec, JobView};

use crate::sim::pool_job;

/// Beginning of every job. It looks for marks, finds none, and leaves marks wherever its user can: files
/// in seven directories, and a process that outlives the job.
const PLANT: &str = r#"
marks() {
  find / \( -path /proc -o -path /sys \) -prune -o -name 'demo-mark-*' -print 2>/dev/null || true
  ps -eo args= | grep -o '^demo-mark-[0-9]*' || true
}
foreign() { marks | grep -v -- "-$GITHUB_RUN_ID\$" || true; }
foreign | sed 's/^/found at the start: /'
secret=$(cat /proc/sys/kernel/random/uuid)
for place in "$HOME" /tmp /var/tmp /dev/shm "$RUNNER_TEMP" "$RUNNER_WORKSPACE" "$GITHUB_WORKSPACE"; do
  echo "$secret" > "$place/demo-mark-$GITHUB_RUN_ID"
done
setsid bash -c "exec -a demo-mark-$GITHUB_RUN_ID sleep 100000" &
mkdir "$RUNNER_TEMP/here" && cd "$RUNNER_TEMP/here"
"#;

/// End of every job. The job's own marks prove that the search finds marks.
const LOOK: &str = r#"
foreign | sed 's/^/found at the end: /'
echo "boot id $(cat /proc/sys/kernel/random/boot_id)"
echo "marks own=$(marks | grep -c -- "-$GITHUB_RUN_ID\$") foreign=$(foreign | wc -l) of $(id -un) in $(cat /etc/hostname)"
"#;

/// Marks that a job leaves: seven files and a process.
pub(super) const MARKS: u32 = 8;

const LZ4: &str = r"
tar -xf /srv/sources/lz4.tar.gz
make -C programs CFLAGS=-O1 lz4
make -C tests CFLAGS=-O1 test-decompress-partial frametest
tests/frametest -i200 2>&1 | tee result
grep 'All tests completed' result
programs/lz4 result copy.lz4
programs/lz4 -d copy.lz4 copy
cmp result copy
";

const BZIP2: &str = r"
tar -xf /srv/sources/bzip2.tar.gz
make
make test
";

const SQLITE: &str = r#"
tar -xf /srv/sources/sqlite.tar.gz
cat > check.c <<'END'
#include <stdio.h>
#include <string.h>
#include "sqlite3.h"
static int print(void *seen, int columns, char **values, char **names) {
  (void)columns; (void)names;
  printf("%s\n", values[0]);
  *(int *)seen += strcmp(values[0], "ok") == 0 || strcmp(values[0], "200000") == 0;
  return 0;
}
int main(void) {
  sqlite3 *database;
  int seen = 0;
  if (sqlite3_open("check.db", &database)) return 1;
  if (sqlite3_exec(database,
      "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT UNIQUE);"
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)"
      " INSERT INTO t SELECT i, hex(i * 7) FROM n;"
      "SELECT count(*) FROM t; PRAGMA integrity_check;", print, &seen, 0)) return 2;
  return seen == 2 ? 0 : 3;
}
END
gcc -O0 -DSQLITE_THREADSAFE=0 -DSQLITE_OMIT_LOAD_EXTENSION -o check check.c sqlite3.c
./check
"#;

const COMPILE: &str = r#"
cat > sieve.c <<'END'
#include <stdio.h>
static char composite[2000001];
int main(void) {
  int count = 0;
  for (long i = 2; i <= 2000000; i++) {
    if (composite[i]) continue;
    count++;
    for (long j = i * i; j <= 2000000; j += i) composite[j] = 1;
  }
  printf("%d\n", count);
}
END
gcc -O2 -Wall -Werror -o sieve sieve.c
test "$(./sieve)" = 148933
"#;

const CHECKSUMS: &str = r"
find /usr/bin /usr/lib/gcc -type f -print0 | sort -z | xargs -0 sha256sum > before
sha256sum --check --quiet before
wc -l before
";

const WRITE: &str = r"
head -c 64M /dev/urandom > one
cp one two
cmp one two
df -h . | tail -1
";

const REACH: &str = r"
exec 3<>/dev/tcp/github.test/80
printf 'GET / HTTP/1.0\r\n\r\n' >&3
grep 'you are' <&3
if timeout 0.5 bash -c '</dev/tcp/169.254.169.254/80' 2>/dev/null; then
  echo 'the metadata address answers'; exit 1
fi
";

/// A kind of job.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    pool: &'static str,
    work: &'static str,
    /// Number of jobs.
    count: usize,
}

impl Kind {
    const fn new(name: &'static str, pool: &'static str, work: &'static str, count: usize) -> Self {
        Self {
            name,
            pool,
            work,
            count,
        }
    }
}

/// Jobs that compile and test software from `/srv/sources`, named as its archive is.
const COMPILING: &[Kind] = &[
    Kind::new("lz4", "big", LZ4, 4),
    Kind::new("bzip2", "big", BZIP2, 4),
];

/// The job in place of one whose archive is missing.
const FALLBACK: Kind = Kind::new("sqlite", "big", SQLITE, 8);

const OTHERS: &[Kind] = &[
    Kind::new("compile", "ci", COMPILE, 3),
    Kind::new("checksums", "ci", CHECKSUMS, 3),
    Kind::new("write", "ci", WRITE, 3),
    Kind::new("reach", "ci", REACH, 3),
];

/// Returns the kinds of jobs for an image with these archives.
fn kinds(archives: &[String]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = COMPILING
        .iter()
        .filter(|kind| archives.iter().any(|archive| archive == kind.name))
        .copied()
        .collect();
    let missing = FALLBACK.count - kinds.iter().map(|kind| kind.count).sum::<usize>();
    kinds.push(Kind {
        count: missing,
        ..FALLBACK
    });
    kinds.extend(OTHERS);
    kinds
}

/// Returns all jobs, taking turns between the kinds, for an image with these archives.
pub(super) fn all(archives: &[String]) -> Vec<JobSpec> {
    let kinds = kinds(archives);
    let most = kinds
        .iter()
        .map(|kind| kind.count)
        .max()
        .unwrap_or_default();
    (1..=most)
        .flat_map(|number| kinds.iter().map(move |kind| (number, kind)))
        .filter(|(number, kind)| *number <= kind.count)
        .map(|(number, kind)| {
            pool_job(
                &format!("{}-{number}", kind.name),
                kind.pool,
                &format!("{PLANT}{}{LOOK}", kind.work),
            )
        })
        .collect()
}

/// Returns the numbers of own and foreign marks that a job saw, or `None` if it did not come to its end.
pub(super) fn marks_seen(job: &JobView) -> Option<(u32, u32)> {
    let line = job
        .facts
        .log_tail
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("marks own="))?;
    let mut words = line.split(' ');
    let own = words.next()?.parse().ok()?;
    let foreign = words
        .next()?
        .strip_prefix("foreign=")?
        .parse::<u32>()
        .ok()?;
    // One that was found at the start may have been gone at the end.
    let early = job
        .facts
        .log_tail
        .lines()
        .filter(|line| line.starts_with("found at the start: "));
    Some((own, foreign + u32::try_from(early.count()).ok()?))
}

/// Returns the boot id that a job read in its container.
pub(super) fn boot_id(job: &JobView) -> Option<&str> {
    let mut lines = job.facts.log_tail.lines().rev();
    lines.find_map(|line| line.strip_prefix("boot id "))
}

#[cfg(test)]
mod tests {
    use github_sim::Facts;

    use super::*;

    fn job(log: &str) -> JobView {
        let facts = Facts {
            log_tail: log.into(),
            ..Facts::default()
        };
        JobView {
            facts,
            ..crate::sim::example_job()
        }
    }

    #[test]
    fn there_are_twenty_whichever_archives_are_missing() {
        for archives in [&[][..], &["bzip2".into()], &["lz4".into(), "bzip2".into()]] {
            assert_eq!(all(archives).len(), 20);
            let sqlite = kinds(archives)
                .into_iter()
                .find(|kind| kind.name == FALLBACK.name);
            assert_eq!(sqlite.unwrap().count, 8 - 4 * archives.len());
        }
    }

    #[test]
    fn a_job_tells_what_it_saw() {
        let clean = "##[group]run\nmarks own=8 foreign=0 of runner in testhost-ci-1\n##[endgroup]";
        assert_eq!(marks_seen(&job(clean)), Some((8, 0)));
        let dirty = format!("found at the start: /tmp/demo-mark-3\n{clean}");
        assert_eq!(marks_seen(&job(&dirty)), Some((8, 1)));
        assert_eq!(marks_seen(&job("killed")), None);
        assert_eq!(boot_id(&job("echo\nboot id 7-8\nend")), Some("7-8"));
        assert_eq!(boot_id(&job(clean)), None);
    }
}
