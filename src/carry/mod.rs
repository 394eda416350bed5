//! State that survives the kexec: the device tree, pools, and rkexec's record.

pub mod capability;
pub mod gather;
pub mod kho;
mod kho_items;
pub mod kho_pools;
pub mod manifest;
pub mod phases;
pub mod pool;
pub mod pool_node;
pub mod protect;
pub mod record;
pub mod report;
pub mod reserved;
pub mod retrieve;
pub mod stamps;

pub use capability::{Capability, config_file};
pub use gather::Handover;
pub use kho::{KhoTarget, Reads};
pub use kho_pools::KhoPoolError;
pub use pool::Pool;
pub use protect::{PlannedPool, Protection};
pub use record::Record;
pub use report::Report;

use crate::base::{PhysRange, human};

/// What the operator asks for.
#[derive(Debug, Clone, Default)]
pub struct HandoverRequest {
    /// The blob of `--dtb`.
    pub dtb: Option<Vec<u8>>,
    /// The blob of a UKI. Without `--dtb` it is used, but only where a tree can be
    /// handed over: no option asked for it.
    pub uki_dtb: Option<Vec<u8>>,
    /// The pools of `--pool`.
    pub pools: Vec<Pool>,
    /// `--pool-protect`.
    pub protect: Option<Protection>,
    /// `--no-carry-pools`: forget the running kernel's tree and pools.
    pub no_carry: bool,
    /// `--assume-pmpool`.
    pub assume_pmpool: bool,
}

/// Why state cannot be handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// A blob is no device tree.
    #[error("{origin} cannot be passed to the next kernel")]
    Tree {
        /// Where the blob is from.
        origin: &'static str,
        /// What is wrong with it.
        #[source]
        source: crate::fdt::TreeError,
    },
    /// The node of a pool is malformed, or cannot be made.
    #[error("{origin} cannot be passed to the next kernel")]
    PoolNode {
        /// Where the tree is from.
        origin: &'static str,
        /// What is wrong with the node.
        #[source]
        source: pool_node::PoolNodeError,
    },
    /// The parameter `pmpool=` is malformed.
    #[error("pmpool= on the {line} command line names no pool")]
    Parameter {
        /// Which command line: `running` or `new`.
        line: &'static str,
        /// What is wrong with it.
        source: pool::PoolError,
    },
    /// The record of the last kexec is damaged.
    #[error(transparent)]
    Record(#[from] record::RecordError),
    /// One name, two places.
    #[error(
        "the pool {name} is at {carried} ({source_name}), and {option} puts it at {named}: a pool cannot move"
    )]
    Moved {
        /// Its node's name.
        name: String,
        /// As named now.
        named: String,
        /// By which option.
        option: &'static str,
        /// Where it is.
        carried: String,
        /// Where that is known from.
        source_name: &'static str,
    },
    /// One name for two pools of this command line.
    #[error("two pools have the name {name}: {first} ({of_first}) and {second} ({of_second})")]
    SameName {
        /// The name.
        name: String,
        /// The first one.
        first: String,
        /// By which option.
        of_first: &'static str,
        /// The second one.
        second: String,
        /// By which option.
        of_second: &'static str,
    },
    /// The new command line names another pool.
    #[error("the new command line says pmpool={given}, but the pool {name} is at {pool}")]
    Mismatch {
        /// The pool's node.
        name: String,
        /// Value on the command line.
        given: String,
        /// Value that would be right.
        pool: String,
    },
    /// Two pools share memory.
    #[error("the pools {0} and {1} overlap")]
    Overlap(String, String),
    /// A pool on memory that may be gone.
    #[error(
        "the pool {name} at {range:#} is in memory of the driver {driver}, which may remove it"
    )]
    DriverManaged {
        /// Its node's name.
        name: String,
        /// Where it lies.
        range: PhysRange,
        /// The driver.
        driver: String,
    },
    /// A pool on something that is no RAM.
    #[error("the pool {name} at {range:#} is outside the RAM of this machine: {what}")]
    OutsideRam {
        /// Its node's name.
        name: String,
        /// Where it lies.
        range: PhysRange,
        /// What is there instead.
        what: String,
    },
    /// The new command line takes a pool away.
    #[error("{word} on the new command line takes the memory of the pool {name} at {range:#} away")]
    TakenAway {
        /// Its node's name.
        name: String,
        /// Where it lies.
        range: PhysRange,
        /// The word that does it.
        word: String,
    },
    /// Protection `kernel` needs an alignment that the page allocator can take over.
    #[error(
        "the pool {name} at {range:#} does not begin and end on a multiple of {}, as --pool-protect kernel needs",
        human(gather::CMA_ALIGNMENT)
    )]
    Unaligned {
        /// Its node's name.
        name: String,
        /// Where it lies.
        range: PhysRange,
    },
    /// The target is known to ignore pools.
    #[error(
        "--pool-protect kernel is not possible: the next kernel has no {option} ({read_from}), and would overwrite the pools"
    )]
    TargetIgnoresPools {
        /// What it lacks.
        option: &'static str,
        /// Where that was read.
        read_from: String,
    },
    /// The target does not know the nodes of protection `indirect`.
    #[error(
        "--pool-protect indirect is not possible: the next kernel is older than Linux 5.5 (no SETUP_INDIRECT), and would overwrite the pools"
    )]
    TargetIgnoresIndirect,
    /// Kexec Handover cannot preserve the pools.
    #[error(transparent)]
    Kho(#[from] KhoPoolError),
    /// `pmpool=` names memory that is no pool of this load.
    #[error("the new command line says pmpool={0}, but no pool is passed to the next kernel there")]
    NoSuchPool(String),
    /// Nothing is known of the target.
    #[error(
        "it is not known whether the next kernel supports pools: nothing shows if it has {option}"
    )]
    UnknownTarget {
        /// What is not known.
        option: &'static str,
        /// `--pool-protect kernel` was given.
        wished: bool,
    },
}

impl HandoverError {
    /// A way out, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::UnknownTarget { .. } => Some(
                "use --pool-protect indirect (Linux 5.5 and later, the pool stays RAM) or --pool-protect \
                 reserved (every kernel); --assume-pmpool if you know that it has CONFIG_OF and CONFIG_PMPOOL",
            ),
            Self::TargetIgnoresPools { .. } => Some(
                "use --pool-protect indirect (Linux 5.5 and later) or --pool-protect reserved (every kernel)",
            ),
            Self::Kho(error) => Some(error.hint()),
            Self::TargetIgnoresIndirect => {
                Some("use --pool-protect reserved: it works with every kernel")
            }
            Self::TakenAway { .. } => Some(
                "remove it with --remove, or change it; if it only reserves the pool (memmap=nn$ss), use \
                 --pool-protect reserved",
            ),
            Self::NoSuchPool(_) => Some("pass it on with --pool BASE,SIZE, or use --remove pmpool"),
            Self::SameName { .. } => {
                Some("give each --pool a name of its own, for example --pool 512M,64M,name=a")
            }
            Self::DriverManaged { .. } | Self::OutsideRam { .. } => {
                Some("choose an address inside of one range of RAM: `rkexec memmap` shows them")
            }
            Self::Overlap(..) => Some("choose another address, or a smaller size, for one of them"),
            Self::Unaligned { .. } => {
                Some("choose such an address and size, or use --pool-protect indirect or reserved")
            }
            Self::Mismatch { .. } => Some("correct it, or leave it out with --remove pmpool"),
            Self::Moved { .. }
            | Self::Record(_)
            | Self::Parameter {
                line: "running", ..
            } => Some(
                "--no-carry-pools forgets the pools of the running kernel; then their contents are lost",
            ),
            Self::Tree { origin, .. } | Self::PoolNode { origin, .. }
                if *origin == gather::RUNNING =>
            {
                Some(
                    "--no-carry-pools leaves out that tree and its pools; then their contents are lost",
                )
            }
            _ => None,
        }
    }
}
