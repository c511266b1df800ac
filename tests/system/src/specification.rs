//! docs/specification.md is read as a test would read it: every promise has a test, and the test is there.

use std::{collections::BTreeSet, fs, path::Path};

/// Everything that is wrong with the page.
pub fn problems(page: &str, root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let mut promises = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise ")) {
        let mut cells = row.trim_matches('|').split(" | ").map(str::trim);
        let (Some(promise), Some(tests), None) = (cells.next(), cells.next(), cells.next()) else {
            problems.push(format!("not a promise with its tests: {row}"));
            continue;
        };
        if !promises.insert(promise) {
            problems.push(format!("promised twice: {promise}"));
        }
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            problems.push(format!("nothing holds: {promise}"));
        }
        for name in names {
            let Some((file, test)) = name.split_once("::") else {
                problems.push(format!("not file::test: {name}"));
                continue;
            };
            match fs::read_to_string(root.join(file)) {
                Err(error) => problems.push(format!("{file}: {error}")),
                Ok(source) if !is_test(&source, test) => {
                    problems.push(format!("{file} has no test {test}"));
                }
                Ok(_) => {}
            }
        }
    }
    if promises.len() < 20 {
        problems.push(format!("only {} promises were found on the page", promises.len()));
    }
    problems
}

/// The source has a function of this name under `#[test]`, or one that loom runs. `#[ignore]` is none.
fn is_test(source: &str, name: &str) -> bool {
    let Some(at) = source.find(&format!("fn {name}(")) else { return false };
    // Attributes and doc comments directly above it.
    let line = source[..at].rfind('\n').map_or(0, |end| end + 1);
    let above = source[..line].lines().rev();
    let attributes: Vec<&str> = above
        .map(str::trim)
        .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
        .filter(|line| line.starts_with("#["))
        .collect();
    attributes.contains(&"#[test]") && !attributes.iter().any(|line| line.starts_with("#[ignore"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_promise_names_tests_that_exist() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        let page = fs::read_to_string(root.join("docs/specification.md")).unwrap();
        let problems = problems(&page, root);
        assert!(problems.is_empty(), "docs/specification.md:\n{}", problems.join("\n"));
    }

    #[test]
    fn what_is_wrong_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = "| promise | held by |\n|---|---|\n| A. |  |\n| B. | `src/specification.rs::what_is_wrong_is_found` |\n\
                    | B. | `src/specification.rs::is_test` |\n| C. | `src/nowhere.rs::x` |\n| D. | `x` |\n";
        let problems = problems(page, root);
        for wanted in [
            "nothing holds: A.",
            "promised twice: B.",
            "no test is_test",
            "src/nowhere.rs: ",
            "not file::test: x",
        ] {
            assert!(
                problems.iter().any(|problem| problem.contains(wanted)),
                "{wanted} is not in {problems:?}"
            );
        }
        assert_eq!(problems.len(), 6, "{problems:?}");
    }
}
