//! The maps. Sizes are defaults that the loader may override; names are those of
//! [`xdp_balancer_common::object`], which user space looks them up by.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, LruHashMap, PerCpuArray, PerCpuHashMap, ProgramArray};
use aya_ebpf::macros::btf_map;
use xdp_balancer_common::object::TAIL_SLOTS;
use xdp_balancer_common::{Connection, ConnectionKey, FlowCount, Pool, ServiceCount, Verdict};

/// All that the program reads.
#[btf_map]
pub static POOL: Array<Pool, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Round-robin position of each RRset on this CPU.
#[btf_map]
pub static CURSORS: PerCpuArray<u32, 8192> = PerCpuArray::new();

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

/// Open TCP connections of instances. Written when one is opened or closed only; where there is no room, those go that
/// have been left alone for longest.
#[btf_map]
pub static CONNECTIONS: LruHashMap<ConnectionKey, Connection, 65536> = LruHashMap::new();

/// Looked into by nobody: user space writes to it to wait for programs.
#[btf_map]
pub static FENCE: ArrayOfMaps<Array<u32, 1>, 1> = ArrayOfMaps::new();

/// Programs behind this one, each in its slot while it is on.
#[btf_map]
pub static TAILS: ProgramArray<{ TAIL_SLOTS as usize }> = ProgramArray::new();
