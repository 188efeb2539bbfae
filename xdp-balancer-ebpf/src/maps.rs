//! The maps. Sizes are defaults that the loader may override; names are those of
//! [`xdp_balancer_common::object`], which user space looks them up by.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, PerCpuArray, PerCpuHashMap};
use aya_ebpf::macros::btf_map;
use xdp_balancer_common::{
    Answer, BUCKETS, Bucket, FlowCount, NameUnit, RingWord, ServiceCount, Settings, TypeSet, Verdict,
};

/// One generation of names. Filled before it is put into [`TABLE`] and never written afterwards.
pub type Names = Array<Bucket, { BUCKETS as usize }, { BPF_F_MMAPABLE as usize }>;

/// Element 0 is the generation in force.
#[btf_map]
pub static TABLE: ArrayOfMaps<Names, 1> = ArrayOfMaps::new();

/// What the cells lead to. Not written while it can be reached.
#[btf_map]
pub static ENTRIES: Array<NameUnit, 16384, { BPF_F_MMAPABLE as usize }> = Array::new();

/// What the names hold. Not written while it can be reached.
#[btf_map]
pub static SETS: Array<TypeSet, 8192> = Array::new();

/// What each rrset id stands for now.
#[btf_map]
pub static RRSETS: Array<RingWord, 8192, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Rendered answers.
#[btf_map]
pub static ANSWERS: Array<Answer, 16384> = Array::new();

/// Round-robin position of each rrset id on this CPU.
#[btf_map]
pub static CURSORS: PerCpuArray<u32, 8192> = PerCpuArray::new();

/// The one [`Settings`].
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// Packets by verdict on this CPU.
#[btf_map]
pub static VERDICTS: PerCpuArray<u64, { Verdict::ALL.len() }> = PerCpuArray::new();

/// Queries by service on this CPU.
#[btf_map]
pub static SERVICES: PerCpuArray<ServiceCount, 4096> = PerCpuArray::new();

/// Packets by interface on this CPU. User space makes the entries, so that a late packet cannot
/// bring back one that was given up.
#[btf_map]
pub static FLOWS: PerCpuHashMap<u32, FlowCount, 1024> = PerCpuHashMap::new();
