//! P006, for what a check may cost.
//!
//! Names refer to names, templates cross templates: a small hostile file can ask for endless comparisons. All checks
//! of a run spend from one budget, in steps of some ten nanoseconds. A set of ten thousand ordinary routes needs
//! a few percent of it. When it is spent, the checks stop early and the set is refused.

use std::cell::Cell;
use std::rc::Rc;

use crate::diagnostic::{Code, Diagnostic, Span};

const STEPS: u64 = 20_000_000;

/// What is left. Clones share it.
#[derive(Clone)]
pub(super) struct Budget(Rc<Cell<u64>>);

impl Default for Budget {
    fn default() -> Self {
        Self(Rc::new(Cell::new(STEPS)))
    }
}

impl Budget {
    /// Takes some steps, and says whether there were any left.
    pub(super) fn spend(&self, steps: usize) -> bool {
        let left = self.0.get().saturating_sub(steps as u64);
        self.0.set(left);
        left > 0
    }

    /// What is said when it is spent.
    pub(super) fn report(&self) -> Option<Diagnostic> {
        (self.0.get() == 0).then(|| {
            let message = "names or templates refer to each other too often to be checked";
            Diagnostic::new(Code::P006, message, Span::default(), "the set as a whole")
                .help("split the set, or write fewer requirements that are made of others")
        })
    }
}
