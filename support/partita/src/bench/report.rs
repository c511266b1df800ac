//! The figures of a run as a file that is never behind: it is written after every part, so that a part that fails takes
//! nothing with it that was measured before.

use std::{path::PathBuf, time::Instant};

use serde_json::{Map, Value, json};

use crate::{
    build, fail,
    failure::{Failure, Result},
};

/// What was measured so far.
pub struct Report {
    path: PathBuf,
    values: Map<String, Value>,
    /// Parts that failed, and why.
    failed: Vec<(String, String)>,
    start: Instant,
    last: Instant,
}

impl Report {
    /// An empty one, in the place of an earlier run's.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(path: PathBuf, commit: &str) -> Result<Self> {
        let values = Map::from_iter([("commit".to_owned(), commit.into())]);
        let now = Instant::now();
        let report = Self { path, values, failed: Vec::new(), start: now, last: now };
        report.write(false)?;
        Ok(report)
    }

    /// Keeps a part's figures, or why there are none. A part that failed may be followed by others.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn part(&mut self, name: &str, measured: Result<Map<String, Value>>) -> Result {
        let seconds = std::mem::replace(&mut self.last, Instant::now()).elapsed().as_secs();
        match measured {
            Ok(values) => {
                merge(&mut self.values, values);
                eprintln!("Part {name}: measured in {seconds} s");
            }
            Err(why) => {
                eprintln!("Part {name}: failed after {seconds} s: {why}");
                self.failed.push((name.to_owned(), why.to_string()));
            }
        }
        self.write(false)
    }

    /// Ends the run: it is complete if it had no part that failed.
    ///
    /// # Errors
    /// There was one; the file cannot be written.
    pub fn end(self) -> Result<PathBuf> {
        self.write(self.failed.is_empty())?;
        match self.failed.first() {
            None => Ok(self.path),
            Some((name, why)) => {
                fail!("not complete: {} part(s) failed, of which the first, {name}: {why}", self.failed.len())
            }
        }
    }

    fn write(&self, complete: bool) -> Result {
        let failed = self.failed.iter().map(|(part, why)| json!({ "part": part, "why": why }));
        let mut values = self.values.clone();
        values.insert("complete".into(), complete.into());
        values.insert("failed".into(), failed.collect());
        values.insert("seconds".into(), self.start.elapsed().as_secs().into());
        // A reader finds an old file or a new one, never half of one.
        let half = self.path.with_extension("json.part");
        build::write(&half, format!("{:#}\n", Value::Object(values)).as_bytes())?;
        std::fs::rename(&half, &self.path).map_err(|error| Failure::file("write", &self.path, &error))
    }
}

/// Adds values; objects of one name become one.
fn merge(to: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (to.get_mut(&key), value) {
            (Some(Value::Object(to)), Value::Object(from)) => merge(to, from),
            (_, value) => {
                to.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_was_measured_survives_what_fails_after_it() {
        let path = std::env::temp_dir().join(format!("partita-report-{}.json", std::process::id()));
        let read = || -> Value { serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap() };
        let mut report = Report::new(path.clone(), "abc").unwrap();
        assert_eq!((&read()["complete"], &read()["commit"]), (&json!(false), &json!("abc")));
        report.part("one", Ok(map(json!({ "rows": [1], "scaling": { "alone": 1 } })))).unwrap();
        report.part("two", Err(Failure::new("the machine ended"))).unwrap();
        report.part("three", Ok(map(json!({ "scaling": { "queues": 2 } })))).unwrap();
        let file = read();
        assert_eq!((&file["rows"], &file["complete"]), (&json!([1]), &json!(false)));
        assert_eq!(file["scaling"], json!({ "alone": 1, "queues": 2 }));
        assert_eq!(file["failed"], json!([{ "part": "two", "why": "the machine ended" }]));
        assert!(report.end().unwrap_err().to_string().contains("two: the machine ended"));
        assert_eq!(read()["complete"], json!(false));
        let mut report = Report::new(path.clone(), "abc").unwrap();
        report.part("one", Ok(map(json!({ "rows": [2] })))).unwrap();
        report.end().unwrap();
        let file = read();
        assert_eq!(
            (&file["rows"], &file["complete"], &file["failed"]),
            (&json!([2]), &json!(true), &json!([]))
        );
        std::fs::remove_file(path).unwrap();
    }
}
