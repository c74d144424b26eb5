//! Lives of the stand-in listener against the server.

mod common;

use common::{Sim, runner};
use github_sim::{Conclusion, GoneCause, JobSpec, JobStatus};

#[test]
fn a_listener_takes_one_job_and_leaves() {
    let sim = Sim::start();
    let mut listener = sim.listener("r1", &[]);
    sim.wait_online(listener.id);
    let script = "echo hello from $RUNNER_NAME in $PWD; test $CI = true; test $X = y";
    let mut spec = JobSpec::new("build", &["CI"], script);
    spec.env.insert("X".into(), "y".into());
    let job = sim.control().add_job(spec);

    let job = sim.wait_job(job, JobStatus::Completed);
    assert_eq!(job.conclusion, Some(Conclusion::Success), "{job:#?}");
    assert_eq!(listener.code(), 0);
    assert!(job.facts.log_tail.contains("hello from r1 in"), "{job:#?}");
    assert!(job.facts.log_tail.contains("_work/widgets/widgets"));
    assert_eq!(job.facts.uid, nix::unistd::geteuid().as_raw());
    assert_eq!(job.facts.boot_id.len(), 36);
    let output = listener.output();
    for line in [
        "\u{221a} Connected to GitHub",
        ": Listening for Jobs",
        ": Running job: build",
        ": Job build completed with result: Succeeded",
    ] {
        assert!(output.contains(line), "{line} in {output}");
    }
    let gone = runner(sim.control(), listener.id).unwrap();
    assert_eq!(gone.gone, Some(GoneCause::JobDone));
}
