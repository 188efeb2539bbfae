//! The object as it was linked, asked without root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::mem::offset_of;

use aya_obj::generated::bpf_map_type;
use xdp_balancer_common::{
    Answer, BUCKETS, Bucket, Cell, FlowCount, LAYOUT, NameEntry, NameUnit, RingWord, ServiceCount, Settings, TypeSet,
    TypeSlot, Verdict,
};

use super::*;
use crate::maps::{Sizes, shapes};

/// Upper bound on the XDP program's instructions before the kernel's own rewriting.
const MAX_INSTRUCTIONS: usize = 3500;

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
    assert_eq!(found, (bpf_map_type::BPF_MAP_TYPE_ARRAY as u32, 4, size_of::<Bucket>(), 1 << 10));
    assert_eq!(names.max_entries(), BUCKETS);
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
    assert_eq!(LAYOUT, 1);
    assert_eq!(Verdict::ALL.len(), 23);
    assert_eq!((size_of::<NameUnit>(), align_of::<NameUnit>()), (32, 8));
    let unit = NameEntry::new(b"\x03wWw\0").unwrap().unit(0);
    assert_eq!(unit.0, [u64::from_ne_bytes(*b"\x03www\0\0\0\0"), 0, 0, 0]);
    let offsets = [offset_of!(TypeSet, service), offset_of!(TypeSet, types)];
    assert_eq!((size_of::<TypeSet>(), offsets), (72, [0, 8]));
    assert_eq!((size_of::<TypeSlot>(), offset_of!(TypeSlot, qtype), offset_of!(TypeSlot, rrset)), (8, 0, 4));
    assert_eq!((size_of::<Bucket>(), Cell::new(0x7777_7700_0000_0009, 2, 5).0), (32, 0x7777_7700_0050_0003));
    assert_eq!((size_of::<RingWord>(), RingWord::new(3, 2).0), (8, 0x2_0000_0003));
    assert_eq!(size_of::<Answer>(), 512);
    let offsets = [
        offset_of!(Answer, len),
        offset_of!(Answer, sum),
        offset_of!(Answer, flags),
        offset_of!(Answer, ancount),
        offset_of!(Answer, nscount),
        offset_of!(Answer, bytes),
    ];
    assert_eq!(offsets, [0, 2, 4, 6, 8, 16]);
    assert_eq!(size_of::<Settings>(), 192);
    let offsets = [
        offset_of!(Settings, secret),
        offset_of!(Settings, epoch),
        offset_of!(Settings, generation),
        offset_of!(Settings, local_lens),
        offset_of!(Settings, local4),
        offset_of!(Settings, local6),
    ];
    assert_eq!(offsets, [0, 8, 16, 24, 32, 64]);
    assert_eq!((size_of::<ServiceCount>(), offset_of!(ServiceCount, answered)), (16, 8));
    assert_eq!((size_of::<FlowCount>(), offset_of!(FlowCount, connections)), (40, 32));
}
