//! One fault under load in network namespaces, from the first call to the verdict.

use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Member, Mode, Wanted};
use crate::drive::{self, Addresses, Outcome, Schedule};
use crate::fault::{self, Blow, Struck};
use crate::hub::{Hub, Told, Wires};
use crate::ledger::Call;
use crate::netns;
use crate::plan::Run;
use crate::reconcile::{self, Balance, Pace};
use crate::{table, testbed};

/// What a trial is to be like.
#[derive(Clone, Debug)]
pub struct Load {
    /// What calls do.
    pub run: Run,
    /// When they begin. The blow falls in the middle.
    pub schedule: Schedule,
    /// The CDF's interim interval, seconds.
    pub interim_s: u32,
    /// How long the node is away, if not as long as the blow has it.
    pub away: Option<Duration>,
    /// Whether outputs wait for the copies.
    pub mode: Mode,
    /// What happens to frames.
    pub wires: Wires,
    /// Remove a record before it is missed.
    pub lose_record: bool,
    /// Leave the cluster's directory.
    pub keep: bool,
}

/// What a trial showed.
pub struct Trial {
    /// What was done.
    pub blow: Blow,
    /// What the phones saw.
    pub outcome: Outcome,
    /// Held against the CDF's store.
    pub balance: Balance,
    /// What the nodes made of it.
    pub struck: Struck,
    /// Numbers of a session that came with two contents.
    pub conflicts: usize,
    /// All nodes were rid of all calls and records at the end.
    pub is_idle: bool,
    /// CPU time of all shards for a call, microseconds.
    pub cpu_us_per_call: f64,
    /// What the hub did to frames.
    pub told: Told,
    mode: Mode,
    wires: Wires,
}

impl Trial {
    /// Runs one, in the namespace of the phones.
    ///
    /// # Errors
    /// The cluster does not start or does not come back, or the phones fail.
    pub fn run(load: &Load, word: &str, blow: Blow) -> Result<Self, Box<dyn Error>> {
        let mut hub = Hub::start(word, NODES, load.run.seed, load.wires)?;
        let callee = (netns::PHONES, 5062).into();
        let mut cluster = Cluster::start(&Wanted {
            callee,
            interim_interval_s: load.interim_s,
            shards: 0,
            hosts: netns::hosts(word, NODES),
            cdf: netns::PHONES.into(),
            network: netns::NETWORK.to_owned(),
            mode: load.mode,
        })?;
        if load.keep {
            cluster.keep();
            eprintln!("{}: {}", blow.name(), cluster.dir().display());
        }
        let addresses = Addresses {
            caller: (netns::PHONES, 5061).into(),
            callee,
            targets: cluster.nodes().iter().map(Member::sip).collect(),
        };
        let before_s = cluster.shard_cpu_s()?;
        let (outcome, (struck, is_idle)) = load.place(blow, &addresses, &mut cluster, &mut hub)?;
        let cpu_s = cluster.shard_cpu_s()? + struck.cpu_s - before_s;
        let conflicts = cluster.conflicts();
        cluster.stop();
        if load.lose_record {
            testbed::lose_record(cluster.store())?;
        }
        let faults = [struck.fault];
        let store = cluster.store();
        let pace = Pace {
            interval_s: load.interim_s,
            slowest: outcome.latency.slowest(),
        };
        let balance = reconcile::reconcile_store(&outcome.calls, store, pace, &faults)?;
        Ok(Self {
            blow,
            balance,
            struck,
            conflicts,
            is_idle,
            cpu_us_per_call: cpu_s * 1e6 / f64::from(outcome.begun.max(1)),
            outcome,
            told: hub.tell()?,
            mode: load.mode,
            wires: load.wires,
        })
    }

    /// Calls that were up when the blow fell.
    pub fn up(&self) -> impl Iterator<Item = &Call> {
        let (before, after) = self.struck.fault.struck;
        self.outcome.calls.iter().filter(move |call| {
            let ended = call.caller.ended.is_some_and(|(at, _)| at < after);
            call.caller.answered.is_some_and(|at| at < before) && !ended
        })
    }

    /// Of these, how many did not go on and end as planned.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.up().filter(|call| !call.went_as_planned()).count()
    }

    /// Calls that one phone had ended when the blow fell, and that did not end well for both.
    #[must_use]
    pub fn halves(&self) -> usize {
        let fault = self.struck.fault;
        let calls = self.outcome.calls.iter();
        let halves = calls.filter(|call| {
            let is_cut_off = fault::cut_off(&[fault], call);
            !call.went_as_planned() && !is_cut_off && fault.ends_by_halves(call)
        });
        halves.count()
    }

    /// Everything that is wrong; empty if the promise was kept.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut wrong: Vec<String> = self
            .balance
            .classes()
            .iter()
            .map(|(difference, count, _)| format!("{count} {}", difference.name()))
            .collect();
        let strange = table::strange(&self.outcome.calls, &[self.struck.fault]);
        for (count, what) in [
            (strange, "calls that did not go as planned"),
            (self.conflicts, "record numbers with two contents"),
            (usize::from(!self.is_idle), "cluster not idle at the end"),
        ] {
            if count > 0 {
                wrong.push(format!("{count} {what}"));
            }
        }
        wrong
    }

    /// What makes the trial worth nothing: that which it is about did not happen.
    #[must_use]
    pub fn void(&self) -> Option<&'static str> {
        let nodes = self.told.nodes;
        if self.balance.calls == 0 {
            Some("no call was placed")
        } else if self.struck.adopted == 0 {
            Some("no call was taken over")
        } else if self.wires == Wires::Rough
            && [nodes.lost, nodes.repeated, nodes.held].contains(&0)
        {
            Some("nothing happened to what the nodes told one another")
        } else {
            None
        }
    }

    /// It happened, and everything was right; where outputs do not wait for the copies, what
    /// went wrong is what was to be measured.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.void().is_none() && (self.mode == Mode::Async || self.faults().is_empty())
    }

    /// The one line that says so.
    #[must_use]
    pub fn verdict(&self) -> String {
        let name = self.blow.name();
        let wrong = self.faults();
        if let Some(void) = self.void() {
            return format!("VERDICT: {name}: shows nothing: {void}");
        }
        if wrong.is_empty() {
            let up = self.up().count();
            return format!("VERDICT: {name}: balanced: {up} calls were up, none was lost");
        }
        let wrong = wrong.join(", ");
        if self.mode == Mode::Async {
            let (lost, up) = (self.lost(), self.up().count());
            return format!("VERDICT: {name}: async lost {lost} of {up} calls: {wrong}");
        }
        format!("VERDICT: {name}: NOT balanced: {wrong}")
    }

    /// All of it for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let outcome = &self.outcome;
        let mut value = table::to_json(&outcome.calls, &outcome.latency, Some(&self.balance));
        let ms = |time: Duration| time.as_millis() as u64;
        for (key, figure) in [
            ("fault", json!(self.blow.name())),
            ("mode", json!(self.mode.name())),
            ("takeover_ms", json!(self.struck.takeover.map(ms))),
            ("whole_ms", json!(ms(self.struck.whole))),
            ("calls_adopted", json!(self.struck.adopted)),
            ("calls_up", json!(self.up().count())),
            ("calls_lost", json!(self.lost())),
            ("calls_cut_off", json!(self.balance.cut_off)),
            ("calls_ended_by_halves", json!(self.halves())),
            ("requests_refused", json!(self.refused())),
            ("conflicts", json!(self.conflicts)),
            ("idle", json!(self.is_idle)),
            ("cpu_us_per_call", json!(self.cpu_us_per_call)),
            ("lag_ms", json!(ms(outcome.lag))),
            ("frames", json!(self.told)),
            ("verdict", json!(self.verdict())),
            ("good", json!(self.is_good())),
        ] {
            value[key] = figure;
        }
        value
    }

    /// Requests inside dialogs that were refused.
    #[must_use]
    pub fn refused(&self) -> u32 {
        self.outcome.calls.iter().map(Call::refused).sum()
    }
}

impl Load {
    fn place(
        &self,
        blow: Blow,
        addresses: &Addresses,
        cluster: &mut Cluster,
        hub: &mut Hub,
    ) -> std::io::Result<(Outcome, (Struck, bool))> {
        let lasts_s = f64::from(self.schedule.calls) / self.schedule.rate;
        let middle = Instant::now() + Duration::from_secs_f64(lasts_s / 2.0);
        let away = self.away.unwrap_or(blow.away());
        std::thread::scope(|scope| {
            let striker = scope.spawn(move || -> std::io::Result<_> {
                std::thread::sleep(middle.saturating_duration_since(Instant::now()));
                let struck = fault::strike(cluster, VICTIM, blow, away, Some(hub))?;
                Ok((struck, &*cluster))
            });
            let after = || -> std::io::Result<_> {
                let (struck, cluster) = striker.join().expect("a blow does not panic")?;
                Ok((struck, cluster.wait_idle()))
            };
            let (outcome, after) =
                drive::run_and_stay(&self.run, addresses, self.schedule, |_| {}, after)?;
            Ok((outcome, after?))
        })
    }
}

/// Nodes of a trial.
pub const NODES: u8 = 3;
/// The node that is struck.
const VICTIM: usize = 1;
