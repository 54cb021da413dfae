//! Tables as people read them: a line under the header, none between the columns.

use comfy_table::{Cell, CellAlignment, Table};
use comfy_table::{LineStyle, TableStyle};

/// The room right of a column, in characters, beside the one that stands between all columns.
const GAP: u16 = 1;

/// An empty table with that header.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('-').junction('-')));
    table.set_header(header.to_vec());
    table
}

/// A cell of a number, aligned to the right.
pub(crate) fn number(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// The table's text.
pub(crate) fn render(mut table: Table) -> String {
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, GAP));
    });
    table.trim_fmt()
}
