//! What `env:` and `file:` in policies stand for, here and now.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

use crate::config::Environment;
use crate::diagnostic::{Code, Diagnostic};
use crate::policy::document::{Document, Source};
use crate::policy::references::References;
use crate::secret::Secret;

use super::files::reason;

/// Keys and certificates are smaller than this.
const MAX_BYTES: u64 = 1 << 20;

/// Resolved references, and what there is to say about them.
#[derive(Debug)]
pub struct Resolved {
    /// The values.
    pub references: References,
    /// What could not be resolved, or is readable by others.
    pub diagnostics: Vec<Diagnostic>,
    /// The files that were read.
    pub files: BTreeSet<PathBuf>,
    /// The digest of what was read, as `digest` would make it: a file that changes while a set is made of it must
    /// look changed afterwards.
    pub digest: [u8; 32],
}

/// Resolves every reference of a document. `paths` says where each of its files was read.
pub fn resolve(document: &Document, paths: &[PathBuf], environment: &Environment) -> Resolved {
    let mut resolved =
        Resolved { references: References::none(), diagnostics: Vec::new(), files: BTreeSet::new(), digest: [0; 32] };
    let mut contents: BTreeMap<PathBuf, io::Result<(Vec<u8>, bool)>> = BTreeMap::new();
    for reference in document.references() {
        let span = reference.span;
        match &reference.value {
            Source::Literal(_) => {}
            Source::Env(name) => match environment.get(name) {
                Some(value) => {
                    let value = Secret::new(value.to_owned());
                    resolved.references = std::mem::take(&mut resolved.references).with_env(name, value);
                }
                None => resolved.diagnostics.push(
                    Diagnostic::new(
                        Code::P406,
                        format!("environment variable `{name}` is not set"),
                        span,
                        "needed here",
                    )
                    .help(format!("set {name} in the environment of the gateway")),
                ),
            },
            Source::File(name) => {
                let from =
                    paths.get(span.file.0 as usize).and_then(|path| path.parent()).unwrap_or_else(|| Path::new(""));
                let path = from.join(name);
                resolved.files.insert(path.clone());
                match contents.entry(path.clone()).or_insert_with(|| content(&path)) {
                    Ok((bytes, shared)) => {
                        resolved.references =
                            std::mem::take(&mut resolved.references).with_file(span.file, name, bytes.clone());
                        if *shared {
                            resolved.diagnostics.push(
                                Diagnostic::new(
                                    Code::P407,
                                    format!("file `{name}` can be read by every user of this machine"),
                                    span,
                                    "holds a key",
                                )
                                .help(format!("chmod o-r {}", path.display())),
                            );
                        }
                    }
                    Err(error) => resolved.diagnostics.push(Diagnostic::new(
                        Code::P406,
                        format!("file `{name}` cannot be read: {}", reason(error)),
                        span,
                        "needed here",
                    )),
                }
            }
        }
    }
    for name in document.optional_environment() {
        if let Some(value) = environment.get(name).filter(|value| !value.is_empty()) {
            let value = Secret::new(value.to_owned());
            resolved.references = std::mem::take(&mut resolved.references).with_env(name, value);
        }
    }
    let read = contents.values().map(|content| content.as_ref().map_or(&[][..], |(bytes, _)| bytes));
    resolved.digest = digest_of(read);
    resolved
}

/// A digest of the contents of files, to see whether one changed.
pub(super) fn digest(files: &BTreeSet<PathBuf>) -> [u8; 32] {
    digest_of(files.iter().map(|path| content(path).map(|(bytes, _)| bytes).unwrap_or_default()))
}

fn digest_of<B: AsRef<[u8]>>(contents: impl Iterator<Item = B>) -> [u8; 32] {
    let mut digest = Context::new(&SHA256);
    for bytes in contents {
        digest.update(&(bytes.as_ref().len() as u64).to_be_bytes());
        digest.update(bytes.as_ref());
    }
    digest.finish().as_ref().try_into().unwrap_or_default()
}

/// The content of a file, and whether it holds a secret that every user can read.
fn content(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("more than 1 MiB"));
    }
    let shared = metadata.permissions().mode() & 0o004 != 0 && !is_public(&bytes);
    Ok((bytes, shared))
}

/// Public keys, certificates and key sets may be read by anybody.
fn is_public(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii_start();
    let begins = |start: &str| text.starts_with(start.as_bytes());
    begins("{")
        || ["PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE"].iter().any(|kind| begins(&format!("-----BEGIN {kind}")))
}
