#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! Staged situations through the orchestrator as it runs: what is observed → decision, document, sentence.

use super::*;
use crate::model::{AddressPair, Instance, InstanceId, InstanceState, ObservedService, Served, Technology, Timestamp};

/// A node with one service, `video`, of 10 requests per instance and window of 10 s.
struct Stage {
    orchestrator: Orchestrator,
    config: Config,
    desired: watch::Receiver<Option<Arc<Desired>>>,
    orders: watch::Sender<Arc<Orders>>,
    instances: Vec<Instance>,
    /// The newest closed window, and when the node's clock says that it began.
    window: Option<WindowReport>,
    running_window: Option<WindowReport>,
    served: Option<Served>,
    /// Of each window that is reported.
    connections: Option<f64>,
    clock: u64,
    number: u32,
    store: Arc<Store>,
    _dir: tempfile::TempDir,
}

/// Follows the last window at once, but for what a case says otherwise.
const PLAIN: &str = "predictor = 'naive'\nheadroom = 0\nstabilisation = '0s'\ntolerance = 0\n";

fn config(scaling: &str, service: &str, limits: &str) -> Config {
    let text = format!(
        "[dns]\nlisten = ['192.0.2.1']\n[control]\nwindow = '10s'\n[limits]\ninstances = 20\n{limits}\n\
         [[zone]]\nname = 'e.test'\n[[service]]\nname = 'video'\nnames = ['video.e.test']\nimage = 'nginx:1'\n\
         capacity = 10\n{service}\n[service.scaling]\n{scaling}"
    );
    crate::config::parse(&text, "f.toml").unwrap_or_else(|e| panic!("{e}"))
}

fn video() -> ServiceName {
    ServiceName::new("video").unwrap()
}

impl Stage {
    fn new(scaling: &str, service: &str) -> Self {
        Self::of(config(scaling, service, ""))
    }

    fn of(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("s.redb")).unwrap());
        let (orders, ordered) = watch::channel(Arc::new(Orders::default()));
        let (desired_in, desired) = watch::channel(None);
        let shown = watch::channel(Arc::new(OrchestratorView::default())).0;
        let orchestrator = Orchestrator::new(config.node.clone(), Arc::clone(&store), ordered, desired_in, shown);
        let clock = 1_000_000_000;
        let (instances, window, running_window, served) = (Vec::new(), None, None, None);
        Self {
            orchestrator,
            config,
            desired,
            orders,
            instances,
            window,
            running_window,
            served,
            connections: None,
            clock,
            number: 0,
            store,
            _dir: dir,
        }
    }

    /// The daemon starts again on the same store.
    fn restart(&mut self) {
        let (desired_in, desired) = watch::channel(None);
        let shown = watch::channel(Arc::new(OrchestratorView::default())).0;
        let (node, store) = (self.config.node.clone(), Arc::clone(&self.store));
        self.orchestrator = Orchestrator::new(node, store, self.orders.subscribe(), desired_in, shown);
        self.desired = desired;
        self.window = None;
    }

    fn observed(&self) -> Observed {
        let state = ObservedService { instances: self.instances.clone(), available: true, served: self.served };
        Observed {
            revision: 1,
            node: self.config.node.clone(),
            at: Timestamp(self.clock),
            desired_revision: 0,
            services: [(video(), state)].into(),
            window: self.window.clone(),
            running_window: self.running_window.clone(),
            generation: 1,
            settled: true,
        }
    }

    fn step(&mut self) {
        let observed = self.observed();
        self.orchestrator.step(&observed, &self.config);
    }

    /// Instances that were just made, in this state.
    fn add(&mut self, count: u32, state: InstanceState) {
        for _ in 0..count {
            self.number += 1;
            let (id, now) = (InstanceId::from_number(self.number), Timestamp(self.clock));
            let mut one = Instance::new(id, video(), Technology::Docker, AddressPair::default(), now, "");
            one.state = state;
            self.instances.push(one);
        }
    }

    /// What is wanted runs.
    fn settle(&mut self) {
        self.instances.clear();
        let wanted = self.outlook().wanted;
        self.add(wanted, InstanceState::Serving);
    }

    fn report(&mut self, requests: Option<f64>, complete: bool) {
        self.clock += 10_000;
        self.window = Some(WindowReport {
            sequence: self.window.as_ref().map_or(0, |w| w.sequence) + 1,
            start: Timestamp(self.clock - 10_000),
            length_ms: 10_000,
            requests: requests.map(|r| (video(), r)).into_iter().collect(),
            connections: self.connections.map(|c| (video(), c)).into_iter().collect(),
            complete,
            closed: true,
        });
        self.step();
    }

    /// A window with so many requests; then what is wanted runs.
    fn load(&mut self, requests: f64) {
        self.report(Some(requests), true);
        self.settle();
    }

    fn order(&mut self, what: Override) {
        let order = Order { what, by: "ann".into(), at: Timestamp(1), reason: "match day".into(), revision: 1 };
        let services = [(video(), order)].into();
        self.orders.send_replace(Arc::new(Orders { revision: 1, services, ..Orders::default() }));
        self.orchestrator.planned = false;
    }

    /// The running window has come to so many by now.
    fn part(&mut self, length_ms: u64, requests: f64) {
        self.running_window = Some(WindowReport {
            sequence: self.window.as_ref().map_or(0, |w| w.sequence) + 1,
            start: Timestamp(self.clock),
            length_ms,
            requests: [(video(), requests)].into(),
            connections: self.connections.map(|c| (video(), c)).into_iter().collect(),
            complete: true,
            closed: false,
        });
        self.step();
    }

    fn outlook(&self) -> &ServiceOutlook {
        &self.orchestrator.view.services[&video()]
    }

    /// What the document says.
    fn replicas(&self) -> Option<u32> {
        self.desired.borrow().as_ref().and_then(|d| d.services.get(&video())).map(|s| s.replicas)
    }

    fn is(&self, case: &str, wanted: u32, said: &[&str]) {
        let outlook = self.outlook();
        let last = outlook.decisions.back().unwrap();
        assert_eq!(outlook.wanted, wanted, "{case}: {}", outlook.decision);
        assert_eq!(last.sentence, outlook.decision, "{case}");
        for part in said {
            assert!(outlook.decision.contains(part), "{case}: no {part:?} in {:?}", outlook.decision);
        }
        if last.outcome != Outcome::ObservedOnly {
            assert_eq!(self.replicas(), Some(wanted), "{case}");
        }
        println!("{case}: {}", outlook.decision);
    }
}

/// Load, window by window, and what is told after the last: wanted number and parts of the sentence.
type Case = (&'static str, &'static str, &'static str, &'static [f64], u32, &'static [&'static str]);

#[test]
fn each_situation_is_told() {
    let cases: &[Case] = &[
        ("the forecast", "", "", &[35.0], 4, &["naive expects 35.0 requests", "at 10 per instance that needs 4"]),
        ("fewest", "", "min = 3", &[5.0], 3, &["raised to min 3"]),
        ("most", "", "max = 2", &[95.0], 2, &["that needs 10", "lowered to max 2"]),
        ("none expected", "", "min = 0", &[0.0, 0.0], 0, &["expects 0.0 requests"]),
        ("next to nothing", "predictor = 'ema'\n", "min = 0", &[1.0, 0.0, 0.0, 0.0], 0, &["ema expects 0.0 requests"]),
        ("stabilisation", "stabilisation = '60s'\n", "", &[35.0, 5.0], 4, &["kept at 4, which was needed lately"]),
        ("stabilised", "stabilisation = '20s'\n", "", &[35.0, 5.0, 5.0], 1, &["1 wanted (was 4)"]),
        ("tolerance", "tolerance = 0.5\n", "", &[35.0, 25.0], 4, &["kept at 4, for 3 is only a little less"]),
        ("rate up", "up_instances = 1\n", "", &[5.0, 75.0], 2, &["raised to 2 only"]),
        ("rate down", "down_instances = 1\n", "", &[75.0, 5.0], 7, &["lowered to 7 only"]),
        ("budget", "churn = 2\n", "", &[75.0, 5.0], 8, &["budget of starts and stops is used up"]),
        ("service's processors", "most_vcpus = 2\n", "", &[75.0], 2, &["what the nodes' processors allow"]),
        ("service's memory", "most_memory_mib = 800\n", "", &[75.0], 3, &["what the nodes' memory allows"]),
        (
            "a young model",
            "predictor = 'ema'\n",
            "",
            &[10.0, 10.0, 50.0],
            5,
            &["ema expects 30.0", "has seen too little, so not below the 5 that the observed load needs"],
        ),
    ];
    for (case, scaling, service, loads, wanted, said) in cases {
        let own: Vec<&str> = scaling.lines().filter_map(|line| line.split(' ').next()).collect();
        let plain = PLAIN.lines().filter(|line| !own.contains(&line.split(' ').next().unwrap()));
        let scaling = plain.fold(String::new(), |all, line| all + line + "\n") + scaling;
        let mut stage = Stage::new(&scaling, service);
        loads.iter().for_each(|requests| stage.load(*requests));
        stage.is(case, *wanted, said);
    }
}

#[test]
fn nothing_known_is_told_and_the_first_number_is_what_runs() {
    let mut stage = Stage::new(PLAIN, "");
    stage.step();
    stage.is("nothing known", 1, &["no forecast yet", "raised to min 1", "last window: not measured"]);
    let mut stage = Stage::new(PLAIN, "");
    stage.add(5, InstanceState::Serving);
    stage.step();
    stage.is("found running", 5, &["no forecast yet", "left as it is"]);
}

#[test]
fn an_incomplete_report_raises_and_never_lowers() {
    let mut stage = Stage::new(PLAIN, "");
    stage.load(35.0);
    stage.report(Some(5.0), false);
    stage.is("counters reset", 4, &["not lowered, for the last report is incomplete"]);
    stage.report(Some(55.0), false);
    stage.is("and more", 6, &["expects 55.0"]);
}

#[test]
fn a_removal_that_only_the_stabilisation_delays_is_told_ahead() {
    let mut stage = Stage::new(&PLAIN.replace("'0s'", "'30s'"), "");
    let told = |stage: &Stage| {
        let desired = stage.desired.borrow().clone().unwrap();
        (desired.services[&video()].replicas, desired.services[&video()].fewer_soon)
    };
    stage.load(35.0);
    stage.settle();
    assert_eq!(told(&stage), (4, false));
    stage.load(5.0);
    assert_eq!(told(&stage), (4, true));
    stage.load(5.0);
    stage.load(5.0);
    stage.load(5.0);
    assert_eq!(told(&stage), (1, false));
    stage.load(35.0);
    stage.settle();
    stage.load(5.0);
    stage.order(Override::Pause);
    stage.step();
    assert_eq!(told(&stage), (4, false), "an order is no removal that comes");
}

#[test]
fn orders_stand_before_the_plan_and_say_whose_they_are() {
    let mut stage = Stage::new(PLAIN, "");
    stage.load(35.0);
    stage.order(Override::Pause);
    stage.step();
    stage.load(75.0);
    stage.is("paused", 4, &["4: paused by ann: match day; the plan says: 8 wanted"]);
    stage.order(Override::Pin { replicas: 2 });
    stage.step();
    stage.is("pinned", 2, &["2: pinned to 2 by ann: match day; the plan says"]);
    assert_eq!(stage.outlook().decisions.back().unwrap().outcome, Outcome::Ordered);
}

#[test]
fn what_is_observed_only_is_told_and_left_alone() {
    let mut stage = Stage::new(&format!("{PLAIN}mode = 'observe'\n"), "");
    stage.add(2, InstanceState::Serving);
    for requests in [35.0, 75.0, 5.0] {
        stage.report(Some(requests), true);
        assert_eq!(stage.replicas(), None, "absence is no order");
    }
    stage.is("observed only", 2, &["observed only, 2 left as they are; the plan says: 1 wanted"]);
    stage.part(1000, 90.0);
    assert_eq!(stage.replicas(), None);
    assert_eq!(stage.outlook().fitness.mode, "observe");
    let told: Vec<u32> = stage.outlook().decisions.iter().map(|d| d.planned).collect();
    assert!(told.starts_with(&[4, 8, 1]), "{told:?}");
}

#[test]
fn instances_that_never_become_ready_are_a_brake() {
    let mut stage = Stage::new(PLAIN, "");
    stage.load(15.0);
    stage.instances.clear();
    stage.add(3, InstanceState::Starting);
    stage.step();
    stage.instances.iter_mut().for_each(|i| i.state = InstanceState::Failed);
    stage.step();
    stage.report(Some(75.0), true);
    stage.is("brake", 2, &["not raised to 8, for 3 instances in a row never became ready"]);
    assert!(stage.outlook().fitness.braked);
    stage.report(Some(15.0), true);
    stage.is("no more is asked for", 2, &["3 instances in a row never became ready, so they are tried one by one"]);
    stage.add(1, InstanceState::Starting);
    stage.step();
    stage.instances.last_mut().unwrap().state = InstanceState::Serving;
    stage.report(Some(75.0), true);
    stage.is("one came up", 8, &["naive expects 75.0"]);
}

#[test]
fn what_a_query_has_started_and_idleness_ended_is_not_started_again() {
    let mut stage = Stage::new(&format!("{PLAIN}[service.summon]\n"), "min = 0\nmax = 5");
    stage.load(0.0);
    stage.part(1000, 1.0);
    stage.is("its instance has been and gone", 0, &["naive expects 0.0"]);
    stage.add(1, InstanceState::Serving);
    stage.part(2000, 36.0);
    stage.is("one runs, and is too few", 5, &["more than runs can serve"]);
}

#[test]
fn a_surge_acts_within_the_window_and_holds() {
    let mut stage = Stage::new(&PLAIN.replace("'0s'", "'20s'"), "max = 20");
    stage.load(15.0);
    stage.part(1000, 4.0);
    stage.is("as expected", 2, &["naive expects 15.0"]);
    stage.part(2000, 36.0);
    stage.is("panic", 9, &["the running window comes to 90.0 requests, more than runs can serve"]);
    stage.settle();
    stage.part(3000, 37.0);
    stage.load(70.0);
    stage.is("less than feared", 9, &["kept at 9"]);
    for _ in 0..3 {
        stage.load(15.0);
    }
    stage.is("it is over", 2, &[]);
}

#[test]
fn a_capacity_that_was_measured_counts_and_outlives_the_daemon() {
    let mut stage = Stage::new(&format!("{PLAIN}latency = '50ms'\n"), "min = 0\nmax = 20");
    let window = |stage: &mut Stage, requests: f64, slowest_ms: f64| {
        let window = stage.window.as_ref().map_or(0, |w| w.sequence) + 1;
        let largest_share = 1.0 / f64::from(stage.outlook().wanted.max(1));
        stage.served = Some(Served { window, largest_share, slowest_ms });
        stage.report(Some(requests), true);
    };
    // Five surprises, each shared by the two that ran: 16 requests of each, though 10 are configured.
    for _ in 0..5 {
        stage.served = None;
        stage.load(20.0);
        stage.is("as configured", 2, &["at 10 per instance that needs 2"]);
        window(&mut stage, 32.0, 3.0);
        stage.settle();
    }
    stage.is("more", 2, &["at 16 per instance as measured that needs 2"]);
    assert_eq!(stage.outlook().fitness.capacity.measured, Some(16.0));
    assert_eq!(stage.outlook().decisions.back().unwrap().measured_capacity, Some(16.0));
    // What is not measured changes nothing, nor does a restart.
    stage.served = None;
    (0..30).for_each(|_| stage.load(32.0));
    stage.is("not measured", 2, &["at 16 per instance as measured"]);
    stage.restart();
    stage.load(32.0);
    stage.is("restarted", 2, &["at 16 per instance as measured"]);
    stage.part(1000, 14.0);
    assert_eq!(stage.outlook().wanted, 2, "28 in all would be a surge for 20, and are none for 32");

    // Late at 8 each, which is less than configured.
    let mut stage = Stage::new(&format!("{PLAIN}latency = '50ms'\n"), "min = 2\nmax = 20");
    for _ in 0..6 {
        stage.load(16.0);
        window(&mut stage, 16.0, 300.0);
    }
    stage.is("less", 4, &["at 5 per instance as measured that needs 4"]);
    stage.served = None;
    (0..30).for_each(|_| stage.load(16.0));
    stage.is("what was too little stays so", 4, &[]);
    // Without the key it is measured no more, and does not count.
    stage.config = config(PLAIN, "min = 2\nmax = 20", "");
    stage.load(16.0);
    stage.is("as configured", 2, &["at 10 per instance that needs 2"]);
}

#[test]
fn what_the_node_has_is_shared() {
    let mut stage = Stage::of(config(PLAIN, "vcpus = 0.1", "vcpus = 0.3\nmemory_mib = 1000"));
    stage.load(75.0);
    stage.is("node", 3, &["lowered to 3, what the nodes' "]);
}

#[test]
fn a_restart_and_another_configuration_are_taken_up() {
    let mut stage = Stage::new(PLAIN, "");
    stage.load(5.0);
    stage.load(35.0);
    stage.restart();
    stage.step();
    stage.is("restarted", 4, &["naive expects 35.0", "last window: not measured"]);
    assert_eq!(stage.outlook().decisions.len(), 2, "those from before are kept");
    stage.config = config(PLAIN, "max = 2", "");
    stage.orchestrator.planned = false;
    stage.step();
    stage.is("reloaded", 2, &["lowered to max 2"]);
}

#[test]
fn what_is_not_stored_is_not_in_force() {
    let mut stage = Stage::new(PLAIN, "");
    stage.load(35.0);
    let service = DesiredService { replicas: 8, reason: "8 wanted".to_owned(), fewer_soon: false, prepared: 0 };
    stage.orchestrator.not_stored(&[(video(), service)].into());
    stage.is("store gone", 4, &["not in force, for it could not be stored: 8 wanted"]);
}

/// Missing, stale and reset counters, a clock that jumps and a lost store lower nothing, from 0, from 1 and from N.
#[test]
fn no_trouble_lowers_a_target() {
    for (running, load) in [(0, 0.0), (1, 5.0), (4, 35.0)] {
        let steady = || {
            let mut stage = Stage::new(PLAIN, "min = 0");
            (0..3).for_each(|_| stage.load(load));
            assert_eq!(stage.outlook().wanted, running);
            stage
        };
        let mut stage = steady();
        stage.orchestrator.planned = false;
        stage.step();
        stage.is(&format!("source dead at {running}"), running, &["last window: not measured"]);

        let mut stage = steady();
        (0..5).for_each(|_| stage.report(None, false));
        stage.is(&format!("map gone at {running}"), running, &["last window: not measured"]);

        for year in [-1i64, 1] {
            let mut stage = steady();
            stage.clock = stage.clock.saturating_add_signed(year * 500_000_000);
            // The machine stood still: the window has no count.
            stage.report(None, false);
            stage.is(&format!("clock jump at {running}"), running, &["last window: not measured"]);
            // Only the wall clock moved: the window counts, and nothing is filled in.
            stage.report(Some(load), true);
            stage.is(&format!("after it at {running}"), running, &[]);
        }

        let mut stage = Stage::new(PLAIN, "min = 0");
        stage.add(running, InstanceState::Serving);
        (0..3).for_each(|_| stage.report(None, false));
        stage.is(&format!("store gone at {running}"), running, &["no forecast yet", "left as it is"]);
    }
}

/// Clients that keep answers ask seldom and connect often.
#[test]
fn the_load_is_counted_as_the_service_says() {
    let cases = [
        ("demand = 'dns'", 1, "10 per instance that needs 1 (last window: 4.0)"),
        (
            "demand = 'connections'",
            6,
            "(last window: 60.0); requests are connections (connections: 60.0, queries: 4.0)",
        ),
        (
            "demand = 'max'",
            6,
            "; requests are connections or queries, whichever are more (connections: 60.0, queries: 4.0)",
        ),
    ];
    for (key, wanted, said) in cases {
        let mut stage = Stage::new(&format!("{PLAIN}{key}"), "min = 1\nmax = 9");
        stage.connections = Some(60.0);
        (0..3).for_each(|_| stage.load(4.0));
        let outlook = stage.outlook();
        assert_eq!(outlook.wanted, wanted, "{key}: {}", outlook.decision);
        assert!(outlook.decision.contains(said), "{key}: {}", outlook.decision);
        let last = outlook.history.back().unwrap();
        assert_eq!((last.dns, last.connections), (Some(4.0), Some(60.0)));
        // Within a window too, and not by what could not be counted.
        stage.connections = Some(500.0);
        stage.part(5_000, 4.0);
        assert_eq!(stage.outlook().wanted > wanted, key != "demand = 'dns'", "{key}: {}", stage.outlook().decision);
        stage.settle();
        let running = stage.outlook().wanted;
        stage.connections = None;
        stage.load(4.0);
        let outlook = stage.outlook();
        assert!(key == "demand = 'dns'" || outlook.wanted >= running, "{key}: {}", outlook.decision);
    }
}

#[test]
fn turns_go_round() {
    let names: Vec<ServiceName> = ["a", "b", "c"].iter().map(|n| ServiceName::new(*n).unwrap()).collect();
    let turn = |last: Option<usize>, most| -> String {
        let turn = after(last.map(|i| &names[i]), names.iter(), most);
        turn.iter().map(ServiceName::as_str).collect()
    };
    assert_eq!((turn(None, 2).as_str(), turn(Some(1), 2).as_str(), turn(Some(2), 9).as_str()), ("ab", "ca", "abc"));
}

#[test]
fn many_services_take_turns() {
    let mut text = "[dns]\nlisten = ['192.0.2.1']\n[control]\nwindow = '10s'\n[limits]\ninstances = 250\n\
                    [[zone]]\nname = 'e.test'\n"
        .to_owned();
    for i in 0..200 {
        text += &format!("[[service]]\nname = 's{i}'\nnames = ['s{i}.e.test']\nimage = 'nginx:1'\nmax = 2\n");
    }
    let config = crate::config::parse(&text, "f.toml").unwrap();
    let mut stage = Stage::of(config);
    for sequence in 1..=40 {
        let requests = stage.config.services.iter().map(|s| (s.name.clone(), 5.0)).collect();
        let (start, length_ms, complete, closed) = (Timestamp(sequence * 10_000), 10_000, true, true);
        let connections = BTreeMap::new();
        stage.window = Some(WindowReport { sequence, start, length_ms, requests, connections, complete, closed });
        stage.step();
    }
    assert!(stage.orchestrator.fitted.is_some(), "estimation has begun");
    assert_eq!(stage.store.predictors().unwrap().len(), 200, "each had its turn to be stored");
}

#[test]
fn what_the_windows_to_come_may_need_is_prepared_within_bounds_and_room() {
    let prepared = |limits: &str, prepared: &str, loads: &[f64]| {
        let own = "technology = 'xen-pvh'\nmemory_mib = 64\nmax = 8\n".to_owned() + prepared;
        let text = "[dns]\nlisten = ['192.0.2.1']\n[control]\nwindow = '10s'\n[limits]\ninstances = 20\n".to_owned()
            + limits
            + "\n[[zone]]\nname = 'e.test'\n[[service]]\nname = 'video'\nnames = ['video.e.test']\n\
               image = '/images/web'\ncapacity = 10\n"
            + &own
            + "\n[service.scaling]\n"
            + PLAIN;
        let mut stage = Stage::of(crate::config::parse(&text, "f.toml").unwrap_or_else(|e| panic!("{e}")));
        loads.iter().for_each(|requests| stage.load(*requests));
        let desired = stage.desired.borrow().clone().expect("a plan");
        let video = &desired.services[&video()];
        (video.replicas, video.prepared)
    };
    let steady = [20.0; 30];
    let rough: Vec<f64> = (0..40).map(|window| if window % 4 == 3 { 20.0 } else { 42.0 }).collect();
    assert_eq!(prepared("", "", &steady), (2, 0), "none is asked for");
    assert_eq!(prepared("", "prepared = { min = 0, max = 4 }", &steady), (2, 0), "nothing speaks for more");
    assert_eq!(prepared("", "prepared = { min = 1, max = 4 }", &steady), (2, 1), "the least");
    // The last window had 20, the one before it twice as much.
    let (replicas, count) = prepared("", "prepared = { min = 0, max = 6 }", &rough);
    assert!(replicas == 2 && (3..=6).contains(&count), "{replicas} and {count} prepared");
    assert_eq!(prepared("", "prepared = { min = 0, max = 1 }", &rough), (2, 1), "the most");
    assert_eq!(prepared("memory_mib = 256", "prepared = { min = 0, max = 6 }", &rough), (2, 2), "the node's memory");
    assert_eq!(prepared("memory_mib = 128", "prepared = { min = 1, max = 6 }", &rough), (2, 0), "no room");
}
