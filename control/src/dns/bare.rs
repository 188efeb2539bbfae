//! Replies without records, and what can be told of a client by its query alone.

use super::context::Context;
use super::edns::Options;
use super::query::Query;
use super::reply::{FLAG_TC, Reply};

/// What is said instead of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bare {
    /// Ask again over TCP.
    Truncated,
    /// REFUSED.
    Refused,
}

const REFUSED: u16 = 5;

fn options<'q>(query: &Query<'q>, context: &Context<'_>) -> Options<'q> {
    let opt = query.rest.as_ref().and_then(|rest| rest.opt);
    opt.and_then(|opt| Options::read(opt.options, context).ok()).unwrap_or_default()
}

/// The reply; `None` where none may be sent. A cookie is answered, so that the client can prove its address next time.
pub(super) fn reply(message: &[u8], context: &Context<'_>, bare: Bare) -> Option<Vec<u8>> {
    let query = Query::read(message)?;
    let mut reply = Reply::new(&query, context.transport);
    match bare {
        Bare::Truncated => reply.flags |= FLAG_TC,
        Bare::Refused => reply.set_rcode(REFUSED),
    }
    reply.set_options(options(&query, context).reply(context, false));
    Some(reply.finish())
}

/// Whether a query bears a cookie that this server gave its sender, so that the sender is who it says.
pub(super) fn is_proven(message: &[u8], context: &Context<'_>) -> bool {
    let query = Query::read(message);
    query.and_then(|query| options(&query, context).cookie).is_some_and(|cookie| cookie.is_ours(context))
}
