//! Parts of sentences.

/// Numbers of processes in one sentence.
const MOST_NUMBERS: usize = 5;

/// A number with the word that goes with it.
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// The first names, so many at most, and how many more there are.
#[must_use]
pub fn first_names(names: &[&str], most: usize) -> String {
    let shown = names.iter().take(most).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// `process 7`, or `processes 7, 8`: a few of them, and how many more there are.
#[must_use]
pub fn process_numbers(pids: &[u32]) -> String {
    let numbers: Vec<String> = pids.iter().map(u32::to_string).collect();
    let noun = if pids.len() == 1 { "process" } else { "processes" };
    format!("{noun} {}", first_names(&numbers.iter().map(String::as_str).collect::<Vec<_>>(), MOST_NUMBERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_by_a_few_numbers() {
        assert_eq!(process_numbers(&[7]), "process 7");
        assert_eq!(process_numbers(&[7, 8]), "processes 7, 8");
        assert_eq!(process_numbers(&[1, 2, 3, 4, 5, 6, 7]), "processes 1, 2, 3, 4, 5 and 2 more");
    }
}
