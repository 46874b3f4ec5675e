//! Series by id, side by side in memory.

use crate::model::SeriesId;
use hashbrown::HashTable;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// A map from series to what is known of them. A map of hashbrown would hold the values in its own table, of
/// which an eighth to more than a half is free; here only numbers lie in it.
#[derive(Clone, Debug)]
pub(super) struct Table<T> {
    entries: Vec<(SeriesId, T)>,
    /// Places of the entries.
    places: HashTable<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), places: HashTable::new() }
    }
}

/// An id is a hash already.
fn hash(id: SeriesId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl<T> Table<T> {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn place(&self, id: SeriesId) -> Option<usize> {
        let is_here = |place: &u32| self.entries.get(*place as usize).is_some_and(|(here, _)| *here == id);
        self.places.find(hash(id), is_here).map(|place| *place as usize)
    }

    pub fn get(&self, id: SeriesId) -> Option<&T> {
        self.entries.get(self.place(id)?).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, id: SeriesId) -> Option<&mut T> {
        let place = self.place(id)?;
        self.entries.get_mut(place).map(|(_, value)| value)
    }

    /// The value of a series, which is made if there is none.
    pub fn get_or_insert_with(&mut self, id: SeriesId, make: impl FnOnce() -> T) -> &mut T {
        let place = self.place(id).unwrap_or_else(|| {
            let place = self.entries.len();
            if place == self.entries.capacity() {
                // Doubling would leave a quarter of it unused.
                self.entries.reserve_exact(place / 8 + 64);
            }
            self.entries.push((id, make()));
            self.enter(place);
            place
        });
        &mut self.entries[place].1
    }

    fn enter(&mut self, place: usize) {
        let Self { entries, places } = self;
        let (Some((id, _)), Ok(number)) = (entries.get(place), u32::try_from(place)) else { return };
        let rehash = |number: &u32| entries.get(*number as usize).map_or(0, |(id, _)| hash(*id));
        places.insert_unique(hash(*id), number, rehash);
    }

    /// Each series, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (SeriesId, &T)> {
        self.entries.iter().map(|(id, value)| (*id, value))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    /// Keeps what `keep` says; gives how many went.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain_mut(|(_, value)| keep(value));
        let gone = before - self.entries.len();
        if gone > 0 {
            self.entries.shrink_to_fit();
            self.places = HashTable::with_capacity(self.entries.len());
            (0..self.entries.len()).for_each(|place| self.enter(place));
        }
        gone
    }
}

impl<T: PartialEq> PartialEq for Table<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(id, value)| other.get(id) == Some(value))
    }
}

/// As a map in the order of ids, so that equal tables are equal bytes.
impl<T: Serialize> Serialize for Table<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.iter().collect::<BTreeMap<_, _>>().serialize(to)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut table = Self::default();
        for (id, value) in BTreeMap::<SeriesId, T>::deserialize(from)? {
            table.get_or_insert_with(id, || value);
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Clone, Debug)]
    enum Change {
        Insert(u8, u32),
        /// Keeps what is no multiple.
        Retain(u32),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            20 => (any::<u8>(), any::<u32>()).prop_map(|(id, value)| Change::Insert(id, value)),
            1 => (2u32..5).prop_map(Change::Retain),
        ]
    }

    fn id(n: u8) -> SeriesId {
        // Many of one hash: only the last byte tells them apart.
        let mut id = [n / 16; 16];
        id[15] = n;
        SeriesId(id)
    }

    proptest! {
        #[test]
        fn it_is_what_a_map_is(changes in prop::collection::vec(change(), 0..300)) {
            let (mut table, mut map) = (Table::default(), HashMap::new());
            for change in changes {
                match change {
                    Change::Insert(n, value) => {
                        let here = *table.get_or_insert_with(id(n), || value);
                        prop_assert_eq!(here, *map.entry(id(n)).or_insert(value));
                    }
                    Change::Retain(of) => {
                        let before = map.len();
                        map.retain(|_, value| *value % of != 0);
                        prop_assert_eq!(table.retain(|value| *value % of != 0), before - map.len());
                    }
                }
                prop_assert_eq!(table.len(), map.len());
            }
            for n in 0..=255 {
                prop_assert_eq!(table.get(id(n)), map.get(&id(n)));
                prop_assert_eq!(table.get_mut(id(n)), map.get_mut(&id(n)));
            }
            let bytes = postcard::to_stdvec(&table).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Table<u32>>(&bytes).unwrap(), table);
        }
    }
}
