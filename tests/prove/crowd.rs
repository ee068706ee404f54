//! Work in many equal parts, on all cores.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use crate::run::Run;

/// Does parts 0 to `parts` - 1 on as many threads as there are cores, and gives each result to `take`, in whatever order
/// they are ready. A panic in a part is a failure of the figure.
pub fn work<T: Send>(
    run: &mut Run,
    what: &str,
    parts: u64,
    part: impl Fn(u64) -> T + Sync,
    mut take: impl FnMut(&mut Run, T),
) {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let (done, results) = mpsc::channel();
        for _ in 0..threads {
            let (done, next, part) = (done.clone(), &next, &part);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= parts {
                        return;
                    }
                    let result = catch_unwind(AssertUnwindSafe(|| part(number)));
                    if done.send((number, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for (count, (number, result)) in (1..).zip(results) {
            run.progress(what, count, parts);
            match result {
                Ok(result) => take(run, result),
                Err(_) => run.fail(format!("{what}: part {number} panicked")),
            }
        }
    });
}
