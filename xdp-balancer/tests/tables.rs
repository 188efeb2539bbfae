//! Publishing, adoption and removal on real maps.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::process::Command;
use std::sync::Arc;

use support::{A, AA, AAAA, PinDir, addresses, name, pinned, privileged, query, stay_on_one_cpu, table};
use xdp_balancer::testing::{Datagram, Query};
use xdp_balancer::{
    Below, Dataplane, Error, Name, Rendered, Ring, RunAction, Table, Verdict, detach, remove_all, show,
};
use xdp_balancer_common::{CLIENT_TURNS, GRAIN, MAX_NAMES, RESERVED_GRAINS};

/// The last byte of the address in the reply to an A query; `None` if it was passed.
fn ask(dataplane: &Dataplane, name: &str) -> Option<u8> {
    let result = dataplane.run(&query(false, &Query::new(name, A))).unwrap();
    (result.action == RunAction::Answer).then(|| *Datagram::parse(&result.frame).unwrap().payload.last().unwrap())
}

/// Bytes of the pool in use.
fn pool(dataplane: &Dataplane) -> u32 {
    dataplane.fill().unwrap().iter().find(|fill| fill.map == "POOL").unwrap().used
}

fn one(host: &str, service: u32, last: u8) -> Name {
    name(host, service, vec![(A, vec![addresses(&[&format!("10.0.0.{last}")])])])
}

#[test]
fn generations_replace_each_other_whole() {
    if !privileged("generations_replace_each_other_whole") {
        return;
    }
    let pins = PinDir::new();
    let mut dataplane = pins.open();
    assert!(!dataplane.adopted());
    assert_eq!(ask(&dataplane, "a.example.net"), None);
    // Before the first publication no address is ours.
    assert_eq!(dataplane.counters(0).unwrap().verdict(Verdict::NotLocal), 1);

    let first = dataplane.publish(&table(1, vec![one("a.example.net", 0, 1), one("b.example.net", 1, 2)])).unwrap();
    assert_eq!((first.names, first.rrsets_changed, first.names_replaced), (2, 0, true));
    assert_eq!((ask(&dataplane, "a.example.net"), ask(&dataplane, "b.example.net")), (Some(1), Some(2)));

    let second = dataplane.publish(&table(2, vec![one("a.example.net", 0, 3), one("b.example.net", 1, 2)])).unwrap();
    assert_eq!((second.rrsets_changed, second.names_replaced), (1, false));
    assert_eq!((ask(&dataplane, "a.example.net"), ask(&dataplane, "b.example.net")), (Some(3), Some(2)));

    let third = dataplane.publish(&table(3, vec![one("c.example.net", 0, 4), one("b.example.net", 1, 2)])).unwrap();
    assert_eq!((third.rrsets_changed, third.names_replaced), (0, true));
    assert_eq!(ask(&dataplane, "a.example.net"), None);
    assert_eq!((ask(&dataplane, "b.example.net"), ask(&dataplane, "c.example.net")), (Some(2), Some(4)));

    for offered in [0, 2, 3] {
        let error = dataplane.publish(&table(offered, vec![])).unwrap_err();
        assert!(matches!(error, Error::StaleGeneration { current: 3, .. }), "{error}");
    }
    assert_eq!(ask(&dataplane, "c.example.net"), Some(4));
    dataplane.publish(&table(4, vec![])).unwrap();
    assert_eq!(ask(&dataplane, "c.example.net"), None);
}

#[test]
fn grains_are_reused_for_ever() {
    if !privileged("grains_are_reused_for_ever") {
        return;
    }
    let pins = PinDir::new();
    let mut options = pins.options();
    // Two small tables of names; what is never handed out, the set of one type (two), the RRset; three answers of one
    // address (two each) besides the first; one, for tables begin at multiples of four.
    let tables = 2 * (64 + 128 + 256 * 16) / GRAIN;
    options.sizes.pool_bytes = (tables + RESERVED_GRAINS as usize + 2 + 1 + 2 + 3 * 2 + 1) * GRAIN;
    let grains = |count: usize| (tables + count) as u32;
    let mut dataplane = Dataplane::open(&options).unwrap();
    let mut waits = 0;
    for generation in 1..=40_u64 {
        let last = generation as u8;
        let published = dataplane.publish(&table(generation, vec![one("a.test", 0, last)])).unwrap();
        waits += u32::from(published.waited);
        assert_eq!(ask(&dataplane, "a.test"), Some(last));
        assert_eq!(pool(&dataplane), grains(9) * GRAIN as u32);
    }
    assert_eq!(waits, 12, "every third change");

    let ring = (1..=5).map(|last| addresses(&[&format!("10.0.0.{last}")])).collect();
    let error = dataplane.publish(&table(50, vec![name("a.test", 0, vec![(A, ring)])])).unwrap_err();
    let Error::Full { map: "POOL", used, needed, capacity } = error else { panic!("{error}") };
    assert_eq!([used, needed, capacity], [9, 21, 16].map(grains));
    assert_eq!((dataplane.generation().unwrap(), ask(&dataplane, "a.test")), (40, Some(40)));
    dataplane.publish(&table(51, vec![one("a.test", 0, 1)])).unwrap();
    assert_eq!(ask(&dataplane, "a.test"), Some(1));
}

#[test]
fn what_cannot_be_published_changes_nothing() {
    if !privileged("what_cannot_be_published_changes_nothing") {
        return;
    }
    let pins = PinDir::new();
    let mut dataplane = pins.open();
    dataplane.publish(&table(1, vec![one("a.example.net", 0, 1)])).unwrap();
    let many = (0..=MAX_NAMES).map(|i| name(&format!("n{i}"), 0, vec![])).collect();
    let turns = || vec![addresses(&["10.0.0.3"]), addresses(&["10.0.0.4"])];
    let positions = (0..65).map(|i| name(&format!("n{i}"), 0, vec![(A, turns())])).collect();
    let lonely = Name { below: Below::Wildcard, ..one("a.example.net", 0, 2) };
    let cases = [
        (vec![one("a.example.net", 16, 2)], "a.example.net.: service index 16 is beyond the counters"),
        (vec![one("a.example.net", 0, 2), one("A.example.net", 1, 3)], "A.example.net.: the name occurs twice"),
        (vec![lonely], "a.example.net.: the wildcard below it is not in the table"),
        (many, "the table: 120001 names are more than a table holds (120000)"),
        (positions, "map CURSORS is full: 65 elements needed, 64 there (64 in use)"),
    ];
    for (names, problem) in cases {
        let before = dataplane.fill().unwrap();
        let error = dataplane.publish(&table(2, names)).unwrap_err().to_string();
        assert!(error.ends_with(problem), "{error}");
        assert_eq!((ask(&dataplane, "a.example.net"), dataplane.generation().unwrap()), (Some(1), 1));
        assert_eq!(dataplane.fill().unwrap(), before);
    }
}

/// A table with all that can be in one: a zone with a wildcard, shared answers, a name longer than a slot, a ring by
/// client, turns, a type with nothing published.
fn rich() -> Vec<Name> {
    let negative = |code| Arc::new(Ring::single(Rendered { flags: AA | code, ..Rendered::default() }));
    let (nodata, denied) = (negative(0), negative(3));
    let ring = |first: u8, len: u8| (first..first + len).map(|last| addresses(&[&format!("10.0.0.{last}")])).collect();
    let shared = Arc::new(Ring::round_robin(ring(20, 3)));
    let answers: Vec<_> = ring(30, 4);
    let turns = (0..CLIENT_TURNS).map(|turn| turn * 7 % 4).collect();
    let by_client = Arc::new(Ring { answers, turns, by_client: true });
    let mut names = vec![
        name("example.net", 0, vec![(16, vec![addresses(&["10.0.0.5"])])]),
        name("www.example.net", 1, vec![(A, vec![]), (AAAA, vec![])]),
        name("alias.example.net", 1, vec![(A, vec![])]),
        name("wild.example.net", 0, vec![]),
        name("*.wild.example.net", 2, vec![(A, vec![addresses(&["10.0.0.6"])])]),
        name("idle.example.net", 3, vec![(A, vec![])]),
        name(&format!("{0}.{0}.{0}.example.net", "x".repeat(40)), 3, vec![(A, vec![])]),
        name("turns.example.net", 3, vec![(A, ring(40, 2)), (AAAA, ring(50, 5))]),
    ];
    for name in &mut names {
        (name.others, name.below) = (Some(Arc::clone(&nodata)), Below::Denied(Arc::clone(&denied)));
    }
    for index in [1, 2] {
        names[index].rrsets[0].ring = Some(Arc::clone(&shared));
    }
    names[3].below = Below::Wildcard;
    names[6].rrsets[0].ring = Some(by_client);
    names
}

#[test]
fn tables_outlive_the_process_and_are_adopted() {
    if !privileged("tables_outlive_the_process_and_are_adopted") {
        return;
    }
    stay_on_one_cpu();
    let pins = PinDir::new();
    let hosts = ["www", "alias", "any.wild", "idle", &format!("{0}.{0}.{0}", "x".repeat(40)), "turns", "none"];
    let said = |dataplane: &Dataplane| hosts.map(|host| ask(dataplane, &format!("{host}.example.net")));
    let mut dataplane = pins.open();
    dataplane.publish(&table(7, rich())).unwrap();
    let first = said(&dataplane);
    let client = first[4].filter(|last| (30..34).contains(last));
    // A name that is denied is answered without an address: the last byte of the question.
    assert_eq!(first, [Some(20), Some(21), Some(6), None, client, Some(40), Some(1)]);
    let (before, fill) = (dataplane.counters(4).unwrap(), dataplane.fill().unwrap());
    let second = Dataplane::open(&pins.options()).err().unwrap();
    assert!(matches!(second, Error::Busy { .. }), "{second}");
    drop(dataplane);

    let shown = show(&pins.0).unwrap().unwrap();
    assert_eq!((shown.generation, shown.counters.verdicts), (7, before.verdicts.clone()));

    let mut dataplane = pins.open();
    assert!(dataplane.adopted());
    assert_eq!((dataplane.counters(4).unwrap(), dataplane.fill().unwrap()), (before.clone(), fill.clone()));
    // Turns go on where they were.
    assert_eq!(said(&dataplane), [Some(22), Some(20), Some(6), None, client, Some(41), Some(1)]);
    let again = dataplane.publish(&table(8, rich())).unwrap();
    assert_eq!((again.rrsets_changed, again.names_replaced), (0, false));
    // Nothing in force is overwritten by what comes now: another name, and a type that has something at last.
    let mut more = rich();
    more.push(one("c.example.net", 3, 9));
    more[5].rrsets[0].ring = Some(Arc::new(Ring::single(addresses(&["10.0.0.8"]))));
    dataplane.publish(&table(9, more)).unwrap();
    assert_eq!(said(&dataplane), [Some(21), Some(22), Some(6), Some(8), client, Some(40), Some(1)]);
    assert_eq!(ask(&dataplane, "c.example.net"), Some(9));
    dataplane.publish(&table(10, rich())).unwrap();
    assert_eq!(dataplane.fill().unwrap(), fill, "all that was given up is there again");
    assert!(matches!(dataplane.publish(&table(10, vec![])), Err(Error::StaleGeneration { .. })));
    drop(dataplane);

    // New maps are told from continued ones.
    remove_all(&pins.0).unwrap();
    assert!(!pins.0.exists());
    assert_eq!(show(&pins.0).unwrap(), None);
    let dataplane = pins.open();
    assert!(!dataplane.adopted());
    assert_ne!(dataplane.counters(0).unwrap().epoch, before.epoch);
}

#[test]
fn sizes_of_adopted_maps_stay() {
    if !privileged("sizes_of_adopted_maps_stay") {
        return;
    }
    let pins = PinDir::new();
    drop(pins.open());
    let mut options = pins.options();
    options.sizes.cursors = 100_000;
    let dataplane = Dataplane::open(&options).unwrap();
    let fill = dataplane.fill().unwrap();
    assert!(fill.iter().any(|fill| fill.map == "CURSORS" && fill.capacity == 64), "{fill:?}");
}

#[test]
fn a_pin_of_another_shape_is_refused() {
    if !privileged("a_pin_of_another_shape_is_refused") {
        return;
    }
    let pins = PinDir::new();
    drop(pins.open());
    let (services, verdicts) = (pinned(&pins, "SERVICES"), pinned(&pins, "VERDICTS"));
    std::fs::remove_file(&services).unwrap();
    let map = aya::maps::MapData::from_pin(&verdicts).unwrap();
    map.pin(&services).unwrap();
    let error = Dataplane::open(&pins.options()).err().unwrap();
    assert!(matches!(error, Error::Shape { map: "SERVICES", what: "value size", found: 8, wanted: 96 }), "{error}");
    assert_eq!(error.label(), "shape");
}

#[test]
fn a_lost_map_begins_a_new_epoch() {
    if !privileged("a_lost_map_begins_a_new_epoch") {
        return;
    }
    let pins = PinDir::new();
    let mut dataplane = pins.open();
    dataplane.publish(&table(1, vec![one("a.example.net", 0, 1)])).unwrap();
    let epoch = dataplane.counters(0).unwrap().epoch;
    drop(dataplane);
    std::fs::remove_file(pinned(&pins, "SERVICES")).unwrap();
    let dataplane = pins.open();
    assert_ne!(dataplane.counters(0).unwrap().epoch, epoch);
    assert_eq!(ask(&dataplane, "a.example.net"), Some(1));
}

#[test]
fn pins_need_a_bpf_file_system() {
    if !privileged("pins_need_a_bpf_file_system") {
        return;
    }
    let options = xdp_balancer::Options { pin_dir: std::env::temp_dir().join("selvedge-none"), ..Default::default() };
    let error = Dataplane::open(&options).err().unwrap();
    assert!(matches!(error, Error::NotBpffs { .. }), "{error}");
}

#[test]
fn detaching_what_is_not_there_is_fine() {
    let nowhere = std::path::Path::new("/sys/fs/bpf/selvedge-test-nowhere");
    assert_eq!(detach(nowhere, None).unwrap(), Vec::<String>::new());
    assert_eq!(remove_all(nowhere).unwrap(), Vec::<String>::new());
}

const UNPRIVILEGED: &str = "SELVEDGE_TEST_UNPRIVILEGED";

/// Without rights there is a plain error with the system's number, and nothing is left behind.
#[test]
fn without_rights_the_error_says_so() {
    if let Some(pin_dir) = std::env::var_os(UNPRIVILEGED) {
        let options = xdp_balancer::Options { pin_dir: pin_dir.into(), ..Default::default() };
        let error = Dataplane::open(&options).err().unwrap();
        assert!(error.is_permission(), "{error:?}");
        println!("{error}");
        return;
    }
    if !privileged("without_rights_the_error_says_so") {
        return;
    }
    // The same test again as nobody.
    let pins = PinDir::new();
    let copy = std::env::temp_dir().join(format!("selvedge-test-tables-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
        .arg(&copy)
        .args(["--exact", "without_rights_the_error_says_so", "--nocapture"])
        .env(UNPRIVILEGED, &pins.0)
        .output();
    std::fs::remove_file(&copy).unwrap();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("cannot "), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    assert!(!pins.0.exists());
}

#[test]
fn a_directory_of_another_user_is_refused() {
    if !privileged("a_directory_of_another_user_is_refused") {
        return;
    }
    let pins = PinDir::new();
    std::fs::create_dir(&pins.0).unwrap();
    std::os::unix::fs::chown(&pins.0, Some(65534), Some(65534)).unwrap();
    let error = Dataplane::open(&pins.options()).err().unwrap();
    assert!(matches!(error, Error::NotOwned { owner: 65534, .. }), "{error}");
}

/// Compiles only if the types stay plain data.
#[test]
fn tables_are_plain_data() {
    fn plain<T: Clone + Send + Sync + 'static>() {}
    plain::<Table>();
    plain::<xdp_balancer::Counters>();
    fn movable<T: Send + 'static>() {}
    movable::<Dataplane>();
}
