//! Names that somebody may have meant.

/// Names given at most.
const NAMED: usize = 5;
/// Most characters that are compared: the work is their square.
const COMPARED: usize = 64;

/// Of `names`, those that `wanted` may have meant, nearest first: a few letters are other ones, or one is part of the
/// other.
pub(super) fn near<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let letters = |text: &str| -> Vec<char> { text.to_lowercase().chars().take(COMPARED).collect() };
    let wanted = letters(wanted);
    let most = (wanted.len() / 3).clamp(1, 4);
    let mut found: Vec<(usize, &str)> = Vec::new();
    for name in names {
        let letters = letters(name);
        let (short, long) =
            if letters.len() < wanted.len() { (&letters, &wanted) } else { (&wanted, &letters) };
        let is_part = short.len() >= 3 && long.windows(short.len()).any(|part| part == short);
        let differs = if long.len() - short.len() > most { usize::MAX } else { distance(&wanted, &letters) };
        if differs <= most {
            found.push((differs, name));
        } else if is_part {
            found.push((most.saturating_add(1), name));
        }
    }
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(NAMED).map(|(_, name)| name).collect()
}

/// Letters that have to be put in, left out, changed or swapped with their neighbour to make one of the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let at = |row: &[usize], place: usize| row.get(place).copied().unwrap_or(usize::MAX / 2);
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let mut least =
                (at(&last, j + 1) + 1).min(at(&row, j) + 1).min(at(&last, j) + usize::from(from != to));
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                least = least.min(at(&before, j - 1) + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

/// `; near it: "a", "b"`, or nothing.
pub(super) fn near_in_words<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let near: Vec<String> = near(wanted, names).iter().map(|name| format!("{name:?}")).collect();
    if near.is_empty() { String::new() } else { format!("; near it: {}", near.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_comes_first() {
        let names = ["charge-fast", "charge-ok", "cart-availability", "payment-availability", "x"];
        assert_eq!(near("chrage-fast", names), ["charge-fast"]);
        assert_eq!(near("charge-f", names), ["charge-ok", "charge-fast"]);
        assert_eq!(near("availability", names), ["cart-availability", "payment-availability"]);
        assert_eq!(near("Charge-OK", names), ["charge-ok"]);
        assert!(near("zzz", names).is_empty() && near("", names).len() <= 1);
        assert_eq!(near_in_words("zzz", names), "");
        assert_eq!(near_in_words("charge-k", names), "; near it: \"charge-ok\"");
    }

    #[test]
    fn distances_are_those_of_the_definition() {
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        for (a, b, wanted) in
            [("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3), ("a", "b", 1)]
        {
            assert_eq!(distance(&letters(a), &letters(b)), wanted, "{a} {b}");
            assert_eq!(distance(&letters(b), &letters(a)), wanted, "{b} {a}");
        }
    }
}
