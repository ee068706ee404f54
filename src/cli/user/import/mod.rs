//! `user import`: users from a file of another system, all or none.
//!
//! Everything is looked at before anything is stored: every bad row is reported with its line. Hashes are stored as
//! they are and upgraded at the next login; passwords are hashed here.

mod checked;
mod fields;
pub(in crate::cli) mod read;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Args;
use zeroize::Zeroizing;

use crate::clock::{Clock as _, Timestamp};
use crate::secret::Secret;
use crate::server::SystemClock;
use crate::store::{Added, EndedBy, User};

use super::super::Terminal;
use super::super::exit::Exit;
use super::super::stores::{self, Issuers, Opened, printable};
use super::super::terminal::count;
use super::{Context, password, show};

use self::checked::{Checked, Login};
use self::read::{Bad, Origin, Reading};

/// The largest file: some 300,000 users.
const LARGEST: u64 = 64 * 1024 * 1024;

/// How many bad rows are shown.
const SHOWN: usize = 50;

/// Adds the users of a file: CSV, JSON, or an export of Django, Supabase, Auth0
///
/// What the file is, is found out from its content. A table needs a header; the columns are `username` (or `name`, or
/// `email`), `email`, `password_hash` (or `password`: a hash, or the password itself, which is then hashed), `roles`,
/// `scopes` (names separated by blanks or semicolons), `tenant`, `disabled`, `id` (kept if it is a UUID). JSON has the
/// same names: objects one a line, in an array, or in a dictionary by name as in FastAPI's tutorial.
///
/// All users are added, or none: every bad row is reported with its line, and `--skip-bad` leaves these out. With
/// `--update`, users whose names are taken get what the file states; these changes are made one after the other, and
/// can be repeated if they are interrupted.
///
/// Hashes of argon2, bcrypt, pbkdf2 and scrypt as Django, passlib, pwdlib, Werkzeug and Supabase store them are taken
/// over as they are, and upgraded at the next login.
#[derive(Args, Debug)]
pub struct Import {
    /// The file, or `-` for standard input
    file: PathBuf,
    /// What the file is, where that is not found out
    #[arg(long, value_name = "FORMAT")]
    from: Option<Origin>,
    /// Looks at everything and stores nothing
    #[arg(long)]
    dry_run: bool,
    /// Leaves bad rows out instead of adding none
    #[arg(long)]
    skip_bad: bool,
    /// Changes users who are there already
    #[arg(long)]
    update: bool,
    /// Also takes passwords that `user add` would refuse
    #[arg(long)]
    allow_weak: bool,
    /// Also with roles and scopes that the policy does not know
    #[arg(long)]
    yes: bool,
}

/// What is to be done.
struct Plan {
    new: Vec<Checked>,
    changed: Vec<(Checked, User)>,
}

impl Import {
    /// Runs the command.
    pub fn run(&self, context: &Context<'_>) -> Result<Exit, Exit> {
        let terminal = context.terminal;
        let now = SystemClock.now();
        let shown = if self.is_stdin() { "standard input".to_owned() } else { self.file.display().to_string() };
        let reading = {
            let text = self.text().map_err(|why| context.fail(format_args!("{shown}: {why}")))?;
            read::read(&text, self.from, now).map_err(|why| context.fail(format_args!("{shown}: {why}")))?
        };
        let Reading { origin, records, mut bad, skipped, unread } = reading;
        if !unread.is_empty() {
            terminal.err(format_args!("note: columns that are not read: {}\n", unread.join(", ")));
        }
        for (what, number) in &skipped {
            terminal.err(format_args!("note: left out: {number} {what}\n"));
        }
        if records.is_empty() && bad.is_empty() {
            return Err(context.fail(format_args!("{shown} ({}) has no users", origin.as_str())));
        }
        let rows = records.len() + bad.len();
        let checked = checked::check(records, self.allow_weak, &mut bad);

        // A dry run makes no store.
        let access = if self.dry_run { stores::Access::Read } else { stores::Access::Write };
        let mut opened = Opened::open(&context.config, terminal, stores::Access::Read)?;
        let plan = self.plan(checked, opened.as_ref(), &mut bad)?;
        let names_are_known = self.check_names(context, &plan)?;
        bad.sort_by_key(|bad| bad.line);
        let level = if self.skip_bad { "skipped" } else { "error" };
        for bad in bad.iter().take(SHOWN) {
            let name = bad.name.as_deref().map(|name| format!("`{}`: ", fields::printable(name))).unwrap_or_default();
            terminal.err(format_args!("{level}: {shown}:{}: {name}{}\n", bad.line, bad.why));
        }
        if bad.len() > SHOWN {
            terminal.err(format_args!("… and {} more\n", bad.len() - SHOWN));
        }
        if !bad.is_empty() && !self.skip_bad {
            terminal.err(format_args!(
                "\n{} of {}; nothing was stored\n\nhelp: --skip-bad imports the others\n",
                count(bad.len(), "bad row"),
                count(rows, "row")
            ));
            return Err(Exit::Found);
        }
        if !names_are_known {
            return Err(Exit::Found);
        }
        let summary = summary(&plan, origin, bad.len(), self.dry_run);
        if self.dry_run {
            terminal.out(format_args!("{summary}\n"));
            return Ok(Exit::Fine);
        }
        if opened.is_none() {
            opened = Opened::open(&context.config, terminal, access)?;
        }
        let Some(opened) = opened else { return Err(Exit::Found) };
        self.store(context, &opened, plan)?;
        terminal.out(format_args!("{summary}\n"));
        Ok(Exit::Fine)
    }

    fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }

    /// The whole text: at most [`LARGEST`] bytes, wiped when it was read.
    fn text(&self) -> Result<Zeroizing<String>, String> {
        let mut bytes = Zeroizing::new(Vec::new());
        let read = if self.is_stdin() {
            io::stdin().lock().take(LARGEST + 1).read_to_end(&mut bytes)
        } else {
            std::fs::File::open(&self.file).and_then(|file| {
                let size = file.metadata().map_or(0, |metadata| metadata.len()).min(LARGEST);
                bytes.reserve_exact(usize::try_from(size).unwrap_or(0) + 1);
                file.take(LARGEST + 1).read_to_end(&mut bytes)
            })
        };
        read.map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() as u64 > LARGEST {
            return Err(format!("larger than {} MiB: split it", LARGEST / 1024 / 1024));
        }
        match String::from_utf8(std::mem::take(&mut bytes)) {
            Ok(text) => Ok(Zeroizing::new(text)),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let bytes = Zeroizing::new(error.into_bytes());
                let line = bytes.iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
                let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
                let hint = if utf16 { "it is UTF-16; store it as UTF-8" } else { "it is not UTF-8" };
                Err(format!("line {line}: {hint}"))
            }
        }
    }

    /// Compares with the users who are there.
    fn plan(&self, checked: Vec<Checked>, opened: Option<&Opened>, bad: &mut Vec<Bad>) -> Result<Plan, Exit> {
        let mut plan = Plan { new: Vec::new(), changed: Vec::new() };
        let Some(opened) = opened else {
            plan.new = checked;
            return Ok(plan);
        };
        let mut by_account = HashMap::new();
        let mut by_id = HashMap::new();
        for (number, user) in checked.iter().enumerate() {
            by_account.insert(user.account.clone(), number);
            if let Some(id) = &user.id {
                by_id.insert(id.clone(), number);
            }
        }
        let mut known: BTreeMap<usize, User> = BTreeMap::new();
        let mut foreign_id: BTreeMap<usize, String> = BTreeMap::new();
        show::for_each(opened, |user| {
            let number = by_account.get(&user.account).copied();
            if let Some(number) = number {
                known.insert(number, user.clone());
            }
            if let Some(other) = by_id.get(&user.id)
                && Some(*other) != number
            {
                foreign_id.insert(*other, user.name.clone());
            }
            Ok(())
        })?;
        for (number, user) in checked.into_iter().enumerate() {
            let mut refuse = |user: Checked, why: String| {
                bad.push(Bad { line: user.line, name: Some(user.name), why });
            };
            match (known.remove(&number), foreign_id.remove(&number)) {
                (Some(known), _) if self.update => plan.changed.push((user, known)),
                (Some(known), _) => {
                    let as_other = if known.name == user.name {
                        String::new()
                    } else {
                        format!(", as `{}`", fields::printable(&known.name))
                    };
                    refuse(user, format!("there is a user of this name already{as_other} (--update changes users)"));
                }
                (None, Some(other)) => {
                    refuse(user, format!("user `{}` has the same id", fields::printable(&other)));
                }
                (None, None) => plan.new.push(user),
            }
        }
        Ok(plan)
    }

    /// Whether the policy knows all roles and scopes, or that does not matter.
    fn check_names(&self, context: &Context<'_>, plan: &Plan) -> Result<bool, Exit> {
        let users = || plan.new.iter().chain(plan.changed.iter().map(|(user, _)| user));
        let mut roles: BTreeMap<&str, usize> = BTreeMap::new();
        let mut scopes: BTreeMap<&str, usize> = BTreeMap::new();
        for user in users() {
            user.roles.iter().flatten().for_each(|role| *roles.entry(role).or_default() += 1);
            user.scopes.iter().flatten().for_each(|scope| *scopes.entry(scope).or_default() += 1);
        }
        if roles.is_empty() && scopes.is_empty() {
            return Ok(true);
        }
        let beside = context.beside();
        let vocabulary = beside.needed_vocabulary(context.terminal)?;
        let level = if self.yes { "warning" } else { "error" };
        let unknown_roles = roles.iter().filter(|(role, _)| !vocabulary.has_role(role));
        let unknown_scopes = scopes.iter().filter(|(scope, _)| !vocabulary.has_scope(scope));
        let lines: Vec<String> = unknown_roles
            .map(|(role, users)| (vocabulary.unknown_role(role), users))
            .chain(unknown_scopes.map(|(scope, users)| (vocabulary.unknown_scope(scope), users)))
            .map(|(line, users)| format!("{level}: {line} ({})\n", count(*users, "user")))
            .collect();
        for line in lines.iter().take(SHOWN) {
            context.terminal.err(line);
        }
        if !lines.is_empty() && !self.yes {
            context.terminal.err("\nhelp: --yes if the policy will have it later; nothing was stored\n");
        }
        Ok(lines.is_empty() || self.yes)
    }

    fn store(&self, context: &Context<'_>, opened: &Opened, plan: Plan) -> Result<(), Exit> {
        let Plan { new, changed } = plan;
        let quiet = context.global.quiet;
        let passwords: Vec<Secret<String>> =
            new.iter().chain(changed.iter().map(|(user, _)| user)).filter_map(Checked::plain).collect();
        let mut hashes = hash_all(context, &passwords, quiet)?.into_iter();
        let now = SystemClock.now();
        let users: Vec<User> = new.into_iter().map(|user| user.into_user(now, &mut hashes)).collect();
        let changed: Vec<(User, User)> = changed
            .into_iter()
            .map(|(checked, before)| (checked.change(before.clone(), now, &mut hashes), before))
            .collect();
        if let Added::Taken(taken) = opened.run(opened.stores.users.add(&users))? {
            let names: Vec<String> = taken
                .iter()
                .take(10)
                .filter_map(|number| users.get(*number))
                .map(|user| printable(&user.name))
                .collect();
            return Err(context
                .fail(format_args!("somebody else added {} in the meantime; nothing was stored", names.join(", "))));
        }
        self.change(context, opened, &changed, now, quiet)
    }

    fn change(
        &self,
        context: &Context<'_>,
        opened: &Opened,
        changed: &[(User, User)],
        now: Timestamp,
        quiet: bool,
    ) -> Result<(), Exit> {
        if changed.is_empty() {
            return Ok(());
        }
        let issuers: Issuers = context.beside().issuers(context.terminal);
        let mut progress = Progress::new(context.terminal, "changing", "user", changed.len(), quiet);
        let mut fewer = Vec::new();
        for (user, before) in changed {
            if same(user, before) {
                progress.step();
                continue;
            }
            context.update(opened, user)?;
            if hash_of(user) != hash_of(before) || (user.disabled && !before.disabled) {
                let (before, by) = (stores::this_second(now), EndedBy::User);
                opened.run(stores::end_all(&opened.stores, &issuers, &user.id, before, by, now))?;
            }
            let lost = |before: &[String], names: &[String]| before.iter().any(|name| !names.contains(name));
            if lost(&before.roles, &user.roles) || lost(&before.scopes, &user.scopes) {
                fewer.push(user);
            }
            progress.step();
        }
        progress.end();
        if fewer.is_empty() {
            return Ok(());
        }
        // As in `user grant`: tokens that still say more are refused.
        let begins = stores::turn_of_second();
        for user in fewer {
            let now = SystemClock.now();
            opened.run(stores::revoke_subject(&opened.stores, &issuers, &user.id, begins, now))?;
        }
        Ok(())
    }
}

fn same(one: &User, other: &User) -> bool {
    one.email == other.email
        && one.roles == other.roles
        && one.scopes == other.scopes
        && one.tenant == other.tenant
        && one.disabled == other.disabled
        && hash_of(one) == hash_of(other)
}

fn hash_of(user: &User) -> Option<&str> {
    user.hash.as_ref().map(|hash| hash.expose().as_str())
}

/// What was done, or would be.
fn summary(plan: &Plan, origin: Origin, skipped: usize, dry_run: bool) -> String {
    let mut kinds: BTreeMap<&'static str, usize> = BTreeMap::new();
    for user in plan.new.iter().chain(plan.changed.iter().map(|(user, _)| user)) {
        *kinds
            .entry(match &user.login {
                Login::None => "without a password",
                Login::Hash(_, format) => format,
                Login::Plain(_) => "hashed here",
            })
            .or_default() += 1;
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, number)| format!("{number} {kind}")).collect();
    let (added, changed) = if dry_run { ("would add", "would change") } else { ("added", "changed") };
    let mut out = format!("{added} {}", count(plan.new.len(), "user"));
    if !plan.changed.is_empty() {
        out.push_str(&format!(", {changed} {}", plan.changed.len()));
    }
    if skipped > 0 {
        out.push_str(&format!(", skipped {}", count(skipped, "bad row")));
    }
    if kinds.is_empty() {
        return out;
    }
    format!("{out} · read as {} · {}", origin.as_str(), kinds.join(", "))
}

/// Hashes passwords on all cores, in their order.
fn hash_all(context: &Context<'_>, passwords: &[Secret<String>], quiet: bool) -> Result<Vec<Secret<String>>, Exit> {
    if passwords.is_empty() {
        return Ok(Vec::new());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(passwords.len());
    let mut hashes: Vec<Option<Secret<String>>> = Vec::new();
    hashes.resize_with(passwords.len(), || None);
    let next = AtomicUsize::new(0);
    let (done, results) = mpsc::channel();
    let mut progress = Progress::new(context.terminal, "hashing", "password", passwords.len(), quiet);
    let mut failed = None;
    std::thread::scope(|scope| {
        for _ in 0..cores {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(password) = passwords.get(number) else { return };
                    if done.send((number, password::hash(password))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        while let Ok((number, hash)) = results.recv() {
            match hash {
                Ok(hash) => {
                    if let Some(slot) = hashes.get_mut(number) {
                        *slot = Some(hash);
                    }
                }
                Err(why) => failed = Some(why),
            }
            progress.step();
        }
    });
    progress.end();
    match failed {
        Some(why) => Err(context.fail(why)),
        None => Ok(hashes.into_iter().flatten().collect()),
    }
}

/// How far something is: on a terminal at once, elsewhere when it takes long.
struct Progress {
    terminal: Terminal,
    verb: &'static str,
    noun: &'static str,
    total: usize,
    done: usize,
    began: Instant,
    shown: Option<Instant>,
    quiet: bool,
}

impl Progress {
    fn new(terminal: Terminal, verb: &'static str, noun: &'static str, total: usize, quiet: bool) -> Self {
        Self { terminal, verb, noun, total, done: 0, began: Instant::now(), shown: None, quiet }
    }

    fn step(&mut self) {
        self.done += 1;
        let interactive = self.terminal.is_err_interactive();
        let (first, every) = if interactive {
            (Duration::from_millis(300), Duration::from_millis(200))
        } else {
            (Duration::from_secs(2), Duration::from_secs(10))
        };
        let due = match self.shown {
            None => self.began.elapsed() >= first,
            Some(shown) => shown.elapsed() >= every,
        };
        if self.quiet || !due || self.done >= self.total {
            return;
        }
        self.shown = Some(Instant::now());
        let Self { verb, noun, done, total, .. } = self;
        let rest = self.began.elapsed().as_secs_f64() / (*done as f64) * ((*total - *done) as f64);
        let line = format!("{verb} {} · {done} done · about {rest:.0} s left", count(*total, noun));
        if interactive {
            self.terminal.err(format_args!("\r\u{1b}[K{line}"));
        } else {
            self.terminal.err(format_args!("{line}\n"));
        }
    }

    fn end(&self) {
        if self.shown.is_some() && self.terminal.is_err_interactive() {
            self.terminal.err("\r\u{1b}[K");
        }
    }
}
