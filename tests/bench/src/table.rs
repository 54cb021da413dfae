//! What was measured, as a table in Markdown.

/// Rows beside their goals, and facts below.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<[String; 3]>,
    facts: Vec<String>,
}

impl Table {
    /// Adds a row, and shows it at once.
    pub(crate) fn row(&mut self, what: &str, goal: &str, measured: String) {
        eprintln!("{what}: {measured}");
        self.rows.push([what.to_owned(), goal.to_owned(), measured]);
    }

    /// Adds a line below the table.
    pub(crate) fn fact(&mut self, fact: String) {
        eprintln!("{fact}");
        self.facts.push(fact);
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("| what | goal | measured |\n|---|---:|---:|\n");
        self.rows.iter().for_each(|row| text.push_str(&format!("| {} |\n", row.join(" | "))));
        text.push('\n');
        self.facts.iter().for_each(|fact| text.push_str(&format!("- {fact}\n")));
        text
    }
}
