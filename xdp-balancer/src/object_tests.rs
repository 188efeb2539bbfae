//! The object as it was linked, asked without root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::mem::offset_of;

use aya_obj::generated::bpf_map_type;
use xdp_balancer_common::{
    AnswerHead, CLIENT_TURNS, FlowCount, GRAIN, LAYOUT, LINE_BYTES, LINES, NameEntry, PILOT_LINES, POOL_GRAINS, Pool,
    RingWord, Rrset, ServiceCount, Settings, Slot, TypeSet, TypeSlot, Verdict, pilot_of, slot_of,
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
    let names = parsed.maps[object::TABLE].inner().unwrap();
    let found = (names.map_type(), names.key_size() as usize, names.value_size() as usize, names.map_flags());
    assert_eq!(found, (bpf_map_type::BPF_MAP_TYPE_ARRAY as u32, 4, LINE_BYTES, 1 << 10));
    assert_eq!(names.max_entries(), LINES);
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
    assert_eq!(LAYOUT, 2);
    assert_eq!(Verdict::ALL.len(), 27);
    assert_eq!((LINE_BYTES, PILOT_LINES, LINES), (64, 1024, 1024 + 131_072));
    assert_eq!((size_of::<Slot>(), align_of::<Slot>()), (LINE_BYTES, 8));
    assert_eq!([offset_of!(Slot, set), offset_of!(Slot, tail), offset_of!(Slot, text)], [0, 4, 8]);
    let entry = NameEntry::new(b"\x03wWw\0").unwrap();
    assert_eq!(entry.head(), [u64::from_ne_bytes(*b"\x03www\0\0\0\0"), 0, 0, 0, 0, 0, 0]);
    let hash = entry.hash(7);
    assert_eq!((hash, pilot_of(hash), slot_of(hash, 3)), (0xe321_6443_92e8_076f, 1903, 35_327));

    assert_eq!((GRAIN, POOL_GRAINS, size_of::<Pool>()), (16, 1 << 21, (16 << 21) + 8192));
    let offsets = [
        offset_of!(TypeSet, service),
        offset_of!(TypeSet, types),
        offset_of!(TypeSet, below_kind),
        offset_of!(TypeSet, others),
        offset_of!(TypeSet, below),
    ];
    assert_eq!((size_of::<TypeSet>(), offsets), (16, [0, 4, 6, 8, 12]));
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
        offset_of!(AnswerHead, ancount),
        offset_of!(AnswerHead, nscount),
        offset_of!(AnswerHead, arcount),
    ];
    assert_eq!((size_of::<AnswerHead>(), offsets), (16, [0, 2, 4, 6, 8, 10]));

    let offsets = [
        offset_of!(Settings, secret),
        offset_of!(Settings, epoch),
        offset_of!(Settings, generation),
        offset_of!(Settings, cookie_secret),
        offset_of!(Settings, features),
        offset_of!(Settings, local_lens),
        offset_of!(Settings, local4),
        offset_of!(Settings, local6),
    ];
    assert_eq!((size_of::<Settings>(), offsets), (216, [0, 8, 16, 24, 40, 48, 56, 88]));
    assert_eq!([Settings::TRANSPARENT, Settings::COOKIES, Settings::CLIENT_SUBNET], [1, 2, 4]);
    assert_eq!((size_of::<ServiceCount>(), offset_of!(ServiceCount, answered)), (16, 8));
    assert_eq!((size_of::<FlowCount>(), offset_of!(FlowCount, connections)), (40, 32));
}
