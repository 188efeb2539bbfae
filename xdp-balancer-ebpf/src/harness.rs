//! Times the programs of the other object as they are. A test run with many repetitions hands each run
//! the frame that the one before left; the harness in front puts length, place and bytes back and goes
//! on into the program under test by a tail call.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(target_arch = "bpf", allow(unstable_features, reason = "BPF inline assembly is unstable"))]

#[cfg(target_arch = "bpf")]
#[allow(dead_code, reason = "shared with the program, which uses all of it")]
mod packet;
#[cfg(target_arch = "bpf")]
mod runtime;

#[cfg(target_arch = "bpf")]
mod entry {
    use aya_ebpf::EbpfContext as _;
    use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS, XDP_TX};
    use aya_ebpf::btf_maps::Array;
    use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
    use aya_ebpf::macros::{btf_map, map, xdp};
    use aya_ebpf::maps::ProgramArray;
    use aya_ebpf::programs::XdpContext;
    use xdp_balancer_common::bench;

    use crate::packet::{Frame, load, opaque, store};

    #[btf_map]
    static FRAME: Array<bench::Frame, 1> = Array::new();

    #[btf_map]
    static STATE: Array<bench::State, 1> = Array::new();

    #[btf_map]
    static ORDER: Array<u32, { bench::SEQUENCE as usize }> = Array::new();

    #[map]
    static TARGET: ProgramArray = ProgramArray::with_max_entries(1, 0);

    /// Restores and goes on.
    #[xdp]
    pub fn bench_harness(ctx: XdpContext) -> u32 {
        run(&ctx)
    }

    /// A tail call wants both ends to be of one kind.
    #[xdp(frags)]
    pub fn bench_harness_frags(ctx: XdpContext) -> u32 {
        run(&ctx)
    }

    #[inline(always)]
    fn run(ctx: &XdpContext) -> u32 {
        if restore(ctx).is_some() {
            // Lets the stores above reach the cache, as those of a network card have: a load that they
            // still overlap in part waits for them, and would be charged to the program.
            // SAFETY: a plain helper.
            unsafe { bpf_ktime_get_ns() };
            // SAFETY: the program behind is one of ours.
            unsafe { TARGET.tail_call(ctx, 0) };
        }
        XDP_ABORTED
    }

    #[inline(always)]
    fn restore(ctx: &XdpContext) -> Option<()> {
        let wanted = FRAME.get(0)?;
        let state = STATE.get_ptr_mut(0)?;

        // An address becomes a number by way of memory.
        // SAFETY: a live map element; test runs of one harness do not overlap.
        let moved = unsafe {
            (&raw mut (*state).here).write_volatile(ctx.data() as u64);
            let here = (&raw const (*state).here).read_volatile();
            if (*state).start == 0 {
                (*state).start = here;
            }
            here.wrapping_sub((*state).start) as i32
        };
        // Also where nothing changes, here and below, so that a passing program costs the harness what an
        // answering one does.
        // SAFETY: the context is the program's own.
        if unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), -moved) } != 0 {
            return None;
        }
        let len = opaque(wanted.len as usize);
        let now = opaque(Frame::of(ctx).len());
        // SAFETY: the context is the program's own.
        if unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), len as i32 - now as i32) } != 0 {
            return None;
        }

        let frame = Frame::of(ctx);
        let mut to = frame.cursor(0);
        let from = wanted.bytes.as_ptr() as usize;
        let mut round = 0;
        while round < bench::FRAME_BYTES / 8 {
            if opaque(round * 8 + 8) > len {
                break;
            }
            let at = to.step::<8>().ok()?;
            // SAFETY: stepped over above; inside the stored frame.
            unsafe { store(at, load::<u64>(from + round * 8)) };
            round += 1;
        }
        // The last eight bytes once more, for what is no whole chunk.
        let rest = opaque(len.wrapping_sub(8));
        if rest > bench::FRAME_BYTES - 8 {
            return None;
        }
        let mut last = frame.cursor(rest);
        let at = last.step::<8>().ok()?;
        // SAFETY: stepped over above; inside the stored frame.
        unsafe { store(at, load::<u64>(from + rest)) };

        let letters_at = opaque(wanted.letters_at as usize);
        if letters_at != 0 {
            if letters_at > bench::FRAME_BYTES - 8 {
                return None;
            }
            // SAFETY: as above.
            let run = unsafe {
                (*state).runs += 1;
                (*state).runs as u32
            };
            let fraction = *ORDER.get(run & (bench::SEQUENCE - 1))?;
            let number = ((u64::from(fraction) * u64::from(wanted.names)) >> 32) as u32;
            let mut letters = frame.cursor(letters_at);
            let at = letters.step::<8>().ok()?;
            // SAFETY: stepped over above.
            unsafe { store(at, bench::letters(number)) };
        }
        Some(())
    }

    /// Parses ports, exchanges addresses and sends back: what any reply costs. Its frames need no
    /// restoring, they only turn round and round.
    #[xdp]
    pub fn bench_swap(ctx: XdpContext) -> u32 {
        let frame = Frame::of(&ctx);
        let mut cursor = frame.cursor(0);
        let Ok(at) = cursor.take::<42>() else { return XDP_PASS };
        // SAFETY: taken above.
        unsafe {
            if load::<u16>(at + 12) != 0x0800_u16.to_be() || load::<u8>(at + 23) != 17 || load::<u8>(at + 14) != 0x45 {
                return XDP_PASS;
            }
            let port = 53_u16.to_be();
            if load::<u16>(at + 34) != port && load::<u16>(at + 36) != port {
                return XDP_PASS;
            }
            let (to_high, to_low) = (load::<u32>(at), load::<u16>(at + 4));
            let (from_high, from_low) = (load::<u32>(at + 6), load::<u16>(at + 10));
            store(at, from_high);
            store(at + 4, from_low);
            store(at + 6, to_high);
            store(at + 10, to_low);
            let (source, target) = (load::<u32>(at + 26), load::<u32>(at + 30));
            store(at + 26, target);
            store(at + 30, source);
            store(at + 34, load::<u32>(at + 34).rotate_left(16));
        }
        XDP_TX
    }
}

/// Nothing to run outside the kernel.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
