//! Aligned columns.

use crate::serve::text::plain;

/// A table being filled. Numbers stand right, text stands left.
#[derive(Debug, Default)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    title: &'static str,
    right: bool,
}

impl Table {
    /// Columns by their titles: `>` before a title puts it right.
    pub fn new(titles: &[&'static str]) -> Self {
        let column = |title: &&'static str| match title.strip_prefix('>') {
            Some(title) => Column { title, right: true },
            None => Column { title, right: false },
        };
        Self { columns: titles.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row; what acts on terminals is made harmless.
    pub fn row<T: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(|cell| plain(cell.as_ref())).collect());
    }

    /// The lines, or `otherwise` if there are no rows. A column whose cells are all empty is left out.
    pub fn show(&self, otherwise: &str) -> String {
        if self.rows.is_empty() {
            return format!("{otherwise}\n");
        }
        let cell = |row: &'_ Vec<String>, at: usize| row.get(at).cloned().unwrap_or_default();
        let shown: Vec<(usize, Column, usize)> = self
            .columns
            .iter()
            .enumerate()
            .filter_map(|(at, column)| {
                let widest = self.rows.iter().map(|row| cell(row, at).chars().count()).max().unwrap_or(0);
                (widest > 0).then(|| (at, *column, widest.max(column.title.chars().count())))
            })
            .collect();
        let line = |texts: Vec<String>| {
            let mut line = String::new();
            for (text, (_, column, width)) in texts.iter().zip(&shown) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                let gap = " ".repeat(width.saturating_sub(text.chars().count()));
                match column.right {
                    true => line.extend([gap.as_str(), text]),
                    false => line.extend([text, gap.as_str()]),
                }
            }
            format!("{}\n", line.trim_end())
        };
        let mut out = line(shown.iter().map(|(_, column, _)| column.title.to_owned()).collect());
        for row in &self.rows {
            out.push_str(&line(shown.iter().map(|(at, ..)| cell(row, *at)).collect()));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let mut table = Table::new(&["SERVICE", "NAMESPACE", ">REQUESTS"]);
        table.row(["cart", "", "5"]);
        table.row(["a\nb", "", "1,234,567"]);
        assert_eq!(table.show("none"), "SERVICE   REQUESTS\ncart             5\na\\u{a}b  1,234,567\n");
        assert_eq!(Table::new(&["A"]).show("No services."), "No services.\n");
    }
}
