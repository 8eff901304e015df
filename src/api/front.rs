//! What a listener serves: what is asked for all the time by the straight way, all else through the
//! routes. Of a small GET that is passed on, matching, parameters and the boxes of each layer would
//! be a tenth, of a page of the cache a fifth.
//!
//! It judges nothing: which paths are odd and who calls, the passthrough and the lists find out. What
//! it does not know the routes answer, and they would answer the same.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either};
use http::{Method, Request};
use hyper::body::Incoming;
use tower::Service;

use super::caller::Asked;
use super::passthrough;
use super::respond;
use super::{CONTRACT, Caller, Gateway, router};
use crate::api::live::events;
use crate::api::openapi::document;
use crate::api::read::list;
use crate::kinds::KindDef;

/// As the metrics name it, with and without a base path.
pub(super) const PASSTHROUGH: &str = "/clusters/{cluster}/{*path}";

/// Clones are one and the same.
#[derive(Clone)]
pub struct Front(Arc<Ways>);

/// What answers.
struct Ways {
    gateway: Arc<Gateway>,
    routes: Router,
    lists: Vec<Listed>,
}

/// A kind that has a list, and how the metrics name its routes.
struct Listed {
    kind: &'static KindDef,
    all: String,
    within: String,
}

impl Front {
    pub fn new(gateway: Arc<Gateway>) -> Self {
        let listed = |kind: &'static KindDef| {
            let all = format!("{}{CONTRACT}/{}", gateway.base_path, kind.name);
            Listed { kind, within: format!("{all}/{{namespace}}"), all }
        };
        let lists = document::shown().map(listed).collect();
        Self(Arc::new(Ways { routes: router(gateway.clone()), gateway, lists }))
    }
}

impl Ways {
    fn is_passed_on(&self, path: &str) -> bool {
        let below = path.strip_prefix(self.gateway.base_path.as_str());
        below.is_some_and(|path| path.starts_with("/clusters/"))
    }

    /// The list that is asked for, by its place among ours, and whether within named namespaces.
    /// Answers that go on are the routes'.
    fn listed<B>(&self, request: &Request<B>) -> Option<(usize, bool)> {
        let (method, path) = (request.method(), request.uri().path());
        let below = path.strip_prefix(self.gateway.base_path.as_str())?;
        let below = below.strip_prefix(CONTRACT)?.strip_prefix('/')?;
        let (name, namespace) = match below.split_once('/') {
            Some((name, namespace)) => (name, Some(namespace)),
            None => (below, None),
        };
        let place = self.lists.iter().position(|listed| listed.kind.name == name)?;
        let is_route = namespace.is_none_or(|one| {
            let namespaced = self.lists[place].kind.resource.namespaced;
            namespaced && !one.is_empty() && !one.contains('/')
        });
        let is_plain = method == Method::GET && !events::is_wanted(method, request.headers());
        (is_route && is_plain).then_some((place, namespace.is_some()))
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
        let ways = Arc::clone(&self.0);
        if ways.is_passed_on(request.uri().path()) {
            let request = request.map(Body::new);
            let answer = async move {
                let gateway = &*ways.gateway;
                let pass = |request| passthrough::passthrough(gateway, request);
                Ok(respond::observed(gateway, PASSTHROUGH, request, pass).await)
            };
            return Either::Left(answer.boxed());
        }
        let Some((place, is_within)) = ways.listed(&request) else {
            return Either::Right(ways.routes.clone().call(request));
        };
        let request = request.map(Body::new);
        let answer = async move {
            let (gateway, listed) = (&ways.gateway, &ways.lists[place]);
            let route = if is_within { &listed.within } else { &listed.all };
            let list = async |request| match Caller::of(gateway, &Asked::of(&request)) {
                Ok(caller) => {
                    let answer = list::list(State(gateway.clone()), caller, listed.kind, request);
                    answer.await.unwrap_or_else(IntoResponse::into_response)
                }
                Err(error) => error.into_response(),
            };
            Ok(respond::observed(gateway, route, request, list).await)
        };
        Either::Left(answer.boxed())
    }
}
