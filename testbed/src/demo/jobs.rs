//! The demo's twenty jobs: real work between planting marks and looking for anybody else's.

use crate::sim::{Job, NewJob};

/// What every job begins with: it looks for marks, finds none, and leaves its own wherever a
/// process of its user can: files in seven directories, and a process that outlives the job.
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

/// What every job ends with. Its own marks prove that the search finds marks.
const LOOK: &str = r#"
foreign | sed 's/^/found at the end: /'
echo "marks own=$(marks | grep -c -- "-$GITHUB_RUN_ID\$") foreign=$(foreign | wc -l) of $(id -un) in $(cat /etc/hostname)"
"#;

/// Marks that a job leaves: seven files and a process.
pub(super) const MARKS: u32 = 8;

const ZLIB: &str = r"
tar -xf /srv/sources/zlib_*.orig.tar.gz --strip-components=1
./configure
make
make test | tee result
grep -c 'test OK' result
";

const BZIP2: &str = r"
tar -xf /srv/sources/bzip2_*.orig.tar.gz --strip-components=1
make
make test
";

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

/// (name, pool, work, how often)
const KINDS: &[(&str, &str, &str, usize)] = &[
    ("zlib", "big", ZLIB, 4),
    ("bzip2", "big", BZIP2, 4),
    ("compile", "ci", COMPILE, 3),
    ("checksums", "ci", CHECKSUMS, 3),
    ("write", "ci", WRITE, 3),
    ("reach", "ci", REACH, 3),
];

/// All of them, one of each kind after the other.
pub(super) fn all() -> Vec<NewJob> {
    let most = KINDS.iter().map(|kind| kind.3).max().unwrap_or_default();
    (1..=most)
        .flat_map(|number| {
            KINDS
                .iter()
                .filter(move |kind| number <= kind.3)
                .map(move |(name, pool, work, _)| {
                    NewJob::new(
                        &format!("{name}-{number}"),
                        pool,
                        &format!("{PLANT}{work}{LOOK}"),
                    )
                })
        })
        .collect()
}

/// How many marks a job saw, its own and foreign ones; nothing if it did not come to its end.
pub(super) fn marks_seen(job: &Job) -> Option<(u32, u32)> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Facts;

    fn job(log: &str) -> Job {
        let facts = Facts {
            log_tail: log.into(),
            ..Facts::default()
        };
        Job {
            id: 1,
            name: "zlib-1".into(),
            status: "completed".into(),
            conclusion: None,
            reason: None,
            runner_name: None,
            created_at: 0,
            started_at: None,
            completed_at: None,
            attempts: 1,
            assignments: Vec::new(),
            witness: Vec::new(),
            facts,
        }
    }

    #[test]
    fn there_are_twenty() {
        assert_eq!(all().len(), 20);
    }

    #[test]
    fn a_job_tells_what_it_saw() {
        let clean = "##[group]run\nmarks own=8 foreign=0 of runner in testhost-ci-1\n##[endgroup]";
        assert_eq!(marks_seen(&job(clean)), Some((8, 0)));
        let dirty = format!("found at the start: /tmp/demo-mark-3\n{clean}");
        assert_eq!(marks_seen(&job(&dirty)), Some((8, 1)));
        assert_eq!(marks_seen(&job("killed")), None);
    }
}
