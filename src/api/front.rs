//! What a listener serves: the passthrough, of which clients make hundreds of requests, by the
//! straight way, all else through the routes. On a page's way a route's cost is lost; to a small GET
//! that is passed on, matching, parameters and boxes of each layer would add a tenth.
//!
//! It judges nothing: which paths are odd and who calls, the passthrough finds out.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either};
use http::Request;
use hyper::body::Incoming;
use tower::Service;

use super::{Gateway, passthrough, respond, router};

/// As the metrics name it, with and without a base path.
pub(super) const PASSTHROUGH: &str = "/clusters/{cluster}/{*path}";

/// Clones are one and the same.
#[derive(Clone)]
pub struct Front {
    gateway: Arc<Gateway>,
    routes: Router,
}

impl Front {
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { routes: router(gateway.clone()), gateway }
    }

    fn is_passed_on(&self, path: &str) -> bool {
        let below = path.strip_prefix(self.gateway.base_path.as_str());
        below.is_some_and(|path| path.starts_with("/clusters/"))
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<BoxFuture<'static, Result<Response, Infallible>>, RouteFuture<Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        if !self.is_passed_on(request.uri().path()) {
            return Either::Right(self.routes.call(request));
        }
        let (gateway, request) = (self.gateway.clone(), request.map(Body::new));
        let answer = async move {
            let pass = |request| passthrough::passthrough(State(gateway.clone()), request);
            Ok(respond::observed(&gateway, PASSTHROUGH, request, pass).await)
        };
        Either::Left(answer.boxed())
    }
}
