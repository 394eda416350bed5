//! How the next kernel is kept off the pools.

use std::fmt;

use super::capability::{Capability, Fact};
use super::{HandoverError, KhoPoolError, Pool};

/// The protection of all pools of one load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protection {
    /// RAM in the e820, a node in the device tree and `pmpool=`. The physical half
    /// of KASLR is switched off, because it runs before the kernel reads the tree.
    Kernel,
    /// Type 2 in the e820: every kernel keeps off, and has no struct pages for it.
    Reserved,
    /// RAM in the e820, and a SETUP_INDIRECT node over it: KASLR avoids it and
    /// memblock reserves it (Linux 5.5 and later).
    Indirect,
    /// RAM in the e820, preserved by Kexec Handover, and `reserve_mem=` on the command line,
    /// by which the kernel takes it back.
    Kho,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Reserved => "reserved",
            Self::Indirect => "indirect",
            Self::Kho => "kho",
        })
    }
}

/// A pool as it is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPool {
    /// The pool.
    pub pool: Pool,
    /// Where it is known from.
    pub origin: &'static str,
    /// How the next kernel is kept off it.
    pub protection: Protection,
    /// Why it is protected so.
    pub reason: String,
}

/// The protection, and why it was taken: `kernel` where the target is known to
/// understand pools, else `kho` where Kexec Handover is known to preserve them, else
/// `indirect` where the target is known not to understand pools (`reserved` where it
/// does not know SETUP_INDIRECT either), and an error that spells out the choice
/// where nothing is known. `by_kho` says whether Kexec Handover preserves pools, and why.
///
/// # Errors
/// When nothing is known and no protection was requested, or when the target is
/// known to ignore the requested one, or not known to honour it.
pub fn choose(
    wish: Option<Protection>,
    assume_pmpool: bool,
    target: &Capability,
    by_kho: (Fact, String),
) -> Result<(Protection, String), HandoverError> {
    let facts = [("CONFIG_OF", &target.of), ("CONFIG_PMPOOL", &target.pmpool)];
    let lacking = facts.iter().find(|(_, fact)| fact.value == Fact::No);
    let unknown = facts.iter().find(|(_, fact)| fact.value == Fact::Unknown);
    let taken = |protection, why: String| Ok((protection, why));
    let asked = || "asked for with --pool-protect".to_owned();
    match (wish, lacking, unknown) {
        (Some(Protection::Reserved), ..) => taken(Protection::Reserved, asked()),
        (Some(Protection::Indirect), ..) if !target.knows_indirect() => {
            Err(HandoverError::TargetIgnoresIndirect)
        }
        (Some(Protection::Indirect), ..) => taken(Protection::Indirect, asked()),
        (Some(Protection::Kho), ..) => match by_kho {
            (Fact::Yes, _) => taken(Protection::Kho, asked()),
            (Fact::No, why) => Err(KhoPoolError::NotRead(why).into()),
            (Fact::Unknown, why) => Err(KhoPoolError::Unknown(why).into()),
        },
        (Some(Protection::Kernel), Some((option, fact)), _) => {
            Err(HandoverError::TargetIgnoresPools {
                option,
                read_from: fact.read_from.clone(),
            })
        }
        (None, lacking, unknown)
            if by_kho.0 == Fact::Yes
                && (lacking.is_some() || unknown.is_some() && !assume_pmpool) =>
        {
            taken(Protection::Kho, by_kho.1)
        }
        (None, Some((option, fact)), _) => {
            let (protection, more) = if target.knows_indirect() {
                (Protection::Indirect, "")
            } else {
                (Protection::Reserved, ", and does not know SETUP_INDIRECT")
            };
            taken(
                protection,
                format!("the next kernel has no {option} ({}){more}", fact.read_from),
            )
        }
        (None | Some(Protection::Kernel), None, Some(_)) if assume_pmpool => taken(
            Protection::Kernel,
            "--assume-pmpool says that the next kernel supports pools".to_owned(),
        ),
        (None | Some(Protection::Kernel), None, Some((option, _))) => {
            Err(HandoverError::UnknownTarget {
                option,
                wished: wish.is_some(),
            })
        }
        (None | Some(Protection::Kernel), None, None) => {
            let read_from = &target.pmpool.read_from;
            taken(
                Protection::Kernel,
                format!("the next kernel has CONFIG_OF and CONFIG_PMPOOL ({read_from})"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carry::capability::ConfigFact;

    fn target(of: Fact, pmpool: Fact) -> Capability {
        let fact = |value| ConfigFact {
            value,
            read_from: "a test".to_owned(),
        };
        Capability {
            of: fact(of),
            pmpool: fact(pmpool),
            setup_type_max: Some(0x8000_0009),
            ..Capability::unknown()
        }
    }

    fn no_kho() -> (Fact, String) {
        (Fact::No, "no Kexec Handover".to_owned())
    }

    /// Kexec Handover is taken where it is known to preserve pools, and the target is not
    /// known to take them over itself.
    #[test]
    fn kexec_handover_before_what_works_with_any_kernel() {
        use Fact::{No, Unknown, Yes};
        let chosen = |wish, assume, pmpool, kho| {
            let target = target(Yes, pmpool);
            choose(wish, assume, &target, (kho, "why".to_owned()))
        };
        let default = |assume, pmpool| chosen(None, assume, pmpool, Yes).unwrap();
        for pmpool in [No, Unknown] {
            let why = "why".to_owned();
            assert_eq!(default(false, pmpool), (Protection::Kho, why));
        }
        assert_eq!(default(false, Yes).0, Protection::Kernel);
        assert_eq!(default(true, Unknown).0, Protection::Kernel);
        assert_eq!(default(true, No).0, Protection::Kho);
        assert_eq!(
            chosen(None, false, No, Unknown).unwrap().0,
            Protection::Indirect
        );

        let wish = |kho| chosen(Some(Protection::Kho), false, Yes, kho);
        assert_eq!(wish(Yes).unwrap().0, Protection::Kho);
        for kho in [No, Unknown] {
            let error = wish(kho).unwrap_err();
            assert_eq!(error.to_string(), "--pool-protect kho is not possible: why");
            let hint = error.hint().unwrap();
            assert_eq!(hint.contains("--assume-kho"), kho == Unknown, "{hint}");
        }
    }

    #[test]
    fn the_default_follows_what_is_known() {
        use Fact::{No, Unknown, Yes};
        let default = |of, pmpool| {
            choose(None, false, &target(of, pmpool), no_kho()).map(|(protection, _)| protection)
        };
        assert_eq!(default(Yes, Yes).unwrap(), Protection::Kernel);
        for (of, pmpool) in [(No, Yes), (Yes, No), (No, Unknown), (Unknown, No)] {
            assert_eq!(
                default(of, pmpool).unwrap(),
                Protection::Indirect,
                "{of:?} {pmpool:?}"
            );
        }
        for (of, pmpool) in [(Unknown, Unknown), (Yes, Unknown), (Unknown, Yes)] {
            let error = default(of, pmpool).unwrap_err();
            assert!(
                matches!(error, HandoverError::UnknownTarget { wished: false, .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn a_kernel_that_ignores_pools_is_never_booted_by_accident() {
        let wish = |of, assume| {
            choose(
                Some(Protection::Kernel),
                assume,
                &target(of, Fact::Yes),
                no_kho(),
            )
        };
        assert!(matches!(
            wish(Fact::No, true),
            Err(HandoverError::TargetIgnoresPools {
                option: "CONFIG_OF",
                ..
            })
        ));
        assert!(matches!(
            wish(Fact::Unknown, false),
            Err(HandoverError::UnknownTarget { wished: true, .. })
        ));
        assert_eq!(wish(Fact::Unknown, true).unwrap().0, Protection::Kernel);
    }

    #[test]
    fn a_kernel_that_knows_no_indirect_nodes_gets_none() {
        for setup_type_max in [None, Some(9)] {
            let target = Capability {
                setup_type_max,
                ..target(Fact::No, Fact::No)
            };
            assert_eq!(
                choose(None, false, &target, no_kho()).unwrap().0,
                Protection::Reserved
            );
            let wish = choose(Some(Protection::Indirect), false, &target, no_kho());
            assert!(matches!(wish, Err(HandoverError::TargetIgnoresIndirect)));
        }
    }

    #[test]
    fn the_safe_ones_are_always_to_be_had() {
        for protection in [Protection::Reserved, Protection::Indirect] {
            let chosen = choose(
                Some(protection),
                false,
                &target(Fact::Unknown, Fact::Unknown),
                no_kho(),
            )
            .unwrap();
            assert_eq!(chosen.0, protection);
        }
    }
}
