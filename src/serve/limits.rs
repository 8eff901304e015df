//! What one listener grants: how many connections, how long each may take for what, how large a head is.

use std::time::Duration;

/// Limits of one listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections, tunnels included. Above it probes are still answered, and all else with a 503,
    /// each on a connection that ends with it; of those there are a few more (`seats::SPARE`).
    pub connections: u32,
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From there to the first request's complete head.
    pub header_time: Duration,
    /// HTTP/1: from an answer to the next request's complete head; hyper has one timer for both.
    pub keep: Duration,
    /// HTTP/2: between one and two of it without any stream.
    pub idle: Duration,
    /// Request line and headers, in bytes; above it the answer is 431.
    pub header_bytes: usize,
    /// HTTP/1: headers of one request; above it the answer is 431.
    pub headers: usize,
    /// Requests and WebSockets at once on one HTTP/2 connection.
    pub streams: u32,
    /// Between two pings that find out whether an HTTP/2 client is still there; it has as long to answer.
    pub ping: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // At 30–40 KiB of TLS and HTTP buffers each, 80 MiB in the worst case, without what HTTP/2
            // clients sent and nobody has read (`STREAM_WINDOW`); spare ones take 5.
            connections: 2048,
            // Ten round trips on the worst mobile network.
            handshake: Duration::from_secs(10),
            // The head of a request fits in a few packets; who needs longer holds a place for nothing.
            header_time: Duration::from_secs(15),
            // HTTP/1 has no word for going away: a request that meets a close is lost, and a write is not
            // sent again. So those in front have to close first: most after 60 s, Traefik after 90,
            // Google's balancers after 600; Envoy, with its hour, has to be told. A seat is held no
            // worse than by who asks something now and then.
            keep: Duration::from_secs(620),
            // HTTP/2 has GOAWAY, which loses nothing.
            idle: Duration::from_secs(90),
            // Kubernetes tokens with many groups reach 20 kB, and proxies add cookies.
            header_bytes: 64 * 1024,
            // Each group of somebody impersonated is one, and some companies' people are in a hundred.
            headers: 256,
            // As the API server; a dashboard's watches share one connection.
            streams: 250,
            ping: Duration::from_secs(30),
        }
    }
}
