//! Watching over a login that the app keeps (`via: upstream`): attempts are counted before they are forwarded, and what
//! the app answers says what they were.

use std::time::Duration;

use bytes::Bytes;

use crate::identity::account::AccountName;
use crate::response::Response;
use crate::telemetry::audit::{Account, AuditEvent, Event, Outcome, Reason};

use super::error::OAuthError;
use super::form::Form;
use super::throttle::{Attempting, Ticket};
use super::{Asking, Login};

/// Who logs in at the app, as far as its body says.
#[derive(Debug, Default)]
pub struct Attempted {
    /// The account. `None` where the body does not name one clearly.
    pub account: Option<AccountName>,
    form: Form,
}

impl Attempted {
    /// Reads the body of a login: a form, multipart or JSON. What cannot be read, or has two readings, names nobody; it
    /// goes on to the app all the same.
    pub async fn read(login: &crate::policy::set::Login, content_type: Option<&str>, body: &Bytes) -> Self {
        let form = Form::peek(content_type, body).await;
        Self { account: form.account_in(&login.account_field).and_then(Result::ok), form }
    }
}

/// An attempt that was forwarded, or is about to be.
#[derive(Debug)]
#[must_use]
pub struct Forwarded {
    ticket: Ticket,
    account: Option<AccountName>,
}

impl Login {
    /// Counts an attempt. `Err` is the answer to one that is not forwarded: too many failed (429), or nobody can tell
    /// (503).
    ///
    /// It is 429 here and not the app's own refusal, which only the app can write. Nothing is given away: the lock is on
    /// the client's own failures, whether there is such an account or not.
    pub async fn upstream_attempt(&self, asking: &Asking<'_>, attempted: Attempted) -> Result<Forwarded, Response> {
        let Attempted { account, form } = attempted;
        let failed = |reason| {
            let event = asking.event(Event::Login, Outcome::Failure).because(reason);
            AuditEvent { account: account.as_ref().map(Account::Asked), ..event }
        };
        if self.parts.audit.is_blocked() {
            self.audit(&failed(Reason::StoreUnavailable));
            return Err(asking.refuse(&OAuthError::unavailable()));
        }
        let attempting = Attempting {
            realm: &format!("app {}", asking.app.name),
            account: account.as_ref(),
            client: asking.client,
            password: form.get("password").map(str::as_bytes),
        };
        let (attempts, lockout) = (&*self.parts.stores.attempts, asking.login.lockout.as_ref());
        let Ok(ticket) = self.throttle.begin(attempts, &attempting, lockout, asking.now).await else {
            self.audit(&failed(Reason::StoreUnavailable));
            return Err(asking.refuse(&OAuthError::unavailable()));
        };
        if ticket.is_new_lock() {
            self.audit(&AuditEvent { event: Event::Lockout, ..failed(Reason::Locked) });
        }
        match ticket.locked() {
            None => Ok(Forwarded { ticket, account }),
            Some(wait) => {
                self.audit(&failed(Reason::Locked));
                Err(asking.refuse(&OAuthError::RateLimited(wait.max(Duration::from_secs(1)))))
            }
        }
    }

    /// What the app answered: `None` if it did not answer at all. Statuses of `failures` leave the attempt counted, a
    /// success forgets all failures, anything else was no attempt.
    pub async fn upstream_result(&self, asking: &Asking<'_>, forwarded: Forwarded, status: Option<u16>) {
        let Forwarded { ticket, account } = forwarded;
        let attempts = &*self.parts.stores.attempts;
        let (outcome, reason) = match status {
            Some(status) if asking.login.failures.contains(&status) => {
                (Outcome::Failure, Some(Reason::UpstreamRefused))
            }
            Some(200..=299) => {
                self.throttle.clear(attempts, ticket).await;
                (Outcome::Success, None)
            }
            _ => {
                self.throttle.forgive(attempts, ticket, asking.now).await;
                (Outcome::Failure, Some(Reason::UpstreamUnavailable))
            }
        };
        // Only the app knows whether there is such an account; when it let somebody in, there is.
        let account = account.as_ref().map(|account| match outcome {
            Outcome::Success => Account::Known(account),
            Outcome::Failure => Account::Asked(account),
        });
        self.audit(&AuditEvent { account, reason, ..asking.event(Event::Login, outcome) });
    }
}
