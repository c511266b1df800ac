//! "Did you mean": the nearest of several words.

use std::{string::String, vec::Vec};

/// The word nearest to `word`, if one is near enough to be a slip of the fingers.
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |text: &str| text.to_ascii_lowercase().replace(['-', '_', ' '], "");
    let (distance, best) =
        words.into_iter().map(|candidate| (distance(&fold(word), &fold(candidate)), candidate)).min()?;
    (distance <= 1 + word.len() / 4).then_some(best)
}

/// "did you mean x?", or the list of what there is.
pub fn sentence<'a>(word: &str, words: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, words.clone()) {
        Some(best) => format!("did you mean \"{best}\"?"),
        None => {
            let list: Vec<_> = words.into_iter().collect();
            if list.is_empty() {
                "none is described yet".into()
            } else {
                format!("there is: {}", list.join(", "))
            }
        }
    }
}

/// Insertions, deletions, exchanges and swaps of neighbours that make one word from the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i];
        for j in 1..=b.len() {
            let exchange = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = exchange.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let words = ["memory", "vcpus", "kernel", "initrd", "on_crash"];
        assert_eq!(nearest("memroy", words), Some("memory"));
        assert_eq!(nearest("vcpu", words), Some("vcpus"));
        assert_eq!(nearest("onCrash", words), Some("on_crash"));
        assert_eq!(nearest("network", words), None);
        assert_eq!(sentence("x", []), "none is described yet");
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("ab", "ba"), 1);
    }
}
