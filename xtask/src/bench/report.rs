//! What was measured, as a Markdown table or as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measure::Cost;

/// Who was measured, in the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Restic,
    Holdfast,
}

/// All measurements of one run.
#[derive(Default)]
pub(super) struct Report {
    /// What a reader must know of the machine and the run, one fact to a line.
    pub(super) facts: Vec<String>,
    costs: BTreeMap<(usize, String), Pair>,
}

#[derive(Default)]
struct Pair {
    operation: String,
    restic: Vec<Cost>,
    holdfast: Vec<Cost>,
}

/// One row, in JSON.
#[derive(Serialize)]
struct Row<'a> {
    operation: &'a str,
    data: &'a str,
    restic: Column,
    holdfast: Column,
    /// How many times as fast as restic.
    ratio: f64,
}

#[derive(Serialize)]
struct Column {
    seconds: Vec<f64>,
    seconds_median: f64,
    peak_mib: f64,
}

impl Report {
    /// Notes one measurement; rows stand in the order of `position`, then of the data's name.
    pub(super) fn add(&mut self, position: usize, operation: &str, data: &str, side: Side, cost: Cost) {
        let pair = self.costs.entry((position, data.to_owned())).or_default();
        operation.clone_into(&mut pair.operation);
        match side {
            Side::Restic => pair.restic.push(cost),
            Side::Holdfast => pair.holdfast.push(cost),
        }
    }

    /// The table, followed by the facts.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::from(
            "| operation | data | restic s | holdfast s | ratio | restic MiB | holdfast MiB |\n\
             |---|---|---:|---:|---:|---:|---:|\n",
        );
        for Row { operation, data, restic, holdfast, ratio } in self.rows() {
            text.push_str(&format!(
                "| {operation} | {data} | {:.2} | {:.2} | {ratio:.2} | {:.0} | {:.0} |\n",
                restic.seconds_median, holdfast.seconds_median, restic.peak_mib, holdfast.peak_mib
            ));
        }
        for fact in &self.facts {
            text.push_str(&format!("\n- {fact}"));
        }
        text
    }

    /// The same with every single measurement.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&serde_json::json!({ "facts": self.facts, "rows": self.rows() }))
    }

    fn rows(&self) -> Vec<Row<'_>> {
        self.costs
            .iter()
            .map(|((_, data), Pair { operation, restic, holdfast })| {
                let (restic, holdfast) = (Column::of(restic), Column::of(holdfast));
                let ratio = restic.seconds_median / holdfast.seconds_median;
                Row { operation, data, restic, holdfast, ratio }
            })
            .collect()
    }
}

impl Column {
    fn of(costs: &[Cost]) -> Self {
        let seconds: Vec<f64> = costs.iter().map(|cost| cost.seconds).collect();
        let peak_kib = costs.iter().map(|cost| cost.peak_kib).max().unwrap_or(0);
        Self { seconds_median: median(&seconds), seconds, peak_mib: peak_kib as f64 / 1024.0 }
    }
}

/// The middle value, or the mean of the two in the middle; of nothing, not a number.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n => (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        for (seconds, peak_kib) in [(3.0, 1024), (1.0, 4096), (9.0, 2048)] {
            report.add(1, "restore", "small", Side::Restic, Cost { seconds: seconds * 2.0, peak_kib: peak_kib * 10 });
            report.add(1, "restore", "small", Side::Holdfast, Cost { seconds, peak_kib });
        }
        for side in [Side::Holdfast, Side::Restic] {
            report.add(0, "init", "-", side, Cost { seconds: 1.0, peak_kib: 1024 });
        }
        report.facts.push("2 cores".into());
        report
    }

    #[test]
    fn the_table_has_medians_of_time_and_maxima_of_memory() {
        assert_eq!(
            report().markdown(),
            "| operation | data | restic s | holdfast s | ratio | restic MiB | holdfast MiB |\n\
             |---|---|---:|---:|---:|---:|---:|\n\
             | init | - | 1.00 | 1.00 | 1.00 | 1 | 1 |\n\
             | restore | small | 6.00 | 3.00 | 2.00 | 40 | 4 |\n\
             \n- 2 cores"
        );
    }

    #[test]
    fn json_keeps_every_measurement() {
        let json: serde_json::Value = serde_json::from_str(&report().json().unwrap()).unwrap();
        assert_eq!(json["rows"][1]["holdfast"]["seconds"], serde_json::json!([3.0, 1.0, 9.0]));
        assert_eq!(json["rows"][1]["ratio"], 2.0);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[5.0]), 5.0);
        assert!(median(&[]).is_nan());
    }
}
