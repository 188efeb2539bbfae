//! A proxy that cuts connections after a random number of bytes, the same ones for the same seed.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::error::{LabError, Result};

/// Passes bytes on at a time; a cut falls between two pieces or inside one.
const PIECE: usize = 16 << 10;

/// The proxy; it runs in the caller's runtime as long as that does.
#[derive(Debug)]
pub struct Cutter {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    state: Mutex<u64>,
    after: Range<u64>,
    left: AtomicU32,
    cut: AtomicU32,
}

impl Cutter {
    /// Listens before `upstream` and cuts connections, each after a number of bytes of both directions that is drawn
    /// from `after`; those that come after `most` cuts live on.
    ///
    /// # Errors
    /// [`LabError::System`].
    pub async fn start(upstream: SocketAddr, seed: u64, most: u32, after: Range<u64>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(LabError::system("listen", "proxy"))?;
        let address = listener.local_addr().map_err(LabError::system("listen", "proxy"))?;
        let shared = Arc::new(Shared {
            upstream,
            state: Mutex::new(seed | 1),
            after,
            left: AtomicU32::new(most),
            cut: AtomicU32::new(0),
        });
        let passing = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let passing = Arc::clone(&passing);
                tokio::spawn(async move { passing.pass(client).await });
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that it has cut.
    #[must_use]
    pub fn cuts(&self) -> u32 {
        self.shared.cut.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// xorshift: enough to spread cuts.
    fn draw(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        self.after.start + *state % (self.after.end - self.after.start)
    }

    async fn pass(&self, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.upstream).await else { return };
        let budget = AtomicU64::new(self.draw());
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        tokio::select! {
            () = self.one_way(client_in, server_out, &budget) => {}
            () = self.one_way(server_in, client_out, &budget) => {}
        }
    }

    /// Ends at the end of what comes, or with the cut. The other way ends with it.
    async fn one_way(
        &self,
        mut from: tokio::net::tcp::OwnedReadHalf,
        mut to: tokio::net::tcp::OwnedWriteHalf,
        budget: &AtomicU64,
    ) {
        let mut buffer = vec![0; PIECE];
        loop {
            let read = match from.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => read,
            };
            let left = budget.load(Ordering::Relaxed);
            let may = usize::try_from(left).unwrap_or(usize::MAX).min(read);
            let cut = may < read && self.cut();
            let pass = if cut { may } else { read };
            if to.write_all(&buffer[..pass]).await.is_err() || cut {
                return;
            }
            budget.store(left.saturating_sub(read as u64), Ordering::Relaxed);
        }
    }

    fn cut(&self) -> bool {
        let cut = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        self.cut.fetch_add(u32::from(cut), Ordering::Relaxed);
        cut
    }
}
