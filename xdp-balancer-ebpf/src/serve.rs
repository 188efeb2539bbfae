//! The way of a frame through the program: from headers to its answer.

use aya_ebpf::programs::XdpContext;
use xdp_balancer_common::Verdict;

use crate::family::{Family, V4, V6};
use crate::packet::Frame;
use crate::{age, answer, guard, lookup, parse, question};

/// Turns a query into its answer and says which verdict that is, as an index; or says why the frame is left as it is.
/// With `SAMPLES` a query may be handed over to the program that captures.
#[inline(always)]
pub fn serve<const SAMPLES: bool>(ctx: &XdpContext) -> Result<u32, Verdict> {
    let network = parse::network(Frame::of(ctx))?;
    if network.v6 { family::<V6, SAMPLES>(ctx, network.ip) } else { family::<V4, SAMPLES>(ctx, network.ip) }
}

#[inline(always)]
fn family<F: Family, const SAMPLES: bool>(ctx: &XdpContext, link: usize) -> Result<u32, Verdict> {
    let frame = Frame::of(ctx);
    let message = parse::message::<F, SAMPLES>(ctx, frame, link)?;
    guard::enter::<F>(ctx, &message)?;
    let question = question::read::<F>(ctx, frame, &message)?;
    let found = lookup::find::<F>(ctx, &message, &question)?;
    answer::write::<F>(ctx, &message, &question, &found)?;
    let verdict = found.answered();
    Ok(if age::aged(ctx, message.pool) { Verdict::Aged as u32 } else { verdict })
}
