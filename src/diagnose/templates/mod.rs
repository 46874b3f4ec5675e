//! Log templates: lines that differ only in their variable parts. Streaming, one setting for all
//! formats, one look-up a line:
//!
//! 1. Words that carry a digit, paths, addresses and names of days and months are variables, runs of
//!    them count as one (so lists of different lengths make no difference), and what is left of a line
//!    is its signature. A signature that is known names its template; that is nearly every line.
//! 2. Words of letters alone are taken to be part of the statement until they are seen to vary: two
//!    templates that differ in one word stay two (“shutdown succeeded” and “startup succeeded” are two
//!    events), and become one when more than [`DISTINCT`] words have stood in that place.
//!
//! Masking before comparing is Drain's (He et al., ICWS 2017), telling constants from variables by how
//! many distinct words a place has seen is that of Logram and Brain (Yu et al., TSC 2023); here without
//! a similarity threshold, which is what has to be tuned to each format.

mod words;

use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use words::{Line, leading};

/// What stands for a variable part.
pub const VARIABLE: &str = "<*>";

/// Distinct words in one place from which on they are values.
const DISTINCT: usize = 8;
/// Words that must be left of a template when one of them is taken to be a value.
const REST: usize = 2;
/// Most templates of one miner; lines that fit none of them are then all of one catch-all.
const TEMPLATES: usize = 4_096;
/// Most signatures remembered; lines with others are looked up place by place.
const SIGNATURES: usize = 65_536;

/// Number of a template within its miner. Two may turn out to be one: [`Templates::current`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TemplateId(pub u32);

/// What has stood in one place of lines that are otherwise equal.
#[derive(Clone, Debug)]
enum Place {
    /// Templates, one a word.
    Words(Vec<u32>),
    /// It is a variable of this template.
    Variable(u32),
}

#[derive(Clone, Debug)]
struct Template {
    words: Vec<Arc<str>>,
    /// Which it has become a part of, or itself.
    part_of: u32,
}

/// Learns templates line by line.
#[derive(Clone, Debug, Default)]
pub struct Templates {
    signatures: HashMap<u64, u32, FixedState>,
    /// By the place in the source code that a line names, with its first word.
    statements: HashMap<u64, u32, FixedState>,
    places: HashMap<u64, Place, FixedState>,
    templates: Vec<Template>,
    catch_all: Option<u32>,
}

/// Equal for lines that differ only in what is variable in them.
#[must_use]
pub(super) fn signature(line: &str) -> u64 {
    Line::new(line).signature()
}

impl Templates {
    /// The template of a line, which is made when none fits.
    pub fn learn(&mut self, line: &str) -> TemplateId {
        let line = Line::new(line);
        if let Some(&id) = self.signatures.get(&line.signature()) {
            return self.current(TemplateId(id));
        }
        let id = self.place(&line);
        if self.signatures.len() < SIGNATURES {
            self.signatures.insert(line.signature(), id);
        }
        self.current(TemplateId(id))
    }

    /// Which template this one has become a part of; itself, if none.
    #[must_use]
    pub fn current(&self, id: TemplateId) -> TemplateId {
        let mut at = id.0;
        // Each step leads to an older one, so this ends.
        while let Some(next) = self.templates.get(at as usize).map(|template| template.part_of)
            && next < at
        {
            at = next;
        }
        TemplateId(at)
    }

    /// The template as text, with [`VARIABLE`] where its lines differ.
    #[must_use]
    pub fn text(&self, id: TemplateId) -> String {
        let words = self.templates.get(self.current(id).0 as usize).map(|template| &template.words);
        words.map(|words| words.iter().map(|word| &**word).collect::<Vec<_>>().join(" ")).unwrap_or_default()
    }

    /// How many were made, those included that have become parts of others.
    #[must_use]
    pub fn len(&self) -> usize {
        self.templates.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    fn place(&mut self, line: &Line<'_>) -> u32 {
        let words = line.words();
        // Where the statement stands in the code tells it from all others, however long its lists are.
        if let Some(place) = line.code_location() {
            let key = hashed(&[place, leading(&words)], None);
            if let Some(&id) = self.statements.get(&key) {
                self.widen(id, &words);
                return id;
            }
            let id = self.make(&words);
            if self.statements.len() < TEMPLATES {
                self.statements.insert(key, id);
            }
            return id;
        }
        let constants = words.iter().filter(|word| **word != VARIABLE).count();
        let keys: Vec<(usize, u64)> = if constants > REST {
            let places = words.iter().enumerate().filter(|(_, word)| **word != VARIABLE);
            places.map(|(at, _)| (at, hashed(&words, Some(at)))).collect()
        } else {
            Vec::new()
        };
        for (_, key) in &keys {
            if let Some(Place::Variable(id)) = self.places.get(key) {
                return *id;
            }
        }
        let id = self.make(&words);
        if self.catch_all == Some(id) {
            return id;
        }
        for (at, key) in keys {
            let seen = self.places.entry(key).or_insert_with(|| Place::Words(Vec::new()));
            let Place::Words(alike) = seen else { continue };
            alike.push(id);
            if alike.len() > DISTINCT {
                let alike = std::mem::take(alike);
                let oldest = self.join(&alike, at);
                self.places.insert(key, Place::Variable(oldest));
                return oldest;
            }
        }
        id
    }

    /// Makes one of templates that differ in the word at `at`.
    fn join(&mut self, alike: &[u32], at: usize) -> u32 {
        let oldest = alike.iter().map(|&id| self.current(TemplateId(id)).0).min().unwrap_or(0);
        for &id in alike {
            let top = self.current(TemplateId(id)).0;
            if let Some(template) = self.templates.get_mut(top as usize) {
                template.part_of = oldest;
            }
        }
        let words = self.templates.get_mut(oldest as usize).map(|template| &mut template.words);
        if let Some(word) = words.and_then(|words| words.get_mut(at)) {
            *word = VARIABLE.into();
        }
        oldest
    }

    fn make(&mut self, words: &[&str]) -> u32 {
        let next = u32::try_from(self.templates.len()).unwrap_or(u32::MAX);
        if self.templates.len() < TEMPLATES {
            let words = words.iter().copied().map(Arc::from).collect();
            self.templates.push(Template { words, part_of: next });
            return next;
        }
        let templates = &mut self.templates;
        *self.catch_all.get_or_insert_with(|| {
            templates.push(Template { words: vec![VARIABLE.into()], part_of: next });
            next
        })
    }

    fn widen(&mut self, id: u32, words: &[&str]) {
        let id = self.current(TemplateId(id)).0;
        let Some(template) = self.templates.get_mut(id as usize) else { return };
        template.words.truncate(words.len().max(1));
        for (known, word) in template.words.iter_mut().zip(words) {
            if **known != **word && **known != *VARIABLE {
                *known = VARIABLE.into();
            }
        }
    }
}

/// The hash of words, without the one at `without`.
fn hashed(words: &[&str], without: Option<usize>) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    for (at, word) in words.iter().enumerate() {
        if Some(at) == without {
            hasher.write_u8(1);
        } else {
            hasher.write(word.as_bytes());
            hasher.write_u8(0);
        }
    }
    hasher.finish()
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
        let a = templates.learn("sold seats [1, 2, 3] in hall 4");
        let b = templates.learn("sold seats [17] in hall 12");
        assert_eq!(a, b);
        assert_eq!(templates.text(a), "sold seats <*> in hall <*>");
    }

    #[test]
    fn a_word_is_a_value_once_many_have_stood_in_its_place() {
        let mut templates = Templates::default();
        let users = ["ann", "bob", "cem", "dora", "eva", "fay", "gus", "hal", "ida", "jim"];
        let ids: Vec<TemplateId> =
            users.iter().map(|user| templates.learn(&format!("order paid by {user} in 12 ms"))).collect();
        assert_ne!(ids.first(), ids.get(1));
        let now: Vec<TemplateId> = ids.iter().map(|id| templates.current(*id)).collect();
        assert!(now.iter().all(|id| Some(id) == now.first()), "{now:?}");
        assert_eq!(templates.text(now[0]), "order paid by <*> in <*> ms");
        assert_eq!(templates.learn("order paid by zoe in 7 ms"), now[0]);
    }

    #[test]
    fn words_that_tell_events_apart_are_kept() {
        let mut templates = Templates::default();
        let lines = ["cupsd startup succeeded", "cupsd shutdown succeeded", "VM Paused (Lifecycle Event)"];
        let ids: Vec<TemplateId> = lines.iter().map(|line| templates.learn(line)).collect();
        assert_eq!(ids, [TemplateId(0), TemplateId(1), TemplateId(2)]);
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
