//! A picture of the memory map and the segments.
//!
//! Addresses are not to scale, for a few MiB beside many GiB would vanish:
//! every stretch gets a row, and its height grows with the logarithm of its size.

use std::fmt::Write as _;

use super::human;
use crate::base::{PhysRange, Told};
use crate::plan::Plan;

const WIDTH: u32 = 900;
const TOP: u32 = 40;
const MAP_X: u32 = 210;
const MAP_WIDTH: u32 = 300;
const SEGMENT_X: u32 = 530;
const SEGMENT_WIDTH: u32 = 350;

/// One stretch of memory on which nothing changes.
struct Row {
    range: PhysRange,
    label: String,
    colour: &'static str,
    segment: Option<&'static str>,
}

/// Draws the plan.
pub(in crate::cli) fn plan(plan: &Plan<'_>) -> String {
    let rows = rows(plan);
    let heights: Vec<u32> = rows.iter().map(|row| height(row.range.size())).collect();
    let total = TOP + heights.iter().sum::<u32>() + 20;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{total}\" \
         viewBox=\"0 0 {WIDTH} {total}\" font-family=\"monospace\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{MAP_X}\" y=\"24\" font-weight=\"bold\">memory map of the next kernel</text>\n\
         <text x=\"{SEGMENT_X}\" y=\"24\" font-weight=\"bold\">segments ({})</text>\n",
        plan.syscall()
    );
    let mut y = TOP;
    for (row, height) in rows.iter().zip(&heights) {
        let text_y = y + 14;
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{text_y}\">{:#014x}</text>\n\
             <rect x=\"{MAP_X}\" y=\"{y}\" width=\"{MAP_WIDTH}\" height=\"{height}\" fill=\"{}\" stroke=\"#444\"/>\n\
             <text x=\"{}\" y=\"{text_y}\">{}</text>",
            row.range.start(),
            row.colour,
            MAP_X + 6,
            escape(&row.label),
        );
        if let Some(role) = row.segment {
            let _ = writeln!(
                svg,
                "<rect x=\"{SEGMENT_X}\" y=\"{y}\" width=\"{SEGMENT_WIDTH}\" height=\"{height}\" \
                 fill=\"#ffb454\" stroke=\"#444\"/>\n\
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

/// The map's regions, cut where a segment begins or ends; lowest address first.
fn rows(plan: &Plan<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for region in plan.memory_map.regions() {
        let label = format!("{}, {}", region.kind.name(), human(region.range.size()));
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
                region.kind.name(),
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

fn colour(told: Option<Told>) -> &'static str {
    match told {
        Some(Told::RAM) => "#b7e1a1",
        Some(Told::RESERVED | Told::UNUSABLE) => "#d0d0d0",
        Some(Told::ACPI | Told::NVS) => "#9fc5e8",
        Some(_) => "#d5a6e8",
        None => "#f4b6b6",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
