//! How many files and sockets the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to the highest that is permitted, and says it. Many systems start programs with 1,024, and a
/// gateway needs a descriptor for each client and one for each request on its way.
pub(super) fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        tracing::warn!(limit = current, "the limit of open files cannot be raised");
    }
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// How many clients may be connected with so many descriptors: the rest is for their requests, and for files.
pub(super) fn for_clients(files: usize) -> usize {
    files.saturating_sub(files / 4).max(1)
}
