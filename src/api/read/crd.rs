//! Objects of custom kinds: listed live as the caller with the columns that the server prints, one
//! of them, and the events about it. Where they are, discovery says: the caller needs no right to
//! read definitions.
//!
//! The definitions themselves are a kind of the table (`crd`).

use std::collections::BTreeSet;

use axum::extract::{Request, State};
use axum::response::Response;
use compact_str::CompactString;
use futures::{StreamExt as _, TryStreamExt as _};
use http::StatusCode;
use serde_json::{Value, json};

use super::list;
use super::related::{self, Part, Subject};
use super::view;
use crate::api::error::ApiError;
use crate::api::respond::{Freshness, Reply};
use crate::api::target::{self, encoded, live, segment, segment_of_many};
use crate::api::{Caller, Gateway, Shared};
use crate::auth::{Attributes, Reach};
use crate::cache::{ListError, Listing, Page};
use crate::i18n::Locale;
use crate::kinds::custom::{CUSTOM, bare, own, type_meta};
use crate::query::{self, ListQuery};
use crate::upstream::{Failure, Served, User};

/// Objects that the detail of a definition shows.
const FIRST: usize = 10;
/// Namespaces that are asked about for one list of who may not list everywhere: as many as a path
/// may name. Nothing of it is remembered, so it has a bound; each costs the API server about 1 ms.
const REVIEWS: usize = 1_000;
/// Of those, side by side: one request must not crowd out others.
const REVIEWS_AT_ONCE: usize = 16;

/// What `/crd/{namespace}/{crd}…` names.
struct Place {
    /// As the path names it; a kind without namespaces is everywhere.
    wanted: Reach,
    full_name: CompactString,
    served: Served,
}

/// What a caller may list of a kind.
#[derive(Default)]
struct Found {
    listing: Option<Listing>,
    /// Why there is no listing.
    denied: Option<ApiError>,
    /// Not all namespaces were looked into, or some of those that were named are denied.
    partly: Option<ApiError>,
}

/// `GET /api/v1/crd/{namespace}/{crd}/object`.
pub async fn list(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let [namespace, name] = last(request.uri().path(), 1)?;
    let query = ListQuery::parse(request.uri().query(), &CUSTOM)?;
    let locale = gateway.locale_of(request.headers());
    let mut place = Place::of(&gateway, &user, namespace, name).await?;
    let (body, denied) = place.listed(&gateway, &user, (&query, None), locale).await?;
    let reply = Reply::json(body, Freshness::default().with_live()).denied(denied);
    Ok(reply.warned(&query.warnings).respond(&gateway, request.headers()))
}

/// `GET /api/v1/crd/{namespace}/{crd}/{name}`.
pub async fn detail(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let [namespace, name, object] = last(request.uri().path(), 0)?;
    let mut place = Place::of(&gateway, &user, namespace, name).await?;
    let json = place.object(&gateway, &user, &object).await?;
    let mut fields = own(&json)?;
    fields.insert("typeMeta".into(), place.type_meta());
    fields.insert("errors".into(), json!([]));
    let body = Value::Object(fields).to_string().into_bytes();
    let reply = Reply::json(body, Freshness::default().with_live());
    Ok(reply.respond(&gateway, request.headers()))
}

/// `GET /api/v1/crd/{namespace}/{crd}/{name}/event`.
pub async fn events(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let [namespace, name, object] = last(request.uri().path(), 1)?;
    let kind = related::known("event")?;
    let query = ListQuery::parse(request.uri().query(), kind)?;
    let locale = gateway.locale_of(request.headers());
    let mut place = Place::of(&gateway, &user, namespace, name).await?;
    let row = bare(&place.object(&gateway, &user, &object).await?)?;
    // Events are found by the row; the object itself may be of any depth.
    let subject = Subject {
        gateway: &gateway,
        user: &user,
        locale,
        kind: &CUSTOM,
        object: &Value::Null,
        row: &row,
    };
    let chosen = related::events(&subject, &query).await?;
    let freshness = Freshness::of(chosen.views.iter()).with_live();
    let reply = Reply::json(chosen.body(kind)?, freshness).warned(&query.warnings);
    Ok(reply.respond(&gateway, request.headers()))
}

/// `objects` of a definition's detail: a page of them, however many there are.
pub async fn objects(subject: &Subject<'_>) -> Result<Part, ApiError> {
    let Subject { gateway, user, locale, row, .. } = *subject;
    let page = query::Page { size: FIRST, index: 0 };
    let query = ListQuery { page: Some(page), ..ListQuery::default() };
    let body = async {
        let name = row.name.clone();
        let mut place = Place::of(gateway, user, CompactString::default(), name).await?;
        place.listed(gateway, user, (&query, Some(FIRST)), locale).await
    };
    match body.await {
        Ok((body, _)) => Ok(Part::of("objects", &body)),
        Err(error) => {
            let nothing = json!({
                "typeMeta": {}, "listMeta": { "totalItems": 0 }, "items": [], "errors": [],
            });
            let part = Part::of("objects", nothing.to_string().as_bytes());
            Ok(Part { errors: vec![subject.item(error)], ..part })
        }
    }
}

/// The last segments of a path, before `after` more of them, decoded. The first is namespaces: it
/// may be blank.
fn last<const N: usize>(path: &str, after: usize) -> Result<[CompactString; N], ApiError> {
    let mut segments = path.rsplit('/').skip(after);
    let mut found = [const { CompactString::const_new("") }; N];
    for (at, slot) in found.iter_mut().enumerate().rev() {
        let raw = segments.next().unwrap_or_default();
        *slot = if at == 0 { segment_of_many(raw)? } else { segment(raw)? };
    }
    Ok(found)
}

impl Place {
    async fn of(
        gateway: &Gateway,
        user: &User,
        namespaces: CompactString,
        full_name: CompactString,
    ) -> Result<Self, ApiError> {
        // Before discovery, which is shared: a mistake here must not tell what exists.
        let namespaces = query::namespaces(&namespaces)?;
        for name in &namespaces {
            list::is_harmless(name)?;
        }
        let called = |served: &Served| full_name.contains('.') && served.is_called(&full_name);
        let served = target::find(gateway, user, called).await?;
        let Some(served) = served else {
            return Err(view::unknown(gateway, user, "error-unknown-kind", &full_name).await);
        };
        Ok(Self { wanted: Reach::named(namespaces), full_name, served })
    }

    fn version(&self) -> &str {
        self.served.version(None).unwrap_or_default()
    }

    fn type_meta(&self) -> Value {
        type_meta(&self.full_name, self.served.scalable)
    }

    /// Where the API server has one object. That the place is wrong, and so that the kind exists,
    /// is told to those alone whom the API server knows.
    async fn path(&self, gateway: &Gateway, user: &User, name: &str) -> Result<String, ApiError> {
        let namespace = match (&self.wanted, self.wanted.only()) {
            (_, Some(one)) => Some(encoded(one)),
            (Reach::Everything, None) if !self.served.namespaced => None,
            _ => {
                let reason = "one namespace is needed for an object of this kind";
                let error = ApiError::bad_request("error-bad-path", &[("reason", reason)]);
                return Err(view::told_to_known(gateway, user, error).await);
            }
        };
        let collection = self.served.collection(self.version(), namespace.as_deref());
        Ok(format!("{collection}/{}", encoded(name)))
    }

    /// One object as the caller, where it is now should the remembered version be gone.
    async fn object(
        &mut self,
        gateway: &Gateway,
        user: &User,
        name: &str,
    ) -> Result<String, ApiError> {
        let path = self.path(gateway, user, name).await?;
        match live(gateway, user, &path).await {
            Ok(json) => Ok(json),
            Err(failure) => {
                self.served = target::moved(gateway, user, &self.served, failure).await?;
                let path = self.path(gateway, user, name).await?;
                Ok(live(gateway, user, &path).await?)
            }
        }
    }

    /// Where to list: a kind without namespaces is everywhere.
    fn asked(&self) -> &Reach {
        if self.served.namespaced { &self.wanted } else { &Reach::Everything }
    }

    /// `most`: the first of all objects are enough, if the API server tells how many there are.
    async fn all(
        &self,
        gateway: &Gateway,
        user: &User,
        most: Option<usize>,
    ) -> Result<Listing, ListError> {
        let at = |namespace: Option<&str>| self.served.collection(self.version(), namespace);
        if let Some(most) = most
            && let Some(first) = view::first(gateway, user, &CUSTOM, &at(None), most).await?
        {
            return Ok(first);
        }
        view::listed(gateway, user, &CUSTOM, &at, self.asked()).await
    }

    /// The contract's list, and beyond it the columns that the server prints with the rows' cells.
    /// `most`: so many of all objects are enough.
    async fn listed(
        &mut self,
        gateway: &Gateway,
        user: &User,
        (query, most): (&ListQuery, Option<usize>),
        locale: Locale,
    ) -> Result<(Vec<u8>, Option<ApiError>), ApiError> {
        let Found { listing, denied, partly } = Box::pin(self.found(gateway, user, most)).await?;
        let (page, columns) = match listing {
            Some(Listing { store, scope, columns, remaining, .. }) => {
                let mut page = store.select(&scope, query);
                page.total = page.total.saturating_add(remaining);
                (page, columns)
            }
            None => (Page::default(), Vec::new()),
        };
        let errors = denied.iter().chain(&partly).map(|error| error.as_item(locale));
        let (errors, rows): (Vec<Value>, _) = (errors.collect(), page.rows.len());
        let of_items = self.type_meta();
        let of_list = json!({
            "kind": format!("{}List", self.served.kind),
            "apiVersion": self.served.api_version(self.version()),
        });
        let make = move || -> Result<Vec<u8>, ApiError> {
            let items = page.rows.iter().map(|row| {
                let mut item: Value = serde_json::from_slice(&row.json)?;
                item["typeMeta"] = of_items.clone();
                Ok(item)
            });
            let items: serde_json::Result<Vec<Value>> = items.collect();
            let list = json!({
                "typeMeta": of_list,
                "listMeta": { "totalItems": page.total },
                "columns": columns,
                "items": items.map_err(|error| ApiError::internal(&error))?,
                "errors": errors,
            });
            Ok(list.to_string().into_bytes())
        };
        Ok((list::made(rows, make).await?, denied))
    }

    /// All that was asked for, or else what of it is in namespaces in which the caller may list.
    async fn found(
        &mut self,
        gateway: &Gateway,
        user: &User,
        most: Option<usize>,
    ) -> Result<Found, ApiError> {
        let turn = gateway.live.turn(user).await?;
        let mut listed = self.all(gateway, user, most).await;
        if let Err(ListError::Failed(failure)) = listed {
            listed = match target::moved(gateway, user, &self.served, failure).await {
                Ok(now) => {
                    self.served = now;
                    self.all(gateway, user, most).await
                }
                Err(failure) => Err(ListError::Failed(failure)),
            };
        }
        let at = |namespace: Option<&str>| self.served.collection(self.version(), namespace);
        let denied = match listed {
            Ok(mut listing) => {
                let partly = listing.refused.take().map(ApiError::from);
                return Ok(Found { listing: Some(listing), partly, ..Found::default() });
            }
            Err(error) => Some(denial(error)?),
        };
        if !self.served.namespaced || self.wanted.only().is_some() {
            return Ok(Found { denied, ..Found::default() });
        }
        // Reviews keep nothing in memory, and nobody waiting.
        drop(turn);
        let (permitted, partly) = self.permitted(gateway, user).await?;
        if permitted.is_empty() {
            return Ok(Found { denied, partly, ..Found::default() });
        }
        // Of all namespaces nobody expects those in which he has no rights.
        let is_short = self.wanted.names().any(|namespace| !permitted.contains(namespace));
        let permitted = permitted.into_iter().collect();
        let _turn = gateway.live.turn(user).await?;
        match view::listed(gateway, user, &CUSTOM, &at, &permitted).await {
            Ok(mut listing) => {
                let partly = partly.or(listing.refused.take().map(ApiError::from));
                let partly = partly.or(denied.filter(|_| is_short));
                Ok(Found { listing: Some(listing), partly, ..Found::default() })
            }
            // A right that was taken away meanwhile.
            Err(error) => Ok(Found { denied: Some(denial(error)?), partly, ..Found::default() }),
        }
    }

    /// The namespaces among those asked for in which the caller may list, and a word where there
    /// are too many to ask about: then those with other rights of the caller come first.
    async fn permitted(
        &self,
        gateway: &Gateway,
        user: &User,
    ) -> Result<(BTreeSet<CompactString>, Option<ApiError>), ApiError> {
        let mut candidates = match &self.wanted {
            Reach::Everything => view::known_namespaces(gateway, user).await?,
            Reach::Namespaces(named) => named.iter().cloned().collect(),
        };
        let mut partly = None;
        if candidates.len() > REVIEWS {
            let (authorizer, cluster) = (&gateway.authorizer, &gateway.cluster);
            if let Ok((_, mut all)) = authorizer.visible(cluster, user, &candidates).await {
                all.sort_by_key(|one| !one.is_own);
                candidates = all.into_iter().map(|one| one.name).collect();
            }
            candidates.truncate(REVIEWS);
            let (id, most) = ("error-custom-objects-in-part", REVIEWS.to_string());
            let too_many = StatusCode::PAYLOAD_TOO_LARGE;
            partly = Some(ApiError::with_status(too_many, id, &[("most", &most)]));
        }
        let reviews = futures::stream::iter(candidates).map(|namespace| async move {
            let asked = self.list_in(&namespace);
            let allowed = gateway.authorizer.review(&gateway.cluster, user, &asked).await?;
            Ok::<_, Failure>(allowed.then_some(namespace))
        });
        let allowed: Vec<_> = reviews.buffered(REVIEWS_AT_ONCE).try_collect().await?;
        Ok((allowed.into_iter().flatten().collect(), partly))
    }

    fn list_in(&self, namespace: &str) -> Attributes {
        Attributes {
            verb: "list".into(),
            group: self.served.group.clone(),
            version: self.version().into(),
            resource: self.served.plural.clone(),
            namespace: namespace.into(),
            ..Attributes::default()
        }
    }
}

/// The words of a denial; any other failure stays one.
fn denial(error: ListError) -> Result<ApiError, ApiError> {
    match error {
        ListError::Failed(failure) if failure.code() == Some(StatusCode::FORBIDDEN) => {
            Ok(failure.into())
        }
        error => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_segments_are_named_from_behind() {
        let [a, b] = last("/api/v1/crd/%20/widgets.example.com/object", 1).unwrap();
        assert_eq!((a.as_str(), b.as_str()), (" ", "widgets.example.com"));
        assert!(last::<2>("/crd/a%2Fb/c/object", 1).is_err());
    }
}
