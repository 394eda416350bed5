//! A picture of the memory map and the segments.
//!
//! Addresses are not to scale, for a few MiB beside many GiB would vanish:
//! every stretch gets a row, and its height grows with the logarithm of its size.

use std::fmt::Write as _;

use super::map::words;
use super::text::name;
use super::{human, range};

use crate::base::printable::inline;
use crate::base::{PhysRange, Target, Told};
use crate::image::Image;
use crate::plan::Plan;

const WIDTH: u32 = 960;
/// Where the heads of the columns stand.
const HEADS: u32 = 74;
/// Where the first row begins.
const TOP: u32 = 84;
const MAP_X: u32 = 220;
const MAP_WIDTH: u32 = 300;
const SEGMENT_X: u32 = 540;
const SEGMENT_WIDTH: u32 = 350;

const GIVEN: &str = "#b7e1a1";
const WITHHELD: &str = "#f4b6b6";
const RESERVED: &str = "#d0d0d0";
const ACPI: &str = "#9fc5e8";
const OTHER: &str = "#d5a6e8";
const SEGMENT: &str = "#ffb454";

/// One stretch of memory on which nothing changes.
struct Row {
    range: PhysRange,
    label: String,
    colour: &'static str,
    segment: Option<&'static str>,
}

/// What the colours mean.
const LEGEND: [(&str, &str); 6] = [
    (GIVEN, "RAM for the next kernel"),
    (WITHHELD, "not given to the next kernel"),
    (RESERVED, "reserved"),
    (ACPI, "ACPI"),
    (OTHER, "other memory"),
    (SEGMENT, "loaded part"),
];

/// Draws the plan for the kernel and the machine of these names.
pub(in crate::cli) fn plan(plan: &Plan<'_>, image: &Image<'_>, machine: Option<&str>) -> String {
    let rows = rows(plan);
    let heights: Vec<u32> = rows.iter().map(|row| height(row.range.size())).collect();
    let total = TOP + heights.iter().sum::<u32>() + 20;
    let kernel = name(image);
    let machine = machine.unwrap_or("this machine");
    let next = match plan.target() {
        Target::Normal => "next",
        Target::Crash => "crash",
    };
    let whose = format!("Memory of {machine}, and what the {next} kernel {kernel} gets of it");
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{total}\" \
         viewBox=\"0 0 {WIDTH} {total}\" font-family=\"monospace\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"24\" font-weight=\"bold\">{}</text>\n",
        escape(&inline(&whose))
    );
    svg.push_str(&legend());
    let _ = writeln!(
        svg,
        "<text x=\"10\" y=\"{HEADS}\" font-weight=\"bold\">addresses</text>\n\
         <text x=\"{MAP_X}\" y=\"{HEADS}\" font-weight=\"bold\">what it is</text>\n\
         <text x=\"{SEGMENT_X}\" y=\"{HEADS}\" font-weight=\"bold\">loaded parts ({})</text>",
        plan.syscall()
    );
    let mut y = TOP;
    for (row, height) in rows.iter().zip(&heights) {
        let text_y = y + 14;
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{text_y}\">{}</text>\n\
             <rect x=\"{MAP_X}\" y=\"{y}\" width=\"{MAP_WIDTH}\" height=\"{height}\" fill=\"{}\" stroke=\"#444\"/>\n\
             <text x=\"{}\" y=\"{text_y}\">{}</text>",
            range(row.range),
            row.colour,
            MAP_X + 6,
            escape(&row.label),
        );
        if let Some(role) = row.segment {
            let _ = writeln!(
                svg,
                "<rect x=\"{SEGMENT_X}\" y=\"{y}\" width=\"{SEGMENT_WIDTH}\" height=\"{height}\" \
                 fill=\"{SEGMENT}\" stroke=\"#444\"/>\n\
                 <text x=\"{}\" y=\"{text_y}\">{role}, {}</text>",
                SEGMENT_X + 6,
                human(row.range.size()),
            );
        }
        y += height;
    }
    svg.push_str("</svg>\n");
    svg
}

/// The colours in one line, each with its meaning.
fn legend() -> String {
    let mut svg = String::new();
    let mut x = 10;
    for (colour, meaning) in LEGEND {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"38\" width=\"12\" height=\"12\" fill=\"{colour}\" stroke=\"#444\"/>\n\
             <text x=\"{}\" y=\"48\">{meaning}</text>",
            x + 17
        );
        // A character of this font is a little more than 7 pixels wide.
        x += 35 + meaning.chars().map(|_| 8).sum::<u32>();
    }
    svg
}

/// The map's regions, cut where a segment begins or ends; lowest address first.
fn rows(plan: &Plan<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for region in plan.memory_map.regions() {
        let kind = words(&region.kind);
        let label = format!("{kind}, {}", human(region.range.size()));
        let colour = colour(region.told);
        let mut at = region.range.start();
        let mut push = |start, end, segment, label: &str| {
            if let Ok(range) = PhysRange::from_bounds(start, end) {
                rows.push(Row {
                    range,
                    label: label.to_owned(),
                    colour,
                    segment,
                });
            }
        };
        for segment in plan
            .segments()
            .iter()
            .filter(|segment| region.range.covers(segment.mem))
        {
            push(at, segment.mem.start(), None, &label);
            push(
                segment.mem.start(),
                segment.mem.end(),
                Some(segment.role.name()),
                &kind,
            );
            at = segment.mem.end();
        }
        push(at, region.range.end(), None, &label);
    }
    rows
}

/// Height of a row in pixels: 18 for a page, 6 more for each factor of 16.
fn height(size: u64) -> u32 {
    18 + size.max(4096).ilog2().saturating_sub(12) / 4 * 6
}

fn colour(e820: Option<Told>) -> &'static str {
    match e820 {
        Some(Told::RAM) => GIVEN,
        Some(Told::RESERVED | Told::UNUSABLE) => RESERVED,
        Some(Told::ACPI | Told::NVS) => ACPI,
        Some(_) => OTHER,
        None => WITHHELD,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
