//! Log templates: lines that differ only in their variable parts. A streaming parser in the manner
//! of Drain (He et al., ICWS 2017), with one setting for all formats: numbers, ids, addresses and
//! paths are masked before lines are compared, and runs of listed values count as one word, so that
//! lists of different lengths do not make different templates.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What stands for a variable part.
pub const VARIABLE: &str = "<*>";

/// Words of a line that are compared; what follows is ignored.
const WORDS: usize = 48;
/// Lines of which at least this share of words agree are of one template.
const SIMILAR: f64 = 0.5;
/// Most templates of one miner; lines that fit none of them are then all of one catch-all.
const TEMPLATES: usize = 4_096;
/// Most templates of one leaf.
const LEAF: usize = 128;

/// Number of a template within its miner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateId(pub u32);

/// Learns templates line by line.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    leaves: BTreeMap<(usize, String), Vec<u32>>,
    templates: Vec<Vec<Arc<str>>>,
    catch_all: Option<u32>,
}

impl Templates {
    /// The template of a line, which is made when none is similar.
    pub fn learn(&mut self, line: &str) -> TemplateId {
        let words = words(line);
        let place = words.iter().copied().find(|word| is_code_location(word));
        // Where the statement stands in the code tells it from all others, however long its lists are.
        let key = match place {
            Some(place) => (0, format!("{place} {}", leading(&words))),
            None => (words.len(), leading(&words).to_owned()),
        };
        let best = self
            .leaves
            .get(&key)
            .into_iter()
            .flatten()
            .filter_map(|&id| Some((similarity(self.templates.get(id as usize)?, &words), id)))
            .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        if let Some((similar, id)) = best
            && (place.is_some() || similar >= SIMILAR)
        {
            self.widen(id, &words);
            return TemplateId(id);
        }
        let full = self.leaves.get(&key).is_some_and(|leaf| leaf.len() >= LEAF);
        if full || self.templates.len() >= TEMPLATES {
            let templates = &mut self.templates;
            let id = *self.catch_all.get_or_insert_with(|| {
                templates.push(vec![VARIABLE.into()]);
                u32::try_from(templates.len().saturating_sub(1)).unwrap_or(u32::MAX)
            });
            return TemplateId(id);
        }
        let id = u32::try_from(self.templates.len()).unwrap_or(u32::MAX);
        self.templates.push(words.into_iter().map(Arc::from).collect());
        self.leaves.entry(key).or_default().push(id);
        TemplateId(id)
    }

    /// The template as text, with [`VARIABLE`] where its lines differ.
    #[must_use]
    pub fn text(&self, id: TemplateId) -> String {
        let words = self.templates.get(id.0 as usize);
        words.map(|words| words.iter().map(|word| &**word).collect::<Vec<_>>().join(" ")).unwrap_or_default()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.templates.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    fn widen(&mut self, id: u32, words: &[&str]) {
        let Some(template) = self.templates.get_mut(id as usize) else { return };
        template.truncate(words.len().max(1));
        for (known, word) in template.iter_mut().zip(words) {
            if **known != **word && **known != *VARIABLE {
                *known = VARIABLE.into();
            }
        }
    }
}

/// The first word that is no variable: what tells statements apart soonest.
fn leading<'a>(words: &[&'a str]) -> &'a str {
    words.iter().copied().find(|word| *word != VARIABLE).unwrap_or(VARIABLE)
}

fn similarity(template: &[Arc<str>], words: &[&str]) -> f64 {
    let (mut alike, mut compared) = (0u32, 0u32);
    for (known, word) in template.iter().zip(words) {
        // Two variables agree, but that says little: they do not count.
        if **known == *VARIABLE && *word == VARIABLE {
            continue;
        }
        compared += 1;
        alike += u32::from(**known == **word);
    }
    if compared == 0 { 1.0 } else { f64::from(alike) / f64::from(compared) }
}

/// The words of a line, variable ones masked and runs of masked ones joined.
fn words(line: &str) -> Vec<&str> {
    let mut words: Vec<&str> = Vec::new();
    let first = line.lines().next().unwrap_or_default();
    let splits = |c: char| {
        c.is_whitespace()
            || matches!(c, ',' | ';' | '=' | '[' | ']' | '(' | ')' | '{' | '}' | '"' | '\'' | '|')
    };
    for word in
        first.split(splits).map(|word| word.trim_end_matches([':', '.'])).filter(|word| !word.is_empty())
    {
        let word = if is_variable(word) && !is_code_location(word) { VARIABLE } else { word };
        if word == VARIABLE && words.last() == Some(&VARIABLE) {
            continue;
        }
        words.push(word);
        if words.len() >= WORDS {
            break;
        }
    }
    words
}

/// Whether a word is a place in source code, as loggers write it: `Class#123`, `file.go:123`.
fn is_code_location(word: &str) -> bool {
    let Some((name, line)) = word.rsplit_once(['#', ':']) else { return false };
    let is_line = (1..=5).contains(&line.len()) && line.bytes().all(|byte| byte.is_ascii_digit());
    let separator = word.as_bytes().get(name.len()).copied();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._$-/".contains(&byte));
    let is_file = || {
        const EXTENSIONS: [&str; 14] =
            ["go", "py", "rs", "java", "kt", "scala", "c", "cc", "cpp", "h", "js", "ts", "rb", "php"];
        name.rsplit_once('.').is_some_and(|(_, extension)| EXTENSIONS.contains(&extension))
    };
    is_line && is_name && (separator == Some(b'#') || is_file())
}

/// Whether a word is a number, an id, an address, a time, a path with numbers: more digits than
/// names of things have, or hexadecimal digits only.
fn is_variable(word: &str) -> bool {
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    if digits == 0 {
        return word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    }
    let letters = word.bytes().filter(u8::is_ascii_alphabetic).count();
    let starts_numeric = word
        .trim_start_matches(['-', '+', '$', '#', '/', ':', '@', '<'])
        .starts_with(|c: char| c.is_ascii_digit());
    let hexadecimal = word.len() >= 6
        && word.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b':' | b'x' | b'.'));
    starts_numeric || digits >= letters || hexadecimal || digits >= 6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_in_variables_share_a_template() {
        let mut templates = Templates::default();
        let a = templates.learn("connected to 10.0.0.1:5432 in 12 ms");
        let b = templates.learn("connected to 10.0.0.7:5432 in 4813 ms");
        let c = templates.learn("lost connection to 10.0.0.7:5432");
        assert_eq!(a, b);
        assert_ne!(a, c);
        assert_eq!(templates.text(a), "connected to <*> in <*> ms");
    }

    #[test]
    fn lists_of_different_lengths_share_a_template() {
        let mut templates = Templates::default();
        let a = templates.learn("sold seats [1, 2, 3] to user alice");
        let b = templates.learn("sold seats [17] to user bob");
        assert_eq!(a, b);
        assert_eq!(templates.text(a), "sold seats <*> to user <*>");
    }

    #[test]
    fn a_place_in_the_code_tells_statements_apart() {
        let mut templates = Templates::default();
        let a = templates
            .learn("10:00:01.5 INFO a.b.Service#34 TraceID: 88ebfbcebbbc0884 [find][found 3 of 7, 8]");
        let b = templates
            .learn("10:00:02.5 INFO a.b.Service#37 TraceID: 88ebfbcebbbc0885 [find][found 4 of 7, 8]");
        let c =
            templates.learn("10:00:03.5 INFO a.b.Service#34 TraceID: 99ebfbcebbbc0885 [find][found none]");
        assert_ne!(a, b);
        assert_eq!(a, c);
    }

    #[test]
    fn the_number_of_templates_is_bounded() {
        let mut templates = Templates::default();
        for n in 0..20_000u32 {
            let letters: String =
                format!("{n:05}").bytes().map(|digit| char::from(digit - b'0' + b'k')).collect();
            templates.learn(&letters);
        }
        assert!(templates.len() <= TEMPLATES + 1);
    }
}
