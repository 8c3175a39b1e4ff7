//! A TCP proxy that can be cut: the network between two regions.

use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// One direction of reach: a reader's way to a server.
pub struct Link {
    port: u16,
    cut: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Link {
    /// Listens on `port` and passes to `target`.
    pub async fn open(port: u16, target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (cut, state) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, target, state));
        Self { port, cut, _tasks: tasks }
    }

    /// Drops what is connected and refuses what comes.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Lets traffic pass again.
    pub fn heal(&self) {
        self.cut.send_replace(false);
    }

    /// Whether it is cut.
    pub fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

async fn serve(listener: TcpListener, target: u16, state: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted && !*state.borrow() {
                    connections.spawn(pass(stream, target, state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass(mut near: TcpStream, target: u16, mut state: watch::Receiver<bool>) {
    let connect = TcpStream::connect(("127.0.0.1", target));
    let Ok(Ok(mut far)) = tokio::time::timeout(Duration::from_secs(5), connect).await else {
        return;
    };
    // Without it the proxy itself would add to the measured lag.
    if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
        return;
    }
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = state.wait_for(|cut| *cut) => {}
    }
}
