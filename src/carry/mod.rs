//! State that survives the kexec: the device tree, pools, and rkexec's record.

pub mod capability;
pub mod gather;
pub mod pool;
pub mod pool_node;
pub mod protect;
pub mod record;
pub mod report;

pub use capability::Capability;
pub use gather::Handover;
pub use pool::Pool;
pub use protect::{PlannedPool, Protection};
pub use record::Record;
pub use report::Report;

use crate::base::PhysRange;

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
    #[error("{origin} cannot be handed over")]
    Tree {
        /// Where the blob is from.
        origin: &'static str,
        /// What is wrong with it.
        #[source]
        source: crate::fdt::TreeError,
    },
    /// The node of a pool is malformed, or cannot be made.
    #[error("{origin} cannot be handed over")]
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
        "the pool {name} is {named} by --pool and {carried} by {source_name}: a pool cannot move"
    )]
    Moved {
        /// Its node's name.
        name: String,
        /// As named.
        named: String,
        /// As carried over.
        carried: String,
        /// Where the second one is from.
        source_name: &'static str,
    },
    /// The new command line names another pool.
    #[error("the new command line says pmpool={given}, and the pool {name} is {pool}")]
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
        "the pool {name} at {range} lies on memory of the driver {driver}: it may not be there at the next boot"
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
    #[error("the pool {name} at {range} lies outside the RAM: {what}")]
    OutsideRam {
        /// Its node's name.
        name: String,
        /// Where it lies.
        range: PhysRange,
        /// What is there instead.
        what: String,
    },
    /// The new command line takes a pool away.
    #[error("the new command line takes away the pool {name} at {range}: {word}")]
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
        "the pool {name} at {range} is not aligned to {:#x} bytes, as the kernel's CMA demands",
        gather::CMA_ALIGNMENT
    )]
    Unaligned {
        /// Its node's name.
        name: String,
        /// Where it lies.
        range: PhysRange,
    },
    /// The target is known to ignore pools.
    #[error("the next kernel would overwrite the pools: it has no {option} ({read_from})")]
    TargetIgnoresPools {
        /// What it lacks.
        option: &'static str,
        /// Where that was read.
        read_from: String,
    },
    /// The target does not know the nodes of protection `indirect`.
    #[error(
        "the next kernel would overwrite the pools: its kernel_info names no SETUP_INDIRECT (Linux 5.5)"
    )]
    TargetIgnoresIndirect,
    /// `pmpool=` names memory that is no pool of this load.
    #[error("the new command line says pmpool={0}, and no pool is handed over there")]
    NoSuchPool(String),
    /// Nothing is known of the target.
    #[error(
        "it is not known whether the next kernel supports pools: nothing says if it has {option}"
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
                "--assume-pmpool if it does (CONFIG_OF and CONFIG_PMPOOL); else --pool-protect indirect \
                 (Linux 5.5 and later, the pool stays RAM) or --pool-protect reserved (every kernel)",
            ),
            Self::TargetIgnoresPools { .. } => {
                Some("--pool-protect indirect or --pool-protect reserved keeps them whole")
            }
            Self::TargetIgnoresIndirect => {
                Some("--pool-protect reserved keeps them whole under every kernel")
            }
            Self::TakenAway { .. } => Some(
                "change that word, or take it off the line with --remove; where it only reserves the pool \
                 (memmap=nn$ss), --pool-protect reserved fits it",
            ),
            Self::NoSuchPool(_) => Some(
                "--pool BASE,SIZE hands it over; --remove pmpool takes it off the command line",
            ),
            Self::Moved { .. }
            | Self::Record(_)
            | Self::Parameter {
                line: "running", ..
            } => Some(
                "--no-carry-pools forgets the pools of the running kernel: their contents are lost then",
            ),
            Self::Tree { origin, .. } | Self::PoolNode { origin, .. }
                if *origin == gather::RUNNING =>
            {
                Some(
                    "--no-carry-pools leaves that tree behind, and its pools: their contents are lost then",
                )
            }
            _ => None,
        }
    }
}
