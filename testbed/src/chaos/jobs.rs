//! The jobs that flow meanwhile: a pure stream of a seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::net::GITHUB;
use crate::sim::{NewJob, PORT};

/// How a job is meant to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Design {
    /// With success.
    Well,
    /// With a step that fails.
    Badly,
}

/// A job to be queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Told apart by it.
    pub name: String,
    /// How it is meant to end.
    pub design: Design,
    pool: &'static str,
    millis: u64,
    races: u32,
}

impl Draft {
    /// A short job, for which so many runners lose the race first.
    #[must_use]
    pub fn raced(name: String, races: u32) -> Self {
        Self {
            name,
            design: Design::Well,
            pool: "ci",
            millis: 500,
            races,
        }
    }

    /// As the stand-in takes it.
    #[must_use]
    pub fn job(&self) -> NewJob {
        NewJob::new(&self.name, self.pool, &script(self)).lost_by(self.races)
    }
}

/// Jobs without end, each with the pause before it.
#[derive(Debug)]
pub struct Stream {
    rng: StdRng,
    next: u64,
}

impl Stream {
    /// The jobs of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            // Not the plan's stream: neither is to change with the other.
            rng: StdRng::seed_from_u64(seed ^ 0x006a_6f62),
            next: 1,
        }
    }
}

impl Iterator for Stream {
    type Item = (Duration, Draft);

    fn next(&mut self) -> Option<Self::Item> {
        let rng = &mut self.rng;
        let millis = match rng.random_range(0..100) {
            0..40 => rng.random_range(100..1500),
            40..85 => rng.random_range(1500..7000),
            _ => rng.random_range(7000..20_000),
        };
        let design = if rng.random_ratio(15, 100) {
            Design::Badly
        } else {
            Design::Well
        };
        let pool = if rng.random_ratio(20, 100) {
            "big"
        } else {
            "ci"
        };
        let pause = Duration::from_millis(rng.random_range(300..2200));
        let name = format!("job-{}", self.next);
        self.next += 1;
        let draft = Draft {
            name,
            design,
            pool,
            millis,
            races: 0,
        };
        Some((pause, draft))
    }
}

/// A job tells GitHub when it begins and when it ends, and names the life of its own: who runs twice
/// says so twice. It tells until it is heard, whatever is between them.
fn script(draft: &Draft) -> String {
    let Draft { design, millis, .. } = draft;
    let code = match design {
        Design::Well => 0,
        Design::Badly => 1,
    };
    format!(
        r#"tell() {{
  local body="{{\"text\":\"$1\"}}" answer
  until answer=$(timeout 2 bash -c 'exec 3<>/dev/tcp/{GITHUB}/{PORT} && printf "POST /_sim/jobs/%s/witness HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %s\r\n\r\n%s" "$1" "${{#2}}" "$2" >&3 && read -r _ code _ <&3 && echo "$code"' tell "$GITHUB_RUN_ID" "$body" 2>/dev/null) && [ "$answer" = 204 ]
  do sleep 0.3; done
}}
life=$(cat /proc/sys/kernel/random/uuid)
tell "begun $life"
sleep {}.{:03}
tell "ended $life"
exit {code}
"#,
        millis / 1000,
        millis % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_stream() {
        let jobs = |seed| Stream::new(seed).take(100).collect::<Vec<_>>();
        assert_eq!(jobs(1), jobs(1));
        assert_ne!(jobs(1), jobs(2));
    }

    #[test]
    fn some_jobs_fail_and_all_end_before_a_lock_lapses() {
        let jobs: Vec<Draft> = Stream::new(1).take(500).map(|(_, draft)| draft).collect();
        let bad = jobs
            .iter()
            .filter(|draft| draft.design == Design::Badly)
            .count();
        assert!((40..130).contains(&bad), "{bad}");
        assert!(jobs.iter().all(|draft| draft.millis < 20_000));
    }
}
