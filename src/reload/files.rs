//! The policies folder as one set of texts.
//!
//! Every `*.yaml` and `*.yml` below it; names that begin with a dot and `*.disabled` are left out. Links are
//! followed while they stay inside (Kubernetes mounts ConfigMaps as links through `..data`); budgets keep a
//! hostile folder from filling the memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::diagnostic::{Code, Diagnostic, Sources, Span};
use crate::policy::yaml::MAX_FILE_BYTES;

const MAX_SET_BYTES: u64 = 32 * 1024 * 1024;
const MAX_FILES: usize = 1000;
/// How deep folders may lie in folders.
const MAX_DEPTH: usize = 32;
/// Entries of all kinds that are looked at.
const MAX_ENTRIES: usize = 20_000;

/// The texts of a policies folder.
#[derive(Debug)]
pub struct Files {
    /// The folder.
    pub folder: PathBuf,
    /// The texts, in the order of their paths.
    pub sources: Sources,
    /// Where each text was read, by [`FileId`](crate::diagnostic::FileId).
    pub paths: Vec<PathBuf>,
    /// What could not be read.
    pub diagnostics: Vec<Diagnostic>,
    /// The folders whose changes matter.
    pub folders: BTreeSet<PathBuf>,
}

/// Reads a policies folder. Every mistake is reported; what could be read is there nevertheless.
pub fn read(folder: &Path) -> Files {
    let mut walk = Walk { files: BTreeMap::new(), folders: BTreeSet::new(), visited: BTreeSet::new(), entries: 0 };
    let top = match fs::canonicalize(folder).and_then(|root| walk.folder(folder, &root, 0).map(|()| root)) {
        Ok(root) => {
            walk.folders.insert(root);
            None
        }
        Err(error) => Some(Found::Bad(Code::P008, format!("cannot read the policies folder: {}", reason(&error)))),
    };
    let mut files = Files {
        folder: folder.to_owned(),
        sources: Sources::default(),
        paths: Vec::new(),
        diagnostics: Vec::new(),
        folders: std::mem::take(&mut walk.folders),
    };
    if let Some(Found::Bad(code, message)) = top {
        files.complain(folder, code, message);
        return files;
    }
    if walk.files.is_empty() {
        files.complain(folder, Code::P012, "no policy files in this folder".to_owned());
        return files;
    }
    if walk.files.len() > MAX_FILES {
        files.complain(folder, Code::P006, format!("more than {MAX_FILES} policy files"));
        return files;
    }
    let mut budget = MAX_SET_BYTES;
    for (path, found) in walk.files {
        match found {
            Found::File => files.add(&path, &mut budget),
            Found::Bad(code, message) => files.complain(&path, code, message),
        }
    }
    files
}

enum Found {
    File,
    Bad(Code, String),
}

struct Walk {
    files: BTreeMap<PathBuf, Found>,
    folders: BTreeSet<PathBuf>,
    /// Folders that were read, by their real path: cycles end here.
    visited: BTreeSet<PathBuf>,
    entries: usize,
}

impl Walk {
    fn folder(&mut self, folder: &Path, root: &Path, depth: usize) -> io::Result<()> {
        if !self.visited.insert(fs::canonicalize(folder)?) {
            return Ok(());
        }
        self.folders.insert(folder.to_owned());
        let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        // Real folders before links, so that a link to one of them is the one that is not followed again.
        entries.sort_by_key(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
        for entry in entries {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') || name.ends_with(".disabled") {
                continue;
            }
            let path = entry.path();
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                let message = format!("more than {MAX_ENTRIES} entries in the policies folder");
                self.files.insert(path, Found::Bad(Code::P006, message));
                return Ok(());
            }
            let is_policy = name.ends_with(".yaml") || name.ends_with(".yml");
            let is_link = entry.file_type()?.is_symlink();
            if let Err((code, message)) = self.entry(&path, is_policy, is_link, root, depth) {
                self.files.insert(path, Found::Bad(code, message));
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &Path,
        is_policy: bool,
        is_link: bool,
        root: &Path,
        depth: usize,
    ) -> Result<(), (Code, String)> {
        let unreadable = |error: &io::Error| (Code::P008, format!("cannot be read: {}", reason(error)));
        if is_link {
            match fs::canonicalize(path) {
                Ok(target) if target.starts_with(root) => {
                    self.folders.extend(target.parent().map(Path::to_owned));
                }
                Ok(_) => return Err((Code::P013, "the link leads out of the policies folder".to_owned())),
                // A dangling link to something else than a policy is nobody's business.
                Err(error) => return if is_policy { Err(unreadable(&error)) } else { Ok(()) },
            }
        }
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if is_policy => return Err(unreadable(&error)),
            Err(_) => return Ok(()),
        };
        if metadata.is_dir() {
            if depth >= MAX_DEPTH {
                return Err((Code::P006, format!("more than {MAX_DEPTH} folders in each other")));
            }
            return self.folder(path, root, depth + 1).map_err(|error| unreadable(&error));
        }
        if is_policy {
            // Opening a pipe would wait for its writer.
            if !metadata.is_file() {
                return Err((Code::P008, "cannot be read: not a regular file".to_owned()));
            }
            self.files.insert(path.to_owned(), Found::File);
        }
        Ok(())
    }
}

impl Files {
    fn add(&mut self, path: &Path, budget: &mut u64) {
        let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        let result = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
        let length = match result {
            Ok(length) => u64::try_from(length).unwrap_or(u64::MAX),
            Err(error) => return self.complain(path, Code::P008, format!("cannot be read: {}", reason(&error))),
        };
        if length > limit {
            return self.complain(path, Code::P006, "more than 4 MiB".to_owned());
        }
        let Some(rest) = budget.checked_sub(length) else {
            return self.complain(path, Code::P006, "the policy files together have more than 32 MiB".to_owned());
        };
        *budget = rest;
        match String::from_utf8(bytes) {
            Ok(text) => {
                self.sources.add(&path.to_string_lossy(), &text);
                self.paths.push(path.to_owned());
            }
            Err(error) => {
                let at = u32::try_from(error.utf8_error().valid_up_to()).unwrap_or(u32::MAX);
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                let file = self.sources.add(&path.to_string_lossy(), &text);
                self.paths.push(path.to_owned());
                let span = Span { file, start: at, end: at.saturating_add(3) };
                self.diagnostics.push(
                    Diagnostic::new(Code::P008, "the file is not UTF-8", span, "this byte cannot begin a character")
                        .help("save it as UTF-8"),
                );
            }
        }
    }

    /// Reports something about a file or folder of which there is no text.
    fn complain(&mut self, path: &Path, code: Code, message: String) {
        let file = self.sources.add(&path.to_string_lossy(), "");
        self.paths.push(path.to_owned());
        self.diagnostics.push(Diagnostic::new(code, message, Span { file, start: 0, end: 0 }, ""));
    }
}

/// The system's words without the number.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(folder: &Path) -> Vec<String> {
        let files = read(folder);
        let relative = |path: &str| {
            Path::new(path).strip_prefix(folder).unwrap_or_else(|_| Path::new(path)).to_string_lossy().into_owned()
        };
        files.sources.files().iter().map(|file| relative(&file.path)).collect()
    }

    fn findings(folder: &Path) -> Vec<String> {
        let files = read(folder);
        files.diagnostics.iter().map(|finding| format!("{} {}", finding.code, finding.message)).collect()
    }

    #[test]
    fn the_folder_is_read_recursively_and_some_names_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "b.yaml",
            "a.yml",
            "sub/c.yaml",
            ".hidden.yaml",
            ".git/d.yaml",
            "e.yaml.disabled",
            "off.disabled/f.yaml",
            "g.txt",
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        assert_eq!(names(dir.path()), ["a.yml", "b.yaml", "sub/c.yaml"]);
        assert!(findings(dir.path()).is_empty());
    }

    #[test]
    fn a_config_map_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("..2030_01")).unwrap();
        fs::write(dir.path().join("..2030_01/a.yaml"), "x").unwrap();
        symlink("..2030_01", dir.path().join("..data")).unwrap();
        symlink("..data/a.yaml", dir.path().join("a.yaml")).unwrap();
        assert_eq!(names(dir.path()), ["a.yaml"]);
        let real = fs::canonicalize(dir.path()).unwrap();
        assert!(read(dir.path()).folders.contains(&real.join("..2030_01")));
    }

    #[test]
    fn links_that_leave_are_refused_and_cycles_end() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("x.yaml"), "x").unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/a.yaml"), "x").unwrap();
        symlink(outside.path().join("x.yaml"), dir.path().join("out.yaml")).unwrap();
        symlink(outside.path(), dir.path().join("outdir")).unwrap();
        symlink("..", dir.path().join("sub/up")).unwrap();
        symlink("sub", dir.path().join("again")).unwrap();
        symlink("nowhere", dir.path().join("broken.yaml")).unwrap();
        symlink("nowhere", dir.path().join("README")).unwrap();
        assert_eq!(names(dir.path()), ["broken.yaml", "out.yaml", "outdir", "sub/a.yaml"]);
        assert_eq!(
            findings(dir.path()),
            [
                "P008 cannot be read: it does not exist",
                "P013 the link leads out of the policies folder",
                "P013 the link leads out of the policies folder",
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(findings(&dir.path().join("none")), ["P008 cannot read the policies folder: it does not exist"]);
        assert_eq!(findings(dir.path()), ["P012 no policy files in this folder"]);
        fs::write(dir.path().join("a.yaml"), b"ok: caf\xe9").unwrap();
        fs::write(dir.path().join("big.yaml"), vec![b' '; MAX_FILE_BYTES + 1]).unwrap();
        assert_eq!(findings(dir.path()), ["P008 the file is not UTF-8", "P006 more than 4 MiB"]);
        let files = read(dir.path());
        assert_eq!(files.sources.position(files.diagnostics[0].primary.span), (1, 8));
    }

    #[test]
    fn budgets_hold_for_the_whole_set() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..9 {
            fs::write(dir.path().join(format!("{n}.yaml")), vec![b' '; MAX_FILE_BYTES]).unwrap();
        }
        assert_eq!(findings(dir.path()), ["P006 the policy files together have more than 32 MiB"]);
        let deep = tempfile::tempdir().unwrap();
        let mut below = deep.path().to_owned();
        below.extend(std::iter::repeat_n("d", 500));
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join("a.yaml"), "x").unwrap();
        assert_eq!(findings(deep.path()), ["P006 more than 32 folders in each other"]);
        for n in 0..=MAX_FILES {
            fs::write(dir.path().join(format!("{n}.yaml")), "").unwrap();
        }
        assert_eq!(findings(dir.path()), ["P006 more than 1000 policy files"]);
    }
}
