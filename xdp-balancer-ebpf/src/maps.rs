//! The maps. Sizes are defaults that the loader may override; names are those of
//! [`xdp_balancer_common::object`], which user space looks them up by.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, ProgramArray};
use aya_ebpf::macros::btf_map;
use xdp_balancer_common::object::TAIL_SLOTS;
use xdp_balancer_common::{
    BUCKET_SETS, BucketSet, Connection, ConnectionKey, CostCount, FlowCount, NotedName, Pool, ServiceCount, Verdict,
};

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

/// What queries cost on this CPU.
#[btf_map]
pub static COSTS: PerCpuArray<CostCount, 1> = PerCpuArray::new();

/// Packets by interface on this CPU. User space makes the entries, so that a late packet cannot
/// bring back one that was given up.
#[btf_map]
pub static FLOWS: PerCpuHashMap<u32, FlowCount, 1024> = PerCpuHashMap::new();

/// Open TCP connections of instances. Written when one is opened or closed only; where there is no room, those go that
/// have been left alone for longest.
#[btf_map]
pub static CONNECTIONS: LruHashMap<ConnectionKey, Connection, 65536> = LruHashMap::new();

/// When the buckets of client prefixes will be full again.
#[btf_map]
pub static BUCKETS: Array<BucketSet, { BUCKET_SETS as usize }> = Array::new();

/// The same of everything, then of each service.
#[btf_map]
pub static CEILINGS: Array<u64, 4097> = Array::new();

/// Which clients are not limited, and which not answered.
#[btf_map]
pub static LISTS: LpmTrie<[u32; 4], u32, 16384> = LpmTrie::new();

/// Who asks most, of the queries that are noted. Who has not been noted for longest goes where there is no room.
#[btf_map]
pub static TOP_CLIENTS: LruHashMap<u64, u64, 4096> = LruHashMap::new();

/// What is asked for most, alike.
#[btf_map]
pub static TOP_NAMES: LruHashMap<NotedName, u64, 4096> = LruHashMap::new();

/// Looked into by nobody: user space writes to it to wait for programs.
#[btf_map]
pub static FENCE: ArrayOfMaps<Array<u32, 1>, 1> = ArrayOfMaps::new();

/// Programs behind this one, each in its slot while it is on.
#[btf_map]
pub static TAILS: ProgramArray<{ TAIL_SLOTS as usize }> = ProgramArray::new();
