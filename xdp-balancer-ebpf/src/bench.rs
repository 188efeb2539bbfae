//! Timing of answers, built with the feature `bench` only. A test run with many repetitions hands each
//! run what the one before left; here each run ends by turning its reply back into the query. The same
//! without the serving in between is what has to be subtracted.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_TX};
use aya_ebpf::helpers::bpf_xdp_adjust_tail;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

use crate::packet::{Frame, load, opaque, store};

/// Bytes that an answer changes: all headers.
const SAVED: usize = 80;

/// Serves and restores.
#[xdp]
pub fn bench_answer(ctx: XdpContext) -> u32 {
    restored(&ctx, |ctx| {
        let _ = crate::entry::serve(ctx);
    })
}

/// Restores only.
#[xdp]
pub fn bench_restore(ctx: XdpContext) -> u32 {
    restored(&ctx, |ctx| {
        let len = Frame::of(ctx).len();
        // SAFETY: the context is the program's own.
        unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), opaque(len) as i32 - len as i32) };
    })
}

/// Parses ports, exchanges addresses and sends back: what any reply costs.
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

#[inline(always)]
fn restored(ctx: &XdpContext, run: impl FnOnce(&XdpContext)) -> u32 {
    let frame = Frame::of(ctx);
    let len = opaque(frame.len());
    let mut saved = [0_u64; SAVED / 8];
    if frame.data + SAVED > frame.end {
        return XDP_PASS;
    }
    let mut i = 0;
    while i < SAVED / 8 {
        // SAFETY: checked above.
        saved[i] = unsafe { load::<u64>(frame.data + i * 8) };
        i += 1;
    }
    run(ctx);
    let now = opaque(Frame::of(ctx).len());
    // SAFETY: the context is the program's own.
    unsafe { bpf_xdp_adjust_tail(ctx.as_ptr().cast(), len as i32 - now as i32) };
    let frame = Frame { data: opaque(ctx.data()), end: ctx.data_end() };
    if frame.data + SAVED > frame.end {
        return XDP_PASS;
    }
    i = 0;
    while i < SAVED / 8 {
        // SAFETY: checked above.
        unsafe { store(frame.data + i * 8, saved[i]) };
        i += 1;
    }
    XDP_TX
}
