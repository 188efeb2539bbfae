//! DNAME (RFC 6672): names below one are answered as those that it makes of them.

use hickory_proto::op::ResponseCode;
use proptest::prelude::*;

use super::kernel::{Kind, asking, build, questions, target, world};
use super::zone_data::{alias, dname, reply, wire_name, with_records};
use super::*;

#[test]
fn names_below_a_dname_are_led_elsewhere() {
    let index = with_records();
    let tcp = |name: &str, kind: RecordType| reply(&index, &query(name, kind), Transport::Tcp);
    let moved = "Moved.edge.test. 60 IN DNAME wild.edge.test.";
    for (name, kind, outcome, answers) in [
        // Its own name is like any other.
        ("moved.edge.test.", RecordType::A, Outcome::Answered, vec!["moved.edge.test. 60 IN A 192.0.2.85".to_owned()]),
        ("moved.edge.test.", RecordType::TXT, Outcome::NoData, vec![]),
        (
            "x.Y.Moved.edge.test.",
            RecordType::TXT,
            Outcome::Answered,
            vec![
                moved.into(),
                "x.Y.Moved.edge.test. 60 IN CNAME x.Y.wild.edge.test.".into(),
                "x.Y.wild.edge.test. 60 IN TXT \"wild\"".into(),
            ],
        ),
        (
            "there.Moved.edge.test.",
            RecordType::TXT,
            Outcome::NoData,
            vec![moved.into(), "there.Moved.edge.test. 60 IN CNAME there.wild.edge.test.".into()],
        ),
        // What stands below it is hidden. Who asks for the CNAME has it.
        (
            "hidden.Moved.edge.test.",
            RecordType::CNAME,
            Outcome::Answered,
            vec![moved.into(), "hidden.Moved.edge.test. 60 IN CNAME hidden.wild.edge.test.".into()],
        ),
        (
            "x.there.again.edge.test.",
            RecordType::A,
            Outcome::NxDomain,
            vec![
                "again.edge.test. 60 IN DNAME moved.edge.test.".into(),
                "x.there.again.edge.test. 60 IN CNAME x.there.moved.edge.test.".into(),
                "moved.edge.test. 60 IN DNAME wild.edge.test.".into(),
                "x.there.moved.edge.test. 60 IN CNAME x.there.wild.edge.test.".into(),
            ],
        ),
        (
            "a.outside.edge.test.",
            RecordType::A,
            Outcome::Answered,
            vec![
                "outside.edge.test. 60 IN DNAME elsewhere.example.".into(),
                "a.outside.edge.test. 60 IN CNAME a.elsewhere.example.".into(),
            ],
        ),
        (
            "a.circle.edge.test.",
            RecordType::A,
            Outcome::Answered,
            vec![
                "circle.edge.test. 60 IN DNAME circle.edge.test.".into(),
                "a.circle.edge.test. 60 IN CNAME a.circle.edge.test.".into(),
            ],
        ),
        (
            "tomoved.edge.test.",
            RecordType::TXT,
            Outcome::Answered,
            vec![
                "tomoved.edge.test. 60 IN CNAME X.Moved.edge.test.".into(),
                moved.into(),
                "X.Moved.edge.test. 60 IN CNAME X.wild.edge.test.".into(),
                "X.wild.edge.test. 60 IN TXT \"wild\"".into(),
            ],
        ),
        (
            "deep.tozone.edge.test.",
            RecordType::TXT,
            Outcome::Answered,
            vec![
                "tozone.edge.test. 60 IN DNAME other.test.".into(),
                "deep.tozone.edge.test. 60 IN CNAME deep.other.test.".into(),
                "deep.other.test. 60 IN TXT \"deep\"".into(),
            ],
        ),
    ] {
        let response = respond(&bytes(&query(name, kind)), &index, Transport::Udp, Pick::Slot(0));
        let reply = present::decode(&response.bytes.unwrap()).unwrap();
        assert_eq!((response.outcome, reply.answers), (outcome, answers), "{name} {kind}");
        assert!(reply.flags.contains(&"aa"), "{name}");
        assert_eq!(reply.authorities.len(), usize::from(outcome != Outcome::Answered), "{name}");
    }
    // The DNAME goes round and is told once.
    let (_, message) = tcp("a.growing.edge.test.", RecordType::A);
    assert_eq!(message.answers.iter().filter(|r| u16::from(r.record_type()) == TYPE_DNAME).count(), 1);
    assert!(message.answers.len() > 2);
    // Into a delegation, and by an alias to a service, for which the question counts.
    let (outcome, message) = tcp("x.tocut.edge.test.", RecordType::A);
    assert_eq!((outcome, message.answers.len(), message.authorities.len()), (Outcome::Referral, 2, 2));
    assert!(message.metadata.authoritative);
    let (outcome, message) = tcp("any.toalias.edge.test.", RecordType::A);
    assert_eq!((outcome, message.answers.len()), (Outcome::Answered, 5));
    let response = respond(&bytes(&query("a.toalias.edge.test.", RecordType::A)), &index, Transport::Udp, Pick::Next);
    assert_eq!(response.service, Some(3));
}

#[test]
fn what_a_dname_makes_too_long_is_yxdomain() {
    let label = "l".repeat(60);
    let long = format!("{label}.{label}.{label}.edge.test.");
    let records = vec![dname("d.edge.test.", &long), alias("to.edge.test.", &format!("x{label}.d.edge.test."))];
    let index = Index::new(&fixtures::snapshot(7, vec![Zone { records, ..zone("edge.test.") }], vec![])).unwrap();
    let tcp = |name: &str, kind: RecordType| reply(&index, &query(name, kind), Transport::Tcp);
    // 255 bytes are a name, 256 are none.
    let fits = "x".repeat(254 - wire_name(&long).len());
    let (outcome, message) = tcp(&format!("{fits}.d.edge.test."), RecordType::A);
    assert_eq!((outcome, message.answers.len()), (Outcome::NxDomain, 2));
    for (name, answers) in [(format!("x{fits}.d.edge.test."), 1), ("to.edge.test.".to_owned(), 2)] {
        let (outcome, message) = tcp(&name, RecordType::A);
        assert_eq!((outcome, message.answers.len()), (Outcome::YxDomain, answers), "{name}");
        assert_eq!(message.metadata.response_code, ResponseCode::YXDomain);
        assert!(message.metadata.authoritative && message.authorities.is_empty());
    }
}

/// RCODE and answers of a reply, in lower case.
fn told(reply: &[u8]) -> (String, Vec<String>) {
    let decoded = present::decode(reply).unwrap();
    (decoded.rcode, decoded.answers.iter().map(|line| line.to_ascii_lowercase()).collect())
}

/// A name below a DNAME gets that, the CNAME that it makes, and all that a question for where it leads gets. False where
/// there is no DNAME in the answer.
fn check_redirection(index: &Index, name: &[u8], qtype: u16) -> Result<bool, String> {
    let asked = |name: &[u8]| {
        let says = respond(&asking(name, qtype, None), index, Transport::Tcp, Pick::Slot(0));
        told(&says.bytes.unwrap())
    };
    let (rcode, answers) = asked(name);
    let [dname, cname, rest @ ..] = answers.as_slice() else { return Ok(false) };
    let parts = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (dname, cname) = (parts(dname), parts(cname));
    let ([owner, ttl_s, _, kind, target], [begin, cname_ttl_s, _, _, next]) = (&dname[..], &cname[..]) else {
        return Ok(false);
    };
    let below = format!(".{owner}");
    let Some(kept) = begin.strip_suffix(below.as_str()).filter(|_| kind == "dname") else { return Ok(false) };
    if next != &format!("{kept}.{target}") || ttl_s != cname_ttl_s {
        return Err(format!("{answers:?}"));
    }
    if qtype == TYPE_CNAME {
        return if rest.is_empty() && rcode == "NOERROR" { Ok(true) } else { Err(format!("{answers:?} for CNAME")) };
    }
    let (rcode_there, there) = asked(&wire_name(next));
    // The same DNAME is told once; out of our zones it is not ours to tell; who goes in a circle stops where it closes.
    let circle = there.contains(&answers[1]) || rest.len() > 5;
    let expected: Vec<_> = there.into_iter().filter(|line| line != &answers[0]).collect();
    let same = expected == rest && (rcode_there == rcode || (rcode_there == "REFUSED" && rcode == "NOERROR"));
    if same || circle { Ok(true) } else { Err(format!("{answers:?}\nthere {expected:?}")) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn names_below_a_dname_are_answered_as_where_it_leads(world in world(), target in target()) {
        let mut world = world;
        world.insert("a.edge.test.".to_owned(), Kind::Redirected(target));
        let index = Index::new(&build(&world, 7)).unwrap();
        let mut redirected = 0;
        for name in questions(&index) {
            for qtype in [1, 5, 16, 39, 65] {
                let checked = check_redirection(&index, &name, qtype);
                prop_assert!(checked.is_ok(), "{:02x?} type {qtype}: {}", name, checked.unwrap_err());
                redirected += usize::from(checked == Ok(true));
            }
        }
        prop_assert!(redirected > 0);
    }
}
