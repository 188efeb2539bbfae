//! The object as it was linked, asked without root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::mem::offset_of;

use xdp_balancer_common::{
    AnswerHead, BUCKET_SETS, Bucket, BucketSet, CLIENT_TURNS, COST_BUCKETS, Capture, Connection, ConnectionKey,
    CostCount, FlowCount, GRAIN, Guard, LAYOUT, LIST_ALLOW, LIST_DENY, ListKey, MAX_NAMES, MAX_SLOTS, NameEntry,
    PILOTS_AT, POOL_GRAINS, Pool, QuietPrefix, REFUSED_AT, ROOT_AT, RingWord, Root, Rrset, SLIPPED_AT, SLOT_HEAD,
    SLOT_SHIFTS, ServiceCount, Settings, TableHead, TypeSet, TypeSlot, UNPROVEN_AT, Verdict,
};

use super::*;
use crate::maps::{Sizes, shapes};

/// Upper bound on the XDP program's instructions before the kernel's own rewriting.
const MAX_INSTRUCTIONS: usize = 5000;

fn parsed() -> aya_obj::Object {
    aya_obj::Object::parse(OBJECT).unwrap()
}

#[test]
fn it_holds_these_programs_and_no_others() {
    let names: BTreeSet<String> = parsed().programs.into_keys().collect();
    let wanted = [object::XDP, object::PASS, object::FLOW_TO, object::FLOW_FROM].map(str::to_owned);
    assert_eq!(names, BTreeSet::from(wanted));
}

#[test]
fn its_licence_is_the_declared_one() {
    assert_eq!(parsed().license.to_str().unwrap(), "Dual MIT/GPL");
}

#[test]
fn its_maps_have_the_shapes_that_adoption_demands() {
    let parsed = parsed();
    for shape in shapes(&Sizes::default()) {
        let map = parsed.maps.get(shape.name).unwrap_or_else(|| panic!("no map {}", shape.name));
        let found = (map.map_type(), map.key_size(), map.value_size(), map.map_flags(), map.max_entries());
        let wanted = (shape.kind as u32, shape.key as u32, shape.value as u32, shape.flags, shape.entries);
        assert_eq!(found, wanted, "{}", shape.name);
    }
}

#[test]
fn the_program_stays_small() {
    let parsed = parsed();
    let program = &parsed.programs[object::XDP];
    let count = parsed.functions[&program.function_key()].instructions.len();
    println!("{}: {count} instructions", object::XDP);
    assert!(count <= MAX_INSTRUCTIONS, "{count} instructions");
}

/// Another size or offset is another layout: raise `LAYOUT` together with the numbers here.
#[test]
fn layouts_are_those_of_their_number() {
    assert_eq!(LAYOUT, 5);
    assert_eq!(Verdict::ALL.len(), 36);
    assert_eq!((SLOT_HEAD, SLOT_SHIFTS), (4, [4, 5]));
    let entry = NameEntry::new(b"\x03wWw\0").unwrap();
    assert_eq!((entry.wire_len, entry.text[..2].as_ref()), (5, &[u64::from_ne_bytes(*b"\x03www\0\0\0\0"), 0][..]));
    let offsets = [
        offset_of!(TableHead, pilot_mask),
        offset_of!(TableHead, last_slot),
        offset_of!(TableHead, slots_at),
        offset_of!(TableHead, slot_shift),
        offset_of!(TableHead, secret),
        PILOTS_AT,
    ];
    assert_eq!((size_of::<TableHead>(), offsets), (24, [0, 4, 8, 12, 16, 64]));
    let (hash, head) = (entry.hash(7), TableHead::of(MAX_NAMES, 5, 7));
    assert_eq!([head.pilot_mask + 1, head.last_slot + 1, head.slots_at], [1 << 15, MAX_SLOTS, 64 + (2 << 15)]);
    assert_eq!((hash, head.pilot_of(hash), head.slot_of(hash, 3)), (0xe321_6443_92e8_076f, 1903, 57_673));

    assert_eq!((GRAIN, POOL_GRAINS, ROOT_AT), (16, 1 << 21, (16 << 21) + 8192));
    assert_eq!(size_of::<Pool>(), ROOT_AT + size_of::<Root>());
    let offsets = [
        offset_of!(Root, table),
        offset_of!(Root, clock),
        offset_of!(Root, heartbeat),
        offset_of!(Root, guard),
        offset_of!(Root, settings),
        offset_of!(Root, capture),
        offset_of!(Root, log),
    ];
    assert_eq!(offsets, [0, 8, 16, 24, 152, 1392, 1408]);
    let offsets = [offset_of!(Capture, rule), offset_of!(Capture, until)];
    assert_eq!((size_of::<Capture>(), offsets), (16, [0, 8]));
    let offsets = [
        offset_of!(TypeSet, service),
        offset_of!(TypeSet, types),
        offset_of!(TypeSet, below_kind),
        offset_of!(TypeSet, tail),
        offset_of!(TypeSet, others),
        offset_of!(TypeSet, below),
    ];
    assert_eq!((size_of::<TypeSet>(), offsets), (16, [0, 2, 3, 4, 8, 12]));
    let kinds = [TypeSet::BELOW_USER_SPACE, TypeSet::BELOW_DENIED, TypeSet::BELOW_WILDCARD];
    assert_eq!(kinds, [0, 1, 2]);
    assert_eq!((size_of::<TypeSlot>(), offset_of!(TypeSlot, qtype), offset_of!(TypeSlot, rrset)), (8, 0, 4));
    assert_eq!((size_of::<Rrset>(), offset_of!(Rrset, word), offset_of!(Rrset, cursor)), (16, 0, 8));
    let words = [RingWord::single(3), RingWord::ring(3, 2, false), RingWord::ring(3, CLIENT_TURNS, true)];
    assert_eq!(words.map(|word| word.0), [0x1_0001_0000_0003, 0x2_0002_0000_0003, 0x3_0400_0000_0003]);
    let offsets = [
        offset_of!(AnswerHead, len),
        offset_of!(AnswerHead, sum),
        offset_of!(AnswerHead, flags),
        offset_of!(AnswerHead, counts),
        offset_of!(AnswerHead, ancount),
        offset_of!(AnswerHead, nscount),
        offset_of!(AnswerHead, arcount),
        offset_of!(AnswerHead, verdict),
    ];
    assert_eq!((size_of::<AnswerHead>(), offsets), (16, [0, 2, 4, 6, 8, 10, 12, 14]));

    let offsets = [
        offset_of!(Settings, epoch),
        offset_of!(Settings, generation),
        offset_of!(Settings, cookie_secret),
        offset_of!(Settings, features),
        offset_of!(Settings, local_lens),
        offset_of!(Settings, local4),
        offset_of!(Settings, local6),
        offset_of!(Settings, quiet_lens),
        offset_of!(Settings, quiet),
    ];
    assert_eq!((size_of::<Settings>(), offsets), (1240, [0, 8, 16, 32, 40, 48, 80, 208, 216]));
    assert_eq!((size_of::<QuietPrefix>(), offset_of!(QuietPrefix, mask)), (32, 16));
    assert_eq!([Settings::TRANSPARENT, Settings::COOKIES, Settings::CLIENT_SUBNET], [1, 2, 4]);
    let offsets = [
        offset_of!(ServiceCount, queries),
        offset_of!(ServiceCount, queries_v6),
        offset_of!(ServiceCount, quiet),
        offset_of!(ServiceCount, limited),
        offset_of!(ServiceCount, answers),
    ];
    assert_eq!((size_of::<ServiceCount>(), offsets), (96, [0, 8, 16, 24, 32]));
    let offsets = [
        offset_of!(Guard, features),
        offset_of!(Guard, secret),
        offset_of!(Guard, client),
        offset_of!(Guard, service),
        offset_of!(Guard, total),
        offset_of!(Guard, mask_v4),
        offset_of!(Guard, mask_v6),
        offset_of!(Guard, slip),
        offset_of!(Guard, amplification),
        offset_of!(Guard, stale_ns),
        offset_of!(Guard, stale_ttl),
        offset_of!(Guard, sample_mask),
        offset_of!(Guard, cost_mask),
    ];
    assert_eq!((size_of::<Guard>(), offsets), (128, [0, 8, 16, 32, 48, 64, 72, 80, 88, 96, 104, 112, 120]));
    let features = [Guard::LIMITS, Guard::LISTS, Guard::DENY_DROPS, Guard::STALE_PASSES, Guard::STALE_SHORTENS];
    assert_eq!((features, Guard::SAMPLES, Guard::COSTS), ([1, 2, 4, 8, 16], 32, 64));
    let offsets = [offset_of!(CostCount, started), offset_of!(CostCount, sum_ns), offset_of!(CostCount, buckets)];
    assert_eq!((size_of::<CostCount>(), offsets, COST_BUCKETS), (272, [0, 8, 16], 32));
    assert_eq!((size_of::<BucketSet>(), BUCKET_SETS, offset_of!(Bucket, full_at)), (64, 1 << 14, 8));
    assert_eq!((size_of::<ListKey>(), offset_of!(ListKey, address), LIST_ALLOW, LIST_DENY), (20, 4, 1, 2));
    assert_eq!([SLIPPED_AT, UNPROVEN_AT, REFUSED_AT], [16, 32, 48]);
    assert_eq!((size_of::<ConnectionKey>(), size_of::<Connection>()), (24, 16));
    let offsets = [offset_of!(FlowCount, connections), offset_of!(FlowCount, quiet_to)];
    assert_eq!((size_of::<FlowCount>(), offsets), (48, [32, 40]));
}

/// One line that says why, whatever the verifier writes of its way; needs root.
#[test]
fn a_program_that_the_verifier_refuses_is_one_clear_error() {
    // SAFETY: a plain call.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIPPED (needs root): a_program_that_the_verifier_refuses_is_one_clear_error");
        return;
    }
    // The program that passes everything ends with its first instruction, so that the second is never reached.
    const SET_RESULT: [u8; 8] = [0xb7, 0, 0, 0, 2, 0, 0, 0];
    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
    let pass = [SET_RESULT, EXIT].concat();
    let mut bytes = OBJECT.to_vec();
    let found: Vec<usize> = (0..bytes.len() - pass.len()).filter(|at| bytes[*at..].starts_with(&pass)).collect();
    assert!(!found.is_empty(), "the program's two instructions");
    for at in found {
        bytes[at..at + EXIT.len()].copy_from_slice(&EXIT);
    }
    let mut loader = EbpfLoader::new();
    for shape in &shapes(&Sizes { pool_bytes: 0, cursors: 1, services: 1, flows: 1, connections: 1, lists: 1, top: 1 })
    {
        loader.map_max_entries(shape.name, shape.entries);
    }
    let mut object = loader.load(&bytes).unwrap();
    let error = xdp(&mut object, object::PASS).map(drop).unwrap_err();
    let said = error.to_string();
    assert_eq!(error.label(), "rejected");
    assert!(
        said.contains("selvedge_pass") && said.ends_with(": unreachable insn 1") && said.lines().count() == 1,
        "{said}"
    );
}
