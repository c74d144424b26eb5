//! The `[reserve]` table.

use super::super::Reserve;
use super::super::section::Section;

pub(super) fn reserve(mut section: Section<'_>) -> Reserve {
    let reserve = Reserve {
        disk: section.parsed("disk", "\"5 GiB\""),
        memory: section.parsed("memory", "\"1 GiB\""),
    };
    section.finish();
    reserve
}
