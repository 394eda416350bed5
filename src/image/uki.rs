//! Unified kernel images: one PE file with a kernel, an initrd, a command line
//! and more, each in a section of its own.
//!
//! Source: the UAPI Group's "Unified Kernel Image" specification, systemd-stub(7)
//! and ukify(1). Of several sections of one name the first counts. A section
//! `.profile` begins a profile, which ends with the next one; what lies before
//! the first belongs to all of them, and what a profile has itself goes before.
//!
//! Nothing is unpacked or copied: every section is a part of the file's bytes.

use bstr::{BStr, BString, ByteSlice as _};
use goblin::pe::header::COFF_MACHINE_X86_64;

use super::pe::{self, Pe};
use super::signature::is_signed;
use super::{Image, ImageError, LinuxKernel, probe};
use crate::base::bytes::shown;

/// The name of the format.
pub const NAME: &str = "UKI";

/// Sections that are text.
const TEXT: [&str; 5] = [".cmdline", ".uname", ".osrel", ".profile", ".sbat"];

/// A unified kernel image for x86_64.
#[derive(Debug, Clone)]
pub struct Uki<'a> {
    file: &'a [u8],
    /// All sections, in the order of the file.
    pub sections: Vec<Section<'a>>,
    /// The profiles; a UKI without any has none.
    pub profiles: Vec<Profile>,
    /// The profile that is loaded, a number in `profiles`: at first number 0.
    pub chosen: Option<usize>,
}

/// A section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section<'a> {
    /// Its name: eight characters at most.
    pub name: String,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The profile it belongs to; `None`: all of them.
    pub profile: Option<usize>,
}

/// What a section `.profile` says of its profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// `ID=`, a short word; without control characters, as the title.
    pub id: Option<String>,
    /// `TITLE=`, for people.
    pub title: Option<String>,
}

/// A PE file with parts for a kernel that is elsewhere.
#[derive(Debug, Clone)]
pub struct Addon<'a>(Uki<'a>);

impl<'a> Section<'a> {
    /// Its text, when it is one of those that hold text: up to a NUL, without
    /// the white space at the end.
    #[must_use]
    pub fn text(&self) -> Option<&'a BStr> {
        TEXT.contains(&&*self.name).then(|| text(self.bytes))
    }
}

impl<'a> Uki<'a> {
    /// Reads the section table. `None`: not a PE file with a kernel in a section.
    ///
    /// # Errors
    /// When it is damaged, or made for another kind of machine.
    pub fn parse(file: &'a [u8]) -> Result<Option<Self>, ImageError> {
        let Some(pe) = Pe::parse(file).map_err(malformed)? else {
            return Ok(None);
        };
        if !pe.has(".linux") {
            return Ok(None);
        }
        for_this_machine(&pe)?;
        Self::of(file, pe).map(Some)
    }

    fn of(file: &'a [u8], pe: Pe<'a>) -> Result<Self, ImageError> {
        let sizes = pe.sections.iter().map(|section| section.bytes.len());
        // Overlapping sections would make the work on all sections quadratic.
        if sizes.sum::<usize>() > file.len() {
            let what = "its sections overlap: together they have more bytes than the file";
            return Err(malformed(what.to_owned()));
        }
        let mut profiles = Vec::new();
        let mut sections = Vec::with_capacity(pe.sections.len());
        for section in pe.sections {
            if section.name == ".profile" {
                profiles.push(profile(section.bytes));
            }
            sections.push(Section {
                name: section.name,
                bytes: section.bytes,
                profile: profiles.len().checked_sub(1),
            });
        }
        Ok(Self {
            file,
            sections,
            chosen: (!profiles.is_empty()).then_some(0),
            profiles,
        })
    }

    /// The same file with the profile that `wish` names: by its ID, or by its
    /// number (`1`, `@1`).
    ///
    /// # Errors
    /// When there is no such profile.
    pub fn choose(mut self, wish: &str) -> Result<Self, ImageError> {
        let by_id = self
            .profiles
            .iter()
            .position(|profile| profile.id.as_deref() == Some(wish));
        let number = || wish.strip_prefix('@').unwrap_or(wish).parse().ok();
        let exists = |number: &usize| *number < self.profiles.len();
        self.chosen = match by_id.or_else(number).filter(exists) {
            Some(number) => Some(number),
            None => {
                let names = self.profiles.iter().enumerate().map(|(number, profile)| {
                    let id = profile.id.as_deref();
                    id.map_or(number.to_string(), |id| format!("{number} ({id})"))
                });
                let names: Vec<String> = names.collect();
                return Err(ImageError::NoProfile {
                    wish: wish.to_owned(),
                    there: if names.is_empty() {
                        "it has no profiles".to_owned()
                    } else {
                        format!("it has {}", names.join(", "))
                    },
                });
            }
        };
        Ok(self)
    }

    /// The section of that name for the chosen profile.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&'a [u8]> {
        let find = |profile| {
            let mut all = self.sections.iter();
            all.find(|section| section.name == name && section.profile == profile)
                .map(|section| section.bytes)
        };
        self.chosen
            .and_then(|number| find(Some(number)))
            .or_else(|| find(None))
            .filter(|bytes| !bytes.is_empty())
    }

    /// The kernel inside.
    ///
    /// # Errors
    /// When the section holds no kernel, or not a Linux for x86_64.
    pub fn kernel(&self) -> Result<LinuxKernel<'a>, ImageError> {
        let inside = |error| ImageError::Inside {
            container: "the section .linux of the UKI".to_owned(),
            error: Box::new(error),
        };
        let Some(linux) = self.section(".linux") else {
            return Err(malformed(
                "the chosen profile has no section .linux".to_owned(),
            ));
        };
        let Image::Linux(mut kernel) = probe(linux).map_err(inside)? else {
            let what = "a multiboot kernel, and a UKI holds a Linux".to_owned();
            return Err(inside(ImageError::Unsupported(what)));
        };
        kernel.around.insert(0, NAME);
        Ok(kernel)
    }

    /// What comes before all other initrds: microcode, which the kernel looks
    /// for at the start, then the initrd.
    #[must_use]
    pub fn initrds(&self) -> Vec<&'a [u8]> {
        [".ucode", ".initrd"]
            .into_iter()
            .filter_map(|name| self.section(name))
            .collect()
    }

    /// The command line: control characters of ASCII are spaces, as systemd-stub makes
    /// them, and none is at its ends. All other bytes are handed on as they are.
    #[must_use]
    pub fn cmdline(&self) -> Option<BString> {
        let text = text(self.section(".cmdline")?);
        let space = |byte: &u8| if *byte < b' ' { b' ' } else { *byte };
        let line: Vec<u8> = text.iter().map(space).collect();
        Some(line.trim_ascii().into())
    }

    /// The device tree blob.
    #[must_use]
    pub fn dtb(&self) -> Option<&'a [u8]> {
        self.section(".dtb")
    }

    /// Whether the file is signed as a whole; `None` when that cannot be read.
    #[must_use]
    pub fn is_signed(&self) -> Option<bool> {
        is_signed(self.file)
    }
}

impl<'a> Addon<'a> {
    /// Reads an addon.
    ///
    /// # Errors
    /// When the file is no addon, or is damaged or made for another kind of machine.
    pub fn parse(file: &'a [u8]) -> Result<Self, ImageError> {
        let not = |why: &str| ImageError::Unsupported(format!("this is no addon for a UKI: {why}"));
        let pe = Pe::parse(file).map_err(malformed)?;
        let pe = pe.ok_or_else(|| not("it is no PE file"))?;
        if pe.has(".linux") {
            return Err(not("it has a kernel (.linux) of its own"));
        }
        // `.dtbauto` is for machines without ACPI: it makes the file an addon, but is not used.
        const PARTS: [&str; 5] = [".cmdline", ".dtb", ".initrd", ".ucode", ".dtbauto"];
        if !PARTS.iter().any(|name| pe.has(name)) {
            return Err(not(
                "it has none of .cmdline, .dtb, .initrd, .ucode and .dtbauto",
            ));
        }
        for_this_machine(&pe)?;
        Uki::of(file, pe).map(Self)
    }

    /// Its parts, by the same rules as those of a UKI.
    #[must_use]
    pub fn parts(&self) -> &Uki<'a> {
        &self.0
    }
}

fn for_this_machine(pe: &Pe<'_>) -> Result<(), ImageError> {
    if pe.machine == COFF_MACHINE_X86_64 {
        return Ok(());
    }
    Err(ImageError::Unsupported(format!(
        "a UKI or addon for {}: this program loads x86_64 kernels",
        pe::machine_name(pe.machine)
    )))
}

/// What a `.profile` says: lines as in os-release(5).
pub(super) fn profile(bytes: &[u8]) -> Profile {
    let value = |wanted: &[u8]| {
        let lines = text(bytes).lines();
        let mut values = lines.filter_map(|line| line.trim_ascii().strip_prefix(wanted));
        let value = values.next_back()?.trim_with(|c| c == '"' || c == '\'');
        // For terminals as well as for comparing.
        (!value.is_empty()).then(|| shown(value).to_string())
    };
    Profile {
        id: value(b"ID="),
        title: value(b"TITLE="),
    }
}

/// The text in a section: up to a NUL, without the white space at the end.
pub(super) fn text(bytes: &[u8]) -> &BStr {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    text.trim_ascii_end().as_bstr()
}

fn malformed(what: String) -> ImageError {
    ImageError::Malformed { format: NAME, what }
}

#[cfg(test)]
#[path = "uki_tests.rs"]
mod tests;
