//! Deliveries of GitHub, and the jobs that they told of, as rows.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Params, named_params};

use crate::pool::{JobKey, JobStage, KnownJob, MAX_ENDED_JOBS, MAX_LIVE_JOBS, ScopeId};
use crate::world::Delivered;

/// Maximum number of jobs on record, as in the job table.
const MAX_JOBS: usize = MAX_LIVE_JOBS + MAX_ENDED_JOBS;
/// Time for which a delivery's id is known: GitHub repeats deliveries of the last three days.
const DELIVERY_AGE_MS: u64 = 4 * 24 * 3_600_000;
/// Maximum number of deliveries whose ids are known.
const MAX_DELIVERIES: usize = 200_000;

/// Merges what a delivery told of a job with what is on record, unless its id is on record.
pub(super) fn deliver(
    connection: &Connection,
    delivery: &str,
    told: KnownJob,
    unix_ms: u64,
) -> rusqlite::Result<Delivered> {
    let known = job(connection, &told.key)?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO deliveries VALUES (:id, :unix_ms) ON CONFLICT (id) DO NOTHING",
    )?;
    let added =
        insert.execute(named_params! { ":id": delivery, ":unix_ms": unix_ms.cast_signed() })?;
    let is_new = added > 0;
    let job = match known {
        // The job of a delivery on record may have left, and nothing is to bring it back.
        known if !is_new => return Ok(Delivered { is_new, job: known }),
        Some(known) => known.merge(told),
        None => told,
    };
    put(connection, &job)?;
    Ok(Delivered {
        is_new,
        job: Some(job),
    })
}

/// Returns those of the deliveries whose ids are on record.
pub(super) fn on_record(
    connection: &Connection,
    deliveries: BTreeSet<String>,
) -> rusqlite::Result<BTreeSet<String>> {
    let mut select = connection.prepare_cached("SELECT 1 FROM deliveries WHERE id = ?1")?;
    let mut found = BTreeSet::new();
    for id in deliveries {
        if select.exists([&id])? {
            found.insert(id);
        }
    }
    Ok(found)
}

/// Merges what GitHub's API told of a job with what is on record. Returns the job if that is news.
pub(super) fn merge(connection: &Connection, read: KnownJob) -> rusqlite::Result<Option<KnownJob>> {
    let job = match job(connection, &read.key)? {
        Some(known) if !known.is_news(&read) => return Ok(None),
        Some(known) => known.merge(read),
        None => read,
    };
    put(connection, &job)?;
    Ok(Some(job))
}

fn put(connection: &Connection, job: &KnownJob) -> rusqlite::Result<()> {
    let text = serde_json::to_string(job)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO jobs VALUES (
            :scope, :source, :id, :is_ended, :leaves, :job)",
    )?;
    insert.execute(named_params! {
        ":scope": job.key.scope.as_str(),
        ":source": job.key.source.as_ref(),
        ":id": job.key.id.cast_signed(),
        ":is_ended": job.stage() == JobStage::Ended,
        ":leaves": job.leaves_unix_ms().cast_signed(),
        ":job": text,
    })?;
    Ok(())
}

/// Returns a job on record.
fn job(connection: &Connection, key: &JobKey) -> rusqlite::Result<Option<KnownJob>> {
    let mut select = connection.prepare_cached(
        "SELECT job FROM jobs WHERE scope = :scope AND source = :source AND id = :id",
    )?;
    let key = named_params! {
        ":scope": key.scope.as_str(),
        ":source": key.source.as_ref(),
        ":id": key.id.cast_signed(),
    };
    let text: Option<String> = select.query_row(key, |row| row.get(0)).optional()?;
    Ok(text.and_then(|text| read(&text)))
}

/// Returns every job on record.
pub(super) fn jobs(connection: &Connection) -> rusqlite::Result<Vec<KnownJob>> {
    selected(connection, "SELECT job FROM jobs", [])
}

/// Returns every job of a scope on record that has not ended.
pub(super) fn live_jobs(
    connection: &Connection,
    scope: &ScopeId,
) -> rusqlite::Result<Vec<KnownJob>> {
    let sql = "SELECT job FROM jobs WHERE scope = ?1 AND NOT is_ended";
    selected(connection, sql, [scope.as_str()])
}

fn selected(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
) -> rusqlite::Result<Vec<KnownJob>> {
    let mut select = connection.prepare_cached(sql)?;
    let mut rows = select.query(parameters)?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        jobs.extend(read(&text));
    }
    Ok(jobs)
}

/// Reads a job. One that cannot be read is told in the journal, and the next delivery replaces it.
fn read(text: &str) -> Option<KnownJob> {
    match serde_json::from_str(text) {
        Ok(job) => Some(job),
        Err(error) => {
            tracing::warn!(%error, "leaving out the record of a job: {error}");
            None
        }
    }
}

/// Removes what is too old or too much.
pub(super) fn prune(connection: &Connection, unix_ms: u64) -> rusqlite::Result<()> {
    let old = |sql: &str, before: u64| {
        let mut delete = connection.prepare_cached(sql)?;
        delete.execute([before.cast_signed()])
    };
    old("DELETE FROM jobs WHERE leaves_unix_ms < ?1", unix_ms)?;
    let oldest = unix_ms.saturating_sub(DELIVERY_AGE_MS);
    old("DELETE FROM deliveries WHERE unix_ms < ?1", oldest)?;
    let beyond = |count: &str, max: usize, delete: &str| {
        let count: i64 = connection
            .prepare_cached(count)?
            .query_row([], |row| row.get(0))?;
        let surplus = count - i64::try_from(max).unwrap_or(i64::MAX);
        if surplus > 0 {
            connection.prepare_cached(delete)?.execute([surplus])?;
        }
        rusqlite::Result::Ok(())
    };
    // As in the job table: the oldest of the ended ones first, then the newest of the others.
    beyond(
        "SELECT count(*) FROM jobs",
        MAX_JOBS,
        "DELETE FROM jobs WHERE rowid IN (
            SELECT rowid FROM jobs
            ORDER BY is_ended DESC, CASE WHEN is_ended THEN leaves_unix_ms ELSE -leaves_unix_ms END
            LIMIT ?1)",
    )?;
    beyond(
        "SELECT count(*) FROM deliveries",
        MAX_DELIVERIES,
        "DELETE FROM deliveries WHERE rowid IN (
            SELECT rowid FROM deliveries ORDER BY unix_ms LIMIT ?1)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{
        Conclusion, Evidence, JobDescription, JobEnd, JobReading, JobSource, ScopeId,
    };
    use crate::store::schema;
    use std::path::Path;

    fn connection() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::prepare(&mut connection, Path::new("x")).unwrap();
        connection
    }

    fn queued(id: u64) -> KnownJob {
        KnownJob::new(
            JobKey {
                scope: ScopeId::new("https://api.github.com", "acme"),
                source: JobSource::Webhook,
                id,
            },
            Evidence::Queued,
            JobDescription {
                repository: "acme/widgets".into(),
                run_id: u64::MAX,
                workflow: "CI".into(),
                name: "build".into(),
                labels: vec!["linux".into()],
            },
            1_000,
        )
    }

    #[test]
    fn a_delivery_counts_once() {
        let connection = connection();
        let first = deliver(&connection, "a", queued(u64::MAX), 2_000).unwrap();
        assert!(first.is_new);
        let mut later = queued(u64::MAX);
        later.queued_unix_ms = 500;
        let again = deliver(&connection, "a", later.clone(), 2_000).unwrap();
        assert!(!again.is_new);
        assert_eq!(again.job, Some(queued(u64::MAX)), "it changed nothing");
        let other = deliver(&connection, "b", later.clone(), 2_000).unwrap();
        assert_eq!((other.is_new, other.job.as_ref()), (true, Some(&later)));
        assert_eq!(jobs(&connection).unwrap(), [later]);
    }

    #[test]
    fn a_reading_is_on_record_if_it_tells_something() {
        let connection = connection();
        deliver(&connection, "a", queued(1), 2_000).unwrap();
        let mut read = queued(1);
        read.read = Some(JobReading {
            unix_ms: 400_000,
            is_held: false,
        });
        assert_eq!(
            merge(&connection, read.clone()).unwrap(),
            Some(read.clone())
        );
        let mut soon = read.clone();
        soon.read.as_mut().unwrap().unix_ms += 30_000;
        assert_eq!(merge(&connection, soon.clone()).unwrap(), None);
        assert_eq!(jobs(&connection).unwrap(), [read.clone()]);
        let end = JobEnd {
            unix_ms: 425_000,
            conclusion: Conclusion::Success,
        };
        soon.end = Some(end);
        let ended = merge(&connection, soon.clone()).unwrap();
        assert_eq!(ended, Some(soon));
        assert_eq!(live_jobs(&connection, &queued(1).key.scope).unwrap(), []);
        let unknown = queued(2);
        assert_eq!(
            merge(&connection, unknown.clone()).unwrap(),
            Some(unknown.clone())
        );
        assert_eq!(
            live_jobs(&connection, &queued(1).key.scope).unwrap(),
            [unknown]
        );
        let other = ScopeId::new("https://api.github.com", "other");
        assert_eq!(live_jobs(&connection, &other).unwrap(), []);
    }

    #[test]
    fn old_jobs_and_deliveries_are_not_kept() {
        let connection = connection();
        deliver(&connection, "a", queued(1), 2_000).unwrap();
        let leaves = queued(1).leaves_unix_ms();
        prune(&connection, leaves).unwrap();
        assert_eq!(jobs(&connection).unwrap().len(), 1);
        prune(&connection, leaves + 1).unwrap();
        assert_eq!(jobs(&connection).unwrap(), []);
        let again = deliver(&connection, "a", queued(1), leaves + 1).unwrap();
        assert_eq!((again.is_new, again.job), (false, None));
        assert_eq!(jobs(&connection).unwrap(), [], "nothing brings it back");
        prune(&connection, DELIVERY_AGE_MS + 2_001).unwrap();
        assert!(deliver(&connection, "a", queued(1), 0).unwrap().is_new);
    }

    #[test]
    fn the_number_of_jobs_on_record_is_bounded() {
        let connection = connection();
        let max = u64::try_from(MAX_JOBS).unwrap();
        for id in 0..max + 2 {
            let mut job = queued(id);
            job.queued_unix_ms = id;
            put(&connection, &job).unwrap();
        }
        prune(&connection, 0).unwrap();
        let kept = jobs(&connection).unwrap();
        assert_eq!(kept.len(), MAX_JOBS);
        assert!(kept.iter().all(|job| job.key.id < max), "the newest leave");
    }
}
