//! What /proc/iomem says of memory: the deepest resource that names a kind of it.

use super::layer::Layer;
use crate::base::{PhysRange, Told};
use crate::host::iomem::Resource;

/// What a resource name says of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Class {
    /// `System RAM`.
    Ram,
    /// `System RAM (DRIVER)`, or plain System RAM below a device; with the
    /// type of the range that holds it, where that one has a name.
    Driver {
        driver: String,
        name: String,
        holder: Option<Told>,
    },
    /// A range with an e820 type that is not RAM.
    Typed(Told),
    /// `Unknown E820 type`.
    Unknown,
}

impl Class {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Ram => "System RAM".to_owned(),
            Self::Driver { name, .. } => name.clone(),
            Self::Typed(kind) => kind.name().to_owned(),
            Self::Unknown => "Unknown E820 type".to_owned(),
        }
    }

    /// `added_by` is the driver of the memory device that the resource lies below.
    fn of(name: &str, parent: Option<&Self>, added_by: Option<&str>) -> Option<Self> {
        let holder = || match parent {
            Some(Self::Typed(kind)) => Some(*kind),
            Some(Self::Driver { holder, .. }) => *holder,
            _ => None,
        };
        if let Some(driver) = name
            .strip_prefix("System RAM (")
            .and_then(|rest| rest.strip_suffix(')'))
        {
            let (driver, name) = (driver.to_owned(), name.to_owned());
            return Some(Self::Driver {
                driver,
                name,
                holder: holder(),
            });
        }
        match (Told::from_name(name), added_by) {
            (Some(Told::RAM), Some(driver)) => Some(Self::Driver {
                driver: driver.to_owned(),
                name: "System RAM below a device".to_owned(),
                holder: holder(),
            }),
            (Some(Told::RAM), None) => Some(Self::Ram),
            (Some(kind), _) => Some(Self::Typed(kind)),
            (None, _) if name.eq_ignore_ascii_case("Unknown E820 type") => Some(Self::Unknown),
            (None, _) => parent.cloned(),
        }
    }
}

/// The driver that adds the RAM below a resource of this name, if that is a
/// memory device: kernels before 5.8 call such RAM plain System RAM.
fn memory_driver(name: &str) -> Option<&'static str> {
    let numbered = |prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    if name.starts_with("Persistent Memory") || numbered("dax") {
        Some("kmem")
    } else {
        numbered("virtio").then_some("virtio_mem")
    }
}

/// Paints the resource and what is below it: the deepest name that says
/// something of memory wins.
pub(super) fn paint(
    resource: &Resource,
    parent: Option<&Class>,
    added_by: Option<&'static str>,
    layer: &mut Layer<Class>,
) {
    let class = Class::of(&resource.name, parent, added_by);
    let added_by = added_by.or_else(|| memory_driver(&resource.name));
    let mut at = resource.range.start();
    let fill = |layer: &mut Layer<Class>, start: u64, end: u64| {
        if let (Some(class), Ok(range)) = (&class, PhysRange::from_bounds(start, end)) {
            layer.push(range, class.clone());
        }
    };
    for child in &resource.children {
        fill(layer, at, child.range.start());
        paint(child, class.as_ref(), added_by, layer);
        at = child.range.end();
    }
    fill(layer, at, resource.range.end());
}
