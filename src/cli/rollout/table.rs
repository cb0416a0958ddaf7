//! Columns as kubectl prints them: three spaces apart, none at the end of a line.

/// Widths of columns; rows that come later line up with the earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// A table whose columns fit all of these rows.
    pub fn fitting<'a>(rows: impl IntoIterator<Item = &'a Vec<String>>) -> Self {
        let mut widths: Vec<usize> = Vec::new();
        for row in rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        Self { widths }
    }

    /// One line, ending in a newline.
    pub fn line(&self, row: &[String]) -> String {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            let width = self.widths.get(i).copied().unwrap_or_default();
            line.push_str(&format!("{:width$}   ", one_line(cell)));
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

/// All rows, the first being the header.
pub fn render(rows: &[Vec<String>]) -> String {
    let table = Table::fitting(rows);
    rows.iter().map(|row| table.line(row)).collect()
}

/// Text from the cluster may hold line breaks and control characters; a table and a terminal must not follow them.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A cell for a text that may be empty.
pub fn cell(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|c| (*c).to_owned()).collect()
    }

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let rows = [row(&["NAME", "STATUS", "AGE"]), row(&["a-long-name", "ü", "5m"]), row(&["b", "Healthy", ""])];
        assert_eq!(render(&rows), "NAME          STATUS    AGE\na-long-name   ü         5m\nb             Healthy\n");
    }

    #[test]
    fn a_message_cannot_break_the_table_or_the_terminal() {
        assert_eq!(render(&[row(&["a\nb\u{1b}[31m", "c"])]), "a b [31m   c\n");
    }
}
