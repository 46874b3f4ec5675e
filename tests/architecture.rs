//! The one rule of the architecture: a room imports only rooms declared above it in `lib.rs`.

use std::fs;
use std::path::{Path, PathBuf};

fn rooms() -> Vec<String> {
    let lib = fs::read_to_string("src/lib.rs").expect("src/lib.rs is there");
    lib.lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';').map(str::to_owned))
        .collect()
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder").map(|entry| entry.expect("an entry").path())
    {
        if entry.is_dir() {
            rust_files(&entry, into);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            into.push(entry);
        }
    }
}

/// Rooms named by `crate::ROOM` in a line of code, also within `use crate::{a::…, b::…}`.
fn named_rooms<'a>(code: &str, rooms: &'a [String]) -> Vec<&'a String> {
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let inner = match rest.strip_prefix('{') {
            None => vec![rest],
            Some(group) => {
                let mut depth = 0usize;
                let end = group
                    .find(|c| {
                        match c {
                            '{' => depth += 1,
                            '}' if depth == 0 => return true,
                            '}' => depth -= 1,
                            _ => {}
                        }
                        false
                    })
                    .unwrap_or(group.len());
                let mut depth = 0usize;
                group[..end]
                    .split(|c| {
                        match c {
                            '{' => depth += 1,
                            '}' => depth = depth.saturating_sub(1),
                            _ => {}
                        }
                        c == ',' && depth == 0
                    })
                    .collect()
            }
        };
        for path in inner {
            let name: String = path.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            named.extend(rooms.iter().filter(|room| **room == name));
        }
    }
    named
}

/// Statements of a file with the line each begins on: a `use` over several lines is one.
fn statements(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default().trim();
        match found.last_mut() {
            Some((_, statement)) if open => statement.push_str(code),
            _ => found.push((number + 1, code.to_owned())),
        }
        let starts_use = found.last().is_some_and(|(_, statement)| statement.contains("use crate::"));
        open = starts_use && !code.ends_with(';');
    }
    found
}

#[test]
fn a_room_imports_only_rooms_above_it() {
    let rooms = rooms();
    assert!(rooms.len() > 15, "lib.rs lists the rooms: {rooms:?}");
    let mut wrong = Vec::new();
    for (order, room) in rooms.iter().enumerate() {
        let mut files = Vec::new();
        rust_files(&Path::new("src").join(room), &mut files);
        for file in files {
            for (line, statement) in statements(&fs::read_to_string(&file).expect("readable source")) {
                for named in named_rooms(&statement, &rooms) {
                    let theirs = rooms.iter().position(|room| room == named).expect("named from the list");
                    if theirs > order {
                        wrong.push(format!(
                            "{}:{line}: `{room}` stands above `{named}` and may not import it",
                            file.display()
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_folder_of_src_is_a_declared_room() {
    let rooms = rooms();
    for entry in fs::read_dir("src").expect("src is there").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(
            ["lib", "main"].contains(&name.as_str()) || rooms.contains(&name),
            "{}: declare the room in src/lib.rs, in the order of the flow",
            entry.display()
        );
    }
}

#[test]
fn only_the_drill_knows_the_shop_of_the_drill() {
    let mut files = Vec::new();
    rust_files(Path::new("src"), &mut files);
    for file in files.iter().filter(|file| !file.starts_with("src/drill")) {
        let text = fs::read_to_string(file).expect("readable source");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in
            code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            assert!(
                !line.contains("\"checkout\"") && !line.contains("\"recommendation\""),
                "{}:{}: names a service of the drill's shop",
                file.display(),
                number + 1
            );
        }
    }
}

#[test]
fn names_within_groups_are_seen() {
    let rooms: Vec<String> = ["model", "store", "alert"].map(str::to_owned).to_vec();
    assert_eq!(named_rooms("use crate::{model::{self, store}, alert};", &rooms), ["model", "alert"]);
    assert_eq!(named_rooms("let x = crate::store::Ledger; $crate::alert", &rooms), ["store"]);
    assert_eq!(
        statements("use crate::model::{\n a,\n b};\nfn x() {}"),
        [(1, "use crate::model::{a,b};".to_owned()), (4, "fn x() {}".to_owned())]
    );
}
