//! Server cookies (RFC 7873): made, never demanded. A client that sends none or a wrong one is answered all the same,
//! so no cookie is verified; each reply has a fresh one.

use xdp_balancer_common::server_cookie;

use crate::pool::Base;

/// The time that goes into a cookie.
#[inline(always)]
pub fn now(pool: Base) -> u32 {
    pool.root().clock as u32
}

/// The hash of the server's cookie for a client's, its address, and a time with the family's bit below it.
/// Out of line, once for both families; so few words are what a function of this machine can be given.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn selvedge_cookie_hash(client: u64, high: u64, low: u64, time_and_v4: u64) -> u64 {
    let Ok(pool) = Base::get() else { return 0 };
    server_cookie(
        pool.root().settings.cookie_secret,
        client,
        (time_and_v4 >> 1) as u32,
        [high, low],
        time_and_v4 & 1 != 0,
    )[1]
}
