//! A Pingora proxy that decides nothing: what all the rest is measured against.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use pingora::upstreams::peer::HttpPeer;

struct Bare(SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.0, false, String::new());
        peer.options.read_timeout = Some(Duration::from_secs(60));
        Ok(Box::new(peer))
    }
}

/// Serves for ever.
pub async fn serve(listen: SocketAddr, upstream: SocketAddr) {
    let mut service = http_proxy_service(&Arc::new(ServerConf::default()), Bare(upstream));
    service.add_tcp(&listen.to_string());
    let (_keep, shutdown) = tokio::sync::watch::channel(false);
    service.start_service(None, shutdown, 1).await;
}
