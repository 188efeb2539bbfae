#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! What is printed, without colour.

use super::*;
use crate::api::{Change, Line, ZoneContent};
use crate::model::fixtures::{backend, service};
use crate::model::{AddressPair, Backend, Hold, Timestamp};

fn header(first_generation: u64, generation: u64) -> TableHeader {
    TableHeader {
        generation,
        first_generation,
        at: Timestamp(951_782_400_000),
        cause: "video: +00000001".into(),
        zones: 1,
        names: 3,
        services: 1,
        backends: 1,
    }
}

fn summary(held: bool) -> TableSummary {
    TableSummary { header: header(12, 17), in_force: true, held }
}

fn content() -> TableContent {
    let zone = ZoneContent {
        apex: "edge.test.".into(),
        primary: "ns.edge.test.".into(),
        contact: "admin.edge.test.".into(),
        nameservers: vec!["ns.edge.test.".into()],
        ttl_s: 60,
        negative_ttl_s: 5,
        records: vec![
            "info.edge.test. 60 TXT \"a\"".into(),
            "info.edge.test. 60 TXT \"b\"".into(),
            "info.edge.test. 60 MX 10 mail.edge.test.".into(),
        ],
    };
    let addresses = AddressPair { v4: Some([10, 0, 0, 1].into()), v6: Some("fd00::1".parse().unwrap()) };
    let video = service("video", vec![Backend { addresses, weight: 3, ..backend(1) }]);
    TableContent { summary: summary(false), written_at: Timestamp(0), zone_data: vec![zone], service_data: vec![video] }
}

#[test]
fn a_list_marks_what_is_in_force_and_held() {
    let held = Some(Hold { of: 4, since: Timestamp(951_782_400_000), by: "root".into() });
    let tables = vec![TableSummary { in_force: false, held: false, header: header(3, 3) }, summary(true)];
    let list = TableList { at: Timestamp(951_782_460_000), held, tables };
    assert_eq!(
        list_text(&list, Paint::plain()),
        "GENERATION  WHEN                  AGO  ZONES  NAMES  SERVICES  BACKENDS                  CAUSE\n\
         3           2000-02-29 00:00:00Z  60s  1      3      1         1                         video: +00000001\n\
         12-17       2000-02-29 00:00:00Z  60s  1      3      1         1         in force, held  video: +00000001\n\
         \n\
         held: rolled back to 4 by root, 60s ago; selvedge table release ends that\n"
    );
    let none = TableList { tables: Vec::new(), held: None, ..list };
    assert_eq!(list_text(&none, Paint::plain()), "nothing was published yet\n");
}

#[test]
fn a_table_is_shown_by_zone_and_service_or_by_name() {
    assert_eq!(
        show_text(&content(), false),
        "generation 12-17 (in force), 2000-02-29 00:00:00Z: video: +00000001\n\
         zones 1, names 3, services 1, backends 1\n\
         \n\
         zone edge.test.  SOA ns.edge.test. admin.edge.test.\n  \
           TTL 60, negative 5, NS ns.edge.test.\n  \
           info.edge.test. 60 TXT \"a\"\n  \
           info.edge.test. 60 TXT \"b\"\n  \
           info.edge.test. 60 MX 10 mail.edge.test.\n\
         \n\
         service video  video.edge.test.\n  \
           TTL 5, 4 addresses per answer\n  \
           00000001  10.0.0.1 fd00::1  weight 3\n"
    );
    let names = show_text(&content(), true);
    assert!(
        names.ends_with("edge.test.  SOA, NS\ninfo.edge.test.  TXT, MX\nvideo.edge.test.  service video\n"),
        "{names}"
    );
}

#[test]
fn differences_read_as_those_of_diff() {
    let change = |added, text: &str| Change {
        line: Line { object: "service video".into(), what: "backend".into(), text: text.into() },
        added,
    };
    let changes = vec![change(false, "weight=1"), change(true, "weight=2")];
    let difference = TableDifference { from: header(3, 3), to: header(12, 17), changes };
    assert_eq!(
        diff_text(&difference, Paint::plain()),
        "--- generation 3 2000-02-29 00:00:00Z video: +00000001\n\
         +++ generation 12-17 2000-02-29 00:00:00Z video: +00000001\n\
         -service video backend weight=1\n\
         +service video backend weight=2\n"
    );
    let same = TableDifference { changes: Vec::new(), ..difference };
    assert_eq!(diff_text(&same, Paint::plain()), "");
}
