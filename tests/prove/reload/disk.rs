//! What happens to a policies folder: ways to write a good policy, and what must never go live.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is put in the place of a policy, or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hostile {
    Truncated,
    Empty,
    Bomb,
    Mode,
    Deleted,
    Dangling,
    Huge,
    Secret,
    FailingTest,
    Half,
    Directory,
    Pipe,
    NotText,
    Thousands,
    Duplicate,
    LinkOutside,
}

pub const HOSTILE: [Hostile; 16] = [
    Hostile::Truncated,
    Hostile::Empty,
    Hostile::Bomb,
    Hostile::Mode,
    Hostile::Deleted,
    Hostile::Dangling,
    Hostile::Huge,
    Hostile::Secret,
    Hostile::FailingTest,
    Hostile::Half,
    Hostile::Directory,
    Hostile::Pipe,
    Hostile::NotText,
    Hostile::Thousands,
    Hostile::Duplicate,
    Hostile::LinkOutside,
];

pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A site's policies folder.
pub struct Disk {
    root: PathBuf,
    folder: PathBuf,
    /// The rest of a policy of which half is written.
    rest: Option<String>,
    swaps: usize,
}

impl Disk {
    pub fn new(site: &Path) -> Self {
        Self { root: site.to_owned(), folder: site.join("policies"), rest: None, swaps: 0 }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("policy.yaml")
    }

    /// Puts a policy in place, in one of the ways in which people and programs do that; says which.
    pub fn good(&mut self, number: u64, text: &str) -> &'static str {
        if let Some(rest) = self.rest.take() {
            use std::io::Write as _;
            let mut file = fs::File::options().append(true).open(self.file()).unwrap();
            file.write_all(rest.as_bytes()).unwrap();
            return "the rest of a file that was half written";
        }
        match number % 5 {
            0 => {
                self.plain();
                fs::write(self.folder.join("policy.yaml~"), text).unwrap();
                fs::rename(self.folder.join("policy.yaml~"), self.file()).unwrap();
                "renamed into place"
            }
            1 => {
                self.plain();
                fs::write(self.file(), text).unwrap();
                "written in place"
            }
            2 => {
                self.plain();
                let _ = fs::remove_file(self.file());
                fs::write(self.file(), text).unwrap();
                "removed and written anew"
            }
            3 => {
                self.swap(text.as_bytes());
                self.others();
                "links swapped, as Kubernetes does"
            }
            _ => {
                let (fresh, old) = (self.root.join("policies.fresh"), self.root.join("policies.old"));
                fs::create_dir(&fresh).unwrap();
                fs::write(fresh.join("policy.yaml"), text).unwrap();
                fs::rename(&self.folder, &old).unwrap();
                fs::rename(&fresh, &self.folder).unwrap();
                fs::remove_dir_all(old).unwrap();
                "the folder replaced"
            }
        }
    }

    /// Puts something in place that must not go live. `next` is a good policy.
    pub fn hostile(&mut self, kind: Hostile, next: &str) {
        let cut = next.find("{ scope").unwrap() + 4; // within braces: never a whole document
        match kind {
            Hostile::Truncated => self.put(&next.as_bytes()[..cut]),
            Hostile::Empty => self.put(b""),
            Hostile::Bomb => {
                let mut bomb = String::from("version: 1\nx0: &x0 [a, a, a, a, a, a, a, a, a]\n");
                for level in 1..30 {
                    let below = vec![format!("*x{}", level - 1); 9].join(", ");
                    bomb.push_str(&format!("x{level}: &x{level} [{below}]\n"));
                }
                self.put(bomb.as_bytes());
            }
            Hostile::Mode => fs::set_permissions(self.file(), fs::Permissions::from_mode(0o000)).unwrap(),
            Hostile::Deleted => fs::remove_file(self.file()).unwrap(),
            Hostile::Dangling => {
                let link = self.folder.join("..data_tmp");
                symlink("..nowhere", &link).unwrap();
                fs::rename(link, self.folder.join("..data")).unwrap();
                self.link();
            }
            Hostile::Huge => {
                let beside = self.folder.join("policy.yaml~");
                fs::File::create(&beside).unwrap().set_len(100 * 1024 * 1024).unwrap();
                fs::rename(beside, self.file()).unwrap();
            }
            Hostile::Secret => self.put(next.replace("env:SECRET_KEY", "file:/nowhere/secret").as_bytes()),
            Hostile::FailingTest => self.put(next.replace("another: 403", "another: allow").as_bytes()),
            Hostile::Half => {
                self.put(&next.as_bytes()[..cut]);
                self.rest = Some(next[cut..].to_owned());
            }
            Hostile::Directory => {
                fs::remove_file(self.file()).unwrap();
                fs::create_dir(self.file()).unwrap();
            }
            Hostile::Pipe => {
                fs::remove_file(self.file()).unwrap();
                assert!(Command::new("mkfifo").arg(self.file()).status().unwrap().success());
            }
            Hostile::NotText => self.put(b"version: 1\n\xff\xfe\n"),
            Hostile::Thousands => {
                // In one step: the first few hundred would be a good set.
                let many = self.root.join("many");
                fs::create_dir(&many).unwrap();
                for number in 0..3000 {
                    fs::write(many.join(format!("{number}.yaml")), "version: 1\n").unwrap();
                }
                fs::rename(many, self.folder.join("many")).unwrap();
            }
            Hostile::Duplicate => fs::write(self.folder.join("other.yaml"), next).unwrap(),
            Hostile::LinkOutside => {
                fs::write(self.root.join("outside.yaml"), next).unwrap();
                let link = self.folder.join("policy.yaml~");
                symlink(self.root.join("outside.yaml"), &link).unwrap();
                fs::rename(link, self.file()).unwrap();
            }
        }
    }

    /// Other content, in the way in which the present one came.
    fn put(&mut self, content: &[u8]) {
        if fs::symlink_metadata(self.file()).is_ok_and(|file| file.is_symlink()) {
            return self.swap(content);
        }
        let beside = self.folder.join("policy.yaml~");
        fs::write(&beside, content).unwrap();
        fs::rename(beside, self.file()).unwrap();
    }

    /// A new folder behind `..data`, as for a mounted ConfigMap.
    fn swap(&mut self, content: &[u8]) {
        self.swaps += 1;
        let name = format!("..at-{}", self.swaps);
        fs::create_dir(self.folder.join(&name)).unwrap();
        fs::write(self.folder.join(&name).join("policy.yaml"), content).unwrap();
        let (link, data) = (self.folder.join("..data_tmp"), self.folder.join("..data"));
        let old = fs::read_link(&data).ok();
        symlink(&name, &link).unwrap();
        fs::rename(link, data).unwrap();
        self.link();
        if let Some(old) = old {
            let _ = fs::remove_dir_all(self.folder.join(old));
        }
    }

    /// The policy is a link through `..data`.
    fn link(&self) {
        if fs::read_link(self.file()).is_ok_and(|to| to == Path::new("..data/policy.yaml")) {
            return;
        }
        if self.file().is_dir() {
            fs::remove_dir(self.file()).unwrap();
        }
        let link = self.folder.join("policy.yaml~");
        symlink("..data/policy.yaml", &link).unwrap();
        fs::rename(link, self.file()).unwrap();
    }

    /// Takes away what lies beside the policy.
    fn others(&self) {
        let _ = fs::remove_dir_all(self.folder.join("many"));
        let _ = fs::remove_file(self.folder.join("other.yaml"));
    }

    /// Back to one plain file, or none.
    fn plain(&self) {
        self.others();
        let Ok(file) = fs::symlink_metadata(self.file()) else { return };
        if file.is_dir() {
            fs::remove_dir(self.file()).unwrap();
        } else if !file.is_file() {
            fs::remove_file(self.file()).unwrap();
        }
        let _ = fs::set_permissions(self.file(), fs::Permissions::from_mode(0o644));
        for entry in fs::read_dir(&self.folder).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("..") {
                let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path()));
            }
        }
    }
}
