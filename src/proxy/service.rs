//! The phases of a request, in Pingora's order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::context::{Context, Passing, State};
use super::listen::KEEP_ALIVE;
use super::openapi::Documents;
use super::peer::{self, Addresses};
use super::{body, failure, head, respond, response, side, upstream};
use crate::decision::{Denial, Reason};
use crate::pipeline::{About, Answered, Forward, Found, Outcome, Pipeline, Step, Verdict};
use crate::policy::set::Edge;
use crate::response::{Problem, Response};

/// The time for one read of a body, and for one write of an answer.
const STALL: Duration = Duration::from_secs(30);
/// How long a silent WebSocket is kept where nothing ends it earlier.
const SILENT: Duration = Duration::from_secs(24 * 3600);
/// The status that is logged where the client went away before it was answered.
const CLIENT_GONE: u16 = 499;

/// The gateway as Pingora sees it: asks the pipeline once for each request, and does what it says.
#[derive(Debug)]
pub struct Gate {
    pipeline: Arc<Pipeline>,
    addresses: Arc<Addresses>,
    documents: Documents,
}

impl Gate {
    /// A gateway that asks `pipeline`.
    pub fn new(pipeline: Arc<Pipeline>, addresses: Arc<Addresses>) -> Self {
        Self { pipeline, addresses, documents: Documents::default() }
    }

    /// Answers the client and remembers that this ends the request.
    async fn answer(session: &mut Session, response: Response) -> Result<()> {
        let head_only = session.req_header().method == Method::HEAD;
        respond::write(session.as_downstream_mut(), response, head_only).await
    }

    /// Answers a permitted request whose route says `openapi: rewrite`. Whether it is one.
    async fn document(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        let asked = session.req_header();
        let Some(passing) = context.passing() else { return Ok(false) };
        let reads = matches!(asked.method, Method::GET | Method::HEAD);
        let Some(permit) = passing.permit().filter(|permit| reads && permit.route().openapi_rewrite) else {
            return Ok(false);
        };
        let response = match self.documents.answer(asked, &self.addresses, permit, passing).await {
            Ok(response) => response,
            Err(mut denial) => {
                (denial.route, denial.app) = (Some(permit.route().id), Some(permit.route().app));
                warn(context, denial.cause.clone().unwrap_or_default(), &denial);
                let raw = head::raw(session.as_downstream());
                let head = head::of(session.as_downstream(), raw.as_ref());
                let Some(about) = context.about() else { return unpermitted() };
                let response = self.pipeline.refuse_later(about, &denial, &head);
                context.failure = Some(denial);
                response
            }
        };
        let mut response = response;
        if let Some(passing) = context.passing() {
            passing.forward.set_cookies(&mut response);
        }
        Self::answer(session, response).await?;
        Ok(true)
    }

    /// A login that the app itself checks: its body is read for the account, kept, and forwarded as it came.
    async fn forward_login(
        &self,
        session: &mut Session,
        context: &mut Context,
        about: About,
        forward: Forward,
    ) -> Result<bool> {
        let body = body::whole(session).await;
        let raw = head::raw(session.as_downstream());
        let head = head::of(session.as_downstream(), raw.as_ref());
        let attempt = match &body {
            Ok(body) => self.pipeline.attempt(&about, &head, body).await,
            Err(denial) => Err(self.pipeline.refuse_later(&about, denial, &head)),
        };
        drop(raw);
        match attempt {
            Ok(login) => {
                Self::permit(session, context, about, forward);
                context.login = Some(login);
                Ok(false)
            }
            Err(response) => {
                if body.is_err() {
                    session.set_keepalive(None);
                }
                context.state = State::Answered(Box::new(about));
                Self::answer(session, response).await?;
                Ok(true)
            }
        }
    }

    /// Tells the throttle what became of a login that was forwarded.
    async fn attempted(&self, session: &Session, context: &mut Context, status: Option<u16>) {
        let Some(login) = context.login.take() else { return };
        let Some(about) = context.about() else { return };
        let raw = head::raw(session.as_downstream());
        let head = head::of(session.as_downstream(), raw.as_ref());
        self.pipeline.attempted(about, &head, login, status).await;
    }

    /// Remembers a permitted request, and what its WebSocket needs.
    fn permit(session: &mut Session, context: &mut Context, about: About, forward: Forward) {
        let (mut websocket, mut life) = (false, None);
        if let Verdict::Permitted(permit) = &about.verdict {
            websocket = permit.route().websocket && session.is_upgrade_req();
            let token = permit.expires().map(|expires| expires.since(about.at));
            life = permit.route().max_ws_age.map_or(token, |age| Some(token.map_or(age, |token| age.min(token))));
        }
        if websocket {
            session.set_read_timeout(Some(life.unwrap_or(SILENT)));
        }
        if let Some(passing) = Passing::new(about, forward, websocket, life) {
            context.state = State::Permitted(Box::new(passing));
        }
    }
}

#[async_trait]
impl ProxyHttp for Gate {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.pipeline.metrics())
    }

    /// No compression: what the upstream sends is what the client gets.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, _: &mut Context) -> Result<()> {
        side::head_done(session.as_downstream());
        if session.get_keepalive() == Some(0) {
            session.set_keepalive(Some(KEEP_ALIVE)); // 0 is without end
        }
        session.set_read_timeout(Some(STALL));
        session.set_write_timeout(Some(STALL));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        let raw = head::raw(session.as_downstream());
        let head = head::of(session.as_downstream(), raw.as_ref());
        // What came over the network cannot panic; should it, this request is refused and all others go on.
        let mut found = Found::default();
        let decided = loop {
            match catch_unwind(AssertUnwindSafe(|| self.pipeline.step(&head, &found))) {
                Ok(Step::Decided(decided)) => break decided,
                Ok(Step::Ask(need)) => self.pipeline.find_out(&need, &mut found).await,
                Err(_) => {
                    let detail = "the gateway failed on this request";
                    let problem = Problem { status: 500, code: "internal_server_error", detail, decision_id: "" };
                    Self::answer(session, problem.respond()).await?;
                    return Ok(true);
                }
            }
        };
        let decided = if decided.shared.is_empty() { decided } else { self.pipeline.share(decided, &head).await };
        drop(raw);
        match decided.outcome {
            Outcome::Forward(forward) if forward.login => {
                self.forward_login(session, context, decided.about, *forward).await
            }
            Outcome::Forward(forward) => {
                Self::permit(session, context, decided.about, *forward);
                self.document(session, context).await
            }
            Outcome::Answer(own) => {
                let body = body::whole(session).await;
                let ends = body.is_err();
                let raw = head::raw(session.as_downstream());
                let head = head::of(session.as_downstream(), raw.as_ref());
                let response = self.pipeline.answer(&decided.about, own, &head, body).await;
                if ends {
                    session.set_keepalive(None);
                }
                context.state = State::Answered(Box::new(decided.about));
                Self::answer(session, response).await?;
                Ok(true)
            }
            Outcome::Respond(response) => {
                if ends_connection(&decided.about.verdict) {
                    session.set_keepalive(None);
                }
                context.state = State::Answered(Box::new(decided.about));
                Self::answer(session, response).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
        let te = peer::te(&session.req_header().headers);
        let Some(passing) = context.passing_mut() else { return unpermitted() };
        let Some(permit) = passing.permit() else { return unpermitted() };
        match peer::of(&self.addresses, permit, passing, passing.attempts, te).await {
            Ok((peer, count)) => {
                passing.attempts = passing.attempts.saturating_add(1);
                passing.addresses = count;
                Ok(Box::new(peer))
            }
            Err(denial) => {
                context.failure = Some(denial);
                Err(Error::explain(ErrorType::ConnectNoRoute, "no address").into_up())
            }
        }
    }

    /// Nothing was sent yet, so another address may be tried whatever the method.
    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let another = context.passing().is_some_and(|passing| {
            passing.attempts < passing.addresses && passing.permit().is_some_and(|permit| permit.route().retry)
        });
        error.set_retry(another);
        error
    }

    /// Pingora's rule (idempotent methods, whole bodies, reused connections only), and the route's.
    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        context: &mut Context,
        client_reused: bool,
    ) -> Box<Error> {
        let retry = context.passing().and_then(Passing::permit).is_some_and(|permit| permit.route().retry);
        if !retry || !session.req_header().method.is_idempotent() || session.as_ref().retry_buffer_truncated() {
            error.set_retry(false);
        } else {
            error.retry.decide_reuse(client_reused);
        }
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        let (Some(about), Some(passing)) = (context.about(), context.passing()) else { return unpermitted() };
        let Some(permit) = passing.permit() else { return unpermitted() };
        upstream::write(request, permit, passing, about.id.as_str(), session.req_header().version)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        context: &mut Context,
    ) -> Result<()> {
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            // HTTP/2 may end a body with an empty frame. Pingora would write that as the last chunk and then end the
            // body once more: five bytes too many, which the upstream takes for the next request.
            *body = None;
        }
        if end_of_stream {
            side::body_done(session.as_downstream());
        }
        body::count(session, body.as_ref(), end_of_stream, context)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        if !response.status.is_informational() {
            self.attempted(session, context, Some(response.status.as_u16())).await;
        }
        let Some(passing) = context.passing() else { return unpermitted() };
        let is_logout = passing.permit().is_some_and(|permit| permit.route().edge == Some(Edge::Logout));
        if is_logout
            && response.status.is_success()
            && let Some(about) = context.about()
        {
            // Before the client hears of it: what it ended is refused from now on.
            let raw = head::raw(session.as_downstream());
            let head = head::of(session.as_downstream(), raw.as_ref());
            self.pipeline.logged_out(about, &head).await;
        }
        if response.status.as_u16() == 101 && !passing.websocket {
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, "101 to a request that asked for none").into_up());
        }
        response::edit(response, passing);
        Ok(())
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        _: &mut Option<Bytes>,
        _: bool,
        context: &mut Context,
    ) -> Result<Option<Duration>> {
        if session.was_upgraded()
            && let Some(passing) = context.passing()
        {
            body::open_until(session, passing)?;
        }
        Ok(None)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let Some(mut denial) = context.failure.take().or_else(|| failure::denial(error)) else {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        };
        if let Some(permit) = context.passing().and_then(Passing::permit) {
            (denial.route, denial.app) = (Some(permit.route().id), Some(permit.route().app));
        }
        let status = denial.status();
        if matches!(denial.reason, Reason::BadGateway | Reason::GatewayTimeout | Reason::InternalServerError) {
            let cause = denial.cause.clone().unwrap_or_else(|| failure::cause(error));
            warn(context, cause, &denial);
        }
        session.set_keepalive(None);
        // After a 101 the connection is not HTTP any more: nothing of ours belongs on it.
        let is_final = |head: &ResponseHeader| !head.status.is_informational() || head.status.as_u16() == 101;
        let answered = session.response_written().is_some_and(is_final);
        if !answered {
            let raw = head::raw(session.as_downstream());
            let head = head::of(session.as_downstream(), raw.as_ref());
            let mut response = match context.about() {
                Some(about) => self.pipeline.refuse_later(about, &denial, &head),
                None => unlogged(&denial),
            };
            if let Some(passing) = context.passing() {
                passing.forward.set_cookies(&mut response);
            }
            let _ = Self::answer(session, response).await;
        }
        session.as_downstream_mut().shutdown().await;
        context.failure = Some(denial);
        FailToProxy { error_code: status, can_reuse_downstream: false }
    }

    /// Path only: a query may hold tokens and codes.
    fn request_summary(&self, session: &Session, _: &Context) -> String {
        let request = session.req_header();
        let path = request.raw_path().split(|byte| *byte == b'?').next().unwrap_or_default();
        format!("{} {}", request.method, path.escape_ascii())
    }

    /// The decision log has every request, and a failed upstream its own line.
    fn suppress_error_log(&self, _: &Session, _: &Context, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(&self, _: &Session, _: &Context, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, context: &mut Context) {
        self.attempted(session, context, None).await;
        let Some(about) = context.about() else { return };
        let status = session.response_written().map_or(CLIENT_GONE, |head| head.status.as_u16());
        let raw = head::raw(session.as_downstream());
        let head = head::of(session.as_downstream(), raw.as_ref());
        self.pipeline.record(about, &head, Answered { status, failure: context.failure.as_ref() });
    }
}

/// Where a message had two readings, the next one on the connection might, too (RFC 9112 §6.1, §11.2).
fn ends_connection(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Refused(denial) => denial.route.is_none() && !matches!(denial.status(), 403..=405),
        Verdict::Permitted(_) | Verdict::Preflight => false,
    }
}

/// The last line of defence: nothing is forwarded that was not permitted.
fn unpermitted<T>() -> Result<T> {
    Err(Error::explain(ErrorType::InternalError, "no permit").into_in())
}

fn unlogged(denial: &Denial) -> Response {
    let code = denial.reason.code();
    Problem { status: denial.status(), code, detail: &denial.detail, decision_id: "" }.respond()
}

fn warn(context: &Context, cause: String, denial: &Denial) {
    let permit = context.passing().and_then(Passing::permit);
    let route = permit.map_or("", |permit| &*permit.route().key);
    let id = context.about().map(|about| about.id);
    tracing::warn!(
        decision.id = id.as_ref().map_or("", |id| id.as_str()),
        route,
        reason = denial.reason.code(),
        cause,
        "request not carried out"
    );
}
