//! Carries out a load, from the files to the record of what is loaded:
//!
//! ```text
//! let files = Files::open(&job)?;
//! let contents = files.contents()?;
//! let prepared = Prepared::new(&job, &files, &contents)?;
//! let plan = prepared.plan(&host, root)?;
//! let loaded = session.load(&prepared, &host, plan)?;
//! ```

pub mod armed;
mod call;
pub mod carry;
pub mod door;
mod exec_page;
pub mod files;
pub mod initrds;
pub mod lock;
pub mod prepared;
pub mod record;
mod record_v1;
mod rescue;
pub mod session;
pub mod watchdog;

pub use call::{After, LoadError};
pub use door::{RunningKernel, ThisKernel};
pub use exec_page::stamp;
pub use files::Files;
pub use prepared::{ModulesForLinux, Prepared};
pub use session::{Session, Tell};

#[cfg(test)]
#[path = "fake_tests.rs"]
pub(crate) mod fake;
