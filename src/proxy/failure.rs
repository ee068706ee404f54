//! What the client is told when a permitted request could not be carried out.

use pingora::{Error, ErrorSource, ErrorType};

use crate::decision::{Denial, Reason};

/// The refusal for an error of Pingora's; `None` if nobody is there to be told.
pub(super) fn denial(error: &Error) -> Option<Denial> {
    let (reason, detail) = match (error.esource(), error.etype()) {
        (_, ErrorType::HTTPStatus(408)) => (Reason::RequestTimeout, "the request did not arrive in time"),
        (_, ErrorType::HTTPStatus(413)) => (Reason::ContentTooLarge, "the body is longer than this resource admits"),
        (ErrorSource::Upstream, ErrorType::ConnectTimedout)
        | (ErrorSource::Upstream, ErrorType::TLSHandshakeTimedout)
        | (ErrorSource::Upstream, ErrorType::ReadTimedout)
        | (ErrorSource::Upstream, ErrorType::WriteTimedout) => {
            (Reason::GatewayTimeout, "the service behind the gateway did not answer in time")
        }
        (ErrorSource::Upstream, _) => (Reason::BadGateway, "the service behind the gateway cannot be reached"),
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => {
            (Reason::RequestTimeout, "the request did not arrive in time")
        }
        // What `stream` says when a body comes too slowly.
        (ErrorSource::Downstream, ErrorType::ReadError) if is_timeout(error) => {
            (Reason::RequestTimeout, "the request body came too slowly")
        }
        (
            ErrorSource::Downstream,
            ErrorType::WriteError | ErrorType::WriteTimedout | ErrorType::ReadError | ErrorType::ConnectionClosed,
        ) => return None,
        (ErrorSource::Downstream, _) => (Reason::InvalidRequest, "the request is malformed"),
        (ErrorSource::Internal | ErrorSource::Unset, _) => {
            (Reason::InternalServerError, "the gateway failed on this request")
        }
    };
    Some(Denial::new(reason, detail).because(cause(error)))
}

fn is_timeout(error: &Error) -> bool {
    let system = error.root_cause().downcast_ref::<std::io::Error>();
    system.is_some_and(|system| system.kind() == std::io::ErrorKind::TimedOut)
}

/// The kind of an error and what the system said. Never its context, which may hold bytes of the message.
pub(super) fn cause(error: &Error) -> String {
    let kind = error.etype().as_str();
    match error.root_cause().downcast_ref::<std::io::Error>() {
        Some(system) => format!("{kind}: {system}"),
        None => kind.to_owned(),
    }
}
