//! What the program returns.

use std::process::{ExitCode, Termination};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: fine.
    Fine,
    /// 1: it ran and found something.
    Found,
    /// 2: it was called wrongly.
    Usage,
    /// 3: policies or settings are unreadable, or invalid for a command that needs valid ones.
    Invalid,
    /// 4: `explain --exit-code` denied.
    Denied,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Found => 1,
            Self::Usage => 2,
            Self::Invalid => 3,
            Self::Denied => 4,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}
