//! How often live answers are made anew and say that they live.
//!
//! What these times mean for rights and for the API server stands at each; who waits is `live::hub`.

use std::time::Duration;

/// How often what is done. A field of [`Streams`](super::hub::Streams), so that tests need not wait.
#[derive(Debug, Clone)]
pub struct Pace {
    /// At least so long between two evaluations of what the shared cache answers.
    pub shared: Duration,
    /// The same for what is read with the caller's credentials.
    pub live: Duration,
    /// The longest between two evaluations of what the cache answers. A right that was taken away
    /// is believed in for 10 s, so that a stream ends 15 s after it at the latest, or 10 s later
    /// where the API server was away meanwhile.
    pub check: Duration,
    /// The longest for details: each is a GET as the caller, which asks for the right by itself.
    pub reread: Duration,
    /// The longest for what nobody watches: live kinds, custom objects, usage.
    pub poll: Duration,
    /// A sign of life after so long a silence; proxies give up after 60 s.
    pub heartbeat: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            shared: Duration::from_millis(500),
            live: Duration::from_secs(1),
            check: Duration::from_secs(5),
            reread: Duration::from_secs(10),
            poll: Duration::from_secs(5),
            heartbeat: Duration::from_secs(15),
        }
    }
}
