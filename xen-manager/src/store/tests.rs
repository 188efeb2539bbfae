//! The client against servers that misbehave. What a good one does is tested with the real store (`tests/store.rs`).
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::*;

/// A request as a server sees it.
struct Asked {
    kind: u32,
    id: u32,
    payload: Vec<u8>,
}

async fn asked(stream: &mut UnixStream) -> Option<Asked> {
    let mut header = [0; wire::HEADER];
    stream.read_exact(&mut header).await.ok()?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let mut payload = vec![0; word(12) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some(Asked { kind: word(0), id: word(4), payload })
}

fn message(kind: u32, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = wire::encode(Request::Read, id, 0, payload);
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes
}

async fn ok(stream: &mut UnixStream) -> Asked {
    let asked = asked(stream).await.unwrap();
    stream.write_all(&message(asked.kind, asked.id, b"OK\0")).await.unwrap();
    asked
}

/// Runs a client beside a server.
fn against<S, C>(
    server: impl FnOnce(UnixListener) -> S,
    client: impl FnOnce(Store) -> C,
    deadline: Duration,
) -> C::Output
where
    S: Future<Output = ()> + Send + 'static,
    C: Future,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let server = tokio::spawn(server(UnixListener::bind(&socket).unwrap()));
        let result = client(Store::new(socket, deadline)).await;
        server.abort();
        result
    })
}

const LONG: Duration = Duration::from_secs(60);

/// Answers one request with these bytes, whatever it is, where `ID` is the request's number.
fn answer_with(bytes: impl Fn(u32) -> Vec<u8> + Send + 'static) -> StoreError {
    against(
        |listener| async move {
            loop {
                let mut stream = listener.accept().await.unwrap().0;
                let asked = asked(&mut stream).await.unwrap();
                stream.write_all(&bytes(asked.id)).await.unwrap();
            }
        },
        |store| async move { store.read("/x").await.unwrap_err() },
        LONG,
    )
}

#[test]
fn answers_that_are_none_end_the_connection() {
    // Another request's number, another request's type, an endless length, half a message and the end.
    assert_eq!(answer_with(|id| message(2, id + 1, b"x")).label(), "lost");
    let error = answer_with(|id| message(1, id, b"x\0"));
    assert!(matches!(error, StoreError::Nonsense { source: Nonsense::Unasked, .. }), "{error}");
    assert_eq!(answer_with(|_| vec![0xff; 64]).label(), "lost");
    assert_eq!(answer_with(|id| message(2, id, b"cut off")[..18].to_vec()).label(), "lost");
    assert_eq!(answer_with(|_| Vec::new()).label(), "lost");
    assert!(answer_with(|id| message(16, id, b"ENOENT\0")).is_no_entry());
    let error = answer_with(|id| message(16, id, b"EWHATEVER\0"));
    assert_eq!(error.to_string(), "cannot read /x: EWHATEVER");
}

#[test]
fn after_a_lost_connection_there_is_another() {
    against(
        |listener| async move {
            // The first connection ends in the middle, the second one works.
            drop(asked(&mut listener.accept().await.unwrap().0).await);
            let mut stream = listener.accept().await.unwrap().0;
            while let Some(asked) = asked(&mut stream).await {
                stream.write_all(&message(asked.kind, asked.id, b"value")).await.unwrap();
            }
        },
        |store| async move {
            assert_eq!(store.read("/x").await.unwrap_err().label(), "lost");
            assert_eq!(store.read("/x").await.unwrap(), b"value");
            assert_eq!(*store.connection().borrow(), 2);
        },
        LONG,
    );
}

#[test]
fn a_watch_outlives_its_connection() {
    against(
        |listener| async move {
            for _ in 0..3 {
                let mut stream = listener.accept().await.unwrap().0;
                let asked = ok(&mut stream).await;
                assert_eq!(asked.kind, Request::Watch as u32);
                let token = wire::texts(&asked.payload).unwrap().pop().unwrap();
                stream.write_all(&message(15, 0, &wire::join(&["/x", &token]))).await.unwrap();
            }
            std::future::pending().await
        },
        |store| async move {
            let mut watch = store.watch("/x").unwrap();
            for _ in 0..3 {
                watch.changed().await;
            }
        },
        LONG,
    );
}

/// A store that is killed takes connections until its last descriptor is closed; that it is back must not be told of them.
#[test]
fn a_connection_without_an_answer_is_none() {
    against(
        |listener| async move {
            drop(ok(&mut listener.accept().await.unwrap().0).await);
            for _ in 0..3 {
                drop(asked(&mut listener.accept().await.unwrap().0).await);
            }
            let mut stream = listener.accept().await.unwrap().0;
            ok(&mut stream).await;
            std::future::pending().await
        },
        |store| async move {
            let mut connection = store.connection();
            let _watch = store.watch("/x").unwrap();
            let mut seen = Vec::new();
            while seen.last() != Some(&5) {
                connection.changed().await.unwrap();
                seen.push(*connection.borrow_and_update());
            }
            // Two that follow each other at once may be seen as one.
            seen.retain(|&number| number != 0 && number != 1);
            assert_eq!(seen, [5]);
        },
        LONG,
    );
}

#[test]
fn a_transaction_ends_with_its_connection() {
    against(
        |listener| async move {
            let mut stream = listener.accept().await.unwrap().0;
            let begun = asked(&mut stream).await.unwrap();
            stream.write_all(&message(begun.kind, begun.id, b"77\0")).await.unwrap();
            asked(&mut stream).await;
            drop(stream);
            // Nothing of the transaction may come on the next one: all that is asked is answered there.
            let mut stream = listener.accept().await.unwrap().0;
            while let Some(asked) = asked(&mut stream).await {
                assert_eq!(asked.kind, Request::Read as u32);
                stream.write_all(&message(asked.kind, asked.id, b"value")).await.unwrap();
            }
        },
        |store| async move {
            let transaction = store.begin().await.unwrap();
            assert_eq!(transaction.write("/x", b"1").await.unwrap_err().label(), "lost");
            assert_eq!(store.read("/x").await.unwrap(), b"value");
            assert_eq!(transaction.write("/x", b"2").await.unwrap_err().label(), "lost");
            assert_eq!(transaction.commit().await.unwrap_err().label(), "lost");
            assert_eq!(store.read("/x").await.unwrap(), b"value");
        },
        LONG,
    );
}

#[test]
fn a_store_that_is_silent_or_absent_is_told() {
    let silent = |listener: UnixListener| async move {
        let _held = listener.accept().await;
        std::future::pending().await
    };
    let error = against(silent, |store| async move { store.read("/x").await.unwrap_err() }, Duration::from_millis(20));
    assert_eq!(error.label(), "deadline");
    let absent = |listener: UnixListener| async move { drop(listener) };
    let error = against(
        absent,
        |store| async move {
            tokio::task::yield_now().await;
            store.read("/x").await.unwrap_err()
        },
        LONG,
    );
    assert!(error.is_unavailable() && error.to_string().starts_with("no XenStore at /"), "{error}");
}

/// Answers requests for names with one part after another.
fn list_of(parts: &[&[u8]]) -> Result<Vec<String>> {
    let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
    against(
        |listener| async move {
            let mut stream = listener.accept().await.unwrap().0;
            let mut left = parts.iter().cycle();
            while let Some(asked) = asked(&mut stream).await {
                let answer = if asked.kind == Request::Directory as u32 {
                    message(16, asked.id, b"E2BIG\0")
                } else {
                    message(asked.kind, asked.id, left.next().unwrap())
                };
                stream.write_all(&answer).await.unwrap();
            }
        },
        |store| async move { store.list("/x").await },
        LONG,
    )
}

#[test]
fn names_in_parts_are_put_together_or_refused() {
    assert_eq!(list_of(&[b"7\0a\0b\0", b"7\0c\0\0"]).unwrap(), ["a", "b", "c"]);
    assert_eq!(list_of(&[b"7\0\0"]).unwrap(), [""; 0]);
    // The entry changes once, and then always.
    assert_eq!(list_of(&[b"7\0a\0", b"8\0x\0\0", b"8\0b\0", b"8\0c\0\0"]).unwrap(), ["b", "c"]);
    assert_eq!(list_of(&[b"7\0a\0", b"8\0a\0"]).unwrap_err().label(), "contended");
    for parts in [&[b"7".as_slice()], &[b"7\0a".as_slice()], &[b"7\0".as_slice()], &[b"".as_slice()]] {
        assert_eq!(list_of(parts).unwrap_err().label(), "nonsense", "{parts:?}");
    }
    // One that never comes to an end.
    let mut endless = vec![b'x'; wire::MOST];
    (endless[1], endless[wire::MOST - 1]) = (0, 0);
    let error = list_of(&[&endless]).unwrap_err();
    assert!(matches!(error, StoreError::Nonsense { source: Nonsense::Length(_), .. }), "{error}");
}

#[test]
fn what_is_no_path_is_not_sent() {
    let refuse = |listener: UnixListener| async move {
        listener.accept().await.unwrap();
        panic!("something was sent");
    };
    against(
        refuse,
        |store| async move {
            for path in ["", "a//b", "/a/", "/a b", "/a\0b", "/ä", &"x".repeat(MAX_PATH + 1)] {
                assert_eq!(store.read(path).await.unwrap_err().label(), "path", "{path}");
            }
            assert_eq!(store.write("/x", &[0; 4094]).await.unwrap_err().label(), "too_long");
        },
        LONG,
    );
}

#[test]
fn random_bytes_from_the_server_neither_hang_nor_break_the_client() {
    let seeds: Vec<u64> = (1..200).collect();
    for seed in seeds {
        let error = answer_with(move |id| {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut bytes: Vec<u8> = (0..seed % 64)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_le_bytes()[0]
                })
                .collect();
            // Half of them look like an answer to what was asked.
            if seed % 2 == 0 && bytes.len() >= 8 {
                bytes[..4].copy_from_slice(&(if seed % 4 == 0 { 16u32 } else { 1 }).to_le_bytes());
                bytes[4..8].copy_from_slice(&id.to_le_bytes());
                if bytes.len() >= 16 {
                    let length = u32::try_from(bytes.len() - 16).unwrap();
                    bytes[12..16].copy_from_slice(&length.to_le_bytes());
                }
            }
            bytes
        });
        assert!(matches!(error.label(), "lost" | "nonsense"), "seed {seed}: {error}");
    }
}
