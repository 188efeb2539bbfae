//! The tiny request that tells whether an instance serves: HTTP through the address that is, or will be,
//! published. A process that exists is not health.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::model::AddressPair;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The instance's addresses; each has to answer.
    pub addresses: AddressPair,
    /// TCP port.
    pub port: u16,
    /// Path of the request.
    pub path: String,
    /// Longest wait for the status line.
    pub timeout: Duration,
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No answer in time.
    #[error("{0}: no answer within {1:?}")]
    Late(SocketAddr, Duration),
    /// No connection.
    #[error("{0}: {1}")]
    Connect(SocketAddr, std::io::Error),
    /// Not HTTP, or cut off.
    #[error("{0}: {1}")]
    Http(SocketAddr, hyper::Error),
    /// The path cannot be asked for.
    #[error("{0}: {1}")]
    Request(SocketAddr, hyper::http::Error),
    /// Answered, but not well.
    #[error("{0}: HTTP status {1}")]
    Status(SocketAddr, StatusCode),
}

impl Probe {
    /// Asks every address once, all at the same time; the time taken by the slowest, or the first failure.
    ///
    /// # Errors
    /// [`ProbeError`] of the first address that did not answer with a status below 400.
    pub async fn ask(&self) -> Result<Duration, ProbeError> {
        let start = Instant::now();
        let each = self.addresses.iter().map(async |address| {
            let target = SocketAddr::new(address, self.port);
            match timeout(self.timeout, ask(target, &self.path)).await {
                Ok(result) => result,
                Err(_) => Err(ProbeError::Late(target, self.timeout)),
            }
        });
        try_join_all(each).await?;
        Ok(start.elapsed())
    }
}

async fn ask(target: SocketAddr, path: &str) -> Result<(), ProbeError> {
    let stream = TcpStream::connect(target).await.map_err(|e| ProbeError::Connect(target, e))?;
    let http = |e| ProbeError::Http(target, e);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let request = Request::get(path)
        .header(hyper::header::HOST, target.to_string())
        .header(hyper::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| ProbeError::Request(target, e))?;
    // The connection is driven beside the request and dropped with it: the body is of no interest.
    let response = sender.send_request(request);
    tokio::pin!(connection, response);
    let response = tokio::select! {
        answered = &mut response => answered,
        // A server that closes ends the connection in the same moment as it gives the response.
        ended = &mut connection => match ended {
            Ok(()) => response.await,
            Err(error) => Err(error),
        },
    };
    let response = response.map_err(http)?;
    match response.status() {
        status if status.as_u16() < 400 => Ok(()),
        status => Err(ProbeError::Status(target, status)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives this response to each connection and closes; `None` says nothing at all.
    async fn server(response: Option<&'static str>) -> Probe {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                match response {
                    Some(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                    None => std::future::pending().await,
                }
            }
        });
        let addresses = AddressPair { v4: Some(Ipv4Addr::LOCALHOST), v6: None };
        Probe { addresses, port, path: "/healthz".to_owned(), timeout: Duration::from_millis(300) }
    }

    #[tokio::test]
    async fn a_server_that_closes_with_its_answer_is_ready_every_time() {
        let probe = server(Some("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")).await;
        for _ in 0..200 {
            probe.ask().await.unwrap();
        }
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        let refused = server(Some("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")).await.ask().await;
        assert!(matches!(refused, Err(ProbeError::Status(_, StatusCode::SERVICE_UNAVAILABLE))), "{refused:?}");
        let silent = server(None).await.ask().await;
        assert!(matches!(silent, Err(ProbeError::Late(..))), "{silent:?}");
        let noise = server(Some("SSH-2.0-x\r\n")).await.ask().await;
        assert!(matches!(noise, Err(ProbeError::Http(..))), "{noise:?}");
        let mut nobody = server(None).await;
        nobody.port = 1;
        let nobody = nobody.ask().await;
        assert!(matches!(nobody, Err(ProbeError::Connect(..))), "{nobody:?}");
    }
}
