//! Tables of figures: printed, and kept where `cargo xtask soak evidence` wants them.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Directory of the tables.
const TABLES: &str = "LB_EVIDENCE_TABLES";

/// Adds a row to the table of this name; `heads` are its columns.
pub fn tell(name: &str, heads: &[&str], cells: &[String]) {
    let head = format!("{}{}", line(heads), line(&vec!["---"; heads.len()]));
    let row = line(cells);
    println!("{head}{row}");
    let Some(directory) = std::env::var_os(TABLES) else {
        return;
    };
    let path = PathBuf::from(directory).join(format!("{name}.md"));
    let mut options = File::options();
    let mut file = options.create(true).append(true).open(path).unwrap();
    if file.metadata().unwrap().len() == 0 {
        file.write_all(head.as_bytes()).unwrap();
    }
    file.write_all(row.as_bytes()).unwrap();
}

fn line<T: AsRef<str>>(cells: &[T]) -> String {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// The percentile of what is sorted: the smallest that `percent` of all do not exceed.
pub fn at<T: Copy + Default>(sorted: &[T], percent: usize) -> T {
    let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(place).copied().unwrap_or_default()
}

/// A time in a cell.
pub fn ms(span: Duration) -> String {
    format!("{} ms", span.as_millis())
}

#[test]
fn percentiles_are_of_what_is_there() {
    let sorted: Vec<usize> = (1..=100).collect();
    assert_eq!([50, 99, 100].map(|p| at(&sorted, p)), [50, 99, 100]);
    assert_eq!(at(&[7], 99), 7);
    assert_eq!(at::<usize>(&[], 50), 0);
}
