//! Any bytes at all.

use proptest::prelude::*;

use super::*;

/// Queries to start from: valid ones of every kind.
fn base() -> impl Strategy<Value = Vec<u8>> {
    let names = prop::sample::select(vec![
        "video.edge.test.",
        "VIDEO.edge.test.",
        "many.edge.test.",
        "idle.edge.test.",
        "b.c.inner.edge.test.",
        "nothing.edge.test.",
        "edge.test.",
        "www2.edge.test.",
        "any.toservice.edge.test.",
        "x.sub.edge.test.",
        "inner.edge.test.",
        ".",
    ]);
    let kinds = prop::sample::select(vec![1u16, 2, 6, 16, 28, 41, 65, 251, 252, 255, 0, 65535]);
    (names, kinds, any::<Option<u16>>()).prop_map(|(name, kind, payload)| {
        let message = query(name, RecordType::from(kind));
        bytes(&match payload {
            Some(payload) => with_edns(message, payload),
            None => message,
        })
    })
}

/// One to four bytes changed, and sometimes an end cut off or added.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let tail = prop::collection::vec(any::<u8>(), 0..24);
    (base(), changes, any::<prop::sample::Index>(), 0..4, tail).prop_map(|(mut query, changes, cut, how, tail)| {
        for (place, byte) in changes {
            let at = place.index(query.len());
            query[at] = byte;
        }
        match how {
            0 => query.truncate(cut.index(query.len())),
            1 => query.extend_from_slice(&tail),
            _ => {}
        }
        query
    })
}

/// What holds for every reply to any message.
fn check(query: &[u8], index: &Index, transport: Transport) -> Result<(), TestCaseError> {
    let response = respond(query, index, transport, Pick::Next);
    let must_be_silent = query.len() < 12 || query[2] & 0x80 != 0;
    prop_assert_eq!(response.bytes.is_none(), must_be_silent);
    prop_assert_eq!(response.outcome == Outcome::Dropped, must_be_silent);
    let Some(reply) = response.bytes else { return Ok(()) };

    prop_assert_eq!(&reply[..2], &query[..2], "id");
    prop_assert_eq!(reply[2] & 0xF9, (query[2] & 0x79) | 0x80, "QR, opcode, RD");
    prop_assert_eq!(reply[3] & 0xF0, 0, "RA, Z, AD, CD");
    let parsed = Message::from_vec(&reply);
    let parsed = parsed.map_err(|error| TestCaseError::fail(format!("{error}: {reply:02x?}")))?;
    if let [question] = parsed.queries.as_slice() {
        let len = question.name.len() + 4;
        prop_assert_eq!(&reply[12..12 + len], &query[12..12 + len], "question");
    }
    if transport == Transport::Udp {
        let most = parsed.edns.as_ref().map_or(512, |_| 1232);
        prop_assert!(reply.len() <= most, "{} bytes", reply.len());
    }
    // The lengths say no less and no more than there is: written again it is as long or shorter.
    prop_assert!(parsed.to_vec().unwrap().len() <= reply.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_survived(query in prop::collection::vec(any::<u8>(), 0..600), tcp in any::<bool>()) {
        let transport = Transport::ALL[usize::from(tcp)];
        check(&query, &index(), transport)?;
    }

    #[test]
    fn mutated_queries_get_replies_that_match(query in mutated(), tcp in any::<bool>()) {
        let transport = Transport::ALL[usize::from(tcp)];
        check(&query, &index(), transport)?;
        check(&query, &super::zone_data::with_records(), transport)?;
    }
}
